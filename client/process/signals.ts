// Signals that this program gets while it runs commands.
import type { Child } from "./child.js";
import { notIgnored } from "./inherited.js";

/** Signals by which people and supervisors ask a program to end or to look at something. */
const PASSED = notIgnored(["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"]);

/**
 * Passes the signals that this program gets on to the command, which decides what to do, until the returned
 * function is called.
 *
 * @param starting the command; a signal that comes while it is being started reaches it then.
 * @param keepsBack true while they are not for the command.
 */
export function passSignals(starting: Promise<Child>, keepsBack = (): boolean => false): () => void {
  let started: Child | undefined;
  starting.then(
    (child) => {
      started = child;
    },
    () => {},
  );
  const pass = (signal: NodeJS.Signals): void => {
    if (keepsBack()) return;
    if (started !== undefined) return started.pass(signal);
    // The terminal's signal has not reached a command that is not there yet.
    starting.then(
      (child) => child.signal(signal),
      () => {},
    );
  };
  for (const signal of PASSED) process.on(signal, pass);
  return () => {
    for (const signal of PASSED) process.off(signal, pass);
  };
}

/** A command that runs, or is being started, under a grant. */
export interface HeldCommand {
  readonly starting: Promise<Child>;
  /** Aborted when the grant is lost. */
  readonly lost: AbortSignal;
}

/**
 * Has a Ctrl-Z stop the commands together with this program, because nobody could renew their grants meanwhile. They go
 * on with it, but for those whose grant is lost. Ends when the returned function is called.
 */
export function stopTogether(commands: () => Iterable<HeldCommand>): () => void {
  const stop = async (): Promise<void> => {
    await Promise.all(
      [...commands()].map(({ starting }) => starting.then((child) => child.suspend()).catch(() => {})),
    );
    process.kill(process.pid, "SIGSTOP");
  };
  const goOn = (): void => {
    // The timers that are overdue by now run first, and tell what is lost.
    setTimeout(() => {
      for (const { starting, lost } of commands()) {
        if (!lost.aborted) void starting.then((child) => child.signal("SIGCONT")).catch(() => {});
      }
    });
  };
  const [tstp] = notIgnored(["SIGTSTP"]);
  if (tstp !== undefined) process.on(tstp, stop);
  process.on("SIGCONT", goOn);
  return () => {
    process.off("SIGTSTP", stop);
    process.off("SIGCONT", goOn);
  };
}

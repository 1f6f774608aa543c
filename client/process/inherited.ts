// Things that the starter of this program gave it beside the three streams: signals that are ignored (nohup) and
// further descriptors (a lock, the jobserver of make). `bin/pawl.js` has seen them before Node changed them.
import { constants } from "node:os";

const { PAWL_INHERITED = "" } = process.env;
// The programs that this one starts are told of it by what they inherit.
delete process.env.PAWL_INHERITED;
const [pid, mask = "0", ...descriptors] = PAWL_INHERITED.split(" ");
const isOurs = Number(pid) === process.pid;

/** Descriptors from 3 on, in ascending order. */
export const inheritedDescriptors: readonly number[] = isOurs
  ? descriptors.map(Number).sort((a, b) => a - b)
  : [];

/** The signals that were ignored at the start. What is run by `pawl` ignores them too. */
export const ignoredSignals: readonly NodeJS.Signals[] = isOurs
  ? (Object.entries(constants.signals) as [NodeJS.Signals, number][])
      .filter(([, number]) => number < 32 && (BigInt(`0x${mask}`) >> BigInt(number - 1)) & 1n)
      .map(([name]) => name)
  : [];

/** Signals that end a program or stop it, and that Node lets a program ignore. */
const IGNORABLE: readonly NodeJS.Signals[] = [
  ...(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGALRM", "SIGUSR1", "SIGUSR2"] as const),
  ...(["SIGTSTP", "SIGTTIN", "SIGTTOU"] as const),
];

/** Ignores anew what was ignored at the start: Node has set it to what ends a program. */
export function keepIgnored(): void {
  for (const signal of IGNORABLE) {
    if (ignoredSignals.includes(signal)) process.on(signal, () => {});
  }
}

/** The signals, of those given, that were not ignored at the start. */
export function notIgnored(signals: readonly NodeJS.Signals[]): readonly NodeJS.Signals[] {
  return signals.filter((signal) => !ignoredSignals.includes(signal));
}

import { fstatSync } from "node:fs";
import { isatty } from "node:tty";
import pino, { type DestinationStream, type Logger } from "pino";

/** Lines that wait for a reader of stdout that has stopped; beyond this they are dropped, not kept in memory. */
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024;
const DRAIN_MS = 500;
const STDOUT = 1;

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Before a line, the journal takes these for its priority and away (sd-daemon(3)); the rest is debug. */
const JOURNAL_PRIORITIES: readonly (readonly [from: number, prefix: string])[] = [
  [60, "<2>"],
  [50, "<3>"],
  [40, "<4>"],
  [30, "<6>"],
  [0, "<7>"],
];

export interface Log {
  logger: Logger;
  /** Whether a person is reading. */
  readonly onTerminal: boolean;
  /** Writes what is buffered at once, before a process that failed ends. */
  flush(): void;
  /** Resolves once every line is written, in order; at the latest after `DRAIN_MS`, if nobody reads them. */
  close(): Promise<void>;
}

/**
 * JSON lines on stdout, as journald and log shippers take them; readable lines when that is a terminal. The
 * journal gets the priority of each line besides, so that `journalctl -p err` finds what it should.
 */
export async function openLog(level: LogLevel): Promise<Log> {
  const onTerminal = isatty(STDOUT);
  const destination = onTerminal
    ? (await import("pino-pretty")).default({
        sync: true,
        ignore: "pid,hostname",
        translateTime: "SYS:HH:MM:ss",
      })
    : pino.destination({ dest: STDOUT, sync: false, maxLength: MAX_BUFFERED_BYTES });
  const logger = pino(
    { level, base: { pid: process.pid }, formatters: { level: (label) => ({ level: label }) } },
    isJournal(process.env.JOURNAL_STREAM) ? withPriorities(destination) : destination,
  );
  const flush = (): void => {
    try {
      if ("flushSync" in destination) destination.flushSync();
    } catch {
      // A log on a disk that fails must not keep the process from ending.
    }
  };
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      if (!("reopen" in destination)) return resolve();
      // A line that is being written would come after those that `flushSync` writes.
      const giveUp = setTimeout(resolve, DRAIN_MS);
      destination.once("close", () => {
        clearTimeout(giveUp);
        resolve();
      });
      destination.end();
    });
  return { logger, onTerminal, flush, close };
}

/** Whether stdout is the journal's own stream (`$JOURNAL_STREAM`, systemd.exec(5)): it may have been redirected. */
function isJournal(stream: string | undefined): boolean {
  if (stream === undefined) return false;
  const { dev, ino } = fstatSync(STDOUT);
  return stream === `${dev}:${ino}`;
}

function withPriorities(destination: DestinationStream): DestinationStream {
  const stream = {
    // pino tells the level of the line that it is about to write to streams that ask for it.
    [pino.symbols.needsMetadataGsym as symbol]: true,
    lastLevel: 0,
    write(line: string): void {
      const [, prefix = ""] = JOURNAL_PRIORITIES.find(([from]) => stream.lastLevel >= from) ?? [];
      destination.write(prefix + line);
    },
  };
  return stream;
}

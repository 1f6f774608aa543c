import { isatty } from "node:tty";
import pino, { type Logger } from "pino";

/** Lines that wait for a reader of stdout that has stopped; beyond this they are dropped, not kept in memory. */
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024;
const DRAIN_MS = 500;
const STDOUT = 1;

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface Log {
  logger: Logger;
  /** Writes what is buffered at once, before a process that failed ends. */
  flush(): void;
  /** Resolves once every line is written, in order; at the latest after `DRAIN_MS`, if nobody reads them. */
  close(): Promise<void>;
}

/** JSON lines on stdout, as journald and log shippers take them; readable lines when that is a terminal. */
export async function openLog(level: LogLevel): Promise<Log> {
  const destination = isatty(STDOUT)
    ? (await import("pino-pretty")).default({
        sync: true,
        ignore: "pid,hostname",
        translateTime: "SYS:HH:MM:ss",
      })
    : pino.destination({ dest: STDOUT, sync: false, maxLength: MAX_BUFFERED_BYTES });
  const logger = pino(
    { level, base: { pid: process.pid }, formatters: { level: (label) => ({ level: label }) } },
    destination,
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
  return { logger, flush, close };
}

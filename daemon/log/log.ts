/**
 * The room of the log: what is written about the daemon, and where. The room imports only
 * clock.ts; the others are given a logger.
 *
 *     log             the logger and its lines     log-writer  writes them, and never waits
 *     repeated-lines  lines that clients bring about, counted where they repeat
 */
import { fstatSync } from "node:fs";
import { isatty } from "node:tty";
import pino, { type DestinationStream, type Logger } from "pino";
import { LogWriter } from "./log-writer.js";

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
  /** True if a person is reading. */
  readonly onTerminal: boolean;
  /** How many lines could not be written in this life. */
  readonly linesDropped: number;
  /** True if a write waits for a reader that has stopped, which would keep exit(3) from ending the process. */
  readonly isHeldUp: boolean;
  /**
   * Writes what waits at once, before a process that failed ends, as far as nobody has to be waited for.
   *
   * @param hasRoom whether a descriptor takes 4,096 bytes at once.
   */
  flush(hasRoom: (fd: number) => boolean): void;
  /** Resolves once every line is written, in order; at the latest after `DRAIN_MS`, if nobody reads them. */
  close(): Promise<void>;
}

/**
 * JSON lines on stdout, as journald and log shippers take them; readable lines when that is a terminal. The journal
 * gets the priority of each line besides, so that `journalctl -p err` finds what it should. Writing a line never
 * waits, and never throws.
 */
export async function openLog(level: LogLevel): Promise<Log> {
  const onTerminal = isatty(STDOUT);
  const writer = new LogWriter(STDOUT, (dropped) =>
    logger.warn({ dropped }, "log lines were dropped, because nobody could take them"),
  );
  const destination = onTerminal ? await readable(writer) : writer;
  const logger = pino(
    {
      level,
      base: { pid: process.pid },
      formatters: { level: (label) => ({ level: label }) },
      // The pid says to a person who it is; when the process began tells it from others in the database alone.
      serializers: { caller: ({ startTicks: _, ...shown }: Record<string, unknown>) => shown },
    },
    isJournal(process.env.JOURNAL_STREAM) ? withPriorities(destination) : destination,
  );
  return {
    logger,
    onTerminal,
    get linesDropped() {
      return writer.dropped;
    },
    get isHeldUp() {
      return writer.isHeldUp;
    },
    flush: (hasRoom) => writer.flush(hasRoom),
    close: () => writer.close(DRAIN_MS),
  };
}

/** Lines for a person. */
async function readable(writer: LogWriter): Promise<DestinationStream> {
  const { prettyFactory } = await import("pino-pretty");
  const pretty = prettyFactory({
    ignore: "pid,hostname",
    translateTime: "SYS:HH:MM:ss",
    colorize: true,
    customPrettifiers: { caller: (caller) => callerShown(caller) },
  });
  return { write: (line) => writer.write(pretty(line)) };
}

/** A caller in a few words: `connection 3, pid 4711, uid 1000`. */
function callerShown(caller: unknown): string {
  return Object.entries(caller as Record<string, unknown>)
    .filter(([name, value]) => name !== "gid" && value !== null)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
}

/** True if stdout is the journal's own stream (`$JOURNAL_STREAM`, systemd.exec(5)): it may have been redirected. */
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

import type { EventKind, NotificationName } from "@pawl/protocol";
import type { Logger } from "pino";
import type { Step } from "./clock.js";
import type { RepeatedLines } from "./log/repeated-lines.js";
import type { Failure } from "./store/failure.js";
import type { EventDetails } from "./turns/journal.js";
import type { Counter } from "./turns/operation.js";
import type { Statistics } from "./turns/statistics.js";
import type { TurnReports } from "./turns/turn-loop.js";

/** Lines of one kind about what calls bring about, a broken lease or a late answer, until the others are counted. */
const MAX_EVENT_LINES = 50;

/** Counts and logs what the turn loop tells of its turns, and knows what keeps it from writing. */
export class CountedTurns implements TurnReports {
  readonly #statistics: Statistics;
  readonly #log: Logger;
  readonly #lines: RepeatedLines;
  readonly #tell: (kind: EventKind<"daemon">, details?: EventDetails) => void;
  readonly #onTrouble: () => void;
  readonly notify: (connection: number, method: NotificationName, params: object) => void;
  readonly broken: (error: unknown) => void;
  /** True if a write found no space since the last that found some. */
  #full = false;
  /** True while another program has locked the database. */
  #locked = false;

  constructor(options: {
    statistics: Statistics;
    log: Logger;
    lines: RepeatedLines;
    /** Tells those who follow the daemon. */
    tell: (kind: EventKind<"daemon">, details?: EventDetails) => void;
    /** Called when there is another `trouble`, or none any more. */
    onTrouble: () => void;
    notify: (connection: number, method: NotificationName, params: object) => void;
    broken: (error: unknown) => void;
  }) {
    this.#statistics = options.statistics;
    this.#log = options.log;
    this.#lines = options.lines;
    this.#tell = options.tell;
    this.#onTrouble = options.onTrouble;
    this.notify = options.notify;
    this.broken = options.broken;
  }

  /** The reason why nothing is written now, for people. */
  get trouble(): string | undefined {
    if (this.#full) return "No space left for the database: reads go on, writes are refused";
    return this.#locked ? "Another program has locked the database: reads go on, writes wait" : undefined;
  }

  locked(pid: number | null): void {
    this.#locked = true;
    this.#log.warn(
      { pid },
      "another program has locked the database; reads go on, writes wait and are refused",
    );
    this.#onTrouble();
  }

  unlocked(lockedMs: number): void {
    this.#locked = false;
    this.#log.info({ lockedMs: Math.round(lockedMs) }, "the database is not locked any more; writes go on");
    this.#onTrouble();
  }

  committed({ performed, commitMs, wrote }: { performed: number; commitMs: number; wrote: boolean }): void {
    this.#statistics.turn(performed, commitMs);
    if (!wrote || !this.#full) return;
    this.#full = false;
    // A client can bring both about as often as it likes, where there is space for what is small and not for the rest.
    this.#lines.log("info", "there is space for the database again; writes go on", {}, () => ({}));
    this.#onTrouble();
  }

  rolledBack(error: unknown, failure: Failure): void {
    this.#statistics.turnsRolledBack += 1;
    if (failure !== "full") {
      const text = (error as Error).message;
      this.#lines.log("error", "turn rolled back", { text }, () => ({ err: error }));
    } else if (!this.#full) {
      this.#full = true;
      const message = "no space left for the database; writes are refused until there is";
      this.#lines.log("error", message, {}, () => ({ err: error }));
      this.#tell("full");
      this.#onTrouble();
    }
  }

  stepped(step: Step): void {
    this.#log.warn(step, "the wall clock was set; whatever was given as a duration goes on as it was");
    this.#tell("stepped", { to: String(step.steppedAt), reason: `by ${step.byMs} ms` });
  }

  count(counter: Counter, by: number): void {
    this.#statistics.counters[counter] += by;
  }

  log(message: string, details: object): void {
    this.#lines.log("info", message, {}, () => details, MAX_EVENT_LINES);
  }
}

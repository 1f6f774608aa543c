import type { NotificationName } from "@pawl/protocol";
import type { Logger } from "pino";
import type { Step } from "./clock.js";
import type { RepeatedLines } from "./log/repeated-lines.js";
import type { Failure } from "./store/failure.js";
import type { Counter } from "./turns/operation.js";
import type { Statistics } from "./turns/statistics.js";
import type { TurnReports } from "./turns/turn-loop.js";

/** Lines of one kind about what calls bring about, a broken lease or a late answer, until the others are counted. */
const MAX_EVENT_LINES = 50;

/** Counts and logs what the turn loop tells of its turns, and knows whether the disk is full. */
export class CountedTurns implements TurnReports {
  readonly #statistics: Statistics;
  readonly #log: Logger;
  readonly #lines: RepeatedLines;
  readonly #onSpaceChange: () => void;
  readonly notify: (connection: number, method: NotificationName, params: object) => void;
  readonly broken: (error: unknown) => void;
  /** True if a write found no space since the last that found some. */
  #full = false;

  constructor(options: {
    statistics: Statistics;
    log: Logger;
    lines: RepeatedLines;
    /** Called when the disk is full, and when it is not any more. */
    onSpaceChange: () => void;
    notify: (connection: number, method: NotificationName, params: object) => void;
    broken: (error: unknown) => void;
  }) {
    this.#statistics = options.statistics;
    this.#log = options.log;
    this.#lines = options.lines;
    this.#onSpaceChange = options.onSpaceChange;
    this.notify = options.notify;
    this.broken = options.broken;
  }

  get diskFull(): boolean {
    return this.#full;
  }

  committed({ performed, commitMs, wrote }: { performed: number; commitMs: number; wrote: boolean }): void {
    this.#statistics.turn(performed, commitMs);
    if (!wrote || !this.#full) return;
    this.#full = false;
    this.#log.info("there is space for the database again; writes go on");
    this.#onSpaceChange();
  }

  rolledBack(error: unknown, failure: Failure): void {
    this.#statistics.turnsRolledBack += 1;
    if (failure !== "full") {
      const text = (error as Error).message;
      this.#lines.log("error", "turn rolled back", { text }, () => ({ err: error }));
    } else if (!this.#full) {
      this.#full = true;
      this.#log.error({ err: error }, "no space left for the database; writes are refused until there is");
      this.#onSpaceChange();
    }
  }

  stepped(step: Step): void {
    this.#log.warn(step, "the wall clock was set; whatever was given as a duration goes on as it was");
  }

  count(counter: Counter, by: number): void {
    this.#statistics.counters[counter] += by;
  }

  log(message: string, details: object): void {
    this.#lines.log("info", message, {}, () => details, MAX_EVENT_LINES);
  }
}

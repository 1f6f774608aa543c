import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import type { ErrorKind } from "@pawl/protocol/errors";
import type { Counter } from "./operation.js";
import { bucketOf, type Histogram } from "./tally.js";

const NANOSECONDS_PER_MS = 1e6;

/** Exact to 1 %: a histogram that is exact to 0.1 % takes 360 KB. */
const FIGURES = { figures: 2 };

/** The upper bounds of how long commits take, in milliseconds. */
const COMMIT_BOUNDS_MS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 1_000] as const;

/** The counts of the daemon from its start on, for `daemon.stats`. */
export class Statistics {
  readonly requests = new Map<string, number>();
  readonly errors = new Map<string, Map<ErrorKind, number>>();
  readonly counters: Record<Counter, number> = {
    sequencesDispensed: 0,
    commandAnswersLate: 0,
    commandsEndedSUCCEEDED: 0,
    commandsEndedFAILED: 0,
    commandsEndedEXPIRED: 0,
    commandsPENDING_UPLOAD: 0,
    commandsPENDING: 0,
    commandsDISPATCHED: 0,
    commandsSUCCEEDED: 0,
    commandsFAILED: 0,
    commandsEXPIRED: 0,
    readyBatches: 0,
    scheduledBatches: 0,
    blockedBatches: 0,
    claimedBatches: 0,
    completedBatches: 0,
    deadBatches: 0,
    cancelledBatches: 0,
    expiredBatches: 0,
    leases: 0,
    reservations: 0,
    items: 0,
  };
  turnsCommitted = 0;
  turnsRolledBack = 0;
  operations = 0;
  /** How many commits took up to each bound, those beyond the last, and all of them together. */
  readonly #commits = new Float64Array(COMMIT_BOUNDS_MS.length + 1);
  #commitsMs = 0;
  readonly #operationsPerTurn = createHistogram(FIGURES);
  readonly #commitNanoseconds = createHistogram(FIGURES);

  request(method: string): void {
    this.requests.set(method, (this.requests.get(method) ?? 0) + 1);
  }

  /** @param method `-` for a line that names no method. */
  error(method: string, kind: ErrorKind): void {
    const kinds = this.errors.get(method) ?? new Map<ErrorKind, number>();
    this.errors.set(method, kinds);
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }

  turn(operations: number, commitMs: number): void {
    this.turnsCommitted += 1;
    this.operations += operations;
    this.#operationsPerTurn.record(Math.max(1, operations));
    const bucket = bucketOf(commitMs, COMMIT_BOUNDS_MS);
    this.#commits[bucket] = (this.#commits[bucket] as number) + 1;
    this.#commitsMs += commitMs;
    this.#commitNanoseconds.record(Math.max(1, Math.round(commitMs * NANOSECONDS_PER_MS)));
  }

  get operationsPerTurn(): { p50: number; p99: number; max: number } {
    return summary(this.#operationsPerTurn, 1);
  }

  get commits(): Histogram {
    return { bounds: COMMIT_BOUNDS_MS, counts: [...this.#commits], sum: this.#commitsMs };
  }

  get commitMs(): { p50: number; p99: number; max: number } {
    return summary(this.#commitNanoseconds, NANOSECONDS_PER_MS);
  }
}

function summary(histogram: RecordableHistogram, unit: number): { p50: number; p99: number; max: number } {
  if (histogram.count === 0) return { p50: 0, p99: 0, max: 0 };
  return {
    p50: histogram.percentile(50) / unit,
    p99: histogram.percentile(99) / unit,
    max: histogram.max / unit,
  };
}

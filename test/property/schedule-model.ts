// Schedules as the specification has them, in the simplest words there are: no rows, no steps, no timers. Of queues it
// has what schedules have to do with: how batches stand, how many wait, and which sourceKeys are in use.
import type { Params } from "@pawl/protocol";

/** An occurrence was missed if no daemon came to it within so long, or if there was none. */
export const IN_TIME_MS = 10_000;
/** A clock that is put right by no more has not been set back. */
const PUT_RIGHT_MS = 1000;
/** Of missed ones so many are made up for. */
const MAX_MADE_UP = 1000;

export type Definition = Params<"schedule.set">;

/** A rhythm of the same time between all occurrences: each is at `phase` and so many periods. */
export interface Rhythm {
  readonly periodMs: number;
  readonly phase: number;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Expressions that always have the same time between them, the last by the clock of INDIA. */
export const CRONS: Readonly<Record<string, Rhythm>> = {
  "*/20 * * * * *": { periodMs: 20_000, phase: 0 },
  "*/10 * * * *": { periodMs: 10 * MINUTE, phase: 0 },
  "13 * * * *": { periodMs: HOUR, phase: 13 * MINUTE },
  "30 23 * * *": { periodMs: DAY, phase: 23.5 * HOUR },
  "45 4 * * *": { periodMs: DAY, phase: 23.25 * HOUR },
};
export const INDIA = { cron: "45 4 * * *", timeZone: "Asia/Kolkata" };

export type State = "ready" | "blocked" | "claimed" | "completed" | "dead" | "cancelled";

export interface ModelBatch {
  readonly number: number;
  /** Unknown until it is seen. */
  batchId: string | undefined;
  /** The schedule that it is of, also if it was put in by hand. */
  readonly of: string;
  readonly sourceKey: string | null;
  readonly content: Pick<Definition, "payloads" | "priority" | "key" | "maxAttempts">;
  queue: string;
  state: State;
  /** The batch for whose end it waits, or waited. */
  readonly after: ModelBatch | undefined;
  isRemoved: boolean;
}

export interface ModelSchedule {
  readonly name: string;
  definition: Definition;
  rhythm: Rhythm;
  nextAt: number | null;
  /** By the wall clock, when that was found. */
  basedAt: number;
  lastAt: number | null;
  last: ModelBatch | undefined;
}

export function isOver({ state }: ModelBatch): boolean {
  return !["ready", "blocked", "claimed"].includes(state);
}

/** What the daemon has to do, by the words of the specification. A transaction that is undone is a copy thrown away. */
export class Model {
  readonly schedules = new Map<string, ModelSchedule>();
  readonly batches: ModelBatch[] = [];
  readonly maxWaiting = new Map<string, number>();
  /** The wall clock, as the daemon saw it last. */
  wall: number;
  #numbers = 0;
  #inTimeMs = IN_TIME_MS;

  constructor(wall: number) {
    this.wall = wall;
  }

  copy(): Model {
    const copy = new Model(this.wall);
    const copied = structuredClone({
      schedules: this.schedules,
      batches: this.batches,
      maxWaiting: this.maxWaiting,
    });
    for (const [name, each] of copied.schedules) copy.schedules.set(name, each);
    for (const [queue, most] of copied.maxWaiting) copy.maxWaiting.set(queue, most);
    copy.batches.push(...copied.batches);
    copy.#numbers = this.#numbers;
    return copy;
  }

  /** The daemon looks at the wall clock, so long after its start. */
  look(wall: number, sinceStartMs: number): void {
    this.wall = wall;
    this.#inTimeMs = Math.min(IN_TIME_MS, sinceStartMs);
    for (const each of this.schedules.values()) {
      if (each.basedAt > wall + PUT_RIGHT_MS) {
        each.nextAt = this.nextOf(each);
        each.basedAt = wall;
      }
      this.#come(each);
    }
  }

  /** The first occurrence after a time, if there is one; after now, unless told otherwise. */
  nextOf({ definition, rhythm }: ModelSchedule, after = this.wall): number | null {
    const { enabled = true, endAt = Number.POSITIVE_INFINITY } = definition;
    const { periodMs, phase } = rhythm;
    const next = phase + (Math.floor((after - phase) / periodMs) + 1) * periodMs;
    return enabled && next < endAt ? next : null;
  }

  /** The occurrences that come next. */
  timesOf(schedule: ModelSchedule, count: number): number[] {
    const times: number[] = [];
    for (let at = schedule.nextAt; at !== null && times.length < count; at = this.nextOf(schedule, at))
      times.push(at);
    return times;
  }

  #come(schedule: ModelSchedule): void {
    const { nextAt, definition, rhythm } = schedule;
    if (nextAt === null || nextAt > this.wall) return;
    const { missed = "last", missedWindowMs = DAY, endAt = Number.POSITIVE_INFINITY } = definition;
    const before = (time: number): number =>
      rhythm.phase + (Math.ceil((time - rhythm.phase) / rhythm.periodMs) - 1) * rhythm.periodMs;
    const times: number[] = [];
    let madeUp = 0;
    for (let at = before(Math.min(endAt, this.wall + 1)); at >= nextAt; at -= rhythm.periodMs) {
      const isMissed = at < this.wall - this.#inTimeMs;
      if (isMissed) {
        const most = { none: 0, last: 1, all: MAX_MADE_UP }[missed];
        if (at < this.wall - missedWindowMs || madeUp === most) break;
        madeUp += 1;
      }
      times.unshift(at);
    }
    for (const at of times) this.#occur(schedule, at);
    schedule.nextAt = this.nextOf(schedule);
    schedule.basedAt = this.wall;
  }

  #occur(schedule: ModelSchedule, at: number): void {
    const { name, definition, last } = schedule;
    const { queue, overlap = "one" } = definition;
    const sourceKey = `schedule:${name}@${at}`;
    const running = last === undefined || last.isRemoved || isOver(last) ? undefined : last;
    if (overlap === "skip" && running !== undefined) return;
    if (overlap === "one" && running !== undefined && running.state !== "claimed") return;
    const known = this.inUse(queue, sourceKey);
    if (known !== undefined) {
      // To this one the clock has come before, unless it was put in since.
      if (known.number > (last?.number ?? 0)) Object.assign(schedule, { lastAt: at, last: known });
      return;
    }
    const after = overlap === "one" ? running : undefined;
    if (this.isFull(queue)) return;
    const batch = this.add(name, queue, definition, sourceKey, after);
    Object.assign(schedule, { lastAt: at, last: batch });
  }

  set(definition: Definition): void {
    const { name, everyMs, cron = "" } = definition;
    const known = this.schedules.get(name);
    if (known !== undefined && sameText(known.definition) === sameText(definition)) return;
    const rhythm = everyMs === undefined ? CRONS[cron] : { periodMs: everyMs, phase: this.wall };
    const { lastAt, last } = known ?? { lastAt: null, last: undefined };
    const schedule: ModelSchedule = {
      name,
      definition,
      rhythm: rhythm as Rhythm,
      nextAt: null,
      basedAt: this.wall,
      lastAt,
      last,
    };
    schedule.nextAt = this.nextOf(schedule);
    this.schedules.set(name, schedule);
  }

  /** What `run` enqueues; nothing in a full queue. */
  run({ name, definition }: ModelSchedule): ModelBatch | undefined {
    const { queue } = definition;
    return this.isFull(queue) ? undefined : this.add(name, queue, definition, null, undefined);
  }

  isFull(queue: string): boolean {
    const waiting = this.batches.filter(
      (each) => !each.isRemoved && each.queue === queue && ["ready", "blocked"].includes(each.state),
    );
    return waiting.length >= (this.maxWaiting.get(queue) ?? Number.POSITIVE_INFINITY);
  }

  /** The batch of a queue that has this sourceKey. */
  inUse(queue: string, sourceKey: string): ModelBatch | undefined {
    return this.batches.find(
      (each) => !each.isRemoved && each.queue === queue && each.sourceKey === sourceKey,
    );
  }

  add(
    of: string,
    queue: string,
    { payloads, priority, key, maxAttempts }: ModelBatch["content"],
    sourceKey: string | null,
    after: ModelBatch | undefined,
  ): ModelBatch {
    const batch: ModelBatch = {
      number: ++this.#numbers,
      batchId: undefined,
      of,
      sourceKey,
      content: {
        payloads,
        ...(priority === undefined ? {} : { priority }),
        ...(key === undefined ? {} : { key }),
        ...(maxAttempts === undefined ? {} : { maxAttempts }),
      },
      queue,
      state: after === undefined ? "ready" : "blocked",
      after,
      isRemoved: false,
    };
    this.batches.push(batch);
    return batch;
  }

  /** A batch ends, and what waited for that is ready. */
  end(batch: ModelBatch, state: State): void {
    batch.state = state;
    for (const each of this.batches)
      if (each.after === batch && each.state === "blocked") each.state = "ready";
  }

  retry(batch: ModelBatch): boolean {
    if (batch.state !== "dead" && batch.state !== "cancelled") return false;
    const waits = batch.after !== undefined && !batch.after.isRemoved && !isOver(batch.after);
    batch.state = waits ? "blocked" : "ready";
    return true;
  }

  move(batch: ModelBatch, to: string): boolean {
    const { state, sourceKey, queue } = batch;
    if (state === "claimed" || state === "completed" || queue === to) return false;
    if (sourceKey !== null && this.inUse(to, sourceKey) !== undefined) return false;
    batch.queue = to;
    return true;
  }

  /** Whether a batch can be removed: it is final, and nobody waits for it. */
  mayRemove(batch: ModelBatch): boolean {
    return (
      isOver(batch) &&
      !this.batches.some(
        ({ after, state, isRemoved }) => after === batch && state === "blocked" && !isRemoved,
      )
    );
  }
}

/** A definition with all that was not given, in one order. */
function sameText({
  timeZone = "UTC",
  priority = 0,
  overlap = "one",
  missed = "last",
  missedWindowMs = DAY,
  enabled = true,
  ...rest
}: Definition): string {
  const { queue, payloads, cron, everyMs, key, maxAttempts, endAt } = rest;
  const given = { queue, payloads, cron, everyMs, timeZone, priority, key, maxAttempts };
  return JSON.stringify([given, overlap, missed, missedWindowMs, enabled, endAt]);
}

// Occurrences: the batches that schedules enqueue when their time has come, and those that were missed.

import type { BatchState } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_MISSED_OCCURRENCES, MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { dueWallAt, type Ending } from "../../grants/ending.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { isFinal } from "../queue/row.js";
import { enqueueBatch, type ScheduleRow, type Times, timesOf } from "./row.js";

/** Occurrences that one turn enqueues or looks at: some 4 ms of work. */
const OCCURRENCES_PER_STEP = 25;
/** An occurrence is missed if the daemon came to it later than this, or was started after its time. */
const ON_TIME_MS = 10_000;
/** A clock that is put right by less has not been set back. */
const SET_BACK_MS = 1000;

const selectBounds = sql<{ next_at: number | null; based_at: number | null }>(`
  SELECT (SELECT min(next_at) FROM pawl_schedule WHERE next_at IS NOT NULL) AS next_at,
    (SELECT max(based_at) FROM pawl_schedule WHERE based_at IS NOT NULL) AS based_at`);

const selectDue = sql<{ schedule_id: number }>(`
  SELECT schedule_id FROM pawl_schedule WHERE next_at IS NOT NULL AND next_at <= :wallMs
  ORDER BY next_at, schedule_id LIMIT :rows`);

const selectAhead = sql<{ schedule_id: number }>(`
  SELECT schedule_id FROM pawl_schedule WHERE based_at IS NOT NULL AND based_at > :until
  ORDER BY based_at LIMIT :rows`);

const selectById = sql<ScheduleRow>("SELECT * FROM pawl_schedule WHERE schedule_id = :id");

const selectState = sql<{ state: BatchState }>(
  "SELECT state FROM pawl_batch WHERE enqueue_seq = :seq AND batch_id = :batchId",
);

const update = sql(`
  UPDATE pawl_schedule SET next_at = :nextAt, based_at = :basedAt, last_at = :lastAt, last_batch_id = :lastBatchId,
    last_seq = :lastSeq, make_up_until = :makeUpUntil, sought_at = :soughtAt, sought = :sought
  WHERE schedule_id = :id`);

const standStill = sql("UPDATE pawl_schedule SET next_at = NULL, based_at = NULL WHERE schedule_id = :id");

const selectEnabled = sql<{ schedule_id: number }>(
  "SELECT schedule_id FROM pawl_schedule WHERE next_at IS NOT NULL LIMIT 1",
);

/** When the daemon was started, in elapsed time: what came before then was missed. */
const noteStart = sql(`
  INSERT INTO pawl_meta (key, value) SELECT 'schedules_from', :now
  WHERE EXISTS (SELECT 1 FROM pawl_schedule WHERE next_at IS NOT NULL)
  ON CONFLICT (key) DO UPDATE SET value = excluded.value`);

const selectStart = sql<{ value: string }>("SELECT value FROM pawl_meta WHERE key = 'schedules_from'");

/** Schedules whose time has come, and those whose time is to be found anew because the clock was set back. */
export const occurrences: Ending = {
  *earliest() {
    return dueWallAt((yield* one(selectBounds))?.next_at);
  },

  *expire(env, most) {
    const { next_at: nextAt = null, based_at: basedAt = null } = (yield* one(selectBounds)) ?? {};
    if (basedAt === null) return 0;
    const { wallMs } = env;
    const rows = Math.min(most, OCCURRENCES_PER_STEP);
    let done = 0;
    if (basedAt > wallMs + SET_BACK_MS) {
      for (const { schedule_id: id } of yield* all(selectAhead, { until: wallMs + SET_BACK_MS, rows })) {
        yield* findAnew((yield* one(selectById, { id })) as ScheduleRow, env);
        done += 1;
      }
    }
    if (nextAt !== null && nextAt <= wallMs && done < rows) done += yield* enqueueDue(rows - done, env);
    return done < rows ? done : most;
  },

  *restart(env) {
    yield* run(noteStart, { now: String(env.now) });
  },

  /** A daemon with an enabled schedule is not idle. */
  *latest() {
    return (yield* someEnabled()) ? [Number.POSITIVE_INFINITY] : [];
  },
};

export function* someEnabled(): Operation<boolean> {
  return (yield* one(selectEnabled)) !== undefined;
}

/** The clock was set back: an occurrence that it comes to again and that was enqueued is not enqueued again. */
function* findAnew(row: ScheduleRow, env: Env): Operation<void> {
  const times = timesOf(row);
  if (times instanceof PawlError) return yield* stop(row, times, env);
  row.make_up_until = null;
  row.sought_at = null;
  row.sought = null;
  yield* keep(row, times.next(env.wallMs), env);
}

/** Enqueues what is due, the earliest first; returns how many occurrences it has come past. */
function* enqueueDue(most: number, env: Env): Operation<number> {
  const started = Number((yield* one(selectStart))?.value ?? Number.NEGATIVE_INFINITY);
  // Enqueued in time by the clock as it is now.
  const onTimeFrom = env.wallMs - Math.min(ON_TIME_MS, env.now - started);
  const step: Step = { left: most, leftBytes: MAX_PAGE_BYTES, onTimeFrom };
  for (const { schedule_id: id } of yield* all(selectDue, { wallMs: env.wallMs, rows: most })) {
    if (step.left <= 0 || step.leftBytes <= 0) return most;
    const row = (yield* one(selectById, { id })) as ScheduleRow;
    const times = timesOf(row);
    if (times instanceof PawlError) yield* stop(row, times, env);
    else yield* keep(row, yield* advance(row, times, step, env), env);
  }
  return most - step.left;
}

/** What a turn may still do. */
interface Step {
  /** Occurrences. */
  left: number;
  leftBytes: number;
  /** Occurrences before then were missed. */
  readonly onTimeFrom: number;
}

/** Enqueues the occurrences of a schedule that have come. Returns the time of the first that it has not come to. */
function* advance(row: ScheduleRow, times: Times, step: Step, env: Env): Operation<number | undefined> {
  let at: number | undefined = row.next_at as number;
  while (at !== undefined && at <= env.wallMs && step.left > 0 && step.leftBytes > 0) {
    step.left -= 1;
    const isSought = row.sought_at === null && at < (row.make_up_until ?? Number.NEGATIVE_INFINITY);
    const isMissed = at < step.onTimeFrom && !isSought;
    const first = isMissed ? firstToMakeUp(row, at, times, step, env) : at;
    if (first === SEEKING) return at;
    if (isMissed && first !== at) tellMissed(row, at, first, env);
    if (first !== undefined) yield* occur(row, first, step, env);
    at = times.next(first ?? step.onTimeFrom - 1);
  }
  return at;
}

/** Says that what is missed is still being sought. */
const SEEKING = "seeking";

/** The first of the occurrences from `at` on that were missed and are made up for; undefined for none. */
function firstToMakeUp(
  row: ScheduleRow,
  at: number,
  times: Times,
  step: Step,
  env: Env,
): number | undefined | typeof SEEKING {
  const least = Math.max(at, env.wallMs - row.missed_window_ms);
  if (row.missed === "none") return undefined;
  if (row.missed === "last") {
    const last = times.previous(step.onTimeFrom);
    return last !== undefined && last >= least ? last : undefined;
  }
  // All, but no more than so many: they are counted from the last one back, in steps.
  if (row.sought_at === null) {
    row.make_up_until = step.onTimeFrom;
    row.sought_at = step.onTimeFrom;
    row.sought = 0;
  }
  let sought = row.sought ?? 0;
  let from = row.sought_at;
  for (; sought < MAX_MISSED_OCCURRENCES; sought += 1) {
    const before = times.previous(from);
    if (before === undefined || before < least) break;
    from = before;
    step.left -= 1;
    if (step.left > 0) continue;
    row.sought_at = from;
    row.sought = sought + 1;
    return SEEKING;
  }
  row.sought_at = null;
  row.sought = null;
  return sought === 0 ? undefined : from;
}

/** Enqueues one occurrence, unless it was enqueued before, the last one is in its way, or its queue is full. */
function* occur(row: ScheduleRow, at: number, step: Step, env: Env): Operation<void> {
  if (at === row.last_at) return;
  const unfinished = row.overlap === "all" ? undefined : yield* unfinishedOf(row);
  // At most one waits, and where one may, it waits for the end of the one that is worked on.
  const isHindered = unfinished !== undefined && (row.overlap === "skip" || unfinished.state !== "claimed");
  if (isHindered) return tellSkipped(row, at, "overlap", env);
  step.leftBytes -= row.payloads.length;
  const enqueued = yield* enqueueBatch(row, `schedule:${row.name}@${at}`, env, unfinished?.batchId);
  if (enqueued instanceof PawlError) return tellSkipped(row, at, enqueued, env);
  if (!enqueued.created && enqueued.enqueueSeq <= (row.last_seq ?? 0)) return;
  row.last_at = at;
  row.last_batch_id = enqueued.batchId;
  row.last_seq = enqueued.enqueueSeq;
  env.effects.tell("schedule", row.name, "ran", enqueued.batchId);
}

/** The batch of the last occurrence, if it is not finished. */
function* unfinishedOf({
  last_seq: seq,
  last_batch_id: batchId,
}: ScheduleRow): Operation<{ readonly batchId: string; readonly state: BatchState } | undefined> {
  if (seq === null || batchId === null) return undefined;
  const state = (yield* one(selectState, { seq, batchId }))?.state;
  return state === undefined || isFinal(state) ? undefined : { batchId, state };
}

/**
 * Keeps what has become of a schedule, and when it comes next. Undefined is its end, before which a clock that is set
 * back may stand again.
 */
function* keep(row: ScheduleRow, at: number | undefined, env: Env): Operation<void> {
  yield* run(update, {
    id: row.schedule_id,
    nextAt: at ?? null,
    basedAt: Math.min(env.wallMs, (at ?? Number.POSITIVE_INFINITY) - 1),
    lastAt: row.last_at,
    lastBatchId: row.last_batch_id,
    lastSeq: row.last_seq,
    makeUpUntil: row.make_up_until,
    soughtAt: row.sought_at,
    sought: row.sought,
  });
}

/** Its expression or time zone cannot be read any more: it stands still, and everything else goes on. */
function* stop(row: ScheduleRow, why: PawlError, env: Env): Operation<void> {
  env.effects.log("a schedule cannot be read and stands still; set it anew", {
    schedule: row.name,
    why: why.message,
  });
  yield* run(standStill, { id: row.schedule_id });
}

/** An occurrence was not enqueued. An operator wants to know of it but where `overlap` says so. */
function tellSkipped({ name }: ScheduleRow, at: number, why: "overlap" | PawlError, env: Env): void {
  const reason = why === "overlap" ? why : why.message;
  env.effects.tell("schedule", name, "skipped", `${at}`, { reason });
  if (why !== "overlap")
    env.effects.log("an occurrence of a schedule was skipped", { schedule: name, at, reason });
}

/** Occurrences were missed, from `from` on; `first` is the first that is made up for, undefined for none. */
function tellMissed(row: ScheduleRow, from: number, first: number | undefined, env: Env): void {
  env.effects.log("occurrences of a schedule were missed", {
    schedule: row.name,
    from,
    madeUpFrom: first ?? null,
  });
}

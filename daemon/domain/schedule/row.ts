// A schedule: its row, its shape in replies, its times, and the batch that it enqueues.
import type { Missed, Overlap, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { keptJson, type RawJson } from "../../json/raw-json.js";
import { type Operation, one, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { enqueue } from "../queue/enqueue.js";
import { CronTimes } from "./cron.js";

/** All times are those of the wall clock; store/schema/0018-schedule.sql says what each is. */
export interface ScheduleRow {
  readonly schedule_id: number;
  readonly name: string;
  readonly cron: string | null;
  readonly every_ms: number | null;
  readonly time_zone: string;
  readonly queue: string;
  /** As JSON, as they were sent. */
  readonly payloads: string;
  readonly priority: number;
  readonly key: string | null;
  readonly max_attempts: number | null;
  readonly overlap: Overlap;
  readonly missed: Missed;
  readonly missed_window_ms: number;
  readonly enabled: 0 | 1;
  readonly end_at: number | null;
  readonly anchor_at: number;
  next_at: number | null;
  based_at: number | null;
  last_at: number | null;
  last_batch_id: string | null;
  last_seq: number | null;
  make_up_until: number | null;
  sought_at: number | null;
  sought: number | null;
}

/** What a caller sets. */
export type Definition = Omit<
  ScheduleRow,
  | "schedule_id"
  | "anchor_at"
  | "next_at"
  | "based_at"
  | "last_at"
  | "last_batch_id"
  | "last_seq"
  | "make_up_until"
  | "sought_at"
  | "sought"
>;

/** A schedule as replies show it. */
export type Schedule = Result<"schedule.get">["schedule"];

const selectByName = sql<ScheduleRow>("SELECT * FROM pawl_schedule WHERE name = :name");

/** A schedule, or undefined. */
export function* find(name: string): Operation<ScheduleRow | undefined> {
  return yield* one(selectByName, { name });
}

/** A schedule, or `not_found`. */
export function* byName(name: string): Operation<ScheduleRow | PawlError> {
  return (yield* find(name)) ?? noSchedule(name);
}

function noSchedule(name: string): PawlError {
  return refuse(
    "not_found",
    `There is no schedule ${shown(name)}. schedule.list names those that are there.`,
    {
      what: "schedule",
      schedule: name,
    },
  );
}

/** Throws for a row as it is kept whose text would be no JSON, as after a bit of the database has flipped. */
export function shownSchedule(row: ScheduleRow): Schedule {
  return {
    name: row.name,
    cron: row.cron,
    everyMs: row.every_ms,
    timeZone: row.time_zone,
    queue: row.queue,
    payloads: keptJson(row.payloads, `The schedule ${row.schedule_id}`) as unknown as unknown[],
    priority: row.priority,
    key: row.key,
    maxAttempts: row.max_attempts,
    overlap: row.overlap,
    missed: row.missed,
    missedWindowMs: row.missed_window_ms,
    enabled: row.enabled === 1,
    endAt: row.end_at,
    nextAt: row.next_at,
    lastAt: row.last_at,
    lastBatchId: row.last_batch_id,
  };
}

/** When something comes. */
export interface Times {
  /** The first time after `after`; undefined if there is none. */
  next(after: number): number | undefined;
  /** The last time before `before`; undefined if there is none. */
  previous(before: number): number | undefined;
}

type Rhythm = Pick<ScheduleRow, "cron" | "every_ms" | "time_zone" | "end_at" | "anchor_at">;

/** When a schedule comes; refuses an expression and a time zone that cannot be read. */
export function timesOf({ cron, every_ms, time_zone, end_at, anchor_at }: Rhythm): Times | PawlError {
  const times = cron === null ? everySoOften(every_ms as number, anchor_at) : CronTimes.of(cron, time_zone);
  if (times instanceof PawlError || end_at === null) return times;
  return {
    next(after) {
      const at = times.next(after);
      return at !== undefined && at < end_at ? at : undefined;
    },
    previous: (before) => times.previous(Math.min(before, end_at)),
  };
}

function everySoOften(everyMs: number, anchorAt: number): Times {
  return {
    next: (after) => anchorAt + (Math.floor((after - anchorAt) / everyMs) + 1) * everyMs,
    previous: (before) => anchorAt + (Math.ceil((before - anchorAt) / everyMs) - 1) * everyMs,
  };
}

/** A batch that was enqueued, by what is needed of it; its text is for replies. */
export interface Enqueued {
  readonly text: RawJson;
  readonly batchId: string;
  readonly enqueueSeq: number;
  readonly created: boolean;
}

/**
 * Enqueues a batch of a schedule, or finds the one that has this sourceKey, whatever its content.
 *
 * @param sourceKey undefined for one that is besides the occurrences.
 * @param behind the batch whose end it waits for, if there is one.
 */
export function* enqueueBatch(
  row: Definition,
  sourceKey: string | undefined,
  env: Env,
  behind?: string,
): Operation<Enqueued | PawlError> {
  const waiting = behind === undefined ? {} : { after: [behind], when: "finished" as const };
  const params = { ...paramsOf(row, sourceKey), ...waiting };
  const done = yield* enqueue(params, { ...env, mayWait: false }, [row.payloads]);
  if (done instanceof PawlError) return done;
  if (!("batch" in done)) throw new Error("an enqueue that may not wait was not done");
  const text = done.batch as unknown as RawJson;
  const { batchId, enqueueSeq } = JSON.parse(text.text) as { batchId: string; enqueueSeq: number };
  return { text, batchId, enqueueSeq, created: done.created };
}

/** The params of `queue.enqueue` for a batch of a schedule. */
export function paramsOf(row: Definition, sourceKey: string | undefined): Parameters<typeof enqueue>[0] {
  return {
    queue: row.queue,
    payloads: JSON.parse(row.payloads) as unknown[],
    priority: row.priority,
    ...(row.key === null ? {} : { key: row.key }),
    ...(row.max_attempts === null ? {} : { maxAttempts: row.max_attempts }),
    ...(sourceKey === undefined ? {} : { sourceKey }),
    onExisting: sourceKey === undefined ? "refuse" : "return",
    deliveryPolicy: "earliest_safe_boundary",
    slotPolicy: "exclusive",
    mergeKey: "never",
    waitMs: 0,
  };
}

// Set and delete: what a schedule is.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import { type Operation, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { draftOf } from "../queue/new-batch.js";
import { byName, type Definition, find, paramsOf, type ScheduleRow, shownSchedule, timesOf } from "./row.js";

/** Its last occurrence is kept, so that one of the definition before counts for `overlap`. */
const upsert = sql(`
  INSERT INTO pawl_schedule (name, cron, every_ms, time_zone, queue, payloads, priority, key, max_attempts, overlap,
    missed, missed_window_ms, enabled, end_at, anchor_at, next_at, based_at)
  VALUES (:name, :cron, :every_ms, :time_zone, :queue, :payloads, :priority, :key, :max_attempts, :overlap, :missed,
    :missed_window_ms, :enabled, :end_at, :anchorAt, :nextAt, :basedAt)
  ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, every_ms = excluded.every_ms,
    time_zone = excluded.time_zone, queue = excluded.queue, payloads = excluded.payloads,
    priority = excluded.priority, key = excluded.key, max_attempts = excluded.max_attempts,
    overlap = excluded.overlap, missed = excluded.missed, missed_window_ms = excluded.missed_window_ms,
    enabled = excluded.enabled, end_at = excluded.end_at, anchor_at = excluded.anchor_at,
    next_at = excluded.next_at, based_at = excluded.based_at, make_up_until = NULL, sought_at = NULL, sought = NULL`);

const deleteByName = sql("DELETE FROM pawl_schedule WHERE name = :name");

/** The same definition changes nothing, so that a program may set its schedules each time that it starts. */
export function* set(
  params: Parsed<"schedule.set">,
  env: Env,
  texts: Texts,
): Operation<Result<"schedule.set"> | PawlError> {
  const definition = definitionOf(params, texts[0] as string);
  const times = timesOf({ ...definition, anchor_at: env.wallMs });
  if (times instanceof PawlError) return times;
  const draft = draftOf(paramsOf(definition, undefined), definition.payloads, env, "/payloads");
  if (draft instanceof PawlError) return draft;
  const nextAt = times.next(env.wallMs);
  if (nextAt === undefined && definition.end_at === null) return never(definition);
  const known = yield* find(definition.name);
  if (known === undefined || !isSame(definition, known) || standsStill(known)) {
    const at = definition.enabled === 1 ? (nextAt ?? null) : null;
    yield* run(upsert, {
      ...definition,
      anchorAt: env.wallMs,
      nextAt: at,
      basedAt: definition.enabled === 1 ? env.wallMs : null,
    });
    if (at !== null) env.effects.wallDeadline(at);
    env.effects.tell("schedule", definition.name, "set", definition.name);
  }
  const row = (yield* byName(definition.name)) as ScheduleRow;
  return { schedule: shownSchedule(row) };
}

export function* remove({ name }: Parsed<"schedule.delete">, env: Env): Operation<Result<"schedule.delete">> {
  const deleted = (yield* run(deleteByName, { name })) > 0;
  if (deleted) env.effects.tell("schedule", name, "deleted", name);
  return { deleted };
}

function definitionOf(params: Parsed<"schedule.set">, payloads: string): Definition {
  return {
    name: params.name,
    cron: params.cron?.trim() ?? null,
    every_ms: params.everyMs ?? null,
    time_zone: params.timeZone,
    queue: params.queue,
    payloads,
    priority: params.priority,
    key: params.key ?? null,
    max_attempts: params.maxAttempts ?? null,
    overlap: params.overlap,
    missed: params.missed,
    missed_window_ms: params.missedWindowMs,
    enabled: params.enabled ? 1 : 0,
    end_at: params.endAt ?? null,
  };
}

function isSame(definition: Definition, known: ScheduleRow): boolean {
  return Object.entries(definition).every(([column, value]) => known[column as keyof Definition] === value);
}

/** True of one that could not be read, and is set anew now that it can be. */
function standsStill({ enabled, based_at: basedAt }: ScheduleRow): boolean {
  return enabled === 1 && basedAt === null;
}

function never({ cron }: Definition): PawlError {
  const message = `${shown(cron)} never comes`;
  return refuse("invalid_params", `cron ${message}. Look at its day and month.`, {
    issues: [{ path: "/cron", message }],
  });
}

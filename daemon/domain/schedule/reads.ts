// Reads: one schedule, the list of them, and when one comes.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { all, type Operation, sql } from "../../store/statement.js";
import { type Env, type Outcome, pageBytes, Unfinished } from "../../turns/operation.js";
import { byName, type Schedule, type ScheduleRow, shownSchedule, type Times, timesOf } from "./row.js";

/** Times that one step finds: some 2 ms of work. */
const TIMES_PER_STEP = 20;

/** Schedules that one step of a list shows: some 2 ms of work. */
const LISTED_PER_STEP = 250;

/** What a schedule takes in a reply beside its payloads. */
const OVERHEAD_BYTES = 512;

const selectSizes = sql<{ name: string; bytes: number }>(`
  SELECT name, octet_length(payloads) AS bytes FROM pawl_schedule WHERE name > :after ORDER BY name LIMIT :rows`);

export function* get({ name }: Parsed<"schedule.get">): Operation<Result<"schedule.get"> | PawlError> {
  const row = yield* byName(name);
  return row instanceof PawlError ? row : { schedule: shownSchedule(row) };
}

export function* list(
  params: Parsed<"schedule.list">,
  env: Env,
): Operation<Outcome<Result<"schedule.list">>> {
  return yield* listFrom(params.after ?? "", { schedules: [], bytes: 0 }, params, env);
}

/** One step of a page, and those that follow it. Names stay, so no schedule is left out or shown twice. */
function* listFrom(
  after: string,
  before: { readonly schedules: readonly Schedule[]; readonly bytes: number },
  { limit }: Parsed<"schedule.list">,
  env: Env,
): Operation<Outcome<Result<"schedule.list">>> {
  const schedules = [...before.schedules];
  let { bytes } = before;
  const left = limit - schedules.length;
  const most = env.mayGoOn ? Math.min(left, LISTED_PER_STEP) : left;
  // One more, if there are more.
  for (const [index, row] of (yield* all(selectSizes, { after, rows: most + 1 })).entries()) {
    const last = schedules.at(-1)?.name ?? after;
    if (index === most && most < left) {
      const heldBytes = pageBytes(bytes, schedules.length, limit);
      return new Unfinished((later) => listFrom(last, { schedules, bytes }, { limit }, later), heldBytes);
    }
    bytes += row.bytes + OVERHEAD_BYTES;
    if (schedules.length > 0 && (schedules.length === limit || bytes > MAX_PAGE_BYTES)) {
      return { schedules, next: last };
    }
    schedules.push(shownSchedule((yield* byName(row.name)) as ScheduleRow));
  }
  return { schedules };
}

export function* next(
  { name, cron = "", timeZone = "UTC", count }: Parsed<"schedule.next">,
  env: Env,
): Operation<Outcome<Result<"schedule.next">>> {
  if (name === undefined) {
    const rhythm = { cron, every_ms: null, time_zone: timeZone, end_at: null, anchor_at: 0 };
    const times = timesOf(rhythm);
    return times instanceof PawlError ? times : yield* found(times, [], env.wallMs, count, env);
  }
  const row = yield* byName(name);
  if (row instanceof PawlError) return row;
  if (row.next_at === null) return { times: [] };
  const times = timesOf(row);
  return times instanceof PawlError ? times : yield* found(times, [row.next_at], row.next_at, count, env);
}

/** One step of finding times after `after`, and those that follow it. */
function* found(
  times: Times,
  before: readonly number[],
  after: number,
  count: number,
  env: Env,
): Operation<Outcome<Result<"schedule.next">>> {
  const all = [...before];
  const most = env.mayGoOn ? Math.min(count, all.length + TIMES_PER_STEP) : count;
  let last: number | undefined = after;
  while (all.length < most) {
    last = times.next(last);
    if (last === undefined) return { times: all };
    all.push(last);
  }
  const from = last;
  return all.length === count
    ? { times: all }
    : new Unfinished((later) => found(times, all, from, count, later));
}

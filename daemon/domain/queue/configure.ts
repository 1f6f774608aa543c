// The settings of a queue.
import type { Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse } from "@pawl/protocol/errors";
import type { Operation } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { configureQueue, settingsByName } from "./queue-row.js";
import { roomKey, wakeQueue } from "./row.js";
import { isPaused, isThrottled, type Pause, type Settings, type Throttle } from "./settings.js";

/** Settings that are kept as they are given; null takes one back. */
const PLAIN = [
  "retry",
  "maxAttempts",
  "ttlMs",
  "maxClaimed",
  "maxClaimedPerKey",
  "keyOrder",
  "rate",
  "maxWaiting",
] as const satisfies readonly (keyof Settings)[];

export function* configure(
  params: Parsed<"queue.configure">,
  env: Env,
): Operation<Result<"queue.configure"> | PawlError> {
  const { queue } = params;
  const before = yield* settingsByName(queue, env);
  const pause = pauseAfter(before, params, env);
  if (pause === "not paused") {
    const path = params.pausedUntilAt === undefined ? "/reason" : "/pausedUntilAt";
    const message = "is about a pause, and the queue is not paused; give it with `paused: true`";
    return refuse("invalid_params", `queue.configure: ${path} ${message}.`, { issues: [{ path, message }] });
  }
  const { pause: _, ...rest } = before;
  const changed: Record<string, unknown> = rest;
  for (const name of PLAIN) {
    const given = params[name];
    if (given === null) delete changed[name];
    else if (given !== undefined) changed[name] = given;
  }
  const settings = { ...changed, ...(pause === undefined ? {} : { pause }) } as Settings;
  yield* configureQueue(queue, settings, env);
  const [wasPaused, isNowPaused] = [isPaused(before, env), pause !== undefined];
  const kind = wasPaused === isNowPaused ? "configured" : isNowPaused ? "paused" : "resumed";
  env.effects.tell("queue", queue, kind, queue, { reason: pause?.reason ?? undefined });
  wakeQueue(queue, env);
  env.effects.wake(roomKey(queue));
  return { settings: shown(settings, env) };
}

/** The pause that is in force after a change; undefined for none. */
function pauseAfter(
  before: Settings,
  { paused, pausedUntilAt, reason }: Parsed<"queue.configure">,
  env: Env,
): Pause | undefined | "not paused" {
  const present = isPaused(before, env) ? before.pause : undefined;
  if (paused === false || paused === null) {
    return typeof pausedUntilAt === "number" || typeof reason === "string" ? "not paused" : undefined;
  }
  if (paused === undefined && present === undefined) {
    return typeof pausedUntilAt === "number" || typeof reason === "string" ? "not paused" : undefined;
  }
  if (paused === undefined && pausedUntilAt === undefined && reason === undefined) return present;
  const { pid, uid } = env.caller;
  const pause: Pause = {
    untilAt: pausedUntilAt === undefined ? (present?.untilAt ?? null) : pausedUntilAt,
    reason: reason === undefined ? (present?.reason ?? null) : reason,
    by: { pid, uid },
  };
  // A time that has come already is the end of it.
  return isPaused({ pause }, env) ? pause : undefined;
}

export function* settings(params: Parsed<"queue.settings">, env: Env): Operation<Result<"queue.settings">> {
  return { settings: shown(yield* settingsByName(params.queue, env), env) };
}

export function* throttle(params: Parsed<"queue.throttle">, env: Env): Operation<Result<"queue.throttle">> {
  const { queue, untilAt, delayMs, reason = null } = params;
  const { throttle: kept, ...rest } = yield* settingsByName(queue, env);
  const before = kept !== undefined && isThrottled({ throttle: kept }, env) ? kept : undefined;
  const given: Throttle | undefined =
    delayMs !== undefined
      ? { until: env.now + delayMs, untilAt: null, reason }
      : typeof untilAt === "number"
        ? { until: null, untilAt, reason }
        : undefined;
  const after = given === undefined ? undefined : later(before, given, env);
  const settings = { ...rest, ...(after === undefined ? {} : { throttle: after }) };
  yield* configureQueue(queue, settings, env);
  env.effects.tell("queue", queue, "configured", queue, { reason: reason ?? undefined });
  wakeQueue(queue, env);
  return { settings: shown(settings, env) };
}

/** The later of two ends, as far as one can tell: one of each clock is kept, and both have to come. */
function later(before: Throttle | undefined, given: Throttle, env: Env): Throttle | undefined {
  const until = highest(before?.until ?? null, given.until);
  const untilAt = highest(before?.untilAt ?? null, given.untilAt);
  const wins = before === undefined || endOf(given, env) >= endOf(before, env);
  const after = { until, untilAt, reason: wins ? given.reason : before.reason };
  return isThrottled({ throttle: after }, env) ? after : undefined;
}

function highest(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.max(a, b);
}

/** When a throttle ends, by the wall clock as it is now. */
function endOf({ until, untilAt }: Throttle, env: Env): number {
  return Math.max(until === null ? 0 : env.wallMs + until - env.now, untilAt ?? 0);
}

function shown(settings: Settings, env: Env): Result<"queue.settings">["settings"] {
  const { retry, maxAttempts, ttlMs, maxClaimed, maxClaimedPerKey, keyOrder, rate, maxWaiting } = settings;
  const pause = isPaused(settings, env) ? settings.pause : undefined;
  const throttled = isThrottled(settings, env) ? settings.throttle : undefined;
  return {
    retry: retry ?? null,
    maxAttempts: maxAttempts ?? null,
    ttlMs: ttlMs ?? null,
    maxClaimed: maxClaimed ?? null,
    maxClaimedPerKey: maxClaimedPerKey ?? null,
    keyOrder: keyOrder ?? null,
    rate: rate ?? null,
    maxWaiting: maxWaiting ?? null,
    paused: pause !== undefined,
    pausedUntilAt: pause?.untilAt ?? null,
    reason: pause?.reason ?? null,
    pausedBy: pause?.by ?? null,
    throttledUntilAt: throttled === undefined ? null : endOf(throttled, env),
    throttledReason: throttled?.reason ?? null,
  };
}

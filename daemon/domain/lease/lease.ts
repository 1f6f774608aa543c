// Leases that this database keeps: named, fenced, time-bounded permission.
import type { Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_INTEGER, MAX_NAME_LENGTH, MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { all, type Operation, one, sql } from "../../store/statement.js";
import type { HandlersOf } from "../../turns/handler.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { exhausted, kindOf, notConfigured } from "./refusals.js";
import {
  acquiredTtlOf,
  drop,
  giveBack,
  gone,
  held,
  isHeld,
  keep,
  logBroken,
  remainingOf,
  renew,
  selectByName,
  selectHeldById,
  selectHeldByName,
  selectHeldPage,
  selectHighest,
  selectNameBehind,
  shownRow,
  tell,
  tellLost,
  waitKey,
} from "./row.js";

/** Random bits of a leaseId: as many as nobody guesses. */
const LEASE_ID_BYTES = 16;

/** Leases that a page looks at for those that are held: more than it can show. */
const MAX_SCANNED_LEASES = 2000;
/** After every name: no character is greater. */
const LAST_NAME = "\u{10ffff}".repeat(MAX_NAME_LENGTH);

/** Raises the counter of a name; no row when it is at its end, and then nothing has changed. */
const raiseToken = sql<{ highest: number }>(`
  INSERT INTO pawl_lease_token (name, highest) VALUES (:name,
    1 + coalesce((SELECT CAST(value AS BIGINT) FROM pawl_meta WHERE key = 'lease_fencing_floor'), 0))
  ON CONFLICT (name) DO UPDATE SET highest = CASE WHEN pawl_lease_token.highest < excluded.highest
      THEN excluded.highest ELSE pawl_lease_token.highest + 1 END
    WHERE pawl_lease_token.highest < ${MAX_INTEGER}
  RETURNING highest`);

/**
 * Which operation performs which method.
 *
 * @param waitingElsewhere how many wait, other than parked in a turn, by the key under which they would be parked.
 */
export function leaseHandlers(waitingElsewhere: (key: string) => number = () => 0): HandlersOf<"lease"> {
  const withAll = (env: Env): Env => ({
    ...env,
    waiting: (key) => {
      const here = env.waiting(key);
      return here === null ? null : here + waitingElsewhere(key);
    },
  });
  return {
    acquire,
    heartbeat,
    release,
    get,
    list: (params, env) => list(params, withAll(env)),
    check,
    break: breakLease,
  };
}

export function* acquire(
  params: Parsed<"lease.acquire">,
  env: Env,
): Operation<Outcome<Result<"lease.acquire">>> {
  const { name, owner, ttlMs, releaseOn, note = null } = params;
  const former = yield* one(selectByName, { name });
  // Once it has ended, those who wait for it come first: they are served when it is removed, which is due.
  if (former !== undefined && (isHeld(former, env) || (env.waiting(waitKey(name)) ?? 0) > 0)) {
    const remainingMs = Math.max(remainingOf(former, env), 0);
    return env.mayWait ? new Wait(waitKey(name)) : held(name, former.owner, remainingMs, env.wallMs);
  }
  const raised = yield* one(raiseToken, { name });
  if (raised === undefined) return exhausted(name);

  if (former !== undefined) {
    tellLost(former, "expired", null, env);
    yield* giveBack(former, env);
  }
  const leaseId = `lease_${env.random(LEASE_ID_BYTES).toString("hex")}`;
  const { highest: fencingToken } = raised;
  env.effects.reached("leaseToken", fencingToken);
  const lease = { name, leaseId, fencingToken, owner, note, ttlMs, releaseOn, provider: null };
  return yield* keep(lease, { remainingMs: ttlMs, boottime: null }, former, env);
}

export function* heartbeat(
  params: Parsed<"lease.heartbeat">,
  env: Env,
): Operation<Result<"lease.heartbeat"> | PawlError> {
  const { leaseId } = params;
  const row = yield* one(selectHeldById, { leaseId, now: env.now });
  if (row === undefined) return gone();
  if (row.provider !== null) return notConfigured(kindOf(row.provider));
  const ttlMs = params.ttlMs ?? acquiredTtlOf(row);
  return yield* renew(row, { ttlMs }, { remainingMs: ttlMs, boottime: null }, env);
}

export function* release(
  params: Parsed<"lease.release">,
  env: Env,
): Operation<Result<"lease.release"> | PawlError> {
  const row = yield* one(selectHeldById, { leaseId: params.leaseId, now: env.now });
  if (row === undefined) return { released: false };
  if (row.provider !== null) return notConfigured(kindOf(row.provider));
  yield* drop(row, env);
  tell(row, "released", env);
  return { released: true };
}

export function* get(params: Parsed<"lease.get">, env: Env): Operation<Result<"lease.get">> {
  const row = yield* one(selectHeldByName, { name: params.name, now: env.now });
  return { lease: row === undefined ? null : shownRow(row, env) };
}

function* list(params: Parsed<"lease.list">, env: Env): Operation<Result<"lease.list">> {
  const { limit, after = "" } = params;
  const last = (yield* one(selectNameBehind, { after, passed: MAX_SCANNED_LEASES - 1 }))?.name;
  const rows = yield* all(selectHeldPage, { after, last: last ?? LAST_NAME, now: env.now, rows: limit + 1 });
  const leases: Result<"lease.list">["leases"] = [];
  let bytes = 0;
  for (const row of rows) {
    bytes += row.name.length + row.owner.length + (row.note?.length ?? 0);
    if (leases.length === limit || (bytes > MAX_PAGE_BYTES && leases.length > 0)) {
      return { leases, next: (leases.at(-1) as { name: string }).name };
    }
    leases.push(shownRow(row, env));
  }
  return last === undefined ? { leases } : { leases, next: last };
}

export function* check(params: Parsed<"lease.check">, env: Env): Operation<Result<"lease.check">> {
  const { name, fencingToken } = params;
  const highest = (yield* one(selectHighest, { name }))?.highest ?? 0;
  return { current: yield* isCurrent(name, fencingToken, env), highest };
}

export function* breakLease(
  params: Parsed<"lease.break">,
  env: Env,
): Operation<Result<"lease.break"> | PawlError> {
  const { name, reason } = params;
  const row = yield* one(selectHeldByName, { name, now: env.now });
  if (row === undefined) return { broken: false };
  if (row.provider !== null) return notConfigured(kindOf(row.provider));
  yield* drop(row, env);
  logBroken(row, reason, env);
  tellLost(row, "broken", reason, env);
  return { broken: true };
}

/** A guard of `transact`: `lease_lost` unless the name is held with this token. */
export function* guardLease(
  guard: { name: string; fencingToken: number },
  env: Env,
): Operation<PawlError | undefined> {
  const { name, fencingToken } = guard;
  if (yield* isCurrent(name, fencingToken, env)) return undefined;
  const highest = (yield* one(selectHighest, { name }))?.highest ?? 0;
  return refuse(
    "lease_lost",
    `The lease ${shown(name)} is not held with the fencing token ${fencingToken}: the highest so far is ${highest}, and a lease that expired, was released or was broken is held by nobody. Nothing was done. Acquire it again and redo the work under the new token.`,
    { name, fencingToken, highest },
  );
}

function* isCurrent(name: string, fencingToken: number, env: Env): Operation<boolean> {
  const row = yield* one(selectHeldByName, { name, now: env.now });
  return row?.fencing_token === fencingToken;
}

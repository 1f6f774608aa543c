import type { Parsed, Result } from "@pawl/protocol";
import type { PawlError } from "@pawl/protocol/errors";
import type { Uptime } from "../../clock.js";
import { ownEnd } from "../../grants/restart-grace.js";
import type { Holder, Inspected } from "../../remote/provider.js";
import { tooLate } from "../../remote/refusals.js";
import { kindOf } from "../../remote/specification.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import {
  breakLease,
  check as checkHere,
  get as getHere,
  giveBack,
  gone,
  held,
  type LeaseRow,
  logBroken,
  OWED_KEY,
  ownerOf,
  selectById,
  selectByName,
  selectHighest,
  shownAs,
  tellLost,
  waitKey,
  watchOver,
} from "./lease.js";

/** What is owed is given back in steps of so many. */
const OWED_ROWS = 200;

const owe = sql(`
  INSERT INTO pawl_lease_owed (lease_id, name, provider, fencing_token, until)
  VALUES (:leaseId, :name, :provider, NULL, :until)
  ON CONFLICT (lease_id) DO NOTHING`);

const settleOwed = sql<{ name: string }>(
  "DELETE FROM pawl_lease_owed WHERE lease_id = :leaseId RETURNING name",
);

const forgetEnded = sql("DELETE FROM pawl_lease_owed WHERE until <= :now");

const selectAllOwed = sql<OwedRow>("SELECT * FROM pawl_lease_owed ORDER BY lease_id");

const selectOwed = sql<OwedRow>("SELECT * FROM pawl_lease_owed WHERE lease_id = :leaseId");

const selectOwedToken = sql<{ lease_id: string }>(
  "SELECT lease_id FROM pawl_lease_owed WHERE name = :name AND fencing_token = :fencingToken",
);

/** Not what may still be granted by a request that is on its way. */
const selectEnded = sql<OwedRow>(
  "SELECT * FROM pawl_lease_owed WHERE fencing_token IS NOT NULL AND until > :now ORDER BY lease_id LIMIT :rows",
);

const raiseTo = sql(`
  INSERT INTO pawl_lease_token (name, highest) VALUES (:name, :fencingToken)
  ON CONFLICT (name) DO UPDATE SET highest = excluded.highest WHERE pawl_lease_token.highest < excluded.highest`);

/** Whoever the row belongs to until now has lost the lease by its ttl. */
const keep = sql(`
  INSERT INTO pawl_lease (name, lease_id, fencing_token, owner, note, acquired_at, expires_at, ttl_ms, warn_at,
    release_on, connection, pid, uid, gid, provider, boot, ends_uptime_ms)
  VALUES (:name, :leaseId, :fencingToken, :owner, :note, :now, :expiresAt, :ttlMs, NULL, 'expiry', 0, :pid, :uid,
    :gid, :provider, :boot, :endsUptimeMs)
  ON CONFLICT (name) DO UPDATE SET lease_id = excluded.lease_id, fencing_token = excluded.fencing_token,
    owner = excluded.owner, note = excluded.note, acquired_at = excluded.acquired_at,
    expires_at = excluded.expires_at, ttl_ms = excluded.ttl_ms, warn_at = excluded.warn_at,
    release_on = excluded.release_on, connection = excluded.connection, pid = excluded.pid,
    uid = excluded.uid, gid = excluded.gid, provider = excluded.provider, boot = excluded.boot,
    ends_uptime_ms = excluded.ends_uptime_ms`);

const setEnd = sql(`
  UPDATE pawl_lease SET expires_at = :expiresAt, ttl_ms = :ttlMs, boot = :boot, ends_uptime_ms = :endsUptimeMs
  WHERE lease_id = :leaseId`);

const remove = sql("DELETE FROM pawl_lease WHERE lease_id = :leaseId");

/**
 * The earlier end of the two clocks counts: one stands still while the machine sleeps, the other can be set back.
 * What has waited for its holder since a restart keeps its end in place of the connection, negated (restart-grace.ts).
 */
const endByUptime = sql(`
  UPDATE pawl_lease SET
    expires_at = iif(boot IS NOT :boot, :now, min(expires_at, :now + ends_uptime_ms - :uptimeMs)),
    connection = CASE WHEN connection >= 0 THEN connection
      ELSE -iif(boot IS NOT :boot, :now, min(-connection, :now + ends_uptime_ms - :uptimeMs)) END,
    ends_uptime_ms = min(ends_uptime_ms, :uptimeMs + ${ownEnd("connection", "expires_at")} - :now)
  WHERE provider IS NOT NULL`);

interface OwedRow {
  lease_id: string;
  name: string;
  provider: string;
  fencing_token: number | null;
  until: number;
}

/** What a provider outside granted, as the daemon records it. */
export interface OutsideGrant {
  readonly name: string;
  readonly leaseId: string;
  readonly provider: string;
  readonly owner: string;
  readonly note: string | null;
  readonly ttlMs: number;
  readonly releaseOn: "expiry" | "disconnect";
  readonly fencingToken: number;
}

/** How long a lease lasts for its holder, from now on, and what time it is by the clock that outlives restarts. */
export interface Lasting {
  readonly remainingMs: number;
  readonly uptime: Uptime;
}

/**
 * Before a provider outside is asked for a name: refuses, or waits, while it is held through this daemon, and
 * keeps in mind that the leaseId may have been granted, until that is known. Gives the highest token so far.
 */
export function* begin(
  { name, leaseId, provider, forMs }: { name: string; leaseId: string; provider: string; forMs: number },
  env: Env,
): Operation<Outcome<{ highest: number }>> {
  const { now } = env;
  const row = yield* one(selectByName, { name });
  if (row !== undefined && row.expires_at > now) {
    return env.mayWait ? new Wait(waitKey(name)) : held(name, row.owner, row.expires_at - now, now);
  }
  const highest = (yield* one(selectHighest, { name }))?.highest ?? 0;
  yield* run(owe, { leaseId, name, provider, until: now + forMs });
  return { highest };
}

/** After a provider outside has granted a name: from here on it is a lease like others. */
export function* record(
  grant: OutsideGrant,
  { remainingMs, uptime }: Lasting,
  env: Env,
): Operation<Result<"lease.acquire"> | PawlError> {
  const { name, leaseId, provider, owner, note, ttlMs, releaseOn, fencingToken } = grant;
  const { now, caller } = env;
  if (remainingMs <= 0) return tooLate(kindOf(provider), ttlMs);
  const former = yield* one(selectByName, { name });
  const expiresAt = now + remainingMs;
  yield* run(keep, {
    name,
    leaseId,
    fencingToken,
    owner,
    note,
    now,
    expiresAt,
    ttlMs,
    provider,
    boot: uptime.boot,
    endsUptimeMs: uptime.uptimeMs + remainingMs,
    pid: caller.pid,
    uid: caller.uid,
    gid: caller.gid,
  });
  yield* run(raiseTo, { name, fencingToken });
  yield* all(settleOwed, { leaseId });
  if (former !== undefined) {
    tellLost(former, "expired", null, env);
    yield* giveBack(former, env);
  }
  yield* watchOver({ name, ttlMs, releaseOn, connection: caller.connection }, remainingMs, env);
  return { lease: { name, leaseId, fencingToken, owner, acquiredAt: now, expiresAt, remainingMs } };
}

/**
 * Before a provider outside is asked to renew a lease that is held through this daemon, which then lasts as `lasting` has
 * it: says where it is kept and how long it lasts still; `lease_lost` if it is not held.
 *
 * A holder that comes back after a restart has it again for all that remained, whether its provider can be asked now
 * or not: the end of the grace would be that of a holder that has not come back. A lease that is to last shorter than
 * it would does so from now on, since the provider may do that without our getting its answer.
 */
export function* beginRenewal(
  { leaseId, ttlMs: wanted }: Parsed<"lease.heartbeat">,
  lasting: (ttlMs: number) => Lasting,
  env: Env,
): Operation<{ name: string; provider: string; ttlMs: number; remainingMs: number } | PawlError> {
  const { now } = env;
  const row = yield* one(selectById, { leaseId, now });
  if (row === undefined) return gone();
  const { name, provider, ttl_ms: ttlMs, release_on: releaseOn } = row;
  const { remainingMs: wantedMs, uptime } = lasting(wanted ?? ttlMs);
  const heldMs = row.expires_at - now;
  const cameBack = releaseOn === "disconnect" && row.connection <= 0;
  const lastedMs = cameBack ? Math.max(heldMs, (row.ends_uptime_ms ?? 0) - uptime.uptimeMs) : heldMs;
  const remainingMs = Math.min(lastedMs, Math.max(wantedMs, 0));
  if (cameBack || remainingMs < heldMs) {
    const { boot, uptimeMs } = uptime;
    const expiresAt = now + remainingMs;
    yield* run(setEnd, { leaseId, ttlMs, expiresAt, boot, endsUptimeMs: uptimeMs + remainingMs });
    // A ttl that has become shorter is warned of by that.
    const shorterMs = Math.min(wanted ?? ttlMs, ttlMs);
    const connection = ownerOf(row, env);
    yield* watchOver({ name, ttlMs: shorterMs, releaseOn, connection }, remainingMs, env);
  }
  return { name, provider: provider as string, ttlMs, remainingMs };
}

/** After a provider outside has renewed a lease. If it has ended here meanwhile, its holder was told, and it stays lost. */
export function* renewed(
  { leaseId, ttlMs }: { leaseId: string; ttlMs: number },
  { remainingMs, uptime }: Lasting,
  env: Env,
): Operation<Result<"lease.heartbeat"> | PawlError> {
  const { now } = env;
  const row = yield* one(selectById, { leaseId, now });
  if (row === undefined) return gone();
  if (remainingMs <= 0) return tooLate(kindOf(row.provider as string), ttlMs);
  const { name, release_on: releaseOn } = row;
  const expiresAt = now + remainingMs;
  const { boot, uptimeMs } = uptime;
  yield* run(setEnd, { leaseId, ttlMs, expiresAt, boot, endsUptimeMs: uptimeMs + remainingMs });
  yield* watchOver({ name, ttlMs, releaseOn, connection: ownerOf(row, env) }, remainingMs, env);
  return { expiresAt, remainingMs };
}

/** A provider outside says that a lease is not held, before it has ended here: somebody has ended it by force. */
export function* foundEnded(leaseId: string, env: Env): Operation<void> {
  const row = yield* one(selectById, { leaseId, now: env.now });
  if (row === undefined) return;
  yield* run(remove, { leaseId });
  tellLost(row, "broken", null, env);
  env.effects.wake(waitKey(row.name));
}

/**
 * Before a provider outside is asked to release a lease: nobody holds it here any more, whatever comes of that.
 * Gives where it is kept, or null if there is nothing to be given back.
 */
export function* letGo(leaseId: string, env: Env): Operation<{ name: string; provider: string } | null> {
  const row = yield* one(selectById, { leaseId, now: env.now });
  if (row !== undefined) {
    yield* run(remove, { leaseId });
    yield* giveBack(row, env);
    return { name: row.name, provider: row.provider as string };
  }
  const owed = yield* one(selectOwed, { leaseId });
  return owed === undefined ? null : { name: owed.name, provider: owed.provider };
}

/** Nothing is owed any more for a leaseId: it was given back, or never granted. Those who wait for the name try again. */
export function* settle(leaseId: string, env: Env): Operation<void> {
  const settled = yield* one(settleOwed, { leaseId });
  if (settled !== undefined) env.effects.wake(waitKey(settled.name));
}

/** What is to be given back, or waits for something that is. Nothing of what `skips` says. */
export function* takeOwed(
  skips: (row: { leaseId: string; provider: string }) => boolean,
  env: Env,
): Operation<Outcome<{ leaseId: string; name: string; provider: string; forMs: number }[]>> {
  yield* run(forgetEnded, { now: env.now });
  const rows = (yield* all(selectAllOwed))
    .filter(({ lease_id: leaseId, provider }) => !skips({ leaseId, provider }))
    .slice(0, OWED_ROWS);
  if (rows.length === 0 && env.mayWait) return new Wait(OWED_KEY);
  return rows.map(({ lease_id: leaseId, name, provider, until }) => ({
    leaseId,
    name,
    provider,
    forMs: until - env.now,
  }));
}

/** Has `takeOwed` look again. */
export function* lookAtOwed(env: Env): Operation<void> {
  env.effects.wake(OWED_KEY);
}

/**
 * The place that keeps the lease of a name may have been configured anew while it is held through this daemon. Until
 * that lease ends, it stays where it was granted, and its record tells of it: then this gives what `perform` makes of
 * that, and undefined if the place that is configured now has to be asked.
 */
function* whereItWas<T>(
  name: string,
  provider: string,
  perform: () => Operation<T>,
  env: Env,
): Operation<T | undefined> {
  const row = yield* one(selectByName, { name });
  const moved = row !== undefined && row.expires_at > env.now && row.provider !== provider;
  return moved ? yield* perform() : undefined;
}

/** `lease.get`, if the lease is still kept where its name was before. */
export function getMoved(
  params: Parsed<"lease.get">,
  provider: string,
  env: Env,
): Operation<Result<"lease.get"> | PawlError | undefined> {
  return whereItWas(params.name, provider, () => getHere(params, env), env);
}

/** `lease.check`, likewise. */
export function checkMoved(
  params: Parsed<"lease.check">,
  provider: string,
  env: Env,
): Operation<Result<"lease.check"> | undefined> {
  return whereItWas(params.name, provider, () => checkHere(params, env), env);
}

/**
 * A provider has told of a token that it granted, perhaps to another machine: the next one is higher. Whoever holds
 * the name here by a lower token of the same provider has been ended by force.
 */
export function* see(
  { name, fencingToken, provider }: { name: string; fencingToken: number; provider: string },
  env: Env,
): Operation<void> {
  const known = (yield* one(selectHighest, { name }))?.highest ?? 0;
  if (fencingToken <= known) return;
  yield* run(raiseTo, { name, fencingToken });
  const row = yield* one(selectByName, { name });
  if (row === undefined || row.expires_at <= env.now || row.provider !== provider) return;
  yield* run(remove, { leaseId: row.lease_id });
  tellLost(row, "broken", null, env);
  env.effects.wake(waitKey(name));
}

/** `lease.get`: what the provider says, and what only the daemon knows that granted it. */
export function* describe(name: string, holder: Holder | null, env: Env): Operation<Result<"lease.get">> {
  if (holder === null) return { lease: null };
  const row = yield* ownRow(name, holder, env);
  const remainingMs = Math.round(row === undefined ? holder.remainingMs : row.expires_at - env.now);
  const { pid = null, uid = null, gid = null } = row ?? {};
  return { lease: shownAs(name, { ...holder, remainingMs, peer: { pid, uid, gid } }, env) };
}

/**
 * `lease.check`: a token that has ended here is not current, also while the provider does not know that yet; nor is
 * one below the highest, which a provider can grant that has forgotten what it granted before.
 */
export function* check(
  { name, fencingToken }: Parsed<"lease.check">,
  { holder, highest: told }: Inspected,
  env: Env,
): Operation<Result<"lease.check">> {
  const known = (yield* one(selectHighest, { name }))?.highest ?? 0;
  const highest = Math.max(known, told);
  if (holder?.fencingToken !== fencingToken || fencingToken < highest) return { current: false, highest };
  const row = yield* one(selectByName, { name });
  const endedHere =
    (row !== undefined && row.fencing_token === fencingToken && row.expires_at <= env.now) ||
    (yield* one(selectOwedToken, { name, fencingToken })) !== undefined;
  return { current: !endedHere, highest };
}

/**
 * Before the lease of a name is ended by force: gives the provider that has to be asked, which is not the one of its
 * name if that was configured anew while it is held. What is kept here is ended at once.
 */
export function* breakOrAsk(
  params: Parsed<"lease.break">,
  configured: string | null,
  canAsk: (provider: string) => boolean,
  env: Env,
): Operation<{ ask: string } | Result<"lease.break"> | PawlError> {
  const row = yield* one(selectByName, { name: params.name });
  const provider = row !== undefined && row.expires_at > env.now ? row.provider : configured;
  return provider !== null && canAsk(provider) ? { ask: provider } : yield* breakLease(params, env);
}

/** The provider outside that keeps a lease that is held through this daemon; null if none does. */
export function* keptBy(name: string, env: Env): Operation<string | null> {
  const row = yield* one(selectByName, { name });
  return row !== undefined && row.expires_at > env.now ? row.provider : null;
}

/** After a provider outside was asked to end the lease of a name by force. */
export function* broken(
  { name, reason }: Parsed<"lease.break">,
  outside: boolean,
  env: Env,
): Operation<Result<"lease.break">> {
  const row = yield* one(selectByName, { name });
  const here = row !== undefined && row.expires_at > env.now && row.provider !== null;
  if (here) {
    yield* run(remove, { leaseId: row.lease_id });
    logBroken(row, reason, env);
    tellLost(row, "broken", reason, env);
  } else if (outside) {
    env.effects.log("lease broken", { lease: { name }, reason, caller: env.caller });
  }
  env.effects.wake(waitKey(name));
  return { broken: outside || here };
}

/** When the daemon stops: what has ended here, and providers are to be told of. */
export function* takeEnded(env: Env): Operation<{ leaseId: string; name: string; provider: string }[]> {
  const rows = yield* all(selectEnded, { now: env.now, rows: OWED_ROWS });
  return rows.map(({ lease_id: leaseId, name, provider }) => ({ leaseId, name, provider }));
}

/**
 * At the start, before a grace is set: what remains of leases that providers outside keep, by the clock that no
 * restart touches. Their holders ended with the machine if it was booted since.
 */
export function* endByClockOfBoot({ boot, uptimeMs }: Uptime, env: Env): Operation<void> {
  yield* run(endByUptime, { boot: boot ?? "", uptimeMs, now: env.now });
  env.effects.deadline(env.now);
}

function* ownRow(name: string, { fencingToken }: Holder, env: Env): Operation<LeaseRow | undefined> {
  const row = yield* one(selectByName, { name });
  return row !== undefined && row.fencing_token === fencingToken && row.expires_at > env.now
    ? row
    : undefined;
}

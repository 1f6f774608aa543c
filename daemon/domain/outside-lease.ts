import type { Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import type { Uptime } from "../clock.js";
import { all, type Env, type Operation, type Outcome, one, run, sql, Wait } from "../operation.js";
import type { Holder } from "../providers/provider.js";
import {
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

const prolong = sql(`
  UPDATE pawl_lease SET expires_at = :expiresAt, ttl_ms = :ttlMs, boot = :boot, ends_uptime_ms = :endsUptimeMs
  WHERE lease_id = :leaseId`);

const remove = sql("DELETE FROM pawl_lease WHERE lease_id = :leaseId");

const endByUptime = sql(`
  UPDATE pawl_lease SET expires_at = CASE
      WHEN boot <> :boot OR boot IS NULL THEN :now
      WHEN :now + ends_uptime_ms - :uptimeMs < expires_at THEN :now + ends_uptime_ms - :uptimeMs
      ELSE expires_at END
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
 * keeps in mind that the leaseId may have been granted, until that is known. Gives what the token has to exceed.
 */
export function* begin(
  { name, leaseId, provider, forMs }: { name: string; leaseId: string; provider: string; forMs: number },
  env: Env,
): Operation<Outcome<{ tokenAbove: number }>> {
  const { now } = env;
  const row = yield* one(selectByName, { name });
  if (row !== undefined && row.expires_at > now) {
    return env.mayWait ? new Wait(waitKey(name)) : held(name, row.owner, row.expires_at - now, now);
  }
  const tokenAbove = (yield* one(selectHighest, { name }))?.highest ?? 0;
  yield* run(owe, { leaseId, name, provider, until: now + forMs });
  return { tokenAbove };
}

/** After a provider outside has granted a name: from here on it is a lease like others. */
export function* record(
  grant: OutsideGrant,
  { remainingMs, uptime }: Lasting,
  env: Env,
): Operation<Result<"lease.acquire"> | PawlError> {
  const { name, leaseId, provider, owner, note, ttlMs, releaseOn, fencingToken } = grant;
  const { now, caller } = env;
  if (remainingMs <= 0) return tooLate(provider, ttlMs);
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

/** A lease that is held through this daemon, and how long still; `lease_lost` if it is not. */
export function* lookUp(
  leaseId: string,
  env: Env,
): Operation<{ name: string; provider: string; ttlMs: number; remainingMs: number } | PawlError> {
  const row = yield* one(selectById, { leaseId, now: env.now });
  if (row === undefined) return gone();
  const { name, provider, ttl_ms: ttlMs } = row;
  return { name, provider: provider as string, ttlMs, remainingMs: row.expires_at - env.now };
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
  if (remainingMs <= 0) return tooLate(row.provider as string, ttlMs);
  const { name, release_on: releaseOn } = row;
  const expiresAt = now + remainingMs;
  const { boot, uptimeMs } = uptime;
  yield* run(prolong, { leaseId, ttlMs, expiresAt, boot, endsUptimeMs: uptimeMs + remainingMs });
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

/** `lease.get`: what the provider says, and what only the daemon knows that granted it. */
export function* describe(
  name: string,
  holder: Holder | null,
  waiters: number | null,
  env: Env,
): Operation<Result<"lease.get">> {
  if (holder === null) return { lease: null };
  const { owner, fencingToken, acquiredAt, note } = holder;
  const row = yield* ownRow(name, holder, env);
  const remainingMs = Math.round(row === undefined ? holder.remainingMs : row.expires_at - env.now);
  return {
    lease: {
      name,
      owner,
      fencingToken,
      acquiredAt,
      expiresAt: env.now + remainingMs,
      remainingMs,
      waiters,
      note,
      pid: row?.pid ?? null,
      uid: row?.uid ?? null,
    },
  };
}

/** `lease.check`: a token that has ended here is not current, also while the provider does not know that yet. */
export function* check(
  { name, fencingToken }: Parsed<"lease.check">,
  holder: Holder | null,
  env: Env,
): Operation<Result<"lease.check">> {
  const known = (yield* one(selectHighest, { name }))?.highest ?? 0;
  const highest = Math.max(known, holder?.fencingToken ?? 0);
  if (holder?.fencingToken !== fencingToken) return { current: false, highest };
  const row = yield* one(selectByName, { name });
  const endedHere =
    (row !== undefined && row.fencing_token === fencingToken && row.expires_at <= env.now) ||
    (yield* one(selectOwedToken, { name, fencingToken })) !== undefined;
  return { current: !endedHere, highest };
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

/**
 * At the start: what remains of leases that providers outside keep, by the clock that no restart touches. Their
 * holders ended with the machine if it was booted since.
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

/** It took so long to be asked that its holder would have to give it up at once. */
function tooLate(provider: string, ttlMs: number): PawlError {
  return refuse(
    "provider_unavailable",
    `The lease provider ${provider} took longer to answer than a lease of ${shown(ttlMs)} ms lasts. Ask again, or for a longer ttlMs.`,
    { provider, reason: "answered too late" },
  );
}

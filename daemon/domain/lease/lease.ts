import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_PAGE_BYTES, RESTART_GRACE_MS } from "@pawl/protocol/limits";
import type { Expiry } from "../../grants/expiry.js";
import { ownEnd, postponedConnection } from "../../grants/restart-grace.js";
import { holderOf, localProvider } from "../../remote/local.js";
import type { Holder } from "../../remote/provider.js";
import { notConfigured } from "../../remote/refusals.js";
import { kindOf } from "../../remote/specification.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { HandlersOf } from "../../turns/handler.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";

/** Random bits of a leaseId: as many as nobody guesses. */
const LEASE_ID_BYTES = 16;
/** A holder is told that its lease is about to end when this part of the ttl is left. */
const WARN_FRACTION = 1 / 3;

/** A row may be past its end and not yet removed: expiry runs in bounded steps. */
export const selectByName = sql<LeaseRow>("SELECT * FROM pawl_lease WHERE name = :name");

export const selectById = sql<LeaseRow>(
  "SELECT * FROM pawl_lease WHERE lease_id = :leaseId AND expires_at > :now",
);

const selectPage = sql<LeaseRow>(`
  SELECT * FROM pawl_lease WHERE name > :after AND expires_at > :now ORDER BY name LIMIT :rows`);

export const selectHighest = sql<{ highest: number }>(
  "SELECT highest FROM pawl_lease_token WHERE name = :name",
);

const countHeld = sql<{ held: number }>("SELECT count(*) AS held FROM pawl_lease WHERE expires_at > :now");

/** What the daemon knows of a grant beside its provider: whom to tell, when, and what ends it. */
const attach = sql(`
  UPDATE pawl_lease SET connection = :connection, release_on = :releaseOn, warn_at = :warnAt WHERE name = :name`);

const earliestEnd = sql<{ at: number | null }>("SELECT min(expires_at) AS at FROM pawl_lease");
const latestEnd = sql<{ at: number | null }>("SELECT max(expires_at) AS at FROM pawl_lease");
const earliestWarning = sql<{ at: number | null }>(
  "SELECT min(warn_at) AS at FROM pawl_lease WHERE warn_at IS NOT NULL",
);

const removeExpired = sql<LeaseRow>(`
  DELETE FROM pawl_lease WHERE name IN
    (SELECT name FROM pawl_lease WHERE expires_at <= :now ORDER BY expires_at LIMIT :rows)
  RETURNING *`);

const takeWarnings = sql<LeaseRow>(`
  UPDATE pawl_lease SET warn_at = NULL WHERE name IN
    (SELECT name FROM pawl_lease WHERE warn_at <= :now ORDER BY warn_at LIMIT :rows)
  RETURNING *`);

const removeOfConnection = sql<LeaseRow>(`
  DELETE FROM pawl_lease WHERE name IN
    (SELECT name FROM pawl_lease WHERE connection = :connection AND release_on = 'disconnect' LIMIT :rows)
  RETURNING *`);

const expireOfConnection = sql(`
  UPDATE pawl_lease SET expires_at = :now, warn_at = NULL
  WHERE connection = :connection AND release_on = 'disconnect'`);

/**
 * Not those of a provider outside: whether the clock was set forward or the machine slept cannot be told, and
 * while it sleeps, time goes on for the provider.
 */
const postponeOwn = sql(`
  UPDATE pawl_lease SET expires_at = expires_at + :byMs, warn_at = warn_at + :byMs,
    connection = ${postponedConnection("connection")}
  WHERE provider IS NULL`);

const owe = sql(`
  INSERT INTO pawl_lease_owed (lease_id, name, provider, fencing_token, until)
  VALUES (:leaseId, :name, :provider, :fencingToken, :until)
  ON CONFLICT (lease_id) DO NOTHING`);

const LEASE_END = ownEnd("connection", "expires_at");
const forgetConnections = sql(`
  UPDATE pawl_lease SET warn_at = NULL,
    connection = iif(release_on = 'disconnect', -${LEASE_END}, 0),
    expires_at = iif(release_on = 'disconnect', min(:grace, ${LEASE_END}), expires_at)`);

export interface LeaseRow {
  name: string;
  lease_id: string;
  fencing_token: number;
  owner: string;
  note: string | null;
  acquired_at: number;
  expires_at: number;
  ttl_ms: number;
  release_on: "expiry" | "disconnect";
  connection: number;
  pid: number | null;
  uid: number | null;
  gid: number | null;
  /** The provider outside that keeps it; null for this database. */
  provider: string | null;
  /** When it ends by the clock that counts from the boot of the machine; null if it is kept here. */
  ends_uptime_ms: number | null;
}

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
  const { name, owner, ttlMs, releaseOn } = params;
  const { now, caller } = env;
  const former = yield* one(selectByName, { name });
  // It has ended, but those who wait for it come first: they are served when it is removed, which is due.
  if (former !== undefined && former.expires_at <= now && (env.waiting(waitKey(name)) ?? 0) > 0) {
    return env.mayWait ? new Wait(waitKey(name)) : held(name, former.owner, 0, now);
  }

  const leaseId = `lease_${env.random(LEASE_ID_BYTES).toString("hex")}`;
  const acquired = yield* localProvider(env).acquire({
    name,
    leaseId,
    owner,
    ttlMs,
    note: params.note ?? null,
    peer: { pid: caller.pid, uid: caller.uid, gid: caller.gid },
    // The counter of the local provider is the daemon's own.
    tokenAbove: 0,
  });
  if (acquired instanceof PawlError) return acquired;
  if (!acquired.granted) {
    const { holder } = acquired;
    return env.mayWait ? new Wait(waitKey(name)) : held(name, holder.owner, holder.remainingMs, now);
  }

  if (former !== undefined) tellLost(former, "expired", null, env);
  const { fencingToken, remainingMs } = acquired;
  yield* watchOver({ name, ttlMs, releaseOn, connection: caller.connection }, remainingMs, env);
  const expiresAt = now + remainingMs;
  return { lease: { name, leaseId, fencingToken, owner, acquiredAt: now, expiresAt, remainingMs } };
}

export function* heartbeat(
  params: Parsed<"lease.heartbeat">,
  env: Env,
): Operation<Result<"lease.heartbeat"> | PawlError> {
  const { leaseId } = params;
  const { now } = env;
  const row = yield* one(selectById, { leaseId, now });
  if (row === undefined) return gone();
  if (row.provider !== null) return notConfigured(kindOf(row.provider));
  const { name, release_on: releaseOn } = row;
  const ttlMs = params.ttlMs ?? row.ttl_ms;
  const renewed = yield* localProvider(env).heartbeat({ name, leaseId, ttlMs });
  if (renewed instanceof PawlError) return renewed;
  if (renewed === null) return gone();

  yield* watchOver({ name, ttlMs, releaseOn, connection: ownerOf(row, env) }, renewed.remainingMs, env);
  return { expiresAt: now + renewed.remainingMs, remainingMs: renewed.remainingMs };
}

export function* release(
  params: Parsed<"lease.release">,
  env: Env,
): Operation<Result<"lease.release"> | PawlError> {
  const { leaseId } = params;
  const row = yield* one(selectById, { leaseId, now: env.now });
  if (row === undefined) return { released: false };
  if (row.provider !== null) return notConfigured(kindOf(row.provider));
  const released = yield* localProvider(env).release({ name: row.name, leaseId });
  if (released instanceof PawlError) return released;
  if (released) env.effects.wake(waitKey(row.name));
  return { released };
}

export function* get(params: Parsed<"lease.get">, env: Env): Operation<Result<"lease.get"> | PawlError> {
  const { name } = params;
  const holder = yield* localProvider(env).get(name);
  if (holder instanceof PawlError) return holder;
  return { lease: holder === null ? null : shownAs(name, holder, env) };
}

/** What others may know of a lease: never the leaseId. */
export function shownAs(
  name: string,
  { owner, fencingToken, acquiredAt, remainingMs, note, peer: { pid, uid } }: Holder,
  env: Env,
): NonNullable<Result<"lease.get">["lease"]> {
  const waiters = env.waiting(waitKey(name));
  const expiresAt = env.now + remainingMs;
  return { name, owner, fencingToken, acquiredAt, expiresAt, remainingMs, waiters, note, pid, uid };
}

function* list(params: Parsed<"lease.list">, env: Env): Operation<Result<"lease.list">> {
  const { limit } = params;
  const rows = yield* all(selectPage, { after: params.after ?? "", now: env.now, rows: limit + 1 });
  const leases: Result<"lease.list">["leases"] = [];
  let bytes = 0;
  for (const row of rows) {
    bytes += row.name.length + row.owner.length + (row.note?.length ?? 0);
    if (leases.length === limit || (bytes > MAX_PAGE_BYTES && leases.length > 0)) {
      return { leases, next: (leases.at(-1) as { name: string }).name };
    }
    leases.push(shownAs(row.name, holderOf(row, env.now), env));
  }
  return { leases };
}

export function* check(params: Parsed<"lease.check">, env: Env): Operation<Result<"lease.check">> {
  const { name, fencingToken } = params;
  const highest = (yield* one(selectHighest, { name }))?.highest ?? 0;
  return { current: yield* isHeld(name, fencingToken, env), highest };
}

export function* breakLease(
  params: Parsed<"lease.break">,
  env: Env,
): Operation<Result<"lease.break"> | PawlError> {
  const { name, reason } = params;
  const row = yield* one(selectByName, { name });
  if (row !== undefined && row.provider !== null && row.expires_at > env.now) {
    return notConfigured(kindOf(row.provider));
  }
  const broken = yield* localProvider(env).break(name);
  if (broken instanceof PawlError) return broken;
  if (broken && row !== undefined) {
    logBroken(row, reason, env);
    tellLost(row, "broken", reason, env);
    env.effects.wake(waitKey(name));
  }
  return { broken };
}

/** A guard of `transact`: `lease_lost` unless the name is held with this token. */
export function* guardLease(
  guard: { name: string; fencingToken: number },
  env: Env,
): Operation<PawlError | undefined> {
  const { name, fencingToken } = guard;
  if (yield* isHeld(name, fencingToken, env)) return undefined;
  const highest = (yield* one(selectHighest, { name }))?.highest ?? 0;
  return refuse(
    "lease_lost",
    `The lease ${shown(name)} is not held with the fencing token ${fencingToken}: the highest so far is ${highest}, and a lease that expired, was released or was broken is held by nobody. Nothing was done. Acquire it again and redo the work under the new token.`,
    { name, fencingToken, highest },
  );
}

/** How many leases are held. */
export function* countLeases(env: Env): Operation<number> {
  return (yield* one(countHeld, { now: env.now }))?.held ?? 0;
}

/** What ends by itself: leases by their ttl, with their connection, and the time to warn of that. */
export const leases: Expiry = {
  *earliest() {
    const end = (yield* one(earliestEnd))?.at ?? Number.POSITIVE_INFINITY;
    const warning = (yield* one(earliestWarning))?.at ?? Number.POSITIVE_INFINITY;
    const at = Math.min(end, warning);
    return Number.isFinite(at) ? at : undefined;
  },

  *expire(env, rows) {
    const expired = yield* all(removeExpired, { now: env.now, rows });
    for (const row of expired) {
      tellLost(row, "expired", null, env);
      yield* giveBack(row, env);
      env.effects.wake(waitKey(row.name));
    }
    const warned = yield* all(takeWarnings, { now: env.now, rows });
    for (const {
      name,
      lease_id: leaseId,
      fencing_token: fencingToken,
      expires_at: expiresAt,
      connection,
    } of warned) {
      const remainingMs = expiresAt - env.now;
      env.effects.notify(connection, "lease.expiring", {
        name,
        leaseId,
        fencingToken,
        expiresAt,
        remainingMs,
      });
    }
    return Math.max(expired.length, warned.length);
  },

  *postpone(byMs) {
    yield* run(postponeOwn, { byMs });
  },

  *disconnect(connection, env, rows) {
    const removed = yield* all(removeOfConnection, { connection, rows });
    for (const row of removed) {
      yield* giveBack(row, env);
      env.effects.wake(waitKey(row.name));
    }
    if (removed.length < rows) return;
    // The rest ends as if it had expired now, in steps that do not stall others.
    yield* run(expireOfConnection, { connection, now: env.now });
    env.effects.deadline(env.now);
  },

  *restart(env) {
    yield* run(forgetConnections, { grace: env.now + RESTART_GRACE_MS });
  },

  *latest() {
    return (yield* one(latestEnd))?.at ?? undefined;
  },
};

/** What the daemon waits under for leases that it has to give back to providers outside. */
export const OWED_KEY = "lease-owed";

/** A lease that has ended here: if a provider outside keeps it, that one has to be told. */
export function* giveBack(row: LeaseRow, env: Env): Operation<void> {
  const { name, lease_id: leaseId, fencing_token: fencingToken, provider, ttl_ms: ttlMs } = row;
  if (provider === null) return;
  yield* run(owe, { leaseId, name, provider, fencingToken, until: env.now + ttlMs });
  env.effects.wake(OWED_KEY);
}

/** What those who wait for a name are parked under. */
export function waitKey(name: string): string {
  return `lease:${name}`;
}

function* isHeld(name: string, fencingToken: number, env: Env): Operation<boolean> {
  const row = yield* one(selectByName, { name });
  return row !== undefined && row.expires_at > env.now && row.fencing_token === fencingToken;
}

/**
 * The connection that a renewed lease belongs to. One that ends with a connection stays with the one it was given
 * to: another that renews it, perhaps a program that ends right after, must not end it. After a restart there is
 * no such connection any more.
 */
export function ownerOf(row: LeaseRow, { caller }: Env): number {
  return row.release_on === "disconnect" && row.connection > 0 ? row.connection : caller.connection;
}

/** Sees to it that the holder is warned and told, and that the lease ends with its connection if it is to. */
export function* watchOver(
  grant: { name: string; ttlMs: number; releaseOn: "expiry" | "disconnect"; connection: number },
  remainingMs: number,
  env: Env,
): Operation<void> {
  const { name, ttlMs, releaseOn, connection } = grant;
  const expiresAt = env.now + remainingMs;
  const warnAt = connection === 0 ? null : expiresAt - Math.floor(ttlMs * WARN_FRACTION);
  yield* run(attach, { name, connection, releaseOn, warnAt });
  env.effects.deadline(warnAt ?? expiresAt);
  if (releaseOn === "disconnect") env.effects.bind(connection);
}

export function logBroken(row: LeaseRow, reason: string, env: Env): void {
  const { name, owner, fencing_token: fencingToken, pid, uid } = row;
  env.effects.log("lease broken", {
    lease: { name, owner, fencingToken, pid, uid },
    reason,
    caller: env.caller,
  });
}

export function tellLost(row: LeaseRow, cause: "expired" | "broken", reason: string | null, env: Env): void {
  const { name, lease_id: leaseId, fencing_token: fencingToken, connection } = row;
  env.effects.notify(connection, "lease.lost", { name, leaseId, fencingToken, cause, reason });
}

export function held(name: string, owner: string, remainingMs: number, now: number): PawlError {
  return refuse(
    "lease_held",
    `The lease ${shown(name)} is held by ${shown(owner)} for ${remainingMs} ms more unless renewed. Ask again, or wait for it with waitMs.`,
    { holder: { owner, expiresAt: now + remainingMs, remainingMs } },
  );
}

export function gone(): PawlError {
  return refuse(
    "lease_lost",
    "The lease is not held any more: it expired, was broken or was released. Stop what it guards; acquire the name again for a new lease with a higher fencing token.",
  );
}

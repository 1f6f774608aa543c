// A lease: its row, its shape in replies, and what its holder is told.
import type { Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Boottime, shownAt } from "../../clock.js";
import { endOf, type GrantRule, lasts, renewal } from "../../grants/grant.js";
import { type Operation, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";

/** A holder is told that its lease is about to end when this part of the ttl is left. */
const WARN_FRACTION = 1 / 3;

/** How leases are kept, for what is common to all that is granted (grants/grant.ts). */
export const LEASE_COLUMNS = {
  table: "pawl_lease",
  rows: "SELECT * FROM pawl_lease WHERE",
  expiresAt: "expires_at",
  graceEndsAt: "grace_ends_at",
  connection: "connection",
  unconnected: "0",
  bound: "release_on = 'disconnect'",
  // The connection that renews a lease bound to none is told of its end.
  follows: "release_on = 'expiry'",
  endedElsewhere: "provider IS NOT NULL",
} as const satisfies Partial<GrantRule<LeaseRow>>;

const LASTS = lasts(LEASE_COLUMNS);

/** A row may be past its end and not yet removed: ends come in bounded steps. */
export const selectByName = sql<LeaseRow>("SELECT * FROM pawl_lease WHERE name = :name");

export const selectHeldByName = sql<LeaseRow>(`SELECT * FROM pawl_lease WHERE name = :name AND ${LASTS}`);

export const selectHeldById = sql<LeaseRow>(
  `SELECT * FROM pawl_lease WHERE lease_id = :leaseId AND ${LASTS}`,
);

/** Where many have ended and wait to be removed, a page looks at so many names for those that are held. */
export const selectHeldPage = sql<LeaseRow>(`
  SELECT * FROM pawl_lease WHERE name > :after AND name <= :last AND ${LASTS} ORDER BY name LIMIT :rows`);

export const selectNameBehind = sql<{ name: string }>(
  "SELECT name FROM pawl_lease WHERE name > :after ORDER BY name LIMIT 1 OFFSET :passed",
);

export const selectHighest = sql<{ highest: number }>(
  "SELECT highest FROM pawl_lease_token WHERE name = :name",
);

/** The holder of the row until now has lost the lease by its ttl. */
const upsertLease = sql(`
  INSERT INTO pawl_lease (name, lease_id, fencing_token, owner, note, acquired_at, expires_at, ttl_ms, warn_at,
    release_on, connection, pid, uid, gid, provider, boot, ends_boottime_ms, acquired_ttl_ms)
  VALUES (:name, :leaseId, :fencingToken, :owner, :note, :acquiredAt, :expiresAt, :ttlMs, :warnAt,
    :releaseOn, :connection, :pid, :uid, :gid, :provider, :boot, :endsBoottimeMs, :ttlMs)
  ON CONFLICT (name) DO UPDATE SET lease_id = excluded.lease_id, fencing_token = excluded.fencing_token,
    owner = excluded.owner, note = excluded.note, acquired_at = excluded.acquired_at,
    expires_at = excluded.expires_at, grace_ends_at = NULL, ttl_ms = excluded.ttl_ms, warn_at = excluded.warn_at,
    release_on = excluded.release_on, connection = excluded.connection, pid = excluded.pid,
    uid = excluded.uid, gid = excluded.gid, provider = excluded.provider, boot = excluded.boot,
    ends_boottime_ms = excluded.ends_boottime_ms, acquired_ttl_ms = excluded.acquired_ttl_ms`);

const updateRenewed = sql(`
  UPDATE pawl_lease SET ${renewal(LEASE_COLUMNS)},
    ttl_ms = :ttlMs, warn_at = :warnAt, boot = :boot, ends_boottime_ms = :endsBoottimeMs
  WHERE lease_id = :leaseId`);

const deleteLease = sql("DELETE FROM pawl_lease WHERE lease_id = :leaseId");

const insertOwed = sql(`
  INSERT INTO pawl_lease_owed (lease_id, name, provider, fencing_token, until)
  VALUES (:leaseId, :name, :provider, :fencingToken, :until)
  ON CONFLICT (lease_id) DO NOTHING`);

export interface LeaseRow {
  name: string;
  lease_id: string;
  fencing_token: number;
  owner: string;
  note: string | null;
  /** By the wall clock of that moment. */
  acquired_at: number;
  expires_at: number;
  /** While its holder may come back after a restart: until when. */
  grace_ends_at: number | null;
  /** Of the last renewal. */
  ttl_ms: number;
  /** Null for a lease of an earlier version, whose `ttl_ms` counts. */
  acquired_ttl_ms: number | null;
  release_on: "expiry" | "disconnect";
  connection: number;
  pid: number | null;
  uid: number | null;
  gid: number | null;
  /** The provider that keeps it; null for this database. */
  provider: string | null;
  /** When it ends by CLOCK_BOOTTIME; null if it is kept here. */
  ends_boottime_ms: number | null;
}

/** A lease as it is granted. */
export interface GrantedLease {
  readonly name: string;
  readonly leaseId: string;
  readonly fencingToken: number;
  readonly owner: string;
  readonly note: string | null;
  readonly ttlMs: number;
  readonly releaseOn: "expiry" | "disconnect";
  /** The provider that keeps it; null for this database. */
  readonly provider: string | null;
}

/** How long a lease lasts from now on. */
export interface Lasting {
  readonly remainingMs: number;
  /** Now by CLOCK_BOOTTIME, for a lease that a provider keeps; null for one that is kept here. */
  readonly boottime: Boottime | null;
}

/**
 * Writes down a grant to the caller: whom to tell, when, and when it ends.
 *
 * @param former the row that it takes the place of.
 */
export function* keep(
  lease: GrantedLease,
  lasting: Lasting,
  former: LeaseRow | undefined,
  env: Env,
): Operation<Result<"lease.acquire">> {
  const { name, leaseId, fencingToken, owner, ttlMs } = lease;
  const { connection, pid, uid, gid } = env.caller;
  const times = timesOf(lasting, ttlMs, env);
  // Each by its name: to spread them takes longer than the statement.
  yield* run(upsertLease, {
    name,
    leaseId,
    fencingToken,
    owner,
    note: lease.note,
    ttlMs,
    releaseOn: lease.releaseOn,
    provider: lease.provider,
    expiresAt: times.expiresAt,
    warnAt: times.warnAt,
    boot: times.boot,
    endsBoottimeMs: times.endsBoottimeMs,
    acquiredAt: env.wallMs,
    connection,
    pid,
    uid,
    gid,
  });
  if (former === undefined) env.effects.count("leases", 1);
  env.effects.tell("lease", name, "acquired", name, { by: owner, fencingToken });
  attend(times.warnAt, lease.releaseOn, env);
  const { expiresAt, remainingMs } = shownEnd(times.expiresAt, env);
  return { lease: { name, leaseId, fencingToken, owner, acquiredAt: env.wallMs, expiresAt, remainingMs } };
}

/**
 * Has a held lease last anew. One that ends with a connection stays with the one it was given to: another that renews
 * it, perhaps a program that ends right after, must not end it. After a restart it belongs to who renews it.
 *
 * @param warnedTtlMs its holder is warned when a part of this is left.
 */
export function* renew(
  { lease_id: leaseId, release_on: releaseOn }: LeaseRow,
  { ttlMs, warnedTtlMs = ttlMs }: { ttlMs: number; warnedTtlMs?: number },
  lasting: Lasting,
  env: Env,
): Operation<Result<"lease.heartbeat">> {
  const times = timesOf(lasting, warnedTtlMs, env);
  yield* run(updateRenewed, {
    leaseId,
    ttlMs,
    expiresAt: times.expiresAt,
    warnAt: times.warnAt,
    boot: times.boot,
    endsBoottimeMs: times.endsBoottimeMs,
    connection: env.caller.connection,
  });
  attend(times.warnAt, releaseOn, env);
  return shownEnd(times.expiresAt, env);
}

function timesOf({ remainingMs, boottime }: Lasting, ttlMs: number, env: Env) {
  const expiresAt = env.now + remainingMs;
  return {
    expiresAt,
    warnAt: expiresAt - Math.floor(ttlMs * WARN_FRACTION),
    boot: boottime?.boot ?? null,
    endsBoottimeMs: boottime === null ? null : boottime.boottimeMs + remainingMs,
  };
}

/** If the lease belongs to another connection, this only costs a look when this one closes. */
function attend(warnAt: number, releaseOn: "expiry" | "disconnect", env: Env): void {
  env.effects.deadline(warnAt);
  if (releaseOn === "disconnect") env.effects.bind(env.caller.connection);
}

/** What a lease lasts for that is renewed without a ttl. */
export function acquiredTtlOf(row: LeaseRow): number {
  return row.acquired_ttl_ms ?? row.ttl_ms;
}

/** Nobody holds the lease any more. The waiters of its name try again. */
export function* drop(row: LeaseRow, env: Env): Operation<void> {
  const rows = yield* run(deleteLease, { leaseId: row.lease_id });
  env.effects.count("leases", -rows);
  env.effects.wake(waitKey(row.name));
}

/** The key under which the daemon waits for leases that it has to give back to providers. */
export const OWED_KEY = "lease-owed";

/** A lease that has ended here: if a provider keeps it, that one has to be told. */
export function* giveBack(row: LeaseRow, env: Env): Operation<void> {
  const { name, lease_id: leaseId, fencing_token: fencingToken, provider, ttl_ms: ttlMs } = row;
  if (provider === null) return;
  yield* run(insertOwed, { leaseId, name, provider, fencingToken, until: env.now + ttlMs });
  env.effects.wake(OWED_KEY);
}

export function isHeld(row: LeaseRow | undefined, env: Env): row is LeaseRow {
  return row !== undefined && remainingOf(row, env) > 0;
}

export function remainingOf(row: LeaseRow, { now }: Env): number {
  return endOf(row.expires_at, row.grace_ends_at) - now;
}

/** An end as replies have it. */
function shownEnd(at: number, env: Env): { expiresAt: number; remainingMs: number } {
  return { expiresAt: shownAt(at, env), remainingMs: at - env.now };
}

/** A lease as others may know it: never the leaseId. */
export function shownRow(row: LeaseRow, env: Env): NonNullable<Result<"lease.get">["lease"]> {
  const { name, owner, fencing_token: fencingToken, acquired_at: acquiredAt, note, pid, uid } = row;
  const holder = { owner, fencingToken, acquiredAt, remainingMs: remainingOf(row, env), note, pid, uid };
  return shownHolder(name, holder, env);
}

export function shownHolder(
  name: string,
  holder: {
    owner: string;
    fencingToken: number;
    acquiredAt: number;
    remainingMs: number;
    note: string | null;
    pid: number | null;
    uid: number | null;
  },
  env: Env,
): NonNullable<Result<"lease.get">["lease"]> {
  const { owner, fencingToken, acquiredAt, remainingMs, note, pid, uid } = holder;
  const waiters = env.waiting(waitKey(name));
  const expiresAt = env.wallMs + remainingMs;
  return { name, owner, fencingToken, acquiredAt, expiresAt, remainingMs, waiters, note, pid, uid };
}

/** The key under which the waiters of a name are parked. */
export function waitKey(name: string): string {
  return `lease:${name}`;
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
  tell(row, cause === "broken" ? "broken" : "lost", env, reason);
}

/** Tells those who follow the name that it is not held any more. */
export function tell(
  { name, owner, fencing_token: fencingToken }: LeaseRow,
  kind: "released" | "lost" | "broken",
  env: Env,
  reason: string | null = null,
): void {
  env.effects.tell("lease", name, kind, name, { by: owner, fencingToken, reason: reason ?? undefined });
}

export function held(name: string, owner: string, remainingMs: number, wallMs: number): PawlError {
  return refuse(
    "lease_held",
    `The lease ${shown(name)} is held by ${shown(owner)} for ${remainingMs} ms more unless renewed. Ask again, or wait for it with waitMs.`,
    { holder: { owner, expiresAt: wallMs + remainingMs, remainingMs } },
  );
}

export function gone(): PawlError {
  return refuse(
    "lease_lost",
    "The lease is not held any more: it expired, was broken or was released. Stop what it guards; acquire the name again for a new lease with a higher fencing token.",
  );
}

// A lease: its row, its shape in replies, and what its holder is told.
import type { NotificationParams, Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Boottime, shownAt } from "../../clock.js";
import { type GrantRule, lasts, renewal } from "../../grants/grant.js";
import {
  beginLoss,
  follow,
  forgetHolder,
  isBeingEnded,
  LOSING,
  type OnLossColumns,
  orBeingLost,
  remainingOf,
} from "../../grants/on-loss.js";
import { all, type Operation, one, run, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { leaseEnded as itemEnded, itemOfLease } from "../board/claims.js";
import { holdItem } from "../board/work-state.js";
import { leaseEnded } from "../queue/claims-under-lease.js";

/** A holder is told that its lease is about to end when this part of the ttl is left. */
const WARN_FRACTION = 1 / 3;

/** How leases are kept, for what is common to all that is granted (grants/grant.ts). */
export const LEASE_COLUMNS = {
  noun: "lease",
  table: "pawl_lease",
  rows: "SELECT * FROM pawl_lease WHERE",
  expiresAt: "expires_at",
  graceEndsAt: "grace_ends_at",
  inRows: { expiresAt: "expires_at", graceEndsAt: "grace_ends_at", key: ["name", "fencing_token"] },
  connection: "connection",
  unconnected: "0",
  holder: "connection",
  bound: "release_on = 'disconnect'",
  // The connection that renews a lease bound to none is told of its end.
  follows: "release_on = 'expiry'",
  endedElsewhere: "provider IS NOT NULL",
  comeBack: { graceMs: "grace_ms", key: "lease_id" },
} as const satisfies Partial<GrantRule<LeaseRow>>;

/** The condition of leases that are held at `:now`. */
export const LIVE = `${lasts(LEASE_COLUMNS)} AND lost_at IS NULL`;

/** The condition of leases that are not granted to others at `:now`: those, and those whose process is being ended. */
export const TAKEN = orBeingLost(LIVE);

/** Those who hold a name, the earliest first, with how many slots it has. */
export const selectHolders = sql<HolderRow>(`
  SELECT pawl_lease.*, capacity FROM pawl_lease
  LEFT JOIN pawl_lease_token ON pawl_lease_token.name = pawl_lease.name
  WHERE pawl_lease.name = :name AND ${TAKEN}
  ORDER BY fencing_token LIMIT :rows`);

/** The earliest holder of a name: the only one, where a provider keeps it. */
export const selectHeldByName = sql<LeaseRow>(
  `SELECT * FROM pawl_lease WHERE name = :name AND ${LIVE} ORDER BY fencing_token LIMIT 1`,
);

/** The same, also while its process is being ended. */
export const selectTakenByName = sql<LeaseRow>(
  `SELECT * FROM pawl_lease WHERE name = :name AND ${TAKEN} ORDER BY fencing_token LIMIT 1`,
);

const selectGrant = sql<LeaseRow>(
  `SELECT * FROM pawl_lease WHERE name = :name AND fencing_token = :fencingToken AND ${LIVE}`,
);

export const selectHeldById = sql<LeaseRow>(`SELECT * FROM pawl_lease WHERE lease_id = :leaseId AND ${LIVE}`);

/** What is known of a name, if it was ever held or configured. */
export const selectName = sql<{ highest: number; capacity: number | null }>(
  "SELECT highest, capacity FROM pawl_lease_token WHERE name = :name",
);

export const selectHighest = sql<{ highest: number }>(
  "SELECT highest FROM pawl_lease_token WHERE name = :name",
);

const insertLease = sql(`
  INSERT INTO pawl_lease (name, lease_id, fencing_token, owner, note, acquired_at, expires_at, ttl_ms, warn_at,
    release_on, connection, pid, uid, gid, provider, boot, ends_boottime_ms, acquired_ttl_ms, mode, slots, members,
    joint, grace_ms, task, awaits_children, on_loss, start_ticks)
  VALUES (:name, :leaseId, :fencingToken, :owner, :note, :acquiredAt, :expiresAt, :ttlMs, :warnAt,
    :releaseOn, :connection, :pid, :uid, :gid, :provider, :boot, :endsBoottimeMs, :ttlMs, :mode, :slots, :members,
    :joint, :graceMs, :task, :awaitsChildren, :onLoss, :startTicks)`);

const updateRenewed = sql(`
  UPDATE pawl_lease SET ${renewal(LEASE_COLUMNS)},
    ttl_ms = :ttlMs, warn_at = :warnAt, boot = :boot, ends_boottime_ms = :endsBoottimeMs, note = coalesce(:note, note)
  WHERE lease_id = :leaseId`);

const deleteLease = sql("DELETE FROM pawl_lease WHERE lease_id = :leaseId");

const loseLease = sql<LeaseRow>(
  `UPDATE pawl_lease SET ${LOSING}, warn_at = NULL WHERE lease_id = :leaseId AND lost_at IS NULL RETURNING *`,
);

const selectLost = sql<LeaseRow>(
  "SELECT * FROM pawl_lease WHERE lease_id = :leaseId AND lost_at IS NOT NULL LIMIT 1",
);

const deleteJoint = sql<LeaseRow>("DELETE FROM pawl_lease WHERE lease_id = :leaseId RETURNING *");

const insertOwed = sql(`
  INSERT INTO pawl_lease_owed (lease_id, name, provider, fencing_token, until)
  VALUES (:leaseId, :name, :provider, :fencingToken, :until)
  ON CONFLICT (lease_id) DO NOTHING`);

export interface LeaseRow extends OnLossColumns {
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
  mode: Mode;
  /** How many slots of the name it takes; 1 of one that is shared. */
  slots: number;
  /** Its members of the name's pool, as JSON; null if it has none. */
  members: string | null;
  /** How many names a lease of several has; null for one. */
  joint: number | null;
  /** 1 if a claim of a queue was made that lives as long as it. */
  has_claims: 1 | null;
  /** How long its holder may take to come back after its connection has closed; null for not at all. */
  grace_ms: number | null;
  /** What it is held for, as the holder says; null for nothing. */
  task: string | null;
  /** 1 if it is held until child processes of the holder have what they wait for. */
  awaits_children: 0 | 1 | null;
  /** When the process of `pid` began, in clock ticks since the machine did; null where that is not known. */
  start_ticks: number | null;
}

type Mode = Parsed<"lease.acquire">["mode"];

/** A holder's row with what the name has. */
export interface HolderRow extends LeaseRow {
  /** How many slots it has; null for one. */
  readonly capacity: number | null;
}

/** A request for leases, as far as all of its names have it in common. */
export type Asked = Pick<
  Parsed<"lease.acquire">,
  | "owner"
  | "mode"
  | "slots"
  | "ttlMs"
  | "releaseOn"
  | "graceMs"
  | "note"
  | "task"
  | "awaitsChildren"
  | "onLoss"
>;

/** One name of a request, as it is granted. */
export interface Granted {
  readonly name: string;
  readonly leaseId: string;
  readonly fencingToken: number;
  /** Null if the name is no pool, or is shared. */
  readonly members: string[] | null;
  /** How many names a lease of several has; null for one. */
  readonly joint: number | null;
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
 * @param asked the request, as far as all of its names have it in common.
 * @returns the lease as its holder has it.
 */
export function* keep(asked: Asked, granted: Granted, lasting: Lasting, env: Env): Operation<Lease> {
  const { owner, mode, slots = 1, ttlMs, releaseOn } = asked;
  const { name, leaseId, fencingToken, members } = granted;
  const { connection, pid, uid, gid, startTicks = null } = env.caller;
  const times = timesOf(lasting, ttlMs, env);
  // Each by its name: to spread them takes longer than the statement.
  yield* write(insertLease, {
    name,
    leaseId,
    fencingToken,
    owner,
    note: asked.note ?? null,
    ttlMs,
    releaseOn,
    mode,
    slots,
    members: members === null ? null : JSON.stringify(members),
    joint: granted.joint,
    graceMs: asked.graceMs === 0 ? null : asked.graceMs,
    task: asked.task ?? null,
    awaitsChildren: asked.awaitsChildren === undefined ? null : Number(asked.awaitsChildren),
    onLoss: asked.onLoss === undefined ? null : 1,
    provider: granted.provider,
    expiresAt: times.expiresAt,
    warnAt: times.warnAt,
    boot: times.boot,
    endsBoottimeMs: times.endsBoottimeMs,
    acquiredAt: env.wallMs,
    connection,
    pid,
    uid,
    gid,
    startTicks,
  });
  const storyId = itemOfLease(name);
  if (storyId !== undefined) yield* holdItem(storyId);
  env.effects.count("leases", 1);
  env.effects.tell("lease", name, "acquired", name, { by: owner, fencingToken });
  attend(times.warnAt, releaseOn, env);
  const { expiresAt, remainingMs } = shownEnd(times.expiresAt, env);
  return {
    name,
    leaseId,
    fencingToken,
    owner,
    mode,
    slots,
    members: members ?? undefined,
    acquiredAt: env.wallMs,
    expiresAt,
    remainingMs,
  };
}

/** A lease as its holder has it. */
export type Lease = Extract<Result<"lease.acquire">, { lease: unknown }>["lease"];

/** The grant of a name that has a fencing token; undefined if that is not held. */
export function heldGrant(name: string, fencingToken: number, env: Env): Operation<LeaseRow | undefined> {
  return one(selectGrant, { name, fencingToken, now: env.now });
}

/**
 * Has a held lease last anew. One that ends with a connection stays with the one it was given to: another that renews
 * it, perhaps a program that ends right after, must not end it. After a restart it belongs to who renews it.
 *
 * @param warnedTtlMs its holder is warned when a part of this is left.
 * @param note what it is for from now on; undefined for what it was for until now.
 */
export function* renew(
  { lease_id: leaseId, release_on: releaseOn, on_loss: onLoss }: LeaseRow,
  {
    ttlMs,
    warnedTtlMs = ttlMs,
    note = null,
  }: { ttlMs: number; warnedTtlMs?: number; note?: string | null | undefined },
  lasting: Lasting,
  env: Env,
): Operation<Result<"lease.heartbeat">> {
  const times = timesOf(lasting, warnedTtlMs, env);
  yield* write(updateRenewed, {
    leaseId,
    ttlMs,
    note,
    expiresAt: times.expiresAt,
    warnAt: times.warnAt,
    boot: times.boot,
    endsBoottimeMs: times.endsBoottimeMs,
    connection: env.caller.connection,
  });
  if (onLoss !== null) yield* follow(leaseId, env);
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

/**
 * Nobody holds the lease any more, with all its names. The waiters of those try again. Gives its rows; none if another
 * row of it came before. The claims that are under it end, too, and so does the claim of an item that it is.
 *
 * @param row as the operation has read it.
 * @param isReleased whether its holder gave it up.
 */
export function* drop(row: LeaseRow, env: Env, isReleased = false): Operation<readonly LeaseRow[]> {
  const { lease_id: leaseId, joint, on_loss: onLoss } = row;
  let rows: readonly LeaseRow[] = [row];
  if (joint !== null) rows = inOrder(yield* all(deleteJoint, { leaseId }));
  else yield* write(deleteLease, { leaseId });
  if (onLoss !== null) yield* forgetHolder(leaseId);
  env.effects.count("leases", -rows.length);
  for (const { name, fencing_token: fencingToken, has_claims: hasClaims } of rows) {
    env.effects.wake(waitKey(name));
    if (hasClaims === 1) yield* leaseEnded(name, fencingToken, isReleased, env);
    const storyId = itemOfLease(name);
    if (storyId !== undefined) yield* itemEnded(storyId, fencingToken, isReleased, env);
  }
  return rows;
}

/**
 * The lease is lost: nobody holds it any more. If its process is to be ended then, its names are free once that has
 * ended; otherwise at once. Gives its rows, as `drop` does: none if it was lost before.
 */
export function* lose(row: LeaseRow, env: Env): Operation<readonly LeaseRow[]> {
  const { lease_id: leaseId, on_loss: onLoss, connection } = row;
  if (onLoss === null || !(yield* beginLoss(leaseId, env))) return yield* drop(row, env);
  const rows = inOrder(yield* all(loseLease, { leaseId, now: env.now }));
  for (const { name, fencing_token: fencingToken, has_claims: hasClaims } of rows) {
    if (hasClaims === 1) yield* leaseEnded(name, fencingToken, false, env);
  }
  return rows.map((each) => ({ ...each, connection }));
}

/** The process of a lost lease has ended: others may have its names. */
export function* freeLease(leaseId: string, env: Env): Operation<void> {
  const row = yield* one(selectLost, { leaseId });
  if (row === undefined) yield* forgetHolder(leaseId);
  else yield* drop(row, env);
}

const selectNames = sql<{ name: string }>("SELECT name FROM pawl_lease WHERE lease_id = :leaseId");

/** The names that a lease has; none for an id of none. */
export function* namesOfLease(leaseId: string): Operation<string[]> {
  return (yield* all(selectNames, { leaseId })).map(({ name }) => name);
}

const selectTokens = sql<{ name: string; fencing_token: number }>(
  "SELECT name, fencing_token FROM pawl_lease WHERE lease_id = :leaseId",
);

/** What the holder of a lease is told when it ends by its time, for each of its names. */
export function* lossesOfLease(leaseId: string): Operation<NotificationParams<"lease.lost">[]> {
  const rows = yield* all(selectTokens, { leaseId });
  return rows.map(({ name, fencing_token: fencingToken }) => ({
    name,
    leaseId,
    fencingToken,
    cause: "expired",
    reason: null,
  }));
}

/** The order of rows that a statement returns is anyone's. */
function inOrder(rows: readonly LeaseRow[]): LeaseRow[] {
  return [...rows].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
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

/** An end as replies have it. */
function shownEnd(at: number, env: Env): { expiresAt: number; remainingMs: number } {
  return { expiresAt: shownAt(at, env), remainingMs: at - env.now };
}

/** A lease as others may know it: never the leaseId. */
export function shownRow(row: LeaseRow, env: Env): ShownHolder {
  const { name, owner, fencing_token: fencingToken, mode, acquired_at: acquiredAt, note, pid, uid } = row;
  const holder = { owner, fencingToken, acquiredAt, remainingMs: remainingOf(row, env), note, pid, uid };
  return {
    ...shownHolder(name, holder, env),
    mode,
    ...(isBeingEnded(row, env) ? { ending: true } : {}),
    ...(row.slots === 1 ? {} : { slots: row.slots }),
    ...(row.members === null ? {} : { members: JSON.parse(row.members) as string[] }),
  };
}

export type ShownHolder = NonNullable<Result<"lease.get">["lease"]>;

/** The holder of a name that one holds alone. */
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
): ShownHolder {
  const { owner, fencingToken, acquiredAt, remainingMs, note, pid, uid } = holder;
  const waiters = env.waiting(waitKey(name));
  const expiresAt = env.wallMs + remainingMs;
  const mode = "exclusive";
  return { name, owner, fencingToken, mode, acquiredAt, expiresAt, remainingMs, waiters, note, pid, uid };
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

/** A holder, as the refusal of its name tells of it. */
export function toldHolder(row: LeaseRow, env: Env): ToldHolder {
  return {
    owner: row.owner,
    remainingMs: remainingOf(row, env),
    isBeingEnded: isBeingEnded(row, env),
  };
}

interface ToldHolder {
  readonly owner: string;
  readonly remainingMs: number;
  readonly isBeingEnded?: boolean;
}

/**
 * The refusal of a name that is not free.
 *
 * @param holders the earliest first, as many as are told of; none if the name is kept for those who wait for it.
 */
export function held(
  name: string,
  holders: readonly ToldHolder[],
  wallMs: number,
  details: { readonly name?: string } = {},
): PawlError {
  const told = holders.map(({ owner, remainingMs }) => ({
    owner,
    expiresAt: wallMs + remainingMs,
    remainingMs,
  }));
  const [holder = { owner: "those who wait for it", expiresAt: wallMs, remainingMs: 0 }, ...others] = told;
  const more = others.length === 0 ? "" : `, and by ${others.length === 1 ? "another one" : "others"},`;
  const how = holders[0]?.isBeingEnded
    ? `was lost by ${shown(holder.owner)}, whose process is being ended`
    : `is held by ${shown(holder.owner)}${more} for ${holder.remainingMs} ms more unless renewed`;
  return refuse("lease_held", `The lease ${shown(name)} ${how}. Ask again, or wait for it with waitMs.`, {
    holder,
    holders: told,
    ...details,
  });
}

export function gone(): PawlError {
  return refuse(
    "lease_lost",
    "The lease is not held any more: it expired, was broken or was released. Stop what it guards; acquire the name again for a new lease with a higher fencing token.",
  );
}

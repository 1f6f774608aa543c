// A reservation: its row, the patterns that it has, and what others are shown of it.
import type { NotificationParams, Parsed, Result } from "@pawl/protocol";
import { shownAt } from "../../clock.js";
import { type Cause, type GrantRule, lasts, renewal } from "../../grants/grant.js";
import {
  beginLoss,
  follow,
  forgetHolder,
  isBeingEnded,
  keepOnLoss,
  LOSING,
  type OnLoss,
  type OnLossColumns,
  orBeingLost,
  remainingOf,
} from "../../grants/on-loss.js";
import { all, insert, type Operation, one, run, sql, write } from "../../store/statement.js";
import type { HolderProcess } from "../../turns/holder-process.js";
import { type Env, marked } from "../../turns/operation.js";
import type { Pattern } from "./pattern.js";

/** How reservations are kept, for what is common to all that is granted (grants/grant.ts). */
export const RESERVATION_COLUMNS = {
  noun: "path",
  table: "pawl_path_reservation",
  rows: "SELECT * FROM pawl_path_reservation WHERE",
  expiresAt: "expires_at",
  graceEndsAt: "grace_ends_at",
  inRows: { expiresAt: "expires_at", graceEndsAt: "grace_ends_at", key: ["number"] },
  connection: "connection",
  unconnected: "0",
  holder: "connection",
  bound: "release_on = 'disconnect'",
  // The connection that renews a reservation bound to none is told of its end.
  follows: "release_on = 'expiry'",
  comeBack: { graceMs: "grace_ms", key: "reservation_id" },
} as const satisfies Partial<GrantRule<ReservationRow>>;

/** The condition of reservations that are held at `:now`. */
const LIVE = `${lasts(RESERVATION_COLUMNS)} AND lost_at IS NULL`;

/** The condition of reservations that are in others' way at `:now`: those, and those whose process is being ended. */
export const TAKEN = orBeingLost(LIVE);

export const selectRoot = sql<{ root_id: number; highest: number }>(
  "SELECT root_id, highest FROM pawl_path_root WHERE root = :root",
);

export const selectHeldById = sql<HeldRow>(`
  SELECT pawl_path_reservation.*, root FROM pawl_path_reservation CROSS JOIN pawl_path_root
  WHERE reservation_id = :reservationId AND ${LIVE} AND pawl_path_root.root_id = pawl_path_reservation.root_id`);

const selectPatterns = sql<{ position: number; pattern: string }>(
  "SELECT position, pattern FROM pawl_path_pattern WHERE number = :number ORDER BY position",
);

const insertReservation = sql(`
  INSERT INTO pawl_path_reservation (reservation_id, root_id, fencing_token, mode, owner, note, acquired_at, expires_at,
    acquired_ttl_ms, release_on, grace_ms, connection, pid, uid, gid, parts, on_loss, task, awaits_children,
    start_ticks)
  VALUES (:reservationId, :rootId, :fencingToken, :mode, :owner, :note, :acquiredAt, :expiresAt,
    :ttlMs, :releaseOn, :graceMs, :connection, :pid, :uid, :gid, 0, :onLoss, :task, :awaitsChildren, :startTicks)`);

const insertPattern = sql(`
  INSERT INTO pawl_path_pattern (number, position, root_id, beginning, pattern)
  VALUES (:number, :position, :rootId, :beginning, :pattern)`);

const updateRenewed = sql(`
  UPDATE pawl_path_reservation SET ${renewal(RESERVATION_COLUMNS)},
    fencing_token = :fencingToken, note = coalesce(:note, note)
  WHERE number = :number`);

const deletePattern = sql("DELETE FROM pawl_path_pattern WHERE number = :number AND position = :position");
const deletePatterns = sql("DELETE FROM pawl_path_pattern WHERE number = :number");
const deleteReservation = sql("DELETE FROM pawl_path_reservation WHERE number = :number");
const loseReservation = sql(
  `UPDATE pawl_path_reservation SET ${LOSING} WHERE number = :number AND lost_at IS NULL`,
);
const selectLost = sql<ReservationRow>(
  "SELECT * FROM pawl_path_reservation WHERE reservation_id = :reservationId AND lost_at IS NOT NULL",
);
const countPart = sql("UPDATE pawl_path_reservation SET parts = parts + 1 WHERE number = :number");

export interface ReservationRow extends OnLossColumns {
  /** Counts up with each reservation. */
  number: number;
  reservation_id: string;
  root_id: number;
  fencing_token: number;
  mode: "write" | "read";
  owner: string;
  note: string | null;
  /** By the wall clock of that moment. */
  acquired_at: number;
  expires_at: number;
  /** While its holder may come back, after its connection or the daemon has ended: until when. */
  grace_ends_at: number | null;
  acquired_ttl_ms: number;
  release_on: "expiry" | "disconnect";
  /** How long its holder may take to come back after its connection has closed; null for not at all. */
  grace_ms: number | null;
  connection: number;
  pid: number | null;
  uid: number | null;
  gid: number | null;
  /** How often a part of it was given back. */
  parts: number;
  /** What it is held for, as the holder says; null for nothing. */
  task: string | null;
  /** 1 if it is held until child processes of the holder have what they wait for. */
  awaits_children: 0 | 1 | null;
  /** When the process of `pid` began, in clock ticks since the machine did; null where that is not known. */
  start_ticks: number | null;
}

/** A reservation with the root that it is of. */
export type HeldRow = ReservationRow & { root: string };

/** A reservation as it is granted. */
export type GrantedReservation = Pick<ReservationRow, "mode" | "owner" | "note"> & {
  readonly rootId: number;
  readonly fencingToken: number;
  readonly ttlMs: number;
  readonly releaseOn: "expiry" | "disconnect";
  readonly graceMs: number | null;
  /** How its process, which is this, is ended when it is lost. */
  readonly ending: { readonly onLoss: OnLoss; readonly holder: HolderProcess } | undefined;
  readonly task: string | null;
  readonly awaitsChildren: 0 | 1 | null;
};

/** The patterns of a reservation, in the order in which they were given. */
export function* patternsOf(number: number): Operation<{ position: number; pattern: string }[]> {
  return yield* all(selectPatterns, { number });
}

/** Writes down a grant to the caller. */
export function* keep(
  { ending, ...granted }: GrantedReservation,
  patterns: readonly Pattern[],
  env: Env,
): Operation<{ reservationId: string; expiresAt: number; remainingMs: number }> {
  const reservationId = `path_${marked(env.random(RESERVATION_ID_BYTES).toString("hex"), env)}`;
  const expiresAt = env.now + granted.ttlMs;
  const { connection, pid, uid, gid, startTicks = null } = env.caller;
  const caller = { connection, pid, uid, gid, startTicks };
  const onLoss = ending === undefined ? null : 1;
  const row = { ...granted, reservationId, acquiredAt: env.wallMs, expiresAt, ...caller, onLoss };
  const number = yield* insert(insertReservation, row);
  yield* addPatterns({ number, root_id: granted.rootId }, patterns, 0);
  if (ending !== undefined) yield* keepOnLoss("path", reservationId, ending.onLoss, ending.holder, env);
  env.effects.count("reservations", 1);
  attend(expiresAt, granted.releaseOn, env);
  return { reservationId, ...shownEnd(expiresAt, env) };
}

/** Random bits of a reservationId: as many as nobody guesses. */
const RESERVATION_ID_BYTES = 16;

/** @param from the place of the first. */
export function* addPatterns(
  { number, root_id: rootId }: Pick<ReservationRow, "number" | "root_id">,
  patterns: readonly Pattern[],
  from: number,
): Operation<void> {
  for (const [index, { text, beginning }] of patterns.entries()) {
    yield* run(insertPattern, { number, position: from + index, rootId, beginning, pattern: text });
  }
}

/**
 * Has a reservation last anew. One that ends with a connection stays with the one it was given to, but for one that
 * that connection or the daemon has left: it is of the connection that renews it.
 */
export function* renew(
  { number, reservation_id: reservationId, release_on: releaseOn, on_loss: onLoss }: ReservationRow,
  { ttlMs, fencingToken, note }: { ttlMs: number; fencingToken: number; note: string | null },
  env: Env,
): Operation<{ expiresAt: number; remainingMs: number }> {
  const expiresAt = env.now + ttlMs;
  yield* run(updateRenewed, { number, fencingToken, note, expiresAt, connection: env.caller.connection });
  if (onLoss !== null) yield* follow(reservationId, env);
  attend(expiresAt, releaseOn, env);
  return shownEnd(expiresAt, env);
}

function attend(expiresAt: number, releaseOn: "expiry" | "disconnect", env: Env): void {
  env.effects.deadline(expiresAt);
  if (releaseOn === "disconnect") env.effects.bind(env.caller.connection);
}

/** Nobody holds the reservation any more: calls that wait for its end try again. Returns how many rows that were. */
export function* drop(row: ReservationRow, env: Env): Operation<number> {
  const { number, reservation_id: reservationId, on_loss: onLoss } = row;
  if (onLoss !== null) yield* forgetHolder(reservationId);
  const patterns = yield* run(deletePatterns, { number });
  yield* write(deleteReservation, { number });
  env.effects.count("reservations", -1);
  env.effects.wake(endKey(row));
  return patterns + 1;
}

/**
 * The reservation is lost: nobody holds it any more. If its process is to be ended then, others may have the paths once
 * that has ended; otherwise at once. Returns how many rows that were.
 */
export function* lose(row: ReservationRow, env: Env): Operation<number> {
  const { number, reservation_id: reservationId, on_loss: onLoss } = row;
  if (onLoss === null || !(yield* beginLoss(reservationId, env))) return yield* drop(row, env);
  return yield* run(loseReservation, { number, now: env.now });
}

/** The process of a lost reservation has ended: others may have the paths. */
export function* freeReservation(reservationId: string, env: Env): Operation<void> {
  const row = yield* one(selectLost, { reservationId });
  if (row === undefined) yield* forgetHolder(reservationId);
  else yield* drop(row, env);
}

/** Gives back the patterns at these places, and keeps the others. */
export function* dropPart(row: ReservationRow, positions: readonly number[], env: Env): Operation<void> {
  const { number } = row;
  for (const position of positions) yield* run(deletePattern, { number, position });
  yield* run(countPart, { number });
  env.effects.wake(endKey(row));
}

/** The key that is woken when a reservation, as it is now, ends or is given back in part. */
export function endKey({ number, parts }: Pick<ReservationRow, "number" | "parts">): string {
  return `path:${number}:${parts}`;
}

/** The line of calls that wait for paths below a root. */
export function lineOf(root: string): string {
  return `path:${root}`;
}

/** An end as replies have it. */
function shownEnd(at: number, env: Env): { expiresAt: number; remainingMs: number } {
  return { expiresAt: shownAt(at, env), remainingMs: at - env.now };
}

type Shown = Result<"path.list">["reservations"][number];

/** A reservation as others may know it: never the reservationId. */
export function* shownRow(row: HeldRow, env: Env): Operation<Shown> {
  const { root, mode, owner, fencing_token: fencingToken, acquired_at: acquiredAt, note, pid, uid } = row;
  const remainingMs = remainingOf(row, env);
  const patterns = (yield* patternsOf(row.number)).map(({ pattern }) => pattern);
  const expiresAt = env.wallMs + remainingMs;
  const ending = isBeingEnded(row, env) ? { ending: true } : {};
  return {
    root,
    patterns,
    mode,
    owner,
    fencingToken,
    acquiredAt,
    expiresAt,
    remainingMs,
    note,
    pid,
    uid,
    ...ending,
  };
}

/** Tells of the end of a reservation: the holder, if its connection is still open, and those who follow its root. */
export function* tellLost(row: ReservationRow, cause: Cause, env: Env): Operation<void> {
  const { reservation_id: reservationId, root_id: rootId, fencing_token: fencingToken, connection } = row;
  if (cause === "disconnected" && !env.effects.isFollowed) return env.effects.note("path", "", "lost", 1);
  const { root } = (yield* one(selectRootById, { rootId })) as { root: string };
  env.effects.tell("path", root, "lost", root, { by: row.owner, fencingToken, reason: cause });
  if (cause === "expired")
    env.effects.notify(connection, "path.lost", { reservationId, root, fencingToken, cause: "expired" });
}

const selectRootOf = sql<{ root: string }>(`
  SELECT root FROM pawl_path_reservation CROSS JOIN pawl_path_root
  WHERE reservation_id = :reservationId AND pawl_path_root.root_id = pawl_path_reservation.root_id`);

/** The root of a reservation; undefined for an id of none. */
export function* rootOfReservation(reservationId: string): Operation<string | undefined> {
  return (yield* one(selectRootOf, { reservationId }))?.root;
}

const selectToken = sql<{ root: string; fencing_token: number }>(`
  SELECT root, fencing_token FROM pawl_path_reservation CROSS JOIN pawl_path_root
  WHERE reservation_id = :reservationId AND pawl_path_root.root_id = pawl_path_reservation.root_id`);

/** What the holder of a reservation is told when it ends by its time; nothing for an id of none. */
export function* lossOfReservation(reservationId: string): Operation<NotificationParams<"path.lost">[]> {
  const rows = yield* all(selectToken, { reservationId });
  return rows.map(({ root, fencing_token: fencingToken }) => ({
    reservationId,
    root,
    fencingToken,
    cause: "expired",
  }));
}

const selectRootById = sql<{ root: string }>("SELECT root FROM pawl_path_root WHERE root_id = :rootId");

/** The mode in which two hold paths that others hold too. */
export function conflict(one: Mode, other: Mode): boolean {
  return one === "write" || other === "write";
}

export type Mode = NonNullable<Parsed<"path.reserve">["mode"]>;

// Reservations of paths: patterns of files below a root, held for a time by those who edit one tree together.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_PAGE_BYTES, MAX_PATH_HOLDERS } from "@pawl/protocol/limits";
import { remainingOf } from "../../grants/on-loss.js";
import { all, type Operation, one, sql } from "../../store/statement.js";
import type { HandlersOf } from "../../turns/handler.js";
import { type Env, type Outcome, pageBytes, Unfinished } from "../../turns/operation.js";
import { findHolders, workOf } from "./holders.js";
import { literally, readPattern, Unusable } from "./pattern.js";
import { gone, heldNow, reserve, rootOf, unusable } from "./reserve.js";
import {
  drop,
  dropPart,
  type HeldRow,
  patternsOf,
  renew,
  selectHeldById,
  selectRoot,
  shownRow,
} from "./row.js";

export const pathHandlers: HandlersOf<"path"> = { reserve, heartbeat, release: releasePaths, check, list };

/** Reservations that one step of a list looks at: some 2 ms of work. */
const LISTED_PER_STEP = 250;

const PAGE = "SELECT pawl_path_reservation.*, root FROM pawl_path_reservation CROSS JOIN pawl_path_root";
const IN_ORDER = `number > :after AND pawl_path_root.root_id = pawl_path_reservation.root_id
  ORDER BY number LIMIT :rows`;
const selectPage = sql<HeldRow>(`${PAGE} WHERE ${IN_ORDER}`);
const selectPageOfRoot = sql<HeldRow>(
  `${PAGE} WHERE pawl_path_reservation.root_id = :rootId AND ${IN_ORDER}`,
);
const selectPageOfOwner = sql<HeldRow>(`${PAGE} WHERE owner = :owner AND ${IN_ORDER}`);

function* heartbeat(
  params: Parsed<"path.heartbeat">,
  env: Env,
): Operation<Result<"path.heartbeat"> | PawlError> {
  const row = yield* one(selectHeldById, heldNow(params, env));
  if (row === undefined) return gone();
  const { ttlMs = row.acquired_ttl_ms, note = null } = params;
  return yield* renew(row, { ttlMs, fencingToken: row.fencing_token, note }, env);
}

export function* releasePaths(
  params: Parsed<"path.release">,
  env: Env,
): Operation<Result<"path.release"> | PawlError> {
  const texts = new Set<string>();
  for (const [index, given] of (params.patterns ?? []).entries()) {
    // A long one is the text of a file.
    const pattern = readPattern(given, Number.POSITIVE_INFINITY);
    if (pattern instanceof Unusable) return unusable("path.release", `/patterns/${index}`, given, pattern);
    texts.add(pattern.text);
  }
  const row = yield* one(selectHeldById, heldNow(params, env));
  if (row === undefined) return { released: false, patterns: [] };
  const had = yield* patternsOf(row.number);
  const given = params.patterns === undefined ? had : had.filter(({ pattern }) => texts.has(pattern));
  const left = had.filter((each) => !given.includes(each)).map(({ pattern }) => pattern);
  if (left.length === 0) yield* drop(row, env);
  else if (given.length > 0)
    yield* dropPart(
      row,
      given.map(({ position }) => position),
      env,
    );
  const { root, owner, fencing_token: fencingToken } = row;
  if (given.length > 0) env.effects.tell("path", root, "released", root, { by: owner, fencingToken });
  return { released: given.length > 0, patterns: left };
}

function* check(params: Parsed<"path.check">, env: Env): Operation<Result<"path.check"> | PawlError> {
  const { reservationId, owner } = params;
  const root = rootOf(params, "path.check");
  if (root instanceof PawlError) return root;
  const path = literally(params.path);
  if (path instanceof Unusable) return unusable("path.check", "/path", params.path, path);
  const known = yield* one(selectRoot, { root });
  if (known === undefined) return { allowed: true, holders: [] };
  const isOwn = (row: { reservation_id: string; owner: string }): boolean =>
    row.reservation_id === reservationId || row.owner === owner;
  const wanted = { rootId: known.root_id, patterns: [path], mode: "write", isOwn } as const;
  const found = yield* findHolders(wanted, MAX_PATH_HOLDERS, workOf(env), env);
  if (found instanceof PawlError) return found;
  const holders = found.map(({ row, pattern }) => {
    const expiresAt = env.wallMs + remainingOf(row, env);
    return { owner: row.owner, pattern, mode: row.mode, expiresAt, note: row.note, pid: row.pid };
  });
  return { allowed: holders.length === 0, holders };
}

function* list(params: Parsed<"path.list">, env: Env): Operation<Outcome<Result<"path.list">>> {
  const root = params.root === undefined ? undefined : rootOf({ root: params.root }, "path.list");
  if (root instanceof PawlError) return root;
  return yield* listFrom(
    Number(params.after ?? 0),
    root,
    { reservations: [], looked: 0, bytes: 0 },
    params,
    env,
  );
}

/** A page as far as it has come: with how many were looked at, of which some may have run out. */
interface ListedPaths {
  readonly reservations: Result<"path.list">["reservations"];
  readonly looked: number;
  readonly bytes: number;
}

/** One step of a page, and those that follow it. A reservation keeps its place: none is left out or shown twice. */
function* listFrom(
  after: number,
  root: string | undefined,
  before: ListedPaths,
  params: Parsed<"path.list">,
  env: Env,
): Operation<Outcome<Result<"path.list">>> {
  const { limit, owner } = params;
  const left = limit - before.looked;
  const most = env.mayGoOn ? Math.min(left, LISTED_PER_STEP) : left;
  const rows = yield* pageAfter(after, root, owner, most + 1);
  const reservations = [...before.reservations];
  let { bytes } = before;
  for (const [index, row] of rows.entries()) {
    const last = rows[index - 1]?.number ?? after;
    if (bytes > MAX_PAGE_BYTES || (index === most && most === left))
      return { reservations, next: String(last) };
    if (index === most) {
      const page = { reservations, looked: before.looked + most, bytes };
      const heldBytes = pageBytes(bytes, reservations.length, limit);
      return new Unfinished((later) => listFrom(last, root, page, params, later), heldBytes);
    }
    if ((remainingOf(row, env) <= 0 && row.on_loss === null) || (owner !== undefined && row.owner !== owner))
      continue;
    const shown = yield* shownRow(row, env);
    bytes += JSON.stringify(shown).length;
    reservations.push(shown);
  }
  return { reservations };
}

function* pageAfter(
  after: number,
  root: string | undefined,
  owner: string | undefined,
  count: number,
): Operation<HeldRow[]> {
  const from = { after, rows: count };
  if (root === undefined)
    return yield* owner === undefined ? all(selectPage, from) : all(selectPageOfOwner, { owner, ...from });
  const known = yield* one(selectRoot, { root });
  return known === undefined ? [] : yield* all(selectPageOfRoot, { rootId: known.root_id, ...from });
}

/** A guard of `transact`: `lease_lost` unless the reservation is held with this token. */
export function* guardPath(
  guard: { reservationId: string; fencingToken: number },
  env: Env,
): Operation<PawlError | undefined> {
  const { fencingToken } = guard;
  const row = yield* one(selectHeldById, heldNow(guard, env));
  if (row?.fencing_token === fencingToken) return undefined;
  const why =
    row === undefined
      ? "it expired or was released"
      : `paths were added to it since, under the token ${row.fencing_token}`;
  return refuse(
    "lease_lost",
    `The reservation is not held with the fencing token ${fencingToken}: ${why}. Nothing was done. Reserve the paths again, or name the newer token, and redo the work under that.`,
    { fencingToken, ...(row === undefined ? {} : { highest: row.fencing_token }) },
  );
}

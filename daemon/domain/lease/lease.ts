// Leases that this database keeps: named, fenced, time-bounded permission.
import type { Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_LEASE_NAME_LENGTH, MAX_PAGE_BYTES, MAX_SHOWN_HOLDERS } from "@pawl/protocol/limits";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { HandlersOf } from "../../turns/handler.js";
import { type Env, type Outcome, pageBytes, Unfinished } from "../../turns/operation.js";
import { acquire, sumSlots } from "./acquire.js";
import { keepPool, poolOf } from "./pool.js";
import { kindOf, notConfigured } from "./refusals.js";
import {
  acquiredTtlOf,
  drop,
  gone,
  heldGrant,
  type LeaseRow,
  LIVE,
  logBroken,
  lose,
  renew,
  selectHeldById,
  selectHeldByName,
  selectHighest,
  selectHolders,
  selectName,
  shownRow,
  TAKEN,
  tell,
  tellLost,
  waitKey,
} from "./row.js";

/** Leases that a page looks at for those that are held: more than it can show. */
const MAX_SCANNED_LEASES = 2000;
/** Leases that one step of a list shows: some 2 ms of work. */
const LISTED_PER_STEP = 250;
/** After every name with a beginning: no character is greater. */
const LAST_CHARACTERS = "\u{10ffff}".repeat(MAX_LEASE_NAME_LENGTH);
/** Holders that one step of `lease.break` ends. */
const BROKEN_HOLDERS = 200;

/** Where many have ended and wait to be removed, a page looks at so many rows for those that are held. */
const selectHeldPage = sql<LeaseRow>(`
  SELECT * FROM pawl_lease
  WHERE (name, fencing_token) > (:after, :token) AND (name, fencing_token) <= (:last, :lastToken) AND ${TAKEN}
  ORDER BY name, fencing_token LIMIT :rows`);

const selectRowBehind = sql<{ name: string; fencing_token: number }>(`
  SELECT name, fencing_token FROM pawl_lease
  WHERE (name, fencing_token) > (:after, :token) AND name <= :last
  ORDER BY name, fencing_token LIMIT 1 OFFSET :passed`);

const selectHeldUpTo = sql<LeaseRow>(`
  SELECT * FROM pawl_lease WHERE name = :name AND fencing_token <= :highest AND ${LIVE}
  ORDER BY fencing_token LIMIT :rows`);

const upsertCapacity = sql(`
  INSERT INTO pawl_lease_token (name, highest, capacity) VALUES (:name, 0, :capacity)
  ON CONFLICT (name) DO UPDATE SET capacity = excluded.capacity`);

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
    configure,
    heartbeat,
    release,
    get,
    list: (params, env) => list(params, withAll(env)),
    check,
    break: breakLease,
  };
}

function* configure(
  { name, slots, members }: Parsed<"lease.configure">,
  env: Env,
): Operation<Result<"lease.configure">> {
  if (slots !== undefined || members !== undefined) {
    const capacity = members?.length ?? slots ?? 1;
    const isPlain = capacity === 1 && members === undefined;
    yield* run(upsertCapacity, { name, capacity: isPlain ? null : capacity });
    yield* keepPool(name, members ?? []);
    env.effects.wake(waitKey(name));
    return { name, slots: capacity, ...(members === undefined ? {} : { members }) };
  }
  const pool = yield* poolOf(name);
  const { capacity = null } = (yield* one(selectName, { name })) ?? {};
  return { name, slots: capacity ?? 1, ...(pool.length === 0 ? {} : { members: pool }) };
}

export function* heartbeat(
  params: Parsed<"lease.heartbeat">,
  env: Env,
): Operation<Result<"lease.heartbeat"> | PawlError> {
  const { leaseId, note } = params;
  const row = yield* one(selectHeldById, { leaseId, now: env.now });
  if (row === undefined) return gone();
  if (row.provider !== null) return notConfigured(kindOf(row.provider));
  const ttlMs = params.ttlMs ?? acquiredTtlOf(row);
  return yield* renew(row, { ttlMs, note }, { remainingMs: ttlMs, boottime: null }, env);
}

export function* release(
  params: Parsed<"lease.release">,
  env: Env,
): Operation<Result<"lease.release"> | PawlError> {
  const row = yield* one(selectHeldById, { leaseId: params.leaseId, now: env.now });
  if (row === undefined) return { released: false };
  if (row.provider !== null) return notConfigured(kindOf(row.provider));
  for (const each of yield* drop(row, env, true)) tell(each, "released", env);
  return { released: true };
}

export function* get({ name }: Parsed<"lease.get">, env: Env): Operation<Result<"lease.get">> {
  const rows = yield* all(selectHolders, { name, now: env.now, rows: MAX_SHOWN_HOLDERS });
  const [first] = rows;
  if (first === undefined) {
    const slots = (yield* one(selectName, { name }))?.capacity ?? 1;
    return { lease: null, holders: [], slots, free: slots };
  }
  const holders = rows.map((row) => shownRow(row, env));
  const slots = first.capacity ?? 1;
  const free = first.mode === "shared" ? 0 : Math.max(0, slots - (yield* slotsTaken(name, rows, env)));
  return { lease: holders[0] ?? null, holders, slots, free };
}

function* slotsTaken(name: string, rows: readonly LeaseRow[], env: Env): Operation<number> {
  if (rows.length < MAX_SHOWN_HOLDERS) return rows.reduce((sum, { slots }) => sum + slots, 0);
  return (yield* one(sumSlots, { name, now: env.now }))?.taken ?? 0;
}

function* list(params: Parsed<"lease.list">, env: Env): Operation<Outcome<Result<"lease.list">>> {
  const { prefix = "" } = params;
  const from = placeOf(params.after);
  // A place before all that begin so is that of the prefix itself, which may be a name.
  const { after, token } = from.after < prefix ? { after: prefix, token: 0 } : from;
  const last = prefix + LAST_CHARACTERS;
  const behind = yield* one(selectRowBehind, { after, token, last, passed: MAX_SCANNED_LEASES - 1 });
  const end = { last: behind?.name ?? last, lastToken: behind?.fencing_token ?? 0 };
  const next = behind === undefined ? undefined : nextOf(behind.name, behind.fencing_token);
  return yield* listFrom({ after, token }, { leases: [], bytes: 0 }, { limit: params.limit, end, next }, env);
}

/** One step of a page, and those that follow it. */
function* listFrom(
  from: { readonly after: string; readonly token: number },
  before: { readonly leases: readonly ShownLease[]; readonly bytes: number },
  page: {
    readonly limit: number;
    readonly end: { readonly last: string; readonly lastToken: number };
    readonly next: string | undefined;
  },
  env: Env,
): Operation<Outcome<Result<"lease.list">>> {
  const { limit, end, next } = page;
  const left = limit - before.leases.length;
  const most = env.mayGoOn ? Math.min(left, LISTED_PER_STEP) : left;
  const rows = yield* all(selectHeldPage, { ...from, ...end, now: env.now, rows: most + 1 });
  const leases = [...before.leases];
  // A lease that another has now was given on since the last step.
  const [first] = rows;
  if (first?.mode === "exclusive") while (leases.at(-1)?.name === first.name) leases.pop();
  let { bytes } = before;
  for (const [index, row] of rows.entries()) {
    const shown = leases.at(-1);
    if (index === most && most < left) {
      const to = { after: (shown as ShownLease).name, token: (shown as ShownLease).fencingToken };
      const heldBytes = pageBytes(bytes, leases.length, limit);
      return new Unfinished((later) => listFrom(to, { leases, bytes }, page, later), heldBytes);
    }
    bytes += row.name.length + row.owner.length + (row.note?.length ?? 0) + (row.members?.length ?? 0);
    if (shown !== undefined && (leases.length === limit || bytes > MAX_PAGE_BYTES)) {
      return { leases, next: nextOf(shown.name, shown.fencingToken) };
    }
    leases.push(shownRow(row, env));
  }
  return next === undefined ? { leases } : { leases, next };
}

type ShownLease = Result<"lease.list">["leases"][number];

/** Where a page ended: at the holder of a name with this token. */
function nextOf(name: string, fencingToken: number): string {
  return `${fencingToken}:${name}`;
}

/** The place of `after`: before all without one. A name by itself, as there was before, stands for all its holders. */
function placeOf(after: string | undefined): { after: string; token: number } {
  if (after === undefined) return { after: "", token: 0 };
  const [, token, name] = /^(\d{1,16}):(.+)$/s.exec(after) ?? [];
  if (name === undefined) return { after, token: Number.MAX_SAFE_INTEGER };
  return { after: name, token: Number(token) };
}

export function* check(params: Parsed<"lease.check">, env: Env): Operation<Result<"lease.check">> {
  const { name, fencingToken } = params;
  const highest = (yield* one(selectHighest, { name }))?.highest ?? 0;
  return { current: (yield* heldGrant(name, fencingToken, env)) !== undefined, highest };
}

export function* breakLease(
  params: Parsed<"lease.break">,
  env: Env,
): Operation<Outcome<Result<"lease.break">>> {
  const { name, reason, fencingToken } = params;
  if (fencingToken !== undefined) {
    const row = yield* heldGrant(name, fencingToken, env);
    if (row === undefined) return { broken: false };
    if (row.provider !== null) return notConfigured(kindOf(row.provider));
    yield* breakOne(row, reason, env);
    return { broken: true };
  }
  const row = yield* one(selectHeldByName, { name, now: env.now });
  if (row === undefined) return { broken: false };
  if (row.provider !== null) return notConfigured(kindOf(row.provider));
  const highest = (yield* one(selectHighest, { name }))?.highest ?? row.fencing_token;
  return yield* breakUpTo(name, highest, reason, env);
}

/** Ends those who hold a name, in steps; whoever is granted it meanwhile has a higher token, and keeps it. */
function* breakUpTo(
  name: string,
  highest: number,
  reason: string,
  env: Env,
): Operation<Outcome<Result<"lease.break">>> {
  const rows = yield* all(selectHeldUpTo, { name, highest, now: env.now, rows: BROKEN_HOLDERS + 1 });
  for (const row of rows.slice(0, BROKEN_HOLDERS)) yield* breakOne(row, reason, env);
  if (rows.length <= BROKEN_HOLDERS) return { broken: true };
  if (!env.mayGoOn) return { broken: true, more: true };
  return new Unfinished((later) => breakUpTo(name, highest, reason, later));
}

/** Ends a lease by force, with all its names. */
function* breakOne(row: LeaseRow, reason: string, env: Env): Operation<void> {
  for (const each of yield* lose(row, env)) {
    logBroken(each, reason, env);
    tellLost(each, "broken", reason, env);
  }
}

/** A guard of `transact`: `lease_lost` unless the name is held with this token. */
export function* guardLease(
  guard: { name: string; fencingToken: number },
  env: Env,
): Operation<PawlError | undefined> {
  const { name, fencingToken } = guard;
  if ((yield* heldGrant(name, fencingToken, env)) !== undefined) return undefined;
  const highest = (yield* one(selectHighest, { name }))?.highest ?? 0;
  return refuse(
    "lease_lost",
    `The lease ${shown(name)} is not held with the fencing token ${fencingToken}: the highest so far is ${highest}, and a lease that expired, was released or was broken is held by nobody. Nothing was done. Acquire it again and redo the work under the new token.`,
    { name, fencingToken, highest },
  );
}

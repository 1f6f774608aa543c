// One request for a name, or for several together: whether there is room for it, and what it is granted.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_INTEGER, MAX_JOINT_MEMBERS, MAX_NAMED_HOLDERS } from "@pawl/protocol/limits";
import { holderOf, keepOnLoss } from "../../grants/on-loss.js";
import { all, type Operation, one, sql } from "../../store/statement.js";
import { type Env, marked, type Outcome, Wait } from "../../turns/operation.js";
import { notWaitingFor } from "../deadlock/untangle.js";
import { leaseWaitOf } from "./lease-wait.js";
import { freeMembers, isPool } from "./pool.js";
import { exhausted } from "./refusals.js";
import {
  type HolderRow,
  held,
  keep,
  type Lease,
  selectHolders,
  selectName,
  TAKEN,
  toldHolder,
  waitKey,
} from "./row.js";

/** Random bits of a leaseId: as many as nobody guesses. */
const LEASE_ID_BYTES = 16;

/** Raises the counter of a name; no row when it is at its end, and then nothing has changed. */
const raiseToken = sql<{ highest: number; capacity: number | null }>(`
  INSERT INTO pawl_lease_token (name, highest) VALUES (:name,
    1 + coalesce((SELECT CAST(value AS BIGINT) FROM pawl_meta WHERE key = 'lease_fencing_floor'), 0))
  ON CONFLICT (name) DO UPDATE SET highest = CASE WHEN pawl_lease_token.highest < excluded.highest
      THEN excluded.highest ELSE pawl_lease_token.highest + 1 END
    WHERE pawl_lease_token.highest < ${MAX_INTEGER}
  RETURNING highest, capacity`);

/** How many slots of a name are taken. */
export const sumSlots = sql<{ taken: number | null }>(
  `SELECT sum(slots) AS taken FROM pawl_lease WHERE name = :name AND ${TAKEN}`,
);

type Params = Parsed<"lease.acquire">;

/** A name that is not to be had now. */
interface Occupied {
  readonly name: string;
  /** The earliest; none if it is kept for those who came before. */
  readonly holders: readonly HolderRow[];
}

export function* acquire(params: Params, env: Env): Operation<Outcome<Result<"lease.acquire">>> {
  const { name, names = [name as string], onLoss } = params;
  const holder = onLoss === undefined ? undefined : holderOf(env);
  if (holder instanceof PawlError) return holder;
  const impossible = yield* findImpossible(names, params);
  if (impossible !== undefined) return impossible;
  const occupied = yield* findOccupied(names, params, env);
  if (occupied !== undefined)
    return env.mayWait ? waitFor(names, params, occupied, env) : refusal(occupied, params, env);

  const leaseId = `lease_${marked(env.random(LEASE_ID_BYTES).toString("hex"), env)}`;
  const joint = params.names === undefined ? null : names.length;
  const leases: Lease[] = [];
  for (const each of names) {
    const raised = yield* one(raiseToken, { name: each });
    if (raised === undefined) return exhausted(each);
    const { highest: fencingToken, capacity } = raised;
    env.effects.reached("leaseToken", fencingToken);
    const mayBePool = capacity !== null && params.mode !== "shared";
    const members = mayBePool ? yield* freeMembers(each, params.slots ?? 1, env) : null;
    const granted = { name: each, leaseId, fencingToken, members, joint, provider: null };
    leases.push(yield* keep(params, granted, { remainingMs: params.ttlMs, boottime: null }, env));
  }
  if (onLoss !== undefined && holder !== undefined) yield* keepOnLoss("lease", leaseId, onLoss, holder, env);
  return params.names === undefined ? { lease: leases[0] as Lease } : { leases };
}

/**
 * The refusal of a request that no name could ever meet. One slot of one name has none: each name has a slot, and the
 * end of its tokens is found when the next one is asked for.
 */
function* findImpossible(names: readonly string[], { slots = 1 }: Params): Operation<PawlError | undefined> {
  if (slots === 1 && names.length === 1) return undefined;
  const mayBeTooMany = names.length > 1 && slots * names.length > MAX_JOINT_MEMBERS;
  let members = 0;
  for (const name of names) {
    const { highest = 0, capacity = null } = (yield* one(selectName, { name })) ?? {};
    if (highest >= MAX_INTEGER) return exhausted(name);
    if (slots > (capacity ?? 1)) return tooManySlots(name, slots, capacity ?? 1);
    if (mayBeTooMany && (yield* isPool(name))) members += slots;
    if (members > MAX_JOINT_MEMBERS) return TOO_MANY_MEMBERS;
  }
  return undefined;
}

/** The first of the names that is not to be had: it is held, or somebody who came before wants it. */
function* findOccupied(names: readonly string[], params: Params, env: Env): Operation<Occupied | undefined> {
  const { mode } = params;
  // Those who share a name do not hold each other up.
  const sort = mode === "shared" ? "exclusive" : undefined;
  let wanted = names.find((name) => env.waitsBefore(waitKey(name), sort));
  if (wanted !== undefined && env.mayOvertake && (yield* waitForMe(names, params, env))) wanted = undefined;
  // Nobody is told of the holders while it waits.
  if (wanted !== undefined && env.mayWait) return { name: wanted, holders: [] };
  const rows = env.mayWait ? 1 : MAX_NAMED_HOLDERS;
  for (const name of wanted === undefined ? names : [wanted]) {
    const holders = yield* all(selectHolders, { name, now: env.now, rows });
    if (name === wanted || !(yield* hasRoom(name, holders[0], params, env))) return { name, holders };
  }
  return undefined;
}

/** True if all that came before a call wait for its caller: none would ever go on if it let them go first. */
function* waitForMe(names: readonly string[], params: Params, env: Env): Operation<boolean> {
  const wait = leaseWaitOf(names, params, env);
  const before = env.contender && wait?.before(env.contender, env);
  if (wait === undefined || before === undefined || before.length === 0) return false;
  return (yield* notWaitingFor(wait.actor, before, env)).length === 0;
}

/** @param holder the first, whose mode is that of all. */
function* hasRoom(
  name: string,
  holder: HolderRow | undefined,
  { mode, slots = 1 }: Params,
  env: Env,
): Operation<boolean> {
  if (holder === undefined) return true;
  if (mode === "shared" || holder.mode === "shared") return mode === holder.mode;
  const capacity = holder.capacity ?? 1;
  if (capacity === 1) return false;
  const taken = (yield* one(sumSlots, { name, now: env.now }))?.taken ?? 0;
  return taken + slots <= capacity;
}

/** The calls that wait for a name come in the order in which they came, but for those that share it. */
function waitFor(names: readonly string[], params: Params, { name, holders }: Occupied, env: Env): Wait {
  const { mode } = params;
  const isOther = waitKey(name) !== env.woken;
  // One that shares the name that was woken, and waits for another one, holds up nobody who shares it too.
  const isAlone = mode === "shared" && isOther;
  // Nobody could overtake it for a name that is taken as a whole.
  const isTaken = !isOther && holders[0]?.mode === "exclusive" && (holders[0].capacity ?? 1) === 1;
  const contest = isTaken ? undefined : leaseWaitOf(names, params, env);
  // A name that is taken is told apart from others that overtakers may get.
  const isForAll = mode === "exclusive" && !isTaken;
  return new Wait(names.map(waitKey), mode, { isAlone, isForAll, holdsBack: true, contest });
}

function refusal({ name, holders }: Occupied, { names }: Params, env: Env): PawlError {
  const told = holders.map((row) => toldHolder(row, env));
  return held(name, told, env.wallMs, names === undefined ? {} : { name });
}

const MEMBERS_MESSAGE = `times the slots of each are more than ${MAX_JOINT_MEMBERS} members of pools`;
const TOO_MANY_MEMBERS = refuse(
  "invalid_params",
  `lease.acquire: names ${MEMBERS_MESSAGE}. Ask for fewer names at once, or for fewer slots.`,
  { issues: [{ path: "/names", message: MEMBERS_MESSAGE }] },
);

function tooManySlots(name: string, slots: number, capacity: number): PawlError {
  const has = capacity === 1 ? "one slot" : `${capacity} slots`;
  const message = `is ${slots}, and ${shown(name)} has ${has}`;
  return refuse(
    "invalid_params",
    `lease.acquire: slots ${message}. Ask for fewer, or configure it with lease.configure.`,
    {
      issues: [{ path: "/slots", message }],
    },
  );
}

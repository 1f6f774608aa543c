// A call that waits for leases, as the search for circles of waits asks it.
import { MAX_CIRCLE_WAITS } from "@pawl/protocol/limits";
import { isBeingEnded } from "../../grants/on-loss.js";
import { all, type Operation, sql } from "../../store/statement.js";
import type { Contender, Env } from "../../turns/operation.js";
import type { Need } from "../deadlock/circle.js";
import { type HeldThing, type HolderColumns, holderOf, type Search } from "../deadlock/holders.js";
import { WaitForOthers, waiterOf } from "../deadlock/untangle.js";
import { type Asked, type LeaseRow, TAKEN, waitKey } from "./row.js";

/** Holders of one name that are looked at; those beyond count as if they ended by themselves. */
const MAX_HOLDERS = 64;
/** To read a name or a holder of it takes as long as comparing so many places of patterns: some 1,000 in one search. */
const PLACES_PER_ROW = 40;

/** As much of a holder as a search asks for, the earliest first. */
const selectHolds = sql<HoldRow>(`
  SELECT mode, slots, owner, task, pid, start_ticks, connection, expires_at, grace_ends_at, on_loss, lost_at, capacity
  FROM pawl_lease LEFT JOIN pawl_lease_token ON pawl_lease_token.name = pawl_lease.name
  WHERE pawl_lease.name = :name AND ${TAKEN}
  ORDER BY fencing_token LIMIT :rows`);

type HoldRow = HolderColumns &
  Pick<LeaseRow, "mode" | "slots" | "expires_at" | "grace_ends_at" | "on_loss" | "lost_at"> & {
    capacity: number | null;
  };

class LeaseWait extends WaitForOthers {
  readonly names: readonly string[];
  readonly mode: Asked["mode"];
  readonly #slots: number;
  readonly thing;

  constructor(actor: string, names: readonly string[], asked: Asked, env: Env) {
    const { owner, task = null, awaitsChildren } = asked;
    super(actor, env.caller, { owner, task, awaitsChildren });
    this.names = names;
    this.mode = asked.mode;
    this.#slots = asked.slots ?? 1;
    this.thing = { kind: "lease", name: names[0] as string } as const;
  }

  *needs(search: Search): Operation<Need<HeldThing>[]> {
    const needs: Need<HeldThing>[] = [];
    // All that ask for as much of a name need the same: many that ask for many names have it worked out once.
    const known = listOf<Need<HeldThing> | null>(`needs ${this.mode} ${this.#slots}`, search);
    for (const name of this.names) {
      let need = known.get(name);
      if (need === undefined) {
        const holders = yield* holdersOf(name, search);
        if (holders === undefined) break;
        need = this.#needOf(name, holders, search) ?? null;
        known.set(name, need);
      }
      if (need !== null) needs.push(need);
    }
    return needs;
  }

  /** Undefined if the holders leave enough of the name. */
  #needOf(name: string, holders: readonly HoldRow[], search: Search): Need<HeldThing> | undefined {
    const [first] = holders;
    if (first === undefined || (this.mode === "shared" && first.mode === "shared")) return undefined;
    const isCounted = this.mode === "exclusive" && first.mode === "exclusive";
    const spare = isCounted ? (first.capacity ?? 1) - this.#slots : 0;
    const held = new Map<string, number>();
    const owners = new Map<string, string>();
    let taken = 0;
    for (const row of holders) {
      taken += row.slots;
      // A holder that is being ended waits for nobody.
      const holder = isBeingEnded(row, search.env) ? undefined : holderOf(row, search);
      if (holder === undefined) continue;
      held.set(holder, (held.get(holder) ?? 0) + row.slots);
      owners.set(holder, row.owner);
    }
    return taken <= spare ? undefined : { held, spare, owners, about: { kind: "lease", name } };
  }

  behind({ number }: Contender, search: Search): Contender[] {
    const found = new Set<Contender>();
    for (const name of this.names) {
      const { line, alone } = lineOf(name, search);
      const place = placeOf(number, line);
      // Whoever wants a name alone is behind all others: the first such one has those before it behind itself.
      const last = place === 0 ? undefined : alone[place - 1];
      if (last === undefined) continue;
      if (last >= 0) found.add(line[last] as Contender);
      if (this.mode !== "exclusive") continue;
      for (let index = place - 1; index > last; index -= 1) found.add(line[index] as Contender);
    }
    return [...found];
  }

  /** All that came before and want one of the names; undefined if there are too many to know. */
  before({ number }: Contender, { contenders }: Env): Contender[] | undefined {
    const found = new Set<Contender>();
    for (const name of this.names) {
      const line = contenders.under(waitKey(name), MAX_CIRCLE_WAITS);
      const place = line.findIndex((each) => each.number === number);
      if (place < 0) return undefined;
      for (const other of line.slice(0, place)) {
        if (this.mode === "exclusive" || modeOf(other) === "exclusive") found.add(other);
      }
    }
    return [...found];
  }
}

/** The wait of a call that is performed; undefined for one of the daemon itself. */
export function leaseWaitOf(names: readonly string[], asked: Asked, env: Env): LeaseWait | undefined {
  if (env.contender !== undefined) return env.contender.contest as LeaseWait;
  const actor = waiterOf(env.caller, asked.task ?? null);
  return actor === undefined ? undefined : new LeaseWait(actor, names, asked, env);
}

function modeOf({ contest }: Contender): LeaseWait["mode"] {
  return (contest as LeaseWait).mode;
}

/** What is known of names, by what that is. */
function listOf<T>(what: string, { known }: Search): Map<string, T> {
  let list = known.get(what) as Map<string, T> | undefined;
  if (list === undefined) {
    list = new Map();
    known.set(what, list);
  }
  return list;
}

/** Undefined if there is no time to read them. */
function* holdersOf(name: string, search: Search): Operation<readonly HoldRow[] | undefined> {
  const { env, work } = search;
  const known = listOf<readonly HoldRow[]>("holders", search);
  let rows = known.get(name);
  if (rows === undefined && work.left >= 0) {
    rows = yield* all(selectHolds, { name, now: env.now, rows: MAX_HOLDERS });
    work.left -= (1 + rows.length) * PLACES_PER_ROW;
    known.set(name, rows);
  }
  return rows;
}

/** The calls that wait for a name. */
interface Line {
  /** The first of them first. */
  readonly line: readonly Contender[];
  /** For each place, the last one up to it that wants the name alone; -1 for none. */
  readonly alone: readonly number[];
}

function lineOf(name: string, search: Search): Line {
  const known = listOf<Line>("lines", search);
  let found = known.get(name);
  if (found === undefined) {
    const line = search.env.contenders.under(waitKey(name), MAX_CIRCLE_WAITS);
    let last = -1;
    const alone = line.map((other, index) => {
      if (modeOf(other) === "exclusive") last = index;
      return last;
    });
    found = { line, alone };
    known.set(name, found);
  }
  return found;
}

/** The place of a call in a line, whose numbers go up; 0 if it is not there. */
function placeOf(number: number, line: readonly Contender[]): number {
  let from = 0;
  let to = line.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((line[middle] as Contender).number < number) from = middle + 1;
    else to = middle;
  }
  return line[from]?.number === number ? from : 0;
}

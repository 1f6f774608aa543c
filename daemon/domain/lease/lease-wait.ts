// A call that waits for leases, as the search for circles of waits asks it.
import { MAX_CIRCLE_WAITS } from "@pawl/protocol/limits";
import { isBeingEnded } from "../../grants/on-loss.js";
import { all, type Operation } from "../../store/statement.js";
import type { Contender, Env } from "../../turns/operation.js";
import type { Need } from "../deadlock/circle.js";
import { type HeldThing, holderOf, type Search } from "../deadlock/holders.js";
import { WaitForOthers, waiterOf } from "../deadlock/untangle.js";
import { type Asked, type HolderRow, selectHolders, waitKey } from "./row.js";

/** Holders of one name that are looked at; those beyond count as if they ended by themselves. */
const MAX_HOLDERS = 64;

class LeaseWait extends WaitForOthers {
  readonly names: readonly string[];
  readonly mode: Asked["mode"];
  readonly #slots: number;
  readonly thing;

  constructor(actor: string, names: readonly string[], asked: Asked, env: Env) {
    super(actor, env.caller, { owner: asked.owner, task: asked.task ?? null });
    this.names = names;
    this.mode = asked.mode;
    this.#slots = asked.slots ?? 1;
    this.thing = { kind: "lease", name: names[0] as string } as const;
  }

  *needs(search: Search): Operation<Need<HeldThing>[]> {
    const needs: Need<HeldThing>[] = [];
    const asked = `${this.mode} ${this.#slots}`;
    for (const name of this.names) {
      const need = yield* this.#knownNeedOf(name, asked, search);
      if (need !== null) needs.push(need);
    }
    return needs;
  }

  /** All that ask for as much of a name need the same: many that ask for many names have it worked out once. */
  *#knownNeedOf(name: string, asked: string, search: Search): Operation<Need<HeldThing> | null> {
    const key = `need ${asked} ${name}`;
    const known = search.known.get(key) as Need<HeldThing> | null | undefined;
    if (known !== undefined) return known;
    const need = this.#needOf(name, yield* holdersOf(name, search), search) ?? null;
    search.known.set(key, need);
    return need;
  }

  /** Undefined if the holders leave enough of the name. */
  #needOf(name: string, holders: readonly HolderRow[], search: Search): Need<HeldThing> | undefined {
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
      const line = lineOf(name, search);
      // Whoever wants a name alone is behind all others: the first such one has those before it behind itself.
      for (let index = placeOf(number, line) - 1; index >= 0; index -= 1) {
        const other = line[index] as Contender;
        const isAlone = modeOf(other) === "exclusive";
        if (isAlone || this.mode === "exclusive") found.add(other);
        if (isAlone) break;
      }
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

function* holdersOf(name: string, { known, env }: Search): Operation<readonly HolderRow[]> {
  const key = `holders of ${name}`;
  let rows = known.get(key) as HolderRow[] | undefined;
  if (rows === undefined) {
    rows = yield* all(selectHolders, { name, now: env.now, rows: MAX_HOLDERS });
    known.set(key, rows);
  }
  return rows;
}

/** The calls that wait for a name, the first of them first. */
function lineOf(name: string, { known, env }: Search): readonly Contender[] {
  const key = waitKey(name);
  let line = known.get(key) as readonly Contender[] | undefined;
  if (line === undefined) {
    line = env.contenders.under(key, MAX_CIRCLE_WAITS);
    known.set(key, line);
  }
  return line;
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

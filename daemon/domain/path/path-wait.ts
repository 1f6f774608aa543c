// A call that waits for paths, as the search for circles of waits asks it.
import { PawlError } from "@pawl/protocol/errors";
import { MAX_CIRCLE_WAITS } from "@pawl/protocol/limits";
import { isBeingEnded } from "../../grants/on-loss.js";
import { type Operation, one } from "../../store/statement.js";
import type { Caller, Contender } from "../../turns/operation.js";
import type { Need } from "../deadlock/circle.js";
import { type HeldThing, holderOf, type Search } from "../deadlock/holders.js";
import { WaitForOthers } from "../deadlock/untangle.js";
import { findHolders } from "./holders.js";
import { meet, type Pattern, type Work } from "./pattern.js";
import { conflict, lineOf, type Mode, type ReservationRow, selectRoot } from "./row.js";

/** Holders of one request that are looked at; those beyond count as if they ended by themselves. */
const MAX_HOLDERS = 64;

/** A comparison of two requests takes as long as comparing so many places, and so does asking for holders. */
const PLACES_PER_LOOK = 100;
const PLACES_PER_QUESTION = 400;

/** A request as those who come later see it. */
export interface Waiting {
  readonly owner: string;
  readonly mode: Mode;
  readonly patterns: readonly Pattern[];
}

export class PathWait extends WaitForOthers {
  readonly thing;
  readonly wants: Waiting;
  readonly #root: string;
  /** The reservation that it adds to; undefined for none. */
  readonly #own: number | undefined;

  /** @param root with the request, and the reservation that it adds to. */
  constructor(
    actor: string,
    caller: Caller,
    {
      root,
      task,
      own,
      awaitsChildren,
      ...wants
    }: Waiting & {
      root: string;
      task: string | null;
      own: number | undefined;
      awaitsChildren: boolean | undefined;
    },
  ) {
    super(actor, caller, { owner: wants.owner, task, awaitsChildren });
    this.wants = wants;
    this.thing = { kind: "path", root, pattern: wants.patterns[0]?.text ?? "" } as const;
    this.#root = root;
    this.#own = own;
  }

  *needs(search: Search): Operation<Need<HeldThing>[]> {
    const { env, work } = search;
    work.left -= PLACES_PER_QUESTION;
    if (work.left < 0) return [];
    const rootId = (yield* one(selectRoot, { root: this.#root }))?.root_id;
    if (rootId === undefined) return [];
    const isOwn = ({ number }: ReservationRow): boolean => number === this.#own;
    const found = yield* findHolders({ rootId, ...this.wants, isOwn }, MAX_HOLDERS, work, env);
    if (found instanceof PawlError) return [];
    const needs: Need<HeldThing>[] = [];
    for (const { row, pattern } of found) {
      const about = { kind: "path", root: this.#root, pattern } as const;
      // A holder that is being ended waits for nobody.
      const holder = isBeingEnded(row, env) ? undefined : holderOf(row, search);
      if (holder === undefined) continue;
      needs.push({ held: new Map([[holder, 1]]), spare: 0, owners: new Map([[holder, row.owner]]), about });
    }
    return needs;
  }

  behind({ number }: Contender, { env: { contenders }, work }: Search): Contender[] {
    const found: Contender[] = [];
    for (const other of contenders.standingIn(lineOf(this.#root), MAX_CIRCLE_WAITS)) {
      work.left -= PLACES_PER_LOOK;
      if (other.number >= number || work.left < 0) break;
      if (wantTheSame(this.wants, (other.contest as PathWait).wants, work)) found.push(other);
    }
    return work.left < 0 ? found.slice(0, -1) : found;
  }
}

export function wantTheSame(one: Waiting, other: Waiting, work: Work): boolean {
  return (
    conflict(one.mode, other.mode) &&
    one.patterns.some((each) => other.patterns.some((pattern) => meet(each, pattern, work)))
  );
}

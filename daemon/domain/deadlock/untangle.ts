/**
 * The room of waits that would never end. A wait for leases or paths is looked at when it begins, and again when it was
 * tried in vain: the search goes from it to the holders of what it wants, from those to what they wait for, and on.
 *
 *     untangle  the search, and what follows from it     circle  the rules, pure
 *     holders   who holds and who waits
 */
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_CIRCLE_WAITS } from "@pawl/protocol/limits";
import type { Operation } from "../../store/statement.js";
import type { ActorsApart } from "../../turns/apart.js";
import type { Caller, Contender, Contest, Env } from "../../turns/operation.js";
import { circleThrough, type Need, type Needs, type Step, stuckIn, tangledWith } from "./circle.js";
import {
  actorOf,
  awaitsChildren,
  type HeldThing,
  type Party,
  processOfActor,
  type Search,
  someAwaitChildren,
  type Thing,
  type ThingNeed,
} from "./holders.js";

/** Places of patterns that one search compares, which counts each look at a request or a holder as some: some 2 ms. */
const MAX_PLACES = 40_000;

/** So many are let go first by one whose turn it is; if none of them can, its grant may end one of its other waits. */
const MAX_LET_FIRST = 16;

/** What is told of actors, among what searches have learned. */
const PARTIES = "parties";

/** A wait for what others hold, of the noun that knows what it wants. */
export abstract class WaitForOthers implements Contest {
  readonly actor: string;
  readonly awaitsChildren: boolean;
  readonly party: Party;
  /** What it wants, as far as that is told. */
  abstract readonly thing: HeldThing;

  /** @param actor as `waiterOf` names the caller. */
  constructor(
    actor: string,
    { pid }: Caller,
    {
      owner,
      task = null,
      awaitsChildren = false,
    }: { owner: string; task?: string | null; awaitsChildren?: boolean | undefined },
  ) {
    this.actor = actor;
    this.awaitsChildren = awaitsChildren;
    this.party = { pid, owner, task };
  }

  /** The needs that holders are in the way of. */
  abstract needs(search: Search): Operation<Need<HeldThing>[]>;
  /** Those that came before and want the same; of these the nearest will do, if each other is behind one of them. */
  abstract behind(self: Contender, search: Search): readonly Contender[];

  someAwaitChildren(): Operation<boolean> {
    return someAwaitChildren();
  }

  untangle(self: Contender, env: Env, known: Map<string, unknown>): Operation<PawlError | undefined> {
    return untangle(self, env, known);
  }

  *letOthersFirst(env: Env): Operation<boolean> {
    const search = newSearch(env);
    const needs = yield* needsFrom([this.actor], "order", search);
    return wakeThoseBehind(tangledWith(needs, this.actor), search, MAX_LET_FIRST);
  }

  *isInCircle(env: Env, known: Map<string, unknown>): Operation<boolean> {
    const search = newSearch(env, known);
    // It may wait for nothing more itself, while children do whom it awaits.
    search.parties.set(this.actor, this.party);
    return tangledWith(yield* needsFrom([this.actor], "order", search), this.actor).size > 1;
  }
}

/** The actor that a caller is under a task; undefined for the daemon itself. */
export function waiterOf(
  { pid, startTicks = null, connection }: Caller,
  task: string | null,
): string | undefined {
  return connection === 0 ? undefined : actorOf(pid, startTicks, connection, task);
}

/**
 * Refuses a wait that closes a circle of waits, each for what the next one holds. Where an order of arrival is part of
 * each circle that it closes, those who stand in line there are woken, so that they overtake.
 */
function* untangle(self: Contender, env: Env, known: Map<string, unknown>): Operation<PawlError | undefined> {
  const { actor } = self.contest;
  const { apart } = env.contenders;
  apart.begins(actor, self.ancestors ?? []);
  const search = newSearch(env, known);
  const needs = yield* needsFrom([actor], "order", search, self, apart);
  const tangled = tangledWith(needs, actor);
  // What others hold is a part of what was looked at, if that was all.
  if (tangled.size === 1 && !search.isCut) return stayApart(self, needs, env);
  const holds = newSearch(env, known);
  // One that its caller is in by its children's waits is not closed by this wait, and goes on without it.
  const isOwn = ({ about }: ThingNeed): boolean => about.kind !== "process";
  const circle = circleThrough(yield* needsFrom([actor], "holds", holds, self), actor, isOwn);
  if (circle !== undefined) return wouldDeadlock(circle, holds);
  wakeThoseBehind(tangled, search);
  return undefined;
}

/** Wakes those of a tangle who stand behind others of it, so that they overtake. Returns true if there are any. */
function wakeThoseBehind(
  tangled: ReadonlySet<string>,
  search: Search,
  most = Number.POSITIVE_INFINITY,
): boolean {
  const { effects, contenders } = search.env;
  let woken = 0;
  if (tangled.size === 1) return false;
  for (const each of tangled) {
    for (const contender of contenders.of(each, Number.POSITIVE_INFINITY)) {
      const stands = (contender.contest as WaitForOthers).behind(contender, search);
      if (!stands.some(({ contest }) => tangled.has(contest.actor))) continue;
      effects.wake(contender.overtakeKey);
      woken += 1;
      if (woken === most) return true;
    }
  }
  return woken > 0;
}

/** Nobody whom a wait comes upon waits for its caller: other waits that come upon those need not look at them again. */
function stayApart({ contest: { actor } }: Contender, needs: Needs<Thing>, { contenders }: Env): undefined {
  const reached = new Set<string>();
  for (const need of new Set([...needs.values()].flat()))
    for (const holder of need.held.keys()) reached.add(holder);
  // Its other waits were not looked at.
  if (contenders.of(actor, 2).length === 1) reached.add(actor);
  else reached.delete(actor);
  for (const each of reached) contenders.apart.add(each, processOfActor(each));
}

/**
 * The calls that came before one, and that it still has to let go first: all but those that wait for its caller,
 * directly or through others. The two would wait for each other then.
 *
 * @param before those that want the same.
 */
export function* notWaitingFor(
  actor: string,
  before: readonly Contender[],
  env: Env,
): Operation<Contender[]> {
  const search = newSearch(env);
  const others = before.map(({ contest }) => contest.actor).filter((each) => each !== actor);
  const stuck = stuckIn(yield* needsFrom(others, "order", search), actor);
  // A circle of one is none: what one asks for later comes later.
  return before.filter(({ contest }) => contest.actor === actor || !stuck.has(contest.actor));
}

/** @param known what other searches have learned, since which nothing has changed. */
export function newSearch(env: Env, known = new Map<string, unknown>()): Search {
  let parties = known.get(PARTIES) as Search["parties"] | undefined;
  if (parties === undefined) {
    parties = new Map();
    known.set(PARTIES, parties);
  }
  return {
    env,
    known,
    parties,
    work: { left: MAX_PLACES },
    isCut: false,
  };
}

/**
 * The needs of actors, and of all whom they wait for, the nearest first, until so many waits were looked at: those
 * beyond count as if they ended by themselves.
 *
 * @param how by what others hold alone, or by the order of arrival too.
 * @param by the wait of its actor that is looked at. What the others may close was seen when they began.
 * @param apart those that need not be looked at.
 */
function* needsFrom(
  first: readonly string[],
  how: "holds" | "order",
  search: Search,
  by?: Contender,
  apart?: Pick<ActorsApart, "has">,
): Operation<Map<string, ThingNeed[]>> {
  const { contenders } = search.env;
  const needs = new Map<string, ThingNeed[]>();
  const reached = new Set(first);
  const seen = new Set<ThingNeed>();
  let left = MAX_CIRCLE_WAITS;
  for (const actor of reached) {
    if (apart?.has(actor)) continue;
    const own: ThingNeed[] = [];
    for (const contender of by?.contest.actor === actor ? [by] : contenders.of(actor, left + 1)) {
      left -= 1;
      if (left < 0) {
        search.isCut = true;
        return needs;
      }
      const wait = contender.contest as WaitForOthers;
      search.parties.set(actor, wait.party);
      own.push(...(yield* wait.needs(search)));
      if (how === "holds") continue;
      for (const { contest } of wait.behind(contender, search)) own.push(needOf(contest.actor, wait.thing));
    }
    own.push(...(yield* needsOfChildren(actor, search)));
    if (own.length === 0) continue;
    needs.set(actor, own);
    for (const need of own) {
      if (seen.has(need)) continue;
      seen.add(need);
      for (const holder of need.held.keys()) reached.add(holder);
    }
  }
  if (search.work.left < 0) search.isCut = true;
  return needs;
}

/** An actor that holds something for its child processes, too, needs those of them that wait. */
export function* needsOfChildren(actor: string, { env, parties }: Search): Operation<ThingNeed[]> {
  const children = env.contenders
    .below(processOfActor(actor))
    .filter(({ contest }) => contest.actor !== actor);
  const pid = parties.get(actor)?.pid ?? null;
  if (children.length === 0 || pid === null || !(yield* awaitsChildren(actor, pid))) return [];
  return children.map(({ contest, caller }) => {
    parties.set(contest.actor, (contest as WaitForOthers).party);
    return needOf(contest.actor, { kind: "process", pid: caller.pid });
  });
}

function needOf(actor: string, about: Thing): ThingNeed {
  return { held: new Map([[actor, 1]]), spare: 0, about };
}

function wouldDeadlock(circle: readonly Step<Thing>[], { parties }: Search): PawlError {
  const cycle = circle.map(({ actor, need }) => {
    const { pid, owner, task } = parties.get(actor) as Party;
    return { pid, owner, ...(task === null ? {} : { task }), waitsFor: need.about };
  });
  const [mine, ...others] = cycle as [(typeof cycle)[0], ...typeof cycle];
  // By the name under which each holds what the one before wants, which may be another than the one it waits under.
  const holder = (index: number): string => {
    const { pid, owner } = cycle[index] as (typeof cycle)[0];
    const { actor } = circle[index] as Step<Thing>;
    const { need } = circle.at(index - 1) as Step<Thing>;
    return nameOf({ pid, owner: need.owners?.get(actor) ?? owner });
  };
  const theirs = others.map(
    ({ waitsFor }, index) => `${holder(index + 1)}, who waits for ${textOf(waitsFor)}`,
  );
  const held = cycle.at(-1)?.waitsFor.kind === "process" ? "" : `, held by ${holder(0)}`;
  return refuse(
    "would_deadlock",
    `To wait for ${textOf(mine.waitsFor)} would close a circle of waits: it is held by ${theirs.join(", held by ")}${held}. Give back what others wait for first, or ask for all of it at once.`,
    { cycle },
  );
}

function nameOf({ pid, owner }: Pick<Party, "pid" | "owner">): string {
  return pid === null ? shown(owner) : `${shown(owner)} (pid ${pid})`;
}

function textOf(thing: Thing): string {
  if (thing.kind === "lease") return `the lease ${shown(thing.name)}`;
  if (thing.kind === "path") return `${shown(thing.pattern)} in ${shown(thing.root)}`;
  return `its child process ${thing.pid ?? ""}`.trim();
}

/**
 * The rules of circles of waits, pure and without SQL. Actors hold things and wait for needs. A need is met once the
 * others together hold no more of its thing than may be held beside it; an actor is done, and lets go of all it holds,
 * once all its needs are met.
 */

/** What has to be over before an actor goes on. */
export interface Need<About = unknown> {
  /** How much of the thing each of its holders has. What an actor holds itself is never in its way by itself alone. */
  readonly held: ReadonlyMap<string, number>;
  /** How much of it others may keep. */
  readonly spare: number;
  /** The name under which each holder has it, which may be another than the one that it waits under. */
  readonly owners?: ReadonlyMap<string, string>;
  readonly about: About;
}

/** The needs of actors; one that waits for nothing has none, or is not there. */
export type Needs<About = unknown> = ReadonlyMap<string, readonly Need<About>[]>;

/**
 * The actors that can never be done: whatever the order in which the others are, a need of theirs is not over.
 *
 * @param never an actor that counts as one of them, whatever it needs.
 */
export function stuckIn(needs: Needs, never?: string): Set<string> {
  return findStuck(needs, never).stuck;
}

/** Those who have one need. */
interface Waiting {
  /** How much of the thing those have who are stuck. */
  kept: number;
  /** Those for whom it is not over: some hold some of it themselves. */
  others: string[];
  holders: string[];
}

/**
 * Many actors may have one need, and each need many holders: each need is looked at once for each holder that is done,
 * and for those who have it all at once.
 */
function findStuck(
  needs: Needs,
  never?: string,
): { stuck: Set<string>; waiting: ReadonlyMap<Need, Waiting> } {
  const stuck = new Set(needs.keys());
  if (never !== undefined) stuck.add(never);
  const waiting = new Map<Need, Waiting>();
  const heldBy = new Map<string, Need[]>();
  const unmet = new Map<string, number>();
  for (const [actor, all] of needs) {
    const own = new Set(all);
    unmet.set(actor, own.size);
    for (const need of own) {
      let those = waiting.get(need);
      if (those === undefined) {
        those = { kept: 0, others: [], holders: [] };
        waiting.set(need, those);
        for (const [holder, much] of need.held) {
          if (!stuck.has(holder)) continue;
          those.kept += much;
          addTo(heldBy, holder, need);
        }
      }
      (need.held.has(actor) ? those.holders : those.others).push(actor);
    }
  }

  const done = [...needs.keys()].filter((actor) => unmet.get(actor) === 0);
  const isMet = (actor: string): void => {
    const left = (unmet.get(actor) as number) - 1;
    unmet.set(actor, left);
    if (left === 0) done.push(actor);
  };
  const look = (need: Need, those: Waiting): void => {
    if (those.kept <= Math.max(need.spare, 0)) for (const actor of those.others.splice(0)) isMet(actor);
    if (those.holders.length === 0) return;
    const met = new Set(those.holders.filter((actor) => isOver(need, actor, those.kept)));
    if (met.size === 0) return;
    those.holders = those.holders.filter((actor) => !met.has(actor));
    for (const actor of met) isMet(actor);
  };
  for (const [need, those] of waiting) look(need, those);
  for (let actor = done.pop(); actor !== undefined; actor = done.pop()) {
    if (actor === never) continue;
    stuck.delete(actor);
    for (const need of heldBy.get(actor) ?? []) {
      const those = waiting.get(need) as Waiting;
      those.kept -= need.held.get(actor) as number;
      look(need, those);
    }
  }
  return { stuck, waiting };
}

/** True if a need of an actor that is stuck is over once all are done but those that are: they keep so much. */
function isOver({ held, spare }: Need, actor: string, kept: number): boolean {
  const own = held.get(actor) ?? 0;
  const others = kept - own;
  return others === 0 || others + (own > spare ? 0 : own) <= spare;
}

function addTo<T>(lists: Map<string, T[]>, name: string, element: T): void {
  const list = lists.get(name);
  if (list === undefined) lists.set(name, [element]);
  else list.push(element);
}

/** One step of a circle: an actor, and its need that the actor of the next step is in the way of. */
export interface Step<About> {
  readonly actor: string;
  readonly need: Need<About>;
}

/**
 * The shortest circle of waits through an actor, beginning with it, where all in it are stuck; undefined if there is
 * none. A circle of one is none.
 *
 * @param mayBegin whether it may begin with a need of that actor.
 */
export function circleThrough<About>(
  needs: Needs<About>,
  start: string,
  mayBegin: (need: Need<About>) => boolean = () => true,
): Step<About>[] | undefined {
  const { stuck, waiting } = findStuck(needs);
  if (!stuck.has(start)) return undefined;
  const cameBy = new Map<string, Step<About>>();
  const reached = [start];
  const seen = new Set<Need>();
  for (const actor of reached) {
    for (const need of needs.get(actor) ?? []) {
      if (actor === start && !mayBegin(need)) continue;
      // Its holders were reached by another who has it; only from the start itself there is no step to the start.
      if (seen.has(need) && (actor === start || !need.held.has(start))) continue;
      if (isOver(need, actor, (waiting.get(need) as Waiting).kept)) continue;
      seen.add(need);
      for (const holder of need.held.keys()) {
        if (holder === actor || !stuck.has(holder)) continue;
        if (holder === start) return wayTo({ actor, need }, start, cameBy);
        if (cameBy.has(holder)) continue;
        cameBy.set(holder, { actor, need });
        reached.push(holder);
      }
    }
  }
  return undefined;
}

function wayTo<About>(
  last: Step<About>,
  start: string,
  cameBy: ReadonlyMap<string, Step<About>>,
): Step<About>[] {
  const steps = [last];
  for (let { actor } = last; actor !== start; ) {
    const step = cameBy.get(actor) as Step<About>;
    steps.push(step);
    actor = step.actor;
  }
  return steps.reverse();
}

/** The actors that wait for one and that it waits for, be it by others: those on any circle with it, and itself. */
export function tangledWith(needs: Needs, root: string): Set<string> {
  const waitFor = new Map<Need, string[]>();
  const heldBy = new Map<string, Need[]>();
  for (const [actor, all] of needs) {
    for (const need of all) {
      const those = waitFor.get(need);
      if (those !== undefined) {
        those.push(actor);
        continue;
      }
      waitFor.set(need, [actor]);
      for (const holder of need.held.keys()) addTo(heldBy, holder, need);
    }
  }
  const after = reachedBy(
    root,
    (actor) => needs.get(actor),
    ({ held }) => held.keys(),
  );
  const before = reachedBy(
    root,
    (actor) => heldBy.get(actor),
    (need) => waitFor.get(need),
  );
  return new Set([...after].filter((actor) => before.has(actor)));
}

/** All that are reached from an actor by needs, each of which is followed once. */
function reachedBy(
  root: string,
  needsOf: (actor: string) => readonly Need[] | undefined,
  next: (need: Need) => Iterable<string> | undefined,
): Set<string> {
  const reached = new Set([root]);
  const seen = new Set<Need>();
  for (const actor of reached) {
    for (const need of needsOf(actor) ?? NO_NEEDS) {
      if (seen.has(need)) continue;
      seen.add(need);
      for (const other of next(need) ?? NOBODY) reached.add(other);
    }
  }
  return reached;
}

const NO_NEEDS: readonly Need[] = [];
const NOBODY: readonly string[] = [];

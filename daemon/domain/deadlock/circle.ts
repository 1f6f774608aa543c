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
  const stuck = new Set(needs.keys());
  if (never !== undefined) stuck.add(never);
  const waitFor = new Map<string, string[]>();
  for (const [actor, all] of needs) {
    for (const { held } of all) {
      for (const holder of held.keys()) {
        const those = waitFor.get(holder);
        if (those === undefined) waitFor.set(holder, [actor]);
        else those.push(actor);
      }
    }
  }
  const open = [...needs.keys()];
  for (let actor = open.pop(); actor !== undefined; actor = open.pop()) {
    if (actor === never || !stuck.has(actor)) continue;
    if (!needs.get(actor)?.every((need) => isOver(need, actor as string, stuck))) continue;
    stuck.delete(actor);
    open.push(...(waitFor.get(actor) ?? []));
  }
  return stuck;
}

/** True if a need of an actor is over once all are done but those that are stuck. */
function isOver({ held, spare }: Need, actor: string, stuck: ReadonlySet<string>): boolean {
  let kept = 0;
  for (const [holder, much] of held) if (holder !== actor && stuck.has(holder)) kept += much;
  if (kept === 0) return true;
  const own = held.get(actor) ?? 0;
  return kept + (own > spare ? 0 : own) <= spare;
}

/** One step of a circle: an actor, and its need that the actor of the next step is in the way of. */
export interface Step<About> {
  readonly actor: string;
  readonly need: Need<About>;
}

/**
 * The shortest circle of waits through an actor, beginning with it, where all in it are stuck; undefined if there is
 * none. A circle of one is none.
 */
export function circleThrough<About>(needs: Needs<About>, start: string): Step<About>[] | undefined {
  const stuck = stuckIn(needs);
  if (!stuck.has(start)) return undefined;
  const cameBy = new Map<string, Step<About>>();
  const reached = [start];
  for (const actor of reached) {
    for (const need of needs.get(actor) ?? []) {
      if (isOver(need, actor, stuck)) continue;
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
  const waitFor = new Map<string, Set<string>>();
  const waitedBy = new Map<string, Set<string>>();
  const link = (links: Map<string, Set<string>>, from: string, to: string): void => {
    const those = links.get(from);
    if (those === undefined) links.set(from, new Set([to]));
    else those.add(to);
  };
  for (const [actor, all] of needs) {
    for (const { held } of all) {
      for (const holder of held.keys()) {
        if (holder === actor) continue;
        link(waitFor, actor, holder);
        link(waitedBy, holder, actor);
      }
    }
  }
  const before = reachedBy(waitedBy, root);
  return new Set([...reachedBy(waitFor, root)].filter((actor) => before.has(actor)));
}

function reachedBy(links: ReadonlyMap<string, ReadonlySet<string>>, root: string): Set<string> {
  const reached = new Set([root]);
  for (const actor of reached) for (const next of links.get(actor) ?? []) reached.add(next);
  return reached;
}

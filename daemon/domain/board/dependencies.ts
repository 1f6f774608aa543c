/** The faults of an item's dependencies. Readers are told of them; a write is never refused for them. */
export interface DependencyProblems {
  /** Direct dependencies that do not exist. */
  missing: string[];
  /** The items on a shortest way from the item along dependencies back to it, without itself; null if none. */
  cycle: string[] | null;
}

/** @param graph `dependsOn` of every item that exists and can be reached from this one, itself included. */
export function dependencyProblems(
  storyId: string,
  graph: ReadonlyMap<string, readonly string[]>,
): DependencyProblems {
  const missing = (graph.get(storyId) ?? []).filter((id) => !graph.has(id));
  // Breadth first, so the way found is a shortest one. Each item remembers by which one it was reached.
  const reachedFrom = new Map<string, string>();
  const queue = [storyId];
  for (const from of queue) {
    for (const id of graph.get(from) ?? []) {
      if (id === storyId) return { missing, cycle: wayTo(from, storyId, reachedFrom) };
      if (reachedFrom.has(id)) continue;
      reachedFrom.set(id, from);
      queue.push(id);
    }
  }
  return { missing, cycle: null };
}

function wayTo(end: string, start: string, reachedFrom: ReadonlyMap<string, string>): string[] {
  const way: string[] = [];
  for (let id = end; id !== start; id = reachedFrom.get(id) as string) way.push(id);
  return way.reverse();
}

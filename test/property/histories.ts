// What the models share that draw histories of calls: which thing one is about, and how a failure is told.
import type { RunDetails } from "fast-check";

/** Says why a property failed, and how to run that again: operations are functions, whose texts say nothing. */
export async function report<T>({
  failed,
  numRuns,
  seed,
  counterexamplePath,
  errorInstance,
}: RunDetails<T>): Promise<void> {
  if (!failed) return;
  const again = `{ seed: ${seed}, path: "${counterexamplePath}" }`;
  throw new Error(`Property failed after ${numRuns} tests, ${again}: ${errorInstance}`);
}

/** One of the items, of the last eight: those are where things happen. */
export function pickFrom<T>(items: readonly T[], index: number): T | undefined {
  return items.at(-1 - (index % Math.max(1, Math.min(items.length, 8))));
}

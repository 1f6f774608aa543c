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

// What the models share that draw histories of calls: which thing one is about, and how a failure is told.
import type { RunDetails } from "fast-check";
import { expect } from "vitest";
import type { InProcess } from "../in-process.js";

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

/** A daemon with what is to be seen of it, to which the operations of a history are done. */
export interface Replayed {
  readonly pawl: InProcess;
  /** What was called, for the report. */
  readonly calls: readonly string[];
  /** Asserts that all is as it has to be. */
  compare(): Promise<void>;
}

/** Does the operations of a history one after the other, and compares after each; then the daemon is closed. */
export async function replay<W extends Replayed>(
  world: W,
  operations: readonly ((world: W) => unknown)[],
): Promise<void> {
  try {
    for (const each of operations) {
      await each(world);
      await world.compare();
    }
    expect(world.pawl.rolledBack).toEqual([]);
  } catch (error) {
    const { message, actual, expected } = error as Error & { actual?: unknown; expected?: unknown };
    const apart = `${JSON.stringify(actual)}, not ${JSON.stringify(expected)}`;
    throw new Error(`${message}\n${apart}\n${world.calls.join("\n")}`);
  } finally {
    world.pawl.close();
  }
}

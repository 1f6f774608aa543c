import { Child } from "./child.js";
import { killAfterMs } from "./running-commands.js";
import { passSignals, stopTogether } from "./signals.js";

/**
 * Runs a program while something is held for it, and resolves with its exit code.
 *
 * @param lost aborted when it is not held any more: then the program is ended.
 */
export async function runUnder(
  lost: AbortSignal,
  program: readonly string[],
  ttlMs: number,
  env: Record<string, string | undefined>,
): Promise<number> {
  // Begun a moment later, when signals are passed on already: until then they would end pawl alone.
  const starting = Promise.resolve().then(() =>
    Child.start(program, { stdio: ["inherit", "inherit", "inherit"], env }),
  );
  const stopPassing = passSignals(starting);
  const stopStopping = stopTogether(() => [{ starting, lost }]);
  try {
    const child = await starting;
    const onLost = (): void => void child.stop(killAfterMs(ttlMs));
    lost.addEventListener("abort", onLost, { once: true });
    if (lost.aborted) onLost();
    return (await child.ended).code;
  } finally {
    stopPassing();
    stopStopping();
  }
}

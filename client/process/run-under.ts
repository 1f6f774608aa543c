import { Child } from "./child.js";
import { groupGuard, type KeptConnection } from "./group-guard.js";
import { killAfterMs } from "./running-commands.js";
import { passSignals, stopTogether } from "./signals.js";

/**
 * Runs a program while something is held for it, and resolves with its exit code.
 *
 * @param lost aborted when it is not held any more: then the program is ended.
 * @param held `connection` is open until nothing is left of the program, however this one ends. `onLoss` is how the
 * daemon ends this program, and this one its own, since nobody is granted what was lost before.
 */
export async function runUnder(
  lost: AbortSignal,
  program: readonly string[],
  held: {
    readonly ttlMs: number;
    readonly connection: KeptConnection | undefined;
    readonly onLoss?: { readonly signal: NodeJS.Signals; readonly graceMs: number } | undefined;
  },
  env: Record<string, string | undefined>,
): Promise<number> {
  const { ttlMs, connection, onLoss } = held;
  const stopKeeping = connection === undefined ? undefined : groupGuard.keep(connection);
  // Begun a moment later, when signals are passed on already: until then they would end pawl alone.
  const starting = Promise.resolve().then(() =>
    Child.start(program, { stdio: ["inherit", "inherit", "inherit"], env }),
  );
  // What the daemon sends this program then, it sends its own by itself.
  const stopPassing = passSignals(starting, () => onLoss !== undefined && lost.aborted);
  const stopStopping = stopTogether(() => [{ starting, lost }]);
  try {
    const child = await starting;
    const onLost = (): void => void child.stop(onLoss?.graceMs ?? killAfterMs(ttlMs), onLoss?.signal);
    lost.addEventListener("abort", onLost, { once: true });
    if (lost.aborted) onLost();
    return (await child.ended).code;
  } finally {
    stopPassing();
    stopStopping();
    stopKeeping?.();
  }
}

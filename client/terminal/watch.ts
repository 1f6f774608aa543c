import { setTimeout as delay } from "node:timers/promises";
import type { PawlClient } from "../connect.js";
import type { Output } from "./output.js";

/** The option of commands that list. They also have `patient: isWatching` and `endsBySignal`. */
export const WATCH = {
  watch: { type: "flag", short: "w", describe: "Go on: show it again after each change" },
} as const;

export function isWatching({ watch }: { readonly watch: boolean }): boolean {
  return watch;
}

/** One call waits for so long, and then asks again. */
const WAIT_MS = 600_000;
/** A list that changes all the time is shown anew only so often. */
const REDRAW_MS = 200;

export const CLEAR_SCREEN = "\x1b[2J\x1b[H";

/**
 * Shows a list; with `watch` again after each event of these topics, and after a restart of the daemon, until a signal
 * ends it or nobody reads any more. With `--json` each time is a line.
 *
 * @param read asks for the list, and returns what prints it.
 */
export async function showListed(
  read: () => Promise<() => void>,
  topics: readonly string[],
  { watch, client, output }: { watch: boolean; client: PawlClient; output: Output },
): Promise<undefined> {
  if (!watch) return void (await read())();
  while (!output.closed) {
    // Before the list, so that what it does not show yet comes behind this cursor.
    const { cursor: since } = await client.events.watch({ topics: [...topics] });
    const print = await read();
    if (!output.json && output.isScreen) output.write(CLEAR_SCREEN);
    print();
    for (let changed = false; !changed; ) {
      const { events, gap } = await client.events.watch({
        topics: [...topics],
        since,
        waitMs: WAIT_MS,
        limit: 1,
      });
      changed = gap || events.length > 0;
    }
    await delay(REDRAW_MS);
  }
}

// Waits for what tells nobody that it has come: by looking again and again, as seldom as the processes that are looked
// at need the processor themselves.
import { setTimeout as pause } from "node:timers/promises";

/** Between one look and the next. Looking without a pause keeps two processors busy, here and in the daemon. */
const LOOK_EVERY_MS = 20;

export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await pause(LOOK_EVERY_MS);
}

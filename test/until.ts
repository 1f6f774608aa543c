// Waits for what tells nobody that it has come: by looking again and again, more and more seldom, since the processes
// that are looked at need the processor themselves.
import { setTimeout as pause } from "node:timers/promises";

/** Between the first look and the next. Looking without a pause keeps two processors busy, here and in the daemon. */
const FIRST_PAUSE_MS = 5;
const LONGEST_PAUSE_MS = 100;
/** What comes late is seen a quarter later than it came, and what lasts seconds costs some tens of looks. */
const GROWTH = 1.25;

export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  let pauseMs = FIRST_PAUSE_MS;
  while (!(await isSo())) {
    await pause(pauseMs);
    pauseMs = Math.min(pauseMs * GROWTH, LONGEST_PAUSE_MS);
  }
}

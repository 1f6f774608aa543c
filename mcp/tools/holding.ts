import { isLoss } from "../refusal.js";
import { giveBack } from "../sessions/grants.js";
import type { Hold } from "../sessions/state-file.js";
import type { SessionCall } from "./tool.js";

/** Holds what was granted; what was granted to a caller that has given up meanwhile is given back. */
export async function keep({ link, session, signal }: SessionCall, hold: Hold): Promise<void> {
  if (signal.aborted) await giveBack(link, hold);
  signal.throwIfAborted();
  session.add(hold);
}

/** Performs a call about what is held; if that is refused as lost, it is held no more. */
export async function losing<T>({ session }: SessionCall, hold: Hold, perform: () => Promise<T>): Promise<T> {
  try {
    return await perform();
  } catch (error) {
    if (isLoss(error)) session.drop(hold);
    throw error;
  }
}

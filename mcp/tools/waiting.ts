import { setImmediate as nextLoop } from "node:timers/promises";
import type { Ending } from "../link.js";
import { Interrupted, kindOf } from "../refusal.js";
import type { SessionCall } from "./tool.js";
import { messageCame } from "./unread.js";

/** A call of the daemon that may wait until the signal ends that. */
export type Ask<T> = (waitMs: number, endWait: AbortSignal | undefined) => Promise<T>;

/** Asks the daemon with a wait, and tells the caller meanwhile that it waits. What comes too late is still answered. */
export async function asked<T>(
  { waiting, signal }: Pick<SessionCall, "waiting" | "signal">,
  seconds: number | undefined,
  reason: string,
  ask: Ask<T>,
): Promise<T> {
  const waitMs = (seconds ?? 0) * 1000;
  return waitMs === 0 ? await ask(0, undefined) : await waiting(reason, () => ask(waitMs, signal));
}

/** Options of a call by the signal that ends its wait. */
export function ending(endWait: AbortSignal | undefined): Ending {
  return endWait === undefined ? {} : { endWait };
}

/** How a wait ended. */
export interface Waited<T> {
  readonly answer: T;
  readonly interrupted: boolean;
}

/** What else belongs to a wait. */
export interface Around {
  /** A request of its own whose answer it waits for. */
  readonly waitedFor?: string;
  /** Called once it waits, unless it is answered at once. */
  readonly whenWaiting?: () => Promise<void>;
}

/**
 * The same, but a message for the session ends the wait: whoever it waits for may wait for its answer. What is to be
 * had by then is had. A refusal at that moment comes as `Interrupted`.
 */
export async function askedUntilMessage<T>(
  call: SessionCall,
  seconds: number | undefined,
  reason: string,
  ask: Ask<T>,
  { waitedFor, whenWaiting }: Around = {},
): Promise<Waited<T>> {
  const waitMs = (seconds ?? 0) * 1000;
  if (waitMs === 0) return { answer: await ask(0, undefined), interrupted: false };
  return await call.waiting(reason, async () => {
    const early = new AbortController();
    const over = new AbortController();
    void messageCame(call, waitedFor, over.signal).then(
      () => early.abort(),
      // Then it is a wait like any other.
      () => {},
    );
    try {
      const waits = ask(waitMs, AbortSignal.any([call.signal, early.signal]));
      if (whenWaiting !== undefined) void onceItWaits(call, waits, whenWaiting);
      const answer = await waits;
      return { answer, interrupted: early.signal.aborted };
    } catch (error) {
      if (!early.signal.aborted || call.signal.aborted || kindOf(error) !== "cancelled") throw error;
      return { answer: await atOnce(ask), interrupted: true };
    } finally {
      over.abort();
    }
  });
}

/** Calls it unless the daemon answers at once. What comes of it does not end the wait. */
async function onceItWaits(
  { link }: SessionCall,
  waits: Promise<unknown>,
  whenWaiting: () => Promise<void>,
): Promise<void> {
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  waits.then(over, over);
  try {
    // An answer at once comes before this one.
    await link.call("daemon.ping", {});
    await nextLoop();
    if (!isOver) await whenWaiting();
  } catch {
    // Whoever is not told of the wait is told of its end.
  }
}

async function atOnce<T>(ask: Ask<T>): Promise<T> {
  try {
    return await ask(0, undefined);
  } catch (refused) {
    throw new Interrupted(refused);
  }
}

// A function performed while a lease or a reservation is held: asking for it, renewing it, giving it back.
import { setTimeout as delay } from "node:timers/promises";
import { PawlError } from "@pawl/protocol/errors";
import type { Connection } from "../connection/connection.js";
import { ConnectionLost } from "../connection/connection-lost.js";
import { HeldGrant, type ReleaseOn } from "./held-grant.js";

/** How long the answer is waited for when something is given back; it ends by itself too. */
const RELEASE_TIMEOUT_MS = 5000;
const ASK_AGAIN_PAUSE_MS = 100;

/** How something is held, by the options of the function that holds it. */
export interface HoldOptions {
  /** The holder's name, for people; otherwise the program and its pid. */
  owner?: string;
  /** How long the grant outlives the last sign of life, in milliseconds; 30,000 by default. */
  ttlMs?: number;
  /** How long to wait while another holds it, in milliseconds; by default not at all (`lease_held`). */
  waitMs?: number;
  /** `disconnect` (default) lets go of it the moment this process ends; `expiry` when its ttl has passed. */
  releaseOn?: ReleaseOn;
  /** With `disconnect`, how long the grant outlives the connection of this process, in milliseconds; 0 by default. */
  graceMs?: number;
  /** Shown to others. */
  note?: string;
  /** A label of what it is held for; by default one for each outermost `withLease` or `withPaths` of this process. */
  task?: string;
  /** This process waits for its children while it holds this, and so for what they wait for. */
  awaitsChildren?: boolean;
  /** Ends the waiting, and aborts the function's signal. */
  signal?: AbortSignal;
}

/** Something that was granted, and the calls that are about it. */
export interface Holding {
  readonly connection: Connection;
  /** Names the grant in messages: `The lease of "db"`. */
  readonly what: string;
  readonly ttlMs: number;
  readonly releaseOn: ReleaseOn;
  readonly graceMs: number;
  /** When the request that granted it was made, by `performance.now()`, and what remained when it was granted. */
  readonly askedAt: number;
  readonly remainingMs: number;
  /** Renews it, and resolves with what remains of it then, in milliseconds. */
  renew(giveUp: AbortSignal): Promise<number>;
  /** Calls `lose` when the daemon says that it is lost; returns what ends that. */
  whenLost(lose: (loss: PawlError) => void): () => void;
  /** Gives it back; resolves with false if it had ended before. */
  release(signal: AbortSignal): Promise<boolean>;
  /** The loss of one that had ended before it was given back. */
  ended(): PawlError;
}

/**
 * Performs `perform` while something is held, and gives it back. Rejects with the loss if it was lost meanwhile, and
 * otherwise as `perform` does.
 *
 * @param signal aborts the function's signal, too.
 */
export async function whileHeld<T>(
  holding: Holding,
  perform: (signal: AbortSignal) => T | Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  const { connection, what, ttlMs, releaseOn, graceMs, askedAt, remainingMs } = holding;
  const grant = new HeldGrant({
    connection,
    what,
    lostKind: "lease_lost",
    leaseMs: ttlMs,
    releaseOn,
    graceMs,
    askedAt,
    remainingMs,
    renew: (giveUp) => holding.renew(giveUp),
  });
  const stopListening = holding.whenLost((loss) => grant.lose(loss));
  await grant.confirmed;
  if (grant.lost) {
    stopListening();
    // The daemon may hold it all the same, for nobody who knows.
    void release(holding);
    throw grant.signal.reason;
  }
  const bothSignals = signal === undefined ? grant.signal : AbortSignal.any([grant.signal, signal]);
  const outcome = await outcomeOf(perform, bothSignals);
  stopListening();
  grant.pause();
  const loss = grant.lost ? grant.signal.reason : (await release(holding)) ? undefined : holding.ended();
  grant.end();
  if (loss !== undefined) throw withCause(loss, outcome);
  if ("error" in outcome) throw outcome.error;
  return outcome.result;
}

/** The end of the caller's function. */
type Outcome<T> = { readonly result: T } | { readonly error: unknown };

function outcomeOf<T>(
  perform: (signal: AbortSignal) => T | Promise<T>,
  signal: AbortSignal,
): Promise<Outcome<T>> {
  return Promise.resolve(signal)
    .then(perform)
    .then(
      (result) => ({ result }),
      (error: unknown) => ({ error }),
    );
}

/**
 * Asks for something until it is granted, over lost connections where that does no harm. Rejects as `ask` does.
 *
 * @param ask makes the call, with how many milliseconds are left to wait.
 */
export async function askFor<R>(
  connection: Connection,
  { waitMs = 0, releaseOn, signal }: Pick<HoldOptions, "waitMs" | "releaseOn" | "signal">,
  ask: (leftMs: number, giveUp: { signal?: AbortSignal }) => Promise<R>,
): Promise<{ granted: R; askedAt: number }> {
  const giveUp = signal === undefined ? {} : { signal };
  const givingUpAt = performance.now() + waitMs;
  for (;;) {
    const askedAt = performance.now();
    const left = Math.max(0, Math.round(givingUpAt - askedAt));
    try {
      return { granted: await ask(left, giveUp), askedAt };
    } catch (error) {
      // A grant of the lost connection ended with it; so asking again does no harm.
      const again = error instanceof ConnectionLost && releaseOn === "disconnect" && left > 0;
      if (!again || connection.closed.aborted) throw error;
    }
    // If the signal is aborted meanwhile, the next call rejects with its reason.
    await delay(ASK_AGAIN_PAUSE_MS, undefined, giveUp).catch(() => {});
  }
}

/** Resolves with false if it had ended before, and with true if that is not known soon. */
async function release(holding: Holding): Promise<boolean> {
  if (!holding.connection.up) return true;
  return await holding.release(AbortSignal.timeout(RELEASE_TIMEOUT_MS)).catch(() => true);
}

/** The reason of a loss, with what the caller's function threw as its cause, if that was something else. */
function withCause(reason: unknown, outcome: Outcome<unknown>): unknown {
  if (!(reason instanceof PawlError) || !("error" in outcome) || outcome.error === reason) return reason;
  return new PawlError(reason.kind, reason.message, reason.details, { cause: outcome.error });
}

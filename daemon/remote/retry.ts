import { randomInt } from "node:crypto";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_TIMER_MS } from "@pawl/protocol/limits";
import { elapsed } from "../clock.js";
import type { ConfiguredProvider } from "./configured-provider.js";
import type { FailureLog } from "./failure-log.js";
import { Failure } from "./refusals.js";

/** One attempt may take this part of the ttl, within bounds: so that several fit into what remains of it. */
const ATTEMPT_FRACTION = 1 / 4;
export const MIN_ATTEMPT_MS = 50;
export const MAX_ATTEMPT_MS = 3000;
/** A request that fails is repeated for so long before `provider_unavailable`; a renewal while the lease lasts. */
export const PATIENCE_MS = 3000;
/** Attempts that fail follow each other by half to all of this, doubled each time up to the most. */
const FIRST_PAUSE_MS = 50;
const MAX_PAUSE_MS = 1000;

/** The time for which a question is repeated, and the limit of one attempt. */
export interface Patience {
  readonly patienceMs: number;
  readonly limitMs: number;
}

/** The patience with a question that has no ttl. */
export const USUAL_PATIENCE: Patience = { patienceMs: PATIENCE_MS, limitMs: MAX_ATTEMPT_MS };

type Ask<T> = (signal: AbortSignal) => Promise<T>;

/** Asks providers, once or again while that may help, and logs how they fail. */
export class Asking {
  readonly #failures: FailureLog;
  readonly #stopped: AbortSignal;

  /** @param stopped aborted with a refusal when the daemon stops; every question is rejected with that then. */
  constructor(failures: FailureLog, stopped: AbortSignal) {
    this.#failures = failures;
    this.#stopped = stopped;
  }

  /** Repeats a question that fails while there is patience. Gives the answer, its moment and the number of failures. */
  async patiently<T>(
    configured: ConfiguredProvider,
    { patienceMs, limitMs }: Patience,
    ask: Ask<T>,
  ): Promise<{ value: T; at: number; failures: number }> {
    const until = elapsed() + patienceMs;
    for (let failures = 0; ; failures += 1) {
      try {
        const leftMs = Math.max(until - elapsed(), MIN_ATTEMPT_MS);
        const value = await this.once(configured, Math.min(limitMs, leftMs), ask);
        return { value, at: elapsed(), failures };
      } catch (error) {
        const pauseMs = pauseAfter(failures);
        if (!mayPass(error) || elapsed() + pauseMs >= until) throw error;
        await pause(pauseMs, this.#stopped);
      }
    }
  }

  /**
   * Asks a provider once, for `limitMs` at most. Rejects with `provider_unavailable` whatever the provider does,
   * but for a refusal that is its own; with the reason of `signal` once that is aborted.
   */
  async once<T>(
    configured: ConfiguredProvider,
    limitMs: number,
    ask: Ask<T>,
    signal: AbortSignal = this.#stopped,
  ): Promise<T> {
    const attempt = new AbortController();
    let end: (reason: unknown) => void = () => {};
    // A provider may not look at its signal.
    const ended = new Promise<never>((_, reject) => {
      end = reject;
    });
    ended.catch(() => {});
    const timer = setTimeout(() => {
      const late = new Failure("timeout", `it did not answer within ${Math.round(limitMs)} ms`);
      end(late);
      attempt.abort(late);
    }, limitMs);
    const onAbort = (): void => {
      end(signal.reason);
      attempt.abort(signal.reason);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      const value = await Promise.race([ask(attempt.signal), ended]);
      this.#failures.answered(configured);
      return value;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw this.#failures.refusalOf(configured, error);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }
}

/** The time, in milliseconds, that one attempt for a lease may take. */
export function attemptMs(ttlMs: number): number {
  return Math.min(Math.max(ttlMs * ATTEMPT_FRACTION, MIN_ATTEMPT_MS), MAX_ATTEMPT_MS);
}

/** True if asking again may help. A provider that gives answers which cannot be would only do so again. */
export function mayPass(error: unknown): boolean {
  return (
    error instanceof PawlError &&
    error.kind === "provider_unavailable" &&
    error.details.reason !== "bad_answer"
  );
}

/** The pause after so many failures, in milliseconds: random, so that those who failed together ask apart. */
export function pauseAfter(failures: number, mostMs = MAX_PAUSE_MS): number {
  const fullMs = Math.min(FIRST_PAUSE_MS * 2 ** Math.min(failures, 20), mostMs);
  return randomInt(Math.ceil(fullMs / 2), fullMs + 1);
}

/** Resolves after so long, or when `over` is aborted; rejects with the reason of `signal` if that is aborted before. */
export function pause(ms: number, signal: AbortSignal, over?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (finish: () => void): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      finish();
    };
    const onAbort = (): void => end(() => reject(signal.reason));
    const timer = setTimeout(() => end(resolve), Math.min(ms, MAX_TIMER_MS));
    signal.addEventListener("abort", onAbort, { once: true });
    over?.addEventListener("abort", () => end(resolve), { once: true });
    if (signal.aborted) onAbort();
  });
}

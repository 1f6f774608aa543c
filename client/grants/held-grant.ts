// The room of grants: claims, leases and commands that the daemon granted for a time are renewed here until their
// holder is done, and the holder is told when one is lost.
import { setTimeout as delay } from "node:timers/promises";
import { PawlError } from "@pawl/protocol/errors";
import { RESTART_GRACE_MS } from "@pawl/protocol/limits";
import type { Connection } from "../connection/connection.js";
import { ConnectionLost } from "../connection/connection-lost.js";

/** A grant is renewed when this part of its time has passed: two renewals may fail before it is lost. */
const RENEW_FRACTION = 1 / 3;
/** A grant counts as lost when this part of its time is left, so that its holder stops before another begins. */
const MARGIN_FRACTION = 1 / 10;
/** How soon a renewal that failed for a passing reason is tried again: a part of the time, within bounds. */
const RETRY_FRACTION = 1 / 20;
const MIN_RETRY_MS = 20;
const MAX_RETRY_MS = 1000;

/** When the daemon ends a grant that is not renewed: when its time has passed, or with the connection too. */
export type ReleaseOn = "expiry" | "disconnect";

export interface HeldGrantOptions {
  connection: Connection;
  /** Names the grant in messages: `The claim qwc:1:1`. */
  what: string;
  /** The refusal that says the grant is lost. */
  lostKind: "claim_lost" | "lease_lost";
  /** For how long the grant was made and is renewed. */
  leaseMs: number;
  releaseOn: ReleaseOn;
  /** How long it outlives its connection, in milliseconds; 0 if not given. A restart gives the usual time at least. */
  graceMs?: number;
  /** When the request that granted it was made, by `performance.now()`, and what remained when it was granted. */
  askedAt: number;
  remainingMs: number;
  /** Renews the grant, and resolves with what remains of it then, in milliseconds. */
  renew: (signal: AbortSignal) => Promise<number>;
}

/**
 * A grant of the daemon, renewed until its holder is done with it.
 *
 * `held`: the grant is renewed at each third of its time. A grant stays held while renewals fail for passing reasons.
 * `lost`: a renewal was refused, or none came through before a tenth of the time was left by the clock of this process,
 * or the client was closed. `signal` is aborted with the reason.
 * `ended`: the holder is done. Nothing is renewed any more.
 */
export class HeldGrant {
  readonly #options: HeldGrantOptions;
  #state: "held" | "lost" | "ended" = "held";
  readonly #loss = new AbortController();
  readonly #end = new AbortController();
  /** Until when the grant is held by its last renewal, but for the margin. */
  #validUntil = 0;
  /** Until when a daemon that starts again keeps a grant that ends with its connection; infinite while connected. */
  #graceUntil = Number.POSITIVE_INFINITY;
  /** There is a new connection, and no answer on it yet to tell that a daemon has started. */
  #unanswered = false;
  #overdue = false;
  #paused = false;
  #renewing = false;
  #renewTimer: NodeJS.Timeout | undefined;
  #deadlineTimer: NodeJS.Timeout | undefined;
  readonly #stopWatching: () => void;
  /**
   * Resolves once it is certain how long the grant lasts, or that it is lost: at once, but for a grant that was waited
   * for. That one may have been granted long ago, if this process or the daemon was stopped meanwhile, and a lease that
   * is kept outside the daemon may be another's by now: so it is renewed before it is used.
   */
  readonly confirmed: Promise<void>;
  #confirm: () => void = () => {};

  constructor(options: HeldGrantOptions) {
    this.#options = options;
    const { leaseMs, askedAt, remainingMs } = options;
    this.confirmed = new Promise((resolve) => {
      this.#confirm = resolve;
    });
    const now = performance.now();
    // The grant was made somewhere between the question and now. After a long time, because the grant was waited for,
    // this process may have been stopped meanwhile: then the daemon is asked at once how much is left.
    const waited = now - askedAt > leaseMs * MARGIN_FRACTION;
    if (!waited) this.#confirm();
    this.#extend(waited ? now : askedAt, remainingMs);
    this.#renewAt(waited ? now : askedAt + leaseMs * RENEW_FRACTION);
    this.#stopWatching = this.#watchConnection();
    const { closed } = options.connection;
    if (closed.aborted) this.lose(closed.reason);
  }

  /** Aborted when the grant is lost, with a `PawlError` of `lostKind`, or `ConnectionLost` if the client was closed. */
  get signal(): AbortSignal {
    return this.#loss.signal;
  }

  get lost(): boolean {
    return this.#state === "lost";
  }

  /** True if the grant is lost by the clock of this process only: the daemon may still take what its holder did. */
  get overdue(): boolean {
    return this.#overdue;
  }

  /** The grant is known to be lost. */
  lose(reason: unknown): void {
    if (this.#state !== "held") return;
    this.#stop("lost");
    this.#loss.abort(reason);
  }

  /** Asks the daemon now whether the grant is still held. */
  check(): void {
    void this.#renew();
  }

  /** Renews nothing while the grant is being ended: a renewal that comes after the end would be refused as lost. */
  pause(): void {
    this.#paused = true;
  }

  /**
   * Makes the call that ends the grant at the daemon, again while it fails for passing reasons and the grant is still
   * held. Rejects with the last error.
   */
  async endBy(call: () => Promise<unknown>): Promise<void> {
    for (let pause = MIN_RETRY_MS; ; pause = Math.min(pause * 2, MAX_RETRY_MS)) {
      this.pause();
      try {
        await call();
        return;
      } catch (error) {
        if (!isPassing(error) || this.lost || this.#options.connection.closed.aborted) throw error;
      }
      this.#paused = false;
      void this.#renew();
      await delay(pause);
    }
  }

  /** The holder is done with the grant. */
  end(): void {
    if (this.#state === "held") this.#stop("ended");
  }

  #stop(state: "lost" | "ended"): void {
    this.#state = state;
    clearTimeout(this.#renewTimer);
    clearTimeout(this.#deadlineTimer);
    this.#stopWatching();
    this.#end.abort();
    this.#confirm();
  }

  #watchConnection(): () => void {
    const { connection, releaseOn } = this.#options;
    const unwatch =
      releaseOn === "disconnect"
        ? connection.watch({
            up: () => this.#connectedAgain(),
            down: () => this.#beginGrace(),
            refused: () => this.#beginGrace(),
          })
        : () => {};
    const onClosed = (): void => this.lose(connection.closed.reason);
    connection.closed.addEventListener("abort", onClosed, { once: true });
    const stopKeeping = connection.keep();
    return () => {
      unwatch();
      stopKeeping();
      connection.closed.removeEventListener("abort", onClosed);
    };
  }

  #connectedAgain(): void {
    this.#unanswered = true;
    this.#setDeadline();
    void this.#renew();
  }

  #beginGrace(): void {
    this.#unanswered = false;
    const graceMs = Math.max(this.#options.graceMs ?? 0, RESTART_GRACE_MS);
    this.#graceUntil = performance.now() + graceMs * (1 - MARGIN_FRACTION);
    this.#setDeadline();
  }

  #endGrace(): void {
    this.#unanswered = false;
    this.#graceUntil = Number.POSITIVE_INFINITY;
  }

  #extend(from: number, remainingMs: number): void {
    this.#validUntil = from + remainingMs - this.#options.leaseMs * MARGIN_FRACTION;
    this.#setDeadline();
  }

  #setDeadline(): void {
    clearTimeout(this.#deadlineTimer);
    const graceUntil = this.#unanswered ? Number.POSITIVE_INFINITY : this.#graceUntil;
    const left = Math.min(this.#validUntil, graceUntil) - performance.now();
    this.#deadlineTimer = setTimeout(
      () => {
        const { what, lostKind } = this.#options;
        const message = `${what} could not be renewed in time, so another may hold it.`;
        this.#overdue = true;
        this.lose(new PawlError(lostKind, message, { reason: "not_renewed" }));
      },
      Math.max(0, Math.ceil(left)),
    );
  }

  #renewAt(at: number): void {
    clearTimeout(this.#renewTimer);
    this.#renewTimer = setTimeout(() => void this.#renew(), Math.max(0, at - performance.now()));
  }

  async #renew(): Promise<void> {
    // A renewal under way is sent again by itself when the connection changes.
    if (this.#renewing || this.#paused || this.#state !== "held") return;
    this.#renewing = true;
    const { leaseMs, renew } = this.#options;
    const askedAt = performance.now();
    try {
      const remainingMs = await renew(this.#end.signal);
      if (this.#state !== "held") return;
      this.#endGrace();
      this.#extend(askedAt, remainingMs);
      this.#confirm();
      this.#renewAt(askedAt + leaseMs * RENEW_FRACTION);
    } catch (error) {
      this.#renewalFailed(error);
    } finally {
      this.#renewing = false;
    }
  }

  #renewalFailed(error: unknown): void {
    if (isLoss(error)) this.lose(error);
    if (this.#state !== "held") return;
    if (error instanceof PawlError) {
      // A daemon runs, and its grace with it, unless it knows already that the grant is held.
      if (isTakenUp(error)) this.#endGrace();
      this.#unanswered = false;
      this.#setDeadline();
    }
    const { leaseMs } = this.#options;
    const pause = Math.min(Math.max(leaseMs * RETRY_FRACTION, MIN_RETRY_MS), MAX_RETRY_MS);
    this.#renewAt(performance.now() + pause);
  }
}

/** True if a refusal says that the grant that was to be renewed or ended is not held any more. */
export function isLoss(error: unknown): boolean {
  return error instanceof PawlError && ["claim_lost", "lease_lost", "not_found"].includes(error.kind);
}

/**
 * True if a refused renewal has shown the daemon who holds the grant. Then the daemon has taken the grant up on this
 * connection, and the grant lasts as long as before, although its provider could not be asked.
 */
function isTakenUp(error: PawlError): boolean {
  return error.kind === "provider_unavailable" && error.details.reason !== "not_configured";
}

/** True if the same call may succeed later. */
function isPassing(error: unknown): boolean {
  return error instanceof ConnectionLost || (error instanceof PawlError && error.retryable);
}

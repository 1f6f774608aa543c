import { basename } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { NotificationParams, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS, MAX_NAME_LENGTH, RESTART_GRACE_MS } from "@pawl/protocol/limits";
import { type ClientConnection, ConnectionLost } from "../connection/connection.js";

/** A grant is renewed when this part of its time has passed: two renewals may fail before it is lost. */
const RENEW_FRACTION = 1 / 3;
/** It counts as lost when this part of its time is left, so that its holder has stopped before another begins. */
const MARGIN_FRACTION = 1 / 10;
/** How soon a renewal that failed for a passing reason is tried again: a part of the time, within bounds. */
const RETRY_FRACTION = 1 / 20;
const MIN_RETRY_MS = 20;
const MAX_RETRY_MS = 1000;
/** How long giving a lease back is waited for; it ends by itself too. */
const RELEASE_TIMEOUT_MS = 5000;
const REACQUIRE_PAUSE_MS = 100;

export type ReleaseOn = "expiry" | "disconnect";
type LeaseLost = NotificationParams<"lease.lost">;

export interface HoldOptions {
  connection: ClientConnection;
  /** What is held, for messages: `The claim qwc:1:1`. */
  what: string;
  /** The refusal that says it is lost. */
  lostKind: "claim_lost" | "lease_lost";
  /** For how long it was granted and is renewed. */
  leaseMs: number;
  releaseOn: ReleaseOn;
  /** When the request that granted it was made, and what remained of it when it was granted. */
  askedAt: number;
  remainingMs: number;
  /** Renews it, and resolves with what remains of it then. */
  renew: (signal: AbortSignal) => Promise<number>;
}

/**
 * Keeps what a daemon granted for a time, by renewing it, and tells its holder when it is lost.
 *
 * `held`: renewed at each third of its time. It stays so while renewals fail for passing reasons.
 * `lost`: a renewal was refused, or none came through before a tenth of its time was left by the clock of this
 * process, or the client was closed. `signal` is aborted with the reason.
 * `ended`: by its holder. Nothing is renewed any more.
 *
      if (error instanceof PawlError) {
        // A daemon runs, and its grace with it, unless it knows already that the grant is held.
        this.#unanswered = false;
        if (isKnown(error)) this.#graceUntil = Number.POSITIVE_INFINITY;
 */
export class Hold {
  readonly #options: HoldOptions;
  #state: "held" | "lost" | "ended" = "held";
  readonly #loss = new AbortController();
  readonly #end = new AbortController();
  #validUntil = 0;
  #graceUntil = Number.POSITIVE_INFINITY;
  /** There is a new connection, and no answer on it yet to tell that a daemon has started. */
  #unanswered = false;
  #overdue = false;
  #paused = false;
  #renewing = false;
  #renewTimer: NodeJS.Timeout | undefined;
  #deadlineTimer: NodeJS.Timeout | undefined;
  readonly #unwatch: () => void;
  /**
   * Resolves once it is certain how long it lasts, or that it is lost: at once, but for what was waited for. That
   * may have been granted long ago, if this process or the daemon was stopped meanwhile, and a lease that is kept
   * outside the daemon may be another's by now: so it is renewed before it is used.
   */
  readonly confirmed: Promise<void>;
  #confirm: () => void = () => {};

  constructor(options: HoldOptions) {
    this.#options = options;
    const { connection, leaseMs, askedAt, remainingMs } = options;
    const now = performance.now();
    // It was granted somewhere between the question and now. If that is long, because it was waited for, this
    // process may have been stopped meanwhile: then it has to be asked at once how much is left.
    const waited = now - askedAt > leaseMs * MARGIN_FRACTION;
    this.confirmed = new Promise((resolve) => {
      this.#confirm = resolve;
    });
    if (!waited) this.#confirm();
    this.#extend(waited ? now : askedAt, remainingMs);
    this.#renewAt(waited ? now : askedAt + leaseMs * RENEW_FRACTION);
    const unwatch =
      options.releaseOn === "disconnect"
        ? connection.watch({
            up: () => this.#connectedAgain(),
            down: () => this.#beginGrace(),
            refused: () => this.#beginGrace(),
          })
        : () => {};
    const onClosed = (): void => this.lose(connection.closed.reason);
    connection.closed.addEventListener("abort", onClosed, { once: true });
    const letGo = connection.keep();
    this.#unwatch = () => {
      unwatch();
      letGo();
      connection.closed.removeEventListener("abort", onClosed);
    };
    if (connection.closed.aborted) onClosed();
  }

  /** Aborted when it is lost. The reason is a `PawlError` of `lostKind`, or `ConnectionLost` if the client was closed. */
  get signal(): AbortSignal {
    return this.#loss.signal;
  }

  get lost(): boolean {
    return this.#state === "lost";
  }

  /** Whether it is lost by the clock of this process only: the daemon may still take what its holder has done. */
  get overdue(): boolean {
    return this.#overdue;
  }

  /** It is known to be lost. */
  lose(reason: unknown): void {
    if (this.#state !== "held") return;
    this.#stop("lost");
    this.#loss.abort(reason);
  }

  /** Asks the daemon now whether it is still held. */
  check(): void {
    void this.#renew();
  }

  /** Renews nothing while it is being ended: a renewal that comes after the end would be refused as lost. */
  pause(): void {
    this.#paused = true;
  }

  /** It could not be ended, so it is held on. */
  resume(): void {
    this.#paused = false;
    void this.#renew();
  }

  /** Its holder is done with it. */
  end(): void {
    if (this.#state === "held") this.#stop("ended");
  }

  #stop(state: "lost" | "ended"): void {
    this.#state = state;
    clearTimeout(this.#renewTimer);
    clearTimeout(this.#deadlineTimer);
    this.#unwatch();
    this.#end.abort();
    this.#confirm();
  }

  #extend(from: number, remainingMs: number): void {
    this.#validUntil = from + remainingMs - this.#options.leaseMs * MARGIN_FRACTION;
    this.#setDeadline();
  }

  #connectedAgain(): void {
    this.#unanswered = true;
    this.#setDeadline();
    void this.#renew();
  }

  #beginGrace(): void {
    this.#unanswered = false;
    this.#graceUntil = performance.now() + RESTART_GRACE_MS * (1 - MARGIN_FRACTION);
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
      this.#unanswered = false;
      this.#graceUntil = Number.POSITIVE_INFINITY;
      this.#extend(askedAt, remainingMs);
      this.#confirm();
      this.#renewAt(askedAt + leaseMs * RENEW_FRACTION);
    } catch (error) {
      if (isLoss(error)) this.lose(error);
      if (this.#state !== "held") return;
      if (error instanceof PawlError) {
        // A daemon runs, and its grace with it, unless it knows already that the grant is held.
        this.#unanswered = false;
        if (isKnown(error)) this.#graceUntil = Number.POSITIVE_INFINITY;
        this.#setDeadline();
      }
      const pause = Math.min(Math.max(leaseMs * RETRY_FRACTION, MIN_RETRY_MS), MAX_RETRY_MS);
      this.#renewAt(performance.now() + pause);
    } finally {
      this.#renewing = false;
    }
  }
}

/** Whether a refusal says that what was to be renewed or ended is not held any more. */
export function isLoss(error: unknown): boolean {
  return error instanceof PawlError && ["claim_lost", "lease_lost", "not_found"].includes(error.kind);
}

/**
 * Whether a renewal that failed has shown the daemon who holds the grant: it has been taken up on this connection then,
 * and lasts as long as it did before, although whoever keeps it outside could not be asked.
 */
function isKnown(error: unknown): boolean {
  return (
    error instanceof PawlError &&
    error.kind === "provider_unavailable" &&
    error.details.reason !== "not_configured"
  );
}

/** Whether the same call may succeed later. */
function isPassing(error: unknown): boolean {
  return error instanceof ConnectionLost || (error instanceof PawlError && error.retryable);
}

/**
 * Makes the call that ends a grant, again while it fails for passing reasons and the grant is still held.
 * Rejects with the last error.
 */
export async function settle(
  hold: Hold,
  connection: ClientConnection,
  call: () => Promise<unknown>,
): Promise<void> {
  for (let pause = MIN_RETRY_MS; ; pause = Math.min(pause * 2, MAX_RETRY_MS)) {
    hold.pause();
    try {
      await call();
      return;
    } catch (error) {
      if (!isPassing(error) || hold.lost || connection.closed.aborted) throw error;
    }
    hold.resume();
    await delay(pause);
  }
}

/** Who asks, for people: the program and its pid. */
export function defaultOwner(): string {
  const program = basename(process.argv[1] ?? "node").replace(/[\0\p{Surrogate}]/gu, "?");
  return `${program.slice(0, MAX_NAME_LENGTH / 2)}:${process.pid}`;
}

export interface WithLeaseOptions {
  /** Who holds it, for people; otherwise the program and its pid. */
  owner?: string;
  /** How long the lease outlives the last sign of life, in milliseconds; 30,000 by default. */
  ttlMs?: number;
  /** How long to wait while another holds it, in milliseconds; by default not at all (`lease_held`). */
  waitMs?: number;
  /** `disconnect` (default) lets go of it the moment this process ends; `expiry` when its ttl has passed. */
  releaseOn?: ReleaseOn;
  /** Shown to others by `lease.get`. */
  note?: string;
  /** Ends the waiting, and aborts the function's signal. */
  signal?: AbortSignal;
}

/** A lease while its function runs. */
export interface HeldLease {
  readonly name: string;
  readonly owner: string;
  /** To be sent along with every write: greater than that of every earlier holder. */
  readonly fencingToken: number;
  /** For guards of a `transact` and for `lease.*` calls of one's own. */
  readonly leaseId: string;
  /** Aborted when the lease is lost: stop writing. */
  readonly signal: AbortSignal;
}

/**
 * Performs `perform` while holding the write lease of a name, and gives it back. See `PawlClient.withLease`.
 */
export async function withLease<T>(
  connection: ClientConnection,
  name: string,
  perform: (lease: HeldLease) => T | Promise<T>,
  options: WithLeaseOptions = {},
): Promise<T> {
  const { ttlMs = DEFAULT_LEASE_MS, releaseOn = "disconnect", signal } = options;
  const { lease, askedAt } = await acquire(connection, name, { ...options, ttlMs, releaseOn });
  const { leaseId, fencingToken, owner, remainingMs } = lease;
  const hold = new Hold({
    connection,
    what: `The lease of ${JSON.stringify(name)}`,
    lostKind: "lease_lost",
    leaseMs: ttlMs,
    releaseOn,
    askedAt,
    remainingMs,
    renew: async (giveUp) =>
      (await connection.call("lease.heartbeat", { leaseId, ttlMs }, { signal: giveUp })).remainingMs,
  });
  const stopListening = connection.on("lease.lost", (lost) => {
    if (lost.leaseId === leaseId) hold.lose(lossOf(name, lost as LeaseLost));
  });
  const held: HeldLease = {
    name,
    owner,
    fencingToken,
    leaseId,
    signal: signal === undefined ? hold.signal : AbortSignal.any([hold.signal, signal]),
  };
  await hold.confirmed;
  if (hold.lost) {
    stopListening();
    // It may be held all the same, by nobody who knows.
    void release(connection, leaseId);
    throw hold.signal.reason;
  }
  const outcome = await Promise.resolve(held)
    .then(perform)
    .then(
      (result) => ({ result }),
      (error: unknown) => ({ error }),
    );
  stopListening();
  hold.pause();
  const gone = hold.lost
    ? hold.signal.reason
    : (await release(connection, leaseId))
      ? undefined
      : lossOf(name);
  hold.end();
  if (gone !== undefined) throw because(gone, outcome);
  if ("error" in outcome) throw outcome.error;
  return outcome.result;
}

async function acquire(
  connection: ClientConnection,
  name: string,
  options: WithLeaseOptions & { ttlMs: number; releaseOn: ReleaseOn },
): Promise<{ lease: Result<"lease.acquire">["lease"]; askedAt: number }> {
  const { owner = defaultOwner(), ttlMs, waitMs = 0, releaseOn, note, signal } = options;
  const givingUp = performance.now() + waitMs;
  for (;;) {
    const askedAt = performance.now();
    const left = Math.max(0, Math.round(givingUp - askedAt));
    const params = { name, owner, ttlMs, waitMs: left, releaseOn, ...(note === undefined ? {} : { note }) };
    try {
      const { lease } = await connection.call(
        "lease.acquire",
        params,
        signal === undefined ? {} : { signal },
      );
      return { lease, askedAt };
    } catch (error) {
      // If the lost connection was granted the lease, it ended with it; so asking again does no harm.
      const again = error instanceof ConnectionLost && releaseOn === "disconnect" && left > 0;
      if (!again || connection.closed.aborted) throw error;
    }
    // Aborted meanwhile, the next call rejects with the reason.
    await delay(REACQUIRE_PAUSE_MS, undefined, signal === undefined ? {} : { signal }).catch(() => {});
  }
}

/** Gives a lease back; false if it had ended before. If that is not to be learned soon, it ends by itself. */
async function release(connection: ClientConnection, leaseId: string): Promise<boolean> {
  if (!connection.up) return true;
  try {
    const signal = AbortSignal.timeout(RELEASE_TIMEOUT_MS);
    return (await connection.call("lease.release", { leaseId }, { signal })).released;
  } catch {
    return true;
  }
}

function lossOf(name: string, { cause = "expired", reason = null }: Partial<LeaseLost> = {}): PawlError {
  const how = cause === "broken" ? `was broken by force: ${reason}` : "has ended before it was given back";
  return new PawlError("lease_lost", `The lease of ${JSON.stringify(name)} ${how}.`, { reason: cause });
}

/** What the caller is told when the lease was lost, whatever the function made of that. */
function because(reason: unknown, outcome: { error: unknown } | { result: unknown }): unknown {
  if (!(reason instanceof PawlError) || !("error" in outcome) || outcome.error === reason) return reason;
  return new PawlError(reason.kind, reason.message, reason.details, { cause: outcome.error });
}

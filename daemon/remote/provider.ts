import type { Holder, Inspected, Peer } from "../domain/lease/holder.js";

/**
 * A provider says who may hold a name. The daemon does the rest: it makes the secret ids, queues callers that wait,
 * tells holders that their lease is about to end or lost, and releases leases that end with a connection.
 *
 * All durations are in milliseconds and count from the moment of the answer. There are no deadlines here, because the
 * clocks of two machines differ. A provider judges expiry by its own monotonic clock, and the daemon of the holder
 * gives a lease up before the provider does: when a tenth of the ttl is left. `remainingMs` of a grant or a renewal
 * must therefore count from before the request was sent to wherever leases are kept.
 *
 * The daemon passes a signal, aborted when it waits no longer, and repeats a request that failed. An answer that is not
 * as described here counts as none, and the log says what is wrong with it.
 *
 * `leaseProviderConformance` runs the rules below against any provider.
 */
export interface LeaseProvider {
  /**
   * Takes the name if nobody holds it. Of any number of callers at one time, one gets it. An attempt whose
   * outcome could not be learned rejects. The daemon then asks again with the same leaseId, and if the first
   * attempt took the name after all, that is granted with the token it had and a whole ttl; or it releases that
   * leaseId. What is not found again ends by its ttl.
   */
  acquire(request: AcquireRequest, signal?: AbortSignal): Promise<Acquired>;
  /**
   * Makes a lease last `ttlMs` from now on. Null if it is no longer held: it never revives. It may be repeated
   * after an attempt whose outcome could not be learned.
   */
  heartbeat(
    request: HeartbeatRequest,
    signal?: AbortSignal,
  ): Promise<{ readonly remainingMs: number } | null>;
  /**
   * Gives a lease back at once. False if it was already gone, which includes being another's by now. It may be
   * repeated, and is also asked for leases that were perhaps never granted.
   */
  release(request: ReleaseRequest, signal?: AbortSignal): Promise<boolean>;
  /** The holder of the name, or null; never the leaseId. */
  get(name: string, signal?: AbortSignal): Promise<Holder | null>;
  /**
   * The same, and the highest token that was ever granted for the name, 0 for none: for a provider that keeps it
   * when nobody holds the name. Without this the daemon knows of those tokens alone that it has seen.
   */
  inspect?(name: string, signal?: AbortSignal): Promise<Inspected>;
  /** Ends the lease of a name by force, whoever holds it. Without this, `lease.break` is refused for its names. */
  break?(name: string, signal?: AbortSignal): Promise<boolean>;
  /**
   * Resolves once asking for a held name again may help, also if it is free already; without it, `retryMs` says
   * when. It may resolve for nothing, and may reject: then `retryMs` counts.
   */
  watch?(name: string, signal: AbortSignal): Promise<void>;
  /** Lets go of connections and timers. Leases stay as they are. */
  close?(): Promise<void>;
}

export interface AcquireRequest {
  /** 1 to 128 characters, any but NUL and lone surrogates. */
  readonly name: string;
  /** Random, made for this attempt, and secret: the lease belongs to whoever knows it. */
  readonly leaseId: string;
  /** A label that proves nothing: the same owner asking again while it holds the name is refused like others. */
  readonly owner: string;
  readonly ttlMs: number;
  readonly note: string | null;
  /** The process that asks, as the kernel told; kept to be shown where there is a place for it. */
  readonly peer: Peer;
  /**
   * The highest fencing token that the daemon knows for the name, from whichever provider served it before; 0
   * for none. The one granted is greater, and greater than every one this provider ever granted for the name.
   */
  readonly tokenAbove: number;
}

export interface HeartbeatRequest {
  readonly name: string;
  readonly leaseId: string;
  readonly ttlMs: number;
}

export interface ReleaseRequest {
  readonly name: string;
  readonly leaseId: string;
}

export type Acquired =
  | { readonly granted: true; readonly fencingToken: number; readonly remainingMs: number }
  | {
      readonly granted: false;
      readonly holder: Holder;
      /** After so long it is worth asking again, unless `watch` says so earlier. */
      readonly retryMs: number;
    };

/** The time, as providers are given it. */
export interface ProviderClocks {
  /** Milliseconds of a clock that never jumps: for judging expiry. */
  readonly elapsed: () => number;
  /** Milliseconds since the Unix epoch: for people. */
  readonly now: () => number;
}

/** The options that the daemon gives to a provider at its start. */
export interface ProviderOptions extends ProviderClocks {
  /** The parameters after the first comma: `custom:./module.js,bucket=leases` has `{bucket: "leases"}`. */
  readonly params: Readonly<Record<string, string>>;
}

/** The function that a module of `custom:./module.js` exports as `createLeaseProvider`. */
export type CreateLeaseProvider = (options: ProviderOptions) => LeaseProvider | Promise<LeaseProvider>;

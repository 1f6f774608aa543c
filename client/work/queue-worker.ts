import { EACH, textsAt } from "@pawl/protocol/json-text";
import { DEFAULT_LEASE_MS, MAX_BATCH_DELAY_MS, MAX_LAST_ERROR_LENGTH } from "@pawl/protocol/limits";
import type { Params, Result } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { HeldGrant, isLoss, type ReleaseOn } from "../grants/held-grant.js";
import { defaultOwner } from "../grants/owner.js";
import { callListener, warn } from "./listeners.js";
import { Postpone } from "./postpone.js";
import { ASK_WAIT_MS, WorkerPool, type WorkHandle } from "./worker-pool.js";

type Claim = NonNullable<Result<"queue.claim">["claim"]>;
type Batch = Claim["batches"][number];

/** A claim, the result that it came in, and when it was asked for. */
interface Taken {
  readonly claim: Claim;
  readonly text: string;
  readonly askedAt: number;
}

/** Where the payloads are in the result of `queue.claim`. */
const PAYLOADS = ["claim", "batches", EACH, "payloads", EACH];

/** The batches of one claim, as a handler of `PawlClient.work` gets them. */
export interface Work<T = unknown> {
  /** The payloads of all batches, in their order. */
  readonly payloads: readonly T[];
  /** The same as the JSON texts that were enqueued, byte for byte: JavaScript's numbers do not hold every digit. */
  payloadTexts(): readonly string[];
  /** One batch, or several that join (`maxBatches`). */
  readonly batches: readonly Batch[];
  readonly claim: Claim;
  /** Greater than that of every earlier claim in the queue: to be sent along with every write. */
  readonly fencingToken: number;
  /** Aborted when the claim is lost: another may be doing the work. Its reason says why. */
  readonly signal: AbortSignal;
}

export interface WorkOptions {
  /** How many claims are worked on at a time; 1 by default, 1,000 at most. */
  concurrency?: number;
  /** The worker's name, for people; otherwise the program and its pid. */
  owner?: string;
  /** How long a claim outlives the last sign of life, in milliseconds; 30,000 by default. */
  leaseMs?: number;
  /** How many batches that join are claimed together; 1 by default. */
  maxBatches?: number;
  /** The kind of moment this is: see `queue.claim`. */
  boundary?: NonNullable<Params<"queue.claim">["boundary"]>;
  /** `disconnect` (default) lets go of a claim the moment this process ends; `expiry` when its lease has passed. */
  releaseOn?: ReleaseOn;
  /**
   * How long a batch rests after its handler threw, in milliseconds, given its counted attempts; by default as it, or
   * else its queue, was configured: at first for up to a second, then for twice as long each time.
   */
  retryDelayMs?: number | ((attempts: number) => number);
  /** Ends the work as `close` does. */
  signal?: AbortSignal;
  /** Told of work that is done: its claim was completed. */
  onComplete?: (work: Work) => void;
  /** Told of what a handler threw, before the batches are given back. */
  onFailure?: (error: unknown, work: Work) => void;
  /** Told of trouble with the daemon: claims that are lost or cannot be had. By default it is a process warning. */
  onError?: (error: unknown, work?: Work) => void;
}

/** Works on a queue until closed. See `PawlClient.work`. */
export function work<T>(
  connection: Connection,
  queue: string,
  handler: (work: Work<T>) => unknown,
  options: WorkOptions = {},
): WorkHandle {
  const { concurrency = 1, onError = warn, signal } = options;
  const worker = new QueueWorker(connection, queue, handler, options);
  return new WorkerPool<Taken>({
    connection,
    concurrency,
    take: (giveUp) => worker.take(giveUp),
    perform: (taken) => worker.perform(taken),
    onError,
    signal,
  });
}

/** Takes claims and works on them, one after the other or several at a time. */
class QueueWorker<T> {
  readonly #connection: Connection;
  readonly #queue: string;
  readonly #handler: (work: Work<T>) => unknown;
  readonly #options: WorkOptions;

  constructor(
    connection: Connection,
    queue: string,
    handler: (work: Work<T>) => unknown,
    options: WorkOptions,
  ) {
    this.#connection = connection;
    this.#queue = queue;
    this.#handler = handler;
    this.#options = options;
  }

  async take(giveUp: AbortSignal): Promise<Taken | undefined> {
    const { owner = defaultOwner(), boundary = "idle", maxBatches = 1 } = this.#options;
    const { leaseMs = DEFAULT_LEASE_MS, releaseOn = "disconnect" } = this.#options;
    const askedAt = performance.now();
    const { result, text } = await this.#connection.callForText(
      "queue.claim",
      { queue: this.#queue, owner, boundary, maxBatches, leaseMs, waitMs: ASK_WAIT_MS, releaseOn },
      { signal: giveUp },
    );
    return result.claim === null ? undefined : { claim: result.claim, text, askedAt };
  }

  async perform(taken: Taken): Promise<void> {
    const { claim, text } = taken;
    const grant = this.#keepRenewed(taken);
    const given: Work<T> = {
      payloads: claim.batches.flatMap((batch) => batch.payloads) as T[],
      payloadTexts: () => textsAt(text, PAYLOADS) as string[],
      batches: claim.batches,
      claim,
      fencingToken: claim.fencingToken,
      signal: grant.signal,
    };
    const failure = await Promise.resolve(given)
      .then(this.#handler)
      .then(
        () => undefined,
        (error: unknown) => ({ error }),
      );
    const { onComplete, onError = warn } = this.#options;
    try {
      if (failure === undefined) {
        await this.#complete(grant, claim);
        if (onComplete !== undefined) callListener(onComplete, given);
      } else {
        await this.#giveBack(grant, given, failure.error);
      }
    } catch (error) {
      callListener(onError, error, given);
    } finally {
      grant.end();
    }
  }

  #keepRenewed({ claim, askedAt }: Taken): HeldGrant {
    const { claimId, leaseToken, remainingMs } = claim;
    const { leaseMs = DEFAULT_LEASE_MS, releaseOn = "disconnect" } = this.#options;
    const connection = this.#connection;
    return new HeldGrant({
      connection,
      what: `The claim ${claimId} of ${JSON.stringify(this.#queue)}`,
      lostKind: "claim_lost",
      leaseMs,
      releaseOn,
      askedAt,
      remainingMs,
      renew: async (signal) =>
        (await connection.call("queue.renew", { claimId, leaseToken, leaseMs }, { signal })).remainingMs,
    });
  }

  async #complete(grant: HeldGrant, { claimId, leaseToken }: Claim): Promise<void> {
    // A claim that is lost by our clock only is completed all the same if nobody else has taken it: the daemon knows.
    if (grant.lost && !grant.overdue) throw grant.signal.reason;
    await grant.endBy(() => this.#connection.call("queue.complete", { claimId, leaseToken }));
  }

  async #giveBack(grant: HeldGrant, given: Work<T>, error: unknown): Promise<void> {
    const { claimId, leaseToken } = given.claim;
    const { onFailure, retryDelayMs } = this.#options;
    const postponed = error instanceof Postpone;
    if (!postponed && onFailure !== undefined) callListener(onFailure, error, given);
    if (grant.lost) throw grant.signal.reason;
    const how = postponed
      ? { delayMs: error.delayMs }
      : {
          error: textOf(error),
          ...(retryDelayMs === undefined ? {} : { delayMs: restMs(retryDelayMs, given.batches) }),
        };
    try {
      await grant.endBy(() => this.#connection.call("queue.abandon", { claimId, leaseToken, ...how }));
    } catch (refusal) {
      // The claim was given back by a first try whose answer was lost, or was taken back: it is where it should be.
      if (!isLoss(refusal)) throw refusal;
    }
  }
}

/** How long batches rest, by how often the most tried of them has been tried, this time included. */
function restMs(delayMs: NonNullable<WorkOptions["retryDelayMs"]>, batches: readonly Batch[]): number {
  const attempts = Math.max(...batches.map(({ attempt }) => attempt)) + 1;
  const wanted = typeof delayMs === "number" ? delayMs : delayMs(attempts);
  return Math.min(Math.max(0, Math.round(wanted)), MAX_BATCH_DELAY_MS);
}

/** An error of a handler as it is kept with the batches. */
function textOf(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  return text.slice(0, MAX_LAST_ERROR_LENGTH).replace(/[\0\p{Surrogate}]/gu, "\uFFFD") || "unknown";
}

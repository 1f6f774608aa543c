import type { Params, Result } from "@pawl/protocol";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import { DEFAULT_LEASE_MS, MAX_BATCH_DELAY_MS, MAX_LAST_ERROR_LENGTH } from "@pawl/protocol/limits";
import type { ClientConnection } from "../connection/connection.js";
import { defaultOwner, Hold, isLoss, type ReleaseOn, settle } from "../grants/held-grant.js";
import { ASK_WAIT_MS, Crew, Postpone, tell, type WorkHandle, warn } from "./worker-pool.js";

type Claim = NonNullable<Result<"queue.claim">["claim"]>;
type Batch = Claim["batches"][number];

/** A claim, the result that it came in, and when it was asked for. */
interface Taken {
  readonly claim: Claim;
  readonly text: string;
  readonly askedAt: number;
}

/** Where they are in the result of `queue.claim`. */
const PAYLOADS = ["claim", "batches", EACH, "payloads", EACH];

/** What a handler of `PawlClient.work` is given: the batches of one claim. */
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
  /** Who claims, for people; otherwise the program and its pid. */
  owner?: string;
  /** How long a claim outlives the last sign of life, in milliseconds; 30,000 by default. */
  leaseMs?: number;
  /** How many batches that join are claimed together; 1 by default. */
  maxBatches?: number;
  /** What kind of moment this is: see `queue.claim`. */
  boundary?: NonNullable<Params<"queue.claim">["boundary"]>;
  /** `disconnect` (default) lets go of a claim the moment this process ends; `expiry` when its lease has passed. */
  releaseOn?: ReleaseOn;
  /** How long a batch rests after its handler threw, in milliseconds, given its counted attempts; 0 by default. */
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
  connection: ClientConnection,
  queue: string,
  handler: (work: Work<T>) => unknown,
  options: WorkOptions = {},
): WorkHandle {
  const { concurrency = 1, owner = defaultOwner(), leaseMs = DEFAULT_LEASE_MS, maxBatches = 1 } = options;
  const { boundary = "idle", releaseOn = "disconnect", onError = warn, signal } = options;

  async function take(giveUp: AbortSignal): Promise<Taken | undefined> {
    const askedAt = performance.now();
    const { result, text } = await connection.callForText(
      "queue.claim",
      { queue, owner, boundary, maxBatches, leaseMs, waitMs: ASK_WAIT_MS, releaseOn },
      { signal: giveUp },
    );
    return result.claim === null ? undefined : { claim: result.claim, text, askedAt };
  }

  async function perform({ claim, text, askedAt }: Taken): Promise<void> {
    const { claimId, leaseToken, fencingToken, batches, remainingMs } = claim;
    const hold = new Hold({
      connection,
      what: `The claim ${claimId} of ${JSON.stringify(queue)}`,
      lostKind: "claim_lost",
      leaseMs,
      releaseOn,
      askedAt,
      remainingMs,
      renew: async (giveUp) =>
        (await connection.call("queue.renew", { claimId, leaseToken, leaseMs }, { signal: giveUp }))
          .remainingMs,
    });
    const payloads = batches.flatMap((batch) => batch.payloads) as T[];
    const given: Work<T> = {
      payloads,
      payloadTexts: () => textsAt(text, PAYLOADS) as string[],
      batches,
      claim,
      fencingToken,
      signal: hold.signal,
    };
    const failure = await Promise.resolve(given)
      .then(handler)
      .then(
        () => undefined,
        (error: unknown) => ({ error }),
      );
    try {
      if (failure === undefined) {
        await complete(hold, claim);
        if (options.onComplete !== undefined) tell(options.onComplete, given);
      } else await giveBack(hold, given, failure.error);
    } catch (error) {
      tell(onError, error, given);
    } finally {
      hold.end();
    }
  }

  async function complete(hold: Hold, { claimId, leaseToken }: Claim): Promise<void> {
    // What is lost by our clock only is completed all the same if nobody else has taken it: the daemon knows.
    if (hold.lost && !hold.overdue) throw hold.signal.reason;
    await settle(hold, connection, () => connection.call("queue.complete", { claimId, leaseToken }));
  }

  async function giveBack(hold: Hold, given: Work<T>, error: unknown): Promise<void> {
    const { claimId, leaseToken } = given.claim;
    const postponed = error instanceof Postpone;
    if (!postponed && options.onFailure !== undefined) tell(options.onFailure, error, given);
    if (hold.lost) throw hold.signal.reason;
    const how = postponed
      ? { delayMs: error.delayMs }
      : { delayMs: restMs(options.retryDelayMs, given.batches), error: textOf(error) };
    try {
      await settle(hold, connection, () => connection.call("queue.abandon", { claimId, leaseToken, ...how }));
    } catch (refusal) {
      // It was given back by a first try whose answer was lost, or has been taken back: it is where it should be.
      if (!isLoss(refusal)) throw refusal;
    }
  }

  return new Crew({ connection, concurrency, take, perform, onError, signal });
}

/** How long batches rest, by how often the most tried of them has been tried, this time included. */
function restMs(delayMs: WorkOptions["retryDelayMs"] = 0, batches: readonly Batch[]): number {
  const attempts = Math.max(...batches.map(({ attempt }) => attempt)) + 1;
  const wanted = typeof delayMs === "number" ? delayMs : delayMs(attempts);
  return Math.min(Math.max(0, Math.round(wanted)), MAX_BATCH_DELAY_MS);
}

/** What is kept with the batches of what a handler threw. */
function textOf(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  return text.slice(0, MAX_LAST_ERROR_LENGTH).replace(/[\0\p{Surrogate}]/gu, "\uFFFD") || "unknown";
}

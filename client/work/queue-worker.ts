import { PawlError, shown } from "@pawl/protocol/errors";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import { DEFAULT_LEASE_MS, MAX_BATCH_DELAY_MS, MAX_LAST_ERROR_LENGTH } from "@pawl/protocol/limits";
import type { NotificationParams, Params, Result } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { JsonText, stringify } from "../connection/json-text.js";
import { HeldGrant, isLoss, type ReleaseOn } from "../grants/held-grant.js";
import { defaultOwner } from "../grants/owner.js";
import { callListener, warn } from "./listeners.js";
import { Postpone } from "./postpone.js";
import { hasText, textOfThrown } from "./thrown.js";
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
  /**
   * Aborted when the claim is lost, and another may be doing the work, or when somebody cancels it (`cancelled`). Its
   * reason says why.
   */
  readonly signal: AbortSignal;
  /** Set once somebody cancels the work: it has to end. What is completed before the grace is over counts. */
  readonly cancelled: Cancelled | undefined;
  /**
   * Says how far the work is, for whoever looks at its batches. A checkpoint is given to the next holder, if there is
   * to be one: it is in `batches`.
   *
   * @example await work.progress({ percent: 40, checkpoint: { row: 4000 } });
   */
  progress(how: ProgressOf): Promise<void>;
}

/** Who cancels work gives this. */
export interface Cancelled {
  readonly reason: string | null;
  /** How many milliseconds its worker was given to end. */
  readonly graceMs: number;
}

/** How far the work of a claim is: `percent` from 0 to 100, a `note` for people, a `checkpoint` of any JSON. */
export type ProgressOf = Pick<Params<"queue.progress">, "percent" | "note" | "checkpoint">;

export interface WorkOptions {
  /** How many claims are worked on at a time; 1 by default, 1,000 at most. */
  concurrency?: number;
  /** The worker's name, for people; otherwise the program and its pid. */
  owner?: string;
  /** How long a claim outlives the last sign of life, in milliseconds; 30,000 by default. */
  leaseMs?: number;
  /**
   * Of several queues: `listed` (default) takes from the first that has something, `oldest` what has the highest
   * priority, and then what is oldest, over all.
   */
  order?: "listed" | "oldest";
  /** How many batches that join are claimed together; 1 by default. */
  maxBatches?: number;
  /** The kind of moment this is: see `queue.claim`. */
  boundary?: NonNullable<Params<"queue.claim">["boundary"]>;
  /** `disconnect` (default) lets go of a claim the moment this process ends; `expiry` when its lease has passed. */
  releaseOn?: ReleaseOn;
  /**
   * How long a batch rests after its handler threw, in milliseconds, given its counted attempts; by default as it, or
   * else its queue, was configured: at first for up to a second, then for twice as long each time. So it does, too,
   * where the function throws or gives no number, which `onError` is told.
   */
  retryDelayMs?: number | ((attempts: number) => number);
  /**
   * True to end when there is nothing to claim; batches that rest, are scheduled, or are held back by a limit of their
   * queue, are not waited for.
   */
  drain?: boolean;
  /** True to end with the first claim. */
  once?: boolean;
  /** Ends the work as `close` does. */
  signal?: AbortSignal;
  /** Told of work that is done: its claim was completed. */
  onComplete?: (work: Work) => void;
  /** Told of work that was stopped because somebody cancelled it. */
  onCancel?: (work: Work) => void;
  /** Told of what a handler threw, before the batches are given back. */
  onFailure?: (error: unknown, work: Work) => void;
  /**
   * Told of trouble with the daemon: claims that are lost or cannot be had; and of what keeps a failure from being told
   * as it is: a `retryDelayMs` that throws, or a thrown value without a text. By default it is a process warning.
   */
  onError?: (error: unknown, work?: Work) => void;
}

/** Works on a queue until closed. See `PawlClient.work`. */
export function work<T>(
  connection: Connection,
  queues: string | readonly string[],
  handler: (work: Work<T>) => unknown,
  options: WorkOptions = {},
): WorkHandle {
  const { concurrency = 1, drain = false, once = false, onError = warn, signal } = options;
  const worker = new QueueWorker(connection, queues, handler, options);
  return new WorkerPool<Taken>({
    connection,
    concurrency: once ? 1 : concurrency,
    drains: drain,
    once,
    take: (giveUp) => worker.take(giveUp),
    perform: (taken) => worker.perform(taken),
    onError,
    signal,
  });
}

/** Takes claims and works on them, one after the other or several at a time. */
class QueueWorker<T> {
  readonly #connection: Connection;
  readonly #queues: Pick<Params<"queue.claim">, "queue" | "queues" | "order">;
  readonly #handler: (work: Work<T>) => unknown;
  readonly #options: WorkOptions;

  constructor(
    connection: Connection,
    queues: string | readonly string[],
    handler: (work: Work<T>) => unknown,
    options: WorkOptions,
  ) {
    this.#connection = connection;
    this.#queues =
      typeof queues === "string"
        ? { queue: queues }
        : { queues: [...queues], ...(options.order === undefined ? {} : { order: options.order }) };
    this.#handler = handler;
    this.#options = options;
  }

  async take(giveUp: AbortSignal): Promise<Taken | undefined> {
    const { owner = defaultOwner(), boundary = "idle", maxBatches = 1 } = this.#options;
    const { leaseMs = DEFAULT_LEASE_MS, releaseOn = "disconnect" } = this.#options;
    const waitMs = this.#options.drain === true ? 0 : ASK_WAIT_MS;
    const askedAt = performance.now();
    const { result, text } = await this.#connection.callForText(
      "queue.claim",
      { ...this.#queues, owner, boundary, maxBatches, leaseMs, waitMs, releaseOn, notify: true },
      { signal: giveUp },
    );
    return result.claim === null ? undefined : { claim: result.claim, text, askedAt };
  }

  async perform(taken: Taken): Promise<void> {
    const { claim, text } = taken;
    const { claimId, leaseToken } = claim;
    const connection = this.#connection;
    const stopping = new Stopping(claimId);
    const grant = this.#keepRenewed(taken, stopping);
    const stopsListening = [
      connection.on("claim.cancelling", (told) => {
        if (told.claimId === claimId) stopping.begin(told as NotificationParams<"claim.cancelling">);
      }),
      connection.on("claim.lost", (told) => {
        if (told.claimId === claimId) grant.lose(lossOf(told as NotificationParams<"claim.lost">));
      }),
    ];
    const given: Work<T> = {
      payloads: claim.batches.flatMap((batch) => batch.payloads) as T[],
      payloadTexts: () => textsAt(text, PAYLOADS) as string[],
      batches: claim.batches,
      claim,
      fencingToken: claim.fencingToken,
      signal: AbortSignal.any([grant.signal, stopping.signal]),
      get cancelled() {
        return stopping.told;
      },
      progress: async (how) => {
        const { cancelling, remainingMs } = await connection.call("queue.progress", {
          claimId,
          leaseToken,
          ...how,
        });
        if (cancelling) stopping.begin({ reason: null, graceMs: remainingMs });
      },
    };
    const outcome = await Promise.resolve(given)
      .then(this.#handler)
      .then(
        (result: unknown) => ({ result }),
        (error: unknown) => ({ error }),
      );
    const { onComplete, onError = warn } = this.#options;
    try {
      if ("result" in outcome) {
        const refused = await this.#complete(grant, claim, outcome.result);
        if (refused !== undefined) await this.#giveBack(grant, given, refused.why);
        else if (onComplete !== undefined) callListener(onComplete, given);
      } else {
        await this.#giveBack(grant, given, outcome.error);
      }
    } catch (error) {
      callListener(onError, error, given);
    } finally {
      grant.end();
      for (const stopListening of stopsListening) stopListening();
    }
  }

  #keepRenewed({ claim, askedAt }: Taken, stopping: Stopping): HeldGrant {
    const { claimId, leaseToken, queue, remainingMs } = claim;
    const { leaseMs = DEFAULT_LEASE_MS, releaseOn = "disconnect" } = this.#options;
    const connection = this.#connection;
    return new HeldGrant({
      connection,
      what: `The claim ${claimId} of ${JSON.stringify(queue)}`,
      lostKind: "claim_lost",
      leaseMs,
      releaseOn,
      askedAt,
      remainingMs,
      renew: async (signal) => {
        const params = { claimId, leaseToken, leaseMs };
        const { remainingMs: left, cancelling } = await connection.call("queue.renew", params, { signal });
        if (cancelling) stopping.begin({ reason: null, graceMs: left });
        return left;
      },
    });
  }

  /** Returns why the result cannot be kept, if it cannot: then the work is not done. */
  async #complete(
    grant: HeldGrant,
    { claimId, leaseToken }: Claim,
    result: unknown,
  ): Promise<{ readonly why: unknown } | undefined> {
    // A claim that is lost by our clock only is completed all the same if nobody else has taken it: the daemon knows.
    if (grant.lost && !grant.overdue) throw grant.signal.reason;
    let kept: { result?: JsonText };
    try {
      kept = keptOf(result);
    } catch (why) {
      return { why };
    }
    try {
      await grant.endBy(() => this.#connection.call("queue.complete", { claimId, leaseToken, ...kept }));
    } catch (error) {
      // More than a result may have.
      if (error instanceof PawlError && error.kind === "invalid_params") return { why: error };
      throw error;
    }
    return undefined;
  }

  async #giveBack(grant: HeldGrant, given: Work<T>, error: unknown): Promise<void> {
    const { claimId, leaseToken } = given.claim;
    const { onFailure, onCancel, onError = warn } = this.#options;
    const postponed = error instanceof Postpone;
    const cancelled = given.cancelled !== undefined;
    // A handler that ends because its claim is lost has not failed.
    if (grant.lost && error === grant.signal.reason) throw error;
    if (!postponed && !cancelled && onFailure !== undefined) callListener(onFailure, error, given);
    // What was cancelled has ended at the latest with its grace: that is no loss.
    if (grant.lost && !cancelled) throw grant.signal.reason;
    const trouble: unknown[] = [];
    const how = postponed ? { delayMs: error.delayMs } : cancelled ? {} : this.#failed(error, given, trouble);
    try {
      if (!grant.lost)
        await grant.endBy(() => this.#connection.call("queue.abandon", { claimId, leaseToken, ...how }));
    } catch (refusal) {
      // The claim was given back by a first try whose answer was lost, or was taken back: it is where it should be.
      if (!isLoss(refusal)) throw refusal;
    } finally {
      for (const each of trouble) callListener(onError, each, given);
    }
    if (cancelled && onCancel !== undefined) callListener(onCancel, given);
  }

  /** How the batches are given back after a handler failed. What the application gave for that may fail, too. */
  #failed(
    error: unknown,
    { claim, batches }: Work<T>,
    trouble: unknown[],
  ): Pick<Params<"queue.abandon">, "error" | "delayMs"> {
    if (!hasText(error)) {
      trouble.push(
        new TypeError(`The handler of ${claim.claimId} threw what has no text.`, { cause: error }),
      );
    }
    const { retryDelayMs } = this.#options;
    const how = { error: textOfThrown(error, MAX_LAST_ERROR_LENGTH) || "unknown" };
    if (retryDelayMs === undefined) return how;
    try {
      return { ...how, delayMs: restMs(retryDelayMs, batches) };
    } catch (failure) {
      trouble.push(failure);
      return how;
    }
  }
}

/** The result of a handler as it is sent. Throws for one that is no JSON. */
function keptOf(result: unknown): { result?: JsonText } {
  // JSON has no functions, and none is a result.
  const text: string | undefined = stringify(result);
  return text === undefined ? {} : { result: new JsonText(text) };
}

/** Whoever cancels the work of a claim says so once; a renewal that says so tells nothing new. */
class Stopping {
  readonly #claimId: string;
  readonly #controller = new AbortController();
  told: Cancelled | undefined;

  constructor(claimId: string) {
    this.#claimId = claimId;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  begin({ reason, graceMs }: Cancelled): void {
    if (this.told !== undefined) return;
    this.told = { reason, graceMs };
    const why = reason === null ? "" : `: ${reason}`;
    const message = `The claim ${this.#claimId} is cancelled${why}. Its work has ${graceMs} ms to end.`;
    this.#controller.abort(new PawlError("claim_lost", message, { claimId: this.#claimId }));
  }
}

function lossOf({ claimId, cause, reason }: NotificationParams<"claim.lost">): PawlError {
  const why = reason === null ? "" : `: ${reason}`;
  return new PawlError("claim_lost", `The claim ${claimId} has ended (${cause})${why}.`, { claimId });
}

/** How long batches rest, by how often the most tried of them has been tried, this time included. May throw. */
function restMs(delayMs: NonNullable<WorkOptions["retryDelayMs"]>, batches: readonly Batch[]): number {
  const attempts = Math.max(...batches.map(({ attempt }) => attempt)) + 1;
  const wanted: unknown = typeof delayMs === "number" ? delayMs : delayMs(attempts);
  if (typeof wanted !== "number" || Number.isNaN(wanted)) {
    throw new TypeError(
      `retryDelayMs has to give milliseconds, not ${typeof wanted === "number" ? wanted : shown(wanted)}.`,
    );
  }
  return Math.min(Math.max(0, Math.round(wanted)), MAX_BATCH_DELAY_MS);
}

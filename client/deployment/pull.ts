import { PawlError } from "@pawl/protocol/errors";
import { EACH, textsAt } from "@pawl/protocol/json-text";
import { DEFAULT_LEASE_MS, MAX_TIMER_MS } from "@pawl/protocol/limits";
import type { NotificationParams, Result } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { HeldGrant } from "../grants/held-grant.js";
import { defaultOwner } from "../grants/owner.js";
import { callListener, warn } from "../work/listeners.js";
import { Postpone } from "../work/postpone.js";
import { ASK_WAIT_MS, WorkerPool, type WorkHandle } from "../work/worker-pool.js";
import { sendAnswer } from "./answer-text.js";
import { carryOut, LongAnswer, Received } from "./carry-out.js";
import type { Handlers, PullOptions } from "./receive.js";

/** Where the params are in the result of `command.lease`. */
const PARAMS = ["leases", EACH, "envelope", "params"];

type Lease = Result<"command.lease">["leases"][number];

/** A command under its lease, the result that it came in, and when it was asked for. */
interface Taken {
  readonly lease: Lease;
  readonly text: string;
  readonly askedAt: number;
}

/** Takes the commands of a deployment, waiting for them, until closed. See `Commands.pull`. */
export function pull(
  connection: Connection,
  deployment: string,
  handlers: Handlers,
  options: PullOptions = {},
): WorkHandle {
  const { concurrency = 1, onError = warn, signal } = options;
  const receiver = new PullReceiver(connection, deployment, handlers, options);
  return new WorkerPool<Taken>({
    connection,
    concurrency,
    take: (giveUp) => receiver.take(giveUp),
    perform: (taken) => receiver.perform(taken),
    onError,
    signal,
  });
}

class PullReceiver {
  readonly #connection: Connection;
  readonly #deployment: string;
  readonly #handlers: Handlers;
  readonly #options: PullOptions;

  constructor(connection: Connection, deployment: string, handlers: Handlers, options: PullOptions) {
    this.#connection = connection;
    this.#deployment = deployment;
    this.#handlers = handlers;
    this.#options = options;
  }

  async take(giveUp: AbortSignal): Promise<Taken | undefined> {
    const {
      owner = defaultOwner(),
      leaseMs = DEFAULT_LEASE_MS,
      releaseOn = "disconnect",
      targets,
      incarnation,
      graceMs,
    } = this.#options;
    const askedAt = performance.now();
    const { result, text } = await this.#connection.callForText(
      "command.lease",
      {
        deployment: this.#deployment,
        owner,
        leaseMs,
        waitMs: ASK_WAIT_MS,
        releaseOn,
        ...(targets === undefined ? {} : { targets: [...targets] }),
        ...(incarnation === undefined ? {} : { incarnation }),
        ...(graceMs === undefined ? {} : { graceMs }),
      },
      { signal: giveUp },
    );
    const [lease] = result.leases;
    return lease === undefined ? undefined : { lease, text, askedAt };
  }

  async perform(taken: Taken): Promise<void> {
    const { lease, text } = taken;
    const { leaseId, commandId, envelope } = lease;
    const grant = this.#keepRenewed(taken);
    // At its deadline, or when it has taken too long, the daemon tells that it has ended, and its handler is told.
    const leftMs = Math.min(untilDeadlineMs(lease), envelope.executionMs ?? Number.POSITIVE_INFINITY);
    const atDeadline = leftMs < MAX_TIMER_MS ? setTimeout(() => grant.check(), leftMs + 1) : undefined;
    const received = new Received(
      this.#connection,
      leaseId,
      envelope,
      grant.signal,
      () => textsAt(text, PARAMS)[0] as string,
    );
    const connection = this.#connection;
    const stopListening = connection.on("command.cancelled", (told) => {
      if (told.commandId === commandId) grant.lose(lossOf(told as NotificationParams<"command.cancelled">));
    });
    try {
      const answer = await carryOut(connection, envelope, received, this.#handlers, this.#options);
      // A command that is lost by our clock only may be answered all the same: the daemon knows.
      if (grant.lost && !grant.overdue) throw grant.signal.reason;
      await grant.endBy(() =>
        answer instanceof Postpone
          ? connection.call("command.release", { leaseId, delayMs: answer.delayMs })
          : answer instanceof LongAnswer
            ? sendAnswer(connection, { commandId, leaseId }, answer.text)
            : connection.call("command.respond", { commandId, leaseId, response: answer }),
      );
    } catch (error) {
      const { onError = warn } = this.#options;
      if (!isOver(error)) callListener(onError, error, received);
    } finally {
      stopListening();
      clearTimeout(atDeadline);
      grant.end();
    }
  }

  #keepRenewed({ lease: { leaseId, commandId }, askedAt }: Taken): HeldGrant {
    const { leaseMs = DEFAULT_LEASE_MS, releaseOn = "disconnect", graceMs = 0 } = this.#options;
    const connection = this.#connection;
    return new HeldGrant({
      connection,
      what: `The lease of ${commandId}`,
      lostKind: "lease_lost",
      leaseMs,
      releaseOn,
      graceMs,
      askedAt,
      // The rest that the daemon reports ends with the deadline, if that is sooner. Then it is not the lease that ends.
      remainingMs: leaseMs,
      renew: async (signal) => {
        await connection.call("command.renew", { leaseId, leaseMs }, { signal });
        return leaseMs;
      },
    });
  }
}

/** Another receiver may be given it from now on. */
function lossOf({ commandId, reason }: NotificationParams<"command.cancelled">): PawlError {
  return new PawlError("lease_lost", `The delivery of ${commandId} has ended: ${reason}.`, { commandId });
}

/** How long until the command expires, in milliseconds by the daemon's clock. */
function untilDeadlineMs({ envelope: { deadline }, leaseExpiresAt, remainingMs }: Lease): number {
  return deadline === null ? Number.POSITIVE_INFINITY : deadline - leaseExpiresAt + remainingMs;
}

/** True if a lease was refused because its command has its final state: cancelled, expired or answered. */
function isOver(error: unknown): boolean {
  if (!(error instanceof PawlError) || error.kind !== "lease_lost") return false;
  return ["SUCCEEDED", "FAILED", "EXPIRED"].includes(error.details.state as string);
}

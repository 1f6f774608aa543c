// An item of the board, worked on by a function: claimed, renewed, and finished when the function returns.
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import type { Params, Result } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { HeldGrant } from "../grants/held-grant.js";
import { askFor, type HoldOptions } from "../grants/hold.js";
import { defaultOwner } from "../grants/owner.js";
import { textOfThrown } from "./thrown.js";

/** Which item is wanted: one by its name, or the first that is ready in these stages and has these labels. */
export type ItemRequest = Pick<
  Params<"pipeline.claim">,
  "storyId" | "stages" | "labels" | "agent" | "toStage"
>;

/** As far as the claim of an item can be asked for so: what it is held for, and by whom, is of the item. */
export interface WithItemOptions
  extends Pick<HoldOptions, "ttlMs" | "waitMs" | "releaseOn" | "graceMs" | "signal"> {
  /** The stage that the item is in once the function has returned; `5_done` by default. */
  doneStage?: string;
}

type Item = NonNullable<Result<"pipeline.claim">["item"]>;

/** An item while its function runs. */
export interface ClaimedItem {
  readonly item: Item;
  /** For `claim` of writes, and to be sent along with what is written elsewhere. */
  readonly fencingToken: number;
  /** Aborted when the claim is lost: stop the work. */
  readonly signal: AbortSignal;
  /** Has the item finished in this stage, or with this note or agent. */
  finishWith(how: {
    toStage?: string;
    note?: Params<"pipeline.finish">["note"];
    agent?: string | null;
  }): void;
}

/** What came of an item: where it went, and what the function returned. */
export interface DoneItem<T> {
  readonly item: Item;
  readonly result: T;
}

/** See `PawlClient.withItem`. */
export async function withItem<T>(
  connection: Connection,
  request: ItemRequest,
  perform: (claimed: ClaimedItem) => T | Promise<T>,
  options: WithItemOptions = {},
): Promise<DoneItem<T> | undefined> {
  const { ttlMs = DEFAULT_LEASE_MS, releaseOn = "disconnect", graceMs = 0, signal } = options;
  const terms = { ...request, agent: request.agent ?? defaultOwner(), ttlMs, releaseOn, graceMs };
  const { granted, askedAt } = await askFor(connection, { ...options, releaseOn }, (waitMs, giveUp) =>
    connection.call("pipeline.claim", { ...terms, waitMs }, giveUp),
  );
  const { item, lease } = granted;
  if (item === null || lease === undefined) return undefined;
  const { storyId } = item;
  const { leaseId, fencingToken, remainingMs, name } = lease;
  const grant = new HeldGrant({
    connection,
    what: `The claim of ${storyId}`,
    lostKind: "lease_lost",
    leaseMs: ttlMs,
    releaseOn,
    graceMs,
    askedAt,
    remainingMs,
    renew: async (giveUp) =>
      (await connection.call("lease.heartbeat", { leaseId, ttlMs }, { signal: giveUp })).remainingMs,
  });
  const stopListening = connection.on("lease.lost", (lost) => {
    if (lost.leaseId !== leaseId) return;
    grant.lose(
      new PawlError("lease_lost", `The claim of ${storyId} has ended.`, { reason: String(lost.cause) }),
    );
  });
  try {
    await grant.confirmed;
    const both = signal === undefined ? grant.signal : AbortSignal.any([grant.signal, signal]);
    let finish: Omit<Params<"pipeline.finish">, "storyId" | "fencingToken"> = {
      toStage: options.doneStage ?? "5_done",
    };
    const finishWith: ClaimedItem["finishWith"] = (how) => {
      finish = { ...finish, ...how };
    };
    let result: T;
    try {
      if (grant.lost) throw grant.signal.reason;
      result = await perform({ item, fencingToken, signal: both, finishWith });
      if (grant.lost) throw grant.signal.reason;
    } catch (error) {
      stopListening();
      if (!grant.lost)
        await grant.endBy(() => giveUp(connection, storyId, { name, fencingToken, leaseId }, error));
      throw error;
    }
    stopListening();
    let done: Result<"pipeline.finish"> | undefined;
    await grant.endBy(async () => {
      done = await connection.call("pipeline.finish", { ...finish, storyId, fencingToken });
    });
    return { item: (done as Result<"pipeline.finish">).item, result };
  } finally {
    stopListening();
    grant.end();
  }
}

/** The work has failed: that is noted, and the claim ends as one that was lost, so that it counts as a retry. */
async function giveUp(
  connection: Connection,
  storyId: string,
  lease: { name: string; fencingToken: number; leaseId: string },
  error: unknown,
): Promise<void> {
  const { name, fencingToken } = lease;
  const reason = textOfThrown(error, MAX_REASON_LENGTH) || "failed";
  const claim = { fencingToken };
  const calls = [
    { method: "pipeline.write", params: { storyId, note: reason, claim } },
    { method: "lease.break", params: { name, fencingToken, reason } },
  ] as const;
  await connection.call("transact", { calls } as unknown as Params<"transact">);
}

/** Of the reason for which a lease is broken. */
const MAX_REASON_LENGTH = 1000;

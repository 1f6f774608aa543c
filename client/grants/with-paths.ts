import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import type { Params } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { askFor, type HoldOptions, whileHeld } from "./hold.js";
import { defaultOwner } from "./owner.js";
import { taskOf, underTask } from "./task.js";

/** Paths below a root, all of which are to be held: patterns, literal paths, or both. */
export type PathRequest = Pick<Params<"path.reserve">, "root" | "patterns" | "files" | "mode">;

/** A reservation while its function runs. */
export interface HeldPaths {
  readonly root: string;
  /** In their one form. */
  readonly patterns: readonly string[];
  readonly mode: "write" | "read";
  readonly owner: string;
  /** To be sent along with every write: greater than that of every earlier holder below the root. */
  readonly fencingToken: number;
  /** For guards of a `transact` and for `path.*` calls of one's own. */
  readonly reservationId: string;
  /** Aborted when the reservation is lost: stop writing. */
  readonly signal: AbortSignal;
}

/**
 * Performs `perform` while paths are reserved, and gives them back. See `PawlClient.withPaths`.
 */
export async function withPaths<T>(
  connection: Connection,
  request: PathRequest,
  perform: (paths: HeldPaths) => T | Promise<T>,
  options: HoldOptions = {},
): Promise<T> {
  const { ttlMs = DEFAULT_LEASE_MS, releaseOn = "disconnect", graceMs = 0 } = options;
  const { owner = defaultOwner(), signal, waitMs: _waitMs, ...others } = options;
  const task = taskOf(options.task);
  const terms = { ...request, ...others, owner, ttlMs, releaseOn, task };
  const { granted, askedAt } = await askFor(connection, { ...options, releaseOn }, (waitMs, giveUp) =>
    connection.call("path.reserve", { ...terms, waitMs }, giveUp),
  );
  const { reservationId, root, patterns, mode, fencingToken, remainingMs } = granted.reservation;
  const what = `The reservation of ${patterns.length === 1 ? JSON.stringify(patterns[0]) : `${patterns.length} patterns`}`;
  const ended = (): PawlError =>
    new PawlError("lease_lost", `${what} has ended before it was given back.`, { reason: "expired" });
  const holding = {
    connection,
    what,
    ttlMs,
    releaseOn,
    graceMs,
    askedAt,
    remainingMs,
    renew: async (giveUp: AbortSignal) =>
      (await connection.call("path.heartbeat", { reservationId, ttlMs }, { signal: giveUp })).remainingMs,
    whenLost: (lose: (loss: PawlError) => void) =>
      connection.on("path.lost", (lost) => {
        if (lost.reservationId === reservationId) lose(ended());
      }),
    release: async (soon: AbortSignal) =>
      (await connection.call("path.release", { reservationId }, { signal: soon })).released,
    ended,
  };
  const held = { reservationId, root, patterns, mode, fencingToken, owner };
  const performIt = (both: AbortSignal) => underTask(task, () => perform({ ...held, signal: both }));
  return await whileHeld(holding, performIt, signal);
}

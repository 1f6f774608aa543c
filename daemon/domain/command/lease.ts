// Receivers that pull: they lease commands, renew their leases, and give commands back.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import { endOf, renewal } from "../../grants/grant.js";
import { progressAfter, tooLarge } from "../../json/kept-values.js";
import { type Operation, one, run, sql, write } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { meantKey, readyKey } from "../deployment/deployment.js";
import { isHeld, leaseIdOf, lostLease, readLeaseId, unknownLease } from "./delivery.js";
import { nameReceiver } from "./incarnation.js";
import {
  DELIVERY_TABLE,
  deadlineOf,
  forbidden,
  release as giveBack,
  isPushed,
  type LiveRow,
  lose,
  remainingOf,
  selectLive,
} from "./row.js";
import { deliveryEndOf, stateAt, transition } from "./state.js";
import { type Grant, take } from "./take.js";

const setRenewed = sql(`
  UPDATE pawl_command SET ${renewal(DELIVERY_TABLE)}, holder_connection = :connection WHERE seq = :seq`);

const forgetLate = sql(
  "UPDATE pawl_command SET late_attempt = NULL WHERE seq = :seq AND late_attempt = :attempt",
);

export function* lease(
  params: Parsed<"command.lease">,
  env: Env,
): Operation<Outcome<Result<"command.lease">>> {
  const { deployment, targets, owner, max, leaseMs, releaseOn, graceMs, incarnation } = params;
  const incarnationId = yield* nameReceiver(params, env);
  if (incarnationId instanceof PawlError) return incarnationId;
  const { connection, pid } = env.caller;
  const leaseExpiresAt = env.now + leaseMs;
  const grant: Grant = {
    owner,
    pid,
    expiresAt: leaseExpiresAt,
    leaseMs,
    connection: releaseOn === "disconnect" ? connection : null,
    holder: connection,
    executionMs: null,
    graceMs: graceMs === 0 ? null : graceMs,
    incarnationId,
  };
  const taken = yield* take({ deployment, targets, incarnation }, max, () => grant, env);
  if (taken.length === 0) {
    if (!env.mayWait) return { leases: [] };
    // Calls under one key that have the same targets are of one sort: the same commands meet them.
    const sort = targets === undefined ? "" : `of ${targets.join(" ")}`;
    return new Wait(keysOf(params), sort);
  }

  env.effects.deadline(leaseExpiresAt);
  if (releaseOn === "disconnect") env.effects.bind(connection);
  return {
    leases: taken.map(({ envelope }) => ({
      leaseId: leaseIdOf(envelope.commandId, envelope.attempt, env),
      ...remaining(endOfNew(leaseExpiresAt, envelope.executionMs, env), envelope.deadline, env),
      commandId: envelope.commandId,
      attempt: envelope.attempt,
      envelope,
    })),
  };
}

/** Where a receiver waits: for commands that anybody takes, and for those that are for it. */
function keysOf({ deployment, incarnation }: Parsed<"command.lease">): string | string[] {
  const forAny = readyKey(deployment);
  return incarnation === undefined ? forAny : [forAny, meantKey(deployment, incarnation)];
}

/** The end of a delivery that begins now. */
function endOfNew(leaseExpiresAt: number, executionMs: number | null, { now }: Env): number {
  return executionMs === null ? leaseExpiresAt : Math.min(leaseExpiresAt, now + executionMs);
}

function remaining(leaseExpiresAt: number, deadline: number | null, env: Env) {
  const remainingMs = remainingOf(leaseExpiresAt, deadline, env);
  return { leaseExpiresAt: env.wallMs + remainingMs, remainingMs };
}

export function* renew(
  params: Parsed<"command.renew">,
  env: Env,
): Operation<Result<"command.renew"> | PawlError> {
  const { leaseId } = params;
  const row = yield* findHeld(leaseId, env);
  if (row instanceof PawlError) return row;

  // A push is held as long as its connection, and not renewed.
  if (isPushed(row)) return unknownLease(leaseId);
  return yield* prolong(row, params.leaseMs, env);
}

/** The command of a delivery that is held; refused like `findDelivery`, and when the delivery is lost. */
function* findHeld(leaseId: string, env: Env): Operation<LiveRow | PawlError> {
  const found = yield* findDelivery(leaseId, env);
  if (found instanceof PawlError) return found;
  const { row, attempt } = found;
  return isHeld(row, attempt, env) ? row : yield* lostLease(row, attempt, env);
}

/** The command of a delivery, held or not, and which attempt it is; refused when there never was such a lease. */
function* findDelivery(leaseId: string, env: Env): Operation<{ row: LiveRow; attempt: number } | PawlError> {
  const given = readLeaseId(leaseId, env);
  const row = given && (yield* one(selectLive, { commandId: given.commandId }));
  return row === undefined || given === undefined ? unknownLease(leaseId) : { row, attempt: given.attempt };
}

/** Has a delivery that is held last anew: as long as it is asked for, or as it was leased for. */
function* prolong(row: LiveRow, leaseMs: number | undefined, env: Env): Operation<Result<"command.renew">> {
  const expiresAt = env.now + (leaseMs ?? row.leaseMs ?? DEFAULT_LEASE_MS);
  const { connection } = env.caller;
  yield* write(setRenewed, { seq: row.seq, expiresAt, connection });
  env.effects.deadline(expiresAt);
  // If the delivery belongs to no connection, or to another, this only costs a look when this one closes.
  env.effects.bind(connection);
  return {
    ...remaining(endOf(expiresAt, row.executionEndsAt), deadlineOf(row, env), env),
    cancelling: false,
  };
}

const selectProgress = sql<{ progress: string | null }>(
  "SELECT progress FROM pawl_command_more WHERE seq = :seq",
);

const setProgress = sql(`
  INSERT INTO pawl_command_more (seq, progress, checkpoint) VALUES (:seq, :progress, :checkpoint)
  ON CONFLICT (seq) DO UPDATE SET progress = coalesce(excluded.progress, pawl_command_more.progress),
    checkpoint = coalesce(excluded.checkpoint, pawl_command_more.checkpoint)`);

const setHasMore = sql("UPDATE pawl_command SET has_more = 1 WHERE seq = :seq");

/** Renews a delivery, if it is one that can be, and keeps with its command what is given. */
export function* progress(
  params: Parsed<"command.progress">,
  env: Env,
  [checkpoint]: Texts,
): Operation<Result<"command.progress"> | PawlError> {
  const { leaseId, percent, note } = params;
  const wrong =
    checkpoint === undefined ? undefined : tooLarge("command.progress", "/checkpoint", checkpoint, 1);
  if (wrong !== undefined) return wrong;
  const row = yield* findHeld(leaseId, env);
  if (row instanceof PawlError) return row;
  const isTold = percent !== undefined || note !== undefined;
  if (isTold || checkpoint !== undefined) {
    const before = row.hasMore === null ? undefined : yield* one(selectProgress, { seq: row.seq });
    const now = progressAfter(before?.progress, params);
    yield* write(setProgress, {
      seq: row.seq,
      progress: isTold ? now : null,
      checkpoint: checkpoint ?? null,
    });
    if (row.hasMore === null) yield* write(setHasMore, { seq: row.seq });
    env.effects.tell("command", row.deployment, "progressed", row.commandId);
  }
  if (!isPushed(row)) return yield* prolong(row, undefined, env);
  const end = deliveryEndOf(row) ?? env.now;
  return { ...remaining(end, deadlineOf(row, env), env), cancelling: false };
}

export function* release(
  params: Parsed<"command.release">,
  env: Env,
): Operation<Result<"command.release"> | PawlError> {
  const { leaseId, delayMs } = params;
  const found = yield* findDelivery(leaseId, env);
  if (found instanceof PawlError) return found;
  const { row, attempt } = found;
  if (isHeld(row, attempt, env)) return yield* giveBack(row, delayMs, env);

  const current = stateAt(row, env);
  // The delivery before this state: it was released already, or its time was up.
  if (current.state === "PENDING" && current.attempt === attempt + 1) {
    // Its end may not be written yet, and would have its answer count.
    if (row.state === "DISPATCHED") yield* lose(row, env);
    yield* run(forgetLate, { seq: row.seq, attempt });
    return current;
  }
  if (transition(current.state, "PENDING") === "forbidden") {
    return forbidden(row.commandId, current.state, "PENDING");
  }
  return yield* lostLease(row, attempt, env);
}

// Receivers that pull: they lease commands, renew their leases, and give commands back.
import type { Parsed, Result } from "@pawl/protocol";
import type { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import { endOf, renewal } from "../../grants/grant.js";
import { type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { readyKey } from "../deployment/deployment.js";
import { isHeld, leaseIdOf, lostLease, readLeaseId, unknownLease } from "./delivery.js";
import {
  DELIVERY_TABLE,
  deadlineOf,
  forbidden,
  release as giveBack,
  isPushed,
  remainingOf,
  selectLive,
} from "./row.js";
import { stateAt, transition } from "./state.js";
import { type Grant, take } from "./take.js";

const setRenewed = sql(`UPDATE pawl_command SET ${renewal(DELIVERY_TABLE)} WHERE seq = :seq`);

const forgetLate = sql(
  "UPDATE pawl_command SET late_attempt = NULL WHERE seq = :seq AND late_attempt = :attempt",
);

export function* lease(
  params: Parsed<"command.lease">,
  env: Env,
): Operation<Outcome<Result<"command.lease">>> {
  const { deployment, owner, max, leaseMs, releaseOn } = params;
  const { connection, pid } = env.caller;
  const leaseExpiresAt = env.now + leaseMs;
  const grant: Grant = {
    owner,
    pid,
    expiresAt: leaseExpiresAt,
    leaseMs,
    connection: releaseOn === "disconnect" ? connection : null,
    executionMs: null,
  };
  const taken = yield* take(deployment, max, () => grant, env);
  if (taken.length === 0) return env.mayWait ? new Wait(readyKey(deployment)) : { leases: [] };

  env.effects.deadline(leaseExpiresAt);
  if (releaseOn === "disconnect") env.effects.bind(connection);
  return {
    leases: taken.map(({ envelope }) => ({
      leaseId: leaseIdOf(envelope.commandId, envelope.attempt, env),
      ...remaining(sooner(leaseExpiresAt, envelope.executionMs, env), envelope.deadline, env),
      commandId: envelope.commandId,
      attempt: envelope.attempt,
      envelope,
    })),
  };
}

/** The end of a delivery that begins now. */
function sooner(leaseExpiresAt: number, executionMs: number | null, { now }: Env): number {
  return executionMs === null ? leaseExpiresAt : Math.min(leaseExpiresAt, now + executionMs);
}

function remaining(leaseExpiresAt: number, deadline: number | null, env: Env): Result<"command.renew"> {
  const remainingMs = remainingOf(leaseExpiresAt, deadline, env);
  return { leaseExpiresAt: env.wallMs + remainingMs, remainingMs };
}

export function* renew(
  params: Parsed<"command.renew">,
  env: Env,
): Operation<Result<"command.renew"> | PawlError> {
  const { leaseId } = params;
  const given = readLeaseId(leaseId, env);
  const row = given && (yield* one(selectLive, { commandId: given.commandId }));
  if (row === undefined || given === undefined) return unknownLease(leaseId);
  if (!isHeld(row, given.attempt, env)) return yield* lostLease(row, given.attempt, env);

  // A push is held as long as its connection, and not renewed.
  if (isPushed(row)) return unknownLease(leaseId);
  const expiresAt = env.now + (params.leaseMs ?? row.leaseMs ?? DEFAULT_LEASE_MS);
  const { connection } = env.caller;
  yield* run(setRenewed, { seq: row.seq, expiresAt, connection });
  env.effects.deadline(expiresAt);
  // If the delivery belongs to no connection, or to another, this only costs a look when this one closes.
  env.effects.bind(connection);
  return remaining(endOf(expiresAt, row.executionEndsAt), deadlineOf(row, env), env);
}

export function* release(
  params: Parsed<"command.release">,
  env: Env,
): Operation<Result<"command.release"> | PawlError> {
  const { leaseId, delayMs } = params;
  const given = readLeaseId(leaseId, env);
  const row = given && (yield* one(selectLive, { commandId: given.commandId }));
  if (row === undefined || given === undefined) return unknownLease(leaseId);
  if (isHeld(row, given.attempt, env)) return yield* giveBack(row, delayMs, env);

  const current = stateAt(row, env);
  // The delivery before this state: it was released already, or its time was up.
  if (current.state === "PENDING" && current.attempt === given.attempt + 1) {
    yield* run(forgetLate, { seq: row.seq, attempt: given.attempt });
    return current;
  }
  if (transition(current.state, "PENDING") === "forbidden") {
    return forbidden(row.commandId, current.state, "PENDING");
  }
  return yield* lostLease(row, given.attempt, env);
}

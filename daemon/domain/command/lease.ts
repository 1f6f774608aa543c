// Receivers that pull: they lease commands, renew their leases, and give commands back.
import type { Parsed, Result } from "@pawl/protocol";
import type { PawlError } from "@pawl/protocol/errors";
import { type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { isHeld, leaseIdOf, lostLease, readLeaseId, unknownLease } from "./delivery.js";
import { endOf, forbidden, giveBack, readyKey, selectLive } from "./row.js";
import { stateAt, transition } from "./state.js";
import { type Grant, take } from "./take.js";

const setLeaseEnd = sql(`
  UPDATE pawl_command SET lease_expires_at = :expiresAt, lease_connection = :connection WHERE seq = :seq`);

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
    connection: releaseOn === "disconnect" ? connection : null,
  };
  const taken = yield* take(deployment, max, () => grant, env);
  if (taken.length === 0) return env.mayWait ? new Wait(readyKey(deployment)) : { leases: [] };

  env.effects.deadline(leaseExpiresAt);
  if (releaseOn === "disconnect") env.effects.bind(connection);
  return {
    leases: taken.map(({ envelope }) => ({
      leaseId: leaseIdOf(envelope.commandId, envelope.attempt, env),
      ...remaining(leaseExpiresAt, envelope.deadline, env),
      commandId: envelope.commandId,
      attempt: envelope.attempt,
      envelope,
    })),
  };
}

function remaining(leaseExpiresAt: number, deadline: number | null, env: Env): Result<"command.renew"> {
  const endsAt = endOf(leaseExpiresAt, deadline);
  return { leaseExpiresAt: endsAt, remainingMs: endsAt - env.now };
}

export function* renew(
  params: Parsed<"command.renew">,
  env: Env,
): Operation<Result<"command.renew"> | PawlError> {
  const { leaseId, leaseMs } = params;
  const given = readLeaseId(leaseId, env);
  const row = given && (yield* one(selectLive, { commandId: given.commandId }));
  if (row === undefined || given === undefined) return unknownLease(leaseId);
  if (!isHeld(row, given.attempt, env.now)) return yield* lostLease(row, given.attempt, env);

  // A lease that ends with a connection stays with the one it was given to: another that renews it, perhaps a
  // program that ends right after, must not end it. After a restart there is no such connection any more.
  const isOrphan = row.leaseConnection !== null && row.leaseConnection <= 0;
  const connection = isOrphan ? env.caller.connection : row.leaseConnection;
  // A push ends with its connection alone.
  if (row.leaseExpiresAt === null) return unknownLease(leaseId);
  const leaseExpiresAt = env.now + leaseMs;
  yield* run(setLeaseEnd, { seq: row.seq, expiresAt: leaseExpiresAt, connection });
  env.effects.deadline(leaseExpiresAt);
  if (connection !== null) env.effects.bind(connection);
  return remaining(leaseExpiresAt, row.deadline, env);
}

export function* release(
  params: Parsed<"command.release">,
  env: Env,
): Operation<Result<"command.release"> | PawlError> {
  const { leaseId, delayMs } = params;
  const given = readLeaseId(leaseId, env);
  const row = given && (yield* one(selectLive, { commandId: given.commandId }));
  if (row === undefined || given === undefined) return unknownLease(leaseId);
  if (isHeld(row, given.attempt, env.now)) return yield* giveBack(row, delayMs, env);

  const current = stateAt(row, env.now);
  // The delivery before this state: it was released already, or its time was up.
  if (current.state === "PENDING" && current.attempt === given.attempt + 1) return current;
  if (transition(current.state, "PENDING") === "forbidden") {
    return forbidden(row.commandId, current.state, "PENDING");
  }
  return yield* lostLease(row, given.attempt, env);
}

// A command: its row, its view in replies, and its moves from state to state.
import type { Command, CommandState } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { isFinal, returned, stateAt, type Timed } from "./state.js";

/** What is known of a command beside its params and its answer, as it is stored. */
export interface CommandRow extends Timed {
  readonly seq: number;
  readonly commandId: string;
  readonly deployment: string;
  readonly command: string;
  readonly projectId: string | null;
  readonly model: "pull" | "push";
  readonly deadline: number | null;
  readonly createdAt: number;
  readonly dispatchedAt: number | null;
  readonly completedAt: number | null;
  readonly requestBytes: number;
  readonly responseBytes: number | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly uploaded: 0 | 1;
  readonly leaseOwner: string | null;
  readonly leasePid: number | null;
  readonly leaseConnection: number | null;
}

/** The columns of a `CommandRow`. */
export const COLUMNS = `
  seq, command_id AS "commandId", deployment, command, project_id AS "projectId", model, state, attempt,
  max_attempts AS "maxAttempts", deadline, created_at AS "createdAt", dispatched_at AS "dispatchedAt",
  completed_at AS "completedAt", request_bytes AS "requestBytes", response_bytes AS "responseBytes",
  error_code AS "errorCode", error_message AS "errorMessage", uploaded, due_at AS "dueAt",
  lease_owner AS "leaseOwner", lease_pid AS "leasePid", lease_expires_at AS "leaseExpiresAt",
  lease_connection AS "leaseConnection"`;

/** What ends a command or a delivery has to know of it. */
export interface LiveRow extends Timed {
  readonly seq: number;
  readonly commandId: string;
  readonly deployment: string;
  readonly deadline: number | null;
  readonly leaseConnection: number | null;
}

/** The columns of a `LiveRow`. */
export const LIVE_COLUMNS = `
  seq, command_id AS "commandId", deployment, deadline, state, attempt, max_attempts AS "maxAttempts", due_at AS "dueAt",
  lease_expires_at AS "leaseExpiresAt", lease_connection AS "leaseConnection"`;

const selectCommand = sql<CommandRow>(`SELECT ${COLUMNS} FROM pawl_command WHERE command_id = :commandId`);

export const selectLive = sql<LiveRow>(
  `SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE command_id = :commandId`,
);

const setFinal = sql(`
  UPDATE pawl_command SET state = :state, completed_at = :now, response_bytes = :responseBytes,
    error_code = :code, error_message = :message, ready_at = NULL, delayed_until = NULL, due_at = NULL,
    lease_expires_at = NULL, lease_connection = NULL
  WHERE seq = :seq`);

const setReturned = sql(`
  UPDATE pawl_command SET state = 'PENDING', attempt = :attempt, ready_at = :readyAt, delayed_until = :delayedUntil,
    lease_expires_at = NULL, lease_connection = NULL
  WHERE seq = :seq`);

/** What those who want a command of a deployment are parked under. */
export function readyKey(deployment: string): string {
  return `command.ready:${deployment}`;
}

/** What those who wait for the end of a command are parked under. */
export function finalKey(commandId: string): string {
  return `command.final:${commandId}`;
}

/** Why a command is FAILED or EXPIRED. */
export interface Cause {
  readonly code: string;
  readonly message: string;
}

export const EXPIRED: Cause = {
  code: "EXPIRED",
  message: "Its deadline passed before it was answered.",
};

function attemptsExhausted(maxAttempts: number): Cause {
  const deliveries = maxAttempts === 1 ? "Its one delivery" : `All of its ${maxAttempts} deliveries`;
  return { code: "ATTEMPTS_EXHAUSTED", message: `${deliveries} ended without an answer.` };
}

/** A lease without an end of its own is that of a push. */
function isPushed(row: LiveRow): boolean {
  return row.state === "DISPATCHED" && row.leaseExpiresAt === null;
}

/** Moves a command to a final state and wakes those who wait for that. */
export function* finish(
  row: LiveRow,
  end: {
    readonly state: "SUCCEEDED" | "FAILED" | "EXPIRED";
    readonly cause: Cause | null;
    readonly responseBytes: number | null;
  },
  env: Env,
): Operation<void> {
  yield* run(setFinal, {
    seq: row.seq,
    state: end.state,
    now: env.now,
    responseBytes: end.responseBytes,
    code: end.cause?.code ?? null,
    message: end.cause?.message ?? null,
  });
  moved(row.state, end.state, env);
  env.effects.wake(finalKey(row.commandId));
}

/** Ends a command that nobody has answered, and tells the connection that has it by push. */
export function* abort(
  row: LiveRow,
  end: { readonly state: "FAILED" | "EXPIRED"; readonly cause: Cause; readonly reason: string | null },
  env: Env,
): Operation<void> {
  yield* finish(row, { state: end.state, cause: end.cause, responseBytes: null }, env);
  if (!isPushed(row) || row.leaseConnection === null) return;
  env.effects.notify(row.leaseConnection, "command.cancelled", {
    commandId: row.commandId,
    reason: end.reason,
  });
}

/** A delivery has ended without an answer: for another one now or after `delayMs`, or it was the last. */
export function* giveBack(
  row: LiveRow,
  delayMs: number,
  env: Env,
): Operation<{ state: CommandState; attempt: number }> {
  const next = returned(row);
  if (next.state === "FAILED") {
    yield* finish(
      row,
      { state: "FAILED", cause: attemptsExhausted(row.maxAttempts), responseBytes: null },
      env,
    );
    return next;
  }
  const readyAt = delayMs === 0 ? env.now : null;
  const delayedUntil = delayMs === 0 ? null : env.now + delayMs;
  yield* run(setReturned, { seq: row.seq, attempt: next.attempt, readyAt, delayedUntil });
  moved(row.state, "PENDING", env);
  if (delayedUntil === null) env.effects.wake(readyKey(row.deployment));
  else env.effects.deadline(delayedUntil);
  return next;
}

/**
 * When a delivery ends, as its receiver is told: when its lease does, or with the command if that is sooner. The
 * lease is kept as it was asked for: it follows the monotonic clock, and a deadline the one on the wall.
 */
export function endOf(leaseExpiresAt: number, deadline: number | null): number {
  return deadline === null ? leaseExpiresAt : Math.min(leaseExpiresAt, deadline);
}

/** Keeps the gauges of `daemon.stats`. */
export function moved(from: CommandState, to: CommandState, env: Env): void {
  env.effects.count(`commands${from}`, -1);
  env.effects.count(`commands${to}`, 1);
}

/** A command as callers see it, at this moment. */
export function view(row: CommandRow, env: Env): Command {
  const { now } = env;
  const { state, attempt } = stateAt(row, now);
  const expiresAt = row.leaseExpiresAt === null ? null : endOf(row.leaseExpiresAt, row.deadline);
  return {
    commandId: row.commandId,
    deployment: row.deployment,
    command: row.command,
    projectId: row.projectId,
    deploymentModel: row.model,
    state,
    attempt,
    maxAttempts: row.maxAttempts,
    deadline: row.deadline,
    createdAt: row.createdAt,
    dispatchedAt: row.dispatchedAt,
    completedAt: row.completedAt ?? (isFinal(state) ? now : null),
    requestSizeBytes: row.requestBytes,
    responseSizeBytes: row.responseBytes,
    error: causeOf(row, state),
    ...(state === "DISPATCHED" && {
      lease: {
        owner: row.leaseOwner as string,
        pid: row.leasePid,
        expiresAt,
        remainingMs: expiresAt === null ? null : expiresAt - now,
      },
    }),
  };
}

/** Why a command is in this state, if it is FAILED or EXPIRED. */
export function causeOf(row: CommandRow, state: CommandState): Cause | null {
  if (row.errorCode !== null) return { code: row.errorCode, message: row.errorMessage ?? "" };
  // What time has ended already may not be written yet.
  if (state === "EXPIRED") return EXPIRED;
  return state === "FAILED" ? attemptsExhausted(row.maxAttempts) : null;
}

export function* findCommand(commandId: string): Operation<CommandRow | PawlError> {
  return (yield* one(selectCommand, { commandId })) ?? noSuchCommand(commandId);
}

export function noSuchCommand(commandId: string): PawlError {
  return refuse(
    "not_found",
    `There is no command ${shown(commandId)}. Check the id; what has ended is removed after some days.`,
    { what: "command", commandId },
  );
}

/** A transition that the state table forbids. */
export function forbidden(
  commandId: string,
  from: CommandState,
  to: CommandState,
  details: object = {},
): PawlError {
  return refuse(
    "invalid_state",
    `The command ${shown(commandId)} is ${from} and cannot become ${to}. See its state with command.get.`,
    { commandId, from, to, ...details },
  );
}

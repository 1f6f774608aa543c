// A command: its row, its view in replies, and its moves from state to state.
import type { Command, CommandState, EventKind, Retry } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { shownAt } from "../../clock.js";
import { retain } from "../../grants/ending.js";
import type { GrantRule } from "../../grants/grant.js";
import { chanceOf, restMs } from "../../grants/retry-rest.js";
import { type Operation, one, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { meantKey, readyKey } from "../deployment/deployment.js";
import { endUnlessAlive } from "./incarnation.js";
import { deliveryEndOf, isFinal, returned, stateAt, type Timed } from "./state.js";

/** A command as it is stored, without its params and its answer. */
export interface CommandRow extends Timed {
  readonly seq: number;
  readonly commandId: string;
  readonly deployment: string;
  readonly target: string;
  readonly command: string;
  readonly projectId: string | null;
  readonly model: "pull" | "push";
  /** When the time that it was given from its creation on is over, in elapsed time. */
  readonly ttlEndsAt: number | null;
  /** By the wall clock of that moment, as the next two. */
  readonly createdAt: number;
  /** The latest such time of it and of all commands before it. */
  readonly latestCreatedAt: number;
  readonly dispatchedAt: number | null;
  readonly completedAt: number | null;
  readonly requestBytes: number;
  readonly responseBytes: number | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly uploaded: 0 | 1;
  /** As the command says; null if it says nothing. */
  readonly executionMs: number | null;
  readonly leaseOwner: string | null;
  readonly leasePid: number | null;
  readonly leaseConnection: number | null;
  /** The one receiver that it is for; null for whichever takes it. */
  readonly incarnation: string | null;
  /** Both as JSON, or null. */
  readonly progress: string | null;
  readonly trace: string | null;
}

/** One of the members that few commands have. */
const more = (column: "progress" | "trace"): string =>
  `CASE WHEN has_more = 1 THEN (SELECT m.${column} FROM pawl_command_more m WHERE m.seq = pawl_command.seq) END AS ${column}`;

/** The columns of a `CommandRow`. */
export const COLUMNS = `
  seq, command_id AS "commandId", deployment, target, command, project_id AS "projectId", model, state, attempt,
  max_attempts AS "maxAttempts", deadline, ttl_ends_at AS "ttlEndsAt", execution_ms AS "executionMs",
  execution_ends_at AS "executionEndsAt", created_at AS "createdAt", latest_created_at AS "latestCreatedAt", dispatched_at AS "dispatchedAt",
  completed_at AS "completedAt", request_bytes AS "requestBytes", response_bytes AS "responseBytes",
  error_code AS "errorCode", error_message AS "errorMessage", uploaded, due_at AS "dueAt",
  lease_owner AS "leaseOwner", lease_pid AS "leasePid", lease_expires_at AS "leaseExpiresAt",
  grace_ends_at AS "graceEndsAt", lease_connection AS "leaseConnection", incarnation,
  ${more("progress")}, ${more("trace")}`;

/** A command as the operations need it that end it or its delivery. */
export interface LiveRow extends Timed {
  readonly seq: number;
  readonly commandId: string;
  readonly deployment: string;
  readonly ttlEndsAt: number | null;
  readonly leaseConnection: number | null;
  /** The number of its receiver that named itself; null for another, and while there is none. */
  readonly leaseIncarnationId: number | null;
  /** How long its holder may take to come back after its connection has closed; null for not at all. */
  readonly graceMs: number | null;
  /** The one receiver that it is for; null for whichever takes it. */
  readonly incarnation: string | null;
  /** How long it was leased for; null for a push. */
  readonly leaseMs: number | null;
  /** The delivery that ended unanswered last, if its answer still counts while the command is PENDING. */
  readonly lateAttempt: number | null;
  /** How it rests between deliveries, as JSON; null for not at all. */
  readonly retry: string | null;
  /** 1 if a delivery of it has ended by itself before. */
  readonly lostBefore: 1 | null;
  /** 1 if it has anything that few have. */
  readonly hasMore: 1 | null;
}

/** The columns of a `LiveRow`. */
export const LIVE_COLUMNS = `
  seq, command_id AS "commandId", deployment, deadline, ttl_ends_at AS "ttlEndsAt", state, attempt,
  max_attempts AS "maxAttempts", due_at AS "dueAt", lease_expires_at AS "leaseExpiresAt",
  grace_ends_at AS "graceEndsAt", lease_connection AS "leaseConnection", lease_ms AS "leaseMs",
  execution_ends_at AS "executionEndsAt", late_attempt AS "lateAttempt",
  retry, lost_before AS "lostBefore", has_more AS "hasMore", incarnation, grace_ms AS "graceMs",
  lease_incarnation_id AS "leaseIncarnationId"`;

/** How deliveries are kept, for what is common to all that is granted (grants/grant.ts). */
export const DELIVERY_TABLE = {
  noun: "command",
  table: "pawl_command",
  rows: `SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE`,
  expiresAt: "lease_expires_at",
  graceEndsAt: "grace_ends_at",
  inRows: { expiresAt: "leaseExpiresAt", graceEndsAt: "graceEndsAt", key: ["seq"] },
  connection: "lease_connection",
  unconnected: "NULL",
  holder: "holder_connection",
  bound: "lease_connection IS NOT NULL",
  comeBack: { graceMs: "graceMs", column: "grace_ms", key: "seq" },
} as const satisfies Partial<GrantRule<LiveRow>>;

const selectCommand = sql<CommandRow>(`SELECT ${COLUMNS} FROM pawl_command WHERE command_id = :commandId`);

export const selectLive = sql<LiveRow>(
  `SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE command_id = :commandId`,
);

const setFinal = sql(`
  UPDATE pawl_command SET state = :state, attempt = :attempt, completed_at = :completedAt, ended_at = :endedAt,
    deadline = :deadline, response_bytes = :responseBytes, error_code = :code, error_message = :message, ready_place = NULL,
    delayed_until = NULL, due_at = NULL, lease_expires_at = NULL, grace_ends_at = NULL, lease_connection = NULL,
    execution_ends_at = NULL, late_attempt = NULL, lease_incarnation_id = NULL
  WHERE seq = :seq`);

const setReturned = sql(`
  UPDATE pawl_command SET state = 'PENDING', attempt = :attempt, delayed_until = :delayedUntil,
    lease_expires_at = NULL, grace_ends_at = NULL, lease_connection = NULL, execution_ends_at = NULL,
    lease_incarnation_id = NULL, late_attempt = :lateAttempt, lost_before = coalesce(lost_before, :lost)
  WHERE seq = :seq`);

/** The place behind all those of `:deployment` that may be leased. */
export const LAST_READY_PLACE = `
  (SELECT coalesce(max(ready_place), 0) + 1 FROM pawl_command
   WHERE deployment = :deployment AND ready_place IS NOT NULL AND incarnation IS NULL)`;

/** The same among those for one receiver. */
export const LAST_MEANT_PLACE = `
  (SELECT coalesce(max(ready_place), 0) + 1 FROM pawl_command
   WHERE deployment = :deployment AND ready_place IS NOT NULL AND incarnation IS NOT NULL
     AND incarnation = :incarnation)`;

const setReady = sql(`
  UPDATE pawl_command SET ready_place = ${LAST_READY_PLACE}, delayed_until = NULL WHERE seq = :seq`);

const setMeantReady = sql(`
  UPDATE pawl_command SET ready_place = ${LAST_MEANT_PLACE}, delayed_until = NULL WHERE seq = :seq`);

/** The key under which callers are parked that wait for the end of a command. */
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

/** A lease that cannot be renewed is that of a push. */
export function isPushed(row: LiveRow): boolean {
  return row.state === "DISPATCHED" && row.leaseExpiresAt === null;
}

/** By final state, the counter of the commands that ended so. */
export const ENDED = {
  SUCCEEDED: "commandsEndedSUCCEEDED",
  FAILED: "commandsEndedFAILED",
  EXPIRED: "commandsEndedEXPIRED",
} as const;

/** Moves a command to a final state and wakes those who wait for that. */
export function* finish(
  row: LiveRow,
  end: {
    readonly state: "SUCCEEDED" | "FAILED" | "EXPIRED";
    readonly cause: Cause | null;
    readonly responseBytes: number | null;
  },
  env: Env,
  kind: EventKind<"command"> = "answered",
): Operation<void> {
  yield* write(setFinal, {
    seq: row.seq,
    state: end.state,
    // A delivery may have ended that is not written down as ended, and whoever has looked since has seen it counted.
    attempt: stateAt(row, env).attempt,
    completedAt: env.wallMs,
    endedAt: env.retentionNow,
    deadline: deadlineOf(row, env),
    responseBytes: end.responseBytes,
    code: end.cause?.code ?? null,
    message: end.cause?.message ?? null,
  });
  if (row.leaseIncarnationId !== null) yield* endUnlessAlive(row.leaseIncarnationId, env);
  retain(env);
  moved(row.state, end.state, env);
  env.effects.count(ENDED[end.state], 1);
  env.effects.wake(finalKey(row.commandId));
  const reason = end.cause?.code;
  env.effects.tell("command", row.deployment, kind, row.commandId, {
    from: row.state,
    to: end.state,
    reason,
  });
}

/** Ends a command that nobody has answered, and tells the connection that has it by push. */
export function* abort(
  row: LiveRow,
  end: { readonly state: "FAILED" | "EXPIRED"; readonly cause: Cause; readonly reason: string | null },
  env: Env,
): Operation<void> {
  const kind = end.cause.code === "CANCELLED" ? "cancelled" : "expired";
  yield* finish(row, { state: end.state, cause: end.cause, responseBytes: null }, env, kind);
  if (!isPushed(row) || row.leaseConnection === null) return;
  env.effects.notify(row.leaseConnection, "command.cancelled", {
    commandId: row.commandId,
    reason: end.reason,
  });
}

/**
 * The receiver gave a delivery back: for another one after `delayMs`, which is as the command rests if it is not given,
 * or it was the last.
 */
export function* release(
  row: LiveRow,
  delayMs: number | undefined,
  env: Env,
): Operation<{ state: CommandState; attempt: number }> {
  return yield* giveBack(row, { delayMs: delayMs ?? restOf(row, env), lateAttempt: null }, env);
}

/** A delivery has ended by itself, without an answer. The answer still counts as long as there is no other. */
export function* lose(row: LiveRow, env: Env): Operation<void> {
  // The first time may have had nothing to do with the command.
  const delayMs = row.lostBefore === null ? 0 : restOf(row, env);
  yield* giveBack(row, { delayMs, lateAttempt: row.attempt }, env);
}

function restOf({ retry, attempt }: LiveRow, env: Env): number {
  return retry === null ? 0 : restMs(JSON.parse(retry) as Retry, attempt, chanceOf(env));
}

function* giveBack(
  row: LiveRow,
  { delayMs, lateAttempt }: { readonly delayMs: number; readonly lateAttempt: number | null },
  env: Env,
): Operation<{ state: CommandState; attempt: number }> {
  const next = returned(row);
  if (next.state === "FAILED") {
    yield* finish(
      row,
      { state: "FAILED", cause: attemptsExhausted(row.maxAttempts), responseBytes: null },
      env,
      "expired",
    );
    return next;
  }
  const delayedUntil = delayMs === 0 ? null : env.now + delayMs;
  const lost = lateAttempt === null ? null : 1;
  yield* write(setReturned, { seq: row.seq, attempt: next.attempt, delayedUntil, lateAttempt, lost });
  if (row.leaseIncarnationId !== null) yield* endUnlessAlive(row.leaseIncarnationId, env);
  moved(row.state, "PENDING", env);
  if (delayedUntil === null) yield* makeReady(row, env);
  else env.effects.deadline(delayedUntil);
  return next;
}

/** A command may be leased, after those that may be already. */
export function* makeReady(
  { seq, deployment, incarnation }: Pick<CommandRow, "seq" | "deployment" | "incarnation">,
  env: Env,
): Operation<void> {
  if (incarnation === null) yield* write(setReady, { seq, deployment });
  else yield* write(setMeantReady, { seq, deployment, incarnation });
  wakeReceivers(deployment, incarnation, env);
}

/** A command may be leased: those who wait for one are tried. */
export function wakeReceivers(deployment: string, incarnation: string | null, env: Env): void {
  if (incarnation === null) return env.effects.wake(readyKey(deployment));
  env.effects.wake(meantKey(deployment, incarnation));
  env.effects.wake(meantKey(deployment));
}

/**
 * How long a delivery lasts still, as its receiver is told: as its lease, or as the command if that is shorter. The
 * lease is kept as it was asked for: it follows the elapsed time, and a deadline the wall clock.
 *
 * @param leaseEndsAt in elapsed time.
 * @param deadline of the command, by the wall clock.
 */
export function remainingOf(leaseEndsAt: number, deadline: number | null, { now, wallMs }: Env): number {
  // While what has ended goes on after a pause of the daemon, its deadline has passed and nothing remains.
  return Math.max(0, Math.min(leaseEndsAt - now, (deadline ?? Number.POSITIVE_INFINITY) - wallMs));
}

/** When a command becomes EXPIRED by the wall clock: as it was named, or by the clock as it is now. */
export function deadlineOf(
  { deadline, ttlEndsAt }: { readonly deadline: number | null; readonly ttlEndsAt: number | null },
  env: Env,
): number | null {
  return deadline ?? (ttlEndsAt === null ? null : shownAt(ttlEndsAt, env));
}

/** Keeps the gauges of `daemon.stats`. */
export function moved(from: CommandState, to: CommandState, env: Env): void {
  env.effects.count(`commands${from}`, -1);
  env.effects.count(`commands${to}`, 1);
}

/** A command as callers see it, at this moment. */
export function view(row: CommandRow, env: Env): Command {
  const { state, attempt } = stateAt(row, env);
  const deadline = deadlineOf(row, env);
  const leaseEndsAt = deliveryEndOf(row);
  const remainingMs = leaseEndsAt === null ? null : remainingOf(leaseEndsAt, deadline, env);
  return {
    commandId: row.commandId,
    deployment: row.deployment,
    target: row.target,
    ...(row.incarnation !== null && { incarnation: row.incarnation }),
    command: row.command,
    projectId: row.projectId,
    deploymentModel: row.model,
    state,
    attempt,
    maxAttempts: row.maxAttempts,
    deadline,
    executionMs: row.executionMs,
    createdAt: row.createdAt,
    dispatchedAt: row.dispatchedAt,
    completedAt: row.completedAt ?? (isFinal(state) ? env.wallMs : null),
    requestSizeBytes: row.requestBytes,
    responseSizeBytes: row.responseBytes,
    error: causeOf(row, state),
    ...(row.progress !== null && { progress: JSON.parse(row.progress) as Command["progress"] }),
    ...(row.trace !== null && { trace: JSON.parse(row.trace) as Command["trace"] }),
    ...(state === "DISPATCHED" && {
      lease: {
        owner: row.leaseOwner as string,
        pid: row.leasePid,
        expiresAt: remainingMs === null ? null : env.wallMs + remainingMs,
        remainingMs,
      },
    }),
  };
}

/** Why a command is in this state, if it is FAILED or EXPIRED. */
export function causeOf(row: CommandRow, state: CommandState): Cause | null {
  if (row.errorCode !== null) return { code: row.errorCode, message: row.errorMessage ?? "" };
  // An end by time may not be written yet.
  if (state === "EXPIRED") return EXPIRED;
  return state === "FAILED" ? attemptsExhausted(row.maxAttempts) : null;
}

export function* findCommand(commandId: string): Operation<CommandRow | PawlError> {
  return (yield* one(selectCommand, { commandId })) ?? noSuchCommand(commandId);
}

const selectDeploymentOf = sql<{ deployment: string }>(
  "SELECT deployment FROM pawl_command WHERE command_id = :commandId",
);

export function* deploymentOfCommand(commandId: string): Operation<string | undefined> {
  return (yield* one(selectDeploymentOf, { commandId }))?.deployment;
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

import { COMMAND_STATES, type CommandState, type Envelope, type Parsed, type Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Texts, textsAt } from "@pawl/protocol/json-text";
import {
  MAX_ANSWER_CODE_LENGTH,
  MAX_PAGE_BYTES,
  MAX_PAYLOAD_NESTING_LEVELS,
  MAX_SHOWN_MESSAGE_LENGTH,
  RESTART_GRACE_MS,
} from "@pawl/protocol/limits";
import type { Expiry } from "../../grants/expiry.js";
import { ownEnd, postponedConnection } from "../../grants/restart-grace.js";
import { nestingLevels, RawJson } from "../../json/raw-json.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import {
  abort,
  EXPIRED,
  endOf,
  finish,
  forbidden,
  giveBack,
  LIVE_COLUMNS,
  type LiveRow,
  moved,
  noSuchCommand,
  readyKey,
  selectLive,
} from "./row.js";
import { isFinal, stateAt, transition } from "./state.js";

/** Commands read at a time, so that no more params than these are in memory beside those that are taken. */
const TAKEN_PER_READ = 8;
/** Commands that one operation hands to the connections that serve a deployment. */
const MAX_PUSHED_COMMANDS = 64;
/** What programs match on in the answer to a push that is no answer. */
const INVALID_RESPONSE = "INVALID_RESPONSE";

interface ReadyRow {
  seq: number;
  commandId: string;
  command: string;
  attempt: number;
  deadline: number | null;
  requestBytes: number;
  uploaded: 0 | 1;
  params: string | null;
}

/**
 * Those that became ready first come first: one that was given back goes behind those that wait already, so that
 * a command which every receiver fails on does not keep the others from being tried.
 */
const selectReady = sql<ReadyRow>(`
  SELECT c.seq, c.command_id AS "commandId", c.command, c.attempt, c.deadline, c.request_bytes AS "requestBytes",
    c.uploaded, p.params
  FROM pawl_command c LEFT JOIN pawl_command_params p ON p.seq = c.seq
  WHERE c.deployment = :deployment AND c.ready_at IS NOT NULL AND (c.due_at IS NULL OR c.due_at > :now)
  ORDER BY c.ready_at, c.seq LIMIT :rows`);

const setDispatched = sql(`
  UPDATE pawl_command SET state = 'DISPATCHED', dispatched_at = :now, ready_at = NULL, lease_owner = :owner,
    lease_pid = :pid, lease_expires_at = :expiresAt, lease_connection = :connection
  WHERE seq = :seq`);

const setLeaseEnd = sql(`
  UPDATE pawl_command SET lease_expires_at = :expiresAt, lease_connection = :connection WHERE seq = :seq`);

const insertResponse = sql("INSERT INTO pawl_command_response (seq, response) VALUES (:seq, :response)");

const selectEnd = sql<{ code: string | null; message: string | null }>(
  "SELECT error_code AS code, error_message AS message FROM pawl_command WHERE seq = :seq",
);

const earliest = sql<{ due: number | null; lease: number | null; delayed: number | null }>(`
  SELECT (SELECT min(due_at) FROM pawl_command WHERE due_at IS NOT NULL) AS due,
    (SELECT min(lease_expires_at) FROM pawl_command WHERE lease_expires_at IS NOT NULL) AS lease,
    (SELECT min(delayed_until) FROM pawl_command WHERE delayed_until IS NOT NULL) AS delayed`);

const latestLease = sql<{ at: number | null }>(
  "SELECT max(lease_expires_at) AS at FROM pawl_command WHERE lease_expires_at IS NOT NULL",
);

const selectDue = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE due_at <= :now ORDER BY due_at LIMIT :rows`);

const selectEnded = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE lease_expires_at <= :now ORDER BY lease_expires_at LIMIT :rows`);

const endDelays = sql<{ deployment: string }>(`
  UPDATE pawl_command SET ready_at = delayed_until, delayed_until = NULL WHERE seq IN
    (SELECT seq FROM pawl_command WHERE delayed_until <= :now ORDER BY delayed_until LIMIT :rows)
  RETURNING deployment`);

const postponeLeases = sql(`
  UPDATE pawl_command SET lease_expires_at = lease_expires_at + :byMs,
    lease_connection = ${postponedConnection("lease_connection")}
  WHERE lease_expires_at IS NOT NULL`);

const selectOfConnection = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command WHERE lease_connection = :connection ORDER BY seq LIMIT :rows`);

const selectPushes = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command
  WHERE lease_connection = :connection AND lease_expires_at IS NULL ORDER BY seq`);

const endOfConnection = sql(`
  UPDATE pawl_command SET lease_expires_at = :now, lease_connection = NULL WHERE lease_connection = :connection`);

/** A push ends with its connection; a lease that ends with one is given time to be renewed on another. */
const DELIVERY_END = ownEnd("lease_connection", "coalesce(lease_expires_at, :now)");
const forgetConnections = sql(`
  UPDATE pawl_command
  SET lease_connection = -${DELIVERY_END}, lease_expires_at = min(:grace, ${DELIVERY_END})
  WHERE lease_connection IS NOT NULL`);

const countStates = sql<{ state: CommandState; commands: number }>(
  "SELECT state, count(*) AS commands FROM pawl_command GROUP BY state",
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

export function* respond(
  params: Parsed<"command.respond">,
  env: Env,
  texts: Texts,
): Operation<Result<"command.respond"> | PawlError> {
  const { commandId, leaseId, response } = params;
  const given = readLeaseId(leaseId, env);
  const attempt = given?.commandId === commandId ? given.attempt : undefined;
  const text = texts[0] ?? JSON.stringify(response);
  const part = response.status === "success" ? "response" : "details";
  const valueText = textsAt(text, [part])[0];
  if (isTooDeep(valueText)) {
    const path = `/response/${part}`;
    const message = `must not hold more than ${MAX_PAYLOAD_NESTING_LEVELS} arrays and objects in one another`;
    return refuse("invalid_params", `command.respond: ${path} ${message}.`, { issues: [{ path, message }] });
  }
  const answer: Answer =
    response.status === "success"
      ? { state: "SUCCEEDED", valueText: valueText ?? "null" }
      : { state: "FAILED", code: response.code, message: response.message, detailsText: valueText };
  return yield* settle({ commandId, attempt }, answer, env);
}

/** What a receiver says: the value of a success, or an error. Values as JSON texts. */
export type Answer =
  | { readonly state: "SUCCEEDED"; readonly valueText: string }
  | {
      readonly state: "FAILED";
      readonly code: string;
      readonly message: string;
      readonly detailsText: string | undefined;
    };

/**
 * Takes an answer to a delivery: the first one with the live lease ends the command. One to a final command is
 * kept as evidence only: counted, and logged.
 *
 * @param delivery an attempt of undefined is none that ever was.
 */
export function* settle(
  delivery: { readonly commandId: string; readonly attempt: number | undefined },
  answer: Answer,
  env: Env,
): Operation<Result<"command.respond"> | PawlError> {
  const { commandId, attempt } = delivery;
  const row = yield* one(selectLive, { commandId });
  if (row === undefined) return noSuchCommand(commandId);
  const { state } = stateAt(row, env.now);
  if (isFinal(state)) {
    env.effects.count("commandAnswersLate", 1);
    env.effects.log("late answer to a command", {
      commandId,
      state,
      attempt,
      answer: answer.state,
      caller: env.caller,
    });
    return { state, accepted: false };
  }
  if (state !== "DISPATCHED") return nothingToAnswer(commandId, state, answer.state);
  if (!isHeld(row, attempt, env.now)) return yield* lostLease(row, attempt, env);

  const { response, sizeBytes } = written(answer);
  const cause = answer.state === "FAILED" ? { code: answer.code, message: storable(answer.message) } : null;
  yield* finish(row, { state: answer.state, cause, responseBytes: sizeBytes }, env);
  yield* run(insertResponse, { seq: row.seq, response });
  return { state: answer.state, accepted: true };
}

/** An answer as it is kept. Its size is that of the value, for an error that of the whole. */
function written(answer: Answer): { response: string; sizeBytes: number } {
  if (answer.state === "SUCCEEDED") {
    const response = `{"status":"success","response":${answer.valueText}}`;
    return { response, sizeBytes: Buffer.byteLength(answer.valueText) };
  }
  const { code, message, detailsText } = answer;
  const details = detailsText === undefined ? "" : `,"details":${detailsText}`;
  const response = `{"status":"error","code":${JSON.stringify(code)},"message":${JSON.stringify(message)}${details}}`;
  return { response, sizeBytes: Buffer.byteLength(response) };
}

/** The beginning of a message, without what SQLite would cut it at or change in it. */
function storable(message: string): string {
  return message.slice(0, MAX_SHOWN_MESSAGE_LENGTH).replace(/[\0\p{Surrogate}]/gu, "\ufffd");
}

/**
 * The answer that a JSON-RPC response to `command.execute` is. A code that is no text of its own is in
 * `error.data`, because JSON-RPC has numbers there. A response that is none ends the command too, since its
 * receiver would send the same again: as FAILED with INVALID_RESPONSE, and `wrong` says what is wrong with it.
 *
 * @param text the response as it came.
 * @param message the same, parsed.
 */
export function answerOf(
  text: string,
  message: { result?: unknown; error?: unknown },
): { answer: Answer; wrong?: string } {
  const read = readResponse(text, message);
  if (typeof read === "string") return invalidResponse(read);
  if (!isTooDeep(read.state === "SUCCEEDED" ? read.valueText : read.detailsText)) return { answer: read };
  return invalidResponse(
    `The response to command.execute holds more than ${MAX_PAYLOAD_NESTING_LEVELS} arrays and objects in one another.`,
  );
}

function readResponse(text: string, message: { result?: unknown; error?: unknown }): Answer | string {
  // Some write null for the one of the two that is not there.
  const hasError = Object.hasOwn(message, "error") && message.error !== null;
  const hasResult = Object.hasOwn(message, "result") && (!hasError || message.result !== null);
  if (hasResult && hasError) return "The response to command.execute has both a result and an error.";
  if (hasResult) return { state: "SUCCEEDED", valueText: textsAt(text, ["result"])[0] as string };
  if (!Object.hasOwn(message, "error")) {
    return "The response to command.execute has neither a result nor an error.";
  }
  const { error } = message;
  if (!isObject(error) || !Number.isInteger(error.code) || typeof error.message !== "string") {
    return "The error in the response to command.execute is not an object with a whole number as code and a text as message.";
  }
  const { data } = error;
  const own = isObject(data) && typeof data.code === "string" && isCode(data.code) ? data.code : undefined;
  return {
    state: "FAILED",
    code: own ?? String(error.code),
    message: error.message,
    detailsText: textsAt(text, own === undefined ? ["error", "data"] : ["error", "data", "details"])[0],
  };
}

function invalidResponse(wrong: string): { answer: Answer; wrong: string } {
  return {
    answer: { state: "FAILED", code: INVALID_RESPONSE, message: wrong, detailsText: undefined },
    wrong,
  };
}

function isTooDeep(text: string | undefined): boolean {
  return text !== undefined && nestingLevels(text) > MAX_PAYLOAD_NESTING_LEVELS;
}

function isCode(text: string): boolean {
  return text.length >= 1 && text.length <= MAX_ANSWER_CODE_LENGTH && !/[\0\p{Surrogate}]/u.test(text);
}

/** A connection that serves a deployment, and how much it may be given. */
export interface Receiver {
  readonly connection: number;
  readonly pid: number | null;
  readonly owner: string;
  /** Requests that it has not answered, also for commands that have ended: it may still be at work on them. */
  readonly unanswered: number;
  readonly room: number;
}

/** A command for a connection. */
export interface Push {
  readonly connection: number;
  readonly envelope: Envelope;
}

/**
 * Hands commands that are ready to the connections that serve their deployment, each to the one that has the
 * fewest unanswered, the longest unserved first among equals.
 *
 * @param receivers in the order in which they were served last.
 */
export function* push(
  deployment: string,
  receivers: readonly Receiver[],
  env: Env,
): Operation<Outcome<readonly Push[]>> {
  const free = receivers.map((receiver) => ({
    receiver,
    unanswered: receiver.unanswered,
    room: receiver.room,
  }));
  const room = free.reduce((sum, each) => sum + each.room, 0);
  if (room === 0) return [];
  const chosen = (): Grant => {
    let best: (typeof free)[number] | undefined;
    for (const each of free) {
      if (each.room > 0 && (best === undefined || each.unanswered < best.unanswered)) best = each;
    }
    if (best === undefined) throw new Error("more commands were taken than there is room for");
    best.room -= 1;
    best.unanswered += 1;
    const { connection, owner, pid } = best.receiver;
    env.effects.bind(connection);
    return { owner, pid, expiresAt: null, connection };
  };
  const taken = yield* take(deployment, Math.min(room, MAX_PUSHED_COMMANDS), chosen, env);
  // Not of one sort with those that pull: this one has no room while they have.
  if (taken.length === 0) return env.mayWait ? new Wait(readyKey(deployment), "push") : [];
  return taken.map(({ envelope, grant }) => ({ connection: grant.connection as number, envelope }));
}

/** What a delivery is given by, as long as it lasts. */
interface Grant {
  readonly owner: string;
  readonly pid: number | null;
  /** Null for a push, which ends with its connection alone. */
  readonly expiresAt: number | null;
  /** Null if it does not end with a connection. */
  readonly connection: number | null;
}

/** Takes up to `count` commands that are ready, and no more params than a page holds. */
function* take(
  deployment: string,
  count: number,
  grantNext: () => Grant,
  env: Env,
): Operation<{ envelope: Envelope; grant: Grant }[]> {
  const taken: { envelope: Envelope; grant: Grant }[] = [];
  let bytes = 0;
  for (;;) {
    const wanted = Math.min(count - taken.length, TAKEN_PER_READ);
    const rows = yield* all(selectReady, { deployment, now: env.now, rows: wanted });
    for (const row of rows) {
      bytes += row.params?.length ?? 0;
      if (bytes > MAX_PAGE_BYTES && taken.length > 0) return taken;
      const grant = grantNext();
      const { owner, pid, expiresAt, connection } = grant;
      yield* run(setDispatched, { seq: row.seq, now: env.now, owner, pid, expiresAt, connection });
      moved("PENDING", "DISPATCHED", env);
      taken.push({ envelope: envelopeOf(row, deployment), grant });
    }
    if (rows.length < wanted || taken.length === count) return taken;
  }
}

function envelopeOf(row: ReadyRow, deployment: string): Envelope {
  return {
    protocol: "arc.v1",
    commandId: row.commandId,
    deployment,
    command: row.command,
    attempt: row.attempt,
    deadline: row.deadline,
    params:
      row.uploaded === 1
        ? { $upload: { sizeBytes: row.requestBytes } }
        : row.params === null
          ? null
          : new RawJson(row.params),
  };
}

/** Everything about commands that time, connections and restarts end. */
export const deliveries: Expiry = {
  *earliest() {
    const found = yield* one(earliest);
    const moments = [found?.due, found?.lease, found?.delayed].filter((at) => typeof at === "number");
    return moments.length === 0 ? undefined : Math.min(...moments);
  },

  *expire(env, rows) {
    // First: what is due at the moment at which its lease ends is EXPIRED, not given back.
    const due = yield* all(selectDue, { now: env.now, rows });
    for (const row of due) yield* abort(row, { state: "EXPIRED", cause: EXPIRED, reason: "EXPIRED" }, env);
    const ended = yield* all(selectEnded, { now: env.now, rows });
    for (const row of ended) yield* giveBack(row, 0, env);
    const delayed = yield* all(endDelays, { now: env.now, rows });
    for (const deployment of new Set(delayed.map((each) => each.deployment))) {
      env.effects.wake(readyKey(deployment));
    }
    return Math.max(due.length, ended.length, delayed.length);
  },

  *postpone(byMs) {
    yield* run(postponeLeases, { byMs });
  },

  *disconnect(connection, env, rows) {
    const ended = yield* all(selectOfConnection, { connection, rows });
    for (const row of ended) yield* giveBack(row, 0, env);
    if (ended.length < rows) return;
    // The others by the next steps of expiry.
    yield* run(endOfConnection, { connection, now: env.now });
    env.effects.deadline(env.now);
  },

  *restart(env) {
    for (const { state, commands } of yield* all(countStates))
      env.effects.count(`commands${state}`, commands);
    yield* run(forgetConnections, { now: env.now, grace: env.now + RESTART_GRACE_MS });
  },

  *latest() {
    return (yield* one(latestLease))?.at ?? undefined;
  },
};

/** Ends the pushes to a connection whose peer can answer no more. */
export function* endPushes(connection: number, env: Env): Operation<void> {
  for (const row of yield* all(selectPushes, { connection })) yield* giveBack(row, 0, env);
}

/** How many commands there are in each state. */
export function* countCommands(): Operation<Record<CommandState, number>> {
  const none = COMMAND_STATES.map((state) => [state, 0]);
  const found = (yield* all(countStates)).map(({ state, commands }) => [state, commands]);
  return Object.fromEntries([...none, ...found]);
}

const LEASE_ID = /^(cml:(cmd_[0-9a-f-]{36}):([1-9][0-9]{0,15})):[A-Za-z0-9_-]+$/;

/** An id that names the delivery and proves that this daemon granted it. */
function leaseIdOf(commandId: string, attempt: number, env: Env): string {
  const delivery = `cml:${commandId}:${attempt}`;
  return `${delivery}:${env.sign(delivery)}`;
}

/** The delivery that a leaseId was given for, or undefined if none ever was. */
function readLeaseId(leaseId: string, env: Env): { commandId: string; attempt: number } | undefined {
  const [, delivery, commandId, attempt] = LEASE_ID.exec(leaseId) ?? [];
  if (delivery === undefined || leaseId !== `${delivery}:${env.sign(delivery)}`) return undefined;
  return { commandId: commandId as string, attempt: Number(attempt) };
}

function isHeld(row: LiveRow, attempt: number | undefined, now: number): boolean {
  return row.state === "DISPATCHED" && row.attempt === attempt && stateAt(row, now).state === "DISPATCHED";
}

/** The table forbids only some of it, but a receiver must not have to know which answer it was. */
function nothingToAnswer(commandId: string, from: CommandState, to: CommandState): PawlError {
  return refuse(
    "invalid_state",
    `The command ${shown(commandId)} is ${from}: no delivery of it is under way that could be answered. A receiver whose lease has ended leases it again.`,
    { commandId, from, to },
  );
}

function unknownLease(leaseId: string): PawlError {
  return refuse(
    "lease_lost",
    `The lease ${shown(leaseId)} is none of this daemon's, or its command is gone. Use the leaseId that command.lease gave, and lease another command.`,
    { reason: "unknown" },
  );
}

/** Why a lease is not held any more, so that its holder knows whether to stop or that all is well. */
function* lostLease(row: LiveRow, attempt: number | undefined, env: Env): Operation<PawlError> {
  const { commandId } = row;
  const current = stateAt(row, env.now);
  const end = isFinal(row.state) ? yield* one(selectEnd, { seq: row.seq }) : undefined;
  const reason =
    attempt === undefined
      ? "unknown"
      : current.state === "EXPIRED"
        ? "expired"
        : current.state === "SUCCEEDED" || current.state === "FAILED"
          ? end?.code === "CANCELLED"
            ? "cancelled"
            : "ended"
          : "superseded";
  return refuse("lease_lost", `${LOST[reason](shown(commandId))} Stop working on it.`, {
    commandId,
    state: current.state,
    attempt: current.attempt,
    reason,
    ...(reason === "cancelled" && { message: end?.message }),
  });
}

const LOST = {
  unknown: (id: string) => `This lease is not one of the command ${id}.`,
  expired: (id: string) => `The deadline of the command ${id} has passed.`,
  cancelled: (id: string) => `The command ${id} has been cancelled.`,
  ended: (id: string) => `The command ${id} has ended.`,
  superseded: (id: string) => `The lease of the command ${id} has ended; another delivery comes after it.`,
} as const;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

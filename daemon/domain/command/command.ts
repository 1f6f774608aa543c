import { COMMAND_STATES, type Command, type CommandState, type Parsed, type Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type Texts, textsAt } from "@pawl/protocol/json-text";
import {
  INLINE_MAX_BYTES,
  MAX_PAGE_BYTES,
  MAX_PAYLOAD_NESTING_LEVELS,
  MAX_UPLOAD_MS,
} from "@pawl/protocol/limits";
import type { Expiry } from "../../grants/expiry.js";
import { PRUNE_EVERY_MS } from "../../grants/pruning.js";
import { Uuid7 } from "../../identity/uuid7.js";
import { digestOfMeaning } from "../../json/digest.js";
import { nestingLevels, RawJson } from "../../json/raw-json.js";
import { rememberChecked } from "../../rpc/upload/chunk.js";
import { all, insert, type Operation, one, run, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import {
  abort,
  COLUMNS,
  type CommandRow,
  causeOf,
  EXPIRED,
  finalKey,
  findCommand,
  noSuchCommand,
  readyKey,
  selectLive,
  view,
} from "./row.js";
import { isFinal, stateAt } from "./state.js";

/** Commands that one step removes at most ... */
const PRUNED_COMMANDS = 100;
/** ... and params and answers ... */
const PRUNED_BYTES = 2 * 1024 * 1024;
/** ... and pieces of an upload, of up to 64 KiB each. */
const PRUNED_CHUNKS = 32;

const selectDeployment = sql<{ model: "pull" | "push"; projectId: string | null }>(`
  SELECT model, project_id AS "projectId" FROM pawl_deployment WHERE deployment = :deployment`);

const declareDeployment = sql(`
  INSERT INTO pawl_deployment (deployment, model, project_id, declared) VALUES (:deployment, :model, :projectId, 1)
  ON CONFLICT (deployment) DO UPDATE
    SET model = excluded.model, project_id = excluded.project_id, declared = 1`);

const useDeployment = sql(`
  INSERT INTO pawl_deployment (deployment, model, project_id, declared) VALUES (:deployment, 'pull', NULL, 0)`);

const selectDeployments = sql<{ deployment: string; model: "pull" | "push"; projectId: string | null }>(`
  SELECT deployment, model, project_id AS "projectId" FROM pawl_deployment
  WHERE deployment > :after ORDER BY deployment LIMIT :rows`);

const countPending = sql<{ pending: number }>(`
  SELECT count(*) AS pending FROM pawl_command WHERE deployment = :deployment AND state = 'PENDING'`);

const insertCommand = sql(`
  INSERT INTO pawl_command (command_id, deployment, command, project_id, model, state, attempt, max_attempts,
    deadline, created_at, completed_at, request_bytes, error_code, error_message, uploaded, idempotency_key,
    content, ready_at, due_at)
  VALUES (:commandId, :deployment, :command, :projectId, :model, :state, 1, :maxAttempts, :deadline, :now,
    :completedAt, :requestBytes, :errorCode, :errorMessage, :uploaded, :idempotencyKey, :content, :readyAt, :dueAt)`);

const insertParams = sql("INSERT INTO pawl_command_params (seq, params) VALUES (:seq, :params)");

const insertUpload = sql(`
  INSERT INTO pawl_command_upload (seq, received_bytes, syntax) VALUES (:seq, 0, :syntax)`);

const selectByKey = sql<CommandRow & { content: string }>(`
  SELECT ${COLUMNS}, content FROM pawl_command
  WHERE deployment = :deployment AND command = :command AND idempotency_key = :idempotencyKey`);

const selectResponse = sql<{ response: string }>(
  "SELECT response FROM pawl_command_response WHERE seq = :seq",
);

/** Ids grow with seq, so the place of one that is removed already is that of the one before it. */
const selectPlace = sql<{ seq: number; commandId: string }>(`
  SELECT seq, command_id AS "commandId" FROM pawl_command WHERE command_id <= :after
  ORDER BY command_id DESC LIMIT 1`);

/** The index of a deployment or of a project is in the order of seq within each state: as many short scans. */
function pageInAnyState(column: "deployment" | "project_id"): string {
  const ofState = (state: CommandState): string =>
    `SELECT * FROM (SELECT seq FROM pawl_command WHERE ${column} = :of AND state = '${state}' AND seq < :before
      ORDER BY seq DESC LIMIT :rows)`;
  return `
    SELECT ${COLUMNS} FROM pawl_command WHERE seq IN
      (SELECT seq FROM (${COMMAND_STATES.map(ofState).join(" UNION ALL ")}) ORDER BY seq DESC LIMIT :rows)
    ORDER BY seq DESC`;
}

function page(condition: string): string {
  return `
    SELECT ${COLUMNS} FROM pawl_command WHERE ${condition} AND seq < :before ORDER BY seq DESC LIMIT :rows`;
}

const selectPage = sql<CommandRow>(page("TRUE"));
const selectPageInState = sql<CommandRow>(page("state = :state"));
const selectPageOfDeployment = sql<CommandRow>(pageInAnyState("deployment"));
const selectPageOfDeploymentInState = sql<CommandRow>(page("deployment = :of AND state = :state"));
const selectPageOfProject = sql<CommandRow>(pageInAnyState("project_id"));
const selectPageOfProjectInState = sql<CommandRow>(page("project_id = :of AND state = :state"));

const earliestCompleted = sql<{ at: number | null }>(
  "SELECT min(completed_at) AS at FROM pawl_command WHERE completed_at IS NOT NULL",
);

const selectPrunable = sql<{
  seq: number;
  deployment: string;
  state: CommandState;
  bytes: number;
  uploaded: 0 | 1;
}>(`
  SELECT seq, deployment, state, request_bytes + coalesce(response_bytes, 0) AS bytes, uploaded
  FROM pawl_command WHERE completed_at <= :before ORDER BY completed_at LIMIT :rows`);

const deleteChunks = sql(`
  DELETE FROM pawl_command_chunk WHERE seq = :seq AND at IN
    (SELECT at FROM pawl_command_chunk WHERE seq = :seq ORDER BY at LIMIT :rows)`);
const deleteUpload = sql("DELETE FROM pawl_command_upload WHERE seq = :seq");
const deleteParams = sql("DELETE FROM pawl_command_params WHERE seq = :seq");
const deleteResponse = sql("DELETE FROM pawl_command_response WHERE seq = :seq");
const deleteCommand = sql("DELETE FROM pawl_command WHERE seq = :seq");

const deleteUnusedDeployment = sql(`
  DELETE FROM pawl_deployment WHERE deployment = :deployment AND declared = 0
    AND NOT EXISTS (SELECT 1 FROM pawl_command WHERE deployment = :deployment)`);

const commandIds = new Uuid7();
const NOTHING_CHECKED = new Uint8Array();

export function* setDeployment(params: Parsed<"deployment.set">): Operation<Result<"deployment.set">> {
  const { deployment, model, projectId = null } = params;
  yield* run(declareDeployment, { deployment, model, projectId });
  return { deployment, model, projectId };
}

/** Who serves by push, as far as operations have to know. */
export interface Serving {
  /** How many connections serve a deployment, whether or not they have room. */
  count(deployment: string): number;
  /** The deployments that are served. */
  deployments(): Iterable<string>;
}

export function* listDeployments(
  params: Parsed<"deployment.list">,
  env: Env,
  serving: Serving,
): Operation<Result<"deployment.list">> {
  const { projectId, after = "", limit } = params;
  const rows = yield* all(selectDeployments, { after, rows: limit + 1 });
  // A deployment that nobody has sent anything to yet may have receivers all the same.
  const known = new Set(rows.map(({ deployment }) => deployment));
  const last = rows.length > limit ? (rows.at(-1) as { deployment: string }).deployment : undefined;
  for (const deployment of serving.deployments()) {
    const onPage = deployment > after && (last === undefined || deployment < last);
    if (onPage && !known.has(deployment)) rows.push({ deployment, model: "pull", projectId: null });
  }
  rows.sort((a, b) => (a.deployment < b.deployment ? -1 : 1));

  const deployments: Result<"deployment.list">["deployments"] = [];
  for (const row of rows.slice(0, limit)) {
    if (projectId !== undefined && row.projectId !== projectId) continue;
    const { deployment } = row;
    const waiting = env.waiting(readyKey(deployment));
    const receivers = waiting === null ? null : serving.count(deployment) + waiting;
    deployments.push({
      ...row,
      receivers,
      pending: (yield* one(countPending, { deployment }))?.pending ?? 0,
    });
  }
  return rows.length > limit
    ? { deployments, next: (rows[limit - 1] as { deployment: string }).deployment }
    : { deployments };
}

export function* create(
  params: Parsed<"command.create">,
  env: Env,
  texts: Texts,
): Operation<Result<"command.create"> | PawlError> {
  const { deployment, command, maxAttempts, upload, idempotencyKey = null } = params;
  const text = texts[0];
  const wrong = contradiction(params, text);
  if (wrong !== undefined) return wrong;

  let content: string | null = null;
  if (idempotencyKey !== null) {
    content = upload === undefined ? digestOfMeaning(text ?? "null") : `upload of ${upload.sizeBytes} bytes`;
    const first = yield* one(selectByKey, { deployment, command, idempotencyKey });
    if (first !== undefined) {
      if (first.content !== content) return reused(idempotencyKey, first, params, text);
      return created(first.commandId, stateAt(first, env.now).state, first.model, first.projectId, false);
    }
  }

  const { now } = env;
  const to = yield* one(selectDeployment, { deployment });
  if (to === undefined) yield* run(useDeployment, { deployment });
  const { model, projectId } = to ?? { model: "pull", projectId: null };
  const deadline = params.ttlMs === undefined ? (params.deadline ?? null) : now + params.ttlMs;
  const isLate = deadline !== null && deadline <= now;
  const state: CommandState = isLate ? "EXPIRED" : upload === undefined ? "PENDING" : "PENDING_UPLOAD";
  const uploadEnd = upload === undefined ? Number.POSITIVE_INFINITY : now + MAX_UPLOAD_MS;
  const dueAt = Math.min(deadline ?? Number.POSITIVE_INFINITY, uploadEnd);
  const commandId = `cmd_${commandIds.next(now, env.random)}`;
  const seq = yield* insert(insertCommand, {
    commandId,
    deployment,
    command,
    projectId,
    model,
    state,
    maxAttempts,
    deadline,
    now,
    completedAt: isLate ? now : null,
    requestBytes: upload?.sizeBytes ?? Buffer.byteLength(text ?? "null"),
    errorCode: isLate ? EXPIRED.code : null,
    errorMessage: isLate ? EXPIRED.message : null,
    uploaded: upload === undefined ? 0 : 1,
    idempotencyKey,
    content,
    readyAt: state === "PENDING" ? now : null,
    dueAt: isLate || dueAt === Number.POSITIVE_INFINITY ? null : dueAt,
  });
  if (text !== undefined) yield* run(insertParams, { seq, params: text });
  if (state === "PENDING_UPLOAD") {
    yield* run(insertUpload, { seq, syntax: NOTHING_CHECKED });
    rememberChecked(commandId, 0, NOTHING_CHECKED);
  }
  env.effects.count(`commands${state}`, 1);
  env.effects.deadline(dueAt);
  if (state === "PENDING") env.effects.wake(readyKey(deployment));
  return created(commandId, state, model, projectId, true);
}

function created(
  commandId: string,
  state: CommandState,
  deploymentModel: "pull" | "push",
  projectId: string | null,
  isNew: boolean,
): Result<"command.create"> {
  return {
    commandId,
    state,
    deploymentModel,
    projectId,
    created: isNew,
    inlineMaxBytes: INLINE_MAX_BYTES,
    next: state === "PENDING_UPLOAD" ? "upload" : "wait",
  };
}

/** What no schema says: parameters that exclude one another, and how large one may be as JSON. */
function contradiction(params: Parsed<"command.create">, text: string | undefined): PawlError | undefined {
  if (params.deadline !== undefined && params.ttlMs !== undefined) {
    return invalid("/ttlMs", "says when it expires, and so does deadline; give one of them");
  }
  if (text !== undefined && params.upload !== undefined) {
    return invalid(
      "/upload",
      "announces params that are to come, and there are params already; give one of them",
    );
  }
  const bytes = text === undefined ? 0 : Buffer.byteLength(text);
  if (bytes > INLINE_MAX_BYTES) {
    return invalid(
      "/params",
      `must have at most ${INLINE_MAX_BYTES} bytes as JSON, not ${bytes}; larger ones are announced with upload and sent with command.upload`,
    );
  }
  if (text !== undefined && nestingLevels(text) > MAX_PAYLOAD_NESTING_LEVELS) {
    return invalid(
      "/params",
      `must not hold more than ${MAX_PAYLOAD_NESTING_LEVELS} arrays and objects in one another`,
    );
  }
  return undefined;
}

function invalid(path: string, message: string): PawlError {
  return refuse("invalid_params", `command.create: ${path} ${message}.`, { issues: [{ path, message }] });
}

function reused(
  idempotencyKey: string,
  first: CommandRow,
  params: Parsed<"command.create">,
  text: string | undefined,
): PawlError {
  const { commandId, createdAt, requestBytes, uploaded } = first;
  const { upload } = params;
  const requestSizeBytes = upload?.sizeBytes ?? Buffer.byteLength(text ?? "null");
  return refuse(
    "conflict",
    `The idempotencyKey ${shown(idempotencyKey)} was used for ${commandId} with other params. Use a new key for a new command.`,
    {
      idempotencyKey,
      first: { commandId, createdAt, requestSizeBytes: requestBytes, upload: uploaded === 1 },
      now: { requestSizeBytes, upload: upload !== undefined },
    },
  );
}

export function* get(params: Parsed<"command.get">, env: Env): Operation<Result<"command.get"> | PawlError> {
  const row = yield* findCommand(params.commandId);
  return row instanceof PawlError ? row : yield* viewWithDetails(row, env);
}

/** A command with what its receiver said beside the message of an error. */
function* viewWithDetails(row: CommandRow, env: Env): Operation<Command> {
  const command = view(row, env);
  if (command.error === null || row.responseBytes === null) return command;
  const kept = yield* one(selectResponse, { seq: row.seq });
  const details = kept && textsAt(kept.response, ["details"])[0];
  return details === undefined
    ? command
    : { ...command, error: { ...command.error, details: new RawJson(details) } };
}

export function* wait(params: Parsed<"command.wait">, env: Env): Operation<Outcome<Result<"command.wait">>> {
  const row = yield* findCommand(params.commandId);
  if (row instanceof PawlError) return row;
  const { state } = stateAt(row, env.now);
  return isFinal(state) || !env.mayWait
    ? yield* viewWithDetails(row, env)
    : new Wait(finalKey(row.commandId));
}

export function* response(
  params: Parsed<"command.response">,
  env: Env,
): Operation<Result<"command.response"> | PawlError> {
  const row = yield* findCommand(params.commandId);
  if (row instanceof PawlError) return row;
  const { state } = stateAt(row, env.now);
  if (!isFinal(state)) return { response: null };
  const kept = yield* one(selectResponse, { seq: row.seq });
  if (kept !== undefined) {
    return { response: new RawJson(kept.response) as unknown as Result<"command.response">["response"] };
  }
  const cause = causeOf(row, state);
  return { response: cause === null ? null : { status: "error", ...cause } };
}

export function* list(params: Parsed<"command.list">, env: Env): Operation<Result<"command.list">> {
  const { deployment, state, projectId, limit, after } = params;
  const before = after === undefined ? Number.MAX_SAFE_INTEGER : yield* placeOf(after);
  const rows = limit + 1;
  const of = deployment ?? projectId;
  const found =
    of === undefined
      ? state === undefined
        ? yield* all(selectPage, { before, rows })
        : yield* all(selectPageInState, { state, before, rows })
      : state === undefined
        ? yield* all(deployment === undefined ? selectPageOfProject : selectPageOfDeployment, {
            of,
            before,
            rows,
          })
        : yield* all(deployment === undefined ? selectPageOfProjectInState : selectPageOfDeploymentInState, {
            of,
            state,
            before,
            rows,
          });

  const commands: Result<"command.list">["commands"] = [];
  let bytes = 0;
  for (const [index, row] of found.entries()) {
    bytes += Buffer.byteLength(row.errorMessage ?? "") + row.deployment.length + row.command.length;
    if (index === limit || (bytes > MAX_PAGE_BYTES && index > 0)) {
      return { commands, next: (found[index - 1] as CommandRow).commandId };
    }
    // A deployment belongs to one project as a rule, so few are read for nothing; a page may be short of them.
    if (projectId === undefined || row.projectId === projectId) commands.push(view(row, env));
  }
  return { commands };
}

/** The place in the list behind which the page begins that comes after an id. */
function* placeOf(after: string): Operation<number> {
  const place = yield* one(selectPlace, { after });
  if (place === undefined) return 0;
  return place.commandId === after ? place.seq : place.seq + 1;
}

export function* cancel(
  params: Parsed<"command.cancel">,
  env: Env,
): Operation<Result<"command.cancel"> | PawlError> {
  const { commandId, reason = null } = params;
  const row = yield* one(selectLive, { commandId });
  if (row === undefined) return noSuchCommand(commandId);
  const { state } = stateAt(row, env.now);
  if (isFinal(state)) return { state };
  const cause = { code: "CANCELLED", message: reason ?? "It was cancelled." };
  yield* abort(row, { state: "FAILED", cause, reason }, env);
  return { state: "FAILED" };
}

/** Commands that have been final for long enough. */
export const keptCommands: Expiry = {
  *earliest(env) {
    const at = (yield* one(earliestCompleted))?.at ?? undefined;
    return at === undefined ? undefined : at + env.retentionMs + PRUNE_EVERY_MS;
  },

  *expire(env, rows) {
    const before = env.now - env.retentionMs;
    const limit = Math.min(rows, PRUNED_COMMANDS);
    const found = yield* all(selectPrunable, { before, rows: limit });
    const deployments = new Set<string>();
    let bytes = 0;
    let complete = found.length < limit;
    for (const row of found) {
      const { seq } = row;
      if (row.uploaded === 1) {
        if ((yield* run(deleteChunks, { seq, rows: PRUNED_CHUNKS })) === PRUNED_CHUNKS) {
          complete = false;
          break;
        }
        yield* run(deleteUpload, { seq });
      }
      yield* run(deleteParams, { seq });
      yield* run(deleteResponse, { seq });
      yield* run(deleteCommand, { seq });
      env.effects.count(`commands${row.state}`, -1);
      deployments.add(row.deployment);
      bytes += row.bytes;
      if (bytes > PRUNED_BYTES) {
        complete = false;
        break;
      }
    }
    for (const deployment of deployments) yield* run(deleteUnusedDeployment, { deployment });
    return complete ? found.length : rows;
  },
};

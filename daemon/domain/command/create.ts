// Create: a command is added, or found by its idempotencyKey.
import type { CommandState, Parsed, Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import {
  DEFAULT_COMMAND_ATTEMPTS,
  INLINE_MAX_BYTES,
  MAX_PAYLOAD_NESTING_LEVELS,
  MAX_UPLOAD_MS,
} from "@pawl/protocol/limits";
import { retain } from "../../grants/ending.js";
import { Uuid7 } from "../../identity/uuid7.js";
import { digestOfMeaning } from "../../json/digest.js";
import { nestingLevels } from "../../json/raw-json.js";
import { rememberChecked } from "../../json/uploaded-piece.js";
import { insert, type Operation, one, sql, write } from "../../store/statement.js";
import { type Env, marked } from "../../turns/operation.js";
import { selectDeployment, useDeployment } from "../deployment/deployment.js";
import { gone, hasEnded } from "./incarnation.js";
import {
  type Cause,
  COLUMNS,
  type CommandRow,
  ENDED,
  EXPIRED,
  LAST_MEANT_PLACE,
  LAST_READY_PLACE,
  wakeReceivers,
} from "./row.js";
import { stateAt } from "./state.js";

const insertion = (lastPlace: string): string => `
  INSERT INTO pawl_command (command_id, deployment, target, command, project_id, model, state, attempt, max_attempts,
    deadline, ttl_ends_at, created_at, completed_at, ended_at, request_bytes, error_code, error_message, uploaded,
    idempotency_key, content, ready_place, due_at, execution_ms, retry, has_more, incarnation,
    latest_created_at)
  VALUES (:commandId, :deployment, :target, :command, :projectId, :model, :state, 1, :maxAttempts,
    :deadline, :ttlEndsAt, :createdAt, :completedAt, :endedAt, :requestBytes, :errorCode, :errorMessage, :uploaded,
    :idempotencyKey, :content, CASE WHEN :isReady = 1 THEN ${lastPlace} END, :dueAt, :executionMs, :retry,
    :hasMore, :incarnation, coalesce((SELECT CASE WHEN latest_created_at > :createdAt THEN latest_created_at END
      FROM pawl_command ORDER BY seq DESC LIMIT 1), :createdAt))`;

const insertCommand = sql(insertion(LAST_READY_PLACE));

const insertMeantCommand = sql(insertion(LAST_MEANT_PLACE));

const insertTrace = sql("INSERT INTO pawl_command_more (seq, trace) VALUES (:seq, :trace)");

const insertParams = sql("INSERT INTO pawl_command_params (seq, params) VALUES (:seq, :params)");

const insertUpload = sql(`
  INSERT INTO pawl_command_upload (seq, received_bytes, syntax) VALUES (:seq, 0, :syntax)`);

const selectByKey = sql<CommandRow & { content: string }>(`
  SELECT ${COLUMNS}, content FROM pawl_command
  WHERE deployment = :deployment AND target = :target AND command = :command AND idempotency_key = :idempotencyKey`);

/** By the marks of their ids: each database has a clock of its own. */
const commandIds = new Map<string, Uuid7>();

const NOTHING_CHECKED = new Uint8Array();

export function* create(
  params: Parsed<"command.create">,
  env: Env,
  texts: Texts,
): Operation<Result<"command.create"> | PawlError> {
  const { deployment, target, command, upload, idempotencyKey = null, trace, incarnation = null } = params;
  const text = texts[0];
  const wrong = contradiction(params, text);
  if (wrong !== undefined) return wrong;

  let content: string | null = null;
  if (idempotencyKey !== null) {
    content = contentOf(params, text);
    const first = yield* one(selectByKey, { deployment, target, command, idempotencyKey });
    if (first !== undefined) {
      if (!hasContent(first, content, params, text)) return reused(idempotencyKey, first, params, text);
      return created(first.commandId, stateAt(first, env).state, first.model, first.projectId, false);
    }
  }

  const { now, wallMs } = env;
  const to = yield* one(selectDeployment, { deployment });
  if (to === undefined) yield* write(useDeployment, { deployment });
  const { model, projectId } = to ?? { model: "pull", projectId: null };
  const { deadline = null } = params;
  const ttlEndsAt = params.ttlMs === undefined ? null : now + params.ttlMs;
  const isLate = deadline !== null && deadline <= wallMs;
  const end: Cause | undefined = isLate
    ? EXPIRED
    : incarnation !== null && (yield* hasEnded(deployment, incarnation))
      ? gone(incarnation)
      : undefined;
  const isOver = end !== undefined;
  const awaited: CommandState = upload === undefined ? "PENDING" : "PENDING_UPLOAD";
  const endState = isLate ? "EXPIRED" : "FAILED";
  const state: CommandState = isOver ? endState : awaited;
  const uploadEnd = upload === undefined ? Number.POSITIVE_INFINITY : now + MAX_UPLOAD_MS;
  const dueAt = Math.min(ttlEndsAt ?? Number.POSITIVE_INFINITY, uploadEnd);
  const commandId = newCommandId(env);
  const seq = yield* insert(params.incarnation === undefined ? insertCommand : insertMeantCommand, {
    commandId,
    deployment,
    target,
    command,
    projectId,
    model,
    state,
    maxAttempts: params.maxAttempts ?? DEFAULT_COMMAND_ATTEMPTS,
    deadline,
    ttlEndsAt,
    createdAt: wallMs,
    completedAt: isOver ? wallMs : null,
    endedAt: isOver ? env.retentionNow : null,
    requestBytes: upload?.sizeBytes ?? Buffer.byteLength(text ?? "null"),
    errorCode: end?.code ?? null,
    errorMessage: end?.message ?? null,
    uploaded: upload === undefined ? 0 : 1,
    idempotencyKey,
    content,
    isReady: state === "PENDING" ? 1 : 0,
    executionMs: params.executionMs ?? null,
    retry: params.retry === undefined ? null : JSON.stringify(params.retry),
    dueAt: isOver || dueAt === Number.POSITIVE_INFINITY ? null : dueAt,
    hasMore: trace === undefined ? null : 1,
    incarnation,
  });
  if (trace !== undefined) yield* write(insertTrace, { seq, trace: JSON.stringify(trace) });
  if (text !== undefined) yield* write(insertParams, { seq, params: text });
  if (state === "PENDING_UPLOAD") {
    yield* write(insertUpload, { seq, syntax: NOTHING_CHECKED });
    rememberChecked(commandId, 0, NOTHING_CHECKED);
  }
  env.effects.count(`commands${state}`, 1);
  env.effects.tell("command", deployment, "created", commandId, { to: state });
  env.effects.deadline(dueAt);
  if (isOver) {
    env.effects.count(ENDED[endState], 1);
    retain(env);
  } else if (deadline !== null) env.effects.wallDeadline(deadline);
  if (state === "PENDING") wakeReceivers(deployment, incarnation, env);
  return created(commandId, state, model, projectId, true);
}

function newCommandId(env: Env): string {
  let ids = commandIds.get(env.idMark);
  if (ids === undefined) {
    ids = new Uuid7();
    commandIds.set(env.idMark, ids);
  }
  return `cmd_${marked(ids.next(env.now, env.random), env)}`;
}

/** Before the content of what was given. Commands of before have one of the params alone. */
const GIVEN = "given ";

/** How many numbers of it are a `retry`. */
const RETRY_NUMBERS = 4;

/** All that makes two commands of one key the same, which does not include when they are to end. */
function contentOf(params: Parsed<"command.create">, text: string | undefined): string {
  const { maxAttempts, executionMs, retry, incarnation } = optionsOf(params);
  const given: (number | string | null)[] = [maxAttempts, executionMs];
  if (retry !== null) given.push(retry.baseMs, retry.factor, retry.maxMs, Number(retry.jitter));
  if (incarnation !== null) given.push(incarnation);
  return `${GIVEN}${paramsContentOf(params, text)} ${JSON.stringify(given)}`;
}

/** What is content beside the params, as it was given; null where it was not. */
interface Options {
  readonly maxAttempts: number | null;
  readonly executionMs: number | null;
  readonly retry: NonNullable<Parsed<"command.create">["retry"]> | null;
  readonly incarnation: string | null;
}

function optionsOf(params: Parsed<"command.create">): Options {
  const { maxAttempts = null, executionMs = null, retry = null, incarnation = null } = params;
  return { maxAttempts, executionMs, retry, incarnation };
}

/** The same of the command that was created, from its content. */
function optionsIn(content: string): Options {
  const [maxAttempts, executionMs, ...more] = JSON.parse(content.slice(content.indexOf(" [")));
  const [baseMs, factor, maxMs, jitter] = more.length < RETRY_NUMBERS ? [] : more.splice(0, RETRY_NUMBERS);
  const retry = baseMs === undefined ? null : { baseMs, factor, maxMs, jitter: jitter === 1 };
  return { maxAttempts, executionMs, retry, incarnation: more[0] ?? null };
}

function paramsContentOf({ upload }: Parsed<"command.create">, text: string | undefined): string {
  return upload === undefined ? digestOfMeaning(text ?? "null") : `upload of ${upload.sizeBytes} bytes`;
}

function hasContent(
  first: { readonly content: string },
  content: string,
  params: Parsed<"command.create">,
  text: string | undefined,
): boolean {
  return first.content === (first.content.startsWith(GIVEN) ? content : paramsContentOf(params, text));
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

/** Checks what no schema can: parameters that exclude one another, and the size of one as JSON. */
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
  known: CommandRow & { readonly content: string },
  params: Parsed<"command.create">,
  text: string | undefined,
): PawlError {
  const { commandId, createdAt, requestBytes, uploaded, content } = known;
  const { upload } = params;
  const first: Record<string, unknown> = { commandId, createdAt };
  const now: Record<string, unknown> = {};
  const others: string[] = [];
  const hasOptions = content.startsWith(GIVEN);
  const ofParams = paramsContentOf(params, text);
  if (hasOptions ? !content.startsWith(`${GIVEN}${ofParams} `) : content !== ofParams) {
    others.push("other params");
    Object.assign(first, { requestSizeBytes: requestBytes, upload: uploaded === 1 });
    const requestSizeBytes = upload?.sizeBytes ?? Buffer.byteLength(text ?? "null");
    Object.assign(now, { requestSizeBytes, upload: upload !== undefined });
  }
  const given = optionsOf(params);
  const before = hasOptions ? optionsIn(content) : given;
  for (const name of ["maxAttempts", "executionMs", "retry", "incarnation"] as const) {
    if (JSON.stringify(before[name]) === JSON.stringify(given[name])) continue;
    others.push(`another ${name}`);
    first[name] = before[name];
    now[name] = given[name];
  }
  const words = others.join(", ").replace(/, (?=[^,]*$)/, " and ");
  return refuse(
    "conflict",
    `The idempotencyKey ${shown(idempotencyKey)} was used for ${commandId} with ${words}. Use a new key for a new command.`,
    { idempotencyKey, first, now },
  );
}

import { COMMAND_STATES, type Command, type CommandState, type Parsed, type Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { textsAt } from "@pawl/protocol/json-text";
import { MAX_PAGE_BYTES, MAX_PARAMS_PIECE_BYTES } from "@pawl/protocol/limits";
import { Base64 } from "../../json/base64-insertion.js";
import { keptJson } from "../../json/raw-json.js";
import { all, type Operation, one, sql } from "../../store/statement.js";
import { type Env, type Outcome, pageBytes, Unfinished, Wait } from "../../turns/operation.js";
import { completeAnswer } from "./answer.js";
import { storedAnswer } from "./answer-pieces.js";
import { COLUMNS, type CommandRow, causeOf, finalKey, findCommand, view } from "./row.js";
import { isFinal, stateAt } from "./state.js";

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
    `SELECT seq FROM (SELECT seq FROM pawl_command WHERE ${column} = :of AND state = '${state}' AND seq < :before
      ORDER BY seq DESC LIMIT :rows) AS in_state`;
  return `
    SELECT ${COLUMNS} FROM pawl_command WHERE seq IN
      (SELECT seq FROM (${COMMAND_STATES.map(ofState).join(" UNION ALL ")}) AS in_any ORDER BY seq DESC LIMIT :rows)
    ORDER BY seq DESC`;
}

function pageWhere(condition: string): string {
  return `
    SELECT ${COLUMNS} FROM pawl_command WHERE ${condition} AND seq < :before ORDER BY seq DESC LIMIT :rows`;
}

const selectPage = sql<CommandRow>(pageWhere("TRUE"));

const selectPageInState = sql<CommandRow>(pageWhere("state = :state"));

const selectPageOfDeployment = sql<CommandRow>(pageInAnyState("deployment"));

const selectPageOfDeploymentInState = sql<CommandRow>(pageWhere("deployment = :of AND state = :state"));

const selectPageOfProject = sql<CommandRow>(pageInAnyState("project_id"));

const selectPageOfProjectInState = sql<CommandRow>(pageWhere("project_id = :of AND state = :state"));

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
    : { ...command, error: { ...command.error, details: keptJson(details, `The command ${row.commandId}`) } };
}

export function* wait(params: Parsed<"command.wait">, env: Env): Operation<Outcome<Result<"command.wait">>> {
  const row = yield* findCommand(params.commandId);
  if (row instanceof PawlError) return row;
  const { state } = stateAt(row, env);
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
  const { state } = stateAt(row, env);
  if (!isFinal(state)) return { response: null };
  const kept = yield* one(selectResponse, { seq: row.seq });
  const inPieces = kept === undefined ? yield* completeAnswer(row.seq) : undefined;
  const cause = causeOf(row, state);
  const whole = kept?.response ?? JSON.stringify(cause === null ? null : { status: "error", ...cause });
  const response = keptJson(
    whole,
    `The command ${row.commandId}`,
  ) as unknown as Result<"command.response">["response"];
  const isPiece = params.offset !== undefined || params.length !== undefined;
  if (inPieces === undefined && !isPiece) return { response };

  const sizeBytes = inPieces?.sizeBytes ?? Buffer.byteLength(whole);
  const standsFor = { $upload: { sizeBytes } };
  if (!isPiece) return { response: standsFor };
  const { offset = 0, length = MAX_PARAMS_PIECE_BYTES } = params;
  const to = Math.min(offset + length, sizeBytes);
  const parts =
    inPieces === undefined
      ? [Buffer.from(whole).subarray(offset, Math.max(offset, to))]
      : yield* storedAnswer({ seq: row.seq, attempt: inPieces.attempt }, offset, to);
  return { response: standsFor, chunk: new Base64(parts) as unknown as string, offset, sizeBytes };
}

/** Commands that one step of a list looks at: some 2 ms of work. */
const LISTED_PER_STEP = 250;
/** Commands that a page looks at for those that its filters let through. */
const MAX_FILTERED_COMMANDS = 1001;

export function* list(params: Parsed<"command.list">, env: Env): Operation<Outcome<Result<"command.list">>> {
  const { after } = params;
  const isFiltered = [
    params.target,
    params.command,
    params.createdAfter,
    params.createdBefore,
    params.projectId,
  ].some((filter) => filter !== undefined);
  const before = after === undefined ? Number.MAX_SAFE_INTEGER : yield* placeOf(after);
  const rows = isFiltered ? MAX_FILTERED_COMMANDS : params.limit + 1;
  return yield* listFrom(before, { commands: [], bytes: 0 }, rows, params, env);
}

/**
 * One step of a page, and those that follow it. A command keeps its place, so none is left out or shown twice.
 *
 * @param count how many rows the page may still look at; the last one only says that there are more.
 */
function* listFrom(
  before: number,
  page: { readonly commands: readonly Command[]; readonly bytes: number; readonly last?: string | undefined },
  count: number,
  params: Parsed<"command.list">,
  env: Env,
): Operation<Outcome<Result<"command.list">>> {
  const rows = env.mayGoOn ? Math.min(count, LISTED_PER_STEP + 1) : count;
  const found = yield* rowsBefore(before, rows, params);
  const commands = [...page.commands];
  let { bytes, last } = page;
  for (const [index, row] of found.entries()) {
    if (index === rows - 1 && rows < count) {
      const to = found[index - 1] as CommandRow;
      const left = count - (rows - 1);
      const heldBytes = pageBytes(bytes, commands.length, params.limit);
      const after = { commands, bytes, last };
      return new Unfinished((later) => listFrom(to.seq, after, left, params, later), heldBytes);
    }
    // None before it was created later, however the wall clock was set.
    if (row.latestCreatedAt < (params.createdAfter ?? 0)) return { commands };
    bytes += Buffer.byteLength(row.errorMessage ?? "") + row.deployment.length + row.command.length;
    if (last !== undefined && (commands.length === params.limit || bytes > MAX_PAGE_BYTES)) {
      return { commands, next: last };
    }
    if (isWanted(row, params)) commands.push(view(row, env));
    last = row.commandId;
  }
  return found.length < rows ? { commands } : { commands, next: (found.at(-1) as CommandRow).commandId };
}

/** The rows that come before a place, the newest first. */
function* rowsBefore(
  before: number,
  rows: number,
  { deployment, state, projectId }: Parsed<"command.list">,
): Operation<CommandRow[]> {
  const of = deployment ?? projectId;
  if (of === undefined) {
    return state === undefined
      ? yield* all(selectPage, { before, rows })
      : yield* all(selectPageInState, { state, before, rows });
  }
  const isOfDeployment = deployment !== undefined;
  return state === undefined
    ? yield* all(isOfDeployment ? selectPageOfDeployment : selectPageOfProject, { of, before, rows })
    : yield* all(isOfDeployment ? selectPageOfDeploymentInState : selectPageOfProjectInState, {
        of,
        state,
        before,
        rows,
      });
}

function isWanted(
  row: CommandRow,
  { projectId, target, command, createdAfter, createdBefore }: Parsed<"command.list">,
): boolean {
  if (projectId !== undefined && row.projectId !== projectId) return false;
  if (target !== undefined && row.target !== target) return false;
  if (command !== undefined && row.command !== command) return false;
  if (createdAfter !== undefined && row.createdAt < createdAfter) return false;
  return createdBefore === undefined || row.createdAt < createdBefore;
}

/** The place in the list behind which the page begins that comes after an id. */
function* placeOf(after: string): Operation<number> {
  const place = yield* one(selectPlace, { after });
  if (place === undefined) return 0;
  return place.commandId === after ? place.seq : place.seq + 1;
}

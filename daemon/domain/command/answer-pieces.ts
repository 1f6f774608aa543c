// An answer that comes in pieces, since it is too long for a line.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import { INLINE_MAX_BYTES, MAX_ANSWER_CODE_LENGTH } from "@pawl/protocol/limits";
import { meaningOf, type TopMember, TopMembers } from "../../json/top-members.js";
import { rememberChecked, UploadedPiece } from "../../json/uploaded-piece.js";
import { all, type Operation, one, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { insertResponse, isCode, refusalOf, storable, tellLate } from "./answer.js";
import { readLeaseId } from "./delivery.js";
import { checkPiece, MAX_CHUNK_BYTES, MAX_CHUNKS_PER_READ, wrongPiece } from "./piece.js";
import { type Cause, finish, noSuchCommand, selectLive } from "./row.js";
import { isFinal, stateAt } from "./state.js";

interface AnswerRow {
  readonly sizeBytes: number;
  readonly receivedBytes: number;
  readonly syntax: Uint8Array;
  readonly members: string;
  readonly isComplete: 0 | 1;
}

const selectAnswer = sql<AnswerRow>(`
  SELECT size_bytes AS "sizeBytes", received_bytes AS "receivedBytes", syntax, members, is_complete AS "isComplete"
  FROM pawl_command_answer WHERE seq = :seq AND attempt = :attempt`);

const setAnswer = sql(`
  INSERT INTO pawl_command_answer (seq, attempt, size_bytes, received_bytes, syntax, members, is_complete)
  VALUES (:seq, :attempt, :sizeBytes, :receivedBytes, :syntax, :members, :isComplete)
  ON CONFLICT (seq, attempt) DO UPDATE SET received_bytes = excluded.received_bytes, syntax = excluded.syntax,
    members = excluded.members, is_complete = excluded.is_complete`);

const insertChunk = sql(`
  INSERT INTO pawl_command_answer_chunk (seq, attempt, at, bytes) VALUES (:seq, :attempt, :at, :bytes)`);

const selectChunks = sql<{ at: number; bytes: Uint8Array }>(`
  SELECT at, bytes FROM pawl_command_answer_chunk
  WHERE seq = :seq AND attempt = :attempt AND at < :to
    AND at >= (SELECT max(at) FROM pawl_command_answer_chunk
               WHERE seq = :seq AND attempt = :attempt AND at <= :from)
  ORDER BY at LIMIT :rows`);

const selectAllChunks = sql<{ bytes: Uint8Array }>(
  "SELECT bytes FROM pawl_command_answer_chunk WHERE seq = :seq AND attempt = :attempt ORDER BY at",
);

const deleteChunks = sql("DELETE FROM pawl_command_answer_chunk WHERE seq = :seq AND attempt = :attempt");

const NOTHING_CHECKED = new Uint8Array();

/** @param uploaded the piece, if it is not in the params. */
export function* answerInPieces(
  params: Parsed<"command.answer">,
  env: Env,
  _texts: Texts,
  uploaded?: UploadedPiece,
): Operation<Result<"command.answer"> | PawlError> {
  const { commandId, leaseId, offset, final, sizeBytes } = params;
  const given = readLeaseId(leaseId, env);
  const attempt = given?.commandId === commandId ? given.attempt : undefined;
  const row = yield* one(selectLive, { commandId });
  if (row === undefined) return noSuchCommand(commandId);
  const { seq } = row;
  const { state } = stateAt(row, env);
  const piece = uploaded ?? new UploadedPiece(Buffer.from(params.chunk));
  const stored = attempt === undefined ? undefined : yield* one(selectAnswer, { seq, attempt });
  if (isFinal(state)) {
    // Whoever sent the last piece and did not hear the answer sends it again, and is answered as then.
    const receivedBytes = offset + (piece.bytes?.length ?? 0);
    const isRepeated = stored?.isComplete === 1 && final && receivedBytes === stored.sizeBytes;
    if (!isRepeated && final) tellLate({ commandId, state, attempt, answer: "in pieces" }, env);
    return { receivedBytes, state, accepted: isRepeated };
  }
  const refusal = yield* refusalOf(row, state, attempt, "SUCCEEDED", env);
  if (refusal !== undefined) return refusal;
  if (attempt === undefined) throw new Error("an answer to no delivery was not refused");

  const before = { method: "command.answer", receivedBytes: 0, syntax: NOTHING_CHECKED, ...stored } as const;
  if (stored !== undefined && stored.sizeBytes !== sizeBytes) {
    const message = `must be ${stored.sizeBytes} as in the piece before, not ${sizeBytes}`;
    return wrongPiece("command.answer", "sizeBytes", message, stored);
  }
  const checked = checkPiece(piece, params, { ...before, sizeBytes });
  if (checked instanceof PawlError) return checked;
  const { chunk, end, syntax } = checked;
  const found = new TopMembers(stored?.members);
  found.take(chunk);
  const answer = final ? yield* answerOf(found.members, { seq, attempt, offset, chunk }) : undefined;
  if (typeof answer === "string") {
    return wrongPiece("command.answer", "chunk", answer, { receivedBytes: offset, sizeBytes });
  }

  for (let at = 0; at < chunk.length; at += MAX_CHUNK_BYTES) {
    const bytes = chunk.subarray(at, at + MAX_CHUNK_BYTES);
    yield* write(insertChunk, { seq, attempt, at: offset + at, bytes });
  }
  const saved = syntax.save();
  const now = { seq, attempt, sizeBytes, receivedBytes: end, syntax: saved, members: found.save() };
  yield* write(setAnswer, { ...now, isComplete: final ? 1 : 0 });
  if (answer === undefined) {
    rememberChecked(leaseId, end, saved);
    return { receivedBytes: end, state };
  }
  yield* finish(row, { ...answer, responseBytes: answer.bytes ?? sizeBytes }, env);
  if (sizeBytes <= INLINE_MAX_BYTES) yield* moveInline(seq, attempt);
  return { receivedBytes: end, state: answer.state, accepted: true };
}

/** The end of a command that a text with these outermost members says. */
interface Ended {
  readonly state: "SUCCEEDED" | "FAILED";
  readonly cause: Cause | null;
  /** Of the value of a success. */
  readonly bytes: number | undefined;
}

/** The same, or what is wrong with the text as `command.respond` would say it. */
function* answerOf(
  members: readonly TopMember[],
  place: { readonly seq: number; readonly attempt: number; readonly offset: number; readonly chunk: Buffer },
): Operation<Ended | string> {
  const byName = new Map(members.map((member) => [meaningOf(member.name), member]));
  const status = meaningOf(byName.get("status")?.value ?? "");
  const allowed = ALLOWED[status as keyof typeof ALLOWED];
  if (allowed === undefined) return 'must be the JSON of an object whose status is "success" or "error"';
  for (const name of byName.keys()) {
    if (!allowed.includes(name as string)) return `must have no member ${JSON.stringify(name ?? null)}`;
  }
  if (byName.size < members.length) return "must have each of its members once";
  if (status === "success") {
    const value = byName.get("response");
    return {
      state: "SUCCEEDED",
      cause: null,
      bytes: value === undefined ? NULL_BYTES : value.to - value.from,
    };
  }
  const code = meaningOf(byName.get("code")?.value ?? "");
  if (typeof code !== "string" || !isCode(code)) {
    return `must have a code, a text of 1 to ${MAX_ANSWER_CODE_LENGTH} characters`;
  }
  const { from, to } = byName.get("message") ?? { from: 0, to: 0 };
  if (to - from > INLINE_MAX_BYTES) {
    return `must have a message of at most ${INLINE_MAX_BYTES} bytes; what is longer is put in details`;
  }
  const message: unknown =
    to === 0 ? undefined : JSON.parse((yield* bytesOf(from, to, place)).toString("utf8"));
  if (typeof message !== "string") return "must have a message, a text";
  return { state: "FAILED", cause: { code, message: storable(message) }, bytes: undefined };
}

const ALLOWED = {
  success: ["status", "response"],
  error: ["status", "code", "message", "details"],
} as const satisfies Record<string, readonly string[]> as Readonly<Record<string, readonly string[]>>;

const NULL_BYTES = "null".length;

/** A short part of a text, of which the last piece is not stored yet. */
function* bytesOf(
  from: number,
  to: number,
  { seq, attempt, offset, chunk }: Parameters<typeof answerOf>[1],
): Operation<Buffer> {
  const parts: Uint8Array[] = [];
  for (let at = from; at < Math.min(to, offset); ) {
    const more = yield* storedAnswer({ seq, attempt }, at, Math.min(to, offset));
    if (more.length === 0)
      throw new Error(`the pieces of an answer that were stored end at ${at}, not at ${offset}`);
    parts.push(...more);
    at += more.reduce((sum, { length }) => sum + length, 0);
  }
  parts.push(chunk.subarray(Math.max(from - offset, 0), Math.max(to - offset, 0)));
  return Buffer.concat(parts);
}

/** An answer that would have fitted into a line is kept like those that came in one. */
function* moveInline(seq: number, attempt: number): Operation<void> {
  const chunks = yield* all(selectAllChunks, { seq, attempt });
  const response = Buffer.concat(chunks.map(({ bytes }) => bytes)).toString("utf8");
  yield* write(insertResponse, { seq, response });
  yield* write(deleteChunks, { seq, attempt });
}

/** The part of an answer from one place to another, or as much of it as one read looks at. */
export function* storedAnswer(
  { seq, attempt }: { readonly seq: number; readonly attempt: number },
  from: number,
  to: number,
): Operation<Uint8Array[]> {
  const chunks = yield* all(selectChunks, { seq, attempt, from, to, rows: MAX_CHUNKS_PER_READ });
  return chunks.map(({ at, bytes }) => bytes.subarray(Math.max(from - at, 0), Math.max(to - at, 0)));
}

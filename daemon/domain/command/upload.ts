import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import type { Texts } from "@pawl/protocol/json-text";
import { INLINE_MAX_BYTES } from "@pawl/protocol/limits";
import { Base64 } from "../../json/base64-insertion.js";
import { rememberChecked, UploadedPiece } from "../../json/uploaded-piece.js";
import { all, type Operation, one, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { checkPiece, MAX_CHUNK_BYTES, MAX_CHUNKS_PER_READ } from "./piece.js";
import { type CommandRow, findCommand, forbidden, makeReady, moved } from "./row.js";
import { stateAt } from "./state.js";

const selectUpload = sql<{ receivedBytes: number; syntax: Uint8Array }>(`
  SELECT received_bytes AS "receivedBytes", syntax FROM pawl_command_upload WHERE seq = :seq`);

const updateUpload = sql(`
  UPDATE pawl_command_upload SET received_bytes = :receivedBytes, syntax = :syntax WHERE seq = :seq`);

const deleteUpload = sql("DELETE FROM pawl_command_upload WHERE seq = :seq");

const insertChunk = sql("INSERT INTO pawl_command_chunk (seq, at, bytes) VALUES (:seq, :at, :bytes)");

const selectChunks = sql<{ at: number; bytes: Uint8Array }>(`
  SELECT at, bytes FROM pawl_command_chunk
  WHERE seq = :seq AND at < :to
    AND at >= (SELECT max(at) FROM pawl_command_chunk WHERE seq = :seq AND at <= :from)
  ORDER BY at LIMIT :rows`);

const selectAllChunks = sql<{ bytes: Uint8Array }>(
  "SELECT bytes FROM pawl_command_chunk WHERE seq = :seq ORDER BY at",
);

const deleteAllChunks = sql("DELETE FROM pawl_command_chunk WHERE seq = :seq");

const insertParams = sql("INSERT INTO pawl_command_params (seq, params) VALUES (:seq, :params)");

const selectParams = sql<{ params: string }>("SELECT params FROM pawl_command_params WHERE seq = :seq");

const setPending = sql(`
  UPDATE pawl_command SET state = 'PENDING', due_at = ttl_ends_at, uploaded = :uploaded
  WHERE seq = :seq`);

/** @param uploaded the piece, if it is not in the params. */
export function* upload(
  params: Parsed<"command.upload">,
  env: Env,
  _texts: Texts,
  uploaded?: UploadedPiece,
): Operation<Result<"command.upload"> | PawlError> {
  const row = yield* findCommand(params.commandId);
  if (row instanceof Error) return row;
  const { commandId, seq, requestBytes: sizeBytes } = row;
  const { state } = stateAt(row, env);
  const { offset, final } = params;
  const stored = yield* one(selectUpload, { seq });
  const piece = uploaded ?? new UploadedPiece(Buffer.from(params.chunk));
  const chunk = piece.bytes;
  if (state !== "PENDING_UPLOAD") {
    // A caller that did not hear the answer to the last piece sends it again, and is answered as then.
    const isRepeated = final && stored === undefined && chunk !== null && (yield* isEnd(row, offset, chunk));
    return isRepeated ? { receivedBytes: sizeBytes, state } : forbidden(commandId, state, "PENDING_UPLOAD");
  }
  if (stored === undefined) throw new Error(`${commandId} is PENDING_UPLOAD and has no upload`);

  const before = { method: "command.upload", ...stored, sizeBytes } as const;
  const checked = checkPiece(piece, params, before);
  if (checked instanceof PawlError) return checked;
  const { end, syntax } = checked;

  for (let at = 0; at < checked.chunk.length; at += MAX_CHUNK_BYTES) {
    const bytes = checked.chunk.subarray(at, at + MAX_CHUNK_BYTES);
    yield* write(insertChunk, { seq, at: offset + at, bytes });
  }
  if (!final) {
    const saved = syntax.save();
    yield* write(updateUpload, { seq, receivedBytes: end, syntax: saved });
    rememberChecked(commandId, end, saved);
    return { receivedBytes: end, state };
  }
  yield* write(deleteUpload, { seq });
  const isSmall = sizeBytes <= INLINE_MAX_BYTES;
  if (isSmall) yield* moveInline(seq);
  yield* write(setPending, { seq, uploaded: isSmall ? 0 : 1 });
  moved("PENDING_UPLOAD", "PENDING", env);
  yield* makeReady(row, env);
  return { receivedBytes: end, state: "PENDING" };
}

/** True if params that are complete end with these bytes, from `offset` on. */
function* isEnd(row: CommandRow, offset: number, bytes: Buffer): Operation<boolean> {
  if (offset + bytes.length !== row.requestBytes) return false;
  if (row.uploaded === 0) return (yield* inlinePiece(row, offset, row.requestBytes)).equals(bytes);
  for (let at = offset; at < row.requestBytes; ) {
    const piece = Buffer.concat(yield* storedParts(row, at, row.requestBytes));
    // Of one that failed as it was created nothing was ever stored, and what is old is removed in steps.
    if (piece.length === 0) return false;
    if (!piece.equals(bytes.subarray(at - offset, at - offset + piece.length))) return false;
    at += piece.length;
  }
  return true;
}

/** Params that would have fitted into the request that created the command are kept like those. */
function* moveInline(seq: number): Operation<void> {
  const chunks = yield* all(selectAllChunks, { seq });
  const params = Buffer.concat(chunks.map(({ bytes }) => bytes)).toString("utf8");
  yield* write(insertParams, { seq, params });
  yield* write(deleteAllChunks, { seq });
}

export function* params(
  given: Parsed<"command.params">,
  env: Env,
): Operation<Result<"command.params"> | PawlError> {
  const row = yield* findCommand(given.commandId);
  if (row instanceof Error) return row;
  const { offset } = given;
  const { requestBytes: sizeBytes } = row;
  const to = Math.min(offset + given.length, sizeBytes);
  const parts =
    row.uploaded === 1 ? yield* uploadedParts(row, offset, to, env) : [yield* inlinePiece(row, offset, to)];
  if (parts instanceof Error) return parts;
  return { chunk: new Base64(parts) as unknown as string, offset, sizeBytes };
}

function* inlinePiece(row: CommandRow, from: number, to: number): Operation<Buffer> {
  const text = (yield* one(selectParams, { seq: row.seq }))?.params ?? "null";
  return Buffer.from(text).subarray(from, Math.max(from, to));
}

function* uploadedParts(
  row: CommandRow,
  from: number,
  to: number,
  env: Env,
): Operation<Uint8Array[] | PawlError> {
  const unfinished = yield* one(selectUpload, { seq: row.seq });
  if (unfinished !== undefined) {
    const { state } = stateAt(row, env);
    const { receivedBytes } = unfinished;
    return refuse(
      "not_found",
      `The params of ${row.commandId} are not complete: ${receivedBytes} of ${row.requestBytes} bytes have been uploaded and the command is ${state}.`,
      { what: "params", commandId: row.commandId, state, receivedBytes, sizeBytes: row.requestBytes },
    );
  }
  return yield* storedParts(row, from, to);
}

/** The bytes of an upload from one offset to another, or as many as one read looks at. */
function* storedParts(row: CommandRow, from: number, to: number): Operation<Uint8Array[]> {
  const chunks = yield* all(selectChunks, { seq: row.seq, from, to, rows: MAX_CHUNKS_PER_READ });
  return chunks.map(({ at, bytes }) => bytes.subarray(Math.max(from - at, 0), Math.max(to - at, 0)));
}

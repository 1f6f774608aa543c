// A piece of a JSON text that comes in several: the params of a command, or an answer.
import { type PawlError, refuse } from "@pawl/protocol/errors";
import type { JsonSyntax } from "../../json/syntax.js";
import type { UploadedPiece } from "../../json/uploaded-piece.js";

/** Longest piece in one row, so that reading a part of a large text reads little else. */
export const MAX_CHUNK_BYTES = 64 * 1024;
/** Rows that one read looks at: pieces may be as small as their sender likes. */
export const MAX_CHUNKS_PER_READ = 1024;

/** A text of which some has come. */
export interface Received {
  readonly method: "command.upload" | "command.answer";
  readonly receivedBytes: number;
  readonly sizeBytes: number;
  readonly syntax: Uint8Array;
}

/** The bytes of a piece that goes on where the text ended, and how far the text is checked with them. */
export function checkPiece(
  piece: UploadedPiece,
  { offset, final }: { readonly offset: number; readonly final: boolean },
  { method, receivedBytes, sizeBytes, syntax: before }: Received,
): { readonly chunk: Buffer; readonly end: number; readonly syntax: JsonSyntax } | PawlError {
  const chunk = piece.bytes;
  const wrong = (parameter: string, message: string): PawlError =>
    wrongPiece(method, parameter, message, { receivedBytes, sizeBytes });
  if (chunk === null) return wrong("chunk", "must be base64");
  if (offset !== receivedBytes) {
    return wrong("offset", `must be ${receivedBytes}, where the piece before ended, not ${offset}`);
  }
  const end = receivedBytes + chunk.length;
  if (end > sizeBytes) return wrong("chunk", `must end with the ${sizeBytes} bytes announced, not at ${end}`);
  if (final && end < sizeBytes) {
    return wrong("final", `must come with the last of the ${sizeBytes} bytes announced, not at ${end}`);
  }
  const syntax = piece.checkAfter(before);
  if (typeof syntax === "number") {
    return wrong("chunk", `must go on with JSON in UTF-8: byte ${offset + syntax} cannot be there`);
  }
  if (final && !syntax.complete) return wrong("chunk", "must end the JSON text, which is not complete");
  return { chunk, end, syntax };
}

export function wrongPiece(
  method: Received["method"],
  parameter: string,
  message: string,
  { receivedBytes, sizeBytes }: { readonly receivedBytes: number; readonly sizeBytes: number },
): PawlError {
  const path = `/${parameter}`;
  return refuse("invalid_params", `${method}: ${path} ${message}. Nothing of this piece was kept.`, {
    issues: [{ path, message }],
    receivedBytes,
    sizeBytes,
  });
}

// Answers too long for a line: they go to the daemon, and come from it, in pieces of their JSON text.

import { PawlError } from "@pawl/protocol/errors";
import type { Result } from "@pawl/protocol/types";
import type { Connection } from "../connection/connection.js";
import { ConnectionLost } from "../connection/connection-lost.js";

const MAX_PIECE_BYTES = 512 * 1024;
/** By how many bytes a request is longer than the piece it carries, at most. */
const ENVELOPE_BYTES = 1024;

type Answered = Result<"command.answer">;

/** Sends an answer in pieces. Where the next one begins is what the daemon says it is: a lost reply tells nothing. */
export async function sendAnswer(
  connection: Connection,
  { commandId, leaseId }: { readonly commandId: string; readonly leaseId: string },
  text: string,
): Promise<Answered> {
  const bytes = Buffer.from(text);
  const { length: sizeBytes } = bytes;
  const room = (await connection.maxMessageBytes()) - ENVELOPE_BYTES;
  const pieceBytes = Math.min(MAX_PIECE_BYTES, Math.floor(room / 4) * 3);
  for (let offset = 0; ; ) {
    const piece = bytes.subarray(offset, offset + pieceBytes);
    const final = offset + piece.length === sizeBytes;
    const chunk = piece.toString("base64");
    try {
      const params = { commandId, leaseId, offset, chunk, final, sizeBytes };
      const answered = await connection.call("command.answer", params);
      // An end that came before the last piece makes the others needless.
      if (final || answered.accepted !== undefined) return answered;
      offset = answered.receivedBytes;
    } catch (error) {
      if (error instanceof ConnectionLost && error.mayHaveTakenEffect && !connection.closed.aborted) continue;
      const receivedBytes = error instanceof PawlError ? error.details.receivedBytes : undefined;
      if (typeof receivedBytes !== "number" || receivedBytes === offset) throw error;
      offset = receivedBytes;
    }
  }
}

/** The JSON text of a large answer. */
export async function readAnswer(
  connection: Pick<Connection, "call">,
  commandId: string,
  options: { signal?: AbortSignal } = {},
): Promise<string> {
  const pieces: Buffer[] = [];
  for (let offset = 0; ; ) {
    const read = await connection.call("command.response", { commandId, offset }, options);
    const piece = Buffer.from(read.chunk ?? "", "base64");
    pieces.push(piece);
    offset += piece.length;
    if (piece.length === 0 || offset >= (read.sizeBytes ?? 0)) return Buffer.concat(pieces).toString("utf8");
  }
}

import type { MethodName, Params } from "@pawl/protocol";
import { EXTRACTED, extractBase64 } from "../json/base64-extraction.js";
import { UploadedPiece } from "../json/uploaded-piece.js";
import type { Call } from "../turns/call.js";
import type { LineUnderWay } from "./peer.js";

/** The methods, and their param, that carry many bytes. */
const UPLOADING = ["command.upload", "command.answer"] as const satisfies readonly MethodName[];
const UPLOADED: keyof Params<(typeof UPLOADING)[number]> = "chunk";

/** A request that uploads a piece, read from a long line of its own. */
export interface UploadRequest {
  readonly message: unknown;
  /** The text of the request, without that of the piece. */
  readonly json: string;
  readonly piece: UploadedPiece;
}

/** Reads a line as such a request; undefined for any other message. */
export function uploadIn(line: Buffer): UploadRequest | undefined {
  const found = extractBase64(line, UPLOADED);
  if (found === undefined) return undefined;
  const { json, bytes } = found;
  const message = parsed(json) as { method?: unknown; params?: { [UPLOADED]?: unknown } } | null | undefined;
  if (!UPLOADING.some((method) => method === message?.method)) return undefined;
  if (message?.params?.[UPLOADED] !== EXTRACTED) return undefined;
  return { message, json, piece: new UploadedPiece(bytes, message.params) };
}

/** Undefined for what is no JSON: the whole line is found to be none once more, and says so. */
function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

/** An upload of which each turn reads a part until it can be performed. */
export class UploadUnderWay implements LineUnderWay {
  readonly #piece: UploadedPiece;
  readonly #perform: (calls: Call[]) => void;
  left = 1;

  constructor(piece: UploadedPiece, perform: (calls: Call[]) => void) {
    this.#piece = piece;
    this.#perform = perform;
  }

  goOn(_most: number, calls: Call[]): void {
    if (this.#piece.step()) return;
    this.left = 0;
    this.#perform(calls);
  }
}

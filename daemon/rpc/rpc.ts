import { isUtf8 } from "node:buffer";
import type { MethodName, Params } from "@pawl/protocol";
import {
  checkRequest,
  failure,
  idOf,
  isResponse,
  type Request,
  type Response,
} from "@pawl/protocol/envelope";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { EACH, type Texts, textsAt } from "@pawl/protocol/json-text";
import {
  MAX_BATCH_ANSWER_BYTES,
  MAX_BATCH_CALLS,
  MAX_PARAMS_PIECE_BYTES,
  MAX_REPLY_BYTES,
} from "@pawl/protocol/limits";
import { createJSONRPCRequest, JSONRPCServer } from "json-rpc-2.0";
import { CUT_OUT, cutOut } from "../json/base64-extraction.js";
import { base64Length, encodeLine, type LongLine } from "../json/base64-insertion.js";
import { encode } from "../json/raw-json.js";
import { UploadedPiece } from "../json/uploaded-piece.js";
import type { Batch } from "../socket/inbox.js";
import type { Call } from "../turns/call.js";
import type { Dispatcher, RequestSender, Source } from "./dispatch.js";

/** Where the replies to a line go. */
export interface Peer extends RequestSender {
  /** A line holds one request, or so many; each is in flight until `answered`. */
  received(requests: number): void;
  answered(requests: number): void;
  /** Nobody reads the bytes of a line any more. */
  done(line: Buffer): void;
  /** A request was taken up whose answer may well have so many bytes. */
  expects(bytes: number): void;
  /** A request was answered with so many bytes, by themselves or within a batch. */
  wrote(bytes: number): void;
  /** Queues one line, as a text without its end. */
  send(line: string | LongLine): void;
}

/** Who sent a request, and what it was read from. */
interface Origin {
  readonly peer: Peer;
  readonly source: Source;
  /** Of the turn under way. */
  readonly calls: Call[];
  /** What it is answered instead of being performed. */
  readonly refusal?: PawlError | undefined;
}

/** What a peer answered to a request of the daemon, and the same as JSON text. Nothing in it is checked. */
export interface Answered {
  readonly response: Response;
  readonly text: string;
}

/** The requests of the daemon to one peer. */
interface Asked {
  /** How many there were. */
  count: number;
  /** What is told the answer, by the id that it will come under. */
  readonly open: Map<unknown, (answered: Answered) => void>;
}

/**
 * JSON-RPC 2.0 on one line: guards first, then `json-rpc-2.0` for what is a request. It takes batches of one,
 * `[null]`, ids of any type and positional params for granted, so the guards are ours, and batches are taken
 * apart here.
 */
export class Rpc {
  readonly #server: JSONRPCServer<Origin>;
  readonly #dispatcher: Dispatcher;
  readonly #asked = new WeakMap<Peer, Asked>();

  constructor(dispatcher: Dispatcher, methods: Iterable<string>) {
    this.#dispatcher = dispatcher;
    // The dispatcher has logged what failed; the library's own listener would print it again.
    this.#server = new JSONRPCServer<Origin>({ errorListener: () => {} });
    for (const name of methods) {
      // "Advanced" only in that the response is made here: each promise between saves half a microsecond.
      this.#server.addMethodAdvanced(
        name,
        ({ id, params }, { peer, source, calls }) =>
          new Promise((resolve) => {
            dispatcher.call(name, params, peer, source, calls, (outcome) => {
              if (id === undefined) resolve(null);
              else if (outcome instanceof PawlError) resolve(failure(id, outcome));
              else resolve({ jsonrpc: "2.0", id, result: outcome });
            });
          }),
      );
    }
  }

  /**
   * Takes up one line: every answer to it is sent when its last request is answered. What takes more than one turn is
   * only begun, and returned.
   *
   * @param calls of the turn under way; those of the line are added.
   */
  receive(line: Buffer, peer: Peer, calls: Call[]): Batch | undefined {
    if (!isUtf8(line)) return this.refuse(refuse("parse_error", NOT_UTF8), peer);
    const upload = uploadIn(line);
    if (upload !== undefined) {
      const { message, source, piece } = upload;
      return new UploadUnderWay(piece, (later) =>
        this.#receiveOne(message, { peer, source, calls: later }, () => peer.done(line)),
      );
    }
    const text = line.toString("utf8");
    peer.done(line);
    const message = parse(text);
    if (message instanceof PawlError) return this.refuse(message, peer);
    if (!Array.isArray(message))
      return this.#receiveOne(message, { peer, source: { json: () => text }, calls });
    if (message.length === 0) {
      return this.refuse(refuse("invalid_request", "A batch holds at least one request, not []."), peer);
    }
    if (message.length > MAX_BATCH_CALLS) {
      return this.refuse(
        refuse(
          "invalid_request",
          `A batch holds at most ${MAX_BATCH_CALLS} requests, not ${message.length}. Split it.`,
        ),
        peer,
      );
    }
    return this.#receiveBatch(message, text, peer);
  }

  /**
   * Sends a request to a peer. `onAnswer` is called when its response is taken up, and not at all if that never
   * comes. Not by the `JSONRPCClient` of the library, which tells by a promise: a turn late, after what the peer
   * sent behind its response, even after its end.
   */
  ask(peer: Peer, method: string, params: object, onAnswer: (answered: Answered) => void): void {
    let asked = this.#asked.get(peer);
    if (asked === undefined) {
      asked = { count: 0, open: new Map() };
      this.#asked.set(peer, asked);
    }
    asked.count += 1;
    // A text, so that nobody takes it for an id of its own.
    const id = `pawld-${asked.count}`;
    asked.open.set(id, onAnswer);
    peer.send(encode(createJSONRPCRequest(id, method, params)));
  }

  /** Returns what there is to say of a response that nothing was asked for, or that has come before. */
  #takeResponse(response: Response, asked: Asked, { peer, source }: Origin): Response | null {
    const onAnswer = asked.open.get(response.id);
    if (onAnswer !== undefined) {
      asked.open.delete(response.id);
      onAnswer({ response, text: source.json() });
      return null;
    }
    const refusal = refuse(
      "invalid_request",
      `There is no request with the id ${shown(response.id)} to be answered: there was none, or it has been answered.`,
      { answered: response.id },
    );
    const answer = failure(null, this.#dispatcher.explain("-", refusal, peer));
    // An error under the id null says that something of ours was no message; it is not answered in turn.
    return response.id === null || response.id === undefined ? null : answer;
  }

  /** Answers what is no message at all, under the id null. */
  refuse(refusal: PawlError, peer: Peer): undefined {
    peer.received(1);
    peer.send(JSON.stringify(failure(null, this.#dispatcher.explain("-", refusal, peer))));
    peer.answered(1);
  }

  /** @param performed called when nothing is read of the request any more. */
  #receiveOne(message: unknown, origin: Origin, performed = () => {}): undefined {
    const { peer } = origin;
    peer.received(1);
    void this.#answer(message, origin).then((answer) => {
      performed();
      if (answer !== null) peer.send(this.#writeLine(answer, peer));
      peer.answered(1);
    });
  }

  #receiveBatch(messages: unknown[], text: string, peer: Peer): Batch {
    peer.received(messages.length);
    let sources: Texts | undefined;
    const sourceOf = (index: number): string => {
      // All at once, since finding each by itself would read the line from its beginning every time.
      sources ??= textsAt(text, [EACH]);
      return sources[index] as string;
    };
    return new BatchUnderWay({
      count: messages.length,
      answer: (index, calls, refusal) =>
        this.#answer(messages[index], { peer, source: { json: () => sourceOf(index) }, calls, refusal }),
      write: (response) => this.#write(response, peer),
      done: (answers) => {
        if (answers.length > 0) peer.send(`[${answers.join(",")}]`);
        peer.answered(messages.length);
      },
    });
  }

  /** Never rejects; null for a notification. Submits the call before it returns, so order is kept. */
  #answer(message: unknown, origin: Origin): Promise<Response | null> {
    const request = this.#check(message, origin);
    if (request === null || !("method" in request)) return Promise.resolve(request);
    if (request.method === READING) origin.peer.expects(pieceLength(request));
    return this.#server.receive(request, origin) as Promise<Response | null>;
  }

  /** A request of a method that exists; or what anything else is answered by, which may be nothing. */
  #check(message: unknown, origin: Origin): Request | Response | null {
    const { peer } = origin;
    const asked = this.#asked.get(peer);
    if (asked !== undefined && (isResponse(message) || isEmptyResponse(message, asked))) {
      return this.#takeResponse(message, asked, origin);
    }
    const request = checkRequest(message);
    if (request instanceof PawlError) {
      const refusal = this.#dispatcher.explain("-", request, peer);
      // Positional params are a request of JSON-RPC, if not of ours, and without an id a notification.
      const isNotification = request.kind === "invalid_params" && !Object.hasOwn(message as object, "id");
      return isNotification ? null : failure(idOf(message), refusal);
    }
    // A notification has no answer that could be too much.
    const refused = peer.forbidden ?? (request.id === undefined ? undefined : origin.refusal);
    if (refused !== undefined) {
      const refusal = this.#dispatcher.explain(request.method, refused, peer);
      return request.id === undefined ? null : failure(request.id, refusal);
    }
    if (!this.#server.hasMethod(request.method)) {
      const refusal = this.#dispatcher.noSuchMethod(request.method, peer);
      return request.id === undefined ? null : failure(request.id, refusal);
    }
    return request;
  }

  /** An answer by itself. */
  #writeLine(response: Response, peer: Peer): string | LongLine {
    const line = this.#encoded(encodeLine, response, peer);
    peer.wrote(typeof line === "string" ? line.length : line.bytes.length);
    return line;
  }

  /** An answer within a batch. */
  #write(response: Response, peer: Peer): string {
    const text = this.#encoded(encode, response, peer);
    peer.wrote(text.length);
    return text;
  }

  #encoded<T>(encoder: (response: Response) => T, response: Response, peer: Peer): T | string {
    try {
      return encoder(response);
    } catch (error) {
      // A value that was read from a line can be nested too deeply to be written on one.
      return JSON.stringify(failure(response.id, this.#dispatcher.explain("-", error as Error, peer)));
    }
  }
}

/** A long piece of an upload, of which each turn does a part until it can be performed. */
class UploadUnderWay implements Batch {
  readonly #piece: UploadedPiece;
  readonly #perform: (calls: Call[]) => void;
  left = 1;

  constructor(piece: UploadedPiece, perform: (calls: Call[]) => void) {
    this.#piece = piece;
    this.#perform = perform;
  }

  take(_most: number, calls: Call[]): void {
    if (this.#piece.step()) return;
    this.left = 0;
    this.#perform(calls);
  }
}

/**
 * A batch whose answers come in. They are sent together, so they are counted as they come: once they have
 * grown too large, the requests that are not yet taken up are refused instead of performed.
 */
class BatchUnderWay implements Batch {
  readonly #options: BatchOptions;
  #taken = 0;
  readonly #answers: (string | undefined)[];
  #answered = 0;
  #bytes = 0;

  constructor(options: BatchOptions) {
    this.#options = options;
    this.#answers = new Array(options.count);
  }

  get left(): number {
    return this.#options.count - this.#taken;
  }

  take(most: number, calls: Call[]): void {
    const refusal = this.#bytes < MAX_BATCH_ANSWER_BYTES ? undefined : TOO_MANY_ANSWERS;
    const end = Math.min(this.#taken + most, this.#options.count);
    while (this.#taken < end) {
      const index = this.#taken++;
      void this.#options.answer(index, calls, refusal).then((response) => this.#take(index, response));
    }
  }

  #take(index: number, response: Response | null): void {
    const { write, count, done } = this.#options;
    if (response !== null) {
      let text = write(response);
      // Calls that waited can all be answered at once, and are then performed already.
      if (this.#bytes + text.length > MAX_REPLY_BYTES) text = write(failure(response.id, LEFT_OUT));
      this.#answers[index] = text;
      this.#bytes += text.length;
    }
    this.#answered += 1;
    if (this.#answered === count) done(this.#answers.filter((answer) => answer !== undefined));
  }
}

/**
 * Whether a message is a response to what was asked that has neither a result nor an error, as one that a program
 * wrote whose result was undefined. It is no answer, but whoever asked has to know that none will come.
 */
function isEmptyResponse(message: unknown, { open }: Asked): message is Response {
  if (typeof message !== "object" || message === null || "method" in message) return false;
  return "id" in message && open.has(message.id);
}

interface BatchOptions {
  count: number;
  /** Performs a request of the batch, or refuses it if there is a refusal. */
  answer: (index: number, calls: Call[], refusal: PawlError | undefined) => Promise<Response | null>;
  write: (response: Response) => string;
  /** Called with all answers, in the order of the requests, without those of notifications. */
  done: (answers: string[]) => void;
}

const TOO_MANY_ANSWERS = refuse(
  "unavailable",
  `The answers of this batch have grown beyond ${MAX_BATCH_ANSWER_BYTES} bytes, so this request was not performed. Send it in another batch.`,
  { reason: "batch_too_large" },
);

const LEFT_OUT = refuse(
  "message_too_large",
  `This request was performed, but the answers of its batch would have more than ${MAX_REPLY_BYTES} bytes, so its own was left out. Send fewer at once.`,
);

const NOT_UTF8 = "The line is not valid UTF-8. Send JSON encoded as UTF-8.";

/** A piece of an upload in a line of its own, which is long as a rule. Undefined for any other message. */
function uploadIn(line: Buffer): { message: unknown; source: Source; piece: UploadedPiece } | undefined {
  const found = cutOut(line, UPLOADED);
  if (found === undefined) return undefined;
  const { json, bytes } = found;
  const message = parse(json) as Partial<Request> | null;
  if (message?.method !== UPLOADING || message.params?.[UPLOADED] !== CUT_OUT) return undefined;
  const piece = new UploadedPiece(bytes, message.params);
  return { message, source: { json: () => json, piece }, piece };
}

/** The characters of what is asked for, as far as it can be told before the request is checked. */
function pieceLength({ params }: Request): number {
  const { length } = (params ?? {}) as Partial<Params<typeof READING>>;
  return base64Length(Math.min(Number(length) || MAX_PARAMS_PIECE_BYTES, MAX_PARAMS_PIECE_BYTES));
}

/** The one method whose answers are long as a rule. */
const READING = "command.params" satisfies MethodName;
/** The one method, and its param, that carries many bytes. */
const UPLOADING: MethodName = "command.upload";
const UPLOADED: keyof Params<typeof UPLOADING> = "chunk";

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof SyntaxError ? error.message : "unreadable";
    return refuse("parse_error", `The line is not JSON: ${reason}. Send one JSON-RPC message per line.`);
  }
}

/**
 * The room of JSON-RPC: lines to calls, and outcomes to lines. The room knows connections as `Peer` only.
 *
 *     rpc       a line, its messages, their replies    dispatch       access, validation, and the call
 *     batch, upload     lines of several turns         own-requests   what the daemon asks its peers
 *     json-rpc  messages that the daemon makes         command-push   commands to those who serve them
 */
import { isUtf8 } from "node:buffer";
import type { MethodName, Params } from "@pawl/protocol";
import { checkRequest, type Id, idOf, type Request, type Response } from "@pawl/protocol/envelope";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { EACH, type Texts, textsAt } from "@pawl/protocol/json-text";
import {
  MAX_BATCH_CALLS,
  MAX_LINE_NESTING_LEVELS,
  MAX_PARAMS_PARTS,
  MAX_PARAMS_PIECE_BYTES,
} from "@pawl/protocol/limits";
import { base64Length, encodeLine, type LongLine } from "../json/base64-insertion.js";
import { nestsDeeper, partsOf } from "../json/nesting.js";
import { encode, RawJson } from "../json/raw-json.js";
import { SharedJson, SharedText } from "../json/shared-json.js";
import { JsonSyntax } from "../json/syntax.js";
import type { Call } from "../turns/call.js";
import { Batch, type BatchOptions, lineOf } from "./batch.js";
import type { Dispatcher, Reply, Source } from "./dispatch.js";
import { failure, sharedText, success, successText } from "./json-rpc.js";
import { withoutKept, withoutParams } from "./kept-params.js";
import type { OwnRequests } from "./own-requests.js";
import type { LineUnderWay, Peer } from "./peer.js";
import { UploadUnderWay, uploadIn } from "./upload.js";

/** The peer that sent a message, and what the message was read from. */
interface Origin {
  readonly peer: Peer;
  readonly source: Source;
  /** Of the turn under way. */
  readonly calls: Call[];
  /** The answer to a request that is not to be performed. */
  readonly refusal?: PawlError | undefined;
}

/** JSON-RPC 2.0 on one line. */
export class Rpc {
  readonly #dispatcher: Dispatcher;
  readonly #ownRequests: OwnRequests;

  constructor(dispatcher: Dispatcher, ownRequests: OwnRequests) {
    this.#dispatcher = dispatcher;
    this.#ownRequests = ownRequests;
  }

  /**
   * Takes up one line: every answer to it is sent when its last request is answered.
   *
   * @param calls of the turn under way; those of the line are added.
   * @returns a line that takes more than one turn, of which nothing is taken up yet.
   */
  receive(line: Buffer, peer: Peer, calls: Call[]): LineUnderWay | undefined {
    if (!isUtf8(line)) return this.refuse(refuse("parse_error", NOT_UTF8), peer);
    const parts = line.length < DENSE_LINE_BYTES ? 0 : partsOf(line, MAX_PARAMS_PARTS);
    const isDense = parts > DENSE_LINE_PARTS;
    // The check of a dense line finds that, too, and is not to be made twice.
    const place = isDense ? placeOfFault(line) : undefined;
    if ((!isDense || place !== undefined) && nestsDeeper(line, MAX_LINE_NESTING_LEVELS))
      return this.refuse(refuse("parse_error", TOO_NESTED), peer);
    if (place !== undefined) return this.refuse(refuse("parse_error", notJson(place)), peer);
    const upload = uploadIn(line);
    if (upload !== undefined) {
      const { message, json, piece } = upload;
      return new UploadUnderWay(piece, (later) => {
        const origin = { peer, source: { json: () => json, piece, bytes: line.length }, calls: later };
        this.#receiveOne(message, origin, line);
      });
    }
    const text = line.toString("utf8");
    if (isDense) {
      const short = withoutKept(text);
      if (short !== undefined) {
        const isMany = (short === text ? parts : partsOf(short, MAX_PARAMS_PARTS)) > MAX_PARAMS_PARTS;
        const json = isMany ? withoutParams(text) : short;
        return this.#receiveDense(text, json, isMany ? TOO_MANY_PARTS : undefined, line, peer, calls);
      }
    }
    peer.releaseLine(line);
    const message = parse(text);
    if (message instanceof PawlError) return this.refuse(message, peer);
    if (Array.isArray(message)) return this.#receiveBatch(message, text, peer);
    return this.#receiveOne(message, { peer, source: { json: () => text, bytes: line.length }, calls });
  }

  /** Takes up a request of very many values, without those that are kept as the text they are. */
  #receiveDense(
    text: string,
    short: string,
    refusal: PawlError | undefined,
    line: Buffer,
    peer: Peer,
    calls: Call[],
  ): undefined {
    const source = { json: () => text, bytes: line.length };
    peer.releaseLine(line);
    this.#receiveOne(JSON.parse(short) as unknown, { peer, source, calls, refusal });
  }

  /** Answers what is no message at all, under the id null. */
  refuse(refusal: PawlError, peer: Peer): undefined {
    peer.received(1);
    peer.send(JSON.stringify(failure(null, this.#dispatcher.explain("-", refusal, peer))));
    peer.answered(1);
  }

  /** @param line bytes that are read until the request is performed. */
  #receiveOne(message: unknown, origin: Origin, line?: Buffer): undefined {
    const { peer } = origin;
    peer.received(1);
    this.#begin(message, origin, new LineReply(this, peer, line));
  }

  #receiveBatch(messages: unknown[], text: string, peer: Peer): LineUnderWay | undefined {
    const count = messages.length;
    const wrong =
      count === 0
        ? "A batch holds at least one request, not []."
        : count > MAX_BATCH_CALLS
          ? `A batch holds at most ${MAX_BATCH_CALLS} requests, not ${count}. Split it.`
          : undefined;
    if (wrong !== undefined) return this.refuse(refuse("invalid_request", wrong), peer);

    peer.received(count);
    return new Batch({
      count,
      begin: this.#beginningOf(messages, text, peer),
      write: (response) => (peer.closed ? undefined : this.#write(response, peer)),
      isFull: () => !peer.mayKeep,
      keep: (bytes, sharing) => peer.keep(bytes, sharing),
      finish: (answers) => {
        if (answers.length > 0) peer.send(lineOf(answers));
        peer.answered(count);
      },
    });
  }

  /**
   * Takes up one request of a batch after the other. A long one is kept as its text until then, since batches of many
   * connections may be under way, and values can take 20 times as much memory. This is apart from what else a batch
   * needs, so that the line is kept no longer than this is.
   */
  #beginningOf(messages: unknown[], text: string, peer: Peer): BatchOptions["begin"] {
    const isLong = text.length >= MAX_KEPT_BATCH_LENGTH;
    const kept = isLong ? undefined : messages;
    if (isLong) peer.forgotValues(text.length);
    const bytes = Math.ceil(text.length / messages.length);
    let texts: Texts | undefined;
    const textOf = (index: number): string => {
      // All at once, since finding each by itself would read the line from its beginning every time.
      texts ??= textsAt(text, [EACH]);
      return texts[index] as string;
    };
    return (batch, index, calls, refusal) => {
      const source = { json: () => textOf(index), bytes };
      let message = kept?.[index];
      if (kept === undefined) {
        message = JSON.parse(textOf(index));
        peer.forgotValues(textOf(index).length);
      }
      this.#begin(message, { peer, source, calls, refusal }, new BatchReply(batch, index));
    };
  }

  /** Adds the call of a message, or gives its answer at once. */
  #begin(message: unknown, origin: Origin, reply: MessageReply): void {
    const request = this.#check(message, origin);
    if (request === null || !("method" in request)) return reply.give(request);
    const { peer, source, calls } = origin;
    const { id, method, params } = request;
    if (method === DISCOVER) peer.expects(DOCUMENT_BYTES);
    else if (readsPiece(method, params)) peer.expects(pieceLength(params));
    reply.id = id;
    this.#dispatcher.call(method, params, peer, source, calls, reply);
  }

  /** A request that may be performed; or the response to anything else, null if there is none. */
  #check(message: unknown, origin: Origin): Request | Response | null {
    const { peer } = origin;
    if (this.#ownRequests.isResponse(message, peer)) return this.#takeResponse(message, origin);
    // Nobody is there any more to be told what is wrong with it.
    if (peer.closed && !namesMethod(message)) return null;
    const request = checkRequest(message, () => idTextOf(origin));
    if (request instanceof PawlError) {
      const refusal = this.#dispatcher.explain("-", request, peer);
      // Positional params are a request of JSON-RPC, if not of ours, and without an id a notification.
      const isNotification = request.kind === "invalid_params" && !Object.hasOwn(message as object, "id");
      return isNotification ? null : failure(idOf(message), refusal);
    }
    // A notification has no answer that could be too much.
    const refused = peer.forbidden ?? (request.id === undefined ? undefined : origin.refusal);
    if (refused === undefined) return request;
    const refusal = this.#dispatcher.explain(request.method, refused, peer);
    return request.id === undefined ? null : failure(request.id, refusal);
  }

  /** The answer to a response that nothing was asked for, or that has come before; null for any other. */
  #takeResponse(response: Response, { peer, source }: Origin): Response | null {
    if (this.#ownRequests.takeResponse(response, source.json(), peer)) return null;
    const refusal = refuse(
      "invalid_request",
      `There is no request with the id ${shown(response.id)} to be answered: there was none, or it has been answered.`,
      { answered: response.id },
    );
    const answer = failure(null, this.#dispatcher.explain("-", refusal, peer));
    // An error under the id null says that something of ours was no message; it is not answered in turn.
    return response.id === null || response.id === undefined ? null : answer;
  }

  /** Writes an answer that is a line by itself. */
  writeLine(response: Response, peer: Peer): string | LongLine | SharedText {
    const line = this.#lineOf(response, peer);
    const isShared = line instanceof SharedText;
    peer.wrote(typeof line === "string" || isShared ? line.length : line.bytes.length, { isShared });
    return line;
  }

  #lineOf(response: Response, peer: Peer): string | LongLine | SharedText {
    if ("result" in response && response.result instanceof RawJson) {
      const { id, result } = response;
      return result instanceof SharedJson ? sharedText(id, result) : successText(id, result);
    }
    return this.#encoded(encodeLine, response, peer);
  }

  /** Writes an answer within a batch. */
  #write(response: Response, peer: Peer): string | SharedText {
    const text =
      "result" in response && response.result instanceof SharedJson
        ? sharedText(response.id, response.result)
        : this.#encoded(encode, response, peer);
    peer.wrote(text.length, { isShared: text instanceof SharedText });
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

/** The id of a message as it was sent. */
function idTextOf({ source }: Origin): string | undefined {
  return textsAt(source.json(), ["id"])[0];
}

function namesMethod(message: unknown): boolean {
  return typeof message === "object" && message !== null && "method" in message;
}

/** Where the answer to one message goes. */
abstract class MessageReply implements Reply {
  /** Undefined for a notification, which is never answered. */
  id: Id | undefined;
  abstract readonly hasRoom: boolean;
  abstract readonly refusal: PawlError | undefined;

  answer(outcome: unknown): void {
    if (this.id === undefined) this.give(null);
    else this.give(outcome instanceof PawlError ? failure(this.id, outcome) : success(this.id, outcome));
  }

  /** Called once; with null if there is no answer. */
  abstract give(response: Response | null): void;
}

/** The answer to a message that is a line by itself. */
class LineReply extends MessageReply {
  readonly #rpc: Rpc;
  readonly #peer: Peer;
  readonly #line: Buffer | undefined;

  constructor(rpc: Rpc, peer: Peer, line: Buffer | undefined) {
    super();
    this.#rpc = rpc;
    this.#peer = peer;
    this.#line = line;
  }

  get hasRoom(): boolean {
    return this.#peer.hasRoom;
  }

  get refusal(): undefined {
    return undefined;
  }

  give(response: Response | null): void {
    const peer = this.#peer;
    if (this.#line !== undefined) peer.releaseLine(this.#line);
    if (response !== null && !peer.closed) peer.send(this.#rpc.writeLine(response, peer));
    peer.answered(1);
  }
}

/** The answer to a message of a batch. */
class BatchReply extends MessageReply {
  /** Nothing of a batch is read before its last answer is made, so none of its answers waits for room. */
  readonly hasRoom = true;
  readonly #batch: Batch;
  readonly #index: number;

  constructor(batch: Batch, index: number) {
    super();
    this.#batch = batch;
    this.#index = index;
  }

  /** A notification has no answer that could be too much. */
  get refusal(): PawlError | undefined {
    return this.id === undefined ? undefined : this.#batch.refusal;
  }

  give(response: Response | null): void {
    this.#batch.take(this.#index, response);
  }
}

/** A batch that is shorter is kept as values while it is under way. */
const MAX_KEPT_BATCH_LENGTH = 64 * 1024;

/** Lines that are shorter are parsed as they are ... */
const DENSE_LINE_BYTES = 64 * 1024;
/** ... and so are those of fewer arrays, objects and members: each takes 0.1 to 0.6 microseconds. */
const DENSE_LINE_PARTS = 16_384;

/** The index of the first byte by which a line is no JSON; undefined if it is. */
function placeOfFault(line: Buffer): number | undefined {
  const syntax = new JsonSyntax(MAX_LINE_NESTING_LEVELS);
  return syntax.take(line) ?? (syntax.complete ? undefined : line.length);
}

const TOO_MANY_PARTS = refuse(
  "invalid_params",
  `The params hold more than ${MAX_PARAMS_PARTS} arrays, objects and members beside what is kept as it is sent. Send less at a time.`,
  { issues: [{ path: "", message: `must hold at most ${MAX_PARAMS_PARTS} arrays, objects and members` }] },
);

const NOT_UTF8 = "The line is not valid UTF-8. Send JSON encoded as UTF-8.";

const TOO_NESTED = `The line has more than ${MAX_LINE_NESTING_LEVELS} arrays and objects in one another. Send flatter JSON.`;

const DISCOVER = "rpc.discover" satisfies MethodName;
/** The length of the document, about. */
const DOCUMENT_BYTES = 512 * 1024;

/** True if the answer is long as a rule: a piece of params, or of an answer. */
function readsPiece(method: string, params: Request["params"]): boolean {
  if (method === ("command.params" satisfies MethodName)) return true;
  if (method !== ("command.response" satisfies MethodName)) return false;
  return params !== undefined && ("offset" in params || "length" in params);
}

/** The characters of the piece that is asked for, as far as they can be told before the request is checked. */
function pieceLength(params: Request["params"]): number {
  const { length } = (params ?? {}) as Partial<Params<"command.params">>;
  return base64Length(Math.min(Number(length) || MAX_PARAMS_PIECE_BYTES, MAX_PARAMS_PIECE_BYTES));
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    return refuse("parse_error", notJson(error instanceof SyntaxError ? error.message : "unreadable"));
  }
}

/** @param fault what is wrong, or the index of the byte that is. */
function notJson(fault: string | number): string {
  const reason = typeof fault === "number" ? `it goes wrong at byte ${fault}` : fault;
  return `The line is not JSON: ${reason}. Send one JSON-RPC message per line, or per Content-Length header.`;
}

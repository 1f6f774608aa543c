import { isUtf8 } from "node:buffer";
import {
  checkRequest,
  failure,
  idOf,
  isResponse,
  type Request,
  type Response,
} from "@pawl/protocol/envelope";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_BATCH_CALLS } from "@pawl/protocol/limits";
import { createJSONRPCRequest, JSONRPCServer } from "json-rpc-2.0";
import type { Dispatcher, Sender } from "./dispatch.js";
import { EACH, encode, type Texts, textsAt } from "./raw-json.js";

/** Where the replies to a line go. */
export interface Peer extends Sender {
  /** A line holds one request, or so many; each is in flight until `answered`. */
  received(requests: number): void;
  answered(requests: number): void;
  /** Queues one line, without its end. */
  send(line: string): void;
}

/** Who sent a request, and its JSON text, which is found only when a method asks for it. */
interface Origin {
  readonly peer: Peer;
  readonly source: () => string;
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
      this.#server.addMethod(name, (params, { peer, source }) => dispatcher.call(name, params, peer, source));
    }
    this.#server.mapErrorToJSONRPCErrorResponse = (id, error: PawlError) => ({
      jsonrpc: "2.0",
      id,
      error: { code: error.code, message: error.message, data: error.data },
    });
  }

  /**
   * Takes up one line: every answer to it is sent when its last request is answered. Returns how many requests
   * it held, at least 1.
   */
  receive(line: Buffer, peer: Peer): number {
    if (!isUtf8(line)) return this.refuse(refuse("parse_error", NOT_UTF8), peer);
    const text = line.toString("utf8");
    const message = parse(text);
    if (message instanceof PawlError) return this.refuse(message, peer);
    if (!Array.isArray(message)) return this.#receiveOne(message, text, peer);
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
      onAnswer({ response, text: source() });
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
  refuse(refusal: PawlError, peer: Peer): number {
    peer.received(1);
    peer.send(JSON.stringify(failure(null, this.#dispatcher.explain("-", refusal, peer))));
    peer.answered(1);
    return 1;
  }

  #receiveOne(message: unknown, text: string, peer: Peer): number {
    peer.received(1);
    void this.#answer(message, { peer, source: () => text }).then((answer) => {
      if (answer !== null) peer.send(this.#write(answer, peer));
      peer.answered(1);
    });
    return 1;
  }

  #receiveBatch(messages: unknown[], text: string, peer: Peer): number {
    peer.received(messages.length);
    let sources: Texts | undefined;
    const sourceOf = (index: number): string => {
      // All at once, since finding each by itself would read the line from its beginning every time.
      sources ??= textsAt(text, [EACH]);
      return sources[index] as string;
    };
    const answers = messages.map((message, index) =>
      this.#answer(message, { peer, source: () => sourceOf(index) }),
    );
    void Promise.all(answers).then((all) => {
      const answers = all.filter((answer) => answer !== null);
      if (answers.length > 0) peer.send(`[${answers.map((answer) => this.#write(answer, peer)).join(",")}]`);
      peer.answered(messages.length);
    });
    return messages.length;
  }

  /** Never rejects; null for a notification. Submits the call before it returns, so order is kept. */
  async #answer(message: unknown, origin: Origin): Promise<Response | null> {
    const { peer } = origin;
    const asked = this.#asked.get(peer);
    if (asked !== undefined && isResponse(message)) return this.#takeResponse(message, asked, origin);
    const request: Request | PawlError = checkRequest(message);
    if (request instanceof PawlError) {
      const refusal = this.#dispatcher.explain("-", request, peer);
      // Positional params are a request of JSON-RPC, if not of ours, and without an id a notification.
      const isNotification = request.kind === "invalid_params" && !Object.hasOwn(message as object, "id");
      return isNotification ? null : failure(idOf(message), refusal);
    }
    if (peer.forbidden !== undefined) {
      const refusal = this.#dispatcher.explain(request.method, peer.forbidden, peer);
      return request.id === undefined ? null : failure(request.id, refusal);
    }
    if (!this.#server.hasMethod(request.method)) {
      const refusal = this.#dispatcher.noSuchMethod(request.method, peer);
      return request.id === undefined ? null : failure(request.id, refusal);
    }
    return (await this.#server.receive(request, origin)) as Response | null;
  }

  #write(response: Response, peer: Peer): string {
    try {
      return encode(response);
    } catch (error) {
      // A value that was read from a line can be nested too deeply to be written on one.
      return JSON.stringify(failure(response.id, this.#dispatcher.explain("-", error as Error, peer)));
    }
  }
}

const NOT_UTF8 = "The line is not valid UTF-8. Send JSON encoded as UTF-8.";

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof SyntaxError ? error.message : "unreadable";
    return refuse("parse_error", `The line is not JSON: ${reason}. Send one JSON-RPC message per line.`);
  }
}

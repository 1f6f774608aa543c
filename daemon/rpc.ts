import { isUtf8 } from "node:buffer";
import { checkRequest, failure, idOf, type Request, type Response } from "@pawl/protocol/envelope";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_BATCH_CALLS } from "@pawl/protocol/limits";
import { JSONRPCServer } from "json-rpc-2.0";
import type { Dispatcher, Sender } from "./dispatch.js";

/** Where the replies to a line go. */
export interface Peer extends Sender {
  /** A line holds one request, or so many; each is in flight until `answered`. */
  received(requests: number): void;
  answered(requests: number): void;
  /** Queues one line, without its end. */
  send(line: string): void;
}

/**
 * JSON-RPC 2.0 on one line: guards first, then `json-rpc-2.0` for what is a request. It takes batches of one,
 * `[null]`, ids of any type and positional params for granted, so the guards are ours, and batches are taken
 * apart here.
 */
export class Rpc {
  readonly #server: JSONRPCServer<Peer>;
  readonly #dispatcher: Dispatcher;

  constructor(dispatcher: Dispatcher, methods: Iterable<string>) {
    this.#dispatcher = dispatcher;
    // The dispatcher has logged what failed; the library's own listener would print it again.
    this.#server = new JSONRPCServer<Peer>({ errorListener: () => {} });
    for (const name of methods) {
      this.#server.addMethod(name, (params, peer) => dispatcher.call(name, params, peer as Peer));
    }
    this.#server.mapErrorToJSONRPCErrorResponse = (id, error: PawlError) => ({
      jsonrpc: "2.0",
      id,
      error: { code: error.code, message: error.message, data: error.data },
    });
  }

  /** Takes up one line: every answer to it is sent when its last request is answered. */
  receive(line: Buffer, peer: Peer): void {
    const message = isUtf8(line) ? parse(line.toString("utf8")) : refuse("parse_error", NOT_UTF8);
    if (message instanceof PawlError) return this.#refuseLine(message, peer);
    if (!Array.isArray(message)) return this.#receiveOne(message, peer);
    if (message.length === 0) {
      return this.#refuseLine(refuse("invalid_request", "A batch holds at least one request, not []."), peer);
    }
    if (message.length > MAX_BATCH_CALLS) {
      return this.#refuseLine(
        refuse(
          "invalid_request",
          `A batch holds at most ${MAX_BATCH_CALLS} requests, not ${message.length}. Split it.`,
        ),
        peer,
      );
    }
    this.#receiveBatch(message, peer);
  }

  /** Answers a line that is no message at all, under the id null. */
  #refuseLine(refusal: PawlError, peer: Peer): void {
    peer.received(1);
    peer.send(JSON.stringify(failure(null, this.#dispatcher.explain("-", refusal, peer))));
    peer.answered(1);
  }

  #receiveOne(message: unknown, peer: Peer): void {
    peer.received(1);
    void this.#answer(message, peer).then((response) => {
      if (response !== null) peer.send(JSON.stringify(response));
      peer.answered(1);
    });
  }

  #receiveBatch(messages: unknown[], peer: Peer): void {
    peer.received(messages.length);
    void Promise.all(messages.map((message) => this.#answer(message, peer))).then((responses) => {
      const answers = responses.filter((response) => response !== null);
      if (answers.length > 0) peer.send(`[${answers.map((answer) => JSON.stringify(answer)).join(",")}]`);
      peer.answered(messages.length);
    });
  }

  /** Never rejects; null for a notification. Submits the call before it returns, so order is kept. */
  async #answer(message: unknown, peer: Peer): Promise<Response | null> {
    const request: Request | PawlError = checkRequest(message);
    if (request instanceof PawlError) {
      return failure(idOf(message), this.#dispatcher.explain("-", request, peer));
    }
    if (!this.#server.hasMethod(request.method)) {
      const refusal = this.#dispatcher.noSuchMethod(request.method, peer);
      return request.id === undefined ? null : failure(request.id, refusal);
    }
    return (await this.#server.receive(request, peer)) as Response | null;
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

import { isResponse, type Response } from "@pawl/protocol/envelope";
import { encode } from "../json/raw-json.js";
import { meaningOf, type TopMember } from "../json/top-members.js";
import { request } from "./json-rpc.js";
import type { Peer } from "./peer.js";

/** The answer of a peer, and the same as JSON text. Nothing in it is checked. */
export interface PeerAnswer {
  readonly response: Response;
  readonly text: string;
}

/** Undefined stands for an answer that was too long for a line. */
type OnAnswer = (answer: PeerAnswer | undefined) => void;

/** The requests to one peer. */
interface Asked {
  /** How many there were. */
  count: number;
  /** The requests without an answer, by the ids that their answers will have. */
  readonly open: Map<unknown, OnAnswer>;
}

/**
 * The requests of the daemon to its peers. Not by the `JSONRPCClient` of the library, which tells by a promise: a turn
 * late, after what the peer sent behind its response, even after its end.
 */
export class OwnRequests {
  readonly #asked = new WeakMap<Peer, Asked>();

  /** Sends a request. `onAnswer` is called when its response is taken up, and not at all if that never comes. */
  ask(peer: Peer, method: string, params: object, onAnswer: OnAnswer): void {
    let asked = this.#asked.get(peer);
    if (asked === undefined) {
      asked = { count: 0, open: new Map() };
      this.#asked.set(peer, asked);
    }
    asked.count += 1;
    // A text, so that nobody takes it for an id of its own.
    const id = `pawld-${asked.count}`;
    asked.open.set(id, onAnswer);
    peer.send(encode(request(id, method, params)));
  }

  /** True if a peer has requests to answer. */
  isAsked(peer: Peer): boolean {
    return (this.#asked.get(peer)?.open.size ?? 0) > 0;
  }

  /**
   * Tells whoever asked that the answer was too long for a line: by the id among its members, and where none was found
   * whoever asked first. Returns false if the line is a request, or answers nothing that is open.
   */
  takeTooLong(members: readonly TopMember[], peer: Peer): boolean {
    const open = this.#asked.get(peer)?.open;
    const memberOf = (name: string): TopMember | undefined =>
      members.find((member) => meaningOf(member.name) === name);
    if (open === undefined || memberOf("method") !== undefined) return false;
    const named = memberOf("id");
    const id = named === undefined ? open.keys().next().value : meaningOf(named.value);
    const onAnswer = open.get(id);
    if (onAnswer === undefined) return false;
    open.delete(id);
    onAnswer(undefined);
    return true;
  }

  /** True if a message is to be taken for a response: to a peer that was asked nothing there is none. */
  isResponse(message: unknown, peer: Peer): message is Response {
    const asked = this.#asked.get(peer);
    return asked !== undefined && (isResponse(message) || isEmptyResponse(message, asked));
  }

  /** Tells whoever asked; returns false if there is no such request, or if it has been answered. */
  takeResponse(response: Response, text: string, peer: Peer): boolean {
    const open = this.#asked.get(peer)?.open;
    const onAnswer = open?.get(response.id);
    if (open === undefined || onAnswer === undefined) return false;
    open.delete(response.id);
    onAnswer({ response, text });
    return true;
  }
}

/**
 * True if a message is a response to what was asked that has neither a result nor an error, as one that a program
 * wrote whose result was undefined. Such a response is no answer, but whoever asked has to know that none will come.
 */
function isEmptyResponse(message: unknown, { open }: Asked): message is Response {
  if (typeof message !== "object" || message === null || "method" in message) return false;
  return "id" in message && open.has(message.id);
}

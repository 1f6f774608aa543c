import { MAX_INTEGER, MAX_NODE_ID, MAX_NODE_NAME_LENGTH, MAX_TYPE_LENGTH } from "@pawl/protocol/limits";
import { UsageError } from "../../terminal/command.js";
import { plural } from "../../terminal/quantities.js";

/** A counter as another system kept it. */
export interface Counter {
  /** Upper case. */
  readonly type: string;
  /** The last number that was handed out. */
  readonly last: number;
  /** A number, or a name in upper case; 0 in centralized mode; undefined where the source does not say. */
  readonly nodeId: NodeId | undefined;
  /** The place in the source, for messages. */
  readonly place: string;
}

/** The id of a node. */
export type NodeId = number | string;

/** The node that a text names: a number, or a name in upper case. NaN for what is neither. */
export function nodeNamed(text: string): NodeId {
  if (/^[0-9]{1,10}$/.test(text)) return Number(text) <= MAX_NODE_ID ? Number(text) : Number.NaN;
  const isName = /^[A-Za-z][A-Za-z0-9]*$/.test(text) && text.length <= MAX_NODE_NAME_LENGTH;
  return isName ? text.toUpperCase() : Number.NaN;
}

/** Bad entries that one message lists. */
export const MAX_SHOWN_PROBLEMS = 10;

/** Collects what is wrong with a source, to refuse it once with all of it. */
export class Problems {
  readonly #source: string;
  readonly #found: string[] = [];
  #total = 0;

  constructor(source: string) {
    this.#source = source;
  }

  /** The counter, or nothing and a problem noted. `last` is undefined where there is no whole number. */
  counterOf(
    type: string,
    last: string | undefined,
    nodeId: NodeId | undefined,
    place: string,
    shown: string,
  ): Counter[] {
    const number = /^[0-9]+$/.test(last ?? "") ? Number(last) : Number.NaN;
    const goodNode = !Number.isNaN(nodeId);
    if (
      /^[A-Za-z][A-Za-z0-9_]*$/.test(type) &&
      type.length <= MAX_TYPE_LENGTH &&
      number <= MAX_INTEGER &&
      goodNode
    ) {
      return [{ type: type.toUpperCase(), last: number, nodeId, place }];
    }
    this.#total += 1;
    if (this.#found.length < MAX_SHOWN_PROBLEMS) this.#found.push(`${place}: ${shown}`);
    return [];
  }

  refuseIfAny(): void {
    if (this.#total === 0) return;
    const more = this.#total - this.#found.length;
    throw new UsageError(
      `${this.#source} has ${plural(this.#total, "entry", "entries")} that cannot be a counter (a type of letters, digits and _, the number or the name of a node, and a number up to ${MAX_INTEGER}), so nothing was imported: ${this.#found.join("; ")}${more > 0 ? `; and ${more} more` : ""}.`,
    );
  }
}

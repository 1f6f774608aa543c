// What the daemons of a place tell each other: texts of PostgreSQL's NOTIFY, which have to be shorter than 8000 bytes.
import type { NotificationName } from "@pawl/protocol";

const MAX_MESSAGE_BYTES = 7900;
/** A part is a text within JSON, whose characters take three bytes at most there. */
const PART_LENGTH = 2500;

/** What one daemon tells the others: keys that were woken, a notification for a connection, or to look at all. */
export interface Told {
  readonly from: number;
  readonly keys?: readonly string[];
  readonly to?: number;
  readonly method?: NotificationName;
  readonly params?: object;
}

/** A piece of what is too long for one message. */
interface Part {
  readonly from: number;
  readonly part: number;
  readonly of: number;
  readonly text: string;
}

/** Has the others look at the calls that wait under these keys, or at all where the keys are too many. */
export function messageOfKeys(from: number, keys: readonly string[]): string {
  const told = JSON.stringify({ from, keys } satisfies Told);
  return Buffer.byteLength(told) <= MAX_MESSAGE_BYTES ? told : messageOfAll(from);
}

/** Has the others look at all that waits, and who there is. */
export function messageOfAll(from: number): string {
  return JSON.stringify({ from } satisfies Told);
}

/** A notification for a connection of another daemon, in as many messages as it takes, to be sent in their order. */
export function messagesOf(told: Told): string[] {
  const text = JSON.stringify(told);
  if (Buffer.byteLength(text) <= MAX_MESSAGE_BYTES) return [text];
  const of = Math.ceil(text.length / PART_LENGTH);
  return Array.from({ length: of }, (_, part) =>
    JSON.stringify({
      from: told.from,
      part,
      of,
      text: text.slice(part * PART_LENGTH, (part + 1) * PART_LENGTH),
    } satisfies Part),
  );
}

/** Puts together what others tell. A daemon sends all parts of one thing before anything else that has parts. */
export class Messages {
  readonly #begun = new Map<number, string[]>();

  /** Returns what is told, once the last part of it is there. */
  take(message: string): Told | undefined {
    const told = JSON.parse(message) as Told | Part;
    if (!("part" in told)) return told;
    const { from, part, of, text } = told;
    const parts = part === 0 ? [] : this.#begun.get(from);
    // Its beginning was told before this daemon listened.
    if (parts?.length !== part) return undefined;
    parts.push(text);
    if (parts.length < of) {
      this.#begun.set(from, parts);
      return undefined;
    }
    this.#begun.delete(from);
    return JSON.parse(parts.join("")) as Told;
  }
}

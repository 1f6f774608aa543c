// What the `{"$result": pointer}` in the calls of a transact stand for, and how much they may cost.
import { shown } from "@pawl/protocol/errors";
import { Scanner } from "@pawl/protocol/json-text";
import { MAX_TRANSACT_LOOKED_LENGTH, MAX_TRANSACT_REFERRED_LENGTH } from "@pawl/protocol/limits";
import { replaceReferences } from "../json/raw-json.js";

/** The key of the object that stands for a value of an earlier call. */
const REFERENCE = "$result";
/** References of one call that are told of. */
const MAX_TOLD = 20;
/** To keep where a member or an element is takes as long as to look through so many characters. */
const CHARACTERS_PER_MEMBER = 128;

const OPEN_BRACKET = 0x5b;
const OPEN_BRACE = 0x7b;

export interface WrongReference {
  /** Where the reference stands, within the params. */
  readonly path: readonly string[];
  readonly message: string;
}

const TOO_MUCH_TO_PUT_IN = `with which references bring in more than ${MAX_TRANSACT_REFERRED_LENGTH} characters`;

export const TOO_MUCH_IN_TEXT: WrongReference = {
  path: [],
  message: `have several members of one name, ${TOO_MUCH_TO_PUT_IN}`,
};

/** A value in a result. */
interface Part {
  readonly text: string;
  /** What it consists of, by names or by numbers, once something of it was asked for. */
  members: ReadonlyMap<string, Part> | undefined;
}

/**
 * The results of the calls so far, and the references to them. A few bytes of references could otherwise stand for any
 * amount of data, and find a little of it by looking through all of it each time. So each value is looked through
 * once, and all calls together have one bound for that, and one for what is put in.
 */
export class References {
  readonly #results = new Map<string, Part>();
  readonly #found = new Map<string, string>();
  #looked = 0;
  #referred = 0;
  /** The same in texts, where members that do not count have references, too. */
  #written = 0;

  /** @param result the text of the next result. */
  add(result: string): void {
    this.#results.set(String(this.#results.size), { text: result, members: undefined });
    // All results together are others now.
    this.#found.delete("");
  }

  /**
   * A copy of params with each reference replaced by what it points to, and those that cannot be. Params without a
   * reference are returned as they are. Nothing here recurses, because JSON may be nested more deeply than the stack.
   */
  putInto(params: Record<string, unknown>): { params: Record<string, unknown>; wrong: WrongReference[] } {
    if (!holdsReference(params)) return { params, wrong: [] };
    const copy: Record<string, unknown> = {};
    const wrong: WrongReference[] = [];
    const open: { from: object; to: object; parent: Place | undefined }[] = [
      { from: params, to: copy, parent: undefined },
    ];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      const { from, to, parent } = next;
      for (const [key, value] of Object.entries(from)) {
        if (typeof value !== "object" || value === null) {
          put(to, key, value);
          continue;
        }
        const place = { key, parent };
        if (isReference(value)) {
          const reference = value[REFERENCE];
          const text = this.#textOf(reference);
          const why = this.#whyNot(text);
          if (text !== undefined && why === undefined) put(to, key, JSON.parse(text));
          else wrong.push({ path: pathOf(place), message: `refers to ${shown(reference)}, ${why}` });
          if (this.#isTooMuch) return { params, wrong: wrong.slice(-1) };
          if (wrong.length === MAX_TOLD) return { params, wrong };
          continue;
        }
        const part = Array.isArray(value) ? [] : {};
        put(to, key, part);
        open.push({ from: value, to: part, parent: place });
      }
    }
    return { params: copy, wrong };
  }

  /**
   * The text of params that references were put into, with the same put in; undefined if that is too much. One in a
   * member that does not count, since another of its name follows, may stand for nothing, and then stays as it is.
   */
  putIntoText(text: string): string | undefined {
    const replaced = replaceReferences(text, REFERENCE, (reference) => {
      const found = this.#found.get(reference);
      if (found === undefined) return undefined;
      this.#written += found.length;
      return this.#written > MAX_TRANSACT_REFERRED_LENGTH ? "" : found;
    });
    return this.#written > MAX_TRANSACT_REFERRED_LENGTH ? undefined : replaced;
  }

  get #isTooMuch(): boolean {
    return this.#looked > MAX_TRANSACT_LOOKED_LENGTH || this.#referred > MAX_TRANSACT_REFERRED_LENGTH;
  }

  /** Why a text cannot be put in, if so. */
  #whyNot(text: string | undefined): string | undefined {
    if (this.#looked > MAX_TRANSACT_LOOKED_LENGTH)
      return `for which more than ${MAX_TRANSACT_LOOKED_LENGTH} characters of results are looked through`;
    if (text === undefined) return "which is no value in the results of earlier calls";
    this.#referred += text.length;
    return this.#referred > MAX_TRANSACT_REFERRED_LENGTH ? TOO_MUCH_TO_PUT_IN : undefined;
  }

  #textOf(reference: unknown): string | undefined {
    if (typeof reference !== "string") return undefined;
    let text = this.#found.get(reference);
    text ??= reference === "" ? this.#allText() : this.#find(reference);
    if (text !== undefined) this.#found.set(reference, text);
    return text;
  }

  #allText(): string {
    return `[${[...this.#results.values()].map(({ text }) => text).join(",")}]`;
  }

  /** The text of what a JSON Pointer (RFC 6901) points to. */
  #find(reference: string): string | undefined {
    if (!reference.startsWith("/") || /~(?![01])/.test(reference)) return undefined;
    let members: ReadonlyMap<string, Part> = this.#results;
    let part: Part | undefined;
    for (const token of reference.slice(1).split("/")) {
      if (part !== undefined) members = this.#membersOf(part);
      part = members.get(token.replaceAll("~1", "/").replaceAll("~0", "~"));
      if (part === undefined) return undefined;
    }
    return part?.text;
  }

  #membersOf(part: Part): ReadonlyMap<string, Part> {
    if (part.members !== undefined) return part.members;
    const scanner = new Scanner(part.text);
    const isArray = scanner.code === OPEN_BRACKET;
    if (!isArray && scanner.code !== OPEN_BRACE) return NONE;
    const members = new Map<string, Part>();
    this.#looked += part.text.length;
    for (let more = scanner.enter(); more; more = scanner.next()) {
      this.#looked += CHARACTERS_PER_MEMBER;
      if (this.#looked > MAX_TRANSACT_LOOKED_LENGTH) return NONE;
      // Of members of one name the last counts, as for `JSON.parse`.
      const name = isArray ? String(members.size) : scanner.takeName();
      members.set(name, { text: scanner.takeValue(), members: undefined });
    }
    part.members = members;
    return members;
  }
}

const NONE: ReadonlyMap<string, Part> = new Map();

function holdsReference(params: object): boolean {
  const open: object[] = [params];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (isReference(next)) return true;
    for (const value of Object.values(next)) {
      if (typeof value === "object" && value !== null) open.push(value);
    }
  }
  return false;
}

/** A way into the params, from its end. */
interface Place {
  readonly key: string;
  readonly parent: Place | undefined;
}

function pathOf(place: Place | undefined): string[] {
  const path: string[] = [];
  for (let each = place; each !== undefined; each = each.parent) path.push(each.key);
  return path.reverse();
}

function isReference(value: object): value is { [REFERENCE]: unknown } {
  return !Array.isArray(value) && Object.hasOwn(value, REFERENCE) && Object.keys(value).length === 1;
}

/** Sets an own property, also the one that an assignment would take for the prototype. */
function put(target: object, key: string, value: unknown): void {
  if (key !== "__proto__") (target as Record<string, unknown>)[key] = value;
  else Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
}

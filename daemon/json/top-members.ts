const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const SPACE = 0x20;

/** How much of a name, and of a value, is kept; longer ones are cut. */
const KEPT_BYTES = 1024;
/** Of an object with more members, the rest is not told of. */
const MAX_MEMBERS = 64;

/** A member of the outermost object. */
export interface TopMember {
  /** The JSON texts of its name and of its value, byte by byte; the beginnings of long ones. */
  readonly name: string;
  readonly value: string;
  /** Where its value begins and ends in the text, in bytes, with the space around it. */
  readonly from: number;
  readonly to: number;
}

/** The members that are complete, and how far the one under way is. */
interface State {
  at: number;
  depth: number;
  isInString: boolean;
  isEscaped: boolean;
  name: string;
  value: string;
  /** Where the value under way begins; null in a name. */
  from: number | null;
  readonly members: TopMember[];
}

/**
 * Finds the members of the outermost object of a JSON text that arrives in pieces, however long it is. Nothing of the
 * text is checked: of one that is no JSON it finds anything, or nothing.
 */
export class TopMembers {
  readonly #state: State;

  /** @param saved what `save` gave after the piece before. */
  constructor(saved?: string) {
    const nothing = { at: 0, depth: 0, isInString: false, isEscaped: false, name: "", value: "", from: null };
    this.#state = saved === undefined ? { ...nothing, members: [] } : JSON.parse(saved);
  }

  save(): string {
    return JSON.stringify(this.#state);
  }

  /** In their order. */
  get members(): readonly TopMember[] {
    return this.#state.members;
  }

  take(bytes: Uint8Array): void {
    const state = this.#state;
    const begin = state.at;
    for (let index = 0; index < bytes.length; index++) {
      if (this.#isInLongString()) index = endOfPlain(bytes, index);
      if (index === bytes.length) break;
      const byte = bytes[index] as number;
      state.at = begin + index;
      if (!this.#takeStructure(byte)) this.#keep(byte);
    }
    state.at = begin + bytes.length;
  }

  /** True where most of a large text is: in a string of which no more is kept. */
  #isInLongString(): boolean {
    const { isInString, isEscaped, from, value } = this.#state;
    return isInString && !isEscaped && from !== null && value.length === KEPT_BYTES;
  }

  /** True for a byte that is no part of a name or of a value of the outermost object. */
  #takeStructure(byte: number): boolean {
    const state = this.#state;
    if (state.isInString) {
      if (state.isEscaped) state.isEscaped = false;
      else if (byte === BACKSLASH) state.isEscaped = true;
      else if (byte === QUOTE) state.isInString = false;
      return false;
    }
    switch (byte) {
      case QUOTE:
        state.isInString = true;
        return false;
      case OPEN_BRACE:
      case OPEN_BRACKET:
        state.depth += 1;
        return state.depth === 1;
      case COLON:
        if (state.depth !== 1 || state.from !== null) return false;
        state.from = state.at + 1;
        return true;
      case COMMA:
        if (state.depth !== 1) return false;
        this.#endMember();
        return true;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        if (state.depth === 1) this.#endMember();
        state.depth -= 1;
        return state.depth === 0;
      default:
        return byte <= SPACE;
    }
  }

  #endMember(): void {
    const state = this.#state;
    const { name, value, from, at: to } = state;
    if (from !== null && state.members.length < MAX_MEMBERS) state.members.push({ name, value, from, to });
    Object.assign(state, { name: "", value: "", from: null });
  }

  #keep(byte: number): void {
    const state = this.#state;
    const part = state.from === null ? "name" : "value";
    if (state.depth > 0 && state[part].length < KEPT_BYTES) state[part] += String.fromCharCode(byte);
  }
}

/** The place of the next byte, from `index` on, that is not simply a part of a string. */
function endOfPlain(bytes: Uint8Array, index: number): number {
  let at = index;
  while (at < bytes.length && bytes[at] !== QUOTE && bytes[at] !== BACKSLASH) at++;
  return at;
}

/** The value of a kept text of a name or of a value; undefined if it was cut or is no JSON. */
export function meaningOf(kept: string): unknown {
  try {
    return kept.length === KEPT_BYTES ? undefined : JSON.parse(Buffer.from(kept, "latin1").toString("utf8"));
  } catch {
    return undefined;
  }
}

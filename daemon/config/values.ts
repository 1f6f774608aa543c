import { resolve } from "node:path";
import type { NodeId } from "@pawl/protocol";
import { PawlError, shown } from "@pawl/protocol/errors";
import { MAX_NODE_ID, MAX_NODE_NAME_LENGTH } from "@pawl/protocol/limits";

/**
 * Reads what was given for an option: a text from a flag or a variable, whatever TOML has from a file. Throws
 * `invalid_params` with the source, such as `--idle-exit`, and the value.
 */
export type Read<T> = (value: unknown, source: string) => T;

/** The largest user or group number; 2^32 - 1 means none. */
const MAX_ID = 2 ** 32 - 2;

export const text: Read<string> = (value, source) => {
  if (typeof value !== "string" || value === "") throw wrong(source, "a text that is not empty", value);
  return value;
};

export const path: Read<string> = (value, source) => resolve(text(value, source));

export const yesOrNo: Read<boolean> = (value, source) => {
  if (value === true || value === "true" || value === "1") return true;
  if (value === false || value === "false" || value === "0") return false;
  throw wrong(source, "true or false", value);
};

export const fileMode: Read<number> = (value, source) => {
  const digits = text(value, source);
  if (!/^0?o?[0-7]{3}$/.test(digits)) throw wrong(source, "an octal mode such as 0660", digits);
  return Number.parseInt(digits.replace("o", ""), 8);
};

/** User or group numbers: several have commas between them, or are a list. */
export const ids: Read<readonly number[]> = (value, source) => {
  const list = typeof value === "string" ? value.split(",") : Array.isArray(value) ? value : [value];
  // An empty list would let in everybody, which nobody means who writes one.
  if (list.length === 0) throw wrong(source, `at least one number from 0 to ${MAX_ID}`, value);
  return list.map((each: unknown) => {
    const id = numberOf(typeof each === "string" ? each.trim() : each);
    if (!Number.isInteger(id) || id < 0 || id > MAX_ID) {
      throw wrong(source, `a number from 0 to ${MAX_ID}`, each);
    }
    return id;
  });
};

export function whole(min: number, max: number): Read<number> {
  return (value, source) => {
    const number = numberOf(value);
    if (!Number.isSafeInteger(number) || number < min || number > max) {
      throw wrong(source, `a whole number from ${min} to ${max}`, value);
    }
    return number;
  };
}

/** The id of a node: a number, or a name, in upper case. */
export const node: Read<NodeId> = (value, source) => {
  const number = numberOf(value);
  if (Number.isSafeInteger(number) && number >= 1 && number <= MAX_NODE_ID) return number;
  const name = typeof value === "string" ? value.toUpperCase() : "";
  if (/^[A-Z][A-Z0-9]*$/.test(name) && name.length <= MAX_NODE_NAME_LENGTH) return name;
  throw wrong(
    source,
    `a whole number from 1 to ${MAX_NODE_ID}, or a name of up to ${MAX_NODE_NAME_LENGTH} letters and digits that begins with a letter`,
    value,
  );
};

export function oneOf<const T extends string>(values: readonly T[]): Read<T> {
  return (value, source) => {
    if (!values.includes(value as T)) throw wrong(source, `one of ${values.join(", ")}`, value);
    return value as T;
  };
}

/** Several texts, each read by a rule of others. In a variable, spaces separate them: the texts may hold commas. */
export function listOf<T>(parse: (text: string) => T, like: string): Read<readonly T[]> {
  return (value, source) => {
    const list = typeof value === "string" ? value.split(/\s+/).filter((each) => each !== "") : value;
    if (!Array.isArray(list) || !list.every((each) => typeof each === "string")) {
      throw wrong(source, `a list of texts like ${like}`, value);
    }
    return list.map((each) => namingSource(source, () => parse(each)));
  };
}

/** The value that `read` gives, if another rule accepts it too. */
export function checkedBy<T>(read: Read<T>, check: (value: T) => void): Read<T> {
  return (value, source) => {
    const found = read(value, source);
    namingSource(source, () => check(found));
    return found;
  };
}

/** @param wanted completes "must be". */
export function wrong(source: string, wanted: string, value: unknown): PawlError {
  return new PawlError("invalid_params", `${source} must be ${wanted}, not ${shown(value)}.`);
}

/** A refusal of rules that know nothing of options says in addition where the value came from. */
function namingSource<T>(source: string, apply: () => T): T {
  try {
    return apply();
  } catch (error) {
    throw new PawlError("invalid_params", `${source}: ${(error as Error).message}`);
  }
}

/** NaN for what is no number, and for texts that `Number` would take and nobody means, such as "" and "0x1f". */
function numberOf(value: unknown): number {
  if (typeof value === "number") return value;
  return typeof value === "string" && /^[0-9]+$/.test(value) ? Number(value) : Number.NaN;
}

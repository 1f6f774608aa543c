import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_RANK_LENGTH } from "@pawl/protocol/limits";

/** In the order of their character codes, so that keys compare as plain text does, in any database. */
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** The key of the first item, and of one that nobody gave a place. */
export const FIRST_RANK = "a0";

/** The least integer part. Nothing is below it, so it is no key by itself. */
const LEAST_INTEGER = `A${"0".repeat(26)}`;

/**
 * True if a text is a fractional index key: an integer part, whose first character says its length (`a` two,
 * `b` three, ... `Z` two, `Y` three, ... for those below zero), and a fraction that does not end in 0, without
 * which two keys could have nothing between them. (Greenspan, "Implementing Fractional Indexing", 2020.)
 */
export function isRank(key: string): boolean {
  const integerLength = lengthOfInteger(key);
  return (
    key.length <= MAX_RANK_LENGTH &&
    /^[A-Za-z][0-9A-Za-z]+$/.test(key) &&
    key.length >= integerLength &&
    (key.length === integerLength || !key.endsWith("0")) &&
    key !== LEAST_INTEGER
  );
}

/**
 * A key between two, or before, after or without one where the other or both are null. Both must be keys
 * (`isRank`), and `below` less than `above`, else `invalid_params`: between equal ones nothing fits, and one
 * of the two must be moved first. `exhausted` when it would be too long.
 */
export function rankBetween(below: string | null, above: string | null): string | PawlError {
  for (const key of [below, above]) {
    if (key !== null && !isRank(key)) return refuse("invalid_params", `${shown(key)} is not a rank.`);
  }
  if (below !== null && above !== null && below >= above) {
    return refuse(
      "invalid_params",
      `No rank is between ${shown(below)} and ${shown(above)}; move one of them first.`,
    );
  }
  const key = between(below, above);
  if (key.length > MAX_RANK_LENGTH) {
    return refuse(
      "exhausted",
      `The rank between ${shown(below)} and ${shown(above)} is too long; spread them first.`,
    );
  }
  return key;
}

function between(below: string | null, above: string | null): string {
  if (below === null) {
    if (above === null) return FIRST_RANK;
    const [integer, fraction] = split(above);
    if (integer === LEAST_INTEGER) return integer + fractionBetween("", fraction);
    const before = fraction === "" ? decrement(integer) : integer;
    return before === LEAST_INTEGER ? before + fractionBetween("", null) : before;
  }
  const [integer, fraction] = split(below);
  if (above === null) return increment(integer) ?? integer + fractionBetween(fraction, null);
  const [integerAbove, fractionAbove] = split(above);
  if (integer === integerAbove) return integer + fractionBetween(fraction, fractionAbove);
  const next = increment(integer);
  // A greater integer exists: `above` has one.
  if (next !== undefined && next < above) return next;
  return integer + fractionBetween(fraction, null);
}

function lengthOfInteger(key: string): number {
  const first = key.charCodeAt(0);
  return first >= 97 ? first - 97 + 2 : 90 - first + 2;
}

function split(key: string): [integer: string, fraction: string] {
  const length = lengthOfInteger(key);
  return [key.slice(0, length), key.slice(length)];
}

/** A fraction between two, none of them ending in 0; null stands for 1. */
function fractionBetween(below: string, above: string | null): string {
  let common = "";
  let bound = above;
  for (let place = 0; ; place += 1) {
    const low = digitAt(below, place);
    const high = bound === null ? DIGITS.length : digitAt(bound, place);
    if (high - low > 1) return common + DIGITS[Math.round((low + high) / 2)];
    if (high > low) {
      // Neighbours: what `above` begins with is below it if it goes on, else stay at `below` and above its rest.
      if (bound !== null && bound.length > place + 1) return common + DIGITS[high];
      bound = null;
    }
    common += DIGITS[low];
  }
}

function digitAt(fraction: string, place: number): number {
  return place < fraction.length ? DIGITS.indexOf(fraction.charAt(place)) : 0;
}

/** The next integer; undefined after the greatest. */
function increment(integer: string): string | undefined {
  const head = integer.charAt(0);
  const kept = integer.slice(1).replace(/z+$/, "");
  const carried = integer.length - 1 - kept.length;
  if (kept !== "") {
    const next = DIGITS[DIGITS.indexOf(kept.slice(-1)) + 1];
    return head + kept.slice(0, -1) + next + "0".repeat(carried);
  }
  if (head === "z") return undefined;
  if (head === "Z") return FIRST_RANK;
  const nextHead = String.fromCharCode(head.charCodeAt(0) + 1);
  // Integers above zero grow by a digit, those below lose one.
  return nextHead + "0".repeat(head >= "a" ? carried + 1 : carried - 1);
}

/** The integer before; never asked for the least one. */
function decrement(integer: string): string {
  const head = integer.charAt(0);
  const kept = integer.slice(1).replace(/0+$/, "");
  const borrowed = integer.length - 1 - kept.length;
  if (kept !== "") {
    const before = DIGITS[DIGITS.indexOf(kept.slice(-1)) - 1];
    return head + kept.slice(0, -1) + before + "z".repeat(borrowed);
  }
  if (head === "a") return "Zz";
  const headBefore = String.fromCharCode(head.charCodeAt(0) - 1);
  return headBefore + "z".repeat(head > "a" ? borrowed - 1 : borrowed + 1);
}

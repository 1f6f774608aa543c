// Patterns of paths, and the question that decides about reservations: is there a path that fits two of them? Pure, and
// without regular expressions: both are small automata, and their product is walked by two loops.
import { shown } from "@pawl/protocol/errors";
import {
  MAX_FILE_NAME_LENGTH,
  MAX_PATH_LENGTH,
  MAX_PATH_SEGMENTS,
  MAX_PATTERN_LENGTH,
} from "@pawl/protocol/limits";

/** Any number of characters of a segment, or of segments of a path. */
const STAR = -1;
/** The code points from each even entry to the one after it, both included. */
type Ranges = readonly number[];
/** The characters that may stand at one place: one code point, or several; or `STAR`. */
type Token = number | Ranges;
/** A segment without wildcards is its text. */
type Segment = string | readonly Token[];
const ANY: Ranges = [0, 0x10ffff];
/** A segment of any name. */
const ANY_SEGMENT: Segment = [STAR];

/** A pattern, ready to be compared. */
export interface Pattern {
  /** In its one form: without `.`, and with one slash between segments. A path that was literal is escaped. */
  readonly text: string;
  readonly segments: readonly (Segment | typeof STAR)[];
  /** Each path that fits begins so. */
  readonly beginning: string;
  /** True if `beginning` is the one path that fits. */
  readonly isLiteral: boolean;
}

/** The reason for which a text is no pattern, or no path: what comes after "is", and what to do. */
export class Unusable {
  readonly why: string;

  constructor(why: string) {
    this.why = why;
  }
}

/**
 * Reads a pattern: segments with `*`, `?` and `[a-z]`, `**` for any number of segments, and a final `/` for all that is
 * below.
 */
export function readPattern(given: string, mostCharacters = MAX_PATTERN_LENGTH): Pattern | Unusable {
  if (given.length > mostCharacters)
    return new Unusable(`is longer than ${mostCharacters} characters; give long paths as files`);
  return parse(given);
}

/** Kept patterns that were parsed, by their texts: a pattern that may meet many is compared with the same ones each time. */
const parsedPatterns = new Map<string, Pattern>();
/** Of all of their texts together. Most patterns are short: enough for those of a full root, and some 10 MB at most. */
const MAX_PARSED_CHARACTERS = 512 * 1024;
let parsedCharacters = 0;

/** A pattern as it was kept, which may be a long path. */
export function keptPattern(text: string): Pattern {
  const known = parsedPatterns.get(text);
  if (known !== undefined) return known;
  const parsed = parse(text);
  if (parsed instanceof Unusable) throw new Error(`A kept pattern ${parsed.why}`);
  parsedCharacters += text.length;
  if (parsedCharacters > MAX_PARSED_CHARACTERS) {
    parsedPatterns.clear();
    parsedCharacters = text.length;
  }
  parsedPatterns.set(text, parsed);
  return parsed;
}

function parse(given: string): Pattern | Unusable {
  if (given.startsWith("!"))
    return new Unusable(
      "begins with !, but patterns have no negation; a path that begins so is one of files",
    );
  if (given.startsWith("/")) return ABSOLUTE;
  const names = namesOf(given);
  if (names instanceof Unusable) return names;
  if (names.length === 0) return NOTHING;
  const segments: (Segment | typeof STAR)[] = [];
  const texts: string[] = [];
  for (const name of names) {
    if (name === "**") {
      if (segments.at(-1) === STAR) continue;
      segments.push(STAR);
    } else {
      const segment = readSegment(name);
      if (segment instanceof Unusable) return segment;
      segments.push(segment);
    }
    texts.push(name);
  }
  const isBelow = given.endsWith("/");
  // All that is below: one segment at least.
  if (isBelow) segments.push(ANY_SEGMENT, STAR);
  return { text: texts.join("/") + (isBelow ? "/" : ""), segments, ...beginningOf(segments) };
}

/** The pattern that one path fits. */
export function literally(given: string): Pattern | Unusable {
  const path = readPath(given);
  if (path instanceof Unusable) return path;
  const text = path.replace(/[*?[{}]|^!/g, "[$&]");
  return { text, segments: path.split("/"), beginning: path, isLiteral: true };
}

/** A path below a root in its one form: without `.`, and with one slash between segments. */
export function readPath(given: string): string | Unusable {
  if (given.length > MAX_PATH_LENGTH) return new Unusable(`is longer than ${MAX_PATH_LENGTH} characters`);
  if (given.startsWith("/")) return ABSOLUTE;
  const names = namesOf(given);
  if (names instanceof Unusable) return names;
  if (names.length === 0) return NOTHING;
  if (given.endsWith("/"))
    return new Unusable("ends in a slash, but a path names a file; all that is below is a pattern");
  if (names.some((name) => name.length > MAX_FILE_NAME_LENGTH))
    return new Unusable(`has a name of more than ${MAX_FILE_NAME_LENGTH} characters, which no file can have`);
  return names.join("/");
}

/** A directory in its one form, from the outermost one on. */
export function readRoot(given: string): string | Unusable {
  if (!given.startsWith("/")) return new Unusable("is not absolute; begin with the outermost directory, /");
  const names = namesOf(given);
  return names instanceof Unusable ? names : `/${names.join("/")}`;
}

const ABSOLUTE = new Unusable("is absolute; give it relative to root");
const NOTHING = new Unusable("names nothing; ** is everything below the root");

function namesOf(given: string): string[] | Unusable {
  if (given.includes("\\")) return new Unusable("has a backslash; / stands between segments, [*] for a star");
  const names = given.split("/").filter((name) => name !== "" && name !== ".");
  if (names.includes("..")) return new Unusable("has .., which leads out; say it without");
  if (names.length > MAX_PATH_SEGMENTS) return new Unusable(`has more than ${MAX_PATH_SEGMENTS} segments`);
  return names;
}

function readSegment(name: string): Segment | Unusable {
  const tokens: Token[] = [];
  const characters = Array.from(name);
  for (let at = 0; at < characters.length; at += 1) {
    const character = characters[at] as string;
    if (character === "*") {
      if (tokens.at(-1) === STAR)
        return new Unusable(`has ** in ${shown(name)}; ** stands alone between slashes`);
      tokens.push(STAR);
    } else if (character === "?") tokens.push(ANY);
    else if (character === "{" || character === "}")
      return new Unusable(
        `has a brace in ${shown(name)}; give several patterns, or [${character}] for itself`,
      );
    else if (character === "[") {
      const end = characters.indexOf("]", at);
      if (end < 0) return new Unusable(`has a [ without ] in ${shown(name)}; [[] stands for itself`);
      const ranges = readRanges(characters.slice(at + 1, end), name);
      if (ranges instanceof Unusable) return ranges;
      tokens.push(ranges.length === 2 && ranges[0] === ranges[1] ? (ranges[0] as number) : ranges);
      at = end;
    } else tokens.push(character.codePointAt(0) as number);
  }
  if (tokens.length === 1 && tokens[0] === STAR) return ANY_SEGMENT;
  const points = tokens.filter((token) => typeof token === "number" && token !== STAR);
  return points.length === tokens.length ? String.fromCodePoint(...(points as number[])) : tokens;
}

/** Reads what stands between brackets. A `-` that is first or last stands for itself. */
function readRanges(characters: readonly string[], name: string): Ranges | Unusable {
  const [first] = characters;
  const place = `in ${shown(name)}`;
  if (first === undefined) return new Unusable(`has [] ${place}, which nothing fits`);
  if ((first === "!" || first === "^") && characters.length > 1)
    return new Unusable(`has [${first} ${place}, but there is no negation; put the ${first} last for itself`);
  if (characters.some((character, at) => character === "[" && /[:.=]/.test(characters[at + 1] ?? "")))
    return new Unusable(`has a class with a name ${place}; say its characters, such as [a-z]`);
  const ranges: number[] = [];
  for (let at = 0; at < characters.length; at += 1) {
    const from = pointAt(characters, at);
    const isRange = characters[at + 1] === "-" && at + 2 < characters.length;
    const to = isRange ? pointAt(characters, at + 2) : from;
    if (to < from) return new Unusable(`has a range that ends before it begins ${place}; turn it around`);
    ranges.push(from, to);
    if (isRange) at += 2;
  }
  return ranges;
}

function pointAt(characters: readonly string[], at: number): number {
  return (characters[at] as string).codePointAt(0) as number;
}

function beginningOf(segments: Pattern["segments"]): Pick<Pattern, "beginning" | "isLiteral"> {
  let beginning = "";
  for (const [index, segment] of segments.entries()) {
    // `a/**` fits `a`, too, so its beginning has no slash.
    if (segment === STAR && index === segments.length - 1) return { beginning, isLiteral: false };
    if (index > 0) beginning += "/";
    if (segment === STAR) return { beginning, isLiteral: false };
    if (typeof segment === "string") {
      beginning += segment;
      continue;
    }
    for (const token of segment) {
      if (typeof token !== "number" || token === STAR) return { beginning, isLiteral: false };
      beginning += String.fromCodePoint(token);
    }
  }
  return { beginning, isLiteral: true };
}

/** How much comparing is left to one call: pairs of places in two patterns. Below 0, answers mean nothing. */
export interface Work {
  left: number;
}

/** True if there is a path that fits both. When the work is used up, the answer is true. */
export function meet(one: Pattern, other: Pattern, work: Work): boolean {
  work.left -= 1;
  if (!one.beginning.startsWith(other.beginning) && !other.beginning.startsWith(one.beginning)) return false;
  if (one.isLiteral && other.isLiteral) return one.beginning === other.beginning;
  return sequencesMeet(one.segments, other.segments, segmentsMeet, work);
}

function segmentsMeet(one: Segment, other: Segment, work: Work): boolean {
  if (one === ANY_SEGMENT || other === ANY_SEGMENT) return true;
  if (typeof one === "string") return typeof other === "string" ? one === other : nameFits(one, other, work);
  if (typeof other === "string") return nameFits(other, one, work);
  return sequencesMeet(one, other, tokensMeet, work);
}

/**
 * True if a name fits a segment. Each star takes as little as it can at first; when what comes after the last one does
 * not fit, that one takes more.
 */
function nameFits(name: string, segment: readonly Token[], work: Work): boolean {
  let [at, place, star, from] = [0, 0, -1, 0];
  for (; at < name.length; work.left -= 1) {
    const token = segment[place];
    if (token === STAR) {
      star = place++;
      from = at;
      continue;
    }
    const point = name.codePointAt(at) as number;
    const fits =
      token !== undefined && (token === point || (typeof token !== "number" && reaches(token, point, point)));
    if (fits) {
      place += 1;
      at += lengthOf(point);
    } else if (star < 0 || work.left < 0) return work.left < 0;
    else {
      place = star + 1;
      from += lengthOf(name.codePointAt(from) as number);
      at = from;
    }
  }
  while (segment[place] === STAR) place += 1;
  return place === segment.length;
}

/** In UTF-16, as texts are kept. */
function lengthOf(point: number): number {
  return point > 0xffff ? 2 : 1;
}

function tokensMeet(one: Token, other: Token): boolean {
  if (one === other || one === ANY || other === ANY) return true;
  if (typeof one === "number") return typeof other !== "number" && reaches(other, one, one);
  if (typeof other === "number") return reaches(one, other, other);
  for (let at = 0; at < one.length; at += 2) {
    if (reaches(other, one[at] as number, one[at + 1] as number)) return true;
  }
  return false;
}

/** True if some of the ranges has a point of those between two. */
function reaches(ranges: Ranges, from: number, to: number): boolean {
  for (let at = 0; at < ranges.length; at += 2) {
    if ((ranges[at] as number) <= to && from <= (ranges[at + 1] as number)) return true;
  }
  return false;
}

/**
 * True if some sequence fits two sequences that may have stars: if the end of their product can be reached. A place of
 * the product is one in each; from a place with a star one goes on in either without the other, from one without in
 * both if what stands there can be the same.
 */
function sequencesMeet<T>(
  one: readonly (T | typeof STAR)[],
  other: readonly (T | typeof STAR)[],
  canBeSame: (one: T, other: T, work: Work) => boolean,
  work: Work,
): boolean {
  const { length: height } = one;
  const { length: width } = other;
  // The places of one row that are reached, by where they are in `other`: a row for each place in `one`.
  let row = new Uint8Array(width + 1);
  let next = new Uint8Array(width + 1);
  row[0] = 1;
  // No place of a row before these is reached.
  let first = 0;
  for (let i = 0; i <= height; i += 1) {
    const here = one[i];
    let firstOfNext = width + 1;
    for (let j = first; j <= width; j += 1) {
      if (row[j] === 0) continue;
      row[j] = 0;
      work.left -= 1;
      const there = other[j];
      if (here === STAR || there === STAR) {
        if (i < height) {
          next[j] = 1;
          if (j < firstOfNext) firstOfNext = j;
        }
        if (j < width) row[j + 1] = 1;
      } else if (i === height && j === width) return true;
      else if (i < height && j < width && canBeSame(here as T, there as T, work)) {
        next[j + 1] = 1;
        if (j + 1 < firstOfNext) firstOfNext = j + 1;
      }
    }
    if (work.left < 0) return true;
    if (firstOfNext > width) return false;
    first = firstOfNext;
    [row, next] = [next, row];
  }
  return false;
}

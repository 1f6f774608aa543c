// Two patterns meet if there is a path that fits both. The oracle knows nothing of automata: it tries all short paths,
// which are as long as a path that fits two of these patterns ever has to be.
import { describe, expect, test } from "vitest";
import {
  literally,
  meet,
  type Pattern,
  readPath,
  readPattern,
  readRoot,
  Unusable,
} from "../../daemon/dist/domain/path/pattern.js";
import { sized } from "../long-form.js";

const PAIRS = sized(100_000, 10_000);

const WORK = 1_000_000;

function pattern(text: string): Pattern {
  const read = readPattern(text);
  if (read instanceof Unusable) throw new Error(`${text} ${read.why}`);
  return read;
}

function path(text: string): Pattern {
  const read = literally(text);
  if (read instanceof Unusable) throw new Error(`${text} ${read.why}`);
  return read;
}

/** Both ways round; the answer must be the same. */
function meets(one: Pattern, other: Pattern): boolean {
  const there = meet(one, other, { left: WORK });
  expect(meet(other, one, { left: WORK }), `${one.text} ${other.text}`).toBe(there);
  return there;
}

const fits = (text: string, name: string): boolean => meets(pattern(text), path(name));
const why = (read: unknown): string =>
  read instanceof Unusable ? read.why : `is fine: ${JSON.stringify(read)}`;

/** Numbers below a bound, the same in each run: mulberry32. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

function words(letters: readonly string[], most: number): string[] {
  if (most === 0) return [""];
  return ["", ...letters.flatMap((letter) => words(letters, most - 1).map((rest) => letter + rest))];
}

/** Tries what each part could stand for. */
function segmentFits(parts: readonly string[], name: string): boolean {
  const [part, ...rest] = parts;
  if (part === undefined) return name === "";
  if (part === "*")
    return Array.from({ length: name.length + 1 }).some((_, taken) => segmentFits(rest, name.slice(taken)));
  const first = name[0];
  if (first === undefined) return false;
  const isOne = part === "?" || part === first || (part.startsWith("[") && part.includes(first));
  return isOne && segmentFits(rest, name.slice(1));
}

function pathFits(segments: readonly (readonly string[])[], names: readonly string[]): boolean {
  const [segment, ...rest] = segments;
  if (segment === undefined) return names.length === 0;
  if (segment[0] === "**")
    return Array.from({ length: names.length + 1 }).some((_, taken) => pathFits(rest, names.slice(taken)));
  const [name, ...others] = names;
  return name !== undefined && segmentFits(segment, name) && pathFits(rest, others);
}

/** Random pairs of patterns: what `meet` says of each is what the paths say. */
function compare(
  patterns: readonly { readonly text: string; readonly fitting: ReadonlySet<number> }[],
  random: (below: number) => number,
): void {
  const read = patterns.map(({ text }) => pattern(text));
  let met = 0;
  for (let pair = 0; pair < PAIRS; pair += 1) {
    const [one, other] = [random(patterns.length), random(patterns.length)];
    const fitting = patterns[other]?.fitting;
    const expected = [...(patterns[one]?.fitting ?? [])].some((number) => fitting?.has(number));
    const answer = meet(read[one] as Pattern, read[other] as Pattern, { left: WORK });
    if (answer !== expected) expect.fail(`${read[one]?.text} and ${read[other]?.text}: ${answer}`);
    if (answer) met += 1;
  }
  // Both answers are frequent.
  expect(met).toBeGreaterThan(PAIRS / 20);
  expect(met).toBeLessThan(PAIRS - PAIRS / 20);
}

describe("two patterns meet when some path fits both", () => {
  test("segments: random pairs against all words of six letters", () => {
    const random = numbers(17);
    const names = words(["a", "b"], 6).filter((name) => name !== "");
    const parts = ["a", "b", "*", "*", "?", "[ab]", "[a]"];
    const patterns = Array.from({ length: PAIRS / 50 }, () => {
      const segment: string[] = [];
      for (let length = 1 + random(4); segment.length < length; ) {
        const part = parts[random(parts.length)] as string;
        // Three at most that take a letter, so that two patterns never need more than six.
        const isTooLong = part !== "*" && segment.filter((each) => each !== "*").length === 3;
        if (isTooLong || (part === "*" && segment.at(-1) === "*")) length -= 1;
        else segment.push(part);
      }
      if (segment.length === 0) segment.push("*");
      const fitting = names.flatMap((name, number) => (segmentFits(segment, name) ? [number] : []));
      return { text: segment.join(""), fitting: new Set(fitting) };
    });
    compare(patterns, random);
  });

  test("paths: random pairs against all paths of four segments", () => {
    const random = numbers(4);
    const segmentNames = words(["a", "b"], 2).filter((name) => name !== "");
    const names = words(
      segmentNames.map((name) => `${name}/`),
      4,
    )
      .filter((name) => name !== "")
      .map((name) => name.slice(0, -1).split("/"));
    const kinds = ["**", "**", "a", "b", "*", "?", "a*", "*b", "?a", "ab", "[ab]b", "[b]"];
    const patterns = Array.from({ length: PAIRS / 50 }, () => {
      const segments = Array.from({ length: 1 + random(3) }, () => kinds[random(kinds.length)] as string);
      const isBelow = segments.length < 3 && random(6) === 0;
      const parts = segments.map((each) => (each === "**" ? [each] : (each.match(/\[\w+\]|./g) ?? [])));
      if (isBelow) parts.push(["*"], ["**"]);
      const fitting = names.flatMap((name, number) => (pathFits(parts, name) ? [number] : []));
      return { text: segments.join("/") + (isBelow ? "/" : ""), fitting: new Set(fitting) };
    });
    compare(patterns, random);
  });

  test.each([
    ["src/*.ts", "*/index.ts", true],
    ["src/*.ts", "*/index.js", false],
    ["src/", "src/a/b", true],
    ["src/", "src", false],
    ["src/**", "src", true],
    ["src/**/a", "src/a", true],
    ["**", "a/b/c", true],
    ["*", ".hidden", true],
    ["?gitignore", ".gitignore", true],
    ["A", "a", false],
    ["[a-c]x", "[c-e]?", true],
    ["[a-c]x", "[d-e]?", false],
    ["[-a]", "-", true],
    ["[a-]", "-", true],
    ["[*]", "*", true],
    ["[*]", "a", false],
    ["?", "\u{1f600}", true],
    ["[\u{1f5ff}-\u{1f601}]", "\u{1f600}", true],
    ["star", "star", true],
    ["**/star", "a/b", false],
    ["src/a*", "src/**/b", false],
    ["src/a*b", "src/ab*", true],
    ["./src//a", "src/./a", true],
  ])("%s and %s: %s", (one, other, expected) => {
    expect(meets(pattern(one), pattern(other))).toBe(expected);
  });
});

describe("a pattern", () => {
  test.each([
    ["../a", /has \.\./],
    ["a/../b", /has \.\./],
    ["/a", /is absolute/],
    ["a\\b", /backslash/],
    ["", /names nothing/],
    ["./", /names nothing/],
    ["a/{b,c}", /brace/],
    ["!a", /no negation/],
    ["a/[!b]", /no negation/],
    ["[^a]", /no negation/],
    ["a/**b", /stands alone/],
    ["a[", /without \]/],
    ["a[b/c]", /without \]/],
    ["[]", /nothing fits/],
    ["[z-a]", /ends before it begins/],
    ["[[:alpha:]]", /class with a name/],
    ["a".repeat(513), /longer than 512/],
  ])("is refused: %s", (text, reason) => {
    expect(why(readPattern(text))).toMatch(reason);
  });

  test("has one form, which stays what it is", () => {
    for (const [given, text] of [
      ["./a//b/./c", "a/b/c"],
      ["a/**/**/b", "a/**/b"],
      ["a//", "a/"],
    ] as const) {
      expect(pattern(given).text).toBe(text);
      expect(pattern(text).text).toBe(text);
    }
  });

  test("begins with what each path begins with", () => {
    const beginnings = ["src/gen-*.ts", "src/**", "src/**/x", "src/", "**", "*a", "a/[b]c?", "a/b"].map(
      (text) => [text, pattern(text).beginning] as const,
    );
    expect(Object.fromEntries(beginnings)).toEqual({
      "src/gen-*.ts": "src/gen-",
      "src/**": "src",
      "src/**/x": "src/",
      "src/": "src/",
      "**": "",
      "*a": "",
      "a/[b]c?": "a/bc",
      "a/b": "a/b",
    });
  });

  test("of a literal path fits that path alone, also by its text", () => {
    for (const name of ["app/[id]/page.tsx", "a*?b", "{a}", "!important", "!", "a]b", "x/!y"]) {
      const literal = path(name);
      expect(literal.isLiteral).toBe(true);
      const again = pattern(literal.text);
      expect(again).toMatchObject({ text: literal.text, beginning: name, isLiteral: true });
      expect(meets(literal, again)).toBe(true);
      expect(fits(literal.text, "app/i/page.tsx")).toBe(false);
    }
  });
});

test("a path is relative and names a file, a root is absolute", () => {
  expect(readPath("./a//b")).toBe("a/b");
  expect(why(readPath("a/"))).toMatch(/ends in a slash/);
  expect(why(readPath("."))).toMatch(/names nothing/);
  expect(why(readPath("a".repeat(4096)))).toMatch(/longer than 4095/);
  expect(why(readPath("a".repeat(256)))).toMatch(/name of more than 255/);
  expect(why(readPath(`${"a/".repeat(128)}a`))).toMatch(/more than 128 segments/);
  expect(readRoot("/")).toBe("/");
  expect(readRoot("//srv/./a/")).toBe("/srv/a");
  expect(why(readRoot("srv"))).toMatch(/not absolute/);
  expect(why(readRoot("/a/../b"))).toMatch(/has \.\./);
});

test("the work of comparing is bounded by the lengths, and stops when it is used up", () => {
  const hostile = [
    "*a".repeat(256),
    `${"*a".repeat(255)}*b`,
    "*/**/".repeat(64),
    `**/${"*a*/".repeat(120)}b`,
    `${"[a-y]*".repeat(85)}z`,
    `${"?*".repeat(255)}b`,
  ].map(pattern);
  hostile.push(path(`${`${"a".repeat(250)}/`.repeat(16)}a`), path(`${"a/".repeat(127)}a`));
  for (const one of hostile) {
    for (const other of hostile) {
      const work = { left: 10_000_000 };
      meet(one, other, work);
      expect(10_000_000 - work.left, `${one.text} ${other.text}`).toBeLessThan(513 * 4097);
    }
  }
  const work = { left: 10 };
  expect(meet(hostile[0] as Pattern, hostile[1] as Pattern, work)).toBe(true);
  expect(work.left).toBeLessThan(0);
});

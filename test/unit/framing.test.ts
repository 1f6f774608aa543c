import { Buffer } from "node:buffer";
import { LINE_TOO_LONG, LineSplitter, NO_ROOM } from "@pawl/protocol/framing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

const LIMIT_BYTES = 16;

/** The output of a stream: lines as text, whether it ended by one too long, and whether a line was cut off. */
interface Outcome {
  lines: string[];
  tooLong: boolean;
  unfinished: boolean;
}

/** Pushes chunks and takes all lines of each before the next. */
function split(chunks: readonly Uint8Array[], limit = LIMIT_BYTES): Outcome {
  const splitter = new LineSplitter(limit, Buffer.allocUnsafe);
  const taken: Buffer[] = [];
  let tooLong = false;
  for (const chunk of chunks) {
    splitter.push(Buffer.from(chunk));
    for (let line = splitter.next(); line !== undefined; line = splitter.next()) {
      tooLong ||= line === LINE_TOO_LONG;
      if (line === LINE_TOO_LONG) break;
      taken.push(line);
    }
  }
  // Looked at only now: lines that were handed out stay what they are.
  return { lines: taken.map((line) => line.toString("latin1")), tooLong, unfinished: splitter.unfinished };
}

/** The rule of wire.md in the fewest words, over the whole stream at once. */
function expected(bytes: Uint8Array, limit = LIMIT_BYTES): Outcome {
  const parts = Buffer.from(bytes).toString("latin1").split("\n");
  const rest = parts.pop() as string;
  const lines: string[] = [];
  for (const part of parts) {
    const line = part.endsWith("\r") ? part.slice(0, -1) : part;
    if (line.length > limit) return { lines, tooLong: true, unfinished: false };
    if (/[^ \t\r]/.test(line)) lines.push(line);
  }
  const tooLong = (rest.endsWith("\r") ? rest.slice(0, -1) : rest).length > limit;
  return { lines, tooLong, unfinished: !tooLong && /[^ \t\r]/.test(rest) };
}

const text = (value: string): Buffer => Buffer.from(value, "latin1");

/** Streams with all that matters close together: line ends, white space, lengths around the limit. */
const stream = fc
  .array(
    fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom("\n", "\r\n", "\r", " ", "\t", "\0", "\xff") },
      {
        weight: 2,
        arbitrary: fc.integer({ min: 1, max: LIMIT_BYTES + 2 }).map((length) => "x".repeat(length)),
      },
      { weight: 1, arbitrary: fc.constant(`${"y".repeat(LIMIT_BYTES)}\r\n`) },
    ),
    { maxLength: 20 },
  )
  .map((parts) => text(parts.join("")));

/** The same stream cut anywhere, also into nothing and into single bytes. */
const chunked = stream.chain((bytes) =>
  fc.array(fc.nat({ max: bytes.length }), { maxLength: 12 }).map((cuts) => {
    const places = [0, ...cuts.sort((a, b) => a - b), bytes.length];
    return { bytes, chunks: places.slice(1).map((end, index) => bytes.subarray(places[index], end)) };
  }),
);

describe("lines", () => {
  test("any chunking gives the lines of the whole", () => {
    fc.assert(
      fc.property(chunked, ({ bytes, chunks }) => {
        expect(split(chunks)).toEqual(expected(bytes));
      }),
      { numRuns: 3000 },
    );
  });

  test("so do single bytes", () => {
    fc.assert(
      fc.property(stream, (bytes) => {
        expect(split(Array.from(bytes, (byte) => Uint8Array.of(byte)))).toEqual(expected(bytes));
      }),
      { numRuns: 1000 },
    );
  });

  test.each<[string, string, Outcome]>([
    ["nothing", "", { lines: [], tooLong: false, unfinished: false }],
    ["line ends only", "\n\r\n\n", { lines: [], tooLong: false, unfinished: false }],
    ["white space only", "  \n\t\r\n", { lines: [], tooLong: false, unfinished: false }],
    ["one \\r is dropped, not two", "a\r\r\n", { lines: ["a\r"], tooLong: false, unfinished: false }],
    ["a \\r inside a line stays", "a\rb\n", { lines: ["a\rb"], tooLong: false, unfinished: false }],
    ["half a line", "a\nb", { lines: ["a"], tooLong: false, unfinished: true }],
    ["white space after the last line", "a\n \r", { lines: ["a"], tooLong: false, unfinished: false }],
    [
      "a line at the limit",
      `${"x".repeat(16)}\n`,
      { lines: ["x".repeat(16)], tooLong: false, unfinished: false },
    ],
    [
      "at the limit with \\r",
      `${"x".repeat(16)}\r\n`,
      { lines: ["x".repeat(16)], tooLong: false, unfinished: false },
    ],
    ["one over", `${"x".repeat(17)}\n`, { lines: [], tooLong: true, unfinished: false }],
    ["one over without its end", "x".repeat(17), { lines: [], tooLong: true, unfinished: false }],
    [
      "at the limit, and then perhaps its end",
      `${"x".repeat(16)}\r`,
      { lines: [], tooLong: false, unfinished: true },
    ],
    ["that was not its end", `${"x".repeat(16)}\rx`, { lines: [], tooLong: true, unfinished: false }],
    [
      "lines after one that is too long",
      `a\n${"x".repeat(17)}\nb\n`,
      { lines: ["a"], tooLong: true, unfinished: false },
    ],
  ])("%s", (_, input, outcome) => {
    expect(split([text(input)])).toEqual(outcome);
    expect(split([...input].map(text))).toEqual(outcome);
    expect(expected(text(input))).toEqual(outcome);
  });
});

describe("use", () => {
  test("lines may be taken later, and stay valid", () => {
    const splitter = new LineSplitter(100, Buffer.allocUnsafe);
    splitter.push(text("one\ntwo\nthr"));
    const first = splitter.next() as Buffer;
    const second = splitter.next() as Buffer;
    expect(splitter.next()).toBeUndefined();
    splitter.push(text("ee\nfour\nf"));
    const third = splitter.next() as Buffer;
    const fourth = splitter.next() as Buffer;
    expect(splitter.next()).toBeUndefined();
    splitter.push(text("ive\n"));
    const fifth = splitter.next() as Buffer;
    expect([first, second, third, fourth, fifth].map(String)).toEqual([
      "one",
      "two",
      "three",
      "four",
      "five",
    ]);
  });

  test("blank lines are passed over, and none is cut out", () => {
    const splitter = new LineSplitter(100, Buffer.allocUnsafe);
    const chunk = text(`${"\n \r\n".repeat(20_000)}one\n${"\n".repeat(20_000)}`);
    let cuts = 0;
    const cut = chunk.subarray.bind(chunk);
    chunk.subarray = (from, to) => {
      cuts += 1;
      return cut(from, to);
    };
    splitter.push(chunk);
    expect(String(splitter.next())).toBe("one");
    expect(splitter.next()).toBeUndefined();
    expect(cuts).toBe(1);
  });

  test("too long is for good", () => {
    const splitter = new LineSplitter(2, Buffer.allocUnsafe);
    splitter.push(text("xxx\na\n"));
    expect(splitter.next()).toBe(LINE_TOO_LONG);
    expect(splitter.next()).toBe(LINE_TOO_LONG);
    splitter.push(text("b\n"));
    expect(splitter.next()).toBe(LINE_TOO_LONG);
    expect(splitter.unfinished).toBe(false);
  });

  test("a chunk is refused while lines of the one before are left", () => {
    const splitter = new LineSplitter(100, Buffer.allocUnsafe);
    splitter.push(text("a\nb\n"));
    splitter.next();
    expect(() => splitter.push(text("c\n"))).toThrow("used up");
  });

  test("a line that there is no room for waits for room, and nothing of it is lost", () => {
    let room = false;
    const splitter = new LineSplitter<Buffer | undefined>(100, (bytes) =>
      room ? Buffer.allocUnsafe(bytes) : undefined,
    );
    splitter.push(text("one\ntw"));
    expect(String(splitter.next())).toBe("one");
    expect(splitter.next()).toBe(NO_ROOM);
    expect(splitter.next()).toBe(NO_ROOM);
    room = true;
    expect(splitter.next()).toBeUndefined();
    splitter.push(text("o\n"));
    expect(String(splitter.next())).toBe("two");
  });

  test("a line that is too long may be skipped, however it comes", () => {
    const input = "one\nxxxxxxxxxxxxx\r\ntwo\n";
    for (const chunks of [[input], [...input]]) {
      const splitter = new LineSplitter(5, Buffer.allocUnsafe);
      const lines: string[] = [];
      const skipped: string[] = [];
      let isSkipping = false;
      for (const chunk of chunks) {
        splitter.push(text(chunk));
        for (;;) {
          if (isSkipping && !splitter.skip((bytes) => skipped.push(String(bytes)))) break;
          const line = splitter.next();
          isSkipping = line === LINE_TOO_LONG;
          if (line === undefined) break;
          if (line !== LINE_TOO_LONG) lines.push(String(line));
        }
      }
      expect(lines).toEqual(["one", "two"]);
      expect(skipped.join("")).toBe("xxxxxxxxxxxxx\r");
    }
  });

  test("holds no more than a line and a chunk, however the line comes", () => {
    const limit = 1024 * 1024;
    let allocated = 0;
    const splitter = new LineSplitter(limit, (bytes) => {
      allocated += bytes;
      return Buffer.allocUnsafe(bytes);
    });
    for (let sent = 0; sent < limit; sent += 1024) {
      splitter.push(Buffer.alloc(1024, "x"));
      expect(splitter.next()).toBeUndefined();
    }
    // Doubling adds up to less than four times what is held; a copy for each chunk would be 500 times.
    expect(allocated).toBeLessThan(4 * limit);
    splitter.push(text("\n"));
    expect((splitter.next() as Buffer).length).toBe(limit);
  });
});

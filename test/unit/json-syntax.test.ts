// The check of JSON that arrives in pieces, against the one that has it all at once.
import { isUtf8 } from "node:buffer";
import { MAX_PAYLOAD_NESTING_LEVELS } from "@pawl/protocol/limits";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { JsonSyntax } from "../../daemon/dist/json/syntax.js";

/** True if bytes are one JSON text, when they come in pieces that end at these places. */
function accepts(bytes: Uint8Array, cuts: readonly number[] = [], restart = false): boolean {
  let syntax = new JsonSyntax();
  let from = 0;
  for (const to of [...cuts.filter((cut) => cut <= bytes.length).sort((a, b) => a - b), bytes.length]) {
    if (syntax.take(bytes.subarray(from, to)) !== undefined) return false;
    if (restart) syntax = JsonSyntax.restore(syntax.save());
    from = to;
  }
  return syntax.complete;
}

/** The same, by what JSON.parse says; it takes no bytes, and a byte order mark only as text. */
function isJson(bytes: Uint8Array): boolean {
  if (!isUtf8(bytes)) return false;
  try {
    JSON.parse(Buffer.from(bytes).toString("utf8"));
    return true;
  } catch {
    return false;
  }
}

const value = fc.jsonValue({ stringUnit: "binary", maxDepth: 6 });
const cuts = fc.array(fc.nat(200), { maxLength: 8 });

describe("JSON in pieces", () => {
  test("is accepted however it is cut, also when the checker is saved in between", () => {
    fc.assert(
      fc.property(
        value,
        fc.constantFrom(undefined, 1, "\t"),
        cuts,
        fc.boolean(),
        (json, space, at, restart) => {
          const bytes = Buffer.from(JSON.stringify(json, undefined, space));
          expect(accepts(bytes, at, restart)).toBe(true);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("is judged like JSON.parse judges it, after small changes", () => {
    let refused = 0;
    fc.assert(
      fc.property(value, fc.nat(), fc.nat(255), fc.nat(3), cuts, (json, place, byte, change, at) => {
        const whole = Buffer.from(JSON.stringify(json));
        const index = place % whole.length;
        // A byte replaced, left out, or put in; or the end cut off.
        const bytes = [
          Buffer.concat([whole.subarray(0, index), Buffer.of(byte), whole.subarray(index + 1)]),
          Buffer.concat([whole.subarray(0, index), whole.subarray(index + 1)]),
          Buffer.concat([whole.subarray(0, index), Buffer.of(byte), whole.subarray(index)]),
          whole.subarray(0, index),
        ][change] as Buffer;
        const wanted = isJson(bytes);
        if (!wanted) refused += 1;
        expect(accepts(bytes, at, true)).toBe(wanted);
      }),
      { numRuns: 10_000 },
    );
    expect(refused).toBeGreaterThan(1000);
  });

  test("is judged like JSON.parse judges it, in long texts wherever they are in memory", () => {
    const long = fc.string({ unit: "binary", minLength: 20, maxLength: 120 });
    const bytesOfInterest = fc.constantFrom(
      0x00,
      0x1f,
      0x20,
      0x22,
      0x5c,
      0x7f,
      0x80,
      0xbf,
      0xc3,
      0xe2,
      0xf0,
      0xff,
    );
    let refused = 0;
    fc.assert(
      fc.property(
        long,
        fc.boolean(),
        fc.nat(3),
        fc.nat(),
        bytesOfInterest,
        cuts,
        (text, isName, offset, place, byte, at) => {
          const json = Buffer.from(JSON.stringify(isName ? { [text]: 1 } : [text]));
          const bytes = Buffer.alloc(offset + json.length).subarray(offset);
          json.copy(bytes);
          expect(accepts(bytes, at)).toBe(true);
          bytes[place % bytes.length] = byte;
          const wanted = isJson(bytes);
          if (!wanted) refused += 1;
          expect(accepts(bytes, at)).toBe(wanted);
        },
      ),
      { numRuns: 5000 },
    );
    expect(refused).toBeGreaterThan(1000);
  });

  test("is judged like JSON.parse judges it, for what is nearly a number or a word", () => {
    const characters = fc.constantFrom(..."0123456789-+.eE tfn");
    const text = fc.array(characters, { maxLength: 7 }).map((each) => each.join(""));
    const words = fc.constantFrom("true", "false", "null", "tru", "nul", "truex", "nulll", "True", "falsee");
    fc.assert(
      fc.property(fc.oneof(text, words), fc.boolean(), (inner, inArray) => {
        const bytes = Buffer.from(inArray ? `[${inner}]` : inner);
        expect(accepts(bytes)).toBe(isJson(bytes));
      }),
      { numRuns: 5000 },
    );
  });

  test.each([
    ["an overlong encoding", [0x22, 0xc0, 0xaf, 0x22]],
    ["an overlong encoding of three bytes", [0x22, 0xe0, 0x80, 0xaf, 0x22]],
    ["an overlong encoding of four bytes", [0x22, 0xf0, 0x80, 0x80, 0xaf, 0x22]],
    ["a surrogate", [0x22, 0xed, 0xa0, 0x80, 0x22]],
    ["a character beyond U+10FFFF", [0x22, 0xf4, 0x90, 0x80, 0x80, 0x22]],
    ["a character cut off", [0x22, 0xe2, 0x82, 0x22]],
    ["a continuation alone", [0x22, 0x80, 0x22]],
    ["a byte order mark", [0xef, 0xbb, 0xbf, 0x31]],
    ["a control character", [0x22, 0x1f, 0x22]],
    ["nothing", []],
    ["space alone", [0x20, 0x0a]],
    ["two values", [0x31, 0x20, 0x32]],
  ])("is refused for %s", (_what, bytes) => {
    expect(isJson(Uint8Array.from(bytes))).toBe(false);
    expect(accepts(Uint8Array.from(bytes))).toBe(false);
    expect(accepts(Uint8Array.from(bytes), [1, 2, 3, 4])).toBe(false);
  });

  test("names the first byte that cannot be there", () => {
    const syntax = new JsonSyntax();
    expect(syntax.take(Buffer.from('{"a": [1, 2'))).toBeUndefined();
    expect(syntax.take(Buffer.from(", 3}"))).toBe(3);
  });

  test("may nest as deeply as a payload", () => {
    const nested = (levels: number, open: string, close: string): Buffer =>
      Buffer.from(`${open.repeat(levels)}1${close.repeat(levels)}`);
    expect(accepts(nested(MAX_PAYLOAD_NESTING_LEVELS, "[", "]"))).toBe(true);
    expect(accepts(nested(MAX_PAYLOAD_NESTING_LEVELS, '{"a":', "}"), [77], true)).toBe(true);
    expect(accepts(nested(MAX_PAYLOAD_NESTING_LEVELS + 1, "[", "]"))).toBe(false);
    // Levels that were left do not count.
    expect(accepts(Buffer.from(`[${"[],".repeat(100_000)}[]]`))).toBe(true);
  });
});

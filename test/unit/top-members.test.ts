// The outermost members of a JSON text that comes in pieces.
import fc from "fast-check";
import { expect, test } from "vitest";
import { meaningOf, TopMembers } from "../../daemon/dist/json/top-members.js";

/** The members of an object found in pieces of these lengths, each by what its text means. */
function found(text: Buffer, lengths: readonly number[]): [unknown, unknown][] {
  let members = new TopMembers();
  for (let at = 0, turn = 0; at < text.length; turn += 1) {
    const end = at + (lengths[turn % lengths.length] as number);
    members.take(text.subarray(at, end));
    members = new TopMembers(members.save());
    at = end;
  }
  return members.members.map(({ name, from, to }) => [
    meaningOf(name),
    JSON.parse(text.toString("utf8", from, to)),
  ]);
}

test("are found wherever the pieces end", () => {
  const value = fc.jsonValue({ maxDepth: 3 });
  const object = fc.dictionary(fc.string({ unit: "grapheme", maxLength: 20 }), value, { maxKeys: 6 });
  fc.assert(
    fc.property(
      object,
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
      fc.boolean(),
      (it, lengths, wide) => {
        const text = JSON.stringify(it, null, wide ? 2 : 0);
        expect(found(Buffer.from(text), lengths)).toEqual(Object.entries(JSON.parse(text)));
      },
    ),
  );
});

test("are none of what is no object, and those of a long text have the beginnings of their values", () => {
  for (const text of ['[{"a":1}]', '"a:b,c"', "17", "null"])
    expect(found(Buffer.from(text), [1])).toEqual([]);
  const long = `x"\\ü${"y".repeat(5000)}"`;
  const text = Buffer.from(JSON.stringify({ long, after: 1 }));
  expect(found(text, [7])).toEqual([
    ["long", long],
    ["after", 1],
  ]);
  const members = new TopMembers();
  members.take(text);
  expect(members.members.map(({ value }) => meaningOf(value))).toEqual([undefined, 1]);
});

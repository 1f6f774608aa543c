// A piece of an upload that is decoded and checked in steps, against the same all at once.
import fc from "fast-check";
import { expect, test } from "vitest";
import { JsonSyntax } from "../../daemon/dist/json/syntax.js";
import { rememberChecked, UploadedPiece } from "../../daemon/dist/json/uploaded-piece.js";

const COMMAND = "cmd_1";
const NOTHING = new Uint8Array();
/** Several steps of a piece. */
const LONG = JSON.stringify(Array.from({ length: 30_000 }, (_, index) => ({ index, text: `äöü ${index}` })));

function piece(bytes: Buffer, offset: number): UploadedPiece {
  return new UploadedPiece(Buffer.from(bytes.toString("base64")), { commandId: COMMAND, offset });
}

/** The saved check of a text that follows another, or the place where it fails. */
function checked(before: Uint8Array, bytes: Buffer): Buffer | number {
  const syntax = before.length === 0 ? new JsonSyntax() : JsonSyntax.restore(before);
  return syntax.take(bytes) ?? Buffer.from(syntax.save());
}

function resultOf(of: UploadedPiece, before: Uint8Array): Buffer | number {
  const result = of.checkAfter(before);
  return typeof result === "number" ? result : Buffer.from(result.save());
}

test("gives the bytes and the check of its text, whether or not it knew what it follows", () => {
  const text = Buffer.from(LONG);
  fc.assert(
    fc.property(
      fc.nat(text.length),
      fc.option(fc.tuple(fc.nat(), fc.nat(255))),
      fc.constantFrom("known", "forgotten", "mistaken"),
      (cut, damage, memory) => {
        const second = Buffer.from(text.subarray(cut));
        if (damage !== null && second.length > 0) second[damage[0] % second.length] = damage[1];
        const before = checked(NOTHING, text.subarray(0, cut)) as Buffer;
        const isKnown = memory === "known";
        rememberChecked(
          COMMAND,
          memory === "forgotten" ? -1 : cut,
          isKnown ? before : new JsonSyntax().save(),
        );

        const inSteps = piece(second, cut);
        let steps = 0;
        while (inSteps.step()) steps += 1;
        expect(steps).toBe(Math.ceil((Math.ceil(second.length / 3) * 4 - padding(second)) / (64 * 1024)));
        expect(inSteps.bytes?.equals(second)).toBe(true);
        const expected = checked(before, second);
        expect(resultOf(inSteps, before)).toEqual(expected);
        // A turn that was rolled back asks again.
        expect(resultOf(inSteps, before)).toEqual(expected);
        expect(resultOf(piece(second, cut), before)).toEqual(expected);
      },
    ),
    { numRuns: 60 },
  );
});

function padding(bytes: Buffer): number {
  return (3 - (bytes.length % 3)) % 3;
}

test.each(["*", "A", "MTI*", "MTIzN", "MT Iz", `${"A".repeat(100_000)}*`, `${"A".repeat(65_536)}*AAA`])(
  "has no bytes when its text is no base64 (%#)",
  (text) => {
    rememberChecked(COMMAND, 0, NOTHING);
    const wrong = new UploadedPiece(Buffer.from(text), { commandId: COMMAND, offset: 0 });
    expect(wrong.bytes).toBeNull();
  },
);

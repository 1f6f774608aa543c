// Calls that wait for a locked database, within the memory that there is for what waits.
import { MAX_WAITS_BYTES } from "@pawl/protocol/limits";
import { expect, test } from "vitest";
import { HeldCalls } from "../../daemon/dist/turns/held-calls.js";

const MEBIBYTE = 1024 * 1024;

test("calls are held as far as their parsed params may take, and one of any length", () => {
  const held = new HeldCalls();
  const call = (bytes: number) => ({ since: 0, bytes, goOn() {}, refuse() {} });
  expect(held.isFullFor(64 * MEBIBYTE)).toBe(false);
  // A text of empty arrays is a sixteenth of what they are in memory.
  let bytes = 0;
  while (!held.isFullFor(MEBIBYTE)) {
    held.add(call(MEBIBYTE));
    bytes += MEBIBYTE;
  }
  expect(bytes).toBe(MAX_WAITS_BYTES / 16);
  expect(held.isFullFor(0)).toBe(false);
  held.goOn();
  expect(held.isFullFor(MEBIBYTE)).toBe(false);
});

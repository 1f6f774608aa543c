// When a daemon looks at all of its memory to give some back.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AfterPeak } from "../../daemon/dist/socket/garbage.js";

const MEBIBYTE = 1024 * 1024;
/** Longer than the time between two looks at how much is in use. */
const WHILE_MS = 6000;

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }));
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

test("what connections held and hold no longer is given back, though no more is in use than before", () => {
  vi.spyOn(process.memoryUsage, "rss").mockReturnValue(140 * MEBIBYTE);
  const trim = vi.fn();
  let held = 12 * MEBIBYTE;
  const afterPeak = new AfterPeak(trim, () => held);
  for (let looks = 0; looks < 5; looks++) vi.advanceTimersByTime(WHILE_MS);
  trim.mockClear();
  vi.advanceTimersByTime(WHILE_MS);
  expect(trim).not.toHaveBeenCalled();
  held = 0;
  vi.advanceTimersByTime(WHILE_MS);
  expect(trim).toHaveBeenCalled();
  afterPeak.end();
});

// When a daemon looks at all of its memory to give some back.
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AfterPeak } from "../../daemon/dist/socket/garbage.js";

const MEBIBYTE = 1024 * 1024;
/** Longer than the time between two looks at how much is in use. */
const WHILE_MS = 6000;
const BETWEEN_LOOKS_MS = 5000;

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

test("what calls had while they were performed is given back once they are, though no more is in use than then", () => {
  let usedMs = 0;
  vi.spyOn(process, "cpuUsage").mockImplementation(() => ({ user: usedMs * 1000, system: 0 }));
  const rss = vi.spyOn(process.memoryUsage, "rss").mockReturnValue(150 * MEBIBYTE);
  const trim = vi.fn();
  const afterPeak = new AfterPeak(trim, () => 0);
  for (let looks = 0; looks < 5; looks++) {
    usedMs += BETWEEN_LOOKS_MS / 2;
    vi.advanceTimersByTime(BETWEEN_LOOKS_MS);
  }
  trim.mockClear();
  usedMs += BETWEEN_LOOKS_MS / 2;
  vi.advanceTimersByTime(BETWEEN_LOOKS_MS);
  expect(trim).not.toHaveBeenCalled();
  vi.advanceTimersByTime(BETWEEN_LOOKS_MS);
  expect(trim).toHaveBeenCalled();
  // It has nothing more to look for while it rests, nor where it uses little.
  vi.advanceTimersByTime(2 * BETWEEN_LOOKS_MS);
  trim.mockClear();
  vi.advanceTimersByTime(5 * BETWEEN_LOOKS_MS);
  rss.mockReturnValue(90 * MEBIBYTE);
  usedMs += BETWEEN_LOOKS_MS / 2;
  vi.advanceTimersByTime(3 * BETWEEN_LOOKS_MS);
  expect(trim).not.toHaveBeenCalled();
  afterPeak.end();
});

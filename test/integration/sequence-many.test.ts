// Many processes that take numbers of one type at the same time: no duplicate, no gap, rising for each. With
// PAWL_TORTURE=1 each takes five times as many.
import { expect, test } from "vitest";
import { sharedDaemon } from "../daemon.js";
import { sized } from "../long-form.js";
import { isRising, startWorker, upTo } from "../worker.js";

const PROCESSES = 8;
const FACTOR = sized(5, 1);

const daemon = sharedDaemon();

test.each([
  ["Node", "next.js", 1000 * FACTOR, []],
  ["Python", "next.py", 1000 * FACTOR, []],
  // As `pawl next` does.
  ["Node with a connection each time", "next.js", 100 * FACTOR, ["--short"]],
] as const)("%s", async (name, file, each, options) => {
  const type = name.split(" ").join("_");
  const workers = upTo(PROCESSES).map(() =>
    startWorker(file, [daemon().place.socket, type, String(each), ...options]),
  );
  const taken = await Promise.all(workers.map(({ printed }) => printed));
  for (const numbers of taken) {
    expect(numbers).toHaveLength(each);
    expect(isRising(numbers)).toBe(true);
  }
  expect(taken.flat().sort((a, b) => a - b)).toEqual(upTo(PROCESSES * each));
  const client = await daemon().place.connect();
  expect((await client.call("sequence.state", {})).sequences[type.toUpperCase()]).toBe(PROCESSES * each);
});

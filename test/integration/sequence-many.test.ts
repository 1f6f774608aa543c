// Many processes that take numbers of one type at the same time: no duplicate, no gap, rising for each. With
// PAWL_TORTURE=1 more processes take more of them.
import { expect, test } from "vitest";
import { sharedDaemon } from "../daemon.js";
import { sized, TORTURE } from "../long-form.js";
import { isRising, startWorker, upTo } from "../worker.js";

const PROCESSES = TORTURE ? 8 : 4;
const EACH = sized(5000, 300);
/** Of those that connect for each number, which is dear. */
const SHORT_EACH = sized(500, 50);

const daemon = sharedDaemon();

test.each([
  ["Node", "next.js", EACH, []],
  ["Python", "next.py", EACH, []],
  // As `pawl next` does.
  ["Node with a connection each time", "next.js", SHORT_EACH, ["--short"]],
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

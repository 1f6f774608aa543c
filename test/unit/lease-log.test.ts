// The checker of the log that processes write which take leases: what it lets pass, and what it does not.
import { expect, test } from "vitest";
import { checkWaits, type LogLine } from "../lease-log.js";

const LOST_MS = 1000;

/** Lines of one request: `ask`, `queued` and so on, each a millisecond after the one before if no time is given. */
type Line = readonly [word: string, id: string, at: number, more?: Partial<LogLine>];

function waits(...lines: readonly Line[]) {
  return () =>
    checkWaits(
      lines.map(([word, id, at, more]) => ({ word, id, at, ...more })),
      LOST_MS,
    );
}

const ofA = { names: ["a"] };
const token = (fencingToken: number, name = "a") => ({ held: [{ name, fencingToken }] });

const HELD: readonly Line[] = [
  ["ask", "p1/0", 0, ofA],
  ["queued", "p1/0", 1],
  ["granted", "p1/0", 1],
  ["begin", "p1/0", 1, token(1)],
  ["ask", "p2/0", 2, ofA],
  ["queued", "p2/0", 3],
];
const LATER: readonly Line[] = [
  ["ask", "p3/0", 4, ofA],
  ["queued", "p3/0", 5],
];

test("those who come one after the other pass", () => {
  const seen = waits(
    ...HELD,
    ...LATER,
    ["released", "p1/0", 500],
    ["granted", "p2/0", 501],
    ["begin", "p2/0", 501, token(2)],
    ["released", "p2/0", 800],
    ["granted", "p3/0", 801],
    ["begin", "p3/0", 801, token(3)],
  )();
  expect(seen).toMatchObject({ inOrder: 3, bounded: 3, behindOthers: 2, longestMs: 796, noiseMs: 100 });
});

test("a later request that was granted first does not", () => {
  const overtaken = waits(
    ...HELD,
    ...LATER,
    ["released", "p1/0", 500],
    ["granted", "p3/0", 501],
    ["begin", "p3/0", 501, token(2)],
    ["released", "p3/0", 502],
    ["granted", "p2/0", 503],
    ["begin", "p2/0", 503, token(3)],
  );
  expect(overtaken).toThrow("p3/0 has asked for a when p2/0 waited for it, and was granted it before that");
});

test("a wait for which nobody before it accounts does not", () => {
  const idle = waits(
    ...HELD,
    ["released", "p1/0", 100],
    ["granted", "p2/0", 500],
    ["begin", "p2/0", 500, token(2)],
  );
  expect(idle).toThrow("p2/0 waited 497 ms, and those before it (p1/0) account for 297 ms of that");
});

test("those who come before others that come before it count, and those who want something else do not", () => {
  const joint: readonly Line[] = [
    ["ask", "p1/0", 0, { names: ["b"] }],
    ["queued", "p1/0", 1],
    ["granted", "p1/0", 1],
    ["ask", "p2/0", 2, { names: ["a", "b"] }],
    ["queued", "p2/0", 3],
    ["ask", "p3/0", 4, ofA],
    ["queued", "p3/0", 5],
    ["released", "p1/0", 500],
    ["granted", "p2/0", 501],
    ["released", "p2/0", 502],
    ["granted", "p3/0", 503],
  ];
  expect(waits(...joint)()).toMatchObject({ bounded: 3, behindOthers: 2, longestMs: 498 });
  const withoutJoint = joint.filter(([, id]) => id !== "p2/0");
  expect(waits(...withoutJoint)).toThrow(
    "p3/0 waited 498 ms, and those before it () account for 100 ms of that",
  );
});

test("one that was killed may have had its lease until it was lost, and no longer", () => {
  const killed = (at: number) => waits(...HELD, ["killed", "p1", 100], ["granted", "p2/0", at]);
  expect(killed(1250)()).toMatchObject({ bounded: 2 });
  expect(killed(1400)).toThrow("p2/0 waited 1397 ms");
});

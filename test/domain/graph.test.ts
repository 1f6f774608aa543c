// The holders that `daemon.graph` shows: of all that is held, of nothing that has ended, and no more than a page.
import type { Result } from "@pawl/protocol";
import { MAX_GRAPH_ROWS, MAX_PAGE_BYTES, MAX_PATTERN_LENGTH } from "@pawl/protocol/limits";
import { expect, test } from "vitest";
import { Clocks } from "../clocks.js";
import { changeRows, InProcess } from "../in-process.js";

const HOUR_MS = 3_600_000;

/** Who holds what, by the ids of both. */
function holds({ edges }: Result<"daemon.graph">): string[] {
  return edges.filter(({ what }) => what === "holds").map(({ from, to }) => `${from} ${to}`);
}

test("a claim under a lease is held as long as the lease is", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  await pawl.call("queue.enqueue", { queue: "q", payloads: [1], key: "k" });
  const { lease } = await pawl.call("lease.acquire", { name: "l", owner: "w", ttlMs: 1000 });
  const under = { lease: { name: "l", fencingToken: lease.fencingToken } };
  await pawl.call("queue.claim", { queue: "q", owner: "w", under });
  time.pass(400);
  const graph = await pawl.call("daemon.graph", {});
  expect(holds(graph)).toEqual(["process:#1 lease:l", "process:#1 queue:q", "process:#1 key:q k"]);
  expect(graph.edges.map(({ sinceMs }) => sinceMs)).toEqual([400, 400, 400]);
  time.pass(600);
  expect(holds(await pawl.call("daemon.graph", {}))).toEqual([]);
});

test("who holds several claims of a queue does so for as long as the first of them", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  const claim = { queue: "q", owner: "w" } as const;
  await pawl.call("queue.enqueueMany", { batches: [1, 2].map((each) => ({ queue: "q", payloads: [each] })) });
  await pawl.call("queue.claim", { ...claim, leaseMs: HOUR_MS });
  time.pass(300);
  // It ends before the other, and so is found first.
  await pawl.call("queue.claim", { ...claim, leaseMs: 1000 });
  const sinceMs = async () => (await pawl.call("daemon.graph", {})).edges.map((edge) => edge.sinceMs);
  expect(await sinceMs()).toEqual([300]);
  changeRows(pawl.path, "UPDATE pawl_batch SET claimed_at = NULL");
  expect(await sinceMs()).toEqual([null]);
});

test("claims whose grace after a restart is over are not held, also while their ends are not all seen to", async () => {
  const time = new Clocks();
  const before = new InProcess({ time });
  const many = MAX_GRAPH_ROWS - 50;
  await before.call("queue.enqueueMany", {
    batches: Array.from({ length: many }, (_, index) => ({ queue: "q", payloads: [index] })),
  });
  const claim = { queue: "q", owner: "w", leaseMs: HOUR_MS, releaseOn: "disconnect" } as const;
  for (let index = 0; index < many; index += 1) await before.call("queue.claim", claim);
  expect(holds(await before.call("daemon.graph", {}))).toEqual(["process:1 queue:q"]);
  before.close();
  const pawl = new InProcess({ time, path: before.path });
  expect(holds(await pawl.call("daemon.graph", {}))).toEqual(["process:1 queue:q"]);
  time.pass(60_000);
  // The turn of this call ends three hundred of them.
  expect(holds(await pawl.call("daemon.graph", {}))).toEqual([]);
});

test("many reservations of long patterns are shown as far as a page goes, beside holders of other kinds", async () => {
  const pawl = new InProcess({ path: ":memory:" });
  const long = (text: string): string => text.padEnd(MAX_PATTERN_LENGTH, "x");
  for (let index = 0; index < 200; index += 1) {
    const patterns = Array.from({ length: 64 }, (_, place) => long(`${index}/${place}/`));
    await pawl.call("path.reserve", { root: long("/tree/"), patterns, owner: "o" });
  }
  await pawl.call("queue.enqueue", { queue: "q", payloads: [1] });
  await pawl.call("queue.claim", { queue: "q", owner: "w" });
  const graph = await pawl.call("daemon.graph", {});
  expect(graph.more).toBe(true);
  expect(JSON.stringify(graph).length).toBeLessThan(MAX_PAGE_BYTES + 1000);
  expect(graph.nodes.filter(({ kind }) => kind === "path").length).toBeGreaterThan(100);
  expect(holds(graph)).toContain("process:#1 queue:q");
  const ends = new Set(graph.edges.flatMap(({ from, to }) => [from, to]));
  expect(graph.nodes.filter(({ id }) => !ends.has(id))).toEqual([]);
});

// Old changes are taken away, and changes ahead of the time are given again: at the socket, between daemons.
// Not over shared names: the board is each node's own.
import { createPrivateKey, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { PawlError } from "@pawl/protocol/errors";
import { describe, expect, test } from "vitest";
import { syncBoards } from "../../client/dist/index.js";
import { BoardNode, trustEachOther } from "../board-nodes.js";
import { Author } from "../property/board-author.js";
import { pawl } from "./cli-program.js";

const DAY_MS = 86_400_000;

/** A daemon whose wall clock is wrong. */
function atTime(aheadMs: number): { command: string[] } {
  const script = `const now = Date.now; Date.now = () => now() + ${aheadMs};`;
  return { command: [process.execPath, "--import", `data:text/javascript,${encodeURIComponent(script)}`] };
}

/** A text as the node itself would sign it as what it has. */
function signedBy({ place }: BoardNode, body: string): { body: string; signature: string } {
  const key = createPrivateKey(readFileSync(join(place.stateDir, "identity.key")));
  return { body, signature: sign(null, Buffer.from(`pawl-board-heads-v1\0${body}`), key).toString("hex") };
}

/** Nodes that trust each other and have the same changes, of which each but one is replaced by the next. */
async function nodesWith(changes: number, ...options: { command?: string[] }[]): Promise<BoardNode[]> {
  const nodes: BoardNode[] = [];
  for (const each of options) nodes.push(await BoardNode.start(each));
  const [first, ...others] = nodes as [BoardNode, ...BoardNode[]];
  for (let index = 0; index < changes; index += 1) {
    await first.client.pipeline.write({
      storyId: "A",
      stage: "1_backlog",
      name: `name ${index}`,
      rank: "a0",
    });
  }
  await trustEachOther(...nodes);
  for (const other of others) await syncBoards(first.client, other.client);
  return nodes;
}

describe("pipeline.compact", () => {
  test("takes away what nothing rests on, once the peer has said that it has it; and only then", async () => {
    const [a, b] = (await nodesWith(100, {}, {})) as [BoardNode, BoardNode];
    const before = await a.content();
    const { revision } = await a.client.pipeline.watch();
    const { author } = await b.client.pipeline.identity();
    for (const name of ["unknown to b", "this, too"]) {
      await a.client.pipeline.write({ storyId: "A", name, stage: "1_backlog", rank: "a0" });
    }
    expect(await a.client.pipeline.compact({ dryRun: true })).toMatchObject({
      changes: 100,
      kept: 0,
      unknown: 1,
      waitsFor: [{ author, name: "node 1", saidAt: expect.any(Number) }],
    });
    await syncBoards(b.client, a.client);
    const done = await a.client.pipeline.compact();
    expect(done).toEqual({ changes: 101, bytes: expect.any(Number), kept: 0, unknown: 0, waitsFor: [] });
    expect(await a.client.pipeline.compact()).toEqual({ ...done, changes: 0, bytes: 0 });
    expect((await a.client.daemon.stats()).pipeline).toMatchObject({ items: 1, changes: 1, forks: 0 });
    expect((await a.client.pipeline.watch()).revision).toBe(revision + 2);
    expect((await a.client.pipeline.history({ storyId: "A" })).changes).toHaveLength(1);
    expect((await a.client.daemon.check()).problems).toEqual([]);
    // The other one has all, and nothing has changed for it.
    expect(await syncBoards(a.client, b.client)).toEqual({ pulled: 0, pushed: 0, refused: [] });
    expect(await a.content()).toEqual(await b.content());
    expect(await a.content()).not.toEqual(before);
    const { cuts, heads } = await a.client.pipeline.heads();
    expect(cuts).toMatchObject([{ author: heads[0]?.author, cut: { seq: 101 } }]);
    expect((await b.client.pipeline.heads()).cuts).toEqual([]);
  });

  test("a node that lacks what was cut is given what is kept, passes it on, and goes on after restarts", async () => {
    const [a] = (await nodesWith(300, {})) as [BoardNode];
    await a.client.pipeline.write({ storyId: "B", stage: "2_current", note: "stays", retryCountDelta: 2 });
    await a.client.pipeline.write({ storyId: "C", stage: "2_current" });
    await a.client.pipeline.delete({ storyId: "C" });
    await a.client.pipeline.write({ storyId: "A", name: "last" });
    expect(await a.client.pipeline.compact()).toMatchObject({ changes: 300, kept: 3 });
    const [b, c] = [await BoardNode.start(), await BoardNode.start()];
    await trustEachOther(a, b, c);
    const pulled = await syncBoards(b.client, a.client);
    expect(pulled).toEqual({ pulled: 4, pushed: 0, refused: [] });
    expect(await b.content()).toEqual(await a.content());
    await c.client.pipeline.write({ storyId: "A", retryCountDelta: 1 }).catch(() => {});
    await syncBoards(c.client, b.client);
    expect(await c.content()).toEqual(await a.content());
    expect((await c.client.pipeline.read({ storyId: "B", notes: 9 })).notes).toMatchObject([
      { text: "stays" },
    ]);
    await b.daemon.end();
    await b.startAgain();
    await b.client.pipeline.write({ storyId: "C", stage: "1_backlog" });
    await syncBoards(b.client, a.client);
    await syncBoards(c.client, a.client);
    expect(await b.content()).toEqual(await a.content());
    expect(await c.content()).toEqual(await a.content());
    expect(await c.differences()).toEqual([]);
  });

  test("a node that was given a part, and never what replaced the rest, gets it of a peer that has it", async () => {
    const [a, b] = (await nodesWith(100, {}, {})) as [BoardNode, BoardNode];
    await a.client.pipeline.write({ storyId: "A", stage: "2_current", name: "a alone has this", rank: "a0" });
    expect(await a.client.pipeline.compact()).toMatchObject({ changes: 100 });
    const [c, d] = [await BoardNode.start(), await BoardNode.start()];
    await trustEachOther(a, b, c, d);
    const half = await a.client.pipeline.changes({ heads: [], cuts: true, limit: 2 });
    expect(half.more).toBe(true);
    await c.client.pipeline.apply({ changes: half.changes });
    const { open } = await c.client.pipeline.heads();
    expect(open).toMatchObject([{ after: null, cut: { seq: 100 } }]);
    // One that has it from a node that may lack something may lack it, too.
    await syncBoards(d.client, c.client);
    expect((await d.client.pipeline.heads()).open).toEqual(open);
    expect((await c.client.pipeline.heads()).open).toEqual(open);
    // a is gone.
    expect(await syncBoards(c.client, b.client)).toMatchObject({ pulled: 100, pushed: 0, refused: [] });
    expect(await c.content()).toEqual(await b.content());
    expect((await c.client.pipeline.heads()).open).toBeUndefined();
    expect(await c.differences()).toEqual([]);
    expect(await syncBoards(c.client, d.client)).toMatchObject({ pulled: 0, pushed: 100, refused: [] });
    expect(await syncBoards(c.client, d.client)).toEqual({ pulled: 0, pushed: 0, refused: [] });
    // It is not gone.
    await syncBoards(d.client, a.client);
    expect(await d.content()).toEqual(await a.content());
    expect((await d.client.pipeline.heads()).open).toBeUndefined();
  });

  test("waits for a peer that others tell of, by its own words; and for none that was silent for 90 days", async () => {
    const [hub, left, right] = (await nodesWith(20, {}, {}, {})) as [BoardNode, BoardNode, BoardNode];
    // left and right have never met.
    const said = await left.client.pipeline.compact({ dryRun: true });
    expect(said).toMatchObject({ changes: 0, unknown: 19, waitsFor: [{ name: "node 2" }] });
    await syncBoards(left.client, hub.client);
    expect(await left.client.pipeline.compact({ dryRun: true })).toMatchObject({ changes: 19, waitsFor: [] });
    // right writes nothing and says nothing for long.
    for (const name of ["later", "last"]) {
      await hub.client.pipeline.write({ storyId: "A", stage: "1_backlog", name, rank: "a0" });
    }
    await syncBoards(left.client, hub.client);
    expect(await left.client.pipeline.compact()).toMatchObject({ changes: 20, unknown: 1 });
    await left.daemon.end();
    left.client.close();
    left.daemon = await left.place.start(atTime(91 * DAY_MS));
    const late = await BoardNode.start();
    expect(await pawl(["board", "compact", "--json"], { socket: left.place.socket })).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('"changes":1'),
    });
    await right.client.pipeline.write({ storyId: "A", retryCountDelta: 1 });
    await trustEachOther(hub, late);
    await left.daemon.end();
    await left.startAgain();
    await syncBoards(left.client, right.client);
    await syncBoards(left.client, hub.client);
    expect(await right.content()).toEqual(await left.content());
    expect(await hub.content()).toEqual(await left.content());
  });
});

describe("peer.seen", () => {
  test("keeps only what the peer itself has signed, the last, of this board and not of the future", async () => {
    const [a, b] = (await nodesWith(3, {}, {})) as [BoardNode, BoardNode];
    const author = (await b.client.pipeline.identity()).author;
    const [statement] = (await b.client.pipeline.heads({ sign: true })).statements ?? [];
    const { body, signature } = statement as { body: string; signature: string };
    const content = JSON.parse(body);
    expect(content).toMatchObject({ author, heads: (await b.client.pipeline.heads()).heads });
    const refusedAs = async (given: { body: string; signature: string }) =>
      (await a.client.peer.seen({ statements: [given] })).rejected.map(({ kind }) => kind);
    const stranger = new Author(7);
    const later = body.replace(/"at":\d+/, `"at":${content.at + 1}`);
    expect(await refusedAs({ body: body.replace(/"at":\d+/, `"at":${Date.now()}`), signature })).toEqual([
      "bad_signature",
    ]);
    expect(await refusedAs({ ...stranger.sign(body), body })).toEqual(["bad_signature"]);
    // Signed by the peer, but said in another way, or twice.
    for (const other of [` ${later}`, later.replace('"at"', '"at":1,"at"')]) {
      expect(await refusedAs(signedBy(b, other))).toEqual(["not_canonical"]);
    }
    expect(await refusedAs({ body: body.replace(author, stranger.id), signature })).toEqual([
      "unknown_author",
    ]);
    expect(await refusedAs({ body: body.replace(content.board, "0".repeat(32)), signature })).toEqual([
      "wrong_board",
    ]);
    expect(await refusedAs({ body: "{", signature })).toEqual(["not_json"]);
    expect(await refusedAs({ body: "{}", signature })).toEqual(["unsupported_version"]);
    // An older one, or the same again, is no news.
    expect(await a.client.peer.seen({ statements: [{ body, signature }] })).toEqual({
      seen: 0,
      rejected: [],
    });
    await a.client.peer.revoke({ author });
    expect(await refusedAs({ body, signature })).toEqual(["revoked_author"]);
  });

  test("a statement of a clock that is ahead is refused until its time", async () => {
    const [a, b] = (await nodesWith(3, {}, {})) as [BoardNode, BoardNode];
    await b.daemon.end();
    b.client.close();
    b.daemon = await b.place.start(atTime(DAY_MS));
    await b.startAgain().catch(() => {});
    const { stdout } = await pawl(["call", "pipeline.heads", '{"sign":true}'], { socket: b.place.socket });
    const { statements } = JSON.parse(stdout);
    expect((await a.client.peer.seen({ statements })).rejected).toMatchObject([{ kind: "clock_ahead" }]);
  });
});

describe("pipeline.repair", () => {
  test("has a node whose clock was wrong heard again; its items stay what they were", async () => {
    const [a, b] = (await nodesWith(3, {}, {})) as [BoardNode, BoardNode];
    await a.daemon.end();
    a.client.close();
    a.daemon = await a.place.start(atTime(2 * DAY_MS));
    const wrong = await a.place.connect();
    await wrong.call("pipeline.write", {
      storyId: "A",
      name: "from the future",
      note: "one",
      retryCountDelta: 3,
    });
    await wrong.call("pipeline.write", { storyId: "B", stage: "2_current" });
    await wrong.destroy();
    await a.daemon.end();
    await a.startAgain();
    const { author, incarnation } = await a.client.pipeline.identity();
    await a.client.pipeline.write({ storyId: "B", name: "still in the future" });
    expect((await syncBoards(a.client, b.client)).refused).toMatchObject([
      { author, kind: "clock_ahead", by: "peer" },
    ]);
    const before = await a.client.pipeline.list();
    const repaired = await a.client.pipeline.repair();
    expect(repaired).toEqual({ changes: 3, incarnation: expect.any(String) });
    expect(repaired.incarnation).not.toBe(incarnation);
    const strip = ({ stages }: typeof before) =>
      Object.values(stages)
        .flat()
        .map(({ updatedAt: _, ...item }) => item);
    expect(strip(await a.client.pipeline.list())).toEqual(strip(before));
    expect(await a.client.pipeline.repair()).toEqual({ ...repaired, changes: 0 });
    expect(await syncBoards(a.client, b.client)).toEqual({ pulled: 0, pushed: 3, refused: [] });
    expect(await b.content()).toEqual(await a.content());
    await b.client.pipeline.write({ storyId: "B", name: "now" });
    await syncBoards(a.client, b.client);
    expect((await a.client.pipeline.read({ storyId: "B" })).item?.name).toBe("now");
    expect((await a.client.pipeline.read({ storyId: "A" })).item).toMatchObject({ retryCount: 3, notes: 1 });
    expect((await a.client.daemon.check()).problems).toEqual([]);
    const shown = await pawl(["board", "repair"], { socket: a.place.socket });
    expect(shown.stdout).toBe("No change of this node lies ahead of the time that only this node has.\n");
  });

  test("leaves what a peer has said that it has", async () => {
    const ahead = atTime(2 * DAY_MS);
    const [a, b] = (await nodesWith(3, ahead, ahead)) as [BoardNode, BoardNode];
    await a.daemon.end();
    await a.startAgain();
    const { changes, aheadMs } = await a.client.pipeline.repair();
    expect(changes).toBe(0);
    expect(aheadMs).toBeGreaterThan(DAY_MS);
    expect((await a.client.pipeline.heads()).heads).toEqual((await b.client.pipeline.heads()).heads);
  });
});

test("pawl board compact says what it does, and for whom it waits", async () => {
  const [a, b] = (await nodesWith(50, {}, {})) as [BoardNode, BoardNode];
  for (const name of ["new", "newer"]) {
    await a.client.pipeline.write({ storyId: "A", stage: "1_backlog", name, rank: "a0" });
  }
  const run = (...args: string[]) => pawl(["board", ...args], { socket: a.place.socket });
  const { author } = await b.client.pipeline.identity();
  const dry = await run("compact", "--dry-run");
  expect(dry.stdout).toMatch(
    new RegExp(
      `^Would take away 50 changes of [\\d.]+ kB\\.\nKept 1 change that not all peers are known to have\\.\nnode 1 \\(${author.slice(0, 8)}\\) said what it has .* ago, and lacks something: sync with it\\.\n$`,
    ),
  );
  await syncBoards(a.client, b.client);
  expect((await run("compact")).stdout).toMatch(/^Took away 51 changes of [\d.]+ kB\.\n$/);
  expect((await run("--dry-run")).code).toBe(2);
  const { message } = (await a.client.pipeline.changes({ heads: [] }).catch((error) => error)) as PawlError;
  expect(message).toContain("were taken away here by compaction");
});

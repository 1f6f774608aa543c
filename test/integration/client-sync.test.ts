// Two nodes that are made to agree by the client library.
import { describe, expect, test } from "vitest";
import { connect, type PawlError, syncBoards } from "../../client/dist/index.js";
import { BoardNode, trustEachOther } from "../board-nodes.js";
import { sharedDaemon } from "../daemon.js";
import { type FakeRequest, fakeDaemon } from "../fake-daemon.js";
import { Author, hashOf, incarnation } from "../property/board-author.js";

async function pair(): Promise<[BoardNode, BoardNode]> {
  const nodes: [BoardNode, BoardNode] = [await BoardNode.start(), await BoardNode.start()];
  await nodes[0].client.pipeline.write({ storyId: "FIRST", stage: "1_backlog" });
  await trustEachOther(...nodes);
  return nodes;
}

async function writeMany({ client }: BoardNode, count: number): Promise<void> {
  const ids = Array.from({ length: count }, (_, index) => `MANY-${index}`);
  await Promise.all(ids.map((storyId) => client.pipeline.write({ storyId, stage: "1_backlog" })));
}

/** Calls of a method that a node has had. */
async function calls({ client }: BoardNode, method: string): Promise<number> {
  return (await client.daemon.stats()).requests[method] ?? 0;
}

describe("a sync", () => {
  test("gives each what it lacks, and then exchanges heads and nothing else", async () => {
    const [a, b] = await pair();
    for (let index = 0; index < 150; index += 1) {
      await a.client.pipeline.write({ storyId: `A-${index}`, stage: "1_backlog", dependsOn: ["FIRST"] });
      if (index % 3 === 0) await b.client.pipeline.write({ storyId: `B-${index}`, stage: "2_current" });
    }
    // Concurrent increments all count, and a delete beats concurrent writes.
    await Promise.all(
      [a, b].map(({ client }) => client.pipeline.write({ storyId: "BOTH", stage: "1_backlog" })),
    );
    await a.client.pipeline.write({ storyId: "BOTH", retryCountDelta: 2 });
    await b.client.pipeline.write({ storyId: "BOTH", retryCountDelta: 5 });

    const progress: { direction: string; done: number; total: number }[] = [];
    const done = await syncBoards(a.client, b.client, { onProgress: (each) => progress.push(each) });
    expect(done).toEqual({ pulled: 52, pushed: 153, refused: [] });
    expect(progress.map(({ direction }) => direction)).toEqual(["pull", "push", "push", "push"]);
    expect(progress.at(0)).toMatchObject({ done: 52, total: 52 });
    expect(progress.at(-1)).toMatchObject({ done: 153, total: 153 });
    expect(await a.content()).toEqual(await b.content());
    expect((await b.client.pipeline.read({ storyId: "BOTH" })).item?.retryCount).toBe(7);

    await a.client.pipeline.delete({ storyId: "BOTH" });
    await b.client.pipeline.write({ storyId: "BOTH", name: "too late" });
    expect(await syncBoards(a.client, b.client)).toMatchObject({ pulled: 1, pushed: 1 });
    expect((await b.client.pipeline.read({ storyId: "BOTH" })).item).toBeNull();

    const before = [await calls(a, "pipeline.changes"), await calls(b, "pipeline.changes")];
    expect(await syncBoards(a.client, b.client)).toEqual({ pulled: 0, pushed: 0, refused: [] });
    expect([await calls(a, "pipeline.changes"), await calls(b, "pipeline.changes")]).toEqual(before);
    expect([await calls(a, "pipeline.apply"), await calls(b, "pipeline.apply")]).toEqual([2, 4]);
  });

  test("fits into the messages of a peer that takes only small ones", async () => {
    const small = await BoardNode.start({ args: ["--max-message-bytes", "20000"] });
    const large = await BoardNode.start();
    await large.client.pipeline.write({ storyId: "FIRST", stage: "1_backlog" });
    await trustEachOther(large, small);
    for (let index = 0; index < 40; index += 1) {
      await large.client.pipeline.write({
        storyId: `S-${index}`,
        stage: "1_backlog",
        name: "x".repeat(3000),
      });
    }
    expect(await syncBoards(small.client, large.client)).toMatchObject({ pulled: 41, pushed: 0 });
    expect(await small.content()).toEqual(await large.content());
  });

  test("goes on where it was broken off, at any moment", async () => {
    const [a, b] = await pair();
    await writeMany(a, 200);
    let killed = false;
    const broken = syncBoards(a.client, b.client, {
      onProgress: () => {
        if (!killed) b.daemon.child.kill("SIGKILL");
        killed = true;
      },
    });
    await expect(broken).rejects.toThrow();
    await b.daemon.exited;
    await b.startAgain();
    const { changes } = (await b.client.daemon.stats()).pipeline;
    expect(changes).toBeGreaterThanOrEqual(64);
    expect(await syncBoards(a.client, b.client)).toEqual({ pulled: 0, pushed: 201 - changes, refused: [] });
    expect(await a.content()).toEqual(await b.content());
  });

  test("passes on what a third wrote, to those who trust it, and asks once for what is refused", async () => {
    const [a, b] = await pair();
    const c = await BoardNode.start();
    const [third, own] = [await c.client.pipeline.identity(), await b.client.pipeline.identity()];
    await b.client.peer.trust({ author: third.author, name: "c" });
    await c.client.peer.trust({
      author: own.author,
      name: "b",
      board: (await a.client.pipeline.identity()).board as string,
    });
    await writeMany(c, 300);
    expect(await syncBoards(b.client, c.client)).toMatchObject({ pulled: 300, pushed: 0 });
    const done = await syncBoards(a.client, b.client);
    expect(done).toMatchObject({ pulled: 0, pushed: 1 });
    expect(done.refused).toEqual([
      { by: "here", author: third.author, incarnation: third.incarnation, seq: 1, kind: "unknown_author" },
    ]);
    // The second call was on its way when the first was refused; a third is not made.
    expect(await calls(a, "pipeline.apply")).toBe(1);
    expect(await calls(b, "pipeline.changes")).toBeLessThanOrEqual(3);
    await a.client.peer.trust({ author: third.author, name: "c" });
    expect(await syncBoards(a.client, b.client)).toEqual({ pulled: 300, pushed: 0, refused: [] });
  });

  test("of two boards, or of a node with itself or its copy, is refused before anything is given", async () => {
    const [a, b] = [await BoardNode.start(), await BoardNode.start()];
    for (const { client } of [a, b]) await client.pipeline.write({ storyId: "A", stage: "1_backlog" });
    const kindOf = (sync: Promise<unknown>) =>
      sync.then(
        () => "done",
        (error) => (error as PawlError).kind,
      );
    expect(await kindOf(syncBoards(a.client, b.client))).toBe("wrong_board");
    const again = await connect({ socket: a.place.socket });
    expect(await kindOf(syncBoards(a.client, again))).toBe("duplicate_key");
    again.close();
    expect(await calls(b, "pipeline.apply")).toBe(0);
  });
});

describe("a board of many logs", () => {
  test("syncs in parts that fit into a message, a log with many forks too", async () => {
    // So small that a message takes 16 heads.
    const args = ["--max-message-bytes", "20000"];
    const [a, b] = [await BoardNode.start({ args }), await BoardNode.start({ args })];
    await a.client.pipeline.write({ storyId: "FIRST", stage: "1_backlog" });
    await trustEachOther(a, b);
    const board = (await a.client.pipeline.identity()).board as string;
    const author = new Author(1);
    for (const { client } of [a, b]) await client.peer.trust({ author: author.id, name: "many" });
    const change = (log: number, seq: number, prev: string | null, storyId: string) =>
      author.change({
        board,
        incarnation: incarnation(log),
        hlc: [1000 + seq, 0],
        seq,
        prev,
        ops: [{ i: storyId, g: 1, s: { stage: "1_backlog" }, c: { retryCount: 1 } }],
      });
    const begun = change(0, 1, null, "LOG-0");
    const second = change(0, 2, hashOf(begun), "LOG-0");
    const forked = Array.from({ length: 40 }, (_, index) => change(0, 3, hashOf(second), `FORK-${index}`));
    const others = Array.from({ length: 60 }, (_, index) => change(index + 1, 1, null, `LOG-${index % 7}`));
    const take = async ({ client }: BoardNode, ...changes: typeof others) => {
      for (let index = 0; index < changes.length; index += 20) {
        const { rejected } = await client.pipeline.apply({ changes: changes.slice(index, index + 20) });
        expect(rejected).toEqual([]);
      }
    };
    // Each has what the other lacks, of the forked log too.
    await take(a, begun, second, ...forked.slice(0, 25), ...others.slice(0, 40));
    await take(b, begun, second, ...forked.slice(20), ...others.slice(30));

    const both = await syncBoards(a.client, b.client);
    expect(both).toEqual({ pulled: 15 + 20, pushed: 1 + 20 + 30, refused: [] });
    expect(await a.content()).toEqual(await b.content());
    const c = await BoardNode.start({ args });
    for (const id of [author.id, (await a.client.pipeline.identity()).author]) {
      await c.client.peer.trust({ author: id, name: `author ${id.slice(0, 4)}`, board });
    }
    expect(await syncBoards(c.client, b.client)).toEqual({ pulled: 1 + 2 + 40 + 60, pushed: 0, refused: [] });
    expect(await c.content()).toEqual(await b.content());
    expect(await syncBoards(c.client, a.client)).toEqual({ pulled: 0, pushed: 0, refused: [] });
  });
});

describe("a peer that answers what no pawld does", () => {
  const daemon = sharedDaemon();
  const author = new Author(2);
  const one = author.change();
  const head = { author: author.id, incarnation: incarnation(0), seq: 9, hash: "ab".repeat(32) };
  const answers: Record<string, unknown> = {
    "daemon.info": { limits: { maxMessageBytes: 1_048_576 } },
    "pipeline.identity": { author: author.id, board: null, incarnation: incarnation(0), heads: [] },
    "pipeline.heads": { heads: [], known: [] },
    "pipeline.changes": { changes: [], more: false },
    "pipeline.apply": { applied: 0, duplicate: 0, rejected: [] },
  };
  const identity = (parts: object) => ({
    "pipeline.identity": { ...(answers["pipeline.identity"] as object), ...parts },
  });

  async function syncWith(
    given: Record<string, unknown>,
  ): Promise<{ outcome: unknown; asked: FakeRequest[] }> {
    await using here = await connect({ socket: daemon().place.socket });
    await here.pipeline.write({ storyId: "A", stage: "1_backlog" });
    const fake = await fakeDaemon({
      onMessage: ({ id, method }, send) =>
        send({ jsonrpc: "2.0", id, result: { ...answers, ...given }[method as string] }),
    });
    await using peer = await connect({ socket: fake.socket, reconnectMs: 0 });
    const outcome = await syncBoards(here, peer).catch((error: unknown) => error);
    return { outcome, asked: fake.received };
  }

  test.each<[string, Record<string, unknown>]>([
    ["no identity", { "pipeline.identity": null }],
    ["heads that are no list", identity({ heads: { length: 1e9 } })],
    ["heads of nothing", identity({ heads: [null] })],
    ["limits that are none", { "daemon.info": {} }],
    ["null for heads", { "pipeline.heads": null }],
    ["null for changes", { ...identity({ heads: [head] }), "pipeline.changes": null }],
    [
      "a change without a signature",
      { ...identity({ heads: [head] }), "pipeline.changes": { changes: [{ body: "" }], more: false } },
    ],
    [
      "more changes than one call gives",
      { ...identity({ heads: [head] }), "pipeline.changes": { changes: Array(65).fill(one), more: false } },
    ],
    [
      "rejections with what a terminal obeys",
      {
        "pipeline.apply": {
          applied: 0,
          duplicate: 0,
          rejected: [{ author: null, incarnation: null, seq: null, kind: "\u001b[2J" }],
        },
      },
    ],
  ])("%s is named, and no defect of this program", async (_what, given) => {
    const { outcome } = await syncWith(given);
    expect(outcome).toMatchObject({ kind: "internal" });
    expect((outcome as PawlError).message).toMatch(
      /^(pipeline|daemon)\.\w+ was answered with .*, which no pawld says\./,
    );
  });

  test("the same changes for ever is asked no more", async () => {
    const { outcome, asked } = await syncWith({
      ...identity({ heads: [head] }),
      "pipeline.changes": { changes: [one], more: true },
    });
    expect((outcome as PawlError).message).toMatch(/gives the same changes again and again/);
    expect(asked.filter(({ method }) => method === "pipeline.changes").length).toBe(2);
  });
});

// Two nodes that are made to agree by the client library.
import { describe, expect, test } from "vitest";
import { connect, type PawlError, syncBoards } from "../../client/dist/index.js";
import { BoardNode, trustEachOther } from "../board-nodes.js";

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

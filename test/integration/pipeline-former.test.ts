// Nodes of the version before and of this one, on one board: both ways, and over an upgrade.
// Not over shared names: the board is each node's own.
import { beforeAll, describe, expect, test } from "vitest";
import { syncBoards } from "../../client/dist/sync/sync-boards.js";
import { BoardNode, trustEachOther } from "../board-nodes.js";
import type { AtEnd } from "../daemon.js";
import { formerPawld, whyNoCommit } from "../former-version.js";

/** The last one that knew no fields of the user's own, no labels and no notes. */
const BEFORE = "7f7133c";
const why = whyNoCommit(BEFORE);
if (why !== undefined) console.warn(`the tests with a node of the version before are skipped: ${why}`);

describe.skipIf(why !== undefined)("a node of the version before", { timeout: 300_000 }, () => {
  let pawld: string;
  beforeAll(() => {
    const endings: Parameters<AtEnd>[0][] = [];
    pawld = formerPawld(BEFORE, (action) => endings.unshift(action));
    return async () => {
      for (const action of endings) await action();
    };
  }, 300_000);

  /** The parts of an item that the version before knows. */
  const known = ({
    storyId,
    stage,
    name,
    agent,
    retryCount,
    blocked,
    dependsOn,
    rank,
  }: Record<string, unknown>) => ({
    storyId,
    stage,
    name,
    agent,
    retryCount,
    blocked,
    dependsOn,
    rank,
  });
  const read = async (node: BoardNode, storyId: string) =>
    (await node.client.pipeline.read({ storyId })).item;

  test("keeps and passes on what it does not know, and shows all of it once it is upgraded", async () => {
    const old = await BoardNode.start({ pawld });
    const [first, second] = [await BoardNode.start(), await BoardNode.start()];
    await first.client.pipeline.write({ storyId: "A", stage: "1_backlog", labels: ["web"], note: "one" });
    await trustEachOther(first, old, second);
    const board = (await first.client.pipeline.identity()).board as string;
    for (const { client } of [old, second]) expect((await client.pipeline.identity()).board).toBe(board);
    await syncBoards(old.client, first.client);
    // All three write before they meet again; the new ones only meet through the old one.
    await old.client.pipeline.write({ storyId: "A", name: "by the old one", retryCountDelta: 1 });
    await old.client.pipeline.write({ storyId: "B", stage: "2_current" });
    await first.client.pipeline.write({
      storyId: "A",
      fields: { priority: 1 },
      note: { text: "two", agent: "ana" },
    });
    await first.client.pipeline.write({ storyId: "A", labels: { add: ["db"] }, retryCountDelta: 1 });
    await syncBoards(old.client, first.client);
    await syncBoards(second.client, old.client);
    await second.client.pipeline.write({ storyId: "A", labels: { remove: ["web"] }, note: "three" });
    await second.client.pipeline.write({
      storyId: "B",
      note: "of B",
      fields: { type: "bug", estimate: [1] },
    });
    await second.client.pipeline.write({ storyId: "C", stage: "1_backlog", note: "gone" });
    await second.client.pipeline.delete({ storyId: "C" });
    await second.client.pipeline.write({ storyId: "C", stage: "1_backlog", note: "stays" });
    for (let round = 0; round < 2; round += 1) {
      await syncBoards(second.client, old.client);
      await syncBoards(old.client, first.client);
    }
    expect(await second.content()).toEqual(await first.content());
    expect(await read(first, "A")).toMatchObject({
      name: "by the old one",
      retryCount: 2,
      labels: ["db"],
      fields: { priority: 1 },
      notes: 3,
    });
    expect((await old.client.pipeline.heads()).heads).toEqual((await first.client.pipeline.heads()).heads);
    for (const storyId of ["A", "B", "C"]) {
      expect(known((await read(old, storyId)) ?? {})).toEqual(known((await read(first, storyId)) ?? {}));
    }

    old.client.close();
    await old.daemon.end();
    await old.startAgain();
    expect(await old.content()).toEqual(await first.content());
    const notes = async (node: BoardNode) =>
      (await node.client.pipeline.read({ storyId: "A", notes: 9 })).notes;
    expect((await notes(old))?.map(({ text }) => text)).toEqual(["one", "two", "three"]);
    expect(await notes(old)).toEqual(await notes(first));
    let after: string | undefined;
    do {
      const step = await old.client.pipeline.rebuild({
        verify: true,
        ...(after === undefined ? {} : { after }),
      });
      expect(step.differences).toEqual([]);
      after = step.next;
    } while (after !== undefined);
  });

  test("refuses the log with a value that is too large for it, takes the others, and all once it is upgraded", async () => {
    const old = await BoardNode.start({ pawld });
    const [first, second] = [await BoardNode.start(), await BoardNode.start()];
    await first.client.pipeline.write({ storyId: "A", stage: "1_backlog" });
    await trustEachOther(first, old, second);
    await first.client.pipeline.write({ storyId: "A", fields: { description: "x".repeat(16_000) } });
    await second.client.pipeline.write({ storyId: "B", stage: "1_backlog" });
    await syncBoards(second.client, first.client);
    const { author } = await first.client.pipeline.identity();
    const { refused } = await syncBoards(old.client, first.client);
    expect(refused).toMatchObject([{ author, seq: 2, kind: "too_large", by: "here" }]);
    expect(await read(old, "B")).not.toBeNull();
    old.client.close();
    await old.daemon.end();
    await old.startAgain();
    expect((await syncBoards(old.client, first.client)).refused).toEqual([]);
    expect(await old.content()).toEqual(await first.content());
    expect((await read(old, "A"))?.fields).toEqual({ description: "x".repeat(16_000) });
  });

  test("syncs with one that has taken changes away as long as it lacks none of them, and is told otherwise", async () => {
    const [old, late] = [await BoardNode.start({ pawld }), await BoardNode.start({ pawld })];
    const node = await BoardNode.start();
    for (const name of ["one", "two", "three"]) {
      await node.client.pipeline.write({ storyId: "A", stage: "1_backlog", name, rank: "a0" });
    }
    await trustEachOther(node, old, late);
    await syncBoards(old.client, node.client);
    // It cannot say what it has, and is waited for.
    expect(await node.client.pipeline.compact()).toMatchObject({ changes: 0, unknown: 2 });
    const { peers } = await node.client.peer.list();
    for (const { author } of peers) await node.client.peer.revoke({ author });
    expect(await node.client.pipeline.compact()).toMatchObject({ changes: 2 });
    for (const { author, name } of peers) await node.client.peer.trust({ author, name });
    await node.client.pipeline.write({ storyId: "A", name: "four" });
    await old.client.pipeline.write({ storyId: "A", retryCountDelta: 1 });
    expect(await syncBoards(old.client, node.client)).toEqual({ pulled: 1, pushed: 1, refused: [] });
    expect((await old.client.pipeline.heads()).heads).toEqual((await node.client.pipeline.heads()).heads);
    for (const pair of [
      [late, node],
      [node, late],
    ] as const) {
      await expect(syncBoards(pair[0].client, pair[1].client)).rejects.toMatchObject({
        kind: "unsupported_version",
      });
    }
    // From one that has all it can be given all.
    await syncBoards(late.client, old.client);
    expect(await syncBoards(late.client, node.client)).toEqual({ pulled: 0, pushed: 0, refused: [] });
  });
});

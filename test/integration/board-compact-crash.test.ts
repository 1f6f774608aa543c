// kill -9 in the middle of compaction, and of a sync with what it left: the board stays what it was, compaction goes on
// to its end, and nothing that was acknowledged is lost. A short run always; with PAWL_TORTURE=1 a long one.
// Not over shared names: the board is each node's own.
import { expect, test } from "vitest";
import { connect, type PawlClient, syncBoards } from "../../client/dist/index.js";
import { BoardNode, trustEachOther } from "../board-nodes.js";

const TORTURE = process.env.PAWL_TORTURE === "1";
const { ROUNDS, KILLS, CHANGES, STORIES } = TORTURE
  ? { ROUNDS: 5, KILLS: 8, CHANGES: 2000, STORIES: 100 }
  : { ROUNDS: 1, KILLS: 2, CHANGES: 600, STORIES: 20 };
/** Of each daemon, some while it compacts and others while it gives or takes what is left. */
const SYNC_KILLS = TORTURE ? 4 : 1;
const WRITES_AT_A_TIME = 200;

/** Writes in which most changes say nothing any more at the end, and some of all kinds still do. */
async function writeMuch({ client }: BoardNode, from: number): Promise<void> {
  for (let first = from; first < from + CHANGES; first += WRITES_AT_A_TIME) {
    const numbers = Array.from({ length: WRITES_AT_A_TIME }, (_, index) => first + index);
    await Promise.all(
      numbers.map((number) =>
        client.pipeline.write({
          storyId: `S-${number % STORIES}`,
          stage: `stage ${number % 3}`,
          name: `name ${number}`,
          ...(number % 50 === 0 ? { note: `note ${number}`, retryCountDelta: 1 } : {}),
          ...(number % 7 === 0
            ? { fields: { priority: number % 5 }, labels: { add: [`l${number % 4}`] } }
            : {}),
        }),
      ),
    );
  }
  await client.pipeline.delete({ storyId: `S-${from % STORIES}` });
}

/** The board with its notes, but for what is written meanwhile. */
async function boardOf(node: BoardNode): Promise<unknown> {
  const { items } = (await node.content()) as { items: { storyId: string; notes: number }[] };
  const old = items.filter(({ storyId }) => !storyId.startsWith("W-"));
  const read = ({ storyId }: { storyId: string }) => node.client.pipeline.read({ storyId, notes: 100 });
  return await Promise.all(old.map(async (item) => ({ item, notes: (await read(item)).notes })));
}

const changesOf = async (client: PawlClient): Promise<number> =>
  (await client.daemon.stats()).pipeline.changes;

/** Writes items of its own until the daemon is gone. */
async function writeUntilKilled({ client }: BoardNode, written: string[], name: string): Promise<void> {
  try {
    for (let number = 0; ; number += 1) {
      const storyId = `W-${name}-${number}`;
      await client.pipeline.write({ storyId, stage: "written meanwhile" });
      written.push(storyId);
    }
  } catch {}
}

/** Kills a daemon once its compaction has taken some away. Returns how many were left to be taken away. */
async function killWhileCompacting(node: BoardNode, written: string[], name: string): Promise<number> {
  const { changes: all } = await node.client.pipeline.compact({ dryRun: true });
  const before = await changesOf(node.client);
  // What a connection asks later waits for the compaction that it asked for.
  const other = await connect({ socket: node.place.socket, reconnectMs: 0 });
  const compacting = other.pipeline.compact().catch(() => undefined);
  const writtenBefore = written.length;
  const writing = writeUntilKilled(node, written, name);
  const few = Math.ceil(Math.random() * all * 0.3);
  const removed = async () => before + written.length - writtenBefore - (await changesOf(node.client));
  while ((await removed()) < few);
  await node.daemon.end("SIGKILL");
  await Promise.all([compacting, writing]);
  other.close();
  await node.startAgain();
  return (await node.client.pipeline.compact({ dryRun: true })).changes;
}

test(
  "a daemon that is killed while it compacts has the board that it had, and compacts to the end",
  async () => {
    const [a, b] = [await BoardNode.start(), await BoardNode.start()];
    await a.client.pipeline.write({ storyId: "S-0", stage: "stage 0" });
    await trustEachOther(a, b);
    const written: string[] = [];
    let inTheMiddle = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      await writeMuch(a, round * CHANGES);
      await syncBoards(a.client, b.client);
      const meant = await boardOf(a);
      const { changes } = await a.client.pipeline.compact({ dryRun: true });
      expect(changes).toBeGreaterThan(CHANGES / 2);
      for (let kill = 0; kill < KILLS; kill += 1) {
        const left = await killWhileCompacting(a, written, `${round}-${kill}`);
        expect(left).toBeLessThan(changes);
        expect(await boardOf(a)).toEqual(meant);
        expect(await a.differences()).toEqual([]);
        if (left === 0) break;
        inTheMiddle += 1;
      }
      await a.client.pipeline.compact();
      expect(await a.client.pipeline.compact()).toMatchObject({ changes: 0 });
      expect(await boardOf(a)).toEqual(meant);

      // A node that has nothing is given the rest, while one of the two is killed.
      const late = await BoardNode.start();
      await trustEachOther(a, b, late);
      for (let kill = 0; kill < SYNC_KILLS; kill += 1) {
        const victim = kill % 2 === 0 ? late : a;
        const syncing = syncBoards(late.client, a.client).catch(() => undefined);
        const some = Math.ceil(Math.random() * 20);
        let isDone = false;
        const ended = syncing.then(() => (isDone = true));
        while (!isDone && (await changesOf(late.client)) < some);
        await victim.daemon.end("SIGKILL");
        await ended;
        await victim.startAgain();
        expect(await late.differences()).toEqual([]);
      }
      for (const node of [late, b, late]) {
        expect((await syncBoards(node.client, a.client)).refused).toEqual([]);
      }
      const content = await a.content();
      for (const node of [b, late]) {
        expect(await node.content()).toEqual(content);
        expect(await boardOf(node)).toEqual(meant);
      }
      await a.client.peer.revoke({ author: (await late.client.pipeline.identity()).author });
      await b.client.peer.revoke({ author: (await late.client.pipeline.identity()).author });
      await late.daemon.end();
    }
    expect(inTheMiddle).toBeGreaterThan(0);
    const { items } = (await b.content()) as { items: { storyId: string }[] };
    const kept = new Set(items.map(({ storyId }) => storyId));
    expect(written.filter((storyId) => !kept.has(storyId))).toEqual([]);
    expect((await a.client.daemon.check()).problems).toEqual([]);
    console.info(`${inTheMiddle} kills in the middle, ${written.length} items written meanwhile`);
  },
  TORTURE ? 1_200_000 : 120_000,
);

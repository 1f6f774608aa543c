// Three nodes that write at random, meet at random, are killed, and restored from old copies of their databases.
// Not over shared names: the board is each node's own.
import { copyFileSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { ConnectionLost, connect, type Params, syncBoards } from "../../client/dist/index.js";
import type { SignedChange } from "../../daemon/dist/domain/board/signed-text.js";
import { BoardNode, trustEachOther } from "../board-nodes.js";
import { sized, TORTURE } from "../long-form.js";
import { hashOf } from "../property/board-author.js";
import { model } from "../property/board-model.js";

const ROUNDS = sized(60, 4);
const WRITES_PER_ROUND = sized(200, 40);
const STORIES = 12;
/** Another one each time, and named when something was wrong. */
const SEED = Number(process.env.PAWL_SEED ?? Date.now() % 2 ** 31);

/** A linear congruential generator: the same seed does the same. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return Math.floor((state / 0x80000000) * below);
  };
}

const random = randomOf(SEED);
const pick = <T>(from: readonly T[]): T => from[random(from.length)] as T;

/** Writes that were acknowledged and may not be lost. */
const acknowledged = new Set<string>();
const seen = { deletes: 0, increments: 0, kills: 0, restores: 0, lostAlone: 0, newLogs: 0, brokenSyncs: 0 };

type Write = Omit<Params<"pipeline.write">, "storyId">;

function randomWrite(): Write {
  const stage = pick(["1_backlog", "2_current", "3_qa", "__proto__"]);
  switch (random(7)) {
    case 0:
      return { stage, name: `name ${random(100)}` };
    case 1:
      return { stage, agent: pick(["ada", "bob", null]) };
    case 2:
      return { stage, retryCount: random(5) };
    case 3:
      return { stage, blocked: random(2) === 1, dependsOn: [`S-${random(STORIES)}`] };
    case 4:
      return { stage, dependsOn: { add: [`S-${random(STORIES)}`], remove: [`T-${random(STORIES)}`] } };
    default:
      return { stage, retryCountDelta: 1 + random(3) };
  }
}

/** Writes until all is written, or the daemon is gone. */
async function writeMuch(node: BoardNode, count: number): Promise<void> {
  const client = await connect({ socket: node.place.socket, reconnectMs: 0 });
  try {
    for (let left = count; left > 0; left -= 1) {
      const storyId = `S-${random(STORIES)}`;
      if (random(12) === 0) {
        const { changeId } = await client.pipeline.delete({ storyId });
        if (changeId !== undefined) acknowledged.add(changeId);
        seen.deletes += changeId === undefined ? 0 : 1;
      } else {
        const write = randomWrite();
        acknowledged.add((await client.pipeline.write({ storyId, ...write })).changeId);
        seen.increments += write.retryCountDelta === undefined ? 0 : 1;
      }
    }
  } catch (error) {
    if (!(error instanceof ConnectionLost)) throw error;
  } finally {
    client.close();
  }
}

/** Syncs two nodes, one of which may be killed meanwhile. */
async function meet(a: BoardNode, b: BoardNode): Promise<void> {
  try {
    const { refused } = await syncBoards(a.client, b.client);
    expect(refused).toEqual([]);
  } catch (error) {
    if (!(error instanceof ConnectionLost)) throw error;
    seen.brokenSyncs += 1;
  }
}

async function kill(node: BoardNode): Promise<void> {
  await node.daemon.end("SIGKILL");
  seen.kills += 1;
}

/** The ids of all changes that a node has. */
function heldBy({ place }: BoardNode): Set<string> {
  const database = new Database(join(place.stateDir, "pawl.db"), { readonly: true });
  try {
    return new Set(database.prepare("SELECT change_id FROM pawl_change").pluck().all() as string[]);
  } finally {
    database.close();
  }
}

/** Puts an old copy in place of a node's database: what nobody else has by now is lost, and nothing else. */
async function restore(
  node: BoardNode,
  copy: string,
  others: readonly BoardNode[],
  inPlace: boolean,
): Promise<void> {
  await kill(node);
  const file = join(node.place.stateDir, "pawl.db");
  // Within the same file, only the peers can tell.
  if (inPlace) writeFileSync(file, readFileSync(copy));
  else {
    copyFileSync(copy, `${file}.new`);
    renameSync(`${file}.new`, file);
  }
  for (const left of ["-wal", "-shm"]) rmSync(file + left, { force: true });
  await node.startAgain();
  const kept = new Set<string>();
  for (const each of [node, ...others]) for (const id of heldBy(each)) kept.add(id);
  for (const id of acknowledged) {
    if (kept.has(id)) continue;
    acknowledged.delete(id);
    seen.lostAlone += 1;
  }
  seen.restores += 1;
}

test("in the end all boards are equal, and nothing acknowledged is lost but what the restored node had alone", {
  timeout: TORTURE ? 1_200_000 : 120_000,
}, async () => {
  console.info(`PAWL_SEED=${SEED}`);
  const nodes = [await BoardNode.start(), await BoardNode.start(), await BoardNode.start()];
  await (nodes[0] as BoardNode).client.pipeline.write({ storyId: "S-0", stage: "1_backlog" });
  await trustEachOther(...nodes);
  const incarnations = new Set<string>();
  const noteIncarnations = async () => {
    for (const { client } of nodes) incarnations.add((await client.pipeline.identity()).incarnation);
  };
  await noteIncarnations();

  for (let round = 0; round < ROUNDS; round += 1) {
    const [victim, second, third] = rotated(nodes, random(3)) as [BoardNode, BoardNode, BoardNode];
    const copy = join(victim.place.directory, `copy-${round}.db`);
    const isRestored = round % 2 === 1;
    if (isRestored) await victim.client.call("daemon.backup", { path: copy });

    // All write and meet at the same time; now and then one is killed in the middle of it.
    const working = nodes.flatMap((node) => [
      writeMuch(node, WRITES_PER_ROUND / 2),
      writeMuch(node, WRITES_PER_ROUND / 2),
    ]);
    const meeting = [meet(pick([victim, second]), third), meet(second, third)];
    if (round % 2 === 0) {
      await Promise.race(working);
      await kill(victim);
    }
    await Promise.all([...working, ...meeting]);
    if (round % 2 === 0) await victim.startAgain();

    if (!isRestored) continue;
    // A peer knows what it wrote since, and then some that nobody knows.
    await meet(victim, second);
    await writeMuch(victim, 10);
    await restore(victim, copy, [second, third], round % 4 === 1);
    // It has not heard yet that its log went on elsewhere.
    await writeMuch(victim, 5);
    await meet(second, victim);
    await noteIncarnations();
  }

  const contents = async () => {
    for (const a of nodes) for (const b of nodes) if (a !== b) await meet(a, b);
    return await Promise.all(nodes.map((node) => node.content()));
  };
  const [first, ...others] = await contents();
  for (const other of others) expect(other).toEqual(first);
  for (const node of nodes) {
    const held = heldBy(node);
    expect([...acknowledged].filter((id) => !held.has(id))).toEqual([]);
    expect(await node.differences()).toEqual([]);
  }

  // And what they agree on is what the set of changes means.
  const bodies = await bodiesOf(nodes[0] as BoardNode);
  const meant = model(bodies);
  const { items } = first as { items: { storyId: string; ready: boolean }[] };
  // Which ones are ready follows from the others, and is looked at with the tables.
  expect(new Map(items.map(({ storyId, ready: _, ...rest }) => [storyId, rest]))).toEqual(meant.items);
  const { pipeline } = await (nodes[0] as BoardNode).client.daemon.stats();
  expect(pipeline).toEqual({ items: items.length, changes: bodies.length, forks: meant.forks });

  seen.newLogs = incarnations.size - nodes.length;
  console.info(JSON.stringify({ ...seen, changes: bodies.length, forks: meant.forks }));
  const { brokenSyncs: _, ...counts } = seen;
  for (const [what, count] of Object.entries(counts)) expect([what, count > 0]).toEqual([what, true]);
  expect(meant.forks).toBeGreaterThan(0);
  expect(seen.newLogs).toBeGreaterThanOrEqual(seen.restores);
});

function rotated<T>(list: readonly T[], by: number): T[] {
  return [...list.slice(by), ...list.slice(0, by)];
}

/** All changes that a node has. */
async function bodiesOf({ client }: BoardNode): Promise<string[]> {
  const bodies: string[] = [];
  const tips = new Map<string, Params<"pipeline.changes">["heads"][number]>();
  for (let more = true; more; ) {
    const page = await client.pipeline.changes({ heads: [...tips.values()] });
    for (const change of page.changes) {
      const { author, incarnation, seq, prev } = JSON.parse(change.body);
      const hash = hashOf(change as SignedChange);
      tips.delete(prev);
      tips.set(hash, { author, incarnation, seq, hash });
      bodies.push(change.body);
    }
    more = page.more;
  }
  return bodies;
}

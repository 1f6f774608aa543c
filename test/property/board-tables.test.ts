// The board's tables against the model: whatever comes in whatever order, they say what the set of changes means.
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { configure } from "../../daemon/dist/domain/board/configure.js";
import { countForks, history, list, read, revisionOfBoard } from "../../daemon/dist/domain/board/items.js";
import { ready } from "../../daemon/dist/domain/board/ready.js";
import { rebuild } from "../../daemon/dist/domain/board/rebuild.js";
import type { SignedChange } from "../../daemon/dist/domain/board/signed-text.js";
import { apply, changes, heads } from "../../daemon/dist/domain/board/sync.js";
import { tellTurned } from "../../daemon/dist/domain/board/work-state.js";
import { trust } from "../../daemon/dist/domain/peer/peer.js";
import { encode } from "../../daemon/dist/json/raw-json.js";
import type { Env } from "../../daemon/dist/turns/operation.js";
import { asynchronousDriver, type Driver, envOf, performSteps, synchronousDriver } from "../domain/drive.js";
import { sized } from "../long-form.js";
import { Author, BOARD, hashOf } from "./board-author.js";
import { AUTHORS, changeSet, delivery, ordered } from "./board-changes.js";
import { type Model, type ModelItem, model } from "./board-model.js";

const RUNS = Number(process.env.PAWL_TEST_RUNS ?? sized(20, 1));
const READER = new Author(99);
/** Later than any time in a generated change. */
const NOW = 1_000_000;

const ignored = () => {};
const env = envOf({
  now: NOW,
  wallMs: NOW,
  identity: () => ({ author: READER.id, privateKey: READER.privateKey, databaseFile: "memory" }),
  sign: () => "a".repeat(43),
  random: (bytes: number) => Buffer.alloc(bytes, 7),
  mayGoOn: true,
  effects: envOf({
    wake: ignored,
    deadline: ignored,
    count: ignored,
    log: ignored,
    tell: ignored,
  } as unknown as Partial<Env>) as unknown as Env["effects"],
});

/** Stages that changes of the tests name. */
const RULES: Parameters<typeof configure>[0] = {
  stages: [
    { stage: "1_backlog", ready: true },
    { stage: "__proto__", ready: true },
    { stage: "2_current", done: true },
  ],
};

async function newNode(driver: Driver): Promise<void> {
  await performSteps(driver, (given) => configure(RULES, given), env);
  for (const { id } of AUTHORS) {
    expect(await driver.perform(trust({ author: id, name: id, board: BOARD }, env))).not.toBeInstanceOf(
      PawlError,
    );
  }
}

/** Offers changes, so many at a time, until all are in. */
async function deliver(driver: Driver, offered: readonly SignedChange[], atOnce: number): Promise<number> {
  let applied = 0;
  for (let waiting = [...offered]; waiting.length > 0; ) {
    const left: SignedChange[] = [];
    const before = applied;
    for (let from = 0; from < waiting.length; from += atOnce) {
      const part = waiting.slice(from, from + atOnce);
      const result = await performSteps(driver, (given) => apply({ changes: part }, given), env);
      expect(result.applied + result.duplicate + result.rejected.length).toBe(part.length);
      applied += result.applied;
      expect(result.rejected.filter(({ kind }) => kind !== "missing_prev")).toEqual([]);
      const places = new Set(result.rejected.map(placeOf));
      // Another one at the same place may have been taken in; then it is a duplicate the next time.
      left.push(...part.filter(({ body }) => places.has(placeOf(JSON.parse(body)))));
    }
    if (left.length > 0 && applied === before) throw new Error("changes are missing that were delivered");
    waiting = left;
  }
  return applied;
}

function placeOf({
  author,
  incarnation,
  seq,
}: {
  author: string | null;
  incarnation: string | null;
  seq: number | null;
}) {
  return `${author} ${incarnation} ${seq}`;
}

/** Everything that can be asked of a node, as far as it is the same on all that have the same changes. */
async function seenOf(driver: Driver, meant: Model, seen: { found: number }): Promise<unknown> {
  while ((await driver.perform(tellTurned(env, 2))) > 0);
  const page = await pageOf(driver, { limit: 1000 });
  const items = Object.values(page.stages).flat();
  for (const text of SEARCHED) {
    const ids = await search(driver, text);
    expect(ids).toEqual(meantBy(text, meant));
    seen.found += ids.length;
  }
  expect(new Map(items.map(({ storyId, ready: _, ...rest }) => [storyId, rest]))).toEqual(meant.items);
  const isReady = readyIn(meant.items);
  for (const { storyId, ready } of items) expect([storyId, ready]).toEqual([storyId, isReady(storyId)]);
  for (const labels of [undefined, ["x"], ["ü", "x"]]) {
    const found = await performSteps(driver, (given) => ready({ labels, limit: 1000 }, given), env);
    const wanted = [...meant.items].filter(
      ([storyId, item]) => isReady(storyId) && (labels ?? []).every((each) => item.labels.includes(each)),
    );
    expect(found.items.map(({ storyId }) => storyId)).toEqual(
      wanted.sort(inOrderOfWork).map(([storyId]) => storyId),
    );
  }
  const { heads: found } = await performSteps(driver, (given) => heads({ sign: false }, given), env);
  expect(
    found.map(({ author, incarnation, seq, hash }) => `${author}/${incarnation}/${seq}/${hash}`).sort(),
  ).toEqual(meant.heads);
  const histories: unknown[] = [];
  for (const storyId of ["A-1", "A-2", "__proto__"]) {
    expect(await notesOf(driver, storyId)).toEqual(meant.items.has(storyId) ? meant.notes.get(storyId) : []);
    histories.push(await performSteps(driver, (given) => history({ storyId, limit: 1000 }, given), env));
  }
  const counts = {
    changes: await driver.perform(revisionOfBoard()),
    forks: await driver.perform(countForks()),
  };
  return { items, found, histories, counts };
}

/** Which items are ready, by the rules that nodes of these tests have. */
function readyIn(items: Model["items"]): (storyId: string) => boolean {
  const isDone = (storyId: string) => items.get(storyId)?.stage === "2_current";
  return (storyId) => {
    const { stage, blocked, dependsOn } = items.get(storyId) as ModelItem;
    const isOpen = (stage === "1_backlog" || stage === "__proto__") && !blocked;
    return isOpen && dependsOn.every((each) => each !== storyId && isDone(each));
  };
}

function inOrderOfWork([idA, a]: [string, ModelItem], [idB, b]: [string, ModelItem]): number {
  const [priorityA, priorityB] = [a, b].map(({ fields: { priority } }) =>
    [0, 1, 2, 3, 4].includes(priority as number) ? (priority as number) : 5,
  ) as [number, number];
  if (priorityA !== priorityB) return priorityA - priorityB;
  if (a.rank !== b.rank) return a.rank < b.rank ? -1 : 1;
  return idA < idB ? -1 : 1;
}

async function pageOf(driver: Driver, params: Parsed<"pipeline.list">): Promise<Result<"pipeline.list">> {
  const page = await performSteps(driver, (given) => list(params, given), env);
  // As it travels: what was read in steps is written.
  return JSON.parse(encode(page)) as Result<"pipeline.list">;
}

const SEARCHED = ["a", "a Z", '"', "x a"];

/** The items that a search finds, in small pages. */
async function search(driver: Driver, text: string): Promise<string[]> {
  const ids: string[] = [];
  let after: string | undefined;
  do {
    const page = await pageOf(driver, { text, limit: 1, after });
    ids.push(...Object.values(page.stages).flatMap((items) => items.map(({ storyId }) => storyId)));
    after = page.next;
  } while (after !== undefined);
  return ids.sort();
}

/** The items that it should find: all words begin some word of one of the texts. */
function meantBy(text: string, { items, texts }: Model): string[] {
  const wordsOf = (of: string) =>
    of
      .toLowerCase()
      .split(/[^a-z]+/)
      .filter((word) => word !== "");
  const wanted = wordsOf(text);
  return [...items.keys()]
    .filter((storyId) =>
      (texts.get(storyId) ?? []).some((each) => {
        const words = wordsOf(each);
        return wanted.length > 0 && wanted.every((word) => words.some((other) => other.startsWith(word)));
      }),
    )
    .sort();
}

/** All notes of an item, in small pages. */
async function notesOf(driver: Driver, storyId: string): Promise<string[]> {
  const found: string[] = [];
  let before: string | undefined;
  do {
    const page = await performSteps(driver, (given) => read({ storyId, notes: 2, before }, given), env);
    const notes = page.notes ?? [];
    found.unshift(...notes.map(({ at, author, agent, text }) => `${at} ${author} ${agent} ${text}`));
    before = page.before;
  } while (before !== undefined);
  return found;
}

async function differences(driver: Driver): Promise<unknown[]> {
  const found: unknown[] = [];
  let after: string | undefined;
  do {
    const step = await performSteps(
      driver,
      (given) => rebuild({ verify: true, limit: 5, after }, given),
      env,
    );
    found.push(...step.differences);
    after = step.next;
  } while (after !== undefined);
  return found;
}

const NOTHING = { forks: 0, deletes: 0, increments: 0, duplicates: 0, found: 0 };

describe("the tables of a node", { timeout: 60_000 * RUNS }, () => {
  test.each<[string, () => Driver, number]>([
    ["that answer at once", synchronousDriver, 25],
    ["that are asked over a network", asynchronousDriver, 8],
  ])(
    "%s say what the set of changes means, in any order and however many come at a time",
    async (_what, driverOf, runs) => {
      const seen = { ...NOTHING };
      await fc.assert(
        fc.asyncProperty(changeSet, delivery, fc.integer({ min: 1, max: 64 }), async (set, times, atOnce) => {
          const meant = model(set.map(({ body }) => body));
          const nodes = [driverOf(), driverOf()] as const;
          try {
            for (const node of nodes) await newNode(node);
            const distinct = new Set(set.map(hashOf)).size;
            // One has an index of texts from the beginning, and the other one makes it at the end.
            await search(nodes[0], "a");
            expect(await deliver(nodes[0], set, 64)).toBe(distinct);
            const offered = ordered(set, times);
            expect(await deliver(nodes[1], offered, atOnce)).toBe(distinct);
            const first = await seenOf(nodes[0], meant, seen);
            expect(await seenOf(nodes[1], meant, seen)).toEqual(first);
            expect(first).toMatchObject({ counts: { changes: distinct, forks: meant.forks } });
            for (const node of nodes) expect(await differences(node)).toEqual([]);
            const ops = set.flatMap(({ body }) => JSON.parse(body).ops as { g: number; c?: object }[]);
            seen.forks += meant.forks;
            seen.deletes += ops.filter(({ g }) => g % 2 === 0).length;
            seen.increments += ops.filter(({ c }) => c !== undefined).length;
            seen.duplicates += offered.length - distinct;
          } finally {
            for (const node of nodes) node.close();
          }
        }),
        { numRuns: runs * RUNS },
      );
      for (const count of Object.values(seen)) expect(count, JSON.stringify(seen)).toBeGreaterThan(0);
    },
  );

  test("give exactly what given heads lack, each change after the one before it", async () => {
    await fc.assert(
      fc.asyncProperty(
        changeSet,
        fc.array(fc.nat(), { maxLength: 5 }),
        fc.integer({ min: 1, max: 9 }),
        async (set, picks, limit) => {
          const node = synchronousDriver();
          try {
            await newNode(node);
            await deliver(node, set, 64);
            const byId = new Map(set.map((change) => [hashOf(change), JSON.parse(change.body)]));
            const known = new Set<string>();
            const given = picks.map((pick) => hashOf(set[pick % set.length] as SignedChange));
            for (const hash of given) for (let id = hash; id !== null; id = byId.get(id).prev) known.add(id);

            const tips = new Map(given.map((hash) => [hash, headOf(hash, byId.get(hash))]));
            const got: string[] = [];
            for (let more = true; more; ) {
              const page = await node.perform(changes({ heads: [...tips.values()], limit, cuts: false }));
              if (page instanceof PawlError) throw page;
              expect(page.changes.length).toBeLessThanOrEqual(limit);
              for (const change of page.changes) {
                const id = hashOf(change);
                const { prev } = byId.get(id);
                // The change that it follows is known by now.
                expect(prev === null || known.has(prev)).toBe(true);
                known.add(id);
                got.push(id);
                tips.delete(prev);
                tips.set(id, headOf(id, byId.get(id)));
              }
              more = page.more;
            }
            expect(new Set(got).size).toBe(got.length);
            expect(known).toEqual(new Set(byId.keys()));
          } finally {
            node.close();
          }
        },
      ),
      { numRuns: 40 * RUNS },
    );
  });
});

function headOf(
  hash: string,
  { author, incarnation, seq }: { author: string; incarnation: string; seq: number },
) {
  return { author, incarnation, seq, hash };
}

// Boards whose old changes are taken away, at any time and on any node: they go on agreeing, and lose nothing.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { syncBoards } from "../../client/dist/sync/sync-boards.js";
import { sized } from "../long-form.js";
import { Author } from "./board-author.js";
import { type Model, model } from "./board-model.js";
import { TablesNode } from "./board-tables-node.js";

const RUNS = Number(process.env.PAWL_TEST_RUNS ?? sized(20, 1));
const DAY_MS = 86_400_000;
const START = 1_750_000_000_000;
/** When everything that any clock has said is past. */
const END = START + 400 * DAY_MS;
const NODES = 4;

const authors = Array.from({ length: NODES }, (_, number) => new Author(number));
const node = fc.nat({ max: NODES - 1 });
const storyId = fc.constantFrom("A", "B");
const stage = fc.constantFrom("1_backlog", "2_current");
const name = fc.constantFrom(null, "x", "y");
const count = fc.oneof(
  fc.record({ retryCount: fc.integer({ min: -2, max: 2 }) }),
  fc.record({ retryCountDelta: fc.integer({ min: -2, max: 2 }) }),
);
const whole = fc.record(
  {
    stage,
    name,
    count,
    dependsOn: fc.oneof(fc.subarray(["A", "B"]), fc.record({ add: fc.subarray(["A"]) })),
    labels: fc.record({ add: fc.subarray(["x", "y"]), remove: fc.subarray(["z"]) }),
    fields: fc.dictionary(fc.constantFrom("priority", "type"), fc.constantFrom<unknown>(null, 1, "x"), {
      maxKeys: 2,
    }),
    note: fc.constantFrom("one", "two"),
  },
  { requiredKeys: ["stage"] },
);
type Params = typeof whole extends fc.Arbitrary<infer T> ? T : never;
/** Most writes say little, so that the next ones replace all of it. */
const params: fc.Arbitrary<Params> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ stage, count }) },
  { weight: 3, arbitrary: fc.record({ stage, name }) },
  { weight: 2, arbitrary: whole },
);
const action = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant("write" as const), node, storyId, params }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("delete" as const), node, storyId }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("sync" as const), node, to: node }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("part" as const), node, to: node, count: fc.nat({ max: 5 }) }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("compact" as const), node, late: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("clock" as const), node, days: fc.constantFrom(0, 3, 6) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("repair" as const), node }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("copy" as const), node }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restore" as const), node }) },
);
const history = fc.array(action, { minLength: 10, maxLength: 80, size: "max" });
type Action = typeof action extends fc.Arbitrary<infer T> ? T : never;

const NOTHING = {
  cut: 0,
  taken: 0,
  forks: 0,
  restored: 0,
  deleted: 0,
  increments: 0,
  again: 0,
  refused: 0,
  waited: 0,
};

interface Listed {
  stages: Record<string, { storyId: string; updatedAt: number; updatedBy: string; ready: boolean }[]>;
}

function itemsOf(at: TablesNode): Map<string, unknown> {
  const { stages } = at.call("pipeline.list", { limit: 1000 }) as Listed;
  return new Map(
    Object.values(stages)
      .flat()
      .map(({ storyId: id, ready: _, ...item }) => [id, item]),
  );
}

function contentOf(at: TablesNode): unknown[] {
  return [...itemsOf(at)].map(([id, item]) => {
    const { updatedAt: _, updatedBy: __, ...rest } = item as Listed["stages"][string][number];
    const read = at.call("pipeline.read", { storyId: id, notes: 100 }) as { notes: { text: string }[] };
    return [id, rest, read.notes.map(({ text }) => text)];
  });
}

function differencesOf(at: TablesNode): unknown[] {
  const found: unknown[] = [];
  let after: string | undefined;
  do {
    const step = at.call("pipeline.rebuild", { verify: true, after }) as {
      differences: unknown[];
      next?: string;
    };
    found.push(...step.differences);
    after = step.next;
  } while (after !== undefined);
  return found;
}

function headsOf(at: TablesNode): string[] {
  const { heads } = at.call("pipeline.heads") as {
    heads: { author: string; incarnation: string; seq: number; hash: string }[];
  };
  return heads.map(({ author, incarnation, seq, hash }) => `${author}/${incarnation}/${seq}/${hash}`).sort();
}

/** Performs a history, lets all nodes meet, and compares them with the model of all that any of them had. */
async function live(actions: readonly Action[], seen: typeof NOTHING): Promise<void> {
  const nodes = authors.map((author) => new TablesNode(author));
  const at = (number: number): TablesNode => nodes[number] as TablesNode;
  /** Every body that was ever on a node, by hash. */
  const bodies = new Map<string, string>();
  const remember = (each: TablesNode) => {
    for (const [id, body] of each.bodies()) bodies.set(id, body);
  };
  try {
    let time = START;
    const ahead = nodes.map(() => 0);
    const tick = () => {
      time += 1000;
      for (const [number, each] of nodes.entries()) each.wallMs = time + (ahead[number] as number) * DAY_MS;
    };
    tick();
    for (const each of nodes) each.trust(...authors);
    const copies = nodes.map((each) => each.copy());
    let [hasPart, hasLost, hasRestored, hasRepaired] = [false, false, false, false];
    for (const each of actions) {
      tick();
      const here = at(each.node);
      if (each.do === "write") {
        const { count, ...rest } = each.params;
        here.call("pipeline.write", { storyId: each.storyId, ...rest, ...count });
        if (count !== undefined && "retryCountDelta" in count) seen.increments += 1;
        remember(here);
      } else if (each.do === "delete") {
        if ((here.call("pipeline.delete", { storyId: each.storyId }) as { deleted: boolean }).deleted)
          seen.deleted += 1;
        remember(here);
      } else if (each.do === "sync" && each.to !== each.node) {
        const { refused } = await syncBoards(here.client, at(each.to).client);
        for (const { kind } of refused) expect(kind).toBeOneOf(["clock_ahead", "missing_prev"]);
        seen.refused += refused.length;
      } else if (each.do === "part" && each.to !== each.node) {
        const { heads } = at(each.to).call("pipeline.heads") as { heads: object[] };
        const page = here.call("pipeline.changes", { heads, cuts: true, limit: each.count + 1 }) as {
          changes: object[];
        };
        if (page.changes.length > 0) at(each.to).call("pipeline.apply", { changes: page.changes });
        hasPart = true;
      } else if (each.do === "compact") {
        const before = contentOf(here);
        const revision = here.call("pipeline.watch");
        if (each.late) here.wallMs += 100 * DAY_MS;
        const dry = here.call("pipeline.compact", { dryRun: true }) as { changes: number; unknown: number };
        const done = here.call("pipeline.compact") as typeof dry;
        expect(done).toEqual(dry);
        expect(here.call("pipeline.compact", { dryRun: true })).toEqual({ ...done, changes: 0, bytes: 0 });
        seen.cut += done.changes;
        seen.waited += done.unknown;
        expect(contentOf(here)).toEqual(before);
        expect(here.call("pipeline.watch")).toEqual(revision);
        expect(differencesOf(here)).toEqual([]);
      } else if (each.do === "clock") {
        ahead[each.node] = each.days;
      } else if (each.do === "repair") {
        ahead[each.node] = 0;
        here.wallMs = time;
        const before = contentOf(here);
        const held = here.bodies();
        const { changes, aheadMs } = here.call("pipeline.repair") as { changes: number; aheadMs?: number };
        seen.again += changes;
        expectRepaired(here, held, time);
        hasRepaired = true;
        if (aheadMs === undefined) expect(contentOf(here)).toEqual(before);
        expect(differencesOf(here)).toEqual([]);
        remember(here);
      } else if (each.do === "copy") {
        copies[each.node] = here.copy();
      } else if (each.do === "restore") {
        here.restore(copies[each.node] as Buffer);
        seen.restored += 1;
        hasRestored = true;
        hasLost ||= hasPart;
      }
    }

    // Everything that is on some node, or was taken away there because nothing rests on it.
    const present = new Map(nodes.flatMap((each) => [...each.bodies()]));
    const known = new Set([...present.keys(), ...nodes.flatMap((each) => each.cut().map(({ id }) => id))]);
    if (!hasRestored && !hasRepaired) expect(known).toEqual(new Set(bodies.keys()));
    for (const each of nodes) each.wallMs = END;
    for (let round = 0, before = ""; round < 20; round += 1) {
      for (const from of nodes) {
        for (const to of nodes)
          if (from !== to) expect((await syncBoards(from.client, to.client)).refused).toEqual([]);
      }
      const now = JSON.stringify(nodes.map(headsOf));
      if (now === before) break;
      before = now;
    }
    const meant = model(present.values());
    const [first] = nodes as [TablesNode];
    for (const each of nodes) {
      expect(headsOf(each)).toEqual(headsOf(first));
      expectModel(each, meant);
      expect(differencesOf(each)).toEqual([]);
    }
    if (!hasLost) {
      const all = model([...known].map((id) => bodies.get(id) as string));
      expectModel(first, all);
      expect(headsOf(first)).toEqual(all.heads);
      seen.forks += all.forks;
    }
    seen.taken += nodes.filter((each) => each.cut().length > 0).length;
  } finally {
    for (const each of nodes) each.close();
  }
}

/** That no change was taken back that a peer has said it has, and that none of its own is ahead for no reason. */
function expectRepaired(at: TablesNode, before: ReadonlyMap<string, string>, time: number): void {
  const after = at.bodies();
  const statements = at.database.prepare("SELECT body FROM pawl_peer_statement").all() as { body: string }[];
  const heads = statements.flatMap(({ body }) => JSON.parse(body).heads);
  const known = new Set<string>();
  for (const { hash } of heads) {
    for (let id = hash; before.has(id); id = JSON.parse(before.get(id) as string).prev) known.add(id);
  }
  expect([...known].filter((id) => !after.has(id))).toEqual([]);
  const written = [...after].map(([id, body]) => {
    const { author, incarnation, seq, hlc } = JSON.parse(body);
    return { id, author, incarnation, seq, wall: hlc[0] };
  });
  const ahead = [...written, ...at.cut()].filter(({ wall }) => wall > time);
  if (ahead.some(({ author }) => author !== at.author.id)) return;
  // Whatever comes after one that somebody has is later still.
  const isSaid = ahead.some(({ incarnation, seq }) =>
    heads.some((head) => head.incarnation === incarnation && head.seq >= seq),
  );
  if (!isSaid) expect(ahead.map(({ id }) => id)).toEqual([]);
}

function expectModel(at: TablesNode, meant: Model): void {
  expect(itemsOf(at)).toEqual(meant.items);
  for (const [id, notes] of meant.notes) {
    const read = at.call("pipeline.read", { storyId: id, notes: 100 }) as {
      notes: { at: number; author: string; agent: string | null; text: string }[];
    };
    expect(
      read.notes.map(({ at: when, author, agent, text }) => `${when} ${author} ${agent} ${text}`),
    ).toEqual(notes);
  }
}

/** A node goes back behind what another has of it, and writes: of random histories not all sets have one that does. */
const FORKED: Action[] = [
  { do: "write", node: 0, storyId: "A", params: { stage: "1_backlog" } },
  { do: "sync", node: 0, to: 1 },
  { do: "restore", node: 0 },
  { do: "write", node: 0, storyId: "B", params: { stage: "1_backlog" } },
];

/** What is taken away lies on both sides of what was taken away before: of random histories hardly any has that. */
const BETWEEN: Action[] = [
  { do: "write", node: 0, storyId: "A", params: { stage: "1_backlog" } },
  { do: "write", node: 0, storyId: "A", params: { stage: "2_current" } },
  { do: "write", node: 0, storyId: "A", params: { stage: "2_current", name: "x" } },
  { do: "write", node: 0, storyId: "A", params: { stage: "1_backlog" } },
  { do: "compact", node: 0, late: true },
  { do: "delete", node: 0, storyId: "A" },
  { do: "compact", node: 0, late: true },
];

/** A node is given a cut and not what replaced what was cut, which is then lost. */
const HALF: Action[] = [
  { do: "write", node: 0, storyId: "A", params: { stage: "1_backlog" } },
  { do: "write", node: 0, storyId: "A", params: { stage: "2_current" } },
  { do: "sync", node: 0, to: 1 },
  { do: "write", node: 0, storyId: "A", params: { stage: "1_backlog" } },
  { do: "compact", node: 0, late: true },
  { do: "part", node: 0, to: 2, count: 1 },
  { do: "restore", node: 0 },
];

describe("nodes that take old changes away", { timeout: 300_000 * RUNS }, () => {
  test("agree in the end with what all of them ever had, forks, restores, wrong clocks and all", async () => {
    const seen = { ...NOTHING };
    await fc.assert(
      fc.asyncProperty(history, (actions) => live(actions, seen)),
      // A mutant is only to be found, not to be explained.
      {
        numRuns: 25 * RUNS,
        examples: [[FORKED], [BETWEEN], [HALF]],
        endOnFailure: process.env.PAWL_MUTANT !== undefined,
      },
    );
    for (const count of Object.values(seen)) expect(count, JSON.stringify(seen)).toBeGreaterThan(0);
  });
});

test("repair gives two logs again that lie ahead as a whole, one before and one behind that of another node", () => {
  const [author, other] = authors as [Author, Author];
  const [here, peer] = [new TablesNode(author), new TablesNode(other)];
  for (const each of [here, peer]) {
    each.wallMs = START;
    each.trust(author, other);
  }
  const write = (at: TablesNode, storyId: string) =>
    at.call("pipeline.write", { storyId, stage: "1_backlog" });
  write(peer, "A");
  here.wallMs = START + DAY_MS;
  write(here, "B");
  const { changes } = peer.call("pipeline.changes", { heads: [] }) as { changes: object[] };
  here.call("pipeline.apply", { changes });
  here.restore(here.copy());
  write(here, "C");
  here.wallMs = START + 1000;
  expect(here.call("pipeline.repair")).toMatchObject({ changes: 2 });
  expect(differencesOf(here)).toEqual([]);
  expectModel(here, model(here.bodies().values()));
  expect([...itemsOf(here).keys()].sort()).toEqual(["A", "B", "C"]);
  for (const each of [here, peer]) each.close();
});

describe("repair of a log of its own that is forked", () => {
  test("leaves the fork that does not lie ahead as the log", async () => {
    const [author, other] = authors as [Author, Author];
    const [here, twin, peer] = [new TablesNode(author), new TablesNode(author), new TablesNode(other)];
    for (const each of [here, twin, peer]) {
      each.wallMs = START;
      each.trust(author, other);
    }
    const write = (at: TablesNode, name: string) =>
      at.call("pipeline.write", { storyId: "A", stage: "1_backlog", name, rank: "a0", retryCountDelta: 1 });
    for (const name of ["one", "two"]) write(here, name);
    twin.restore(here.copy());
    for (const name of ["three", "four"]) write(twin, name);
    await syncBoards(peer.client, twin.client);
    here.wallMs = START + DAY_MS;
    for (const name of ["ahead", "further"]) write(here, name);
    const { changes } = peer.call("pipeline.changes", { heads: [], cuts: true }) as { changes: object[] };
    here.call("pipeline.apply", { changes });
    expect(here.call("pipeline.heads")).toMatchObject({ heads: [{ seq: 4 }, { seq: 4 }] });
    here.wallMs = START + 1000;
    expect(here.call("pipeline.repair")).toMatchObject({ changes: 2 });
    expect(differencesOf(here)).toEqual([]);
    expect(here.call("pipeline.heads")).toMatchObject({
      heads: expect.toSatisfy((heads) => heads.length === 2),
    });
    expect((await syncBoards(here.client, peer.client)).refused).toEqual([]);
    expect(headsOf(peer)).toEqual(headsOf(here));
    const meant = model(here.bodies().values());
    expect(meant.heads).toEqual(headsOf(here));
    for (const each of [here, peer]) expectModel(each, meant);
    expect(meant.items.get("A")).toMatchObject({ name: "further", retryCount: 6 });
    for (const each of [here, twin, peer]) each.close();
  });

  test("puts what is given again behind what others wrote ahead of the time", async () => {
    const [author, other] = authors as [Author, Author];
    const [here, peer] = [new TablesNode(author), new TablesNode(other)];
    for (const each of [here, peer]) {
      each.wallMs = START;
      each.trust(author, other);
    }
    const write = (at: TablesNode, name: string) =>
      at.call("pipeline.write", { storyId: "A", stage: "1_backlog", name, rank: "a0" });
    here.wallMs = START + 3 * DAY_MS;
    write(here, "mine");
    [here.wallMs, peer.wallMs] = [START + 6 * DAY_MS, START + 6 * DAY_MS];
    write(peer, "theirs");
    const { changes } = peer.call("pipeline.changes", { heads: [] }) as { changes: object[] };
    here.call("pipeline.apply", { changes });
    expect(itemsOf(here).get("A")).toMatchObject({ name: "theirs" });
    here.wallMs = START;
    expect(here.call("pipeline.repair")).toMatchObject({ changes: 1, aheadMs: 6 * DAY_MS });
    expect(differencesOf(here)).toEqual([]);
    expectModel(here, model(here.bodies().values()));
    expect(itemsOf(here).get("A")).toMatchObject({ name: "mine" });
    for (const each of [here, peer]) each.close();
  });
});

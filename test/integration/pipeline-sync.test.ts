// Nodes give each other heads and changes, and take them in or refuse them.
// Not over shared names: the board is each node's own.
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import type { Result } from "@pawl/protocol";
import Database from "better-sqlite3";
import { describe, expect, test } from "vitest";
import type { SignedChange } from "../../daemon/dist/domain/board/signed-text.js";
import { Place, sharedDaemon, startDaemon } from "../daemon.js";
import { contentOf } from "../in-process.js";
import { Author, BOARD, hashOf, incarnation } from "../property/board-author.js";
import { author, first, REFUSED, second, stranger } from "../property/board-refused.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

/** A node that trusts these authors, and is on the board of the changes that tests make. */
async function trusting(client: RawClient, ...authors: Author[]): Promise<RawClient> {
  for (const [index, { id }] of authors.entries()) {
    await client.call("peer.trust", { author: id, name: `peer ${index}`, board: BOARD });
  }
  return client;
}

async function newNode(...authors: Author[]): Promise<RawClient> {
  const { place } = await startDaemon();
  return await trusting(await place.connect(), ...authors);
}

const apply = (client: RawClient, ...changes: SignedChange[]): Promise<Result<"pipeline.apply">> =>
  client.call("pipeline.apply", { changes });

describe("a change is refused for", () => {
  const daemon = sharedDaemon();
  const path = (): string => join(daemon().place.stateDir, "pawl.db");

  test("each of its kinds, wherever it stands in a call; and neither tables nor clock nor log move", async () => {
    const client = await trusting(await daemon().place.connect(), author);
    expect(await apply(client, first)).toEqual({ applied: 1, duplicate: 0, rejected: [] });
    const before = contentOf(path());
    for (const [kind, what, change] of REFUSED) {
      const { applied, duplicate, rejected } = await apply(client, first, change, first);
      expect([what, applied, duplicate, rejected[0]?.kind]).toEqual([what, 0, 2, kind]);
      expect(rejected).toHaveLength(1);
      // All of pawl's tables but the clock of leases: the board's clock is one of them.
      expect(contentOf(path()), what).toEqual(before);
    }
    await client.call("peer.revoke", { author: author.id });
    const revoked = contentOf(path());
    expect((await apply(client, second())).rejected).toMatchObject([
      { kind: "revoked_author", author: author.id },
    ]);
    expect(contentOf(path())).toEqual(revoked);
    // Nor did any of them stand in the way of the next one.
    await trusting(client, author);
    expect(await apply(client, second())).toEqual({ applied: 1, duplicate: 0, rejected: [] });
    expect(new Set(REFUSED.map(([kind]) => kind)).size).toBe(16);
  });

  test("being too far ahead, until its time comes; other logs go on meanwhile", async () => {
    const client = await trusting(await daemon().place.connect(), new Author(5), new Author(6));
    const [ahead, other] = [new Author(5), new Author(6)];
    // By the clock that the changes are held against: this process counts whole milliseconds from another beginning.
    const { now } = await client.call("daemon.ping", {});
    const change = ahead.change({ hlc: [now + 61_000, 0] });
    const follower = ahead.change({ hlc: [now + 61_001, 0], seq: 2, prev: hashOf(change) });
    const { applied, rejected } = await apply(client, change, follower, other.change());
    expect(applied).toBe(1);
    expect(rejected).toMatchObject([
      { author: ahead.id, incarnation: incarnation(0), seq: 1, kind: "clock_ahead" },
      { author: ahead.id, incarnation: incarnation(0), seq: 2, kind: "missing_prev" },
    ]);
    const { retryMs } = rejected[0] as { retryMs: number };
    expect(retryMs).toBeGreaterThan(0);
    expect(retryMs).toBeLessThanOrEqual(1000);
    await new Promise((resolve) => setTimeout(resolve, retryMs));
    expect(await apply(client, change, follower)).toEqual({ applied: 2, duplicate: 0, rejected: [] });
  });

  test("more than 64 at once are no call", async () => {
    const client = await daemon().place.connect();
    const refused = await client.refusal("pipeline.apply", { changes: Array(65).fill(first) });
    expectRefusal(refused, "invalid_params");
  });
});

describe("trust", () => {
  const daemon = sharedDaemon();

  test("is given, named, taken away and given again", async () => {
    const client = await newNode();
    expect(await client.call("peer.trust", { author: author.id, name: "a" })).toEqual({
      author: author.id,
      name: "a",
    });
    expect(await client.call("peer.trust", { author: author.id, name: "a" })).toEqual({
      author: author.id,
      name: "a",
    });
    const [peer] = (await client.call("peer.list", {})).peers;
    expect(peer).toEqual({ author: author.id, name: "a", trustedAt: expect.any(Number) });
    expect(await client.call("peer.revoke", { author: author.id })).toEqual({ revoked: true });
    expect(await client.call("peer.revoke", { author: author.id })).toEqual({ revoked: false });
    expect(await client.call("peer.revoke", { author: stranger.id })).toEqual({ revoked: false });
    expect((await client.call("peer.list", {})).peers).toMatchObject([{ revokedAt: expect.any(Number) }]);
    await client.call("peer.trust", { author: author.id, name: "b" });
    expect((await client.call("peer.list", {})).peers[0]).not.toHaveProperty("revokedAt");
  });

  test("duplicate_key: a key that is trusted under another name, and the node's own", async () => {
    const client = await newNode(author);
    const { data } = expectRefusal(
      await client.refusal("peer.trust", { author: author.id, name: "again" }),
      "duplicate_key",
    );
    expect(data.name).toBe("peer 0");
    const own = (await client.call("pipeline.identity", {})).author;
    expectRefusal(await client.refusal("peer.trust", { author: own, name: "me" }), "duplicate_key");
    expect((await client.call("peer.list", {})).peers).toHaveLength(1);
  });

  test.each([
    ["the neutral element", `01${"00".repeat(31)}`],
    ["a point of order 2", `ec${"ff".repeat(30)}7f`],
    ["a point of order 4", "00".repeat(32)],
    ["a point of order 8", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"],
    ["an encoding that is not canonical", `ee${"ff".repeat(30)}7f`],
  ])("weak_key: %s", async (_what, weak) => {
    const client = await daemon().place.connect();
    expectRefusal(await client.refusal("peer.trust", { author: weak, name: "weak" }), "weak_key");
    expect((await client.call("peer.list", {})).peers).toEqual([]);
  });

  test("gives a node that has none the board of the first peer that has one; another is wrong_board", async () => {
    const client = await newNode();
    const boardOf = async () => (await client.call("pipeline.identity", {})).board;
    await client.call("peer.trust", { author: author.id, name: "without a board" });
    expect(await boardOf()).toBeNull();
    await client.call("peer.trust", { author: stranger.id, name: "with one", board: BOARD });
    expect(await boardOf()).toBe(BOARD);
    const other = { author: new Author(3).id, name: "on another", board: incarnation(7) };
    expectRefusal(await client.refusal("peer.trust", other), "wrong_board");
    await client.call("pipeline.write", { storyId: "A", stage: "1_backlog" });
    expect(await boardOf()).toBe(BOARD);
  });

  test("a node that wrote first is on a board of its own; one without takes that of the first change", async () => {
    const client = await newNode();
    await client.call("pipeline.write", { storyId: "A", stage: "1_backlog" });
    expect((await client.call("pipeline.identity", {})).board).toMatch(/^[0-9a-f]{32}$/);
    const refused = await client.refusal("peer.trust", { author: author.id, name: "a", board: BOARD });
    expectRefusal(refused, "wrong_board");
    const empty = await newNode();
    await empty.call("peer.trust", { author: author.id, name: "a" });
    expect(await apply(empty, first)).toMatchObject({ applied: 1 });
    expect((await empty.call("pipeline.identity", {})).board).toBe(BOARD);
  });
});

describe("changes", () => {
  /** A chain of changes from `parts` on; each sets the name to its number. */
  function chain(by: Author, count: number, from?: SignedChange, label = "x"): SignedChange[] {
    const made: SignedChange[] = [];
    let last = from;
    for (let index = 0; index < count; index += 1) {
      const seq = last === undefined ? 1 : (JSON.parse(last.body).seq as number) + 1;
      last = by.change({
        seq,
        prev: last === undefined ? null : hashOf(last),
        hlc: [1000 + seq, 0],
        ops: [{ i: "A-1", g: 1, s: { stage: "1_backlog", name: `${label}${seq}` }, c: { retryCount: 1 } }],
      });
      made.push(last);
    }
    return made;
  }

  const headOf = (change: SignedChange) => {
    const { author: by, incarnation: log, seq } = JSON.parse(change.body);
    return { author: by as string, incarnation: log as string, seq: seq as number, hash: hashOf(change) };
  };

  async function lacking(client: RawClient, ...known: SignedChange[]): Promise<string[]> {
    const { changes } = await client.call("pipeline.changes", { heads: known.map(headOf) });
    return changes.map(hashOf);
  }

  test("are given in order, from the heads on, in calls of at most 64", async () => {
    const client = await newNode(author);
    const made = chain(author, 100);
    for (const part of [made.slice(0, 64), made.slice(64)]) {
      expect(await apply(client, ...part)).toMatchObject({ applied: part.length });
    }
    const first64 = await client.call("pipeline.changes", { heads: [] });
    expect(first64).toEqual({ changes: made.slice(0, 64), more: true });
    const rest = await client.call("pipeline.changes", { heads: [headOf(made[63] as SignedChange)] });
    expect(rest).toEqual({ changes: made.slice(64), more: false });
    expect(await client.call("pipeline.changes", { heads: [], limit: 3 })).toEqual({
      changes: made.slice(0, 3),
      more: true,
    });
    expect(await lacking(client, made.at(-1) as SignedChange)).toEqual([]);
    // A head that is not known here is passed over.
    expect(await lacking(client, stranger.change(), made.at(-2) as SignedChange)).toEqual([
      hashOf(made.at(-1) as SignedChange),
    ]);
  });

  test("stay within a message, however large they are", async () => {
    const client = await newNode(author);
    const made: SignedChange[] = [];
    for (let seq = 1; seq <= 40; seq += 1) {
      const fields = Object.fromEntries(Array.from({ length: 14 }, (_, n) => [`x${n}`, '"'.repeat(2000)]));
      made.push(
        author.change({
          seq,
          prev: seq === 1 ? null : hashOf(made.at(-1) as SignedChange),
          hlc: [1000 + seq, 0],
          ops: [{ i: "A-1", g: 1, s: { stage: "1_backlog", ...fields } }],
        }),
      );
    }
    for (let index = 0; index < made.length; index += 5) await apply(client, ...made.slice(index, index + 5));
    const got: SignedChange[] = [];
    for (let more = true; more; ) {
      const known = got.length === 0 ? [] : [headOf(got.at(-1) as SignedChange)];
      const page = await client.call("pipeline.changes", { heads: known });
      // Changes that were given must be takeable in one line.
      expect(
        Buffer.byteLength(
          JSON.stringify({
            jsonrpc: "2.0",
            id: 1,
            method: "pipeline.apply",
            params: { changes: page.changes },
          }),
        ),
      ).toBeLessThan(1024 * 1024);
      expect(page.changes.length).toBeGreaterThan(0);
      got.push(...page.changes);
      more = page.more;
    }
    expect(got).toEqual(made);
  });

  test("of a forked log are all kept and given, and the fork is reported", async () => {
    const running = await startDaemon();
    const client = await trusting(await running.place.connect(), author);
    const trunk = chain(author, 3);
    const left = chain(author, 3, trunk[1], "left");
    const right = chain(author, 1, trunk[0], "right");
    const other = author.change({ hlc: [900, 0] });
    await apply(client, ...trunk, ...left, ...right, other, ...chain(author, 1, other, "other"));
    const { heads } = await client.call("pipeline.heads", {});
    expect(heads.map(({ seq }) => seq).sort()).toEqual([2, 2, 3, 5]);
    expect((await client.call("daemon.stats", {})).pipeline).toMatchObject({ changes: 9, forks: 3 });
    const reported = running.log.filter(({ msg }) => msg === "a log of the board is forked");
    expect(reported.map(({ seq }) => seq).sort()).toEqual([1, 2, 3]);
    // Each part of the tree is given to whoever lacks it, after what it goes off from.
    expect((await lacking(client)).length).toBe(9);
    expect(await lacking(client, trunk[2] as SignedChange)).toEqual(
      expect.arrayContaining([...left, ...right, other].map(hashOf)),
    );
    expect(await lacking(client, trunk[2] as SignedChange)).not.toContain(hashOf(trunk[1] as SignedChange));
    const all = [...trunk, left[2], right[0], other].map((change) => change as SignedChange);
    expect(await lacking(client, ...all)).toHaveLength(1);
    // In any order another node comes to the same.
    const twin = await newNode(author);
    const { changes } = await client.call("pipeline.changes", { heads: [] });
    const shuffled = [
      changes[0],
      ...changes.slice(1).filter(({ body }) => JSON.parse(body).seq === 1),
    ] as SignedChange[];
    await apply(twin, ...shuffled);
    await apply(twin, ...changes.toReversed());
    for (let round = 0; round < 5; round += 1) await apply(twin, ...changes.toReversed());
    expect(await twin.call("pipeline.heads", {})).toEqual({ cuts: [], heads });
    expect(await twin.call("pipeline.list", {})).toEqual(await client.call("pipeline.list", {}));
  });

  test("with fields unknown here are taken in and passed on, and not shown", async () => {
    const client = await newNode(author);
    const fields = JSON.parse('{"stage":"1_backlog","__proto__":{"a":1},"constructor":"x","zeal":[1]}');
    const change = author.change({ ops: [{ i: "A-1", g: 1, s: fields, c: { likes: 3 } }] });
    expect(change.body).toContain('"__proto__":{"a":1}');
    expect(await apply(client, change)).toMatchObject({ applied: 1 });
    const { item } = await client.call("pipeline.read", { storyId: "A-1" });
    expect(Object.keys(item ?? {})).not.toContain("zeal");
    expect((await client.call("pipeline.changes", { heads: [] })).changes).toEqual([change]);
    expect(
      Object.keys((await client.call("pipeline.history", { storyId: "A-1" })).changes[0]?.set ?? {}),
    ).toEqual(["stage"]);
    const refused = await client.refusal("pipeline.write", { storyId: "A-1", zeal: 1 });
    expectRefusal(refused, "invalid_params");
  });
});

describe("a node restored from a copy", () => {
  test("finds that a peer has more of its log, fetches it, and goes on under a new incarnation", async () => {
    const place = new Place();
    await place.start();
    const client = await place.connect();
    const before = await client.call("pipeline.identity", {});
    // Its own later changes, as a peer would have them: made by the same key.
    const peer = await newNode();
    await peer.call("peer.trust", { author: before.author, name: "restored" });
    for (let index = 0; index < 3; index += 1)
      await client.call("pipeline.write", { storyId: `S-${index}`, stage: "1_backlog" });
    const { changes } = await client.call("pipeline.changes", { heads: [] });
    expect(await apply(peer, ...(changes as SignedChange[]))).toMatchObject({ applied: 3 });
    await client.destroy();
    // The database goes back to nothing, within the same file: only the peer can tell.
    const copy = new Place();
    const other = await copy.start();
    await trusting(await copy.connect(), stranger);
    await other.end();
    copyFileSync(join(place.stateDir, "identity.key"), join(copy.stateDir, "identity.key"));
    const database = new Database(join(copy.stateDir, "pawl.db"));
    database.exec(
      `UPDATE pawl_board SET author = '${before.author}', incarnation = '${before.incarnation}', board = '${(await peer.call("pipeline.identity", {})).board}'`,
    );
    database.close();
    await copy.start();
    const restored = await copy.connect();
    await restored.call("pipeline.write", { storyId: "alone", stage: "2_current" });
    const { heads } = await restored.call("pipeline.heads", {});
    const given = await peer.call("pipeline.changes", { heads });
    expect(await apply(restored, ...(given.changes as SignedChange[]))).toMatchObject({
      applied: 3,
      rejected: [],
    });
    const after = await restored.call("pipeline.identity", {});
    expect(after.incarnation).not.toBe(before.incarnation);
    expect((await restored.call("daemon.stats", {})).pipeline).toEqual({ items: 4, changes: 4, forks: 1 });
    await restored.call("pipeline.write", { storyId: "S-0", name: "goes on" });
    const back = await restored.call("pipeline.changes", {
      heads: (await peer.call("pipeline.heads", {})).heads,
    });
    expect(await apply(peer, ...(back.changes as SignedChange[]))).toMatchObject({
      applied: 2,
      rejected: [],
    });
    expect(await peer.call("pipeline.heads", {})).toEqual(await restored.call("pipeline.heads", {}));
    expect(await peer.call("pipeline.list", {})).toEqual(await restored.call("pipeline.list", {}));
  });
});

// Reservations of paths as clients see them: a daemon on a real socket, holders and waiters on their own connections.
import { once } from "node:events";
import type { Params, Result } from "@pawl/protocol";
import { MAX_RESERVATION_PATTERNS, MAX_ROOT_RESERVATIONS } from "@pawl/protocol/limits";
import { describe, expect, test } from "vitest";
import { NAMES_ARE_SHARED, Place, sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

type Reservation = Result<"path.reserve">["reservation"];
type Terms = Partial<Params<"path.reserve">>;

const daemon = sharedDaemon();
const connect = (): Promise<RawClient> => daemon().place.connect();

let roots = 0;
/** A root of its own, in which nothing is reserved. */
function newRoot(): string {
  roots += 1;
  return `/srv/${roots}`;
}

async function reserve(
  client: RawClient,
  root: string,
  patterns: string[],
  terms: Terms = {},
): Promise<Reservation> {
  return (await client.call("path.reserve", { root, patterns, owner: "test", ...terms })).reservation;
}

/** Starts to wait, and returns once the daemon has taken it up, with the grant still to come. */
async function startWaiting(
  client: RawClient,
  root: string,
  patterns: string[],
  terms: Terms = {},
): Promise<{ granted: Promise<Reservation>; isGranted: () => boolean }> {
  let done = false;
  const granted = reserve(client, root, patterns, { waitMs: 60_000, ...terms });
  granted.then(
    () => (done = true),
    () => {},
  );
  await client.call("daemon.ping", {});
  return { granted, isGranted: () => done };
}

const release = (client: RawClient, { reservationId }: Reservation, patterns?: string[]) =>
  client.call("path.release", { reservationId, ...(patterns === undefined ? {} : { patterns }) });

describe("a reservation", () => {
  test("is granted, shown without its id, renewed, added to, given back in part and as a whole", async () => {
    const client = await connect();
    const root = newRoot();
    const { reservation } = await client.call("path.reserve", {
      root: `${root}/./`,
      patterns: ["src//*.ts", "./docs/", "docs/"],
      files: ["app/[id].tsx"],
      owner: "ada",
      ttlMs: 5000,
      note: "types",
    });
    expect(reservation).toEqual({
      reservationId: expect.stringMatching(/^path_[0-9a-f]{32}$/),
      root,
      patterns: ["src/*.ts", "docs/", "app/[[]id].tsx"],
      mode: "write",
      fencingToken: 1,
      expiresAt: expect.any(Number),
      remainingMs: 5000,
    });
    const { reservationId } = reservation;
    const listed = await client.call("path.list", { root });
    expect(listed).toEqual({
      reservations: [
        {
          root,
          patterns: ["src/*.ts", "docs/", "app/[[]id].tsx"],
          mode: "write",
          owner: "ada",
          fencingToken: 1,
          acquiredAt: reservation.expiresAt - 5000,
          expiresAt: expect.any(Number),
          remainingMs: expect.any(Number),
          note: "types",
          pid: process.pid,
          uid: process.getuid?.(),
        },
      ],
    });

    expect(
      (await client.call("path.heartbeat", { reservationId, ttlMs: 9000, note: "more" })).remainingMs,
    ).toBe(9000);
    expect((await client.call("path.heartbeat", { reservationId })).remainingMs).toBe(5000);
    // What it has is no reason for another token; something more is.
    expect(await reserve(client, root, ["docs/"], { reservationId, owner: "ada" })).toMatchObject({
      fencingToken: 1,
    });
    expect(await reserve(client, root, ["lib/"], { reservationId, owner: "ada", ttlMs: 7000 })).toMatchObject(
      {
        reservationId,
        patterns: ["src/*.ts", "docs/", "app/[[]id].tsx", "lib/"],
        fencingToken: 2,
        remainingMs: 7000,
      },
    );
    expect((await client.call("path.list", { root })).reservations).toMatchObject([
      { note: "more", fencingToken: 2 },
    ]);

    expect(await release(client, reservation, ["lib/", "app/[[]id].tsx", "other/"])).toEqual({
      released: true,
      patterns: ["src/*.ts", "docs/"],
    });
    expect(await release(client, reservation, ["other/"])).toEqual({
      released: false,
      patterns: ["src/*.ts", "docs/"],
    });
    expect(await release(client, reservation, ["./src/*.ts", "docs//"])).toEqual({
      released: true,
      patterns: [],
    });
    expect(await release(client, reservation)).toEqual({ released: false, patterns: [] });
    expectRefusal(await client.refusal("path.heartbeat", { reservationId }), "lease_lost");
    expectRefusal(
      await client.refusal("path.reserve", { root, patterns: ["x"], owner: "ada", reservationId }),
      "lease_lost",
    );
    // The next token is higher all the same.
    expect(await reserve(client, root, ["docs/"])).toMatchObject({ fencingToken: 3 });
    expect(await client.call("path.list", { owner: "ada" })).toEqual({ reservations: [] });
  });

  test("is refused while some path fits both and one of them writes, naming every holder", async () => {
    const client = await connect();
    const root = newRoot();
    await reserve(client, root, ["src/*.ts"], { owner: "ada", note: "types" });
    await reserve(client, root, ["lib/", "src/*.css"], { owner: "bob", mode: "read" });
    const refused = await client.refusal("path.reserve", { root, patterns: ["*/index.*"], owner: "cy" });
    expectRefusal(refused, "lease_held");
    expect(refused.message).toMatch(/src\/\*\.ts/);
    expect(refused.data.holders).toEqual([
      {
        owner: "ada",
        pattern: "src/*.ts",
        mode: "write",
        note: "types",
        pid: process.pid,
        expiresAt: expect.any(Number),
        remainingMs: expect.any(Number),
      },
      expect.objectContaining({ owner: "bob", mode: "read", note: null }),
    ]);
    expect(refused.data.holder).toMatchObject({ owner: "ada" });
    // All or none, by the intersection, and readers together.
    expectRefusal(
      await client.refusal("path.reserve", { root, patterns: ["new/", "**/a.ts"], owner: "cy" }),
      "lease_held",
    );
    expect(await reserve(client, root, ["s*/*.md", "new/"])).toBeDefined();
    expect(await reserve(client, root, ["lib/deep/**"], { mode: "read" })).toMatchObject({ mode: "read" });
    expectRefusal(
      await client.refusal("path.reserve", { root, files: ["lib/a"], owner: "cy" }),
      "lease_held",
    );
    // Another root is another tree.
    expect(await reserve(client, newRoot(), ["**"])).toBeDefined();
  });

  test("is added to only with its own terms, and never conflicts with itself", async () => {
    const client = await connect();
    const root = newRoot();
    const { reservationId } = await reserve(client, root, ["src/"], { owner: "ada" });
    expect(await reserve(client, root, ["**"], { reservationId, owner: "ada" })).toMatchObject({
      fencingToken: 2,
    });
    for (const [terms, path] of [
      [{ root: newRoot() }, "/root"],
      [{ owner: "bob" }, "/owner"],
      [{ mode: "read" }, "/mode"],
      [{ releaseOn: "disconnect" }, "/releaseOn"],
      [{ graceMs: 5 }, "/graceMs"],
    ] as const) {
      const refused = await client.refusal("path.reserve", {
        root,
        patterns: ["x"],
        reservationId,
        owner: "ada",
        ...terms,
      });
      expectRefusal(refused, "invalid_params");
      expect(refused.data.issues).toMatchObject([{ path }]);
    }
  });

  test("is bounded: patterns of one, reservations of a root", async () => {
    const client = await connect();
    const root = newRoot();
    // All of it is held at the end, however slow the machine is.
    const ttlMs = 3_600_000;
    const first = await reserve(client, root, ["first"], { ttlMs });
    const { reservationId } = first;
    const some = (from: number): string[] => Array.from({ length: 64 }, (_, index) => `many/${from + index}`);
    for (let count = 64; count < MAX_RESERVATION_PATTERNS; count += 64)
      await reserve(client, root, some(count), { reservationId, ttlMs });
    expect(await reserve(client, root, some(0).slice(1), { reservationId, ttlMs })).toMatchObject({
      patterns: expect.objectContaining({ length: MAX_RESERVATION_PATTERNS }),
    });
    expectRefusal(
      await client.refusal("path.reserve", { root, patterns: ["x"], owner: "test", reservationId }),
      "exhausted",
    );

    const calls = Array.from({ length: MAX_ROOT_RESERVATIONS - 1 }, (_, index) => ({
      method: "path.reserve",
      params: { root, patterns: [`d${index}/*.ts`], owner: "test", ttlMs },
    }));
    for (let from = 0; from < calls.length; from += 64)
      await client.call("transact", { calls: calls.slice(from, from + 64) });
    const refused = await client.refusal("path.reserve", { root, patterns: ["x"], owner: "test" });
    expect(refused.data).toMatchObject({ kind: "exhausted", limit: MAX_ROOT_RESERVATIONS, retryable: true });
    // A check and a conflict are found among all of them.
    expect(await client.call("path.check", { root, path: "d77/a.ts" })).toMatchObject({
      allowed: false,
      holders: [{ pattern: "d77/*.ts" }],
    });
    expect(await client.call("path.check", { root, path: "d77/a.js" })).toEqual({
      allowed: true,
      holders: [],
    });
    const held = await client.refusal("path.reserve", { root, patterns: ["*/a.ts"], owner: "test" });
    expect((held.data.holders as unknown[]).length).toBe(1000);
    let [after, rows] = ["0", 0];
    for (;;) {
      const page = await client.call("path.list", { root, after, limit: 1000 });
      rows += page.reservations.length;
      if (page.next === undefined) break;
      after = page.next;
    }
    expect(rows).toBe(MAX_ROOT_RESERVATIONS);
    // Where beginnings are the same and nothing is alike, more is refused than is compared in some milliseconds.
    await release(client, first);
    const many = Array.from({ length: 64 }, (_, index) => `**/never${index}`);
    const tooMuch = await client.refusal("path.reserve", { root, patterns: many, owner: "test" });
    expect(expectRefusal(tooMuch, "exhausted").message).toMatch(/directories/);
  });

  test.each([
    [{ root: "relative" }, "/root"],
    [{ root: "/a/../b" }, "/root"],
    [{ patterns: ["ok", "../up"] }, "/patterns/1"],
    [{ patterns: ["{a,b}"] }, "/patterns/0"],
    [{ patterns: ["!a"] }, "/patterns/0"],
    [{ files: ["a/"] }, "/files/0"],
    [{ files: ["/etc/passwd"] }, "/files/0"],
    [{ patterns: [] }, ""],
    [{ graceMs: 5 }, "/graceMs"],
    [{ mode: "shared" }, "/mode"],
    [{ patterns: Array.from({ length: 65 }, (_, index) => `${index}`) }, "/patterns"],
  ])("is refused with what is wrong: %j", async (params, path) => {
    const client = await connect();
    const refused = await client.refusal("path.reserve", {
      root: "/r",
      owner: "test",
      patterns: ["a"],
      ...params,
    } as never);
    expectRefusal(refused, "invalid_params");
    expect(refused.data.issues).toMatchObject([{ path }]);
  });
});

test("a check counts the reservations of others, whatever they do there", async () => {
  const client = await connect();
  const root = newRoot();
  const check = (path: string, who: object = {}) => client.call("path.check", { root, path, ...who });
  expect(await check("src/a.ts")).toEqual({ allowed: true, holders: [] });
  const ada = await reserve(client, root, ["src/", "src/*.ts"], { owner: "ada", note: "n" });
  await reserve(client, root, ["**/*.ts"], { owner: "ada", mode: "read" }).catch(() => {});
  await reserve(client, root, ["docs/"], { owner: "bob", mode: "read" });
  const holder = { owner: "ada", mode: "write", expiresAt: expect.any(Number), note: "n", pid: process.pid };
  expect(await check("./src//a.ts")).toEqual({ allowed: false, holders: [{ ...holder, pattern: "src/" }] });
  expect(await check("src/a.ts", { owner: "bob" })).toMatchObject({ allowed: false });
  expect(await check("src/a.ts", { owner: "ada" })).toEqual({ allowed: true, holders: [] });
  expect(await check("src/a.ts", { reservationId: ada.reservationId })).toMatchObject({ allowed: true });
  expect(await check("docs/a.md", { owner: "ada" })).toMatchObject({
    allowed: false,
    holders: [{ mode: "read" }],
  });
  expect(await check("srcs/a.ts")).toMatchObject({ allowed: true });
  expectRefusal(await client.refusal("path.check", { root, path: "../a" }), "invalid_params");
  const both = { root, path: "a", owner: "ada", reservationId: ada.reservationId };
  expectRefusal(await client.refusal("path.check", both), "invalid_params");
});

describe("those who wait", () => {
  test("are served in the order of arrival, and only by what overlaps", async () => {
    const [holder, one, two, three] = [await connect(), await connect(), await connect(), await connect()];
    const root = newRoot();
    const held = await reserve(holder, root, ["a/"]);
    const other = await reserve(holder, root, ["b/"]);
    const both = await startWaiting(one, root, ["a/x", "b/x"]);
    const later = await startWaiting(two, root, ["b/**"]);
    const apart = await startWaiting(three, root, ["a/y"]);
    // What nobody wants is granted at once; what one who came before waits for is not.
    expect(await reserve(three, root, ["c/"])).toBeDefined();
    await release(holder, other);
    const refused = await holder.refusal("path.reserve", { root, patterns: ["b/x"], owner: "late" });
    expectRefusal(refused, "lease_held");
    expect(refused.message).toMatch(/came before/);
    expect(refused.data.holder).toMatchObject({ owner: "test" });
    expect(later.isGranted()).toBe(false);
    await release(holder, held);
    await apart.granted;
    const first = await both.granted;
    expect(later.isGranted()).toBe(false);
    await release(one, first);
    await later.granted;
  });

  test("are let through when the one before them gives up, is cancelled, or its time is up", async () => {
    const holder = await connect();
    for (const how of ["close", "cancel", "timeout"]) {
      const [one, two] = [await connect(), await connect()];
      const root = newRoot();
      await reserve(holder, root, ["a/"]);
      // The wait is longer than it takes to send the rest.
      const params = {
        root,
        patterns: ["a/x", "b/x"],
        owner: "one",
        waitMs: how === "timeout" ? 300 : 60_000,
      };
      one.send({ jsonrpc: "2.0", id: "w", method: "path.reserve", params });
      await one.call("daemon.ping", {});
      const behind = await startWaiting(two, root, ["b/"]);
      expect(behind.isGranted()).toBe(false);
      if (how === "close") one.socket.destroy();
      if (how === "cancel") one.send({ jsonrpc: "2.0", id: 1, method: "rpc.cancel", params: { id: "w" } });
      await behind.granted;
    }
  });

  test("of one want are a line, in which a release serves the next", async () => {
    const root = newRoot();
    const holder = await connect();
    let held = await reserve(holder, root, ["a/"]);
    const clients = await Promise.all(Array.from({ length: 20 }, connect));
    const order: number[] = [];
    const waits: Promise<Reservation>[] = [];
    for (const [index, client] of clients.entries()) {
      const { granted } = await startWaiting(client, root, [`a/${index}`, "a/all"]);
      void granted.then(() => order.push(index));
      waits.push(granted);
    }
    let client = holder;
    for (const [index, wait] of waits.entries()) {
      await release(client, held);
      held = await wait;
      client = clients[index] as RawClient;
    }
    expect(order).toEqual([...clients.keys()]);
  });

  test("are served by a part that is given back, and by what ends by its time", async () => {
    const [holder, one, two] = [await connect(), await connect(), await connect()];
    const root = newRoot();
    const held = await reserve(holder, root, ["a/", "b/"]);
    const part = await startWaiting(one, root, ["b/x"]);
    const rest = await startWaiting(two, root, ["a/x"]);
    await release(holder, held, ["b/"]);
    await part.granted;
    expect(rest.isGranted()).toBe(false);
    await holder.call("path.heartbeat", { reservationId: held.reservationId, ttlMs: 100 });
    await rest.granted;
    const lost = JSON.parse(await holder.line());
    expect(lost).toEqual({
      jsonrpc: "2.0",
      method: "path.lost",
      params: { reservationId: held.reservationId, root, fencingToken: 1, cause: "expired" },
    });
  });

  test("for what a holder has do not hold that holder up when it adds to it", async () => {
    const [holder, one, two] = [await connect(), await connect(), await connect()];
    const root = newRoot();
    const { reservationId } = await reserve(holder, root, ["a/"]);
    const other = await reserve(two, root, ["c/"]);
    const wide = await startWaiting(one, root, ["a/", "b/"]);
    await startWaiting(one, root, ["b/", "d/"]);
    // Both wait for the holder, the second one behind the first.
    expect(await reserve(holder, root, ["b/", "d/"], { reservationId })).toMatchObject({ fencingToken: 3 });
    // Somebody else's is waited for all the same.
    const more = await startWaiting(holder, root, ["c/x"], { reservationId });
    expect(more.isGranted()).toBe(false);
    await release(two, other);
    expect(await more.granted).toMatchObject({ patterns: ["a/", "b/", "d/", "c/x"] });
    expect(wide.isGranted()).toBe(false);
  });

  test("to add to a reservation are refused when that ends", async () => {
    const [holder, one] = [await connect(), await connect()];
    const root = newRoot();
    await reserve(holder, root, ["a/"]);
    const own = await reserve(one, root, ["b/"]);
    const { reservationId } = own;
    const refused = one.refusal("path.reserve", {
      root,
      patterns: ["a/x"],
      owner: "test",
      reservationId,
      waitMs: 60_000,
    });
    await release(one, own);
    expectRefusal(await refused, "lease_lost");
  });
});

describe("a reservation that ends with its connection", () => {
  test("is free the moment it closes, or after its grace", async () => {
    const observer = await connect();
    for (const graceMs of [0, 400]) {
      const holder = await connect();
      const root = newRoot();
      await reserve(holder, root, ["a/"], { releaseOn: "disconnect", graceMs });
      const wait = await startWaiting(observer, root, ["a/b"]);
      const closedAt = performance.now();
      holder.socket.destroy();
      await wait.granted;
      expect(performance.now() - closedAt).toBeGreaterThanOrEqual(graceMs);
    }
  });

  test("goes on when its holder comes back within the grace, and is then of that connection", async () => {
    const holder = await connect();
    const back = await connect();
    const root = newRoot();
    const { reservationId } = await reserve(holder, root, ["a/"], {
      releaseOn: "disconnect",
      graceMs: 60_000,
    });
    holder.socket.destroy();
    await once(holder.socket, "close");
    await back.call("path.heartbeat", { reservationId });
    const observer = await connect();
    // A closed connection is noticed soon, and only then the grace of the first one could begin.
    await back.call("path.heartbeat", { reservationId });
    expect(await observer.call("path.check", { root, path: "a/b" })).toMatchObject({ allowed: false });
    const wait = await startWaiting(observer, root, ["a/"]);
    expect(wait.isGranted()).toBe(false);
    await back.call("path.release", { reservationId });
    await wait.granted;
  });
});

describe("in transact", () => {
  test("a guard holds while the reservation does, under its last token", async () => {
    const client = await connect();
    const root = newRoot();
    const { reservationId } = await reserve(client, root, ["a/"]);
    const write = (fencingToken: number) => ({
      calls: [{ method: "sequence.next", params: { type: "GUARDED" } }],
      guards: [{ path: { reservationId, fencingToken } }],
    });
    await client.call("transact", write(1));
    await reserve(client, root, ["b/"], { reservationId });
    const refused = await client.refusal("transact", write(1));
    expectRefusal(refused, "lease_lost");
    expect(refused.message).toMatch(/under the token 2/);
    expect(refused.data).toMatchObject({ guard: 0, fencingToken: 1, highest: 2 });
    await client.call("transact", write(2));
    await client.call("path.release", { reservationId });
    expectRefusal(await client.refusal("transact", write(2)), "lease_lost");
    expect(await client.call("sequence.peek", { type: "GUARDED" })).toMatchObject({ seq: 3 });
    const none = await client.refusal("transact", { calls: write(2).calls, guards: [{}] } as never);
    expect(expectRefusal(none, "invalid_params").message).toMatch(/lease.*claim.*path/);
  });

  test("a reservation is made without waiting, and undone with the rest", async () => {
    const client = await connect();
    const root = newRoot();
    const call = { method: "path.reserve", params: { root, patterns: ["a/"], owner: "t" } } as const;
    const tried = await client.call("transact", { calls: [call], dryRun: true });
    expect(tried.results).toMatchObject([{ reservation: { reservationId: "dry-run", fencingToken: 1 } }]);
    const { results } = await client.call("transact", {
      calls: [
        call,
        { method: "path.release", params: { reservationId: { $result: "/0/reservation/reservationId" } } },
        call,
      ],
    });
    expect(results).toMatchObject([
      { reservation: { fencingToken: 1 } },
      { released: true },
      { reservation: { fencingToken: 2 } },
    ]);
    const refused = await client.refusal("transact", {
      calls: [{ ...call, params: { ...call.params, patterns: ["b/"] } }, call],
    });
    expectRefusal(refused, "lease_held");
    expect(refused.data).toMatchObject({ index: 1 });
    expect(await client.call("path.check", { root, path: "b/x" })).toMatchObject({ allowed: true });
    const waits = { ...call, params: { ...call.params, waitMs: 5 } };
    expectRefusal(await client.refusal("transact", { calls: [waits] }), "invalid_params");
  });
});

test("restarts: a reservation by expiry goes on, one by disconnect has its grace, tokens rise", async () => {
  const place = new Place();
  let process = await place.start();
  let client = await place.connect();
  const root = newRoot();
  const lasting = await reserve(client, root, ["a/"], { ttlMs: 60_000 });
  const bound = await reserve(client, root, ["b/"], { releaseOn: "disconnect", ttlMs: 60_000 });
  const patient = await reserve(client, root, ["c/"], {
    releaseOn: "disconnect",
    graceMs: 9000,
    ttlMs: 60_000,
  });
  await process.end("SIGKILL");
  process = await place.start();
  client = await place.connect();
  const { reservations } = await client.call("path.list", { root });
  expect(reservations.map(({ patterns, fencingToken }) => [...patterns, fencingToken])).toEqual([
    ["a/", 1],
    ["b/", 2],
    ["c/", 3],
  ]);
  const [first, second, third] = reservations.map(({ remainingMs }) => remainingMs) as [
    number,
    number,
    number,
  ];
  expect(first).toBeGreaterThan(30_000);
  expect(second).toBeLessThanOrEqual(5000);
  expect(third).toBeLessThanOrEqual(9000);
  expect(third).toBeGreaterThan(second);
  // Renewed on this connection, it is of this one.
  await client.call("path.heartbeat", { reservationId: bound.reservationId });
  expect((await reserve(client, root, ["d/"])).fencingToken).toBe(4);
  // Gauges have what is in its own database.
  const reserved = NAMES_ARE_SHARED ? 0 : 4;
  expect(await client.call("daemon.stats", {})).toMatchObject({ paths: { reserved } });
  const observer = await place.connect();
  const wait = await startWaiting(observer, root, ["b/"]);
  client.socket.destroy();
  await wait.granted;
  expect(await release(observer, lasting)).toMatchObject({ released: true });
  expect(await release(observer, patient)).toMatchObject({ released: true });
  expect((await observer.call("daemon.check", {})).problems).toEqual([]);
});

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { connect, type HeldLease, type PawlClient } from "@pawl/client";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { type ClientProcess, startProgram } from "../client-process.js";
import { Place, sharedDaemon, startDaemon } from "../daemon.js";

const shared = sharedDaemon();

/** The lease of the test. */
let n = "";
let tests = 0;
beforeEach(() => {
  tests += 1;
  n = `n${tests}`;
});

async function client(place: Place, reconnectMs?: number): Promise<PawlClient> {
  const options = { socket: place.socket, ...(reconnectMs === undefined ? {} : { reconnectMs }) };
  const connected = await connect(options);
  onTestFinished(() => connected.close());
  return connected;
}

/** The error that a call rejects with. */
async function rejection(promise: Promise<unknown>): Promise<Error & { [detail: string]: unknown }> {
  return await promise.then(
    (result) => {
      throw new Error(`not rejected, but ${JSON.stringify(result)}`);
    },
    (error) => error,
  );
}

async function aborted(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted) await once(signal, "abort");
  return signal.reason;
}

/** A process that holds the lease of the test until its signal is aborted, and prints what happens. */
const HOLD = `
  const pawl = await connect({ socket: args[0] });
  try {
    await pawl.withLease(args[1], async ({ fencingToken, signal }) => {
      print({ held: fencingToken });
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      print({ lost: signal.reason.kind, reason: signal.reason.details?.reason, token: fencingToken });
    }, args[2]);
  } catch (error) {
    print({ rejected: error.kind });
  }
  pawl.close();`;

function holder(place: Place, options: object): ClientProcess {
  return startProgram(HOLD, [place.socket, n, options]);
}

describe("withLease", () => {
  test("holds the lease while the function runs, passes its token, and gives it back", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const held: HeldLease[] = [];
    const result = await pawl.withLease(
      "db/main",
      async (lease) => {
        held.push(lease);
        expect((await pawl.lease.get({ name: "db/main" })).lease).toMatchObject({
          owner: "migration",
          note: "adds a column",
          fencingToken: lease.fencingToken,
        });
        expect(await pawl.lease.check({ name: "db/main", fencingToken: lease.fencingToken })).toMatchObject({
          current: true,
        });
        const { results } = await pawl.transact({
          calls: [{ method: "sequence.next", params: { type: "FR" } }],
          guards: [{ lease: { name: "db/main", fencingToken: lease.fencingToken } }],
        });
        return results[0].id;
      },
      { owner: "migration", note: "adds a column" },
    );
    expect(result).toBe("FR-001");
    expect(held[0]?.signal.aborted).toBe(false);
    expect((await pawl.lease.get({ name: "db/main" })).lease).toBeNull();

    const next = await pawl.withLease("db/main", ({ fencingToken, owner }) => ({ fencingToken, owner }));
    expect(next.fencingToken).toBeGreaterThan(held[0]?.fencingToken as number);
    expect(next.owner).toMatch(new RegExp(`:${process.pid}$`));
  });

  test("gives it back when the function throws, and rejects with what it threw", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const error = new Error("no");
    const throws = (): never => {
      throw error;
    };
    await expect(pawl.withLease(n, throws)).rejects.toBe(error);
    await expect(pawl.withLease(n, async () => throws())).rejects.toBe(error);
    expect((await pawl.lease.get({ name: n })).lease).toBeNull();
  });

  test("is refused while another holds it, and waits in line when told to", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const order: string[] = [];
    let letGo = (): void => {};
    const first = pawl.withLease(n, () => new Promise<void>((resolve) => (letGo = resolve)), {
      owner: "first",
    });
    await expect.poll(async () => (await pawl.lease.get({ name: n })).lease?.owner).toBe("first");

    const refused = await rejection(pawl.withLease(n, () => order.push("refused")));
    expect(refused).toMatchObject({ kind: "lease_held", details: { holder: { owner: "first" } } });

    const waiting = ["second", "third"].map((name) =>
      pawl.withLease(n, () => order.push(name), { waitMs: 20_000 }),
    );
    const controller = new AbortController();
    const given = pawl.withLease(n, () => order.push("given up"), {
      waitMs: 20_000,
      signal: controller.signal,
    });
    await expect.poll(async () => (await pawl.lease.get({ name: n })).lease?.waiters).toBe(3);
    controller.abort(new Error("enough"));
    await expect(given).rejects.toThrow("enough");
    letGo();
    await Promise.all([first, ...waiting]);
    expect(order).toEqual(["second", "third"]);
    // The wait that was given up is granted it after the third, and gives it back at once.
    await expect.poll(async () => (await pawl.lease.get({ name: n })).lease).toBeNull();
  });

  test("keeps it for longer than its ttl", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await pawl.withLease(
      n,
      async ({ signal, fencingToken }) => {
        await delay(2500);
        expect(signal.aborted).toBe(false);
        expect((await pawl.lease.check({ name: n, fencingToken })).current).toBe(true);
      },
      // A busy machine may keep renewals for some hundred milliseconds.
      { ttlMs: 1000 },
    );
  });

  test("hands over a signal that a signal of the caller's aborts too, and lets the function end", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const controller = new AbortController();
    const result = await pawl.withLease(
      n,
      async ({ signal }) => {
        controller.abort("stop");
        return await aborted(signal);
      },
      { signal: controller.signal },
    );
    expect(result).toBe("stop");
    expect((await pawl.lease.get({ name: n })).lease).toBeNull();
  });
});

describe("a lease that is lost", () => {
  test("by force: the signal is aborted at once, and the caller is told whatever the function returned", async () => {
    const { place } = shared();
    const [pawl, other] = [await client(place), await client(place)];
    let abortedAfterMs = 0;
    const call = pawl.withLease(n, async ({ signal }) => {
      const broken = performance.now();
      await other.lease.break({ name: n, reason: "maintenance" });
      expect(await aborted(signal)).toMatchObject({ kind: "lease_lost", details: { reason: "broken" } });
      abortedAfterMs = performance.now() - broken;
      return "done all the same";
    });
    const error = await rejection(call);
    expect(error).toMatchObject({
      kind: "lease_lost",
      message: `The lease of "${n}" was broken by force: maintenance.`,
    });
    // Not only at the next heartbeat, after a third of 30 s.
    expect(abortedAfterMs).toBeLessThan(2000);
  });

  test("and the function's own error is kept as the cause", async () => {
    const { place } = shared();
    const [pawl, other] = [await client(place), await client(place)];
    const own = new Error("half written");
    const error = await rejection(
      pawl.withLease(n, async ({ signal }) => {
        await other.lease.break({ name: n, reason: "maintenance" });
        await aborted(signal);
        throw own;
      }),
    );
    expect(error).toMatchObject({ kind: "lease_lost", cause: own });
  });

  test("while its process was stopped: woken, it is told, and its token is smaller than the next one's", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const stopped = holder(place, { ttlMs: 500, releaseOn: "expiry" });
    const { held } = await stopped.line<{ held: number }>(0);
    stopped.child.kill("SIGSTOP");
    await pawl.withLease(
      n,
      async ({ fencingToken }) => {
        expect(fencingToken).toBeGreaterThan(held);
        stopped.child.kill("SIGCONT");
        expect(await stopped.line(1)).toMatchObject({ lost: "lease_lost", token: held });
        expect(await stopped.line(2)).toEqual({ rejected: "lease_lost" });
        expect((await pawl.lease.check({ name: n, fencingToken: held })).current).toBe(false);
      },
      { waitMs: 20_000 },
    );
  });

  test("because no daemon can be asked: it is lost by the holder's own clock, before its time is over", async () => {
    const daemon = await startDaemon();
    const stopped = holder(daemon.place, { ttlMs: 2000, releaseOn: "expiry" });
    await stopped.line(0);
    daemon.child.kill("SIGSTOP");
    const began = performance.now();
    expect(await stopped.line(1)).toEqual({ lost: "lease_lost", reason: "not_renewed", token: 1 });
    expect(performance.now() - began).toBeLessThan(2000);
    daemon.child.kill("SIGCONT");
    expect(await stopped.line(2)).toEqual({ rejected: "lease_lost" });
  });

  test("with its process: the next one has it at once, unless it was to end by time only", async () => {
    const { place } = shared();
    const pawl = await client(place);
    for (const [releaseOn, atLeast, atMost] of [
      ["disconnect", 0, 1000],
      // Renewed at a third of its 2 s at the latest, and some time passes before the kill.
      ["expiry", 1000, 4000],
    ] as const) {
      const killed = holder(place, { ttlMs: 2000, releaseOn });
      await killed.line(0);
      const waiting = pawl.withLease(n, () => performance.now(), { waitMs: 20_000 });
      await expect.poll(async () => (await pawl.lease.get({ name: n })).lease?.waiters).toBe(1);
      const before = performance.now();
      await killed.end("SIGKILL");
      const took = (await waiting) - before;
      expect(took).toBeGreaterThanOrEqual(atLeast);
      expect(took).toBeLessThan(atMost);
    }
  });

  test("with the client: closing it while the function runs aborts the signal", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const call = pawl.withLease(n, async ({ signal }) => {
      pawl.close();
      return await aborted(signal);
    });
    expect(await rejection(call)).toMatchObject({ name: "ConnectionLost" });
  });
});

describe("a lease under a daemon that is started again", () => {
  test.each(["SIGKILL", "SIGTERM"] as const)(
    "after %s is kept, and ends with its process as before",
    async (how) => {
      const place = new Place();
      let daemon = await place.start();
      const own = await client(place);
      const keeper = holder(place, { ttlMs: 30_000 });
      const { held } = await keeper.line<{ held: number }>(0);
      for (let round = 0; round < 2; round++) {
        await daemon.end(how);
        daemon = await place.start();
        // Longer than what is left of it after a restart: it has been renewed on the new connection.
        await expect
          .poll(async () => (await own.lease.get({ name: n })).lease?.remainingMs, { timeout: 10_000 })
          .toBeGreaterThan(6000);
      }
      expect((await own.lease.check({ name: n, fencingToken: held })).current).toBe(true);
      expect(keeper.printed).toHaveLength(1);

      await keeper.end("SIGKILL");
      expect(await own.withLease(n, ({ fencingToken }) => fencingToken, { waitMs: 1000 })).toBe(held + 1);
    },
  );

  test("too late is lost", async () => {
    const place = new Place();
    const daemon = await place.start();
    const keeper = holder(place, { ttlMs: 1000 });
    await keeper.line(0);
    const began = performance.now();
    await daemon.end("SIGKILL");
    expect(await keeper.line(1)).toMatchObject({ lost: "lease_lost", reason: "not_renewed" });
    expect(performance.now() - began).toBeLessThan(1100);
  });

  test("is waited for across the restart", async () => {
    const place = new Place();
    const daemon = await place.start();
    const pawl = await client(place);
    const first = holder(place, { ttlMs: 30_000 });
    await first.line(0);
    const waiting = pawl.withLease(n, ({ fencingToken }) => fencingToken, { waitMs: 30_000 });
    await expect.poll(async () => (await pawl.lease.get({ name: n })).lease?.waiters).toBe(1);
    await daemon.end("SIGKILL");
    await place.start();
    await expect.poll(async () => (await pawl.lease.get({ name: n })).lease?.waiters).toBe(1);
    await first.end("SIGKILL");
    expect(await waiting).toBe(2);
  });
});

test("of 10 processes that contend, with kills among them, never two hold it at one time", async () => {
  const { place } = await startDaemon();
  const contend = `
    import { appendFileSync } from "node:fs";
    const pawl = await connect({ socket: args[0] });
    for (;;) {
      await pawl.withLease("n", async ({ fencingToken }) => {
        appendFileSync(args[1], "begin " + fencingToken + "\\n");
        await new Promise((resolve) => setTimeout(resolve, 3));
        appendFileSync(args[1], "end " + fencingToken + "\\n");
      }, { waitMs: 60_000, ttlMs: 5000 });
    }`;
  const log = `${place.directory}/log`;
  const start = (): ClientProcess => startProgram(contend, [place.socket, log]);
  const processes = Array.from({ length: 10 }, start);
  const lines = async (): Promise<string[]> =>
    (await readFile(log, "utf8").catch(() => "")).split("\n").filter((line) => line !== "");
  for (let round = 0; round < 10; round++) {
    const before = (await lines()).length;
    await expect.poll(async () => (await lines()).length, { timeout: 20_000 }).toBeGreaterThan(before + 20);
    const index = Math.floor(Math.random() * processes.length);
    await processes[index]?.end("SIGKILL");
    processes[index] = start();
  }
  await Promise.all(processes.map((each) => each.end("SIGKILL")));

  const events = (await lines()).map((line) => line.split(" ") as [string, string]);
  let highest = 0;
  let inside = 0;
  for (const [what, token] of events) {
    if (what === "begin") {
      // A holder that was killed inside wrote no end; its successor has a higher token all the same.
      expect(Number(token)).toBeGreaterThan(highest);
      highest = Number(token);
      inside = highest;
    } else {
      expect(Number(token)).toBe(inside);
    }
  }
  expect(events.length).toBeGreaterThan(200);
});

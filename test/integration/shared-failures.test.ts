// What becomes of shared names when a daemon dies or is cut off, and when the server is away.
import { describe, expect, onTestFinished, test } from "vitest";
import { Session } from "../../daemon/dist/shared/session.js";
import { type DaemonProcess, type LogLine, madeForTests, Place } from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { isThere, makePlace, SilentProxy, toldOf } from "../shared-daemons.js";
import { until } from "../until.js";

/** Less than a daemon has to be back before another one that is back takes it for dead. */
const SOON_MS = 1500;
/** What the server may have to keep for a wait for the end of another daemon. */
const MAX_KEPT_MS = 2000;
const AWAY = { error: { data: { kind: "unavailable", reason: "shared_unavailable" } } };

/** The first line of the log like this that is still to come. */
function nextLine(daemon: DaemonProcess, isMeant: (line: LogLine) => boolean): Promise<LogLine> {
  const written = new Set(daemon.log);
  return daemon.logged((line) => isMeant(line) && !written.has(line));
}

function isLost({ msg }: LogLine): boolean {
  return msg === "the database of shared names is away";
}

/**
 * True of what is sent with a statement that has this in it. Its text goes out once for each session, and from then on
 * the name under which it is prepared.
 */
function statementsOf(table: string): (text: string) => boolean {
  const names = new Set<string>();
  const prepared = new RegExp(`(pawl_\\d+)\\0[^\\0]*\\b${table}\\b`, "g");
  return (text) => {
    for (const [, name] of text.matchAll(prepared)) names.add(`${name}\0`);
    return [...names].some((name) => text.includes(name));
  };
}

/**
 * Takes the first number of a client, by which it is known how its statement is prepared, and has the commit of the
 * second held or dropped, once `seen`. What the daemon does by itself is committed, too.
 */
async function secondCommit(
  client: RawClient,
  proxy: SilentProxy,
  fate: "hold" | "drop",
): Promise<{ seen: Promise<void> }> {
  const isNumber = statementsOf("pawl_sequence");
  proxy.onSent = (text) => {
    isNumber(text);
    return "pass";
  };
  expect((await client.call("sequence.next", { type: "SEQ" })).seq).toBe(1);
  const seen = new Promise<void>((resolve) => {
    let session: unknown;
    proxy.onSent = (text, by) => {
      if (isNumber(text)) session = by;
      // The name under which it is prepared: its text goes out but once.
      if (by !== session || !text.includes("pawl_commit")) return "pass";
      proxy.onSent = undefined;
      resolve();
      return fate;
    };
  });
  return { seen };
}

describe.skipIf(!HAS_POSTGRESQL)("a place of shared names", () => {
  const postgres = madeForTests((atEnd) => PostgreSql.start(atEnd, { tcp: true }));
  let schemas = 0;

  /** Tables of its own for a test. */
  async function newSchema(): Promise<string> {
    schemas += 1;
    await makePlace(postgres().url(`test_${schemas}`));
    return `test_${schemas}`;
  }

  function shared(schema: string, port?: number): { args: string[] } {
    return {
      args: [
        "--shared",
        `s/*=${postgres().url(schema, port)}`,
        "--shared",
        `S*=${postgres().url(schema, port)}`,
        "--shared",
        `path:/s/*=${postgres().url(schema, port)}`,
      ],
    };
  }

  /** A daemon that can be cut off. */
  async function behindProxy(
    schema: string,
  ): Promise<{ place: Place; daemon: DaemonProcess; proxy: SilentProxy }> {
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const place = new Place();
    return { place, daemon: await place.start(shared(schema, proxy.port)), proxy };
  }

  /** Cuts a daemon off until `cut`; it knows that then. */
  async function cutOff(daemon: DaemonProcess, proxy: SilentProxy): Promise<void> {
    const knows = nextLine(daemon, isLost);
    proxy.end();
    await knows;
  }

  /** The server, too, knows of all daemons that they were cut off. */
  async function noSessions(): Promise<void> {
    const sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pawld%'";
    await until(() => postgres().psql(sessions).output.trim() === "0");
  }

  test("what a daemon held that was killed may be taken up at the next, and is bound to it", async () => {
    const schema = await newSchema();
    const [one, two] = [new Place(), new Place()];
    const first = await one.start(shared(schema));
    const second = await two.start(shared(schema));
    const holder = await one.connect();
    const name = "s/lease";
    const { lease } = await holder.call("lease.acquire", {
      name,
      owner: "a",
      ttlMs: 60_000,
      releaseOn: "disconnect",
      // For longer than a busy machine takes to start the daemon again.
      graceMs: 12_000,
    });
    const other = await two.connect();
    const waiting = other.call("lease.acquire", { name, owner: "b", ttlMs: 60_000, waitMs: 60_000 });
    await first.end("SIGKILL");
    await second.logged(({ msg }) => msg.startsWith("another daemon has gone"));
    await one.start(shared(schema));
    const again = await one.connect();
    await again.call("lease.heartbeat", { leaseId: lease.leaseId });
    expect((await other.call("lease.get", { name })).lease).toMatchObject({ owner: "a" });
    await again.destroy();
    expect((await waiting).lease.fencingToken).toBe(lease.fencingToken + 1);
  });

  test("what there is in queues and sequences is read without waiting for anybody's turn", async () => {
    const schema = await newSchema();
    const place = new Place();
    await place.start(shared(schema));
    const client = await place.connect();
    const { batch } = await client.call("queue.enqueue", { queue: "s/read", payloads: [1] });
    await client.call("sequence.next", { type: "SEQ" });
    // As a turn that has the whole place, and lasts.
    const session = await Session.open(postgres().url(schema));
    await session.query("SELECT pg_advisory_lock(hashtextextended($1, 0)) IS NULL AS locked", [
      `pawl ${schema}`,
    ]);
    const [got, listed, figures, next] = await Promise.all([
      client.call("queue.get", { batchId: batch.batchId }),
      client.call("queue.list", { queue: "s/read" }),
      client.call("queue.stats", { queue: "s/read" }),
      client.call("sequence.peek", { type: "SEQ" }),
    ]);
    // What comes later on the connection comes after them, and sees what came before.
    const taking = client.call("sequence.next", { type: "SEQ" });
    const after = client.call("sequence.peek", { type: "SEQ" });
    await session.close();
    expect(got.batch.state).toBe("ready");
    expect(listed.batches).toHaveLength(1);
    expect(figures.queues).toMatchObject([{ queue: "s/read", ready: 1 }]);
    expect(next.seq).toBe(2);
    expect([(await taking).seq, (await after).seq]).toEqual([2, 3]);
  });

  test("a daemon that dies is noticed at once by the next one, and its turns of long ago are forgotten", async () => {
    const schema = await newSchema();
    const [one, two] = [new Place(), new Place()];
    const second = await two.start(shared(schema));
    await (await two.connect()).call("sequence.next", { type: "SEQ" });
    postgres().psql(`INSERT INTO ${schema}.pawl_shared_turn VALUES (1000, 1, 7, 7)`);
    const noticed = new Set<unknown>();
    for (let life = 1; life <= 3; life += 1) {
      const first = await one.start(shared(schema));
      const { daemon } = await first.logged(isThere);
      // It is known, and waited for, by the time that the second has done something for it.
      const client = await one.connect();
      const waiting = (await two.connect()).call("queue.claim", {
        queue: "s/next",
        owner: "w",
        waitMs: 60_000,
      });
      await client.call("queue.enqueue", { queue: "s/next", payloads: [1] });
      await waiting;
      await first.end("SIGKILL");
      const line = await second.logged(
        ({ msg, daemon: gone }) => msg.startsWith("another daemon has gone") && gone === daemon,
      );
      noticed.add(line.noticed);
    }
    // A look, which there is each second, too, may come first now and then.
    expect(noticed).toContain("waited for");
    const { output } = postgres().psql(`SELECT count(*) FROM ${schema}.pawl_shared_turn WHERE daemon = 1000`);
    expect(output.trim()).toBe("0");
  });

  test("daemons that wait for one another's end do not keep the server from cleaning up", async () => {
    const schema = await newSchema();
    const [one, two] = [new Place(), new Place()];
    await one.start(shared(schema));
    await two.start(shared(schema));
    const waiting = `FROM pg_stat_activity WHERE query LIKE '%pawl ${schema} daemon%' AND wait_event = 'advisory'`;
    const since = (): string => postgres().psql(`SELECT max(query_start) ${waiting}`).output.trim();
    await until(() => since() !== "");
    // One that has just begun.
    const before = since();
    await until(() => !["", before].includes(since()));
    const begunAt = performance.now();
    const pids = `SELECT coalesce(string_agg(pid || ' ' || query_start, ','), '') ${waiting}`;
    const all = postgres().psql(pids).output.trim().split(",");
    expect(all).not.toEqual([""]);
    await until(() => {
      const now = postgres().psql(pids).output.trim().split(",");
      return all.every((each) => !now.includes(each));
    });
    expect(performance.now() - begunAt).toBeLessThan(MAX_KEPT_MS);
  });

  test("a daemon that is back sooner than another does not take that for dead at once", async () => {
    const schema = await newSchema();
    const [{ place: one, daemon: first, proxy }, { daemon: second, proxy: other }] = [
      await behindProxy(schema),
      await behindProxy(schema),
    ];
    let number = (await second.logged(isThere)).daemon;
    await first.logged(isThere);
    // A slow machine may take longer than a daemon has to be back; then it is tried once more.
    for (let isSoon = false; !isSoon; ) {
      // The first is away before the second is: before that it would take that for dead, and rightly so.
      await cutOff(first, proxy);
      await cutOff(second, other);
      await noSessions();
      const firstIsBack = nextLine(first, isThere);
      proxy.cut();
      const from = (await firstIsBack).time as number;
      // A look of it at who there is was answered before this one.
      await (await one.connect()).call("sequence.next", { type: "SEQ" });
      const secondIsBack = nextLine(second, isThere);
      other.cut();
      const { time, daemon } = await secondIsBack;
      isSoon = (time as number) - from < SOON_MS;
      if (isSoon) expect(daemon).toBe(number);
      number = daemon;
    }
  });

  test("a daemon that was gone, and is back before the turn that ends its life was committed, lives on", async () => {
    const schema = await newSchema();
    const [{ place: one, daemon: first, proxy }, { place: two, daemon: second, proxy: other }] = [
      await behindProxy(schema),
      await behindProxy(schema),
    ];
    await second.logged((line) => isThere(line) && line.daemon === 2);
    // What the first does for the end of the second never comes to the server.
    const isLost = new Promise<void>((resolve) => {
      let isItsTurn = false;
      proxy.onSent = (text) => {
        isItsTurn ||= text.includes("DELETE FROM pawl_shared_daemon");
        if (!isItsTurn || !text.includes("pawl_commit")) return "pass";
        proxy.onSent = undefined;
        resolve();
        return "drop";
      };
    });
    other.end();
    await isLost;
    await cutOff(first, proxy);
    await noSessions();
    const secondIsBack = nextLine(second, isThere);
    other.cut();
    expect((await secondIsBack).daemon).toBe(2);
    const holder = await two.connect();
    const held = { name: "s/lease", owner: "a", ttlMs: 60_000, releaseOn: "disconnect" } as const;
    await holder.call("lease.acquire", held);
    const firstIsBack = nextLine(first, isThere);
    proxy.cut();
    await firstIsBack;
    // This has the whole place, after the turn that had it before.
    await (await one.connect()).call("queue.purge", { queue: "s/purged", states: ["completed"] });
    const known = `SELECT number FROM ${schema}.pawl_shared_daemon ORDER BY number`;
    expect(postgres().psql(known).output.trim().split("\n")).toContain("2");
    const bound = `SELECT connection > 0 AND grace_ends_at IS NULL FROM ${schema}.pawl_lease`;
    expect(postgres().psql(bound).output.trim()).toBe("t");
  });

  test("a daemon that is cut off tells its holders before anybody else is granted", async () => {
    const schema = await newSchema();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const [one, two] = [new Place(), new Place()];
    await one.start(shared(schema, proxy.port));
    await two.start(shared(schema));
    const [holder, other] = [await one.connect(), await two.connect()];
    const name = "s/lease";
    const { lease } = await holder.call("lease.acquire", { name, owner: "a", ttlMs: 3000 });
    const order: string[] = [];
    const granted = other
      .call("lease.acquire", { name, owner: "b", ttlMs: 60_000, waitMs: 30_000 })
      .then(() => order.push("granted"));
    const told = toldOf(holder, "lease.lost").then(() => order.push("told"));
    proxy.silence();
    await Promise.all([told, granted]);
    expect(order).toEqual(["told", "granted"]);
    await expect(holder.call("lease.heartbeat", { leaseId: lease.leaseId })).rejects.toMatchObject(AWAY);
    proxy.cut();
    await expect
      .poll(
        () =>
          holder.call("lease.get", { name }).then(
            ({ lease: now }) => now?.owner,
            () => undefined,
          ),
        {
          timeout: 20_000,
        },
      )
      .toBe("b");
  });

  test("of a database that is silent for a moment the holder of a short grant is told, and all others go on", async () => {
    const schema = await newSchema();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const place = new Place();
    const daemon = await place.start(shared(schema, proxy.port));
    const [holder, other] = [await place.connect(), await place.connect()];
    const long = { name: "s/long", owner: "b", ttlMs: 600_000, releaseOn: "disconnect" } as const;
    const { lease } = await other.call("lease.acquire", long);
    const short = await holder.call("lease.acquire", { name: "s/short", owner: "a", ttlMs: 600 });
    const told = toldOf(holder, "lease.lost");
    proxy.pause();
    const asked = other.call("sequence.next", { type: "SEQ" });
    expect((await told).leaseId).toBe(short.lease.leaseId);
    proxy.goOn();
    expect((await asked).seq).toBe(1);
    expect((await other.call("lease.heartbeat", { leaseId: lease.leaseId })).remainingMs).toBe(600_000);
    expect(other.lines).toEqual([]);
    expect(daemon.log.map(({ msg }) => msg)).not.toContain("the database of shared names is away");
  });

  test.each([
    ["a lease", "lease.acquire", { name: "s/one", ttlMs: 3000 }, "lease.lost"],
    ["a claim", "queue.claim", { queue: "s/one", leaseMs: 3000, notify: true }, "claim.lost"],
    ["a reservation", "path.reserve", { root: "/s/one", patterns: ["a/"], ttlMs: 3000 }, "path.lost"],
  ] as const)(
    "a daemon that is cut off tells the holder of %s that was granted in a transaction, before anybody else is",
    async (_, method, params, lost) => {
      const schema = await newSchema();
      const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
      const [one, two] = [new Place(), new Place()];
      await one.start(shared(schema, proxy.port));
      await two.start(shared(schema));
      const [holder, other] = [await one.connect(), await two.connect()];
      await other.call("queue.enqueue", { queue: "s/one", payloads: [1], retry: { baseMs: 0 } });
      const calls = [
        { method: "sequence.next", params: { type: "SEQ" } },
        { method, params: { ...params, owner: "a" } },
      ];
      await holder.call("transact", { calls });
      const order: string[] = [];
      const granted = other
        .call(method, { ...params, owner: "b", waitMs: 30_000 } as never)
        .then(() => order.push("granted"));
      const told = toldOf(holder, lost).then(() => order.push("told"));
      proxy.silence();
      await Promise.all([told, granted]);
      expect(order).toEqual(["told", "granted"]);
    },
  );

  test.each([
    ["beside", "lease.acquire", { name: "s/moved", ttlMs: 6000 }, "lease.lost"],
    ["after", "lease.acquire", { name: "s/moved", ttlMs: 6000 }, "lease.lost"],
    ["beside", "path.reserve", { root: "/s/moved", patterns: ["a/"], ttlMs: 6000 }, "path.lost"],
    ["after", "path.reserve", { root: "/s/moved", patterns: ["a/"], ttlMs: 6000 }, "path.lost"],
  ] as const)(
    "a daemon that is cut off tells the connection that renewed last, %s the one that was granted it (%s)",
    async (when, method, params, lost) => {
      const schema = await newSchema();
      const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
      const place = new Place();
      await place.start(shared(schema, proxy.port));
      const [holder, renewing] = [await place.connect(), await place.connect()];
      const held = (await holder.call(method, { ...params, owner: "a" } as never)) as {
        lease?: { leaseId: string };
        reservation?: { reservationId: string };
      };
      if (when === "after") {
        await holder.destroy();
        await until(async () => (await renewing.call("daemon.stats", {})).connections.open === 1);
      }
      if (held.lease) await renewing.call("lease.heartbeat", { leaseId: held.lease.leaseId });
      else
        await renewing.call("path.heartbeat", { reservationId: held.reservation?.reservationId as string });
      proxy.silence();
      expect(await toldOf(renewing, lost)).toMatchObject(
        held.lease ? { leaseId: held.lease.leaseId } : { reservationId: held.reservation?.reservationId },
      );
    },
  );

  test("while the server is away, who holds for long is not told of a loss, and who may lose it with its daemon is", async () => {
    const schema = await newSchema();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const [one, two] = [new Place(), new Place()];
    const first = await one.start(shared(schema, proxy.port));
    await two.start(shared(schema));
    const [holder, other] = [await one.connect(), await two.connect()];
    const held = { owner: "a", ttlMs: 600_000 } as const;
    const { lease } = await holder.call("lease.acquire", { ...held, name: "s/long" });
    const { lease: bound } = await holder.call("lease.acquire", {
      ...held,
      name: "s/bound",
      releaseOn: "disconnect",
    });
    proxy.end();
    expect((await toldOf(holder, "lease.lost")).leaseId).toBe(bound.leaseId);
    const isBack = first.logged((line) => isThere(line) && line.daemon === 3);
    proxy.cut();
    // The others took its first life for dead, and it is another daemon now.
    await isBack;
    await holder.call("lease.heartbeat", { leaseId: lease.leaseId });
    // Renewed, it is told of again by the daemon that has its connection.
    const told = toldOf(holder, "lease.lost");
    await other.call("lease.break", { name: "s/long", reason: "a test" });
    expect(await told).toMatchObject({ leaseId: lease.leaseId, cause: "broken" });
  });

  test("connections that are cut for a moment cost nobody what is held until a time, while others go on", async () => {
    const schema = await newSchema();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const [one, two] = [new Place(), new Place()];
    const first = await one.start(shared(schema, proxy.port));
    const second = await two.start(shared(schema));
    const [holder, other] = [await one.connect(), await two.connect()];
    // A third of it is more than the daemon takes to be back.
    const held = { owner: "a", ttlMs: 60_000 } as const;
    const { lease } = await holder.call("lease.acquire", { ...held, name: "s/timed" });
    const bindsTo = { releaseOn: "disconnect" } as const;
    const { lease: bound } = await holder.call("lease.acquire", { ...held, ...bindsTo, name: "s/tied" });
    await holder.call("queue.enqueue", { queue: "s/cut", payloads: [1] });
    const { claim } = await holder.call("queue.claim", { queue: "s/cut", owner: "a", leaseMs: 60_000 });
    const isBack = first.logged((line) => isThere(line) && line.daemon === 3);
    const gone = second.logged(({ msg }) => msg.startsWith("another daemon has gone"));
    const order: string[] = [];
    const told = toldOf(holder, "lease.lost").then(({ leaseId }) => order.push(leaseId));
    const granted = other
      .call("lease.acquire", { name: "s/tied", owner: "b", waitMs: 30_000 })
      .then(() => order.push("granted"));
    proxy.cut();
    await Promise.all([gone, isBack, told, granted]);
    expect(order).toEqual([bound.leaseId, "granted"]);
    expect((await other.call("lease.get", { name: "s/timed" })).lease).toMatchObject({ owner: "a" });
    await holder.call("lease.heartbeat", { leaseId: lease.leaseId });
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    expect(await holder.call("queue.complete", { claimId, leaseToken })).toEqual({ completed: 1 });
  });

  test("a server that says nothing is away for calls that are under way, too, whatever is held", async () => {
    const schema = await newSchema();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const place = new Place();
    await place.start(shared(schema, proxy.port));
    const client = await place.connect();
    await client.call("sequence.next", { type: "SEQ" });
    proxy.silence();
    const taking = client.call("sequence.next", { type: "SEQ" });
    const local = client.call("sequence.next", { type: "FR" });
    await expect(taking).rejects.toMatchObject(AWAY);
    expect((await local).seq).toBe(1);
  });

  test("a table that somebody takes away makes its names unavailable, and the log says why", async () => {
    const schema = await newSchema();
    const place = new Place();
    const daemon = await place.start(shared(schema));
    const client = await place.connect();
    postgres().psql(`ALTER TABLE ${schema}.pawl_sequence RENAME TO taken_away`);
    await expect(client.call("sequence.next", { type: "SEQ" })).rejects.toMatchObject(AWAY);
    await expect(client.call("sequence.peek", { type: "SEQ" })).rejects.toMatchObject(AWAY);
    const { err } = await daemon.logged(({ msg }) => msg === "the database of shared names refuses us");
    expect(err).toMatchObject({ message: 'relation "pawl_sequence" does not exist' });
    postgres().psql(`ALTER TABLE ${schema}.taken_away RENAME TO pawl_sequence`);
    expect((await client.call("sequence.next", { type: "SEQ" })).seq).toBe(1);
  });

  test("nobody goes on in tables that were made anew before the daemon was started again", async () => {
    const schema = await newSchema();
    const place = new Place();
    const daemon = await place.start(shared(schema));
    const client = await place.connect();
    for (const seq of [1, 2]) expect((await client.call("sequence.next", { type: "SEQ" })).seq).toBe(seq);
    postgres().psql(`DROP SCHEMA ${schema} CASCADE`);
    await makePlace(postgres().url(schema));
    await expect(client.call("sequence.next", { type: "SEQ" })).rejects.toMatchObject(AWAY);
    const { err } = await daemon.logged(
      ({ msg, err }) =>
        msg === "the database of shared names refuses us" &&
        (err as Error).message.includes("are not those that this daemon began with"),
    );
    expect(err).toMatchObject({ message: expect.stringContaining("Start the daemon again") });
    await expect(client.call("sequence.next", { type: "SEQ" })).rejects.toMatchObject(AWAY);
    await daemon.end("SIGTERM");
    await place.start(shared(schema));
    expect((await (await place.connect()).call("sequence.next", { type: "SEQ" })).seq).toBe(1);
  });

  test("what a daemon granted that hangs ends by its time for those who wait at another", async () => {
    const schema = await newSchema();
    const [one, two] = [new Place(), new Place()];
    const first = await one.start(shared(schema));
    await two.start(shared(schema));
    const [holder, other] = [await one.connect(), await two.connect()];
    // Less than the time between two looks at everything.
    const waits = { owner: "b", waitMs: 20_000 };
    await holder.call("lease.acquire", { name: "s/lease", owner: "a", ttlMs: 4000 });
    await holder.call("queue.enqueue", { queue: "s/later", payloads: [1], delayMs: 4000 });
    const acquiring = other.call("lease.acquire", { name: "s/lease", ...waits });
    const claiming = other.call("queue.claim", { queue: "s/later", ...waits });
    first.child.kill("SIGSTOP");
    onTestFinished(() => void first.child.kill("SIGCONT"));
    expect((await acquiring).lease.owner).toBe("b");
    expect((await claiming).claim?.batches).toHaveLength(1);
  });

  test("who took up what another life of the daemon had granted is told when that is cut off", async () => {
    const schema = await newSchema();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const [one, two] = [new Place(), new Place()];
    const first = await one.start(shared(schema, proxy.port));
    await two.start(shared(schema));
    // For longer than a busy machine takes to start the daemon again.
    const lasts = { ttlMs: 60_000, releaseOn: "disconnect", graceMs: 12_000 } as const;
    const held = { name: "s/kept", owner: "a", ...lasts } as const;
    const { lease } = await (await one.connect()).call("lease.acquire", held);
    await first.end("SIGKILL");
    await one.start(shared(schema, proxy.port));
    const [holder, other] = [await one.connect(), await two.connect()];
    await holder.call("lease.heartbeat", { leaseId: lease.leaseId });
    const order: string[] = [];
    const granted = other
      .call("lease.acquire", { ...held, owner: "b", waitMs: 60_000 })
      .then(() => order.push("granted"));
    const told = toldOf(holder, "lease.lost").then(({ leaseId, fencingToken }) => {
      expect({ leaseId, fencingToken }).toEqual({ leaseId: lease.leaseId, fencingToken: lease.fencingToken });
      order.push("told");
    });
    proxy.silence();
    await told;
    // To the server it is as if its machine had gone.
    proxy.cut();
    await granted;
    expect(order).toEqual(["told", "granted"]);
  });

  test.each(["hold", "drop"] as const)(
    "a commit that nobody heard of is found out about (its answer lost, or itself: %s)",
    async (fate) => {
      const schema = await newSchema();
      const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
      const place = new Place();
      await place.start(shared(schema, proxy.port));
      const client = await place.connect();
      const { seen } = await secondCommit(client, proxy, fate);
      const taking = client.call("sequence.next", { type: "SEQ" });
      await seen;
      proxy.cut();
      expect((await taking).seq).toBe(2);
      expect((await client.call("sequence.next", { type: "SEQ" })).seq).toBe(3);
    },
  );

  test("a daemon that stops refuses what waits for another's turn, and none of it is done", async () => {
    const schema = await newSchema();
    const place = new Place();
    const daemon = await place.start(shared(schema));
    const clients = await Promise.all([place.connect(), place.connect()]);
    // As another daemon that has the whole place, and hangs.
    const session = await Session.open(postgres().url(schema));
    await session.query("SELECT pg_advisory_lock(hashtextextended($1, 0)) IS NULL AS locked", [
      `pawl ${schema}`,
    ]);
    const waiting = clients.flatMap((client) => [
      ...Array.from({ length: 200 }, () => client.refusal("sequence.next", { type: "SEQ" })),
      client.refusal("queue.enqueue", { queue: "s/stop", payloads: [1] }),
      client.refusal("transact", { calls: [{ method: "sequence.next", params: { type: "SALL" } }] }),
    ]);
    const isWaiting = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    await until(() => postgres().psql(isWaiting).output.trim() === "t");
    expect(await daemon.end()).toBe(0);
    for (const refused of await Promise.all(waiting))
      expect(expectRefusal(refused, "unavailable").data.reason).toBe("stopping");
    await session.close();
    await place.start(shared(schema));
    const client = await place.connect();
    expect((await client.call("sequence.next", { type: "SEQ" })).seq).toBe(1);
    expect((await client.call("queue.list", { queue: "s/stop" })).batches).toEqual([]);
  });

  test("a daemon that stops says of a commit that nobody heard of that it may have been done", async () => {
    const schema = await newSchema();
    const proxy = await SilentProxy.start(postgres().port as number, onTestFinished);
    const place = new Place();
    const daemon = await place.start(shared(schema, proxy.port));
    const client = await place.connect();
    const { seen } = await secondCommit(client, proxy, "hold");
    const taking = client.refusal("sequence.next", { type: "SEQ" });
    await seen;
    const reading = client.refusal("queue.list", { queue: "s/stop" });
    expect(await daemon.end()).toBe(0);
    expect(expectRefusal(await taking, "unavailable").data.reason).toBe("shared_outcome_unknown");
    expect(expectRefusal(await reading, "unavailable").data.reason).toBe("stopping");
  });

  test("a daemon ends beside a server that has stopped, and does not wait for it", async () => {
    const schema = await newSchema();
    const place = new Place();
    const daemon = await place.start(shared(schema));
    const client = await place.connect();
    await client.call("queue.enqueue", { queue: "s/stop", payloads: [1] });
    postgres().stall();
    onTestFinished(() => postgres().goOn());
    expect(await daemon.end()).toBe(0);
  });

  test("a daemon starts beside a server that has stopped: local names are served, shared ones once it goes on", async () => {
    const schema = await newSchema();
    const place = new Place();
    postgres().stall();
    onTestFinished(() => postgres().goOn());
    const daemon = await place.start(shared(schema));
    const client = await place.connect();
    expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
    await expect(client.call("queue.enqueue", { queue: "s/away", payloads: [1] })).rejects.toMatchObject(
      AWAY,
    );
    postgres().goOn();
    await daemon.logged(isThere);
    expect((await client.call("queue.enqueue", { queue: "s/away", payloads: [1] })).created).toBe(true);
  });

  test("the server crashes: local names go on, and what waited is served once it is there again", async () => {
    const schema = await newSchema();
    const place = new Place();
    const daemon = await place.start(shared(schema));
    const client = await place.connect();
    await client.call("queue.enqueue", { queue: "s/kept", payloads: [1] });
    const waiting = client.call("queue.claim", { queue: "s/later", owner: "w", waitMs: 60_000 });
    await expect.poll(async () => (await client.call("queue.explain", { queue: "s/later" })).waiting).toBe(1);
    await postgres().end("SIGQUIT");
    await daemon.logged(isLost);
    await expect(client.call("queue.claim", { queue: "s/kept", owner: "w" })).rejects.toMatchObject(AWAY);
    expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
    expect((await client.call("daemon.info", {})).shared[0]?.connected).toBe(false);
    await postgres().run();
    await expect
      .poll(async () => (await client.call("daemon.info", {})).shared[0]?.connected, { timeout: 20_000 })
      .toBe(true);
    expect((await client.call("queue.claim", { queue: "s/kept", owner: "w" })).claim?.batches).toHaveLength(
      1,
    );
    await client.call("queue.enqueue", { queue: "s/later", payloads: [1] });
    expect((await waiting).claim?.batches).toHaveLength(1);
  });
});

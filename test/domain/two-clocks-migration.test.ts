// A database of before there were two clocks: the step that converts it, with a fault in each of its statements, and
// how what was granted, delayed and named there goes on.
// Not over shared names: it is about the daemon's own database.
import { copyFileSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, test } from "vitest";
import { migrate, schemaVersion } from "../../daemon/dist/store/migrate.js";
import { Clocks, START } from "../clocks.js";
import { madeForTests, privateDirectory } from "../daemon.js";
import { InProcess } from "../in-process.js";

const SCHEMA = join(import.meta.dirname, "../../daemon/store/schema");
const STEP = "0008-two-clocks.sql";
const BEFORE = 7;
const MINUTE_MS = 60_000;
const GRACE_MS = 5000;
const COMMAND_ID = (name: string): string => `cmd_01900000-0000-7000-8000-${name.padStart(12, "0")}`;

/** A database as the version before wrote it, when the second life of its daemon had begun a second before. */
function oldDatabase(): string {
  const path = join(privateDirectory(), "pawl.db");
  copyFileSync(written(), path);
  return path;
}

/** It is written once, and copied for each test. */
const written = madeForTests(async (atEnd) => {
  const path = join(privateDirectory(atEnd), "pawl.db");
  const database = new Database(path);
  for (const name of readdirSync(SCHEMA).sort().slice(0, BEFORE)) {
    database.exec(readFileSync(join(SCHEMA, name), "utf8"));
  }
  const now = START - 1000;
  const graceEnd = now + GRACE_MS;
  const end = now + 10 * MINUTE_MS;
  const meta = database.prepare("INSERT INTO pawl_meta (key, value) VALUES (?, ?)");
  meta.run("schema_version", String(BEFORE));
  meta.run("high_water_mark", String(now));
  meta.run("mode", '{"kind":"centralized"}');

  database.exec(`INSERT INTO pawl_queue VALUES (1, 'q', 3, 1, 1, 3, 1, 0, 0)`);
  const batch = database.prepare(`
    INSERT INTO pawl_batch (queue_id, state, available_at, attempt, max_attempts, delivery_policy, slot_policy,
      claim_seq, fencing_token, claim_size, owner, lease_ms, connection, expires_at, finished_at, batch_key, batch_id,
      enqueued_at, payload_bytes, payloads)
    VALUES (1, :state, :availableAt, 0, 20, 'earliest_safe_boundary', 'exclusive', :seq, :seq, :size, 'a', 600000,
      :connection, :expiresAt, :finishedAt, :seq, :id, ${now}, 3, '[1]')`);
  const none = { size: null, connection: null, expiresAt: null, finishedAt: null, availableAt: now };
  const rows = [
    { state: "claimed", size: 1, connection: -end, expiresAt: graceEnd },
    { state: "claimed", size: 1, connection: 7, expiresAt: end },
    { state: "claimed", size: 1, connection: null, expiresAt: end },
    { state: "scheduled", availableAt: end },
    { state: "ready", availableAt: now - MINUTE_MS },
    { state: "completed", finishedAt: now },
  ];
  for (const [index, row] of rows.entries()) {
    batch.run({ ...none, ...row, seq: index + 1, id: `qwb:${String(index + 1).padStart(64, "0")}` });
  }

  const lease = database.prepare(`
    INSERT INTO pawl_lease (name, lease_id, fencing_token, owner, acquired_at, expires_at, ttl_ms, release_on, connection)
    VALUES (:name, :name, 1, 'a', ${now}, :expiresAt, 600000, :releaseOn, :connection)`);
  lease.run({ name: "in grace", expiresAt: graceEnd, releaseOn: "disconnect", connection: -end });
  lease.run({ name: "bound", expiresAt: end, releaseOn: "disconnect", connection: 7 });
  lease.run({ name: "free", expiresAt: end, releaseOn: "expiry", connection: 0 });

  database.exec("INSERT INTO pawl_deployment VALUES ('d', 'pull', NULL, 0)");
  const command = database.prepare(`
    INSERT INTO pawl_command (command_id, deployment, command, model, state, attempt, max_attempts, deadline, created_at,
      completed_at, request_bytes, uploaded, lease_owner, ready_at, delayed_until, due_at, lease_expires_at, lease_connection)
    VALUES (:id, 'd', 'c', 'pull', :state, 1, 0, :deadline, ${now}, :completedAt, 4, 0, 'a', :readyAt, :delayedUntil,
      :deadline, :expiresAt, :connection)`);
  const noCommand = {
    deadline: null,
    completedAt: null,
    readyAt: null,
    delayedUntil: null,
    expiresAt: null,
    connection: null,
  };
  const commands = [
    { state: "DISPATCHED", expiresAt: graceEnd, connection: -end },
    { state: "DISPATCHED", expiresAt: end, connection: 7 },
    { state: "DISPATCHED", connection: 7 },
    { state: "PENDING", readyAt: now, deadline: end },
    { state: "PENDING", delayedUntil: end },
    { state: "SUCCEEDED", completedAt: now },
  ];
  for (const [index, row] of commands.entries()) {
    command.run({ ...noCommand, ...row, id: COMMAND_ID(String(index + 1)) });
  }
  database.close();
  return path;
});

/** Tables, indexes and rows. */
function everythingIn(database: Database.Database): unknown {
  const objects = database.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").all();
  const tables = database
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'pawl%' ORDER BY name")
    .pluck()
    .all() as string[];
  return [objects, tables.map((name) => database.prepare(`SELECT * FROM ${name}`).all())];
}

const statements = readFileSync(join(SCHEMA, STEP), "utf8")
  .replaceAll(/^--.*$/gm, "")
  .split(/;\s*\n/)
  .filter((text) => text.trim() !== "");

/** The database, whose `exec` is done in another way. */
function executing(
  database: Database.Database,
  exec: (run: (text: string) => void, text: string) => void,
): Database.Database {
  return new Proxy(database, {
    get(target, name: keyof Database.Database) {
      if (name === "exec") return (text: string) => exec((each) => target.exec(each), text);
      const value = target[name];
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** The database, in which the steps after this one fail: they are not what is tested, and take thirty times as long. */
function stoppingAfterTheStep(database: Database.Database): Database.Database {
  return executing(database, (run, text) => {
    if (schemaVersion(database) > BEFORE) throw new Error("the next step");
    run(text);
  });
}

describe("a fault in the step", () => {
  test.each(statements.map((text, index) => [index, text.trim().split("\n")[0]] as const))(
    "at statement %i: %s",
    (faulty) => {
      const path = oldDatabase();
      const database = new Database(path);
      const before = everythingIn(database);
      const failing = executing(database, (run) => {
        for (const [index, text] of statements.entries()) {
          run(text);
          if (index === faulty) throw new Error("a fault");
        }
      });
      expect(() => migrate(failing)).toThrow("a fault");
      expect(schemaVersion(database)).toBe(BEFORE);
      expect(everythingIn(database)).toEqual(before);
      expect(() => migrate(stoppingAfterTheStep(database))).toThrow("the next step");
      expect(schemaVersion(database)).toBe(BEFORE + 1);
      database.close();
    },
  );

  test("no space, however much of it there was", () => {
    const path = oldDatabase();
    let database = new Database(path);
    const before = everythingIn(database);
    const pages = database.pragma("page_count", { simple: true }) as number;
    let failures = 0;
    for (let extra = 0; ; extra += 1) {
      database.pragma(`max_page_count = ${pages + extra}`);
      expect(() => migrate(stoppingAfterTheStep(database))).toThrow(/full|the next step/);
      if (schemaVersion(database) > BEFORE) break;
      failures += 1;
      expect(everythingIn(database)).toEqual(before);
      database.close();
      database = new Database(path);
    }
    expect(failures).toBeGreaterThan(0);
    database.close();
  });
});

describe("a database of before", () => {
  const batches = async (pawl: InProcess) => (await pawl.call("queue.list", { queue: "q" })).batches;
  const command = (pawl: InProcess, name: string) =>
    pawl.call("command.get", { commandId: COMMAND_ID(name) });
  const remaining = async (pawl: InProcess, name: string) =>
    (await pawl.call("lease.get", { name })).lease?.remainingMs;

  test("goes on: grants have their grace anew and their own ends, and times count as elapsed time", async () => {
    const pawl = new InProcess({ path: oldDatabase(), time: new Clocks() });
    const left = 10 * MINUTE_MS - 1000;
    const [inGrace, bound, free, scheduled, ready, completed] = await batches(pawl);
    expect([inGrace, bound, free].map((each) => each?.claim?.remainingMs)).toEqual([
      GRACE_MS,
      GRACE_MS,
      left,
    ]);
    expect(scheduled).toMatchObject({ state: "scheduled", availableAt: START + left });
    expect(ready).toMatchObject({ state: "ready", availableAt: START - 1000 - MINUTE_MS });
    expect(completed?.state).toBe("completed");
    expect(await remaining(pawl, "in grace")).toBe(GRACE_MS);
    expect(await remaining(pawl, "bound")).toBe(GRACE_MS);
    expect(await remaining(pawl, "free")).toBe(left);
    expect((await command(pawl, "1")).lease?.remainingMs).toBe(GRACE_MS);
    expect((await command(pawl, "2")).lease?.remainingMs).toBe(GRACE_MS);
    // A push ends with its connection.
    expect(await command(pawl, "3")).toMatchObject({ state: "PENDING", attempt: 2 });
    expect(await command(pawl, "4")).toMatchObject({ state: "PENDING", deadline: START + left });
    expect(await command(pawl, "5")).toMatchObject({ state: "PENDING" });
    expect(await command(pawl, "6")).toMatchObject({ state: "SUCCEEDED", completedAt: START - 1000 });
    // Batches that wait keep their order, before those that come back.
    const { leases } = await pawl.call("command.lease", { deployment: "d", owner: "b", max: 10 });
    expect(leases.map(({ commandId }) => commandId)).toEqual([COMMAND_ID("4"), COMMAND_ID("3")]);
  });

  test("a holder that comes back in its grace has what remained of its own", async () => {
    const time = new Clocks();
    const pawl = new InProcess({ path: oldDatabase(), time });
    expect(await pawl.call("lease.heartbeat", { leaseId: "in grace", ttlMs: 60_000 })).toMatchObject({
      remainingMs: 60_000,
    });
    time.pass(GRACE_MS);
    expect(await remaining(pawl, "in grace")).toBe(60_000 - GRACE_MS);
    expect(await remaining(pawl, "bound")).toBeUndefined();
    expect((await batches(pawl)).map(({ state }) => state)).toEqual([
      "ready",
      "ready",
      "claimed",
      "scheduled",
      "ready",
      "completed",
    ]);
    time.pass(10 * MINUTE_MS);
    expect((await batches(pawl))[3]?.state).toBe("ready");
    expect(await command(pawl, "4")).toMatchObject({ state: "EXPIRED" });
  });

  test("deadlines of before are not judged by a wall clock that is set", async () => {
    const time = new Clocks();
    const pawl = new InProcess({ path: oldDatabase(), time });
    await pawl.call("daemon.ping", {});
    time.step(24 * 60 * MINUTE_MS);
    expect((await command(pawl, "4")).state).toBe("PENDING");
    expect((await batches(pawl))[3]?.state).toBe("scheduled");
  });

  test("begins where its time was if the wall clock has gone back since", async () => {
    const time = new Clocks();
    time.step(-60 * MINUTE_MS);
    const pawl = new InProcess({ path: oldDatabase(), time });
    expect(await remaining(pawl, "free")).toBeGreaterThan(10 * MINUTE_MS - 2000);
    await pawl.call("daemon.ping", {});
    expect(pawl.steps).toMatchObject([{ byMs: -60 * MINUTE_MS + 1000 }]);
  });
});

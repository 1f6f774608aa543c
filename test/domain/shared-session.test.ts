// The driver of operations over PostgreSQL, on a real server.
// Not over shared names: these tests have a PostgreSQL of their own.
import { PawlError } from "@pawl/protocol/errors";
import { describe, expect, onTestFinished, test } from "vitest";
import { ConnectionLost, classifyShared } from "../../daemon/dist/shared/failure.js";
import { placeOf, Session } from "../../daemon/dist/shared/session.js";
import { createTables, useTables } from "../../daemon/dist/shared/tables.js";
import {
  all,
  insert,
  NEW_KEY,
  type Operation,
  one,
  run,
  sql,
  write,
} from "../../daemon/dist/store/statement.js";
import { madeForTests } from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";

const insertQueue = sql(`
  INSERT INTO pawl_queue (queue, fencing_token, ready, scheduled, claimed, completed, dead, cancelled)
  VALUES (:queue, :token, 0, 0, 0, 0, 0, 0)`);
const selectQueues = sql<{ queueId: number; token: number; queue: string; rateFullAt: number | null }>(`
  SELECT queue_id AS "queueId", fencing_token AS token, queue, rate_full_at AS "rateFullAt" FROM pawl_queue
  WHERE queue >= :from ORDER BY queue`);
const figures = sql<{ queues: number; tokens: number; isNull: number }>(
  'SELECT count(*) AS queues, sum(fencing_token) AS tokens, max(settings) IS NULL AS "isNull" FROM pawl_queue',
);
const deleteQueues = sql("DELETE FROM pawl_queue WHERE queue <> ':from'");
const insertChunk = sql("INSERT INTO pawl_command_chunk (seq, at, bytes) VALUES (1, :at, :bytes)");
const selectChunk = sql<{ bytes: Uint8Array }>("SELECT bytes FROM pawl_command_chunk");

describe.skipIf(!HAS_POSTGRESQL)("a session with PostgreSQL", () => {
  const postgres = madeForTests((atEnd) => PostgreSql.start(atEnd));

  let schemas = 0;
  function freshUrl(): string {
    schemas += 1;
    return postgres().url(`test_${schemas}`);
  }

  async function open(url: string): Promise<Session> {
    const session = await Session.open(url);
    onTestFinished(() => session.close());
    return session;
  }

  async function openTables(url = freshUrl()): Promise<Session> {
    const session = await open(url);
    await createTables(session, { dryRun: false });
    return session;
  }

  test("gives values as SQLite does", async () => {
    const session = await openTables();
    await session.begin();
    expect(await session.perform(insert(insertQueue, { queue: "b", token: 9_007_199_254_740_991 }))).toBe(1);
    expect(await session.perform(insert(insertQueue, { queue: "B", token: 2 }))).toBe(2);
    const bytes = Uint8Array.of(0, 255, 92, 39);
    expect(await session.perform(run(insertChunk, { at: 0, bytes }))).toBe(1);
    await session.commit();

    // Text in the order of its bytes.
    expect(await session.drive(all(selectQueues, { from: "A" }))).toEqual([
      { queueId: 2, token: 2, queue: "B", rateFullAt: null },
      { queueId: 1, token: 9_007_199_254_740_991, queue: "b", rateFullAt: null },
    ]);
    expect(await session.drive(one(selectQueues, { from: "c" }))).toBeUndefined();
    expect(await session.drive(one(selectChunk))).toEqual({ bytes: Buffer.from(bytes) });
    await session.drive(run(insertQueue, { queue: "c", token: 1 }));
    expect(await session.drive(run(deleteQueues, {}))).toBe(3);
    expect(await session.drive(one(figures))).toEqual({ queues: 0, tokens: null, isNull: 1 });
    await expect(session.drive(all(selectQueues, {}))).rejects.toThrow("no value for :from");
  });

  test("a transaction is there whole or not at all, and says whether it wrote", async () => {
    const session = await openTables();
    const queue = { queue: "q", token: 1 };
    const [clock] = await session.begin([{ text: "SELECT $1::bigint AS n", values: [7], name: "seven" }]);
    expect(clock).toEqual([{ n: 7 }]);
    await session.perform(one(figures));
    expect(session.wrote).toBe(false);
    await session.perform(insert(insertQueue, queue));
    expect(session.wrote).toBe(true);
    await session.rollback();
    expect(await session.drive(all(selectQueues, { from: "" }))).toEqual([]);

    await session.begin();
    const refusal = new PawlError("not_found", "there is none", { what: "queue" } as never);
    await expect(
      session.perform(
        (function* () {
          yield* insert(insertQueue, queue);
          return refusal;
        })(),
      ),
    ).rejects.toThrow("refused (not_found) after it had written");
    await session.rollback();

    await session.begin();
    await session.performOrUndo(insert(insertQueue, queue), () => true);
    await session.performOrUndo(insert(insertQueue, { queue: "kept", token: 1 }), () => false);
    await session.commit();
    expect((await session.drive(all(selectQueues, { from: "" }))).map((row) => row.queue)).toEqual(["kept"]);

    // The server undoes a transaction in which something failed, and answers that as a success.
    await session.begin();
    // Nobody waits for the insertion: what comes next fails for it, whatever that is.
    await session.perform(insert(insertQueue, { queue: "kept", token: 2 }));
    const failed = await session.drive(all(selectQueues, { from: "" })).catch((error) => error);
    expect(failed.message).toContain("duplicate key");
    expect(classifyShared(failed)).toBe("defect");
    await expect(session.commit()).rejects.toThrow("duplicate key");

    await session.begin([], { toRead: true });
    await expect(session.perform(insert(insertQueue, queue))).rejects.toThrow("read-only transaction");
    await session.rollback();
    expect(await session.drive(one(figures))).toMatchObject({ queues: 1 });
  });

  test("operations go on side by side, and what fails in one of them is why all others fail", async () => {
    const session = await openTables();
    const selectToken = sql<{ token: number }>(
      "SELECT fencing_token AS token FROM pawl_queue WHERE queue = :queue",
    );
    function* addAndRead(queue: string, token: number): Operation<number | undefined> {
      yield* insert(insertQueue, { queue, token });
      return (yield* one(selectToken, { queue }))?.token;
    }
    const names = ["a", "b", "c"];
    for (const times of [1, 2]) {
      await session.begin();
      const added = names.map((name, index) => session.perform(addAndRead(`${name}${times}`, index)));
      expect(await Promise.all(added)).toEqual([0, 1, 2]);
      await session.commit();
    }
    const rows = await session.drive(all(selectQueues, { from: "" }));
    // The second transaction has got its keys with its beginning.
    expect(rows.map((row) => row.queueId).sort()).toEqual(
      [...new Set(rows.map((row) => row.queueId))].sort(),
    );
    expect(rows.map((row) => row.queue)).toEqual(["a1", "a2", "b1", "b2", "c1", "c2"]);

    // A statement that was never performed before goes out behind one that fails: the server passes over it.
    const selectLast = sql<{ last: string }>("SELECT max(queue) AS last FROM pawl_queue");
    await session.begin();
    const outcomes = await Promise.allSettled([
      session.perform(addAndRead("a1", 9)),
      session.perform(one(selectLast)),
      session.perform(addAndRead("d1", 9)),
    ]);
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({ reason: { message: expect.stringContaining("duplicate key") } });
    }
    await session.rollback();
    expect(await session.drive(one(selectLast))).toEqual({ last: "c2" });
    expect(await session.drive(one(selectLast))).toEqual({ last: "c2" });
  });

  test("statements of one text go out as one, each row by what was said of it last", async () => {
    const session = await openTables();
    const text = `
      INSERT INTO pawl_queue (queue, fencing_token, ready, scheduled, claimed, completed, dead, cancelled)
      VALUES (:queue, :token, 0, 0, 0, 0, 0, 0)`;
    const insertRow = sql(text, { writes: NEW_KEY });
    const setToken = sql("UPDATE pawl_queue SET fencing_token = :token WHERE queue_id = :id", {
      writes: "id",
    });
    const setSettings = sql("UPDATE pawl_queue SET settings = :settings WHERE queue_id = :id", {
      writes: "id",
    });
    const setAll = sql("UPDATE pawl_queue SET ready = fencing_token");
    const selectFrom = sql<{ queue: string; token: number; settings: string | null; ready: number }>(`
      SELECT queue, fencing_token AS token, settings, ready FROM pawl_queue WHERE queue >= :from
      ORDER BY queue LIMIT :rows`);
    function* addAndChange(queue: string, settings: string | null): Operation<void> {
      const id = yield* insert(insertRow, { queue, token: 1 });
      yield* write(setToken, { id, token: 2 });
      yield* write(setSettings, { id, settings });
      // Once a row is there, and again in the same message.
      if (queue.endsWith("b")) yield* write(setToken, { id, token: 3 });
    }
    const named = async () =>
      (await session.query<{ name: string }>("SELECT name FROM pg_prepared_statements")).map(
        ({ name }) => name,
      );
    // With the first the server says of what types the parameters are.
    for (const round of ["1", "2"]) {
      await session.begin([], { inserts: [{ statement: insertRow, times: 3 }] });
      const texts = ['a "quoted" \\ text', null, "{NULL}"];
      await Promise.all(
        ["a", "b", "c"].map((name, at) =>
          session.perform(addAndChange(`${round}${name}`, texts[at] ?? null)),
        ),
      );
      const read = [`${round}b`, `${round}`, "9"].map((from) =>
        session.perform(all(selectFrom, { from, rows: 2 })),
      );
      const first = session.perform(one(selectFrom, { from: `${round}c`, rows: 1 }));
      const [a, b, c] = [
        { queue: `${round}a`, token: 2, settings: texts[0], ready: 0 },
        { queue: `${round}b`, token: 3, settings: null, ready: 0 },
        { queue: `${round}c`, token: 2, settings: texts[2], ready: 0 },
      ];
      expect(await Promise.all(read)).toEqual([[b, c], [a, b], []]);
      expect(await first).toEqual(c);
      await session.commit();
    }
    expect((await named()).filter((name) => name.endsWith("_all"))).toHaveLength(4);

    // What is said of nobody knows which rows comes in its place.
    await session.begin();
    await session.perform(
      (function* () {
        yield* write(setToken, { id: 1, token: 7 });
        yield* write(setAll, {});
        yield* write(setToken, { id: 2, token: 8 });
        yield* write(setToken, { id: 1, token: 9 });
      })(),
    );
    await session.commit();
    expect(await session.drive(all(selectFrom, { from: "1", rows: 2 }))).toMatchObject([
      { token: 9, ready: 7 },
      { token: 8, ready: 3 },
    ]);
  });

  test("a transaction begins behind a commit that is under way, also behind one that fails", async () => {
    const session = await openTables();
    await session.begin();
    await session.perform(insert(insertQueue, { queue: "a", token: 1 }));
    const committed = session.commit();
    const begun = session.begin([{ text: "SELECT count(*) AS queues FROM pawl_queue" }]);
    await committed;
    expect(await begun).toEqual([[{ queues: 1 }]]);
    expect(session.wrote).toBe(false);

    await session.perform(insert(insertQueue, { queue: "a", token: 2 }));
    const failing = session.commit();
    const behind = session.begin();
    await expect(failing).rejects.toThrow("duplicate key");
    await expect(behind).rejects.toThrow("current transaction is aborted");
    await session.rollback();
    await session.begin();
    expect(await session.perform(one(figures))).toMatchObject({ queues: 1 });
    await session.commit();
  });

  test("tables are made once, and by one program", async () => {
    const url = freshUrl();
    const [first, second] = [await open(url), await open(url)];
    await expect(useTables(first)).rejects.toThrow("There are no tables of pawl");
    await first.query("SELECT pg_advisory_unlock_all()");
    const dry = await createTables(first, { dryRun: true });
    expect(dry.steps.length).toBeGreaterThan(30);
    expect(await first.query("SELECT to_regnamespace($1) AS n", [first.schema])).toEqual([{ n: null }]);

    const made = await Promise.all([first, second].map((each) => createTables(each, { dryRun: false })));
    expect(made.map(({ steps }) => steps.length).sort()).toEqual([0, dry.steps.length].sort());
    await useTables(second);

    // As an older program has left them.
    await first.query("DELETE FROM pawl_shared_step WHERE name = 'shared-0001-place'");
    await first.script(
      "DROP TABLE pawl_shared_daemon, pawl_shared_turn, pawl_shared_waiting; DROP INDEX pawl_shared_batch_key; DROP SEQUENCE pawl_shared_daemon_number",
    );
    const third = await open(url);
    await expect(useTables(third)).rejects.toThrow("those of an older pawl");
    await third.close();
    await expect(createTables(first, { dryRun: false })).rejects.toThrow("Daemons are using the tables");
    await second.close();
    await expect
      .poll(() => createTables(first, { dryRun: false }).catch(() => undefined))
      .toMatchObject({
        steps: [{ name: "shared-0001-place" }],
      });

    await first.query("INSERT INTO pawl_shared_step (name, made_at) VALUES ('9999-later', now())");
    await expect(useTables(first)).rejects.toThrow("does not know 9999-later");
    await expect(createTables(first, { dryRun: false })).rejects.toThrow("does not know 9999-later");
  });

  test("a session may have nothing to do, or wait, for longer than its role may", async () => {
    const limits = ["idle_session_timeout", "statement_timeout", "lock_timeout"];
    for (const limit of limits) postgres().psql(`ALTER ROLE pawl SET ${limit} = '5s'`);
    onTestFinished(() => void postgres().psql("ALTER ROLE pawl RESET ALL"));
    const session = await open(freshUrl());
    for (const limit of limits) {
      expect(await session.query(`SELECT current_setting('${limit}') AS ms`)).toEqual([{ ms: "0" }]);
    }
  });

  test("failures are told apart", async () => {
    const url = freshUrl();
    const session = await openTables(url);
    const ended = new Promise((resolve) => session.onEnd(resolve));
    const other = await open(url);
    const waiting = session.query("SELECT pg_sleep(60)").catch((error) => error);
    const behind = session.query("SELECT 1 AS n").catch((error) => error);
    await other.query("SELECT pg_terminate_backend($1)", [session.pid]);
    expect(classifyShared(await waiting)).toBe("lost");
    expect(classifyShared(await behind)).toBe("lost");
    expect(await ended).toBeInstanceOf(ConnectionLost);
    expect(session.isOpen).toBe(false);
    expect(classifyShared(await session.query("SELECT 1 AS n").catch((error) => error))).toBe("lost");
    await session.rollback();

    const failure = async (place: string): Promise<string> =>
      classifyShared(await Session.open(place).catch((error) => error));
    expect(await failure(url.replace("/postgres?", "/nowhere?"))).toBe("refused");
    expect(await failure(url.replace("pawl@", "nobody@"))).toBe("refused");
    expect(await failure("postgresql://pawl@localhost/postgres?host=/nowhere")).toBe("lost");
    expect(await failure("postgresql://pawl:secret@127.0.0.1:1/postgres")).toBe("lost");
    expect(
      classifyShared(await (await open(freshUrl())).query("SELECT 1 FROM pawl_queue").catch((e) => e)),
    ).toBe("refused");
    // What commits before it is on disk is no place.
    const hasty = `${url}&options=${encodeURIComponent("-c synchronous_commit=off")}`;
    await expect(Session.open(hasty)).rejects.toThrow("synchronous_commit = off");
  });

  test("listens to channels", async () => {
    const url = freshUrl();
    const [session, other] = [await open(url), await open(url)];
    const heard = new Promise((resolve) =>
      session
        .listen("pawl_test", resolve)
        .then(() => other.query("SELECT pg_notify('pawl_test', $1)", ["look"])),
    );
    expect(await heard).toBe("look");
  });
});

test("a place is shown without its password", () => {
  expect(placeOf("postgresql://me:secret@db.example:5433/work?sslmode=require&schema=other")).toMatchObject({
    schema: "other",
    shown: "db.example:5433/work",
  });
  expect(placeOf("postgresql://me@/work?host=/run/postgresql").shown).toBe("/run/postgresql/work");
  expect(placeOf("postgres:///work").shown).toBe("localhost/work");
  expect(() => placeOf("mysql://me@host/db")).toThrow("postgresql://USER@HOST/DATABASE");
  expect(() => placeOf("postgresql://me@host/db?schema=a;b")).toThrow("no name of a schema");
});

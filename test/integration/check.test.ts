// daemon.check at the socket, and `pawl check`: damage is found and named, and others are served meanwhile.
// Not over shared names: it is about the daemon's own database.
import { closeSync, cpSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DaemonProcess, Place, privateDirectory } from "../daemon.js";
import { RawClient } from "../raw-client.js";
import { pawl } from "./cli-program.js";

interface Found {
  problems: { what: string; where: string; message: string }[];
  checked: number;
  calls: number;
}

async function check(client: RawClient, limit?: number): Promise<Found> {
  const found: Found = { problems: [], checked: 0, calls: 0 };
  let after: string | undefined;
  do {
    const part: Awaited<ReturnType<typeof client.call<"daemon.check">>> = await client.call("daemon.check", {
      ...(after === undefined ? {} : { after }),
      ...(limit === undefined ? {} : { limit }),
    });
    found.problems.push(...part.problems);
    found.checked += part.checked;
    found.calls += 1;
    after = part.next;
  } while (after !== undefined);
  return found;
}

/** Something of every noun, so that all tables but a few have rows. */
async function fill(client: RawClient): Promise<void> {
  const calls = Array.from({ length: 40 }, (_, number) => [
    client.call("queue.enqueue", { queue: `q${number % 3}`, payloads: [{ number }], sourceKey: `${number}` }),
    client.call("sequence.next", { type: "FR", requestId: `${number}` }),
    client.call("command.create", { deployment: `d${number % 3}`, command: "c", params: { number } }),
    client.call("lease.acquire", { name: `l${number}`, owner: "o" }),
    client.call("pipeline.write", {
      storyId: `s${number % 7}`,
      stage: "1_backlog",
      retryCountDelta: 1,
      dependsOn: [`s${(number + 1) % 7}`],
    }),
  ]);
  await Promise.all(calls.flat());
  await client.call("queue.enqueue", { queue: "q0", payloads: ["x".repeat(20_000)] });
  await client.call("queue.claim", { queue: "q1", owner: "o" });
  await client.call("command.lease", { deployment: "d1", owner: "o" });
}

const atEnd: (() => void | Promise<void>)[] = [];
afterAll(async () => {
  for (const action of atEnd.reverse()) await action();
});
/** Where the state of a daemon is that was filled and stopped; what was in its own place has been moved here. */
const origin = join(
  privateDirectory((action) => void atEnd.push(action)),
  "state",
);

beforeAll(async () => {
  const place = new Place(undefined, (action) => void atEnd.push(action));
  const daemon = await place.start();
  await fill(await place.connect());
  expect(await daemon.end()).toBe(0);
  renameSync(place.stateDir, origin);
});

function filled(): {
  place: Place;
  damage: (work: (database: Database.Database) => void) => void;
} {
  const place = new Place();
  cpSync(origin, place.stateDir, { recursive: true });
  return {
    place,
    damage(work) {
      const database = new Database(fileOf(place));
      database.unsafeMode();
      database.pragma("writable_schema = ON");
      work(database);
      database.close();
    },
  };
}

function fileOf(place: Place): string {
  return join(place.stateDir, "pawl.db");
}

test("a sound database has no problems, in however many calls it is looked at", async () => {
  const { place } = filled();
  await place.start();
  const client = await place.connect();
  const inLarge = await check(client, 100_000);
  const inSmall = await check(client, 7);
  expect(inLarge).toMatchObject({ problems: [], calls: 1 });
  expect(inSmall.problems).toEqual([]);
  expect(inSmall.checked).toBe(inLarge.checked);
  expect(inSmall.calls).toBeGreaterThan(20);
  expect(inLarge.checked).toBeGreaterThan(500);
});

test.each<[string, string, { what: string; where: string; message: string }]>([
  [
    "payloads that are no JSON",
    "UPDATE pawl_batch SET payloads = '[1,' WHERE enqueue_seq = 5",
    {
      what: "value",
      where: "pawl_batch 5",
      message: "has no JSON in payloads. Restore the database from a backup.",
    },
  ],
  [
    "params that are no JSON",
    "UPDATE pawl_command_params SET params = '{' WHERE seq = 3",
    { what: "value", where: "pawl_command_params 3", message: expect.stringContaining("no JSON in params") },
  ],
  [
    "a state that there is not",
    "UPDATE pawl_command SET state = 'PENDINK' WHERE seq = 4",
    { what: "value", where: "pawl_command 4", message: expect.stringContaining("in state") },
  ],
  [
    "a counter above all numbers",
    "UPDATE pawl_sequence SET last = 9223372036854775807 WHERE type = 'FR'",
    {
      what: "value",
      where: 'pawl_sequence "0" "FR"',
      message: "has no value that it can have in last. Restore the database from a backup.",
    },
  ],
  [
    "the count of a queue",
    "UPDATE pawl_queue SET ready = ready + 1 WHERE queue = 'q2'",
    {
      what: "count",
      where: "queue q2",
      message: expect.stringMatching(/has 13 ready batches, and 14 are counted/),
    },
  ],
  [
    "the count of ids",
    "UPDATE pawl_batch_level SET ids = 1 WHERE level = 2",
    {
      what: "count",
      where: "pawl_batch_level 2",
      message: expect.stringContaining("has 0 ids, and 1 are counted"),
    },
  ],
  [
    "long payloads that are gone",
    "DELETE FROM pawl_batch_payloads",
    { what: "reference", where: "pawl_batch 41", message: expect.stringContaining("pawl_batch_payloads") },
  ],
  [
    "a command whose deployment is gone",
    "DELETE FROM pawl_deployment WHERE deployment = 'd2'",
    { what: "reference", where: "pawl_command 3", message: expect.stringContaining("pawl_deployment") },
  ],
  [
    "a change whose body was touched",
    "UPDATE pawl_change SET body = replace(body, '1_backlog', '1_backlok') WHERE n = 9",
    {
      what: "log",
      where: expect.stringMatching(/^change [0-9a-f]{64}$/),
      message: expect.stringContaining("hash"),
    },
  ],
  [
    "a change whose signature was touched",
    "UPDATE pawl_change SET signature = '00' || substr(signature, 3) WHERE n = 9",
    {
      what: "log",
      where: expect.stringMatching(/^change [0-9a-f]{64}$/),
      message: expect.stringContaining("signature"),
    },
  ],
  [
    "a head of the log",
    "UPDATE pawl_branch SET head_seq = 7",
    {
      what: "log",
      where: expect.stringMatching(/^change [0-9a-f]{64}$/),
      message: expect.stringContaining("the head there"),
    },
  ],
  [
    "an item that is not what its changes say",
    "UPDATE pawl_item SET stage = '9_nowhere' WHERE story_id = 's3'",
    { what: "log", where: "item s3", message: expect.stringContaining("the table has") },
  ],
])("%s: named, and nothing else is", async (_what, statement, problem) => {
  const { place, damage } = filled();
  damage((database) => database.exec(statement));
  await place.start();
  const { problems } = await check(await place.connect());
  expect(problems[0]).toEqual(problem);
  // What follows from the one is named with it, and everything else is sound.
  const isOfThat = ({ what, where }: (typeof problems)[number]): boolean =>
    [problem.what, "log", "value"].includes(what) || where.startsWith(problem.where.split(" ")[0] as string);
  expect(problems.filter((each) => !isOfThat(each))).toEqual([]);
});

/** Makes an index whose rows are some others than those of its table: by its declaration, which is then put back. */
function misindex(database: Database.Database, name: string, otherCondition: string): void {
  const of = "FROM sqlite_schema WHERE name = ?";
  const sql = database.prepare(`SELECT sql ${of}`).pluck().get(name) as string;
  const table = database.prepare(`SELECT tbl_name ${of}`).pluck().get(name) as string;
  const columns = /\(([^)]*)\)/.exec(sql)?.[1];
  database.exec(`DROP INDEX ${name}; CREATE INDEX ${name} ON ${table} (${columns}) WHERE ${otherCondition}`);
  database.prepare("UPDATE sqlite_schema SET sql = ? WHERE name = ?").run(sql, name);
}

test("an index that lacks entries is named with the rows", async () => {
  const { place, damage } = filled();
  damage((database) => misindex(database, "pawl_command_state", "seq <> 11"));
  await place.start();
  const { problems } = await check(await place.connect());
  expect(problems[0]).toEqual({
    what: "index",
    where: "pawl_command 11",
    message: expect.stringContaining("missing in the index pawl_command_state"),
  });
});

test("an index that has entries of no row is named", async () => {
  const { place, damage } = filled();
  damage((database) => misindex(database, "pawl_batch_claim", "enqueue_seq < 4 OR claim_seq <> enqueue_seq"));
  await place.start();
  const { problems } = await check(await place.connect());
  expect(problems.length).toBeGreaterThan(0);
  for (const each of problems) expect(each).toMatchObject({ what: "index", where: "pawl_batch_claim" });
});

test("a page whose bytes were overwritten is named by its table, and the rest is looked at all the same", async () => {
  const { place, damage } = filled();
  let page = 0;
  damage((database) => {
    page = database
      .prepare("SELECT pageno FROM dbstat WHERE name = 'pawl_command_params' AND pagetype = 'leaf' LIMIT 1")
      .pluck()
      .get() as number;
    database.exec(
      "UPDATE pawl_lease SET owner = 'p' WHERE name = 'l1'; UPDATE pawl_queue SET dead = 9 WHERE queue = 'q0'",
    );
  });
  const file = openSync(fileOf(place), "r+");
  // The kind of the page, which is none then.
  writeSync(file, Buffer.alloc(64, 0xee), 0, 64, (page - 1) * pageBytes(place));
  closeSync(file);
  await place.start();
  const { problems } = await check(await place.connect());
  expect(problems.map(({ what, where }) => [what, where])).toEqual([
    ["structure", "pawl_command_params"],
    ["count", "queue q0"],
  ]);
});

function pageBytes(place: Place): number {
  return readFileSync(fileOf(place)).readUInt16BE(16);
}

test("calls of others go on meanwhile, and a reader may look too", async () => {
  const place = new Place();
  const reading = join(place.directory, "reading.sock");
  await place.start({ args: ["--read-only-socket", reading] });
  const client = await place.connect();
  await fill(client);
  const reader = await RawClient.connect(reading);
  const { pipeline } = await client.call("daemon.stats", {});
  expect(pipeline.changes).toBe(40);
  let done = false;
  const looked = check(reader, 100_000).finally(() => {
    done = true;
  });
  let writes = 0;
  while (!done) {
    await client.call("queue.enqueue", { queue: "q0", payloads: [writes] });
    writes += 1;
  }
  expect((await looked).problems).toEqual([]);
  expect(writes).toBeGreaterThan(1);
});

test("an `after` that no call gave is refused by name", async () => {
  const place = new Place();
  await place.start();
  const client = await place.connect();
  for (const after of ["x", "[]", '["pawl_batch",1,2]', '["sqlite_schema"]', '["pawl_batch",null]', "{}"]) {
    const { data } = await client.refusal("daemon.check", { after });
    expect(data).toMatchObject({ kind: "invalid_params", issues: [{ path: "/after" }] });
  }
  expect((await client.call("daemon.check", { after: '["pawl_batch",-5]' })).problems).toEqual([]);
});

test("pawl check prints the problems and exits with 1, or with 0 when there are none", async () => {
  const { place, damage } = filled();
  let daemon: DaemonProcess = await place.start();
  const sound = await pawl(["check"], { socket: place.socket });
  expect(sound).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^Checked [\d,]+ rows: no problems\.\n$/),
  });
  await daemon.end();
  damage((database) => database.exec("UPDATE pawl_queue SET dead = 9 WHERE queue = 'q0'"));
  daemon = await place.start();
  const damaged = await pawl(["check"], { socket: place.socket });
  expect(damaged.code).toBe(1);
  expect(damaged.stdout).toMatch(
    /^queue q0 has 0 dead batches, and 9 are counted\..*\nChecked [\d,]+ rows: 1 problem\.\n$/,
  );
  const asJson = await pawl(["check", "--json"], { socket: place.socket });
  expect(asJson.code).toBe(1);
  expect(JSON.parse(asJson.stdout)).toMatchObject({
    problems: [{ what: "count", where: "queue q0" }],
    checked: expect.any(Number),
  });
});

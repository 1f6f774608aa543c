// Reading beside the writer: by a second socket of the daemon that writes, and by daemons that only read.
// Not over shared names: it is about the daemon's own database.
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterAll, describe, expect, test } from "vitest";
import { type DaemonProcess, Place, type StartOptions, sharedDaemon } from "../daemon.js";
import { RawClient } from "../raw-client.js";
import { expectRefusal, refusedStart } from "../refusal.js";

interface Schema {
  type?: string;
  enum?: unknown[];
  const?: unknown;
  pattern?: string;
  minimum?: number;
  minItems?: number;
  minLength?: number;
  anyOf?: Schema[];
  oneOf?: Schema[];
  items?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
}

interface Document {
  methods: {
    name: string;
    params: { name: string; required: boolean; schema: Schema }[];
    "x-writes": boolean;
  }[];
}

/** Text of the forms that ids and names have here. */
const TEXTS = [
  "FR",
  "FR-001",
  "a",
  "a".repeat(64),
  "a".repeat(32),
  "qwb:a",
  "cmd_a",
  "1_backlog",
  "/nowhere",
];

/** Any value that a schema takes, so that a method gets past its validation. */
function sample(schema: Schema): unknown {
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return schema.enum[0];
  const choice = schema.anyOf?.[0] ?? schema.oneOf?.[0];
  if (choice !== undefined) return sample(choice);
  switch (schema.type) {
    case "string": {
      const { pattern, minLength = 0 } = schema;
      const fits = (text: string) =>
        text.length >= minLength && (pattern === undefined || new RegExp(pattern, "u").test(text));
      return TEXTS.find(fits) ?? "a";
    }
    case "integer":
    case "number":
      return Math.max(schema.minimum ?? 1, 1);
    case "boolean":
      return false;
    case "array":
      return Array.from({ length: schema.minItems ?? 0 }, () => sample(schema.items ?? {}));
    case "object":
      return Object.fromEntries(
        (schema.required ?? []).map((name) => [name, sample(schema.properties?.[name] ?? {})]),
      );
    default:
      return null;
  }
}

async function discover(client: RawClient): Promise<Document> {
  return (await client.call("rpc.discover", {})) as unknown as Document;
}

function paramsOf(method: Document["methods"][number]): Record<string, unknown> {
  const required = method.params.filter((param) => param.required);
  return Object.fromEntries(required.map(({ name, schema }) => [name, sample(schema)]));
}

/**
 * Calls every method of the document: those that write are `read_only`, the others are performed.
 *
 * @param readsOnly true for a daemon that only reads.
 */
async function expectOnlyReads(client: RawClient, readsOnly = false): Promise<void> {
  const { methods } = await discover(client);
  expect(methods.filter((method) => method["x-writes"]).length).toBeGreaterThan(5);
  for (const method of methods) {
    for (const params of [paramsOf(method), {}]) {
      client.send({ jsonrpc: "2.0", id: method.name, method: method.name, params });
      const { error } = await client.reply();
      // What happens is told by the daemon that writes.
      if (readsOnly && method.name.startsWith("events."))
        expect(["read_only", "invalid_params"]).toContain(error?.data.kind);
      else if (method["x-writes"])
        expect(expectRefusal(error, "read_only").data).toMatchObject({ method: method.name });
      // A write to a database that was opened for reading would be a defect.
      else
        expect([method.name, error?.data.kind]).not.toEqual([
          method.name,
          expect.stringMatching(/^(read_only|internal)$/),
        ]);
    }
  }
}

describe("--read-only-socket", () => {
  const directory = mkdtempSync(join(tmpdir(), "pawl-test-"));
  afterAll(() => rmSync(directory, { recursive: true }));
  const readOnlySocket = join(directory, "read.sock");
  const daemon = sharedDaemon({ args: ["--read-only-socket", readOnlySocket] });
  const connectReadOnly = () => RawClient.connect(readOnlySocket);

  test("refuses every method that writes, whatever it is, and serves the others", async () => {
    const main = await daemon().place.connect();
    await main.call("sequence.next", { type: "FR" });
    const before = await main.call("sequence.state", {});
    await expectOnlyReads(await connectReadOnly());
    expect(await main.call("sequence.state", {})).toEqual(before);
  });

  test("serves what the main socket wrote", async () => {
    const main = await daemon().place.connect();
    const reader = await connectReadOnly();
    for (let round = 0; round < 20; round += 1) {
      const { seq } = await main.call("sequence.next", { type: "SEEN" });
      expect((await reader.call("sequence.peek", { type: "SEEN" })).seq).toBe(seq + 1);
    }
    await main.call("lease.acquire", { name: "a", owner: "a", ttlMs: 60_000 });
    expect((await reader.call("lease.get", { name: "a" })).lease).toMatchObject({ owner: "a", waiters: 0 });
  });

  test("has permissions of its own, is named by daemon.info, and is gone afterwards", async () => {
    const place = new Place();
    const path = join(place.directory, "read.sock");
    const running = await place.start({
      args: ["--read-only-socket", path, "--read-only-socket-mode", "0666"],
    });
    expect(statSync(path).mode & 0o777).toBe(0o666);
    expect(statSync(place.socket).mode & 0o777).toBe(0o600);
    const client = await RawClient.connect(path);
    const { sockets, readOnly, canWrite } = await client.call("daemon.info", {});
    expect(sockets).toEqual([
      { path: place.socket, readOnly: false },
      { path, readOnly: true },
    ]);
    expect([readOnly, canWrite]).toEqual([false, false]);
    expect((await (await place.connect()).call("daemon.info", {})).canWrite).toBe(true);
    expect(await running.end()).toBe(0);
    expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
  });

  test("must not be the main socket", async () => {
    const place = new Place();
    const running = place.spawn({ args: ["--read-only-socket", place.socket] });
    expect(await running.exited).toBe(2);
    expect(running.stderr).toContain("--read-only-socket");
  });
});

test("a --read-only-socket that is not free is refused by its own name, before anybody is served", async () => {
  const first = await new Place().start();
  const place = new Place();
  let served = false;
  const stopped = place.spawn({ args: ["--read-only-socket", first.place.socket] });
  const over = stopped.exited.then(() => true);
  while (!(await Promise.race([over, new Promise((resolve) => setImmediate(resolve))]))) {
    const client = await RawClient.connect(place.socket).catch(() => undefined);
    served ||= client !== undefined;
  }
  const message = await refusedStart(stopped);
  expect(message).toContain(`pid ${first.pid}`);
  expect(message).toContain("choose another --read-only-socket.");
  expect(served).toBe(false);
  expect(readdirSync(place.directory).filter((name) => !/^(state|pawl\.sock\.lock)$/.test(name))).toEqual([]);

  const taken = join(place.directory, "file");
  writeFileSync(taken, "");
  expect(await refusedStart(place.spawn({ args: ["--read-only-socket", taken] }))).toContain(
    "is there and is not a socket. Move it away, or choose another --read-only-socket.",
  );
  await place.start();
});

/** A daemon that reads the state of another place, on a socket of its own. */
class Reader extends Place {
  constructor(of: Place) {
    super();
    Object.assign(this, { stateDir: of.stateDir });
  }
  override spawn(options: StartOptions = {}): DaemonProcess {
    return super.spawn({ ...options, args: ["--read-only", ...(options.args ?? [])] });
  }
}

describe("--read-only", () => {
  test("serves reads beside the writer, each as fresh as what was answered, and refuses all that writes", async () => {
    const place = new Place();
    await place.start();
    const writer = await place.connect();
    await writer.call("sequence.next", { type: "FR" });
    await writer.call("lease.acquire", { name: "held", owner: "a", ttlMs: 60_000 });
    const readers = [new Reader(place), new Reader(place)];
    const reading: DaemonProcess[] = [];
    const clients: RawClient[] = [];
    for (const reader of readers) {
      reading.push(await reader.start());
      clients.push(await reader.connect());
    }
    for (let round = 0; round < 50; round += 1) {
      const { seq } = await writer.call("sequence.next", { type: "SEEN" });
      for (const client of clients) {
        expect((await client.call("sequence.peek", { type: "SEEN" })).seq).toBe(seq + 1);
      }
    }
    const { lease } = await (clients[0] as RawClient).call("lease.get", { name: "held" });
    expect(lease).toMatchObject({ owner: "a", fencingToken: 1, waiters: null, pid: process.pid });
    expect(lease?.remainingMs).toBeGreaterThan(50_000);
    expect(lease?.remainingMs).toBeLessThanOrEqual(60_000);
    const refusal = await (clients[0] as RawClient).refusal("events.watch", { topics: ["*"] });
    expectRefusal(refusal, "read_only");
    const info = await (clients[0] as RawClient).call("daemon.info", {});
    expect(info).toMatchObject({
      readOnly: true,
      canWrite: false,
      sockets: [{ path: readers[0]?.socket, readOnly: true }],
    });
    await expectOnlyReads(clients[0] as RawClient, true);
    for (const daemon of reading) expect(daemon.log.filter(({ level }) => level !== "info")).toEqual([]);
  });

  test("sees every transaction whole, in order, while the writer writes", async () => {
    const place = new Place();
    await place.start();
    const writer = await place.connect();
    const calls = ["A", "B", "C"].map((type) => ({ method: "sequence.next", params: { type } }));
    await writer.call("transact", { calls });
    const readers = [new Reader(place), new Reader(place)];
    for (const reader of readers) await reader.start();

    let writing = true;
    const written = (async () => {
      let count = 1;
      for (let round = 0; round < 60; round += 1) {
        await Promise.all(Array.from({ length: 20 }, () => writer.call("transact", { calls })));
        count += 20;
      }
      writing = false;
      return count;
    })();
    const read = readers.map(async (reader) => {
      const client = await reader.connect();
      const seen: number[] = [];
      while (writing) {
        const { sequences } = await client.call("sequence.state", {});
        expect(sequences.B).toBe(sequences.A);
        expect(sequences.C).toBe(sequences.A);
        seen.push(sequences.A as number);
      }
      return { seen, last: (await client.call("sequence.state", {})).sequences.A };
    });
    const count = await written;
    for (const { seen, last } of await Promise.all(read)) {
      expect(seen).toEqual([...seen].sort((a, b) => a - b));
      expect(new Set(seen).size).toBeGreaterThan(3);
      expect(last).toBe(count);
    }
  });

  test("a wait is answered when the writer makes its condition true, whether by a call or by time", async () => {
    const place = new Place();
    await place.start();
    const writer = await place.connect();
    const reader = new Reader(place);
    await reader.start();
    const client = await reader.connect();
    const waitMs = 3_600_000;
    for (let round = 0; round < 5; round += 1) {
      const { commandId } = await writer.call("command.create", { deployment: "d", command: "c" });
      const waits = [1, 2, 3].map(() => client.call("command.wait", { commandId, waitMs }));
      // Commits that end nothing end no wait.
      await writer.call("sequence.next", { type: "FR" });
      expect((await client.call("daemon.stats", {})).connections.waiting).toBe(3);
      await writer.call("command.cancel", { commandId });
      for (const command of await Promise.all(waits))
        expect(command).toMatchObject({ commandId, state: "FAILED" });
    }
    const expiring = { deployment: "d", command: "c", ttlMs: 200 };
    const { commandId } = await writer.call("command.create", expiring);
    expect(await client.call("command.wait", { commandId, waitMs })).toMatchObject({ state: "EXPIRED" });
    const { connections, commands } = await client.call("daemon.stats", {});
    expect(connections.waiting).toBe(0);
    expect(commands.states).toMatchObject({ PENDING: 0, DISPATCHED: 0, FAILED: 5, EXPIRED: 1 });
  });

  test("goes on when the writer is killed, ends, and comes back", async () => {
    const place = new Place();
    let daemon = await place.start();
    let writer = await place.connect();
    await writer.call("sequence.next", { type: "FR" });
    const reader = new Reader(place);
    const reading = await reader.start();
    const client = await reader.connect();
    for (const signal of ["SIGKILL", "SIGTERM"] as const) {
      await daemon.end(signal);
      const { seq } = await client.call("sequence.peek", { type: "FR" });
      daemon = await place.start();
      writer = await place.connect();
      expect((await writer.call("sequence.next", { type: "FR" })).seq).toBe(seq);
      expect((await client.call("sequence.peek", { type: "FR" })).seq).toBe(seq + 1);
    }
    expect(await reading.end()).toBe(0);
    expect(await daemon.end()).toBe(0);
  });

  test("reads a database that nobody writes", async () => {
    const place = new Place();
    const daemon = await place.start();
    await (await place.connect()).call("sequence.next", { type: "FR" });
    expect(await daemon.end()).toBe(0);
    const reader = new Reader(place);
    await reader.start();
    expect((await (await reader.connect()).call("sequence.peek", { type: "FR" })).seq).toBe(2);
  });

  test("takes no socket of the writer, and is no second writer", async () => {
    const place = new Place();
    const daemon = await place.start();
    const reader = place.spawn({ args: ["--read-only"] });
    expect(await reader.exited).toBe(3);
    expect(reader.stderr).toContain(`pid ${daemon.pid}`);
    await new Reader(place).start();
    const second = new Place();
    Object.assign(second, { stateDir: place.stateDir });
    const writing = second.spawn();
    expect(await writing.exited).toBe(3);
    expect(writing.stderr).toContain(`pid ${daemon.pid}`);
  });

  test.runIf(process.getuid?.() === 0)(
    "that it may not read the database is said, and whose it is",
    async () => {
      const place = new Place();
      const daemon = await place.start();
      const reader = new Reader(place);
      for (const [directory, state] of [
        [0o755, 0o700],
        [0o755, 0o755],
      ] as const) {
        chmodSync(place.directory, directory);
        chmodSync(place.stateDir, state);
        chmodSync(reader.directory, 0o777);
        const message = await refusedStart(
          reader.spawn({ command: ["setpriv", "--reuid=65534", "--clear-groups", process.execPath] }),
        );
        const blocked = state === 0o700 ? `${place.stateDir} ` : `${join(place.stateDir, "pawl.db")} `;
        expect(message).toContain(
          `${join(place.stateDir, "pawl.db")} may not be read by us: ${blocked}belongs to the user with uid 0`,
        );
        expect(message).toContain("we are uid 65534");
      }
      expect(await daemon.end()).toBe(0);
    },
  );

  test("needs a database that is there, of its own version and mode", async () => {
    const none = new Place().spawn({ args: ["--read-only"] });
    expect(await none.exited).toBe(3);
    expect(none.stderr).toContain("There is no database");

    const place = new Place();
    const daemon = await place.start();
    const other = new Reader(place).spawn({ args: ["--mode", "distributed", "--node-id", "7"] });
    expect(await other.exited).toBe(3);
    expect(other.stderr).toContain("centralized");
    await daemon.end();

    const database = new Database(join(place.stateDir, "pawl.db"));
    database.prepare("UPDATE pawl_meta SET value = value + 1 WHERE key = 'schema_version'").run();
    database.close();
    const newer = new Reader(place).spawn();
    expect(await newer.exited).toBe(3);
    expect(newer.stderr).toContain("schema version");
  });

  test("ends when the writer has migrated the database under it", async () => {
    const place = new Place();
    await (await place.start()).end();
    const reader = new Reader(place);
    const reading = await reader.start();
    const client = await reader.connect();
    await client.call("sequence.state", {});
    const database = new Database(join(place.stateDir, "pawl.db"));
    database.prepare("UPDATE pawl_meta SET value = value + 1 WHERE key = 'schema_version'").run();
    expectRefusal(await client.refusal("sequence.state", {}), "unavailable");
    expect(await reading.exited).toBe(1);
    database.close();
  });
});

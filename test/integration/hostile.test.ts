// Clients that are many, slow, stuck or gone: the daemon stays small and serves the others.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import {
  MAX_BATCH_ANSWER_BYTES,
  MAX_BATCH_CALLS,
  MAX_ID_LENGTH,
  MAX_LINE_NESTING_LEVELS,
  MAX_PARAMS_PARTS,
  MAX_UNSENT_BYTES,
  MAX_WAITS_PER_CONNECTION,
} from "@pawl/protocol/limits";
import { expect, test } from "vitest";
import { ClientProcess } from "../client-process.js";
import { type DaemonProcess, NAMES_ARE_SHARED, startDaemon } from "../daemon.js";
import { sized } from "../long-form.js";
import { RawClient, type RawReply } from "../raw-client.js";
import { expectRefusedReply } from "../refusal.js";
import { until } from "../until.js";

const MIB = 1024 * 1024;

/** Everything that a client sends at once, whether or not its peer reads. */
async function writeAll(socket: Socket, bytes: string): Promise<void> {
  await new Promise<void>((resolve, reject) =>
    socket.write(bytes, (error) => (error ? reject(error) : resolve())),
  );
}

/** A connection that reads nothing until it is told to. */
async function deaf(daemon: DaemonProcess): Promise<Socket> {
  const socket = connect(daemon.place.socket);
  socket.pause();
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

/** Resolves when the daemon has taken up no more calls of a method for many turns; with how many it took up. */
async function stuck(watcher: RawClient, method: string): Promise<number> {
  let before = -1;
  for (let quiet = 0; quiet < 100; quiet += 1) {
    const { requests } = await watcher.call("daemon.stats", {});
    const now = requests[method] ?? 0;
    if (now !== before) quiet = 0;
    before = now;
  }
  return before;
}

/** Resolves when no connection is left but the one that asks: closes arrive when they arrive. */
async function onlyOneOpen(watcher: RawClient): Promise<void> {
  await until(async () => (await watcher.call("daemon.stats", {})).connections.open <= 1);
}

const openFiles = (daemon: DaemonProcess): number => readdirSync(`/proc/${daemon.pid}/fd`).length;

/** 10,000 with PAWL_TORTURE=1. */
const IN_TURN = sized(10_000, 3000);

test(`${IN_TURN} connections in turn leave nothing behind`, async () => {
  const daemon = await startDaemon();
  const watcher = await daemon.place.connect();
  const connections = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i += 1) {
      const client = await daemon.place.connect();
      client.write('{"jsonrpc":"2.0","id":"turn","method":"daemon.ping"}\n');
      if ((await client.reply()).result === undefined) throw new Error("not answered");
      await client.destroy();
    }
    await onlyOneOpen(watcher);
  };
  // Node takes its fill of memory at first and keeps it.
  await connections(IN_TURN / 2);
  const [files, bytes] = [openFiles(daemon), daemon.residentBytes];
  await connections(IN_TURN / 2);
  expect((await watcher.call("daemon.stats", {})).connections.accepted).toBe(IN_TURN + 1);
  expect(openFiles(daemon)).toBeLessThanOrEqual(files);
  // Garbage of many short connections is looked for every few seconds.
  await expect
    .poll(() => daemon.residentBytes - bytes, { timeout: 30_000, interval: 100 })
    .toBeLessThan(16 * MIB);
  expect(await daemon.end()).toBe(0);
});

test("500 connections at once are all served, and so is the next", async () => {
  const daemon = await startDaemon();
  const clients = await Promise.all(Array.from({ length: 500 }, () => daemon.place.connect()));
  const numbers = await Promise.all(
    clients.map(async (client) => {
      const taken = [];
      for (let i = 0; i < 4; i += 1) taken.push((await client.call("sequence.next", { type: "FR" })).seq);
      expect(taken).toEqual([...taken].sort((a, b) => a - b));
      return taken;
    }),
  );
  expect(numbers.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: 2000 }, (_, index) => index + 1));
  const another = await daemon.place.connect();
  expect((await another.call("daemon.stats", {})).connections.open).toBe(501);
  await Promise.all(clients.map((client) => client.destroy()));
  await onlyOneOpen(another);
  expect(await daemon.end()).toBe(0);
});

test("a client that never reads its replies does not grow the daemon, and gets them when it does", async () => {
  const daemon = await startDaemon();
  const watcher = await daemon.place.connect();
  await watcher.call("rpc.discover", {});
  const discovered = JSON.stringify(await watcher.call("rpc.discover", {})).length;
  // Six times what may be unsent.
  const count = Math.ceil((6 * MAX_UNSENT_BYTES) / discovered);
  const before = daemon.residentBytes;

  const socket = await deaf(daemon);
  const written = writeAll(
    socket,
    Array.from({ length: count }, (_, id) => `{"jsonrpc":"2.0","id":${id},"method":"rpc.discover"}\n`).join(
      "",
    ),
  );
  const taken = await stuck(watcher, "rpc.discover");
  // One turn's share may go over the limit; the kernel's buffers hold something too.
  expect(taken * discovered).toBeLessThan(2.5 * MAX_UNSENT_BYTES);
  expect(taken * discovered).toBeGreaterThan(MAX_UNSENT_BYTES);
  expect(daemon.residentBytes - before).toBeLessThan(5 * MAX_UNSENT_BYTES);

  const reader = new RawClient(socket);
  socket.resume();
  for (let id = 0; id < count; id += 1) {
    expect((JSON.parse(await reader.line()) as RawReply).id).toBe(id);
  }
  await written;
  expect(await daemon.end()).toBe(0);
});

test("many clients that never read do not slow the others", async () => {
  const daemon = await startDaemon();
  const watcher = await daemon.place.connect();
  const flood = '{"jsonrpc":"2.0","id":1,"method":"sequence.next","params":{"type":"DEAF"}}\n'.repeat(20_000);
  const sockets = await Promise.all(Array.from({ length: 10 }, () => deaf(daemon)));
  for (const socket of sockets) socket.write(flood);
  const waits: number[] = [];
  for (let i = 0; i < 30; i += 1) {
    const start = performance.now();
    await watcher.call("sequence.next", { type: "OTHER" });
    waits.push(performance.now() - start);
  }
  const median = waits.sort((a, b) => a - b)[15] as number;
  expect(median).toBeLessThan(1000);
  for (const socket of sockets) socket.destroy();
  await onlyOneOpen(watcher);
  expect(await daemon.end()).toBe(0);
});

test.each([
  ["lines", (waits: string[]) => `${waits.join("\n")}\n`],
  ["batches", (waits: string[]) => `[${waits.slice(0, 1000)}]\n[${waits.slice(1000, 2000)}]\n`.repeat(2)],
])(
  "a connection has no more than 512 requests that wait, in %s; the others are refused, and it can cancel",
  async (how, linesOf) => {
    const daemon = await startDaemon();
    const [holder, greedy] = [await daemon.place.connect(), await daemon.place.connect()];
    await holder.call("lease.acquire", { name: "x", owner: "holder" });
    const params = { name: "x", owner: "greedy", waitMs: 3_600_000 };
    greedy.write(
      linesOf(
        Array.from({ length: 3000 }, (_, id) =>
          JSON.stringify({ jsonrpc: "2.0", id: `g${id}`, method: "lease.acquire", params }),
        ),
      ),
    );
    const waiting = async () => (await holder.call("daemon.stats", {})).connections.waiting;
    await until(async () => (await waiting()) >= MAX_WAITS_PER_CONNECTION);
    await stuck(holder, "lease.acquire");
    expect(await waiting()).toBe(MAX_WAITS_PER_CONNECTION);
    expect((await holder.call("sequence.next", { type: "FR" })).seq).toBe(1);
    if (how === "lines") {
      const { id, error } = await greedy.reply();
      expect(id).toBe(`g${MAX_WAITS_PER_CONNECTION}`);
      expect(error?.data).toMatchObject({
        kind: "exhausted",
        retryable: true,
        limit: MAX_WAITS_PER_CONNECTION,
      });
    }
    await greedy.destroy();
    await until(async () => (await waiting()) <= 0);
    expect(await daemon.end()).toBe(0);
  },
);

test("a batch whose answers would fill the memory is performed only as far as they may grow", async () => {
  const daemon = await startDaemon();
  const client = await daemon.place.connect();
  const payloads = ["x".repeat(900_000)];
  const { batch } = await client.call("queue.enqueue", { queue: "q", payloads });
  const get = JSON.stringify({
    jsonrpc: "2.0",
    id: "get",
    method: "queue.get",
    params: { batchId: batch.batchId },
  });
  const notification = '{"jsonrpc":"2.0","method":"sequence.next","params":{"type":"FR"}}';
  const before = daemon.residentBytes;
  client.write(`[${[...Array(MAX_BATCH_CALLS - 1).fill(get), notification]}]\n`);
  const answers = JSON.parse(await client.line()) as RawReply[];
  // Held as text, as bytes and as what they were made of.
  expect(daemon.residentBytes - before).toBeLessThan(8 * MAX_BATCH_ANSWER_BYTES);

  expect(answers).toHaveLength(MAX_BATCH_CALLS - 1);
  const answered = answers.findIndex(({ error }) => error !== undefined);
  expect(answered * payloads.join().length).toBeGreaterThan(0.9 * MAX_BATCH_ANSWER_BYTES);
  expect(answered * payloads.join().length).toBeLessThan(1.5 * MAX_BATCH_ANSWER_BYTES);
  for (const reply of answers.slice(answered)) {
    expect(expectRefusedReply(reply, "get", "unavailable").data.reason).toBe("batch_too_large");
  }
  // It was not the one that had to be left out.
  expect((await client.call("sequence.peek", { type: "FR" })).seq).toBe(2);
  expect(await daemon.end()).toBe(0);
});

test("long answers that nobody reads are not made", async () => {
  const daemon = await startDaemon();
  const watcher = await daemon.place.connect();
  const { batch } = await watcher.call("queue.enqueue", { queue: "q", payloads: ["x".repeat(900_000)] });
  const get = JSON.stringify({
    jsonrpc: "2.0",
    id: "get",
    method: "queue.get",
    params: { batchId: batch.batchId },
  });
  const before = daemon.residentBytes;
  const sockets = await Promise.all(Array.from({ length: 4 }, () => deaf(daemon)));
  for (const socket of sockets) socket.write(`${get}\n`.repeat(1000));
  const made = await stuck(watcher, "queue.get");
  expect(made * 900_000).toBeLessThan(sockets.length * 3 * MAX_UNSENT_BYTES);
  expect(daemon.residentBytes - before).toBeLessThan(sockets.length * 6 * MAX_UNSENT_BYTES);
  for (const socket of sockets) socket.destroy();
  await onlyOneOpen(watcher);
  expect(await daemon.end()).toBe(0);
});

test("nothing is granted any more to who would have waited for it and is gone; what it enqueued is", async () => {
  const daemon = await startDaemon();
  const watcher = await daemon.place.connect();
  const socket = await deaf(daemon);
  await watcher.call("daemon.ping", {});
  const request = (method: string, params: object) =>
    `${JSON.stringify({ jsonrpc: "2.0", id: 1, method, params })}\n`;
  // More than a turn takes up of one connection.
  const leases = Array.from({ length: 300 }, (_, index) =>
    request("lease.acquire", { name: `l-${index}`, owner: "gone", ttlMs: 600_000, waitMs: 600_000 }),
  );
  const enqueued = request("queue.enqueue", { queue: "q", payloads: [1], waitMs: 600_000 });
  daemon.child.kill("SIGSTOP");
  await writeAll(socket, [...leases, enqueued].join(""));
  socket.destroy();
  await once(socket, "close");
  daemon.child.kill("SIGCONT");
  await expect.poll(async () => (await watcher.call("queue.stats", { queue: "q" })).queues[0]?.ready).toBe(1);
  expect((await watcher.call("lease.list", { limit: 1000 })).leases.length).toBeLessThan(leases.length);
});

test("clients that refuse to end their line are held to its limit", async () => {
  const daemon = await startDaemon();
  const watcher = await daemon.place.connect();
  const before = daemon.residentBytes;
  const sockets = await Promise.all(Array.from({ length: 20 }, () => deaf(daemon)));
  const chunk = "x".repeat(MIB);
  for (let i = 0; i < 20; i += 1) {
    await Promise.all(sockets.map((socket) => writeAll(socket, chunk).catch(() => {})));
  }
  expect((await watcher.call("daemon.stats", {})).errors["-"]).toEqual({ message_too_large: 20 });
  expect(daemon.residentBytes - before).toBeLessThan(120 * MIB);
  for (const socket of sockets) socket.destroy();
});

test("an id has at most 1,024 characters, and a line 600 arrays in one another", async () => {
  const daemon = await startDaemon();
  const client = await daemon.place.connect();
  const ping = (id: unknown, params = "{}"): string =>
    `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"method":"daemon.ping","params":${params}}\n`;
  const longest = "i".repeat(MAX_ID_LENGTH);
  client.write(ping(longest));
  expect((await client.reply()).id).toBe(longest);
  client.write(ping(`${longest}i`));
  expectRefusedReply(await client.reply(), null, "invalid_request");

  const nested = (levels: number): string => `{"x":${"[".repeat(levels)}${"]".repeat(levels)}}`;
  client.write(ping("deep", nested(MAX_LINE_NESTING_LEVELS - 2)));
  expectRefusedReply(await client.reply(), "deep", "invalid_params");
  client.write(ping("deeper", nested(MAX_LINE_NESTING_LEVELS - 1)));
  expectRefusedReply(await client.reply(), null, "parse_error");
  client.write(ping("text", `{"x":"\\\\\\"${"[".repeat(MAX_LINE_NESTING_LEVELS + 1)}\\\\"}`));
  expectRefusedReply(await client.reply(), "text", "invalid_params");
  expect(await daemon.end()).toBe(0);
});

test("a line of very many values is taken for the text that it is, or refused before they are made", async () => {
  const daemon = await startDaemon();
  const client = await daemon.place.connect();
  const ask = async (line: string): Promise<RawReply> => {
    client.write(`${line}\n`);
    return client.reply();
  };
  const request = (method: string, params: string): string =>
    `{"jsonrpc":"2.0","id":"dense","method":"${method}","params":${params}}`;

  const deep = `${"[".repeat(400)}1.0${"]".repeat(400)}`;
  const payloads = `[{"a":1e400},[${Array(500).fill(deep).join(", ")}], {}]`;
  const added = await ask(request("queue.enqueue", `{"queue":"q","payloads":${payloads}}`));
  expect(added.result).toBeDefined();
  client.write(`${request("queue.claim", '{"queue":"q","owner":"o"}')}\n`);
  expect(await client.line()).toContain(`"payloads":${payloads}`);

  const tooDeep = `[${Array(200)
    .fill(`${"[".repeat(580)}${"]".repeat(580)}`)
    .join()}]`;
  expectRefusedReply(
    await ask(request("queue.enqueue", `{"queue":"q","payloads":[${tooDeep}]}`)),
    "dense",
    "invalid_params",
  );
  const members = Array.from({ length: MAX_PARAMS_PARTS }, (_, index) => `"k${index}":0`).join();
  const refused = await ask(request("queue.claim", `{${members}}`));
  expectRefusedReply(refused, "dense", "invalid_params");
  expect(refused).toMatchObject({
    id: "dense",
    error: { message: expect.stringContaining(`${MAX_PARAMS_PARTS}`) },
  });
  const wrong = await ask(`${request("queue.claim", `{${members}}`).slice(0, -1)}]`);
  expectRefusedReply(wrong, null, "parse_error");
  // Values within a batch, and in what is no request, are parsed as they are.
  expect(await ask(`[${request("daemon.ping", "{}")},${`{${members}}`}]`)).toHaveLength(2);
  expect(await daemon.end()).toBe(0);
});

test("whoever asks for a little is answered before the queue of whoever asks for much is done", async () => {
  const daemon = await startDaemon();
  const [greedy, polite] = [await daemon.place.connect(), await daemon.place.connect()];
  const payloads = Array.from({ length: 500 }, (_, index) => index);
  const request = { jsonrpc: "2.0", id: "g", method: "queue.enqueue", params: { queue: "q", payloads } };
  await polite.call("sequence.next", { type: "FR" });
  const line = `${JSON.stringify(request)}\n`;
  greedy.write(line.repeat(1000));
  greedy.write('{"jsonrpc":"2.0","id":"last","method":"daemon.ping"}\n');
  let last = false;
  const replies = (async () => {
    for (;;) if ((await greedy.reply()).id === "last") break;
    last = true;
  })();
  for (let i = 0; i < 5; i += 1) {
    await polite.call("sequence.next", { type: "FR" });
    expect(last).toBe(false);
  }
  await replies;
  expect(await daemon.end()).toBe(0);
});

/** As many connections of one process as the first argument says: each has 100 requests waiting all the time. */
const MANY_CONNECTIONS = `
  import { connect } from "node:net";
  const [count, socketPath, request] = process.argv.slice(1);
  let begun = 0;
  for (let number = 0; number < Number(count); number += 1) {
    const socket = connect(socketPath, () => socket.write((request + "\\n").repeat(100)));
    socket.once("data", () => ++begun === Number(count) && console.log("true"));
    socket.on("data", (chunk) => {
      const answers = chunk.toString("latin1").split("\\n").length - 1;
      if (answers > 0) socket.write((request + "\\n").repeat(answers));
    });
  }
`;

// A database performs all that has come to it together.
test.skipIf(NAMES_ARE_SHARED)("a process gets no more done for having many connections", async () => {
  const daemon = await startDaemon();
  const polite = await daemon.place.connect();
  const nextOf = (type: string): string =>
    JSON.stringify({ jsonrpc: "2.0", id: type, method: "sequence.next", params: { type } });
  const many = new ClientProcess(
    spawn(process.execPath, [
      ...["--input-type=module", "--eval", MANY_CONNECTIONS, "--"],
      ...["50", daemon.place.socket, nextOf("MANY")],
    ]),
  );
  try {
    await many.line(0);
    const lastOf = async (type: string): Promise<number> =>
      (await polite.call("sequence.next", { type })).seq;
    const before = await lastOf("MANY");
    polite.write(`${nextOf("ONE")}\n`.repeat(1000));
    for (let answers = 0; answers < 1000; answers += 1) await polite.reply();
    const done = (await lastOf("MANY")) - before;
    expect(await lastOf("ONE")).toBe(1001);
    // As much as the other, and what was under way; not fifty times as much.
    expect(done).toBeGreaterThan(100);
    expect(done).toBeLessThan(20_000);
  } finally {
    await many.end("SIGKILL");
  }
  expect(await daemon.end()).toBe(0);
});

/** Sends the same request without end, and reads the answers. */
async function flood(daemon: DaemonProcess, request: string): Promise<Socket> {
  const socket = await deaf(daemon);
  const write = (): void => {
    while (socket.writable && socket.write(request));
  };
  socket.on("drain", write);
  socket.resume();
  write();
  return socket;
}

// Each connection has its share of the time: so few of them ask for something so dear that a short request costs less
// than that share of a dear one on a busy machine, too.
// What a database performs is dear there, and takes this process no time that short requests would wait for.
test.skipIf(NAMES_ARE_SHARED)(
  "a flood of dear requests by ten connections has at most one answered before each short request",
  async () => {
    const daemon = await startDaemon();
    const polite = await daemon.place.connect();
    for (let call = 0; call < 30; call += 1) await polite.call("daemon.stats", {});
    const method = "queue.enqueueMany";
    const params = { batches: Array(1000).fill({ queue: "q", payloads: [1] }) };
    const request = `${JSON.stringify({ jsonrpc: "2.0", id: 1, method, params })}\n`;
    const floods = await Promise.all(Array.from({ length: 10 }, () => flood(daemon, request)));
    const performed = async (): Promise<number> =>
      (await polite.call("daemon.stats", {})).requests[method] ?? 0;
    await until(async () => (await performed()) > 5);

    // Sent at once, so that nothing counts but the order in which the daemon performs them.
    const counts = await Promise.all(Array.from({ length: 30 }, performed));
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(counts.length);
    for (const socket of floods) socket.destroy();
    expect(await daemon.end()).toBe(0);
  },
);

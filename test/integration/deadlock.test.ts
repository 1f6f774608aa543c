// Who waits for whom, with real processes: circles are refused to the one that closes them, and told of.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { connect } from "@pawl/client";
import { describe, expect, onTestFinished, test } from "vitest";
import { privateDirectory, sharedDaemon } from "../daemon.js";
import { pawl as runPawl } from "./cli-program.js";

const daemon = sharedDaemon();
const LONG_MS = 3_600_000;

/** A process of its own with one connection: takes a line of JSON for each request, prints each answer. */
class Process {
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #id = 0;

  constructor(socket: string) {
    this.child = spawn(process.execPath, ["-e", PROGRAM, socket], { stdio: ["pipe", "pipe", "inherit"] });
    onTestFinished(() => void this.child.kill("SIGKILL"));
    this.#lines = createInterface({ input: this.child.stdout as NodeJS.ReadableStream })[
      Symbol.asyncIterator
    ]();
  }

  get pid(): number {
    return this.child.pid as number;
  }

  send(method: string, params: object): void {
    this.child.stdin?.write(`${JSON.stringify({ jsonrpc: "2.0", id: ++this.#id, method, params })}\n`);
  }

  async answer(): Promise<{
    result?: Record<string, never>;
    error?: { data: { cycle: { pid: number }[] } };
  }> {
    return JSON.parse((await this.#lines.next()).value);
  }

  async has(thing: object, more: object = {}): Promise<void> {
    this.send(methodFor(thing), { owner: "test", ...thing, ...more });
    expect(await this.answer()).toHaveProperty("result");
  }

  /** Begins to wait, and is known to wait. */
  async waits(thing: object): Promise<void> {
    this.send(methodFor(thing), { owner: "test", waitMs: LONG_MS, ...thing });
    // Later requests of the connection are answered once the wait has begun.
    this.send("daemon.ping", {});
    expect((await this.answer()).result).toHaveProperty("now");
  }

  async refused(thing: object): Promise<number[]> {
    this.send(methodFor(thing), { owner: "test", waitMs: LONG_MS, ...thing });
    const { error } = await this.answer();
    expect(error).toMatchObject({ code: -32018, data: { kind: "would_deadlock", retryable: false } });
    return error?.data.cycle.map(({ pid }) => pid) ?? [];
  }
}

/** Bytes from one side to the other. */
const PROGRAM = `
  const socket = require("node:net").connect(process.argv[1]);
  process.stdin.pipe(socket);
  socket.pipe(process.stdout);
`;

function methodFor(thing: object): string {
  return "patterns" in thing ? "path.reserve" : "lease.acquire";
}

describe("processes that wait for each other", () => {
  test.each([2, 3])("are refused a circle of %i, over leases and paths", async (size) => {
    const { socket } = daemon().place;
    const processes = Array.from({ length: size }, () => new Process(socket));
    const things = processes.map((_, index) =>
      index % 2 === 0
        ? { name: `${size} ${index}` }
        : { root: "/tree", patterns: [`${size}/${index}/`], mode: "write" },
    );
    for (const [index, each] of processes.entries()) await each.has(things[index] as object);
    for (const [index, each] of processes.slice(0, -1).entries())
      await each.waits(things[index + 1] as object);
    const last = processes.at(-1) as Process;
    expect(await last.refused(things[0] as object)).toEqual(
      [last, ...processes.slice(0, -1)].map(({ pid }) => pid),
    );
    // Once it ends, what it held goes on to the one before it.
    const [first] = processes as [Process];
    const nodes = await (await daemon().place.connect()).call("daemon.graph", { pid: first.pid });
    expect(nodes.edges.filter(({ what }) => what === "waits")).toHaveLength(size - 1);
    const pids = nodes.nodes.map(({ pid }) => pid).filter((pid) => typeof pid === "number");
    expect(pids.sort()).toEqual(processes.map(({ pid }) => pid).sort());
  });
});

test("queues, keys of batches and commands are nodes, too", async () => {
  const [holder, waiter] = [await daemon().place.connect(), await daemon().place.connect()];
  await holder.call("queue.enqueue", { queue: "of graph", payloads: [1], key: "ada" });
  await holder.call("queue.claim", { queue: "of graph", owner: "claims" });
  await holder.call("command.create", { deployment: "of-graph", command: "c" });
  const { leases } = await holder.call("command.lease", { deployment: "of-graph", owner: "carries out" });
  const commandId = leases[0]?.envelope.commandId as string;
  waiter.send({
    jsonrpc: "2.0",
    id: 1,
    method: "queue.claim",
    params: { queue: "of graph", owner: "w", waitMs: LONG_MS },
  });
  waiter.send({ jsonrpc: "2.0", id: 2, method: "command.wait", params: { commandId, waitMs: LONG_MS } });
  // Later requests of the connection are answered once both waits have begun.
  await waiter.call("daemon.ping", {});
  const { nodes, edges } = await holder.call("daemon.graph", { pid: process.pid });
  const things = [
    { id: "queue:of graph", kind: "queue", name: "of graph" },
    { id: "key:of graph ada", kind: "key", queue: "of graph", name: "ada" },
    { id: `command:${commandId}`, kind: "command", name: commandId },
  ];
  expect(nodes).toEqual(expect.arrayContaining(things));
  // One process has all of it, and is named by the first owner that it gave.
  const [me] = nodes.filter(({ kind }) => kind === "process");
  expect(me).toMatchObject({ pid: process.pid, owner: "claims" });
  const [queue, key, command] = things.map(({ id }) => id);
  expect(edges.filter(({ from }) => from === me?.id).map(({ what, to }) => [what, to])).toEqual(
    expect.arrayContaining([
      ["holds", queue],
      ["holds", key],
      ["holds", command],
      ["waits", queue],
      ["waits", command],
    ]),
  );
  await waiter.destroy();
  await holder.destroy();
});

describe("the library", () => {
  test("gives each outermost function a task, which those within it share", async () => {
    const client = await connect({ socket: daemon().place.socket });
    onTestFinished(() => client.close());
    const options = { waitMs: LONG_MS };
    const root = "/library";
    let arrived = 0;
    let bothHold: () => void = () => {};
    const both = new Promise<void>((resolve) => {
      bothHold = resolve;
    });
    const hold = async (): Promise<void> => {
      arrived += 1;
      if (arrived === 2) bothHold();
      await both;
    };
    const one = client.withLease("library", async () => {
      await hold();
      return await client.withPaths({ root, patterns: ["a"] }, () => "one", options);
    });
    const two = client.withPaths({ root, patterns: ["a"] }, async () => {
      await hold();
      return await client.withLease("library", () => "two", options);
    });
    const outcomes = await Promise.allSettled([one, two]);
    const refused = outcomes.filter(({ status }) => status === "rejected");
    expect(refused).toMatchObject([{ reason: { kind: "would_deadlock" } }]);
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });
});

describe("pawl", () => {
  const pawl = join(import.meta.dirname, "..", "..", "client", "bin", "pawl.js");

  test("refuses a command that wants what it is run under, and says so", async () => {
    const { socket } = daemon().place;
    const child = spawn(
      pawl,
      ["lock", "nested", "--", pawl, "lock", "nested", "--wait", "1h", "-E", "9", "--", "true"],
      { env: { ...process.env, PAWL_SOCKET: socket }, stdio: ["ignore", "ignore", "pipe"] },
    );
    let said = "";
    child.stderr.on("data", (data) => {
      said += data;
    });
    const [code] = await once(child, "close");
    expect({ code, said }).toMatchObject({
      code: 9,
      said: expect.stringContaining('To wait for the lease "nested" would close a circle of waits'),
    });
  });

  test("graph and why say who waits for whom", async () => {
    const { socket } = daemon().place;
    const [holder, waiter] = [new Process(socket), new Process(socket)];
    await holder.has({ name: "shown", owner: "the holder" });
    await waiter.waits({ name: "shown", owner: "the waiter" });
    const run = (...args: string[]) => runPawl(args, { socket });
    const lease = await run("why", "lease", "shown");
    const sentences = new RegExp(
      `^process ${holder.pid} \\(the holder\\) holds lease shown for .*\\.\nprocess ${waiter.pid} \\(the waiter\\) waits for it for .*\\.\n$`,
    );
    expect(lease.stdout).toMatch(sentences);
    expect((await run("why", "shown")).stdout).toMatch(sentences);
    const one = await run("why", String(waiter.pid));
    expect(one.stdout).toMatch(
      new RegExp(
        `^process ${waiter.pid} \\(the waiter\\) waits for lease shown, held by process ${holder.pid} \\(the holder\\), for .*\\.\n$`,
      ),
    );
    const tree = await run("graph", "--pid", String(holder.pid));
    expect(tree.stdout).toMatch(
      new RegExp(
        `^lease shown\n├─ held by process ${holder.pid} \\(the holder\\) for .*\n├─ wanted by process ${waiter.pid} \\(the waiter\\) for .*\n$`,
      ),
    );
    const dot = await run("graph", "--dot");
    expect(dot.stdout).toMatch(/^digraph pawl \{\n/);
    expect(dot.stdout).toContain('"lease:shown" -> ');
    const json = JSON.parse((await run("graph", "--json")).stdout);
    expect(json.nodes).toContainEqual({ id: "lease:shown", kind: "lease", name: "shown" });
    expect((await run("why", "path", "none/")).stdout).toBe(
      "Nobody holds path none/, and nobody waits for it. Other patterns may cover it: see pawl paths.\n",
    );
    expect((await run("why", "none", "thing")).code).toBe(2);
    // The second cannot be that of an item.
    for (const name of ["nothing", "no item/and no queue"]) {
      const { code, stdout, stderr } = await run("why", name);
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toBe(
        `pawl: There is no queue and no item "${name}", and nobody holds a lease or a path of that name, ` +
          "or waits for one. " +
          "See pawl queues, leases, paths or board, or say what it is: " +
          "pawl why lease|queue|command|path|item NAME. [not_found]\n",
      );
    }
    expect((await run("why", "lease", "shown", "--root", "/")).code).toBe(2);
  });

  test("why path says who has reserved a path by whatever pattern, and who waits for that", async () => {
    const { socket } = daemon().place;
    const root = privateDirectory();
    const run = (...args: string[]) => runPawl(["why", "path", ...args, "--root", root], { socket });
    const [holder, waiter] = [new Process(socket), new Process(socket)];
    await holder.has({ root, patterns: ["src/cart/", "docs/"], owner: "the holder" });
    await waiter.waits({ root, patterns: ["src/**"], owner: "the waiter" });
    const both = new RegExp(
      `^process ${holder.pid} \\(the holder\\) holds path src/cart/ in ${root} for .*\\.\nprocess ${waiter.pid} \\(the waiter\\) waits for it for .*\\.\n$`,
    );
    for (const path of ["src/cart/x.ts", join(root, "src/cart/x.ts"), "src/cart/"]) {
      expect((await run(path)).stdout).toMatch(both);
    }
    expect((await runPawl(["why", "src/cart/"], { socket })).stdout).toMatch(both);
    expect((await run("docs/a.md")).stdout).toMatch(/holds path docs\/ .*\nNobody waits for it\.\n$/);
    expect((await run("src/other.ts")).stdout).toBe(
      `Nobody holds path src/other.ts in ${root}, and nobody waits for it.\n`,
    );
    expect((await run("../out")).stderr).toMatch(/^pawl: path, "\.\.\/out", has \.\./);
    const { holders, nodes } = JSON.parse((await run("src/cart/x.ts", "--json")).stdout);
    expect(holders).toMatchObject([{ owner: "the holder", pattern: "src/cart/", pid: holder.pid }]);
    expect(nodes).toMatchObject([{ kind: "path", root, pattern: "src/cart/" }]);
  });

  test("why command says that nobody serves its deployment, and whom it is for", async () => {
    const { socket } = daemon().place;
    const run = (...args: string[]) => runPawl(args, { socket });
    const id = (await run("send", "unserved", "build", "{}")).stdout.trim();
    const said = `command ${id} to unserved is PENDING.\nNobody serves the deployment unserved now.\n`;
    expect((await run("why", "command", id)).stdout).toBe(said);
    expect((await run("why", id)).stdout).toBe(said);
    const alone = { deployment: "unserved", command: "build", params: {}, incarnation: "third" };
    const sent = JSON.parse((await run("call", "command.create", JSON.stringify(alone), "--json")).stdout);
    const { commandId } = sent.command ?? sent;
    expect((await run("why", commandId)).stdout).toContain("It is for the receiver third alone.\n");
    await run("call", "command.cancel", JSON.stringify({ commandId: id }));
    expect((await run("why", id)).stdout).toMatch(
      new RegExp(`^command ${id} to unserved is FAILED\\.\nIt ended with CANCELLED: `),
    );
  });
});

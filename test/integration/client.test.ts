import { getEventListeners } from "node:events";
import { join } from "node:path";
import { inspect } from "node:util";
import { ConnectionLost, connect, PawlError } from "@pawl/client";
import { describe, expect, onTestFinished, test } from "vitest";
import { startProgram } from "../client-process.js";
import { privateDirectory, REPOSITORY, sharedDaemon, startDaemon } from "../daemon.js";
import { fakeDaemon } from "../fake-daemon.js";

const daemon = sharedDaemon();

async function client(options: { socket?: string; reconnectMs?: number } = {}) {
  const connected = await connect({ socket: daemon().place.socket, ...options });
  onTestFinished(() => connected.close());
  return connected;
}

/** The error that a call rejects with. */
async function rejection(promise: Promise<unknown>): Promise<Error & { [detail: string]: unknown }> {
  try {
    await promise;
  } catch (error) {
    return error as Error & { [detail: string]: unknown };
  }
  throw new Error("the call was not rejected");
}

describe("calls", () => {
  test("have their result, by group and by name", async () => {
    const pawl = await client();
    const { seq } = await pawl.sequence.next({ type: "CALL" });
    expect(await pawl.call("sequence.next", { type: "call" })).toEqual({
      type: "CALL",
      seq: seq + 1,
      id: `CALL-${String(seq + 1).padStart(3, "0")}`,
    });
    expect((await pawl.daemon.info()).pid).toBe(daemon().pid);
    expect((await pawl.rpc.discover()).openrpc).toMatch(/^1\./);
  });

  test("are rejected with what the daemon refuses", async () => {
    const pawl = await client();
    const refused = await rejection(pawl.sequence.next({ type: "F-R" }));
    expect(refused).toBeInstanceOf(PawlError);
    expect(refused).toMatchObject({ kind: "invalid_params", code: -32602, retryable: false });
    expect(refused.details).toMatchObject({ issues: [{ path: expect.stringContaining("type") }] });

    const unknown = await rejection(pawl.call("sequence.nxt", {}));
    expect(unknown).toMatchObject({ kind: "method_not_found", details: { closest: "sequence.next" } });
  });

  test("of one client take effect in the order they were made", async () => {
    const pawl = await client();
    const numbers = await Promise.all(
      Array.from({ length: 5000 }, async () => (await pawl.sequence.next({ type: "ORDER" })).seq),
    );
    expect(numbers).toEqual(Array.from({ length: 5000 }, (_, index) => index + 1));
  });

  test("with params that are no JSON are refused before they are sent, and harm no other", async () => {
    const pawl = await client();
    const good = pawl.sequence.next({ type: "JSON" });
    const refused = await rejection(pawl.call("sequence.next", { type: "JSON", extra: 1n }));
    expect(refused).toMatchObject({ kind: "invalid_params" });
    expect((await good).seq).toBe(1);
    expect((await pawl.sequence.next({ type: "JSON" })).seq).toBe(2);
  });

  test("too long for the daemon are refused, also if they could be repeated, and harm no other", async () => {
    const pawl = await client();
    const answers = await Promise.allSettled([
      pawl.sequence.next({ type: "LONG" }),
      pawl.call("sequence.peek", { type: "x".repeat(2_000_000) }),
      pawl.sequence.next({ type: "LONG" }),
      pawl.call("sequence.next", { type: "x".repeat(1_500_000) }),
      pawl.sequence.next({ type: "LONG" }),
    ]);
    expect(answers).toMatchObject([
      { status: "fulfilled", value: { seq: 1 } },
      { status: "rejected", reason: { kind: "message_too_large" } },
      { status: "fulfilled", value: { seq: 2 } },
      { status: "rejected", reason: { kind: "message_too_large" } },
      { status: "fulfilled", value: { seq: 3 } },
    ]);
  });
});

describe("a client", () => {
  test("is neither a promise nor a trap for those who look into it", async () => {
    const pawl = await client();
    expect(await pawl).toBe(pawl);
    expect(await pawl.sequence).toBe(pawl.sequence);
    expect(pawl.sequence.next).toBe(pawl.sequence.next);
    expect(inspect(pawl)).toContain("socketPath");
    expect(String(pawl.sequence)).toBe("[object Object]");
  });

  test("is rejected at connecting when nobody listens", async () => {
    const socket = join(privateDirectory(), "none.sock");
    const error = await rejection(connect({ socket }));
    expect(error).toBeInstanceOf(ConnectionLost);
    expect(error.message).toBe(
      `No daemon listens on ${socket}. Start one with pawld, or with npm start in ${REPOSITORY}.`,
    );
    expect(error.mayHaveTakenEffect).toBe(false);
  });

  test("is refused options that cannot be right, by name", async () => {
    expect(await rejection(connect({ socket: `/tmp/${"x".repeat(120)}` }))).toMatchObject({
      kind: "invalid_params",
      message: expect.stringContaining("at most 107"),
    });
    expect(await rejection(connect({ instance: "a/b" }))).toMatchObject({ kind: "invalid_params" });
    expect(await rejection(connect({ reconnectMs: Number.NaN }))).toMatchObject({ kind: "invalid_params" });
  });

  test("finds its daemon by the rule of the daemon, the instance also from the environment", async () => {
    const directory = privateDirectory();
    const program = startProgram(
      "print([library.defaultSocketPath(), library.defaultSocketPath('other')]);",
      [],
      {
        env: { XDG_RUNTIME_DIR: directory, PAWL_INSTANCE: "ci" },
      },
    );
    expect(await program.line(0)).toEqual([
      join(directory, "pawl/ci.sock"),
      join(directory, "pawl/other.sock"),
    ]);
  });

  test("connects when the kernel's queue of a busy daemon is full at first", async () => {
    const socket = join(privateDirectory(), "busy.sock");
    // Takes nothing up and queues one or two.
    const stuck = startProgram(
      `import { createServer } from "node:net";
       const server = createServer();
       server.listen({ path: args[0], backlog: 1 }, () => { print("listening"); process.kill(process.pid, "SIGSTOP"); });`,
      [socket],
    );
    await stuck.line(0);
    const connecting = Array.from({ length: 10 }, () => client({ socket }));
    const early = await Promise.race([
      Promise.all(connecting).then(() => "all"),
      new Promise((resolve) => setTimeout(resolve, 100, "some wait")),
    ]);
    expect(early).toBe("some wait");
    stuck.child.kill("SIGCONT");
    await Promise.all(connecting);
  });
});

describe("a signal", () => {
  test("that is aborted already keeps a call from being sent", async () => {
    const fake = await fakeDaemon({ onMessage: ({ id }, send) => send({ jsonrpc: "2.0", id, result: {} }) });
    const pawl = await client({ socket: fake.socket });
    const reason = new Error("enough");
    await expect(pawl.daemon.ping({}, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);

    // The same moment is early enough.
    const controller = new AbortController();
    const call = pawl.sequence.next({ type: "FR" }, { signal: controller.signal });
    controller.abort(reason);
    await expect(call).rejects.toBe(reason);

    await pawl.daemon.ping();
    expect(fake.received.map(({ method }) => method)).toEqual(["daemon.ping"]);
  });

  test("gives up a call that waits, and nothing of the call stays behind", async () => {
    const fake = await fakeDaemon({});
    const pawl = await client({ socket: fake.socket });
    const controller = new AbortController();
    const call = pawl.sequence.next({ type: "FR" }, { signal: controller.signal });
    await fake.message(({ method }) => method === "sequence.next");
    controller.abort();
    await expect(call).rejects.toMatchObject({ name: "AbortError" });
    expect(getEventListeners(controller.signal, "abort")).toEqual([]);
  });

  test("is left alone after the call", async () => {
    const pawl = await client();
    const { signal } = new AbortController();
    await Promise.all(Array.from({ length: 100 }, () => pawl.daemon.ping({}, { signal })));
    await rejection(pawl.call("no.method", {}, { signal }));
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  test("that comes too late gives back what was granted to nobody", async () => {
    const grants: Record<string, unknown> = {
      "queue.claim": { claim: { claimId: "qwc:1:1", leaseToken: "token" } },
      "lease.acquire": { lease: { leaseId: "lease" } },
      "command.lease": { leases: [{ leaseId: "first" }, { leaseId: "second" }] },
    };
    const asked: (() => void)[] = [];
    const fake = await fakeDaemon({
      onMessage: ({ id, method = "" }, send) => {
        const answer = () => send({ jsonrpc: "2.0", id, result: grants[method] ?? {} });
        if (method in grants) asked.push(answer);
        else answer();
      },
    });
    const pawl = await client({ socket: fake.socket });
    const controller = new AbortController();
    const { signal } = controller;
    const calls = Object.keys(grants).map((method) =>
      rejection(pawl.call(method, { waitMs: 1000 }, { signal })),
    );
    await fake.message(({ method }) => method === "command.lease");
    controller.abort();
    await Promise.all(calls);
    for (const grant of asked) grant();
    await fake.message(({ params }) => params?.leaseId === "second");
    expect(fake.received.slice(3).map(({ method, params }) => [method, params])).toEqual([
      ["rpc.cancel", { id: 1 }],
      ["rpc.cancel", { id: 2 }],
      ["rpc.cancel", { id: 3 }],
      ["queue.abandon", { claimId: "qwc:1:1", leaseToken: "token" }],
      ["lease.release", { leaseId: "lease" }],
      ["command.release", { leaseId: "first", delayMs: 0 }],
      ["command.release", { leaseId: "second", delayMs: 0 }],
    ]);
  });
});

describe("closing", () => {
  test("rejects what is unanswered and everything later", async () => {
    const fake = await fakeDaemon({});
    const pawl = await client({ socket: fake.socket });
    const call = rejection(pawl.daemon.ping());
    await fake.message(({ method }) => method === "daemon.ping");
    pawl.close();
    pawl.close();
    expect(await call).toMatchObject({
      name: "ConnectionLost",
      method: "daemon.ping",
      mayHaveTakenEffect: true,
    });
    expect(await rejection(pawl.daemon.ping())).toMatchObject({
      name: "ConnectionLost",
      message: "The client is closed.",
      mayHaveTakenEffect: false,
    });
  });

  test("lets the process end, also while connected, connecting again, or pausing between attempts", async () => {
    const own = await startDaemon();
    const program = startProgram(
      `const idle = await connect({ socket: args[0] });
       await idle.daemon.ping();
       await idle[Symbol.asyncDispose]();
       const pawl = await connect({ socket: args[0] });
       print("connected");
       await new Promise((resolve) => process.stdin.once("data", resolve));
       process.stdin.pause();
       const waiting = pawl.daemon.ping().catch((error) => error.message);
       setTimeout(async () => { pawl.close(); print(await waiting); print(process.uptime()); }, 700);
       process.on("exit", () => print(process.uptime()));`,
      [own.place.socket],
    );
    await program.line(0);
    await own.end("SIGKILL");
    program.tell("go on");
    expect(await program.line(1)).toBe("The client was closed before the answer came.");
    const closedAt = await program.line<number>(2);
    expect(await program.exited).toBe(0);
    expect((await program.line<number>(3)) - closedAt).toBeLessThan(0.25);
  });
});

describe("servers that are no daemon", () => {
  const speakers: [string, string | Buffer, string][] = [
    ["HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", "it sent what is not JSON"],
    ["null", "null\n", "it sent what is not JSON-RPC"],
    ["text", '"hello"\n', "it sent what is not JSON-RPC"],
    ["an empty object", "{}\n", "it sent what is not JSON-RPC"],
    ["a nested batch", '[[{"id":1}]]\n', "it sent what is not JSON-RPC"],
    ["nothing but depth", `${"[".repeat(100_000)}${"]".repeat(100_000)}\n`, "it sent what is not JSON-RPC"],
    [
      "Latin-1",
      Buffer.from('{"jsonrpc":"2.0","id":1,"result":"\xe9"}\n', "latin1"),
      "it sent what is not UTF-8",
    ],
    [
      "an error about no request",
      '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"What?"}}\n',
      "it answered no request of ours: What? (code -32700)",
    ],
  ];

  test.each(speakers)("speaks %s: calls are rejected and say so", async (_name, words, reason) => {
    const fake = await fakeDaemon({
      onMessage: (_message, _send, connection) => void connection.write(words),
    });
    const pawl = await client({ socket: fake.socket, reconnectMs: 200 });
    const message = `What answers on ${fake.socket} is no pawld: ${reason}.`;
    expect(await rejection(pawl.sequence.next({ type: "FR" }))).toMatchObject({
      name: "ConnectionLost",
      message,
    });
    expect(await rejection(pawl.daemon.ping())).toMatchObject({ name: "ConnectionLost" });
  });

  test("closes each connection: what may be repeated is not repeated without pause or end", async () => {
    const fake = await fakeDaemon({ onMessage: (_message, _send, connection) => void connection.destroy() });
    const pawl = await client({ socket: fake.socket, reconnectMs: 1000 });
    const before = performance.now();
    expect(await rejection(pawl.daemon.ping())).toMatchObject({
      name: "ConnectionLost",
      method: "daemon.ping",
      mayHaveTakenEffect: true,
    });
    const took = performance.now() - before;
    expect(took).toBeGreaterThan(900);
    expect(took).toBeLessThan(2500);
    expect(fake.connections.length).toBeLessThan(15);
  });

  test("answers what nobody asked, errors that are none, and ids of others: the rest is served", async () => {
    const fake = await fakeDaemon({
      onMessage: ({ id, method }, send) => {
        send({ jsonrpc: "2.0", id: 4711, result: {} });
        send({ jsonrpc: "2.0", id: "x", error: { code: 1, message: "?" } });
        send([]);
        send({ jsonrpc: "2.0", method: "no.such.notification" });
        if (method === "daemon.info") send({ jsonrpc: "2.0", id, error: "broken" });
        else if (method === "daemon.stats")
          send({ jsonrpc: "2.0", id, error: { code: -1, message: "No", data: "x" } });
        else send([{ jsonrpc: "2.0", id, result: { now: 1 } }]);
      },
    });
    const pawl = await client({ socket: fake.socket });
    expect(await pawl.daemon.ping()).toEqual({ now: 1 });
    expect(await rejection(pawl.daemon.info())).toMatchObject({ kind: "internal" });
    expect(await rejection(pawl.daemon.stats())).toMatchObject({ kind: "internal", message: "No (code -1)" });
  });

  test("is newer than the client: a kind of error not known here keeps its name", async () => {
    const fake = await fakeDaemon({
      onMessage: ({ id }, send) =>
        send({
          jsonrpc: "2.0",
          id,
          error: { code: -32099, message: "No.", data: { kind: "brand_new", retryable: false, why: 1 } },
        }),
    });
    const pawl = await client({ socket: fake.socket });
    expect(await rejection(pawl.daemon.ping())).toMatchObject({
      kind: "internal",
      message: "No. (brand_new -32099)",
      details: { kind: "brand_new", code: -32099, why: 1 },
    });
  });
});

describe("messages that the daemon sends by itself", () => {
  test("reaches those who listen, for as long as they do", async () => {
    const fake = await fakeDaemon({
      onMessage: ({ id }, send) => {
        send({ jsonrpc: "2.0", method: "lease.lost", params: { name: `n${id}` } });
        send({ jsonrpc: "2.0", id, result: {} });
      },
    });
    const pawl = await client({ socket: fake.socket });
    const heard: unknown[] = [];
    const listener = ({ name }: Record<string, unknown>): void => void heard.push(name);
    const stop = pawl.on("lease.lost", listener);
    pawl.on("lease.lost", listener);
    await pawl.daemon.ping();
    expect(heard).toEqual(["n1", "n1"]);
    stop();
    stop();
    await pawl.daemon.ping();
    expect(heard).toEqual(["n1", "n1", "n2"]);
  });

  test("as a request that nobody serves is refused", async () => {
    const fake = await fakeDaemon({
      onConnection: (connection) =>
        void connection.write('{"jsonrpc":"2.0","id":"e1","method":"command.execute","params":{}}\n'),
    });
    await client({ socket: fake.socket });
    const answer = await fake.message(({ error }) => error !== undefined);
    expect(answer).toMatchObject({ id: "e1", error: { code: -32601, data: { kind: "method_not_found" } } });
  });
});

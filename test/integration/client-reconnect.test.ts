import { setTimeout as delay } from "node:timers/promises";
import { ConnectionLost, connect, type PawlClient, PawlError } from "@pawl/client";
import { describe, expect, onTestFinished, test } from "vitest";
import { Place, startDaemon } from "../daemon.js";
import { fakeDaemon } from "../fake-daemon.js";
import { sized } from "../long-form.js";

/** With PAWL_TORTURE=1 a daemon under load ends ten times as often. */
const FACTOR = sized(10, 1);
const UNDER_LOAD_MS = 120_000 * FACTOR;

async function client(socket: string, reconnectMs?: number): Promise<PawlClient> {
  const connected = await connect({ socket, ...(reconnectMs === undefined ? {} : { reconnectMs }) });
  onTestFinished(() => connected.close());
  return connected;
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(
    (result) => {
      throw new Error(`not rejected, but ${JSON.stringify(result)}`);
    },
    (error) => error,
  );
}

/** Callers that do not stop until told, each with one call at a time, and what they were told. */
class Load {
  readonly numbers: number[] = [];
  readonly byRequestId = new Map<string, number>();
  readonly lost: ConnectionLost[] = [];
  readonly failed: unknown[] = [];
  /** How many calls that may be repeated were answered, by client. */
  readonly repeated: number[];
  #running = true;
  readonly #callers: Promise<void>[] = [];

  constructor(clients: readonly PawlClient[]) {
    this.repeated = clients.map(() => 0);
    const answered = (client: number): void => {
      this.repeated[client] = (this.repeated[client] ?? 0) + 1;
    };
    for (const [index, pawl] of clients.entries()) {
      this.#callers.push(
        this.#caller(() =>
          pawl.sequence.next({ type: "LOAD" }).then(({ seq }) => void this.numbers.push(seq)),
        ),
        this.#caller(async (round) => {
          const requestId = `${index}-${round}`;
          const { seq } = await pawl.sequence.next({ type: "SAFE", requestId });
          this.byRequestId.set(requestId, seq);
          answered(index);
        }),
        this.#caller(async (round) => {
          await pawl.sequence.advance({ type: "RAISED", to: round + 1 });
          await pawl.sequence.peek({ type: "RAISED" });
          await pawl.sequence.state();
          answered(index);
        }),
      );
    }
  }

  /** Resolves when every client has been answered once more. */
  async goesOn(): Promise<void> {
    const before = [...this.repeated];
    while (this.repeated.some((count, client) => count === before[client])) await delay(5);
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#callers);
  }

  async #caller(call: (round: number) => Promise<void>): Promise<void> {
    for (let round = 0; this.#running; round++) {
      try {
        await call(round);
      } catch (error) {
        if (error instanceof ConnectionLost && error.method === "sequence.next") this.lost.push(error);
        else this.failed.push(error);
      }
    }
  }
}

async function clientsOf(place: Place, count: number): Promise<PawlClient[]> {
  return await Promise.all(Array.from({ length: count }, () => client(place.socket)));
}

test(
  "a daemon that is killed or stopped under load, again and again: nothing repeatable fails, and no number is given twice",
  async () => {
    const place = new Place();
    let daemon = await place.start();
    const load = new Load(await clientsOf(place, 8));
    for (let round = 0; round < 3 * FACTOR; round++) {
      for (const [signal, ended] of [
        ["SIGKILL", "SIGKILL"],
        ["SIGTERM", 0],
      ] as const) {
        await delay(20 + Math.random() * 150);
        expect(await daemon.end(signal)).toBe(ended);
        daemon = await place.start();
        await load.goesOn();
      }
    }
    await load.stop();

    expect(load.failed).toEqual([]);
    expect(new Set(load.numbers).size).toBe(load.numbers.length);
    expect(new Set(load.byRequestId.values()).size).toBe(load.byRequestId.size);
    for (const error of load.lost) expect(error.mayHaveTakenEffect).toBe(true);

    // Every number was answered, or belongs to a call that was rejected as lost.
    const { sequences } = await (await client(place.socket)).sequence.state();
    expect(sequences.SAFE).toBe(load.byRequestId.size);
    const gaps = (sequences.LOAD ?? 0) - load.numbers.length;
    expect(gaps).toBeGreaterThanOrEqual(0);
    expect(gaps).toBeLessThanOrEqual(load.lost.length);
  },
  UNDER_LOAD_MS,
);

describe("a daemon that is killed", () => {
  test("while nobody calls: the next call finds the next daemon", async () => {
    const place = new Place();
    const first = await place.start();
    const pawl = await client(place.socket);
    expect((await pawl.sequence.next({ type: "FR" })).seq).toBe(1);
    await first.end("SIGKILL");
    const call = pawl.sequence.next({ type: "FR" });
    const second = await place.start();
    expect((await call).seq).toBe(2);
    expect((await pawl.daemon.info()).pid).toBe(second.pid);
  });

  test("calls made meanwhile are performed in their order", async () => {
    const place = new Place();
    const first = await place.start();
    const pawl = await client(place.socket);
    await pawl.daemon.ping();
    await first.end("SIGKILL");
    const calls = Array.from({ length: 500 }, () => pawl.sequence.next({ type: "FR" }));
    await place.start();
    const numbers = (await Promise.all(calls)).map(({ seq }) => seq);
    expect(numbers).toEqual(Array.from({ length: 500 }, (_, index) => index + 1));
  });

  test("for longer than calls wait: they are rejected, and later ones try anew", async () => {
    const place = new Place();
    const first = await place.start();
    const pawl = await client(place.socket, 300);
    await first.end("SIGKILL");
    const before = performance.now();
    const error = await rejection(pawl.sequence.next({ type: "FR" }));
    const took = performance.now() - before;
    expect(error).toBeInstanceOf(ConnectionLost);
    expect(error).toMatchObject({
      message: `No daemon answers on ${place.socket}.`,
      method: "sequence.next",
      mayHaveTakenEffect: false,
      cause: { code: "ECONNREFUSED" },
    });
    expect(took).toBeGreaterThanOrEqual(290);
    expect(took).toBeLessThan(1500);

    await place.start();
    expect((await pawl.sequence.next({ type: "FR" })).seq).toBe(1);
  });

  test("not waited for at all when told so", async () => {
    const place = new Place();
    const first = await place.start();
    const pawl = await client(place.socket, 0);
    await first.end("SIGKILL");
    expect(await rejection(pawl.daemon.ping())).toBeInstanceOf(ConnectionLost);
    await place.start();
    expect(await pawl.daemon.ping()).toHaveProperty("now");
  });
});

describe("a daemon that is stopped", () => {
  test("with hundreds of calls on their way: what it refused is sent to the next one, in order", async () => {
    const place = new Place();
    const first = await place.start();
    const pawl = await client(place.socket);
    const calls = Array.from({ length: 3000 }, () => pawl.sequence.next({ type: "FR" }));
    await calls[0];
    await first.end("SIGTERM");
    await place.start();
    const answers = await Promise.allSettled(calls);
    const numbers = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value.seq] : []));
    const lost = answers.flatMap((answer) => (answer.status === "rejected" ? [answer.reason] : []));
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
    for (const error of lost) expect(error).toBeInstanceOf(ConnectionLost);
  });
});

describe("answers that a daemon gave before it closed", () => {
  test("that it is stopping: nothing unanswered was performed, so all of it is sent again", async () => {
    const fake = await fakeDaemon({
      onMessage: ({ id, params }, send, connection) => {
        if (fake.connections.indexOf(connection) > 0) {
          send({ jsonrpc: "2.0", id, result: { type: params?.type, seq: 1, id: "" } });
        } else if (params?.type === "THREE") {
          send({
            jsonrpc: "2.0",
            id: 1,
            error: { code: -32000, message: "Stopping.", data: { kind: "unavailable", reason: "stopping" } },
          });
          connection.end();
        }
      },
    });
    const pawl = await client(fake.socket);
    const calls = ["ONE", "TWO", "THREE"].map((type) => pawl.sequence.next({ type }));
    expect((await Promise.all(calls)).map(({ type }) => type)).toEqual(["ONE", "TWO", "THREE"]);
  });

  test("that it is stopping, but its last line is cut off: what is unanswered may have been performed", async () => {
    const fake = await fakeDaemon({
      onMessage: ({ params }, send, connection) => {
        if (params?.type !== "TWO") return;
        send({
          jsonrpc: "2.0",
          id: 1,
          error: { code: -32000, message: "Stopping.", data: { kind: "unavailable", reason: "stopping" } },
        });
        connection.end('{"jsonrpc":"2.0","id":2,"resu');
      },
    });
    const pawl = await client(fake.socket, 200);
    const one = rejection(pawl.sequence.next({ type: "ONE" }));
    const two = rejection(pawl.sequence.next({ type: "TWO" }));
    expect(await two).toMatchObject({ name: "ConnectionLost", mayHaveTakenEffect: true });
    pawl.close();
    expect(await one).toMatchObject({ name: "ConnectionLost", mayHaveTakenEffect: false });
  });

  test("that storage failed: the caller is told", async () => {
    const fake = await fakeDaemon({
      onMessage: ({ id }, send) =>
        send({
          jsonrpc: "2.0",
          id,
          error: { code: -32000, message: "Full.", data: { kind: "unavailable", reason: "disk_full" } },
        }),
    });
    const pawl = await client(fake.socket);
    const error = await rejection(pawl.sequence.next({ type: "FR" }));
    expect(error).toBeInstanceOf(PawlError);
    expect(error).toMatchObject({ kind: "unavailable", retryable: true });
  });
});

test("a call that waits has waited already when it is sent again", async () => {
  const fake = await fakeDaemon({
    onMessage: ({ id }, send, connection) => {
      if (fake.connections.indexOf(connection) > 0) send({ jsonrpc: "2.0", id, result: {} });
    },
  });
  const pawl = await client(fake.socket);
  const call = pawl.call("command.wait", { commandId: "cmd_1", waitMs: 5000 });
  await fake.message(({ method }) => method === "command.wait");
  await delay(300);
  fake.connections[0]?.destroy();
  await call;
  expect(fake.received).toHaveLength(2);
  expect(fake.received[0]?.params?.waitMs).toBe(5000);
  expect(fake.received[1]?.params).toMatchObject({ commandId: "cmd_1" });
  expect(fake.received[1]?.params?.waitMs).toBeLessThanOrEqual(4700);
  expect(fake.received[1]?.params?.waitMs).toBeGreaterThan(3000);
});

test("a daemon that closes connections unread has performed nothing: what was sent is sent again", async () => {
  const fake = await fakeDaemon({
    // As a process does that has no descriptors left.
    onConnection: (connection, index) => {
      if (index < 4) connection.destroy();
    },
    onMessage: ({ id }, send) => send({ jsonrpc: "2.0", id, result: { released: 1, dead: 0 } }),
  });
  const pawl = await client(fake.socket);
  const params = { claimId: "qwc:1:1", leaseToken: "t" };
  expect(await pawl.queue.abandon(params)).toEqual({ released: 1, dead: 0 });
  expect(fake.received).toHaveLength(1);
});

test("a call whose answer takes longer than timeoutMs is rejected; one that waits has its wait besides", async () => {
  const fake = await fakeDaemon({
    onMessage: ({ id, params }, send) => {
      if (params?.waitMs !== undefined) setTimeout(send, 300, { jsonrpc: "2.0", id, result: { late: true } });
    },
  });
  const pawl = await connect({ socket: fake.socket, timeoutMs: 200 });
  onTestFinished(() => pawl.close());
  const waiting = pawl.call("command.wait", { commandId: "c", waitMs: 60_000 });
  const error = await rejection(pawl.queue.abandon({ claimId: "qwc:1:1", leaseToken: "t" }));
  expect(error).toMatchObject({
    name: "ConnectionLost",
    method: "queue.abandon",
    mayHaveTakenEffect: true,
    message: `The daemon on ${fake.socket} has not answered queue.abandon within 0.2 s: it is stopped or busy; it may have taken effect.`,
  });
  expect(await waiting).toEqual({ late: true });
});

test("a call that was given up is not sent to the next daemon", async () => {
  const daemon = await startDaemon();
  const { place } = daemon;
  const pawl = await client(place.socket);
  await pawl.daemon.ping();
  await daemon.end("SIGKILL");
  const controller = new AbortController();
  const call = rejection(pawl.sequence.next({ type: "FR" }, { signal: controller.signal }));
  controller.abort();
  expect(await call).toMatchObject({ name: "AbortError" });
  await place.start();
  expect(await pawl.sequence.peek({ type: "FR" })).toMatchObject({ seq: 1 });
});

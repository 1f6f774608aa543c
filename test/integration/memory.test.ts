// Memory that clients have the daemon hold is bounded, for each of them and for all, and is given back: what is
// resident of the process stays below 400 MB and comes back below 120 MB (spec: wire.md, Transport).
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import {
  MAX_BATCH_PAYLOADS,
  MAX_CONNECTION_WAITS_BYTES,
  MAX_WAITS_BYTES,
  MAX_WAITS_PER_CONNECTION,
} from "@pawl/protocol/limits";
import { describe, expect, onTestFinished, test } from "vitest";
import { type DaemonProcess, NAMES_ARE_SHARED, type StartOptions, startDaemon } from "../daemon.js";
import { sized, TORTURE } from "../long-form.js";
import { RawClient, type RawReply } from "../raw-client.js";
import { expectRefusedReply } from "../refusal.js";

const MB = 1_000_000;
const HIGHEST_BYTES = 400 * MB;
/** What speaks to PostgreSQL takes 10 MB by itself. */
const CALM_BYTES = (NAMES_ARE_SHARED ? 130 : 120) * MB;
const CALM_WITHIN_MS = 60_000;
const ANSWER_BYTES = 900_000;
const LONG_MS = 240_000;

/** A daemon, a client of it that is polite, and many that are not. */
class Crowd {
  readonly daemon: DaemonProcess;
  readonly polite: RawClient;
  readonly sockets: Socket[] = [];

  constructor(daemon: DaemonProcess, polite: RawClient) {
    this.daemon = daemon;
    this.polite = polite;
    onTestFinished(() => this.leave());
  }

  static async gather(options: StartOptions = {}): Promise<Crowd> {
    const daemon = await startDaemon(options);
    return new Crowd(daemon, await daemon.place.connect());
  }

  /** Connections that read nothing until they are told to. */
  async join(count: number): Promise<Socket[]> {
    for (let i = 0; i < count; i += 1) {
      const socket = connect({ path: this.daemon.place.socket, allowHalfOpen: true });
      socket.pause();
      socket.on("error", () => {});
      this.sockets.push(socket);
      await once(socket, "connect");
    }
    return this.sockets.slice(-count);
  }

  leave(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  async stats() {
    return (await this.polite.call("daemon.stats", {})).connections;
  }

  /** Resolves once the gauges of connections are as wanted. */
  async until(isSo: (connections: Awaited<ReturnType<Crowd["stats"]>>) => boolean): Promise<void> {
    while (!isSo(await this.stats())) await pause(20);
  }

  /** Resolves once no more requests of a method are taken up, and no more answers are made. */
  async quiet(method: string): Promise<void> {
    let before = "";
    for (let times = 0; times < 20; times += 1) {
      const { requests, connections } = await this.polite.call("daemon.stats", {});
      const now = `${requests[method] ?? 0} ${connections.unsentBytes}`;
      if (now !== before) times = 0;
      before = now;
      await pause(10);
    }
  }

  /** A request whose answer has 900,000 bytes. */
  async longRequest(): Promise<string> {
    const { batch } = await this.polite.call("queue.enqueue", {
      queue: "q",
      payloads: ["x".repeat(ANSWER_BYTES)],
    });
    const params = { batchId: batch.batchId };
    return `${JSON.stringify({ jsonrpc: "2.0", id: "long", method: "queue.get", params })}\n`;
  }

  /** Memory was bounded all the time, and comes back once all have left. */
  async expectSmall(): Promise<void> {
    expect(this.daemon.peakResidentBytes).toBeLessThan(HIGHEST_BYTES);
    this.leave();
    const end = performance.now() + CALM_WITHIN_MS;
    while (this.daemon.residentBytes >= CALM_BYTES && performance.now() < end) await pause(100);
    expect(this.daemon.residentBytes).toBeLessThan(CALM_BYTES);
    // Lines of connections that have closed are still taken up, without an answer.
    await this.until(({ open, unreadBytes }) => open === 1 && unreadBytes === 0);
    expect(await this.stats()).toMatchObject({ unsentBytes: 0, unreadBytes: 0, waitingBytes: 0 });
    expect(await this.daemon.end()).toBe(0);
  }
}

test(
  "40 connections that do not read 8 answers of 0.9 MB each are held to 128 MiB, and go on when they read",
  async () => {
    const crowd = await Crowd.gather();
    const request = await crowd.longRequest();
    const sockets = await crowd.join(40);
    for (const socket of sockets) socket.write(request.repeat(8));
    await crowd.quiet("queue.get");
    const { unsentBytes, overloads } = await crowd.stats();
    expect(overloads).toBe(0);
    expect(unsentBytes).toBeGreaterThan(100 * MB);
    // Those that were taken up first have more than an equal share, and the others come to one each: at half as much
    // again nothing is made any more, of 288 MB that they ask for.
    expect(unsentBytes).toBeLessThan(1.5 * 128 * 1024 * 1024 + ANSWER_BYTES);

    for (const socket of sockets) {
      const reader = new RawClient(socket);
      socket.resume();
      for (let i = 0; i < 8; i += 1) expect((await reader.line()).length).toBeGreaterThan(ANSWER_BYTES);
    }
    await crowd.expectSmall();
  },
  LONG_MS,
);

test(
  "300 connections that never read are closed before they take all memory, and others are served",
  async () => {
    const crowd = await Crowd.gather();
    const request = await crowd.longRequest();
    for (const socket of await crowd.join(300)) socket.write(request.repeat(10));
    await crowd.until(({ overloads }) => overloads > 0);
    const reader = await crowd.daemon.place.connect();
    reader.write(request.repeat(10));
    for (let i = 0; i < 10; i += 1) expect((await reader.line()).length).toBeGreaterThan(ANSWER_BYTES);
    expect((await crowd.polite.call("sequence.next", { type: "FR" })).seq).toBe(1);
    await reader.destroy();
    expect(
      crowd.daemon.log.find(({ msg }) => msg === "closed a connection, since memory runs out"),
    ).toMatchObject({
      level: "warn",
      reason: "its peer reads nothing",
    });
    await crowd.expectSmall();
  },
  LONG_MS,
);

test(
  "--max-unsent-bytes bounds what all leave unread; whoever has none of it is answered",
  async () => {
    const bound = 8 * 1024 * 1024;
    const crowd = await Crowd.gather({ args: ["--max-unsent-bytes", String(bound)] });
    const request = await crowd.longRequest();
    for (const socket of await crowd.join(3)) socket.write(request.repeat(6));
    await crowd.quiet("queue.get");
    const { unsentBytes } = await crowd.stats();
    expect(unsentBytes).toBeGreaterThanOrEqual(bound);
    expect(unsentBytes).toBeLessThan(bound + 3 * MB);
    const reader = await crowd.daemon.place.connect();
    reader.write(request.repeat(3));
    for (let i = 0; i < 3; i += 1) expect((await reader.line()).length).toBeGreaterThan(ANSWER_BYTES);
    await reader.destroy();
    await crowd.expectSmall();
  },
  LONG_MS,
);

test(
  "answers of batches that wait for their last one are counted, and no more of them are made beyond the bound",
  async () => {
    // Three eighths of it are more than all can have beyond: from there on those that do not read are closed.
    const bound = 72 * 1024 * 1024;
    const crowd = await Crowd.gather({ args: ["--max-unsent-bytes", String(bound)] });
    const get = (await crowd.longRequest()).trim();
    const held = await crowd.polite.call("lease.acquire", { name: "x", owner: "polite" });
    const params = { name: "x", owner: "crowd", mode: "shared", waitMs: 3_600_000 };
    const wait = JSON.stringify({ jsonrpc: "2.0", id: "wait", method: "lease.acquire", params });
    // Of 108 MB that they ask for.
    const sockets = await crowd.join(6);
    for (const socket of sockets) socket.write(`[${[wait, ...Array(20).fill(get)]}]\n`);
    await crowd.quiet("queue.get");
    // A turn takes up 16 of a connection whose answers were not seen before, and counts them when all are made. From a
    // database those that come first may have all their answers, and the others have their shares beyond the bound.
    const beyond = NAMES_ARE_SHARED ? 0.375 * bound : 16 * ANSWER_BYTES;
    expect((await crowd.stats()).unsentBytes).toBeLessThan(bound + beyond);
    // Once the waits end the batches are answered, and say what was not performed.
    const readers = sockets.map((socket) => new RawClient(socket));
    for (const { socket } of readers) socket.resume();
    const lines = Promise.all(readers.map((reader) => reader.line()));
    await crowd.polite.call("lease.release", { leaseId: held.lease.leaseId });
    const batches = (await lines).map((line) => JSON.parse(line) as RawReply[]);
    for (const answers of batches) expect(answers).toHaveLength(21);
    const refused = batches.flat().filter(({ error }) => error !== undefined);
    expect(refused.length).toBeGreaterThan(0);
    for (const reply of refused) expectRefusedReply(reply, reply.id, "unavailable");
    await crowd.expectSmall();
  },
  LONG_MS,
);

const LISTS = 300;

test(
  `${LISTS} connections that list as much as a page takes at the same time do not grow the daemon with their pages`,
  async () => {
    const crowd = await Crowd.gather();
    const batches = Array(500).fill({ queue: "q", payloads: ["x".repeat(500)] });
    for (let half = 0; half < 2; half += 1) await crowd.polite.call("queue.enqueueMany", { batches });
    const params = { queue: "q", limit: 1000 };
    const request = `${JSON.stringify({ jsonrpc: "2.0", id: "list", method: "queue.list", params })}\n`;
    const readers = (await crowd.join(LISTS)).map((socket) => new RawClient(socket));
    for (const { socket } of readers) socket.resume();
    for (const { socket } of readers) socket.write(request);
    const [first, ...others] = readers as [RawClient, ...RawClient[]];
    const page = await first.line();
    expect((JSON.parse(page) as RawReply).result).toMatchObject({ batches: { length: 1000 } });
    // To parse as much as that takes longer than to make it.
    for (const reader of others) expect((await reader.line()) === page).toBe(true);
    await crowd.expectSmall();
  },
  LONG_MS,
);

/** More than all may have unread. */
const NESTED_LINES = sized(150, 90);

test(
  `${NESTED_LINES} lines of 500,000 nested arrays, ended all at once, are refused before anything is built`,
  async () => {
    const crowd = await Crowd.gather();
    const payload = `${"[".repeat(500_000)}${"]".repeat(500_000)}`;
    const line = `{"jsonrpc":"2.0","id":1,"method":"queue.enqueue","params":{"queue":"q","payloads":[${payload}]}}`;
    const sockets = await crowd.join(NESTED_LINES);
    for (const socket of sockets) socket.write(line);
    await crowd.until(({ unreadBytes }) => unreadBytes > 50 * MB);
    for (const socket of sockets) socket.write("\n");
    const kinds = await Promise.all(
      sockets.map(async (socket) => {
        const reader = new RawClient(socket);
        socket.resume();
        return (await reader.reply()).error?.data.kind;
      }),
    );
    expect(kinds).toContain("parse_error");
    expect(kinds.filter((kind) => kind !== "parse_error" && kind !== "exhausted")).toEqual([]);
    await crowd.expectSmall();
  },
  LONG_MS,
);

test(
  "150 unfinished lines of 1 MiB have 64 MiB, and make room for whoever ends a line",
  async () => {
    const crowd = await Crowd.gather();
    const unfinished = "x".repeat(1024 * 1024 - 1024);
    for (const socket of await crowd.join(150)) socket.write(unfinished);
    await crowd.until(({ unreadBytes }) => unreadBytes > 60 * MB);
    expect((await crowd.stats()).unreadBytes).toBeLessThan(70 * MB);
    const other = await crowd.daemon.place.connect();
    const { batch } = await other.call("queue.enqueue", { queue: "q", payloads: ["x".repeat(ANSWER_BYTES)] });
    expect(batch.state).toBe("ready");
    const { errors, connections } = await crowd.polite.call("daemon.stats", {});
    expect(connections.overloads).toBeGreaterThan(0);
    expect(errors["-"]).toEqual({ exhausted: connections.overloads });
    await other.destroy();
    await crowd.expectSmall();
  },
  LONG_MS,
);

test(
  "waits of all connections have 128 MiB; one more is refused and may be tried again",
  async () => {
    const crowd = await Crowd.gather();
    await crowd.polite.call("lease.acquire", { name: "x", owner: "polite" });
    // A wait counts as 2,048 bytes and its text. In the long form it is short, so that there are 61,000 of them; in the
    // short one as long as a connection may have so many.
    const padding = " ".repeat(TORTURE ? 0 : 12_000);
    const params = { name: "x", owner: "o", waitMs: 3_600_000 };
    const wait = (id: number): string =>
      `{${padding}${JSON.stringify({ jsonrpc: "2.0", id, method: "lease.acquire", params }).slice(1)}\n`;
    const waits = Array.from({ length: MAX_WAITS_PER_CONNECTION }, (_, id) => wait(id)).join("");
    const waitBytes = 2048 + padding.length;
    const needed = Math.ceil(MAX_WAITS_BYTES / (MAX_WAITS_PER_CONNECTION * waitBytes));
    for (const socket of await crowd.join(needed)) {
      socket.resume();
      socket.write(waits);
    }
    await crowd.until(({ waitingBytes }) => waitingBytes > MAX_WAITS_BYTES - 2 * waitBytes);
    const last = await crowd.daemon.place.connect();
    const { error } = await last.ask(wait(1).trim());
    expect(error?.data).toMatchObject({ kind: "exhausted", retryable: true, limitBytes: MAX_WAITS_BYTES });
    expect((await last.call("sequence.next", { type: "FR" })).seq).toBe(1);
    await last.destroy();
    await crowd.expectSmall();
  },
  LONG_MS,
);

test(
  "of waits that end together with long answers, no more is made than a peer has room for, and all once it reads",
  async () => {
    const WAITS = 60;
    const crowd = await Crowd.gather();
    const { batch } = await crowd.polite.call("queue.enqueue", {
      queue: "q",
      payloads: ["x".repeat(ANSWER_BYTES)],
    });
    const { claim } = await crowd.polite.call("queue.claim", { queue: "q", owner: "polite" });
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    const [socket] = (await crowd.join(1)) as [Socket];
    const params = { batchId: batch.batchId, waitMs: 3_600_000 };
    for (let id = 0; id < WAITS; id += 1) {
      socket.write(`${JSON.stringify({ jsonrpc: "2.0", id, method: "queue.wait", params })}\n`);
    }
    await crowd.until(({ waiting }) => waiting === WAITS);
    await crowd.polite.call("queue.complete", { claimId, leaseToken });
    let before = WAITS;
    for (let times = 0; times < 20; times += 1) {
      const { waiting } = await crowd.stats();
      if (waiting !== before) times = 0;
      before = waiting;
      await pause(10);
    }
    const { waiting, unsentBytes } = await crowd.stats();
    expect(waiting).toBeGreaterThan(WAITS / 2);
    expect(unsentBytes).toBeLessThan(20 * MB);
    let lines = 0;
    socket.on("data", (chunk: Buffer) => {
      for (let at = chunk.indexOf("\n"); at >= 0; at = chunk.indexOf("\n", at + 1)) lines += 1;
    });
    socket.resume();
    await crowd.until(() => lines === WAITS);
    expect((await crowd.stats()).waiting).toBe(0);
  },
  LONG_MS,
);

test(
  "waits of batches that end together with long answers are refused beyond what is kept, and not performed",
  async () => {
    const WAITS = 60;
    // Of 108 MB that they ask for.
    const crowd = await Crowd.gather({ args: ["--max-unsent-bytes", String(8 * 1024 * 1024)] });
    const { batch } = await crowd.polite.call("queue.enqueue", {
      queue: "q",
      payloads: ["x".repeat(ANSWER_BYTES)],
    });
    const { claim } = await crowd.polite.call("queue.claim", { queue: "q", owner: "polite" });
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    const params = { batchId: batch.batchId, waitMs: 3_600_000 };
    const wait = JSON.stringify({ jsonrpc: "2.0", id: "w", method: "queue.wait", params });
    const sockets = await crowd.join(2);
    for (const socket of sockets) socket.write(`[${Array(WAITS).fill(wait)}]\n`);
    await crowd.until(({ waiting }) => waiting === sockets.length * WAITS);
    // Both read from now on: who reads nothing for half a second, once answers are too many, is closed.
    const readers = sockets.map((socket) => new RawClient(socket));
    for (const socket of sockets) socket.resume();
    await crowd.polite.call("queue.complete", { claimId, leaseToken });
    for (const line of await Promise.all(readers.map((reader) => reader.line()))) {
      const answers = JSON.parse(line) as RawReply[];
      expect(answers).toHaveLength(WAITS);
      const refused = answers.filter(({ error }) => error !== undefined);
      for (const reply of refused)
        expect(expectRefusedReply(reply, "w", "unavailable").data.reason).toBe("batch_too_large");
      // A turn makes 8 MiB of such answers, and counts them when all are made.
      expect(refused.length).toBeGreaterThan(WAITS / 2);
      expect(refused.length).toBeLessThan(WAITS);
    }
    await crowd.expectSmall();
  },
  LONG_MS,
);

test(
  "long requests that wait have 7 MiB of a connection, and short ones still get through",
  async () => {
    const crowd = await Crowd.gather();
    await crowd.polite.call("lease.acquire", { name: "x", owner: "polite" });
    const params = { name: "x", owner: "o", waitMs: 3_600_000 };
    const padded = JSON.stringify({ jsonrpc: "2.0", id: "w", method: "lease.acquire", params }).replace(
      "{",
      `{${" ".repeat(ANSWER_BYTES)}`,
    );
    const greedy = await crowd.daemon.place.connect();
    for (let i = 0; i < 10; i += 1) greedy.write(`${padded}\n`);
    const { error } = await greedy.reply();
    expect(error?.data).toMatchObject({
      kind: "exhausted",
      retryable: true,
      limitBytes: MAX_CONNECTION_WAITS_BYTES,
    });
    expect((await crowd.stats()).waitingBytes).toBeLessThanOrEqual(MAX_CONNECTION_WAITS_BYTES);
    expect((await greedy.call("sequence.next", { type: "FR" })).seq).toBe(1);
    await greedy.destroy();
    await crowd.expectSmall();
  },
  LONG_MS,
);

describe("requests that wait keep their text, and not its values", () => {
  const full = "full";
  /** As many values together, in lines that are parsed as they are: those that have more are kept as text anyway. */
  const [waits, objects] = TORTURE ? [MAX_WAITS_PER_CONNECTION, 700] : [128, 2800];
  const list = `${"{},".repeat(objects - 1)}{}`;
  /** A batch has no more than 1,000 payloads, and a payload may be all of them. */
  const payloads = objects > MAX_BATCH_PAYLOADS ? `[${list}]` : list;
  /** Their values would take more than the process may have. */
  const batches = sized(40, 25);

  /** A queue without room, and the text of a request that waits for some. */
  async function fill(polite: RawClient): Promise<(payload: string) => string> {
    await polite.call("queue.configure", { queue: full, maxWaiting: 1 });
    await polite.call("queue.enqueue", { queue: full, payloads: ["first"] });
    return (payload) =>
      `{"jsonrpc":"2.0","id":"w","method":"queue.enqueue","params":{"queue":"${full}","payloads":[${payload}],"waitMs":3600000}}`;
  }

  test(
    "of 50 connections, each with an array of 300,000 others",
    async () => {
      const crowd = await Crowd.gather();
      const wait = await fill(crowd.polite);
      const line = `${wait(`[${"[],".repeat(300_000)}[]]`)}\n`;
      for (const socket of await crowd.join(50)) socket.write(line);
      await crowd.until(({ waiting }) => waiting === 50);
      await crowd.expectSmall();
    },
    LONG_MS,
  );

  test(
    `of 40 connections, each with ${waits} requests of ${objects} objects`,
    async () => {
      const crowd = await Crowd.gather();
      const wait = await fill(crowd.polite);
      const line = `${wait(payloads)}\n`;
      for (const socket of await crowd.join(40)) socket.write(line.repeat(waits));
      await crowd.until(({ waiting }) => waiting === 40 * waits);
      await crowd.expectSmall();
    },
    LONG_MS,
  );

  test(
    `of ${batches} batches, without what else was in their lines`,
    async () => {
      const crowd = await Crowd.gather();
      const wait = await fill(crowd.polite);
      const other = `{"jsonrpc":"2.0","id":"o","method":"no.method","params":{"x":[${"{},".repeat(300_000)}{}]}}`;
      const line = `[${wait('"a text of its own"')},${other}]\n`;
      for (const socket of await crowd.join(batches)) socket.write(line);
      await crowd.until(({ waiting }) => waiting === batches);
      expect((await crowd.stats()).waitingBytes).toBeLessThan(MB);
      await crowd.expectSmall();
    },
    LONG_MS,
  );

  test("and take place as they were sent, byte for byte", async () => {
    const crowd = await Crowd.gather();
    const wait = await fill(crowd.polite);
    const texts = ['1.0,{"b":12345678901234567890, "a":"\\u00e4 ä €"}', `"${"ö".repeat(2000)}"`];
    for (const [index, batch] of [false, true].entries()) {
      const request = wait(texts[index] as string);
      const other = await crowd.daemon.place.connect();
      other.write(batch ? `[${request},{"jsonrpc":"2.0","method":"daemon.ping"}]\n` : `${request}\n`);
      await crowd.until(({ waiting }) => waiting === 1);
      // Tried in vain, and again.
      await crowd.polite.call("queue.configure", { queue: full, maxWaiting: 1 });
      const { claim } = await crowd.polite.call("queue.claim", { queue: full, owner: "o" });
      expect(claim?.batches).toHaveLength(1);
      expect(await other.line()).toContain(`"payloads":[${texts[index]}],`);
      await other.destroy();
    }
    await crowd.expectSmall();
  });
});

test(
  "ids of 900,000 characters are refused before they wait",
  async () => {
    const crowd = await Crowd.gather();
    await crowd.polite.call("lease.acquire", { name: "x", owner: "polite" });
    const params = { name: "x", owner: "o", waitMs: 3_600_000 };
    const line = JSON.stringify({
      jsonrpc: "2.0",
      id: "i".repeat(ANSWER_BYTES),
      method: "lease.acquire",
      params,
    });
    for (const socket of await crowd.join(3)) {
      socket.resume();
      for (let i = 0; i < 30; i += 1) socket.write(`${line}\n`);
    }
    for (;;) {
      const { errors, connections } = await crowd.polite.call("daemon.stats", {});
      expect(connections.waiting).toBe(0);
      if (errors["-"]?.invalid_request === 90) break;
      await pause(20);
    }
    await crowd.expectSmall();
  },
  LONG_MS,
);

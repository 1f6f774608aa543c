// What a daemon keeps in memory for connections while a database performs their calls (spec: wire.md, Transport). The
// same bounds as of names of its own: `memory.test.ts` and `hostile.test.ts` have more of them, over both.
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { MAX_BATCH_ANSWER_BYTES, MAX_UNSENT_BYTES } from "@pawl/protocol/limits";
import { describe, expect, onTestFinished, test } from "vitest";
import { type DaemonProcess, madeForTests, Place } from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient, RawReply } from "../raw-client.js";
import { expectRefusedReply } from "../refusal.js";
import { makePlace } from "../shared-daemons.js";
import { until } from "../until.js";

const ANSWER_BYTES = 900_000;
/** Of these, more than a peer that reads nothing may have. */
const REQUESTS = 120;
const WAIT_MS = 3_600_000;

describe.skipIf(!HAS_POSTGRESQL)("of names that daemons share", () => {
  const daemon = madeForTests(async (atEnd) => {
    const url = (await PostgreSql.start(atEnd)).url();
    await makePlace(url);
    return await new Place(undefined, atEnd).start({ args: ["--shared", `*=${url}`] });
  });

  /** A connection that reads nothing until it is told to. */
  async function deaf(): Promise<Socket> {
    const socket = connect({ path: (daemon() as DaemonProcess).place.socket });
    socket.pause();
    socket.on("error", () => {});
    onTestFinished(() => void socket.destroy());
    await once(socket, "connect");
    return socket;
  }

  /** A batch of one long payload, and the text of a request about it. */
  async function long(client: RawClient, queue: string) {
    const { batch } = await client.call("queue.enqueue", { queue, payloads: ["x".repeat(ANSWER_BYTES)] });
    const { batchId } = batch;
    return {
      batchId,
      get: JSON.stringify({ jsonrpc: "2.0", id: "long", method: "queue.get", params: { batchId } }),
    };
  }

  const unsentOf = async (client: RawClient) =>
    (await client.call("daemon.stats", {})).connections.unsentBytes;

  /** How much is unsent once no more answers are made. */
  async function unsent(client: RawClient): Promise<number> {
    let before = -1;
    for (let times = 0; times < 20; times += 1) {
      const now = await unsentOf(client);
      if (now !== before) times = 0;
      before = now;
      await client.call("sequence.next", { type: "FR" });
    }
    return before;
  }

  /** Resolves once so many lines have come. */
  async function read(socket: Socket, count: number): Promise<void> {
    let lines = 0;
    socket.on("data", (chunk: Buffer) => {
      for (let at = chunk.indexOf("\n"); at >= 0; at = chunk.indexOf("\n", at + 1)) lines += 1;
    });
    socket.resume();
    await until(() => lines === count);
  }

  test("long answers are made as far as their peer reads, and all others once it does", async () => {
    const client = await daemon().place.connect();
    const { get } = await long(client, "lines");
    const socket = await deaf();
    socket.write(`${get}\n`.repeat(REQUESTS));
    await until(async () => (await unsentOf(client)) > 0);
    const made = await unsent(client);
    expect(made).toBeLessThan(MAX_UNSENT_BYTES + 2 * ANSWER_BYTES);
    expect((await client.call("daemon.stats", {})).requests["queue.get"]).toBeLessThan(REQUESTS);
    await read(socket, REQUESTS);
  });

  test("a batch is performed as far as its answers may grow", async () => {
    const client = await daemon().place.connect();
    const { get } = await long(client, "batch");
    client.write(`[${Array(REQUESTS).fill(get)}]\n`);
    const answers = JSON.parse(await client.line()) as RawReply[];
    expect(answers).toHaveLength(REQUESTS);
    const first = answers.findIndex(({ error }) => error !== undefined);
    expect(first * ANSWER_BYTES).toBeGreaterThan(0.9 * MAX_BATCH_ANSWER_BYTES);
    expect(first * ANSWER_BYTES).toBeLessThan(1.5 * MAX_BATCH_ANSWER_BYTES);
    for (const reply of answers.slice(first))
      expect(expectRefusedReply(reply, "long", "unavailable").data.reason).toBe("batch_too_large");
  });

  test("of waits that end together, answers are made as far as their peer reads, and all others once it does", async () => {
    const client = await daemon().place.connect();
    const { batchId } = await long(client, "waits");
    const { claim } = await client.call("queue.claim", { queue: "waits", owner: "o" });
    const socket = await deaf();
    const wait = { jsonrpc: "2.0", id: "w", method: "queue.wait", params: { batchId, waitMs: WAIT_MS } };
    socket.write(`${JSON.stringify(wait)}\n`.repeat(REQUESTS));
    const waiting = async () => (await client.call("daemon.stats", {})).connections.waiting;
    await until(async () => (await waiting()) === REQUESTS);
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    await client.call("queue.complete", { claimId, leaseToken });
    await until(async () => (await unsentOf(client)) > 0);
    // A turn makes 8 MiB of such answers.
    expect(await unsent(client)).toBeLessThan(2 * MAX_UNSENT_BYTES + 2 * ANSWER_BYTES);
    expect(await waiting()).toBeGreaterThan(REQUESTS / 2);
    await read(socket, REQUESTS);
    expect(await waiting()).toBe(0);
  });
});

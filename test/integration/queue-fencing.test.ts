// A stale holder cannot finish what somebody else has taken over, and a token cannot be made up.

import { spawn } from "node:child_process";
import { createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Result } from "@pawl/protocol";
import { describe, expect, onTestFinished, test } from "vitest";
import { ClientProcess } from "../client-process.js";
import { Place, startDaemon } from "../daemon.js";
import type { RawClient, RawReply } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

type Claim = NonNullable<Result<"queue.claim">["claim"]>;

/** Claims, prints the claim, and for each line on standard input sends renew and complete and prints both replies. */
const WORKER = `
  import { connect } from "node:net";
  import { createInterface } from "node:readline";
  const [socketPath, queue, leaseMs] = process.argv.slice(1);
  const socket = connect(socketPath);
  const send = (id, method, params) => socket.write(JSON.stringify({ jsonrpc: "2.0", id, method, params }) + "\\n");
  send("claim", "queue.claim", { queue, owner: "worker", leaseMs: Number(leaseMs) });
  createInterface({ input: socket }).on("line", (line) => {
    process.stdout.write(line + "\\n");
    const { id, result } = JSON.parse(line);
    if (id !== "claim") return;
    const { claimId, leaseToken } = result.claim;
    createInterface({ input: process.stdin }).on("line", () => {
      send("renew", "queue.renew", { claimId, leaseToken });
      send("complete", "queue.complete", { claimId, leaseToken });
    });
  });
`;

function startHolder(socket: string, queue: string, leaseMs: number): ClientProcess {
  const args = ["--input-type=module", "--eval", WORKER, "--", socket, queue, String(leaseMs)];
  const child = spawn(process.execPath, args, { cwd: "/", stdio: ["pipe", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  return new ClientProcess(child);
}

/** The state of a process by the kernel's word (proc(5)): T for one that is stopped. */
function stateOf(process: ClientProcess): string | undefined {
  return /^State:\s+(\w)/m.exec(readFileSync(`/proc/${process.child.pid}/status`, "utf8"))?.[1];
}

function proof({ claimId, leaseToken }: Claim): { claimId: string; leaseToken: string } {
  return { claimId, leaseToken };
}

async function claimNext(client: RawClient, queue: string): Promise<Claim> {
  const { claim } = await client.call("queue.claim", { queue, owner: "other", waitMs: 60_000 });
  if (claim === null) throw new Error("the wait ended without a claim");
  return claim;
}

describe("a holder stopped past its lease", () => {
  async function stoppedHolder() {
    const daemon = await startDaemon();
    const client = await daemon.place.connect();
    const { batch } = await client.call("queue.enqueue", { queue: "q", payloads: ["work"] });
    const holder = startHolder(daemon.place.socket, "q", 300);
    const { result } = await holder.line<{ result: { claim: Claim } }>(0);
    holder.child.kill("SIGSTOP");
    await expect.poll(() => stateOf(holder)).toBe("T");
    return { client, batch, holder, stale: result.claim };
  }

  /** Lets it go on; it sends what it was about to send. */
  async function wake(holder: ClientProcess): Promise<{ renewed: RawReply; completed: RawReply }> {
    holder.tell("go on");
    holder.child.kill("SIGCONT");
    // A refusal and a result may come in either order.
    const replies = [await holder.line<RawReply>(1), await holder.line<RawReply>(2)];
    const reply = (id: string): RawReply => replies.find((each) => each.id === id) as RawReply;
    return { renewed: reply("renew"), completed: reply("complete") };
  }

  test("has lost its batch to another: its token is smaller, renew and complete are refused", async () => {
    const { client, batch, holder, stale } = await stoppedHolder();
    const current = await claimNext(client, "q");
    expect(current.batches[0]).toMatchObject({ batchId: batch.batchId, attempt: 1 });
    expect(stale.fencingToken).toBeLessThan(current.fencingToken);

    const { renewed, completed } = await wake(holder);
    expectRefusal(renewed.error, "claim_lost");
    expectRefusal(completed.error, "claim_lost");
    // And it has not got in the way of the other.
    expect((await client.call("queue.get", { batchId: batch.batchId })).batch.claim?.claimId).toBe(
      current.claimId,
    );
    expect(await client.call("queue.complete", proof(current))).toEqual({ completed: 1 });
    expectRefusal(await client.refusal("queue.complete", proof(stale)), "claim_lost");
  });

  test("is refused also after the other has completed, though the batch is then what it wanted", async () => {
    const { client, holder } = await stoppedHolder();
    await client.call("queue.complete", proof(await claimNext(client, "q")));
    const { renewed, completed } = await wake(holder);
    expectRefusal(renewed.error, "claim_lost");
    expectRefusal(completed.error, "claim_lost");
  });

  test("may complete, not renew, if nobody has taken its batch", async () => {
    const { client, batch, holder } = await stoppedHolder();
    const ready = async () => (await client.call("queue.get", { batchId: batch.batchId })).batch.state;
    await expect.poll(ready).toBe("ready");
    const { renewed, completed } = await wake(holder);
    expectRefusal(renewed.error, "claim_lost");
    expect(completed.result).toEqual({ completed: 1 });
    expect(await ready()).toBe("completed");
  });
});

describe("a token", () => {
  test("made up from what everybody can see is refused, and does nothing", async () => {
    const daemon = await startDaemon();
    const client = await daemon.place.connect();
    for (let count = 0; count < 2; count += 1)
      await client.call("queue.enqueue", { queue: "q", payloads: [count] });
    const claim = await claimNext(client, "q");
    const other = await claimNext(client, "q");
    const { claimId, leaseToken, fencingToken, batches } = claim;
    const [batch] = batches as [Claim["batches"][number]];
    const publicTexts = [
      claimId,
      batch.batchId,
      String(fencingToken),
      `q:${claimId}`,
      JSON.stringify({ ...claim, leaseToken: undefined }),
      "",
    ];
    const madeUp = publicTexts.flatMap((text) => [
      text,
      ...(["hex", "base64", "base64url"] as const).flatMap((encoding) => [
        createHash("sha256").update(text).digest(encoding),
        createHmac("sha256", claimId).update(text).digest(encoding),
        createHmac("sha256", "").update(text).digest(encoding),
        createHmac("sha256", Buffer.alloc(32)).update(claimId).digest(encoding),
      ]),
    ]);
    const nearly = [
      other.leaseToken,
      leaseToken.slice(0, -1),
      `${leaseToken}A`,
      `${leaseToken}=`,
      ` ${leaseToken}`,
      leaseToken.toLowerCase(),
      leaseToken.split("").reverse().join(""),
    ];
    for (const token of new Set([...madeUp, ...nearly].filter((text) => text !== "" && text.length <= 128))) {
      expect(token).not.toBe(leaseToken);
      for (const method of ["queue.renew", "queue.complete", "queue.abandon"]) {
        expectRefusal(await client.refusal(method, { claimId, leaseToken: token }), "claim_lost");
      }
    }
    // The right token under another spelling of the claim, or for another claim.
    const [, seq] = claimId.split(":");
    for (const spelling of [
      `qwc:0${seq}:${fencingToken}`,
      `qwc:${seq}:0${fencingToken}`,
      `qwc:${seq}.0:${fencingToken}`,
      `QWC:${seq}:${fencingToken}`,
      `${claimId} `,
      `qwc:${seq}:${fencingToken + 1}`,
      `qwc:${Number(seq) + 1}:${fencingToken}`,
      other.claimId,
    ]) {
      expectRefusal(await client.refusal("queue.complete", { claimId: spelling, leaseToken }), "claim_lost");
    }
    expect((await client.call("queue.get", { batchId: batch.batchId })).batch).toMatchObject({
      state: "claimed",
      attempt: 0,
    });
    expect(await client.call("queue.complete", proof(claim))).toEqual({ completed: 1 });
  });

  test("is in no log line, and holds in the next life of the daemon", async () => {
    const place = new Place();
    const first = await place.start({ args: ["--log-level", "trace"] });
    let client = await place.connect();
    await client.call("queue.enqueue", { queue: "q", payloads: [1], sourceKey: "k" });
    const claim = await claimNext(client, "q");
    await client.refusal("queue.complete", { ...proof(claim), leaseToken: `${claim.leaseToken}x` });
    await client.refusal("queue.renew", { ...proof(claim), leaseMs: 1 });
    await first.end("SIGKILL");
    expect(JSON.stringify(first.log)).not.toContain(claim.leaseToken);

    let life = await place.start();
    client = await place.connect();
    expect(await client.call("queue.renew", proof(claim))).toMatchObject({ remainingMs: 30_000 });
    expect(await client.call("queue.complete", proof(claim))).toEqual({ completed: 1 });
    await life.end("SIGKILL");
    life = await place.start();
    client = await place.connect();
    expect(await client.call("queue.complete", proof(claim))).toEqual({ completed: 1 });
  });
});

test("a worker bound to its connection survives a restart of the daemon by renewing within the grace", async () => {
  const place = new Place();
  const first = await place.start();
  let client = await place.connect();
  for (let count = 0; count < 2; count += 1) {
    await client.call("queue.enqueue", { queue: "q", payloads: [count], maxAttempts: 0 });
  }
  const params = { queue: "q", owner: "bound", leaseMs: 60_000, releaseOn: "disconnect" } as const;
  const kept = (await client.call("queue.claim", params)).claim as Claim;
  const given = (await client.call("queue.claim", params)).claim as Claim;
  await first.end("SIGKILL");

  await place.start();
  const other = await place.connect();
  const next = claimNext(other, "q");
  client = await place.connect();
  expect(await client.call("queue.renew", proof(kept))).toMatchObject({ remainingMs: 60_000 });
  // The one that nobody renews comes back after its grace.
  const taken = await next;
  expect(taken.batches[0]?.batchId).toBe(given.batches[0]?.batchId);
  expectRefusal(await client.refusal("queue.renew", proof(given)), "claim_lost");
  const { batch } = await other.call("queue.get", {
    batchId: (kept.batches[0] as { batchId: string }).batchId,
  });
  expect(batch.claim?.claimId).toBe(kept.claimId);
  // And the one that was renewed is bound to the connection that renewed it.
  const after = claimNext(other, "q");
  await client.destroy();
  expect((await after).batches[0]?.batchId).toBe(batch.batchId);
});

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect as connectTo, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import {
  connect,
  type PawlClient,
  Postpone,
  type Work,
  type WorkHandle,
  type WorkOptions,
} from "@pawl/client";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { type ClientProcess, startProgram } from "../client-process.js";
import { Place, sharedDaemon, startDaemon } from "../daemon.js";

const shared = sharedDaemon();

/** The queue of the test. */
let q = "";
let tests = 0;
beforeEach(() => {
  tests += 1;
  q = `q${tests}`;
});

async function client(place: Place): Promise<PawlClient> {
  const connected = await connect({ socket: place.socket });
  onTestFinished(() => connected.close());
  return connected;
}

/** Adds one batch per payload, in order. */
async function enqueue(
  pawl: PawlClient,
  queue: string,
  payloads: unknown[],
  how: object = {},
): Promise<void> {
  await pawl.queue.enqueueMany({
    batches: payloads.map((payload) => ({ queue, payloads: [payload], ...how })),
  });
}

async function depths(pawl: PawlClient, queue: string): Promise<Record<string, unknown>> {
  const { queues } = await pawl.queue.stats({ queue });
  return { ...queues[0] };
}

/** Resolves when the queue has so many batches in these states. */
async function untilDepths(pawl: PawlClient, queue: string, wanted: Record<string, number>): Promise<void> {
  await expect.poll(() => depths(pawl, queue), { timeout: 30_000 }).toMatchObject(wanted);
}

/** Works until closed, and keeps what it reports as trouble. */
function working(
  pawl: PawlClient,
  queue: string | string[],
  handler: (work: Work) => unknown,
  options: WorkOptions = {},
): WorkHandle & { trouble: unknown[] } {
  const trouble: unknown[] = [];
  const handle = pawl.work(queue, handler, { onError: (error) => trouble.push(error), ...options });
  return Object.assign(handle, { trouble });
}

/** A process that works on a queue and prints the payloads of what it begins, ends and loses. */
const WORKER = `
  const [socket, queue, options, holdMs] = args;
  const pawl = await connect({ socket });
  pawl.work(queue, async ({ payloads, fencingToken: token, signal }) => {
    print({ begin: payloads, token });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, holdMs);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        print({ lost: signal.reason.kind, reason: signal.reason.details?.reason, token });
        resolve();
      });
    });
    print({ end: payloads, token });
  }, { ...options, onError: (error) => print({ error: error.kind ?? error.name }) });`;

function worker(place: Place, queue: string, options: WorkOptions, holdMs: number): ClientProcess {
  return startProgram(WORKER, [place.socket, queue, options, holdMs]);
}

describe("work", () => {
  test("gives the handler every batch once, in order, and completes it", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, [1, { two: 2 }, "three"]);
    const seen: Work[] = [];
    const worker = working(pawl, q, (work) => void seen.push(work), { owner: "tester" });
    await untilDepths(pawl, q, { completed: 3 });
    // Later ones are waited for.
    await enqueue(pawl, q, [4]);
    await untilDepths(pawl, q, { completed: 4 });
    await worker.close();

    expect(seen.map(({ payloads }) => payloads)).toEqual([[1], [{ two: 2 }], ["three"], [4]]);
    const tokens = seen.map(({ fencingToken }) => fencingToken);
    expect(tokens).toEqual([...new Set(tokens)].sort((a, b) => a - b));
    expect(seen[0]?.claim).toMatchObject({ owner: "tester", queue: q, fencingToken: tokens[0] });
    expect(seen[0]?.batches[0]).toMatchObject({ state: "claimed", attempt: 0 });
    expect(seen.every(({ signal }) => !signal.aborted)).toBe(true);
    expect(worker.trouble).toEqual([]);
  });

  test("takes from several queues in the order that is wanted, and ends with the first claim or with the last", async () => {
    const { place } = shared();
    const pawl = await client(place);
    for (const queue of ["below/1", "first", "below/2"]) await enqueue(pawl, queue, [queue]);
    const seen: unknown[] = [];
    const run = (queues: string[], options: WorkOptions): Promise<void> =>
      working(pawl, queues, ({ payloads }) => void seen.push(...payloads), options).done;
    await run(["below/*", "first"], { order: "oldest", once: true, concurrency: 3 });
    expect(seen.splice(0)).toEqual(["below/1"]);
    await run(["first", "below/*"], { drain: true });
    expect(seen).toEqual(["first", "below/2"]);
    await run(["first", "below/*"], { drain: true, once: true, concurrency: 4 });
    expect(seen.length).toBe(2);
  });

  test("works on as many at a time as it is told, and no more", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, Array.from({ length: 60 }));
    let now = 0;
    let most = 0;
    let full = (): void => {};
    const allAtWork = new Promise<void>((resolve) => {
      full = resolve;
    });
    const worker = working(
      pawl,
      q,
      async () => {
        most = Math.max(most, ++now);
        if (now === 7) full();
        await allAtWork;
        await delay(10);
        now -= 1;
      },
      { concurrency: 7 },
    );
    await untilDepths(pawl, q, { completed: 60 });
    await worker.close();
    expect(most).toBe(7);
    for (const concurrency of [0, 1.5, 1001, Number.NaN]) {
      expect(() => pawl.work(q, () => {}, { concurrency })).toThrow("concurrency is a whole number");
    }
  });

  test("gives batches that join together", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, [1, 2, 3, 4, 5], { slotPolicy: "join", mergeKey: "payload_default" });
    const seen: unknown[] = [];
    working(pawl, q, ({ payloads, batches }) => void seen.push([payloads, batches.length]), {
      maxBatches: 3,
    });
    await untilDepths(pawl, q, { completed: 5 });
    expect(seen).toEqual([
      [[1, 2, 3], 3],
      [[4, 5], 2],
    ]);
  });

  test("takes at a checkpoint only what may be taken there", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, ["early"]);
    await enqueue(pawl, q, ["late"], { deliveryPolicy: "after_current_turn_commit" });
    const seen: unknown[] = [];
    const take = ({ payloads }: Work): void => void seen.push(...payloads);
    const atCheckpoint = working(pawl, q, take, { boundary: "active_turn_checkpoint" });
    await untilDepths(pawl, q, { completed: 1, ready: 1 });
    await atCheckpoint.close();
    expect(seen).toEqual(["early"]);
    working(pawl, q, take);
    await untilDepths(pawl, q, { completed: 2 });
  });

  test("keeps a claim for longer than its lease", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, [1]);
    let runs = 0;
    const worker = working(
      pawl,
      q,
      async ({ signal }) => {
        runs += 1;
        await delay(2500);
        expect(signal.aborted).toBe(false);
      },
      // A busy machine may keep renewals for some hundred milliseconds.
      { leaseMs: 1000 },
    );
    await untilDepths(pawl, q, { completed: 1 });
    expect(runs).toBe(1);
    expect(worker.trouble).toEqual([]);
  });
});

describe("a handler that throws", () => {
  test("has its batch again, with the error kept, until it is dead; the queue flows on", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, ["poison"], { maxAttempts: 3 });
    await enqueue(pawl, q, ["good"]);
    const failures: [string, number | undefined][] = [];
    const worker = working(
      pawl,
      q,
      async ({ payloads }) => {
        if (payloads[0] === "poison") throw new Error("it is poison\0\uD800");
      },
      {
        onFailure: (error, { batches }) =>
          void failures.push([(error as Error).message.slice(0, 12), batches[0]?.attempt]),
      },
    );
    await untilDepths(pawl, q, { completed: 1, dead: 1 });
    await worker.close();
    expect(failures).toEqual([
      ["it is poison", 0],
      ["it is poison", 1],
      ["it is poison", 2],
    ]);
    const { batches } = await pawl.queue.list({ queue: q, state: "dead" });
    expect(batches[0]).toMatchObject({ attempt: 3, lastError: "it is poison\uFFFD\uFFFD" });
    expect(worker.trouble).toEqual([]);

    // Brought back, it is worked on by a handler that can.
    expect(await pawl.queue.retry({ queue: q })).toMatchObject({ retried: 1 });
    working(pawl, q, () => {});
    await untilDepths(pawl, q, { completed: 2, dead: 0 });
  });

  test("can throw anything: it is kept as text", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const thrown = [
      "text",
      "",
      undefined,
      new Error(""),
      new TypeError("x".repeat(1_000_000)),
      { an: "object" },
    ];
    await enqueue(pawl, q, Object.keys(thrown), { maxAttempts: 1 });
    const worker = working(pawl, q, ({ payloads }) => {
      throw thrown[Number(payloads[0])];
    });
    await untilDepths(pawl, q, { dead: 6 });
    expect(worker.trouble).toEqual([]);
    const { batches } = await pawl.queue.list({ queue: q });
    const errors = batches.map(({ lastError }) => lastError?.slice(0, 20));
    expect(errors).toEqual(["text", "unknown", "undefined", "Error", "x".repeat(20), "[object Object]"]);
  });

  test("makes it rest when that is wanted, the longer the more often it failed", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, [1], { maxAttempts: 3 });
    const startedAt: number[] = [];
    working(
      pawl,
      q,
      () => {
        startedAt.push(performance.now());
        throw new Error("again");
      },
      { retryDelayMs: (attempts) => attempts * 200 },
    );
    await untilDepths(pawl, q, { dead: 1 });
    const pauses = startedAt.slice(1).map((at, index) => at - (startedAt[index] as number));
    expect(pauses[0]).toBeGreaterThanOrEqual(199);
    expect(pauses[1]).toBeGreaterThanOrEqual(399);
  });

  test("gives its batch back with what can be said, whatever it threw and whatever fails then", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const mute = Object.defineProperty(new Error(), "message", {
      get(): string {
        throw new Error("no message");
      },
    });
    const thrown = [Object.create(null), mute, new Error("plain"), new Error("plain"), new Error("plain")];
    const rests = [
      () => 0,
      () => 0,
      () => {
        throw new RangeError("no rest");
      },
      () => Number.NaN,
      () => "soon" as never,
    ];
    const trouble: [error: unknown, payload: unknown][] = [];
    let at = 0;
    await enqueue(pawl, q, Object.keys(thrown), { maxAttempts: 1 });
    working(
      pawl,
      q,
      ({ payloads }) => {
        at = Number(payloads[0]);
        throw thrown[at];
      },
      {
        retryDelayMs: () => rests[at]?.() ?? 0,
        onError: (error, work) => trouble.push([error, work?.payloads[0]]),
      },
    );
    await untilDepths(pawl, q, { dead: 5 });
    const { batches } = await pawl.queue.list({ queue: q });
    expect(batches.map(({ lastError }) => lastError)).toEqual([
      "object that has no text",
      "object that has no text",
      "plain",
      "plain",
      "plain",
    ]);
    await expect.poll(() => trouble).toHaveLength(5);
    expect(trouble.map(([, payload]) => payload)).toEqual(["0", "1", "2", "3", "4"]);
    const errors = trouble.map(([error]) => error as Error);
    expect(errors.slice(0, 2).map(({ cause }) => cause)).toEqual(thrown.slice(0, 2));
    expect(errors.slice(2).map(({ message }) => message)).toEqual([
      "no rest",
      "retryDelayMs has to give milliseconds, not NaN.",
      'retryDelayMs has to give milliseconds, not "soon".',
    ]);
  });

  test("rests as its queue says when retryDelayMs throws", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await pawl.queue.configure({ queue: q, retry: { baseMs: 3_600_000, jitter: false } });
    await enqueue(pawl, q, [1]);
    const failing = (): never => {
      throw new Error("it fails");
    };
    working(pawl, q, failing, { retryDelayMs: failing });
    await untilDepths(pawl, q, { scheduled: 1 });
    const { batches } = await pawl.queue.list({ queue: q });
    expect(batches[0]).toMatchObject({ attempt: 1, lastError: "it fails" });
    expect(batches[0]?.availableAt).toBeGreaterThan((await pawl.daemon.ping()).now + 3_000_000);
  });

  test("gives back a result whose JSON cannot be made", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, [1], { maxAttempts: 1 });
    const toJSON = (): never => {
      throw new RangeError("no JSON of it");
    };
    const worker = working(pawl, q, () => ({ toJSON }));
    await untilDepths(pawl, q, { dead: 1 });
    expect((await pawl.queue.list({ queue: q })).batches[0]?.lastError).toBe("no JSON of it");
    expect(worker.trouble).toEqual([]);
  });

  test("may postpone the work: no attempt is counted", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, [1], { maxAttempts: 1 });
    const attempts: unknown[] = [];
    const failures: unknown[] = [];
    const startedAt = performance.now();
    const worker = working(
      pawl,
      q,
      ({ batches }) => {
        attempts.push(batches[0]?.attempt);
        if (attempts.length < 3) throw new Postpone({ delayMs: 150 });
      },
      { onFailure: (error) => void failures.push(error) },
    );
    await untilDepths(pawl, q, { completed: 1 });
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(300);
    expect(attempts).toEqual([0, 0, 0]);
    expect(failures).toEqual([]);
    expect(worker.trouble).toEqual([]);
  });
});

describe("closing", () => {
  test("takes nothing more, ends its waits at the daemon, and counts no attempt", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const worker = working(pawl, q, () => expect.unreachable("it is closed"), { concurrency: 3 });
    await expect.poll(async () => (await pawl.queue.explain({ queue: q })).waiting).toBe(3);
    await worker.close();
    const seen: [unknown, number | undefined][] = [];
    const other = working(await client(place), q, ({ payloads, batches }) => {
      seen.push([payloads[0], batches[0]?.attempt]);
    });
    // That of the other worker.
    await expect.poll(async () => (await pawl.queue.explain({ queue: q })).waiting).toBe(1);
    await enqueue(pawl, q, [1, 2], { maxAttempts: 1 });
    await untilDepths(pawl, q, { completed: 2 });
    expect(seen.sort()).toEqual([
      [1, 0],
      [2, 0],
    ]);
    expect([...worker.trouble, ...other.trouble]).toEqual([]);
  });

  test("resolves only when the last handler has ended, and that one's work is completed", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, [1, 2, 3]);
    const ended: unknown[] = [];
    let begun = (): void => {};
    const beginning = new Promise<void>((resolve) => (begun = resolve));
    let goOn = (): void => {};
    const ending = new Promise<void>((resolve) => (goOn = resolve));
    const worker = working(pawl, q, async ({ payloads }) => {
      begun();
      await ending;
      ended.push(payloads[0]);
    });
    await beginning;
    let closed = false;
    const closing = worker.close().then(() => (closed = true));
    // What the daemon has answered meanwhile has not let it go.
    await pawl.daemon.ping();
    expect([closed, ended]).toEqual([false, []]);
    goOn();
    await closing;
    expect(ended).toEqual([1]);
    expect(await depths(pawl, q)).toMatchObject({ completed: 1, ready: 2, claimed: 0 });
  });

  test("is done by a signal too, and by leaving the scope", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const controller = new AbortController();
    const worker = working(pawl, q, () => {}, { signal: controller.signal });
    controller.abort();
    await worker.done;
    await working(pawl, q, () => {}, { signal: AbortSignal.abort() }).done;
    const other = working(pawl, q, () => {});
    await other[Symbol.asyncDispose]();
    await other.done;
  });

  test("the client aborts the handlers, and lets the process end", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, [1]);
    const program = startProgram(
      `const pawl = await connect({ socket: args[0] });
       const worker = pawl.work(args[1], async ({ signal }) => {
         pawl.close();
         if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
         print(signal.reason.name);
       }, { onError: (error) => print(error.name) });
       await worker.done;
       print("done");`,
      [place.socket, q],
    );
    expect(await program.exited).toBe(0);
    expect(program.printed).toEqual(["ConnectionLost", "ConnectionLost", "done"]);
    // Its claim ended with its connection.
    await untilDepths(pawl, q, { ready: 1 });
  });

  test("happens by itself when the daemon refuses for good, and says why", async () => {
    const { place } = shared();
    const pawl = await client(place);
    const worker = working(pawl, "x".repeat(200), () => {});
    await expect(worker.done).rejects.toMatchObject({ kind: "invalid_params" });
    await expect(worker.close()).rejects.toMatchObject({ kind: "invalid_params" });
    expect(worker.trouble).toMatchObject([{ kind: "invalid_params" }]);
  });
});

describe("a claim that is lost", () => {
  test("while its worker was stopped: another does the work, and the woken one is told and completes nothing", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, ["job"]);
    const stopped = worker(place, q, { leaseMs: 600, releaseOn: "expiry" }, 60_000);
    const { token } = await stopped.line<{ token: number }>(0);
    stopped.child.kill("SIGSTOP");

    const tokens: number[] = [];
    let finish = (): void => {};
    const held = new Promise<void>((resolve) => (finish = resolve));
    const other = working(pawl, q, async ({ fencingToken }) => {
      tokens.push(fencingToken);
      await held;
    });
    await expect.poll(() => tokens.length, { timeout: 10_000 }).toBe(1);
    expect(tokens[0]).toBeGreaterThan(token);

    stopped.child.kill("SIGCONT");
    expect(await stopped.line(1)).toMatchObject({ lost: "claim_lost", token });
    expect(await stopped.line(2)).toMatchObject({ end: ["job"] });
    expect(await stopped.line(3)).toEqual({ error: "claim_lost" });
    expect(await depths(pawl, q)).toMatchObject({ claimed: 1, completed: 0 });
    finish();
    await untilDepths(pawl, q, { completed: 1 });
    await other.close();
    expect(other.trouble).toEqual([]);
  });

  test("with its worker's process: the next one has it at once, and the attempt is counted", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, ["job"]);
    const killed = worker(place, q, { leaseMs: 60_000 }, 60_000);
    await killed.line(0);
    const seen: [number, number][] = [];
    working(pawl, q, ({ batches }) => void seen.push([performance.now(), batches[0]?.attempt ?? -1]));
    await expect.poll(async () => (await pawl.queue.explain({ queue: q })).waiting).toBe(1);
    const before = performance.now();
    await killed.end("SIGKILL");
    await untilDepths(pawl, q, { completed: 1 });
    expect((seen[0] as [number, number])[0] - before).toBeLessThan(1000);
    expect((seen[0] as [number, number])[1]).toBe(1);
  });

  test("because no daemon can be asked: the handler is told before the lease has ended", async () => {
    const daemon = await startDaemon();
    const pawl = await client(daemon.place);
    await enqueue(pawl, q, ["job"]);
    const lonely = worker(daemon.place, q, { leaseMs: 2000 }, 60_000);
    await lonely.line(0);
    daemon.child.kill("SIGSTOP");
    const began = performance.now();
    expect(await lonely.line(1)).toMatchObject({ lost: "claim_lost", reason: "not_renewed" });
    expect(performance.now() - began).toBeLessThan(2000);
    // Work that was done is not lost if nobody else has taken it: the daemon has the last word.
    daemon.child.kill("SIGCONT");
    await untilDepths(pawl, q, { completed: 1 });
  });

  test("by a handler that ends the work otherwise: completing is refused, and reported", async () => {
    const { place } = shared();
    const pawl = await client(place);
    await enqueue(pawl, q, ["job"]);
    let runs = 0;
    const worker = working(pawl, q, async ({ claim: { claimId, leaseToken } }) => {
      if (runs++ === 0) await pawl.queue.abandon({ claimId, leaseToken, delayMs: 50 });
    });
    await untilDepths(pawl, q, { completed: 1 });
    expect(runs).toBe(2);
    expect(worker.trouble).toMatchObject([{ kind: "claim_lost" }]);
  });
});

describe("under a daemon that is started again", () => {
  test.each(["SIGKILL", "SIGTERM"] as const)(
    "after %s work goes on: what runs is completed once, what waits is waited for",
    async (how) => {
      const place = new Place();
      let daemon = await place.start();
      const pawl = await client(place);
      await enqueue(pawl, q, ["first"]);
      const runs: unknown[] = [];
      let finish = (): void => {};
      const worker = working(
        pawl,
        q,
        async ({ payloads, signal }) => {
          runs.push(payloads[0]);
          if (payloads[0] !== "first") return;
          await new Promise<void>((resolve) => (finish = resolve));
          expect(signal.aborted).toBe(false);
        },
        { concurrency: 3, leaseMs: 30_000 },
      );
      await expect.poll(() => runs.length).toBe(1);
      for (let round = 0; round < 2; round++) {
        await daemon.end(how);
        daemon = await place.start();
        // It is renewed on the new connection: more is left than the grace after a restart.
        await expect
          .poll(async () => (await pawl.queue.explain({ queue: q })).holder?.remainingMs ?? 0, {
            timeout: 10_000,
          })
          .toBeGreaterThan(6000);
        await enqueue(pawl, q, [`after ${round}`]);
        await untilDepths(pawl, q, { completed: round + 1, claimed: 1 });
      }
      finish();
      await untilDepths(pawl, q, { completed: 3 });
      expect(runs).toEqual(["first", "after 0", "after 1"]);
      await worker.close();
      expect(worker.trouble).toEqual([]);
    },
  );

  test("a socket that takes connections before there is a daemon, as systemd keeps one, is waited for", async () => {
    const place = new Place();
    let daemon = await place.start();
    // A stand-in for systemd: connections wait, and are passed on once there is a daemon.
    let waiting: (() => void)[] | undefined;
    let waited = (): void => {};
    const inFront = createServer((from) => {
      const pass = (): void => {
        const to = connectTo(place.socket);
        for (const [one, other] of [
          [from, to],
          [to, from],
        ] as const) {
          one.on("error", () => {});
          one.on("close", () => other.destroy());
          one.pipe(other);
        }
      };
      if (waiting === undefined) return pass();
      waiting.push(pass);
      waited();
    });
    const socket = join(place.directory, "front.sock");
    inFront.listen(socket);
    await once(inFront, "listening");
    const pawl = await connect({ socket });
    onTestFinished(async () => {
      pawl.close();
      await new Promise((resolve) => inFront.close(resolve));
    });
    await enqueue(pawl, q, ["job"]);
    let finish = (): void => {};
    let begun = (): void => {};
    const beginning = new Promise<void>((resolve) => (begun = resolve));
    let aborted: boolean | undefined;
    const worker = working(pawl, q, async ({ signal }) => {
      begun();
      await new Promise<void>((resolve) => (finish = resolve));
      aborted = signal.aborted;
    });
    await beginning;
    waiting = [];
    const connected = new Promise<void>((resolve) => (waited = resolve));
    await daemon.end("SIGKILL");
    await connected;
    // Longer than the grace that a daemon gives after its start, which is still to come.
    await delay(5500);
    daemon = await place.start();
    for (const pass of waiting.splice(0)) pass();
    waiting = undefined;
    await expect
      .poll(async () => (await pawl.queue.explain({ queue: q })).holder?.remainingMs ?? 0)
      .toBeGreaterThan(6000);
    finish();
    await untilDepths(pawl, q, { completed: 1 });
    await worker.close();
    expect([aborted, worker.trouble]).toEqual([false, []]);
  });

  test("too late for its lease, the handler was told and another has the work", async () => {
    const place = new Place();
    const daemon = await place.start();
    const pawl = await client(place);
    await enqueue(pawl, q, ["job"]);
    const first = worker(place, q, { leaseMs: 1000 }, 60_000);
    await first.line(0);
    await daemon.end("SIGKILL");
    expect(await first.line(1)).toMatchObject({ lost: "claim_lost", reason: "not_renewed" });
    // Stopped, so that it does not complete what it has ended before another gets it.
    first.child.kill("SIGSTOP");
    await place.start();
    const tokens: number[] = [];
    working(pawl, q, ({ fencingToken }) => void tokens.push(fencingToken));
    await untilDepths(pawl, q, { completed: 1 });
    expect(tokens).toEqual([2]);
  });
});

test("worker processes and the daemon are killed at random: all is completed, and none is held by two", async () => {
  const BATCHES = 600;
  const place = new Place();
  let daemon = await place.start();
  const pawl = await client(place);
  await enqueue(
    pawl,
    q,
    Array.from({ length: BATCHES }, (_, index) => index),
    { maxAttempts: 0, retry: { baseMs: 0 } },
  );
  const log = `${place.directory}/log`;
  const program = `
    import { appendFileSync } from "node:fs";
    const [socket, queue, log] = args;
    const pawl = await connect({ socket });
    const note = (what, { payloads, fencingToken }) =>
      appendFileSync(log, what + " " + payloads[0] + " " + fencingToken + "\\n");
    pawl.work(queue, async (work) => {
      note("begin", work);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
      if (work.signal.aborted) throw work.signal.reason;
      note("end", work);
    }, { concurrency: 4, leaseMs: 5000, onError: () => {} });`;
  const start = (): ClientProcess => startProgram(program, [place.socket, q, log]);
  const workers = Array.from({ length: 4 }, start);
  const done = async (): Promise<number> => Number((await depths(pawl, q)).completed);
  for (let round = 0; round < 8 && (await done()) < BATCHES; round++) {
    const before = await done();
    await expect.poll(done, { timeout: 30_000 }).toBeGreaterThan(Math.min(before + 20, BATCHES - 1));
    if (round % 3 === 2) {
      await daemon.end("SIGKILL");
      daemon = await place.start();
    } else {
      await workers[round % workers.length]?.end("SIGKILL");
      workers[round % workers.length] = start();
    }
  }
  await expect.poll(done, { timeout: 60_000 }).toBe(BATCHES);
  expect(await depths(pawl, q)).toMatchObject({ ready: 0, scheduled: 0, claimed: 0, dead: 0 });
  await Promise.all(workers.map((each) => each.end("SIGKILL")));

  const tokens = new Map<string, number>();
  const ended = new Set<string>();
  for (const line of (await readFile(log, "utf8")).split("\n").filter((each) => each !== "")) {
    const [what, job, token] = line.split(" ") as [string, string, string];
    const highest = tokens.get(job) ?? 0;
    if (what === "begin") {
      // Each holder of a batch has a higher token than the one before it.
      expect(Number(token)).toBeGreaterThan(highest);
      tokens.set(job, Number(token));
    } else {
      // And once another has begun, none with a lower one still writes.
      expect(Number(token)).toBe(highest);
      ended.add(job);
    }
  }
  expect(ended.size).toBe(BATCHES);
});

import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import {
  CommandError,
  CommandFailed,
  type CommandHandlers,
  connect,
  type PawlClient,
  Postpone,
  type PullOptions,
  type ReceivedCommand,
  type WorkHandle,
} from "@pawl/client";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { type ClientProcess, startProgram } from "../client-process.js";
import { Place, sharedDaemon, startDaemon } from "../daemon.js";
import { fakeDaemon } from "../fake-daemon.js";

const shared = sharedDaemon();

/** The deployment of the test. */
let d = "";
let tests = 0;
beforeEach(() => {
  tests += 1;
  d = `d${tests}`;
});

async function client(place: Place): Promise<PawlClient> {
  const connected = await connect({ socket: place.socket });
  onTestFinished(() => connected.close());
  return connected;
}

async function aborted(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted) await once(signal, "abort");
  return signal.reason;
}

async function failure(promise: Promise<unknown>): Promise<CommandFailed> {
  const error = await promise.then(
    (result) => new Error(`not rejected, but ${JSON.stringify(result)}`),
    (rejection) => rejection,
  );
  expect(error).toBeInstanceOf(CommandFailed);
  return error as CommandFailed;
}

interface Calculator {
  add: { params: { a: number; b: number }; response: number };
  fail: { params: { how: string }; response: never };
  echo: { params: unknown; response: unknown };
}

const calculator: CommandHandlers<Calculator> = {
  add: async ({ a, b }) => a + b,
  fail: ({ how }) => {
    if (how === "plain") throw new Error("it is broken");
    if (how === "text") throw "only text";
    if (how === "mute") throw Object.create(null);
    if (how === "odd") throw new CommandError(17 as never, "A number is no code.");
    if (how === "postponed") throw new Postpone();
    throw new CommandError("NO_SUCH_THING", "There is no such thing.", { how });
  },
  echo: (params) => params,
};

/** Both ways of receiving, which differ in how commands travel and not in what handlers see. */
const WAYS = ["pull", "serve"] as const;
type Way = (typeof WAYS)[number];

/** Receives until closed, and keeps what it reports as trouble. */
function receiving(
  pawl: PawlClient,
  way: Way,
  handlers: Record<string, (params: never, command: ReceivedCommand) => unknown>,
  options: PullOptions & { deployment?: string } = {},
): WorkHandle & { trouble: unknown[] } {
  const { deployment = d, ...rest } = options;
  const trouble: unknown[] = [];
  const how = { onError: (error: unknown) => void trouble.push(error), ...rest };
  return Object.assign(pawl.commands[way](deployment, handlers as never, how), { trouble });
}

/** A process that receives commands; `job` takes as long as it is told and prints its begin, end and abortion. */
const RECEIVER = `
  const [socket, way, deployment, options] = args;
  const pawl = await connect({ socket });
  pawl.commands[way](deployment, {
    job: async ({ ms = 60_000 } = {}, { signal, attempt }) => {
      print({ begin: attempt });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        signal.addEventListener("abort", () => {
          clearTimeout(timer);
          print({ aborted: signal.reason.kind ?? signal.reason.name, details: signal.reason.details });
          resolve();
        });
      });
      print({ end: attempt });
      return { pid: process.pid, attempt };
    },
  }, { ...options, onError: (error) => print({ error: error.kind ?? error.name }) });`;

function receiver(place: Place, way: Way, options: PullOptions = {}): ClientProcess {
  return startProgram(RECEIVER, [place.socket, way, d, options]);
}

describe.each(WAYS)("by %s", (way) => {
  test("a command is answered with what its handler returns", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    const received = receiving(own, way, calculator, { owner: "calculator" });
    expect(await sender.commands.send(d, "add", { a: 1, b: 2 })).toBe(3);
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) => sender.commands.send(d, "echo", { index })),
    );
    expect(answers).toEqual(Array.from({ length: 50 }, (_, index) => ({ index })));
    for (const value of [null, "text", [], { $upload: { sizeBytes: 3 } }, { deep: [{ er: [1, 2, 3] }] }]) {
      expect(await sender.commands.send(d, "echo", value)).toEqual(value);
    }
    expect(await sender.commands.send(d, "echo")).toBeNull();
    expect(received.trouble).toEqual([]);
  });

  test("the handler is told what it carries out", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    const seen: ReceivedCommand[] = [];
    receiving(own, way, { look: (_params, command) => void seen.push(command) });
    expect(await sender.commands.send(d, "look", {}, { ttlMs: 60_000 })).toBeNull();
    expect(seen).toHaveLength(1);
    const { commandId, deadline, ...rest } = seen[0] as ReceivedCommand;
    expect(rest).toMatchObject({ deployment: d, command: "look", attempt: 1 });
    expect(deadline).toBeGreaterThan((await sender.daemon.ping()).now + 50_000);
    expect(await sender.command.get({ commandId })).toMatchObject({ state: "SUCCEEDED", deadline });
  });

  test("a command that is sent first waits for its receiver", async () => {
    const { place } = shared();
    const sender = await client(place);
    const sent = sender.commands.to<Calculator>(d).send("add", { a: 20, b: 22 });
    await expect
      .poll(async () => (await sender.command.list({ deployment: d, state: "PENDING" })).commands.length)
      .toBe(1);
    receiving(await client(place), way, calculator);
    expect(await sent).toBe(42);
  });

  test("an error that a handler throws is the answer too", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    const failures: unknown[] = [];
    receiving(own, way, calculator, { onFailure: (error) => void failures.push(error) });
    const { send } = sender.commands;
    const plain = await failure(send(d, "fail", { how: "plain" }));
    expect(plain).toMatchObject({ state: "FAILED", code: "HANDLER_ERROR", message: "it is broken" });
    expect(await failure(send(d, "fail", { how: "text" }))).toMatchObject({ message: "only text" });
    const mute = await failure(send(d, "fail", { how: "mute" }));
    expect(mute).toMatchObject({ code: "HANDLER_ERROR", message: "object that has no text" });
    const odd = await failure(send(d, "fail", { how: "odd" }));
    expect(odd).toMatchObject({ code: "17", message: "A number is no code." });
    const chosen = await failure(send(d, "fail", { how: "chosen" }));
    expect(chosen).toMatchObject({
      code: "NO_SUCH_THING",
      message: "There is no such thing.",
      details: { how: "chosen" },
    });
    expect(chosen.commandId).toMatch(/^cmd_/);
    expect(failures).toHaveLength(5);

    const unknown = await failure(send(d, "subtract"));
    expect(unknown).toMatchObject({ code: "UNKNOWN_COMMAND", message: `${d} does not know subtract.` });
    // A property that every object has is no command.
    expect(await failure(send(d, "constructor"))).toMatchObject({ code: "UNKNOWN_COMMAND" });
  });

  test("as many are carried out at a time as it is told, and no more", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    let now = 0;
    let most = 0;
    let goOn: () => void = () => {};
    const areAsMany = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const job = async (): Promise<void> => {
      most = Math.max(most, ++now);
      if (now === 5) goOn();
      await areAsMany;
      await delay(20);
      now -= 1;
    };
    receiving(own, way, { job }, { concurrency: 5 });
    await Promise.all(Array.from({ length: 30 }, () => sender.commands.send(d, "job")));
    expect(most).toBe(5);
  });

  test("params of megabytes arrive whole, in pieces", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    const measure = (params: { text: string }): object => ({
      length: params.text.length,
      end: params.text.slice(-3),
    });
    const received = receiving(own, way, { measure });
    for (const length of [149_000, 150_000, 3_000_000]) {
      const text = `${"ü".repeat(length - 3)}end`;
      expect(await sender.commands.send(d, "measure", { text })).toEqual({ length, end: "end" });
    }
    expect(received.trouble).toEqual([]);
  });

  test("an answer that no line takes goes in pieces, and what runs beside it is unharmed", async () => {
    const { place } = await startDaemon({ args: ["--max-message-bytes", "20000"] });
    const [sender, own] = [await client(place), await client(place)];
    const grow = (length: number): string => "x".repeat(length);
    const slow = async (): Promise<string> => {
      await delay(500);
      return "slow";
    };
    const received = receiving(own, way, { grow, slow }, { concurrency: 3 });
    const beside = sender.commands.send(d, "slow");
    expect(await sender.commands.send(d, "grow", 19_000)).toHaveLength(19_000);
    expect(await sender.commands.send(d, "grow", 20_000)).toHaveLength(20_000);
    expect(await sender.commands.send(d, "grow", 2_000_000)).toHaveLength(2_000_000);
    expect(await beside).toBe("slow");
    expect((await sender.command.list({ deployment: d })).commands.map(({ attempt }) => attempt)).toEqual([
      1, 1, 1, 1,
    ]);
    expect(received.trouble).toEqual([]);
  });

  test("an answer that is no JSON is answered as an error", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    receiving(own, way, {
      big: () => 1n,
      circular: () => {
        throw new CommandError("ROUND", "round and round", circular);
      },
    });
    expect(await failure(sender.commands.send(d, "big"))).toMatchObject({ code: "HANDLER_ERROR" });
    const round = await failure(sender.commands.send(d, "circular"));
    expect(round).toMatchObject({ code: "ROUND", message: "round and round" });
  });

  test("cancelling a send reaches the handler's signal, with the reason", async () => {
    const { place } = shared();
    const sender = await client(place);
    const receiving = receiver(place, way, { leaseMs: 600 });
    const controller = new AbortController();
    const reason = new Error("not needed any more");
    const sent = sender.commands.send(d, "job", {}, { signal: controller.signal });
    const rejected = expect(sent).rejects.toBe(reason);
    await receiving.line(0);
    controller.abort(reason);
    await rejected;
    expect(await receiving.line(1)).toMatchObject({
      aborted: "lease_lost",
      details: { reason: "cancelled", message: "Its sender gave it up." },
    });
    // A command that has ended is no trouble for its receiver.
    expect(await receiving.line(2)).toEqual({ end: 1 });
    expect(await sender.commands.send(d, "job", { ms: 1 })).toMatchObject({ attempt: 1 });
    expect(receiving.printed.slice(3)).toEqual([{ begin: 1 }, { end: 1 }]);
    const { commands } = await sender.command.list({ deployment: d, state: "FAILED" });
    expect(commands).toMatchObject([{ error: { code: "CANCELLED" } }]);
  });

  test("a deadline that passes ends the send and reaches the handler's signal", async () => {
    const { place } = shared();
    const sender = await client(place);
    // Told by the deadline, not by a renewal that comes long after it.
    const receiving = receiver(place, way, { leaseMs: 60_000 });
    // The program is running before the time begins: on a busy machine it takes longer than that to start.
    await sender.commands.send(d, "job", { ms: 1 });
    const expired = failure(sender.commands.send(d, "job", {}, { ttlMs: 1500 }));
    await receiving.line(2);
    expect(await receiving.line(3)).toMatchObject({ aborted: "lease_lost", details: { reason: "expired" } });
    expect(await expired).toMatchObject({ state: "EXPIRED", code: "EXPIRED" });
    // Nobody there to carry it out makes no difference.
    const nobody = await failure(sender.commands.send("nobody", "job", {}, { ttlMs: 100 }));
    expect(nobody).toMatchObject({ state: "EXPIRED" });
  });

  test("a receiver that is killed has its command delivered anew at once", async () => {
    const { place } = shared();
    const sender = await client(place);
    const first = receiver(place, way, { leaseMs: 60_000 });
    const sent = sender.commands.send(d, "job", { ms: 100 });
    await first.line(0);
    first.child.kill("SIGSTOP");
    const second = receiver(place, way);
    await first.end("SIGKILL");
    expect(await second.line(0)).toEqual({ begin: 2 });
    expect(await sent).toEqual({ pid: second.child.pid, attempt: 2 });
  });

  test("commands that nobody could carry out are given up after so many attempts", async () => {
    const { place } = shared();
    const sender = await client(place);
    const sent = failure(sender.commands.send(d, "job", {}, { maxAttempts: 2 }));
    for (const attempt of [1, 2]) {
      const killed = receiver(place, way);
      expect(await killed.line(0)).toEqual({ begin: attempt });
      await killed.end("SIGKILL");
    }
    expect(await sent).toMatchObject({ state: "FAILED", code: "ATTEMPTS_EXHAUSTED" });
  });

  test.each(["SIGKILL", "SIGTERM"] as const)("a daemon that ends by %s changes no answer", async (how) => {
    const place = new Place();
    let daemon = await place.start();
    const sender = await client(place);
    const own = receiver(place, way, { leaseMs: 30_000, concurrency: 2 });
    const sent = sender.commands.send(d, "job", { ms: 3000 });
    await own.line(0);
    await daemon.end(how);
    daemon = await place.start();
    const answer = await sent;
    if (way === "pull") {
      // Its lease was renewed on the new connection.
      expect(answer).toEqual({ pid: own.child.pid, attempt: 1 });
      expect(own.printed).toEqual([{ begin: 1 }, { end: 1 }]);
    } else {
      // A push lasts as long as its connection: the first handler is told, and a second delivery is answered.
      expect(answer).toEqual({ pid: own.child.pid, attempt: 2 });
      expect(own.printed).toContainEqual({ aborted: "ConnectionLost" });
    }
    // And it goes on to receive.
    expect(await sender.commands.send(d, "job", { ms: 1 })).toEqual({ pid: own.child.pid, attempt: 1 });
  });

  test("closing lets what runs be answered, and takes nothing more", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    let finish = (): void => {};
    let begun = 0;
    const job = (): Promise<string> => {
      begun += 1;
      return new Promise((resolve) => (finish = () => resolve("finished")));
    };
    const received = receiving(own, way, { job });
    const first = sender.commands.send(d, "job");
    await expect.poll(() => begun).toBe(1);
    const second = sender.commands.send(d, "job");
    const closing = received.close();
    expect(await Promise.race([closing, delay(200, "still open")])).toBe("still open");
    finish();
    await closing;
    expect(await first).toBe("finished");
    expect(begun).toBe(1);
    receiving(await client(place), way, { job: () => "by another" });
    expect(await second).toBe("by another");
    expect(received.trouble).toEqual([]);
  });

  test("closing happens by itself when the daemon refuses for good, when told by a signal, and with the client", async () => {
    const { place } = shared();
    const own = await client(place);
    const refused = receiving(own, way, calculator, { deployment: "no:colons" });
    await expect(refused.done).rejects.toMatchObject({ kind: "invalid_params" });
    expect(refused.trouble).toMatchObject([{ kind: "invalid_params" }]);

    const controller = new AbortController();
    const told = receiving(own, way, calculator, { deployment: "a", signal: controller.signal });
    controller.abort();
    await told.done;
    await receiving(own, way, calculator, { deployment: "b", signal: AbortSignal.abort() }).done;
    await receiving(own, way, calculator, { deployment: "b" }).close();
    for (const concurrency of [0, 1.5, 1001]) {
      expect(() => receiving(own, way, calculator, { concurrency })).toThrow("concurrency is a whole number");
    }

    const sender = await client(place);
    const reasons: unknown[] = [];
    const job = async (_params: unknown, { signal }: ReceivedCommand): Promise<void> => {
      own.close();
      reasons.push(await aborted(signal));
    };
    const last = receiving(own, way, { job }, { deployment: "c" });
    const sent = sender.commands.send("c", "job");
    await last.done;
    expect(reasons).toMatchObject([{ name: "ConnectionLost" }]);
    receiving(await client(place), way, { job: () => "by another" }, { deployment: "c" });
    expect(await sent).toBe("by another");
  });
});

describe("sending", () => {
  test("under one key, also at once and again later, is one command with one answer", async () => {
    const { place } = shared();
    const sender = await client(place);
    let runs = 0;
    receiving(await client(place), "pull", { job: () => ++runs }, { concurrency: 4 });
    const options = { idempotencyKey: "once" };
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => sender.commands.send(d, "job", { a: 1 }, options)),
    );
    answers.push(await sender.commands.send(d, "job", { a: 1 }, options));
    expect(answers).toEqual(Array(11).fill(1));
    await expect(sender.commands.send(d, "job", { a: 2 }, options)).rejects.toMatchObject({
      kind: "conflict",
    });
  });

  test("large params under one key at once is one command too", async () => {
    const { place } = shared();
    const senders = await Promise.all(Array.from({ length: 3 }, () => client(place)));
    const received: number[] = [];
    receiving(await client(place), "pull", {
      job: ({ text }: { text: string }) => received.push(text.length),
    });
    const params = { text: "x".repeat(4_000_000) };
    const answers = await Promise.all(
      senders.map((sender) => sender.commands.send(d, "job", params, { idempotencyKey: "once" })),
    );
    expect(answers).toEqual([1, 1, 1]);
    expect(received).toEqual([4_000_000]);
  });

  test("large params goes on where it was when the daemon is killed in between", async () => {
    const place = new Place();
    let daemon = await place.start();
    const sender = await client(place);
    const text = Array.from({ length: 400_000 }, (_, index) => `${index};`).join("");
    const sent = sender.commands.send(d, "job", { text });
    const created = async () => (await sender.command.list({ deployment: d })).commands;
    for (let round = 0; round < 3; round++) {
      await expect.poll(async () => (await created()).length).toBe(1);
      await daemon.end("SIGKILL");
      daemon = await place.start();
    }
    receiving(await client(place), "pull", { job: (params: { text: string }) => params.text === text });
    expect(await sent).toBe(true);
    expect(await created()).toHaveLength(1);
  });

  test("and giving up before the answer, the answer is there for whoever asks", async () => {
    const { place } = shared();
    const sender = await client(place);
    const { commandId } = await sender.command.create({ deployment: d, command: "job", params: 7 });
    const waiting = sender.commands.answer<number>(commandId);
    await expect(
      sender.commands.answer(commandId, { signal: AbortSignal.timeout(50) }),
    ).rejects.toMatchObject({
      name: "TimeoutError",
    });
    receiving(await client(place), "pull", { job: (params: number) => params * 6 });
    expect(await waiting).toBe(42);
    expect(await (await client(place)).commands.answer(commandId)).toBe(42);
    await expect(sender.commands.answer("cmd_unknown")).rejects.toMatchObject({ kind: "not_found" });
  });

  test("and giving up in the moment of sending leaves no command behind that is carried out", async () => {
    const { place } = shared();
    const sender = await client(place);
    const controller = new AbortController();
    const sent = sender.commands.send(d, "job", 1, { signal: controller.signal });
    const rejected = expect(sent).rejects.toMatchObject({ name: "AbortError" });
    // The request has been written, and its answer has not been read.
    await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    await rejected;
    await expect
      .poll(async () =>
        (await sender.command.list({ deployment: d })).commands.map(({ error }) => error?.code),
      )
      .toEqual(["CANCELLED"]);
  });

  test("under a key of several, and giving up, leaves the command to the others", async () => {
    const { place } = shared();
    const [first, second] = [await client(place), await client(place)];
    const controller = new AbortController();
    const kept = first.commands.send(d, "job", 1, { idempotencyKey: "shared" });
    await expect.poll(async () => (await first.command.list({ deployment: d })).commands.length).toBe(1);
    const joined = second.commands.send(d, "job", 1, {
      idempotencyKey: "shared",
      signal: controller.signal,
    });
    const rejected = expect(joined).rejects.toMatchObject({ name: "AbortError" });
    await second.daemon.ping();
    controller.abort();
    await rejected;
    await second.daemon.ping();
    receiving(first, "pull", { job: (n: number) => n + 1 });
    expect(await kept).toBe(2);
  });

  test("with a signal that is aborted already sends nothing", async () => {
    const { place } = shared();
    const sender = await client(place);
    const signal = AbortSignal.abort();
    await expect(sender.commands.send(d, "job", 1, { signal })).rejects.toMatchObject({
      name: "AbortError",
    });
    expect((await sender.command.list({ deployment: d })).commands).toEqual([]);
  });
});

describe("pulling", () => {
  test("a handler may postpone a command: it is delivered anew later", async () => {
    const { place } = shared();
    const sender = await client(place);
    const attempts: number[] = [];
    const received = receiving(await client(place), "pull", {
      job: (_params, { attempt }) => {
        attempts.push(attempt);
        if (attempt < 3) throw new Postpone({ delayMs: 150 });
        return "at last";
      },
    });
    const began = performance.now();
    expect(await sender.commands.send(d, "job")).toBe("at last");
    expect(performance.now() - began).toBeGreaterThanOrEqual(300);
    expect(attempts).toEqual([1, 2, 3]);
    expect(received.trouble).toEqual([]);
  });

  test("a receiver that was stopped past its lease is told, and its answer does not count", async () => {
    const { place } = shared();
    const sender = await client(place);
    const stopped = receiver(place, "pull", { leaseMs: 600, releaseOn: "expiry" });
    const sent = sender.commands.send(d, "job", {});
    await stopped.line(0);
    stopped.child.kill("SIGSTOP");
    let finish = (): void => {};
    const job = (): Promise<string> => new Promise((resolve) => (finish = () => resolve("second")));
    let begun = false;
    receiving(await client(place), "pull", {
      job: () => {
        begun = true;
        return job();
      },
    });
    await expect.poll(() => begun, { timeout: 10_000 }).toBe(true);
    stopped.child.kill("SIGCONT");
    expect(await stopped.line(1)).toMatchObject({ aborted: "lease_lost" });
    expect(await stopped.line(2)).toEqual({ end: 1 });
    expect(await stopped.line(3)).toEqual({ error: "lease_lost" });
    finish();
    expect(await sent).toBe("second");
  });
});

describe("a handler that takes longer than it may", () => {
  test.each([
    ["by push", (pawl: PawlClient, run: () => CommandHandlers<Slow>) => pawl.commands.serve<Slow>(d, run())],
    ["by pull", (pawl: PawlClient, run: () => CommandHandlers<Slow>) => pawl.commands.pull<Slow>(d, run())],
  ])("%s is told, and the command is delivered anew", async (_how, receive) => {
    const pawl = await client(shared().place);
    const reasons: unknown[] = [];
    const receiver = receive(pawl, () => ({
      run: async (_params, { attempt, executionMs, signal }) => {
        if (attempt === 1) throw reasons.push(await aborted(signal));
        return executionMs;
      },
    }));
    expect(await pawl.commands.send(d, "run", null, { executionMs: 300 })).toBe(300);
    expect(reasons).toEqual([expect.objectContaining({ kind: "lease_lost" })]);
    await receiver.close();
  });

  test("by pull, and whose delivery is over before its time, is told at once", async () => {
    const commandId = "cmd_00000000-0000-7000-8000-000000000000";
    const lease = { leaseId: "l", leaseExpiresAt: 60_000, remainingMs: 60_000, commandId, attempt: 1 };
    const envelope = {
      commandId,
      command: "run",
      attempt: 1,
      deadline: null,
      executionMs: null,
      params: null,
    };
    const cancelled = (id: string) => ({
      ...{ jsonrpc: "2.0", method: "command.cancelled" },
      params: { commandId: id, reason: "EXECUTION_TIME" },
    });
    let leases: object[] = [{ ...lease, envelope }];
    const fake = await fakeDaemon({
      onMessage: ({ id, method }, send) => {
        if (method === "command.lease" && leases.length > 0) send({ jsonrpc: "2.0", id, result: { leases } });
        if (method === "command.lease") leases = [];
        // The handler has begun.
        if (method !== "daemon.ping") return;
        send(cancelled("cmd_00000000-0000-7000-8000-000000000001"));
        send(cancelled(commandId));
      },
    });
    const pawl = await connect({ socket: fake.socket });
    onTestFinished(() => pawl.close());
    const reason = await new Promise((resolve) => {
      const run = async (_params: unknown, { signal }: ReceivedCommand) => {
        pawl.call("daemon.ping", {}).catch(() => {});
        resolve(await aborted(signal));
      };
      pawl.commands.pull(d, { run }, { onError: () => {} });
    });
    expect(reason).toMatchObject({ kind: "lease_lost", details: { commandId } });
  });

  test("by push, where the receiver says how long", async () => {
    const pawl = await client(shared().place);
    const run: CommandHandlers<Slow>["run"] = async (_params, { attempt, signal }) =>
      attempt === 1 ? await aborted(signal).then(() => Promise.reject(new Error("stopped"))) : attempt;
    const receiver = pawl.commands.serve<Slow>(d, { run }, { executionMs: 200 });
    expect(await pawl.commands.send(d, "run")).toBe(2);
    await receiver.close();
  });
});

interface Slow {
  run: { params: unknown; response: number | null };
}

describe("serving", () => {
  test("several deployments on one connection, each once", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    for (const deployment of ["a", "b"]) {
      receiving(own, "serve", { name: () => deployment }, { deployment });
    }
    expect(() => own.commands.serve("a", {})).toThrow('serves "a" already');
    expect(await sender.commands.send("a", "name")).toBe("a");
    expect(await sender.commands.send("b", "name")).toBe("b");
  });

  test("an answer that is given while the client closes goes out", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    const received = receiving(own, "serve", {
      close: async () => {
        void received.close().then(() => own.close());
        // Once this is answered, closing waits for nothing but this handler.
        await own.daemon.ping();
        return "given";
      },
    });
    expect(await sender.commands.send(d, "close")).toBe("given");
  });

  test("a deployment again after it was closed", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    for (const round of [1, 2, 3]) {
      const received = receiving(own, "serve", { round: () => round });
      expect(await sender.commands.send(d, "round")).toBe(round);
      await received.close();
    }
  });

  test("a handler that goes on with a cancelled command keeps its place: no more run than may", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    const events: string[] = [];
    let finish = (): void => {};
    const received = receiving(own, "serve", {
      deaf: async () => {
        events.push("deaf begins");
        await new Promise<void>((resolve) => (finish = resolve));
        events.push("deaf ends");
      },
      next: (number: number) => void events.push(`${number}`),
    });
    const { commandId } = await sender.commands.create(d, "deaf");
    await expect.poll(() => events).toEqual(["deaf begins"]);
    const cancelled = new Promise((resolve) => own.on("command.cancelled", resolve));
    await sender.command.cancel({ commandId });
    await cancelled;
    // The daemon has sent the first of them by the time it answers this, and one is given up before its turn.
    const [one, two] = [sender.commands.send(d, "next", 1), await sender.commands.create(d, "next", 2)];
    await own.daemon.ping();
    expect(events).toEqual(["deaf begins"]);
    const [pending, dispatched] = (await sender.command.list({ deployment: d })).commands;
    expect([pending?.state, dispatched?.state]).toEqual(["PENDING", "DISPATCHED"]);
    await sender.command.cancel({ commandId: dispatched?.commandId as string });
    await expect(one).rejects.toMatchObject({ code: "CANCELLED" });
    await expect
      .poll(async () => (await sender.command.get({ commandId: two.commandId })).state)
      .toBe("DISPATCHED");
    finish();
    expect((await sender.command.wait({ commandId: two.commandId, waitMs: 10_000 })).state).toBe("SUCCEEDED");
    expect(events).toEqual(["deaf begins", "deaf ends", "2"]);
    expect(received.trouble).toEqual([]);
  });

  test("a handler cannot postpone what is pushed: it is answered as an error", async () => {
    const { place } = shared();
    const [sender, own] = [await client(place), await client(place)];
    receiving(own, "serve", calculator);
    expect(await failure(sender.commands.send(d, "fail", { how: "postponed" }))).toMatchObject({
      code: "HANDLER_ERROR",
    });
  });
});

test("receivers by pull and push, and the daemon, are killed at random: each command has its one answer", async () => {
  const COMMANDS = 400;
  const place = new Place();
  let daemon = await place.start();
  const sender = await client(place);
  const program = `
    const [socket, way, deployment] = args;
    const pawl = await connect({ socket });
    pawl.commands[way](deployment, {
      square: async (n) => {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
        return n * n;
      },
    }, { concurrency: 4, onError: () => {} });`;
  const start = (way: Way): ClientProcess => startProgram(program, [place.socket, way, d]);
  const ways: Way[] = ["pull", "serve", "pull", "serve"];
  const receivers = ways.map(start);
  let answered = 0;
  const answers = Array.from({ length: COMMANDS }, async (_, n) => {
    const answer = await sender.commands.send(d, "square", n);
    answered += 1;
    return answer;
  });
  const all = Promise.all(answers);
  for (let round = 0; round < 8 && answered < COMMANDS; round++) {
    const before = answered;
    await expect
      .poll(() => answered, { timeout: 30_000 })
      .toBeGreaterThan(Math.min(before + 20, COMMANDS - 1));
    if (round % 3 === 2) {
      await daemon.end("SIGKILL");
      daemon = await place.start();
    } else {
      const index = round % receivers.length;
      await receivers[index]?.end("SIGKILL");
      receivers[index] = start(ways[index] as Way);
    }
  }
  expect(await all).toEqual(Array.from({ length: COMMANDS }, (_, n) => n * n));
  const { commands } = await sender.command.list({ deployment: d, limit: 1000 });
  expect(commands).toHaveLength(COMMANDS);
  expect(new Set(commands.map(({ state }) => state))).toEqual(new Set(["SUCCEEDED"]));
});

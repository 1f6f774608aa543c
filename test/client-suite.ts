// The behaviour that every client in another language shows, against real daemons. Each has a program with the same
// scenarios (`clients/python/test/scenarios.py`), which speaks in lines of JSON.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { METHODS, type Method } from "@pawl/protocol";
import { describe, expect, onTestFinished, test } from "vitest";
import { defaultSocketPaths } from "../client/dist/connection/socket-path.js";
import { Place, privateDirectory, sharedDaemon } from "./daemon.js";
import { fakeDaemon } from "./fake-daemon.js";
import { sized } from "./long-form.js";
import type { RawClient } from "./raw-client.js";
import { until } from "./until.js";

/** The time that a claim has from one sign of life to the next, where it is to be lost. */
const SHORT_LEASE_MS = 1500;
/** The same over a restart of the daemon, which takes longer on a busy machine. */
const LONG_LEASE_MS = 8000;
const PROCESSES = 4;
const NUMBERS_EACH = sized(5000, 300);

/** One line of a program, as it said it. */
type Said = Record<string, unknown>;

/** A program that runs a scenario. */
class Program {
  readonly child: ChildProcess;
  readonly exited: Promise<unknown>;
  readonly #said: Said[] = [];
  #look: (() => void)[] = [];
  #stderr = "";
  #ended = false;

  constructor(command: readonly string[], env: Record<string, string | undefined> = {}) {
    const [program = "", ...args] = command;
    this.child = spawn(program, args, { stdio: "pipe", env: { ...process.env, ...env } });
    this.child.stderr?.on("data", (chunk) => {
      this.#stderr += chunk;
    });
    // Not "exit": what it said last may still be on its way.
    this.exited = once(this.child, "close").then(() => {
      this.#ended = true;
      for (const look of this.#look.splice(0)) look();
    });
    createInterface({ input: this.child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      this.#said.push(JSON.parse(line));
      for (const look of this.#look.splice(0)) look();
    });
    onTestFinished(async () => {
      this.child.kill("SIGKILL");
      this.child.kill("SIGCONT");
      await this.exited;
    });
  }

  /** The first line that has a member of this name, taken; rejects if the program ends without it. */
  async says(name: string): Promise<Said> {
    for (;;) {
      const index = this.#said.findIndex((said) => name in said);
      if (index >= 0) return this.#said.splice(index, 1)[0] as Said;
      if (this.#ended) {
        throw new Error(`the program ended without saying ${name}:\n${this.#stderr}`);
      }
      await new Promise<void>((resolve) => this.#look.push(resolve));
    }
  }

  tell(line: unknown): void {
    this.child.stdin?.write(`${JSON.stringify(line)}\n`);
  }
}

const has = (method: string, param?: string): boolean => {
  const found = (METHODS as readonly Method[]).find(({ name }) => name === method);
  if (found === undefined) return false;
  return (
    param === undefined || JSON.stringify(found.params.toJSONSchema({ io: "input" })).includes(`"${param}"`)
  );
};

/** The scenarios of one client. */
export interface ClientUnderTest {
  /** Names it in the titles: `Python`. */
  name: string;
  /** The command that runs a scenario; its name and arguments are appended. */
  command: () => readonly string[];
}

/** Declares the test of where a language looks for the daemon, which is one rule for all kinds of its clients. */
export function testSocketPaths({ name, command }: ClientUnderTest): void {
  test(`${name} looks for the daemon where the daemon, pawl and the other clients do`, async () => {
    const runtime = privateDirectory();
    for (const env of [
      { PAWL_SOCKET: "/some/where.sock" },
      { XDG_RUNTIME_DIR: runtime },
      { XDG_RUNTIME_DIR: runtime, PAWL_INSTANCE: "other" },
      { XDG_RUNTIME_DIR: "not/absolute" },
      { TMPDIR: `${runtime}/` },
    ]) {
      const whole = {
        PAWL_SOCKET: undefined,
        XDG_RUNTIME_DIR: undefined,
        PAWL_INSTANCE: undefined,
        ...env,
      };
      const { paths } = await new Program([...command(), "paths"], whole).says("paths");
      const before = { ...process.env };
      onTestFinished(() => void Object.assign(process.env, before));
      // The rule in TypeScript asks Node for the temporary directory, which looks at the process's own variables.
      process.env.TMPDIR = env.TMPDIR ?? tmpdir();
      const expected = defaultSocketPaths(undefined, whole);
      if (before.TMPDIR === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before.TMPDIR;
      expect([env, paths]).toEqual([env, expected]);
    }
    const refused = await new Program([...command(), "paths"], { PAWL_INSTANCE: "no/name" }).says("error");
    expect(refused.error).toMatchObject({ kind: "invalid_params" });
  });
}

/** Declares the tests of a client. */
export function testClient({ name, command }: ClientUnderTest): void {
  const start = (scenario: string, ...args: (string | number)[]): Program =>
    new Program([...command(), scenario, ...args.map(String)]);
  const notYet = (what: string): void =>
    console.warn(`${name}: ${what} is not tested: the daemon has it not`);

  describe(name, () => {
    const daemon = sharedDaemon();
    const socket = (): string => daemon().place.socket;
    const connect = async (): Promise<RawClient> => {
      const client = await daemon().place.connect();
      onTestFinished(() => client.destroy());
      return client;
    };

    test("takes numbers in several processes at a time, no one twice", async () => {
      const type = "N";
      const programs = Array.from({ length: PROCESSES }, () =>
        start("numbers", socket(), type, NUMBERS_EACH),
      );
      const lists = await Promise.all(programs.map((program) => program.says("numbers")));
      const numbers = lists.flatMap(({ numbers }) => numbers as number[]);
      expect(numbers.toSorted((a, b) => a - b)).toEqual(
        Array.from({ length: PROCESSES * NUMBERS_EACH }, (_, index) => index + 1),
      );
    });

    test("tells errors apart by their kind, and sends many calls at a time", async () => {
      const program = start("calls", socket());
      const ask = (id: string, method: string, params: object): void => program.tell({ id, method, params });
      const answer = async (): Promise<unknown> => {
        const { id, result, error } = await program.says("id");
        return { id, result, error };
      };
      ask("missing", "queue.get", { batchId: "qwb:0" });
      expect(await answer()).toMatchObject({ id: "missing", error: { kind: "not_found" } });
      ask("unknown", "no.such", {});
      expect(await answer()).toMatchObject({ id: "unknown", error: { kind: "method_not_found" } });
      ask("text", "queue.enqueue", { queue: "texts", payloads: ["é\n\u2028", 2 ** 53 - 1] });
      expect(await answer()).toMatchObject({
        result: { batch: { payloads: ["é\n\u2028", 2 ** 53 - 1] } },
      });
      // A wait holds up no other call, and its answer finds the right one.
      ask("waits", "queue.claim", { queue: "later", owner: "o", waitMs: 60_000 });
      await until(async () => (await (await connect()).call("daemon.stats", {})).connections.waiting > 0);
      ask("asks", "sequence.peek", { type: "PEEKED" });
      expect(await answer()).toMatchObject({ id: "asks", result: { seq: 1 } });
      await (await connect()).call("queue.enqueue", { queue: "later", payloads: [1] });
      expect(await answer()).toMatchObject({ id: "waits", result: { claim: { queue: "later" } } });
    });

    test("repeats over a restart what can be repeated, and says of the rest that it is lost", async () => {
      const place = new Place();
      let running = await place.start();
      const client = await place.connect();
      const { commandId } = await client.call("command.create", { deployment: "d", command: "c" });
      const program = start("calls", place.socket);
      program.tell({ id: "repeated", method: "command.wait", params: { commandId, waitMs: 60_000 } });
      program.tell({ id: "lost", method: "queue.claim", params: { queue: "q", owner: "o", waitMs: 60_000 } });
      await until(async () => (await client.call("daemon.stats", {})).connections.waiting === 2);
      await running.end("SIGKILL");
      expect(await program.says("id")).toEqual({
        id: "lost",
        error: { class: expect.stringMatching(/^ConnectionLost/), kind: null, mayHaveTakenEffect: true },
      });
      // Asked while there is no daemon: it waits for the next.
      program.tell({ id: "later", method: "sequence.next", params: { type: "FR" } });
      running = await place.start();
      expect(await program.says("id")).toEqual({
        id: "later",
        result: expect.objectContaining({ seq: 1 }),
      });
      await (await place.connect()).call("command.cancel", { commandId });
      expect(await program.says("id")).toMatchObject({ id: "repeated", result: { state: "FAILED" } });
    });

    test("a call that nothing is written of, since its connection has ended, is made on the next one", async () => {
      const fake = await fakeDaemon({
        onMessage: ({ id }, send) => send({ jsonrpc: "2.0", id, result: { seq: 1 } }),
      });
      const program = start("calls", fake.socket);
      const ask = (id: string): void => program.tell({ id, method: "sequence.next", params: { type: "FR" } });
      ask("first");
      expect(await program.says("id")).toMatchObject({ id: "first", result: { seq: 1 } });
      for (let round = 0; round < 20; round += 1) {
        // It finds the end of the connection and the next call at the same time.
        program.child.kill("SIGSTOP");
        fake.connections.at(-1)?.destroy();
        ask(`${round}`);
        program.child.kill("SIGCONT");
        expect(await program.says("id")).toMatchObject({ id: `${round}`, result: { seq: 1 } });
      }
    });

    test("works: completes, gives back with the error, renews, and ends when it is told to", async () => {
      const queue = "works";
      const client = await connect();
      const finish = join(privateDirectory(), "finish");
      const program = start("work", socket(), queue, SHORT_LEASE_MS);
      await client.call("queue.enqueue", { queue, payloads: [{ name: "one" }] });
      expect(await program.says("completed")).toEqual({ completed: "one" });
      await client.call("queue.enqueue", {
        queue,
        payloads: [{ name: "two", fail: "as told" }],
        maxAttempts: 1,
      });
      await until(async () => (await client.call("queue.stats", { queue })).queues[0]?.dead === 1);
      const { batches } = await client.call("queue.list", { queue, state: "dead" });
      expect(batches[0]?.lastError).toBe("as told");
      await client.call("queue.enqueue", { queue, payloads: [{ name: "three", until: finish }] });
      for (const begun of ["one", "two", "three"]) expect(await program.says("begun")).toEqual({ begun });
      const holder = async () => (await client.call("queue.explain", { queue })).holder;
      // Twice as long as the lease lasts, and by the same claim.
      const first = await holder();
      await until(
        async () =>
          ((await holder())?.expiresAt as number) > (first?.expiresAt as number) + 2 * SHORT_LEASE_MS,
      );
      expect((await holder())?.fencingToken).toBe(first?.fencingToken);
      // Told to end, it ends what it has.
      program.child.kill("SIGTERM");
      await client.call("queue.enqueue", { queue, payloads: [{ name: "four" }] });
      writeFileSync(finish, "");
      expect(await program.says("completed")).toEqual({ completed: "three" });
      await program.says("ended");
      await program.exited;
      expect((await client.call("queue.stats", { queue })).queues[0]).toMatchObject({
        ready: 1,
        completed: 2,
      });
    });

    test("gives back what a handler fails with, whatever that is, and a result that is no JSON", async () => {
      const queue = "odd";
      const client = await connect();
      start("work", socket(), queue, LONG_LEASE_MS);
      for (const how of [{ fail: "" }, { odd: true }]) {
        await client.call("queue.enqueue", { queue, payloads: [{ name: "one", ...how }], maxAttempts: 1 });
      }
      await until(async () => (await client.call("queue.stats", { queue })).queues[0]?.dead === 2);
      const { batches } = await client.call("queue.list", { queue, state: "dead" });
      expect(batches[0]?.lastError).toMatch(/^(?:Unsayable|unknown)$/);
      expect(batches[1]?.lastError).toContain("cannot be");
    });

    test.each(["SIGKILL", "SIGTERM"] as const)(
      "keeps its claim over a restart of the daemon after %s, and goes on when it was idle",
      async (signal) => {
        const queue = "survives";
        const place = new Place();
        let running = await place.start();
        let client = await place.connect();
        const finish = join(place.directory, "finish");
        const program = start("work", place.socket, queue, LONG_LEASE_MS);
        await client.call("queue.enqueue", { queue, payloads: [{ name: "one", until: finish }] });
        await program.says("begun");
        const fencingToken = async () => (await client.call("queue.explain", { queue })).holder?.fencingToken;
        const before = await fencingToken();
        await running.end(signal);
        running = await place.start();
        client = await place.connect();
        // Held by the same claim, and renewed on the new connection: else the grace of a restart ends it.
        const remains = async () =>
          (await client.call("queue.explain", { queue })).holder?.expiresAt as number;
        const shown = await remains();
        await until(async () => (await remains()) > shown + LONG_LEASE_MS / 2);
        expect(await fencingToken()).toBe(before);
        writeFileSync(finish, "");
        expect(await program.says("completed")).toEqual({ completed: "one" });
        await until(async () => (await client.call("daemon.stats", {})).connections.waiting === 1);
        await running.end(signal);
        await place.start();
        client = await place.connect();
        await client.call("queue.enqueue", { queue, payloads: [{ name: "two" }] });
        expect(await program.says("completed")).toEqual({ completed: "two" });
        expect((await client.call("queue.list", { queue })).batches.map(({ attempt }) => attempt)).toEqual([
          0, 0,
        ]);
      },
    );

    test("stops a handler whose claim is lost, and goes on with the next", async () => {
      const queue = "loses";
      const client = await connect();
      const program = start("work", socket(), queue, SHORT_LEASE_MS);
      await client.call("queue.enqueue", { queue, payloads: [{ name: "one", until: "/never" }] });
      await program.says("begun");
      program.child.kill("SIGSTOP");
      // Its lease passes while it stands still, and another takes the work.
      const { claim } = await client.call("queue.claim", { queue, owner: "test", waitMs: 60_000 });
      program.child.kill("SIGCONT");
      expect(await program.says("stopped")).toEqual({ stopped: "one", kind: "claim_lost" });
      expect(await program.says("error")).toMatchObject({ error: { kind: "claim_lost" } });
      await client.call("queue.complete", {
        claimId: claim?.claimId as string,
        leaseToken: claim?.leaseToken as string,
      });
      await client.call("queue.enqueue", { queue, payloads: [{ name: "two" }] });
      expect(await program.says("completed")).toEqual({ completed: "two" });
    });

    test("stops a handler when no daemon comes back in time", async () => {
      const queue = "alone";
      const place = new Place();
      const running = await place.start();
      const client = await place.connect();
      const program = start("work", place.socket, queue, SHORT_LEASE_MS);
      await client.call("queue.enqueue", { queue, payloads: [{ name: "one", until: "/never" }] });
      await program.says("begun");
      await running.end("SIGKILL");
      expect(await program.says("stopped")).toEqual({ stopped: "one", kind: "claim_lost" });
      await place.start();
      const { batches } = await (await place.connect()).call("queue.list", { queue });
      expect(batches).toHaveLength(1);
      expect(await program.says("begun")).toEqual({ begun: "one" });
    });

    const cancels = has("queue.cancel", "stop");
    if (!cancels) notYet("cancelling claimed work");
    test.runIf(cancels)("stops a handler whose claim is cancelled", async () => {
      const queue = "cancelled";
      const client = await connect();
      const program = start("work", socket(), queue, LONG_LEASE_MS);
      const { batch } = await client.call("queue.enqueue", {
        queue,
        payloads: [{ name: "one", until: "/never" }],
      });
      await program.says("begun");
      const params = { batchId: batch.batchId, stop: true, reason: "as told" };
      expect(await client.call("queue.cancel", params)).toMatchObject({ outcome: "cancelling" });
      expect(await program.says("stopped")).toEqual({ stopped: "one", kind: "claim_lost" });
      const stateOf = async () => (await client.call("queue.get", { batchId: batch.batchId })).batch.state;
      await until(async () => (await stateOf()) === "cancelled");
    });

    test("holds a lease while it is used, and is told when it is lost", async () => {
      const client = await connect();
      const first = start("lock", socket(), "deploy", SHORT_LEASE_MS);
      const { held } = await first.says("held");
      const second = start("lock", socket(), "deploy", SHORT_LEASE_MS);
      const lease = async () => (await client.call("lease.get", { name: "deploy" })).lease;
      const { expiresAt = 0 } = (await lease()) ?? {};
      await until(async () => ((await lease())?.expiresAt ?? 0) > expiresAt + 2 * SHORT_LEASE_MS);
      expect((await lease())?.fencingToken).toBe(held);
      first.tell("end");
      await first.says("released");
      expect(await second.says("held")).toEqual({ held: (held as number) + 1 });
      await client.call("lease.break", { name: "deploy", reason: "as told" });
      expect(await second.says("told")).toEqual({ told: "lease_lost" });
      expect(await second.says("lost")).toMatchObject({ lost: { kind: "lease_lost" } });
    });

    test("is told of the loss of a lease when it stood still, and when no daemon comes back", async () => {
      const place = new Place();
      const running = await place.start();
      const client = await place.connect();
      const still = start("lock", place.socket, "still", SHORT_LEASE_MS);
      const alone = start("lock", place.socket, "alone", SHORT_LEASE_MS);
      await still.says("held");
      await alone.says("held");
      still.child.kill("SIGSTOP");
      await client.call("lease.acquire", { name: "still", owner: "test", waitMs: 60_000 });
      still.child.kill("SIGCONT");
      expect(await still.says("told")).toEqual({ told: "lease_lost" });
      await running.end("SIGKILL");
      expect(await alone.says("told")).toEqual({ told: "lease_lost" });
      expect(await alone.says("lost")).toMatchObject({ lost: { kind: "lease_lost" } });
    });

    test("keeps a lease over a restart of the daemon", async () => {
      const place = new Place();
      const running = await place.start();
      const holder = start("lock", place.socket, "kept", LONG_LEASE_MS);
      const { held } = await holder.says("held");
      await running.end("SIGKILL");
      await place.start();
      const client = await place.connect();
      const lease = async () => (await client.call("lease.get", { name: "kept" })).lease;
      const { expiresAt = 0 } = (await lease()) ?? {};
      await until(async () => ((await lease())?.expiresAt ?? 0) > expiresAt + LONG_LEASE_MS / 2);
      expect((await lease())?.fencingToken).toBe(held);
      holder.tell("end");
      await holder.says("released");
      expect(await lease()).toBeNull();
    });

    test("carries out commands that the daemon sends, also after a restart", async () => {
      const place = new Place();
      const running = await place.start();
      const program = start("serve", place.socket, "builder");
      await program.says("ready");
      const send = async (commandName: string, params: unknown) => {
        const client = await place.connect();
        const { commandId } = await client.call("command.create", {
          deployment: "builder",
          command: commandName,
          params: params as never,
        });
        await client.call("command.wait", { commandId, waitMs: 60_000 });
        const { response } = await client.call("command.response", { commandId });
        await client.destroy();
        return response;
      };
      expect(await send("echo", { a: [1, "é"] })).toEqual({ status: "success", response: { a: [1, "é"] } });
      expect(await send("fail", 7)).toEqual({
        status: "error",
        code: "E_TOLD",
        message: "as told",
        details: { by: 7 },
      });
      expect(await send("other", null)).toMatchObject({ status: "error", code: "UNKNOWN_COMMAND" });
      // Too long for a line, it is sent in pieces.
      expect(await send("long", 2_000_000)).toMatchObject({ $upload: { sizeBytes: expect.any(Number) } });
      await running.end("SIGKILL");
      await place.start();
      expect(await send("echo", "again")).toEqual({ status: "success", response: "again" });
      const last = send("hang", null);
      await program.says("begun");
      program.tell("end");
      expect(await last).toEqual({ status: "success", response: "late" });
      await program.says("ended");
    });

    const reserves = has("path.reserve");
    if (!reserves) notYet("`reserve`");
    test.runIf(reserves)("holds a reservation of files, and is told when it is lost", async () => {
      const client = await connect();
      const root = privateDirectory();
      mkdirSync(join(root, "src"));
      const first = start("reserve", socket(), root, SHORT_LEASE_MS);
      await first.says("held");
      const second = start("reserve", socket(), root, SHORT_LEASE_MS);
      const call = client.call.bind(client) as (method: string, params: object) => Promise<unknown>;
      expect(await call("path.check", { root, path: "src/a.ts" })).toMatchObject({ allowed: false });
      expect(await call("path.check", { root, path: "docs/a.md" })).toMatchObject({ allowed: true });
      first.tell("end");
      await first.says("released");
      await second.says("held");
      second.child.kill("SIGSTOP");
      await call("path.reserve", { root, patterns: ["**"], owner: "test", waitMs: 60_000 });
      second.child.kill("SIGCONT");
      expect(await second.says("told")).toEqual({ told: "lease_lost" });
    });

    const tells = has("events.watch");
    if (!tells) notYet("`events`");
    test.runIf(tells)("follows events, and says where some may be missing", async () => {
      const place = new Place();
      const running = await place.start();
      const program = start("events", place.socket, "queue:*");
      await program.says("ready");
      const client = await place.connect();
      const { batch } = await client.call("queue.enqueue", { queue: "seen", payloads: [1] });
      expect(await program.says("event")).toEqual({ event: "enqueued", id: batch.batchId });
      await running.end("SIGKILL");
      await place.start();
      expect(await program.says("event")).toMatchObject({ event: "gap" });
    });
  });
}

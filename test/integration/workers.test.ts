// The whole workers in other languages that the documentation shows (test/workers/worker.*).
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, onTestFinished, test } from "vitest";
import { Place, privateDirectory, sharedDaemon } from "../daemon.js";
import { until } from "../until.js";

const WORKERS = join(import.meta.dirname, "../workers");
const MOST_LINES = 60;
/** With a connection that is kept, and all that docs/protocol.md says of one. */
const MOST_LINES_CONNECTED = 150;
/** The time that a worker has for a sign of life before its claim is another's. */
const LEASE_MS = 900;
/** The same over a restart of the daemon, which takes longer on a busy machine, and longest with a database to ask. */
const LONG_LEASE_MS = 12_000;

const LANGUAGES = [
  {
    file: "worker.py",
    needs: ["python3", "--version"],
    command: () => ["python3", join(WORKERS, "worker.py")],
  },
  { file: "worker.sh", needs: ["socat", "-V"], command: () => ["bash", join(WORKERS, "worker.sh")] },
  { file: "worker.c", needs: ["cc", "--version"], command: compiled },
  {
    file: "worker.pl",
    needs: ["perl", "-MJSON::PP", "-e", "1"],
    command: () => ["perl", join(WORKERS, "worker.pl")],
    mostLines: MOST_LINES_CONNECTED,
  },
];

/** The C worker as a program, compiled as its first line says; without a warning. */
function compiled(): string[] {
  const program = join(privateDirectory(), "worker");
  const { status, stderr } = spawnSync("cc", ["-Wall", "-Wextra", "-o", program, join(WORKERS, "worker.c")], {
    encoding: "utf8",
  });
  expect([status, stderr]).toEqual([0, ""]);
  return [program];
}

function isInstalled([program = "", ...args]: readonly string[]): boolean {
  return spawnSync(program, args).status === 0;
}

/** A command that starts another and waits for it, and leaves the pids of both in a file. */
const lasting = (pids: string): string =>
  `sleep 1000 & echo $$ $! > ${pids}.part; mv ${pids}.part ${pids}; wait`;

/** True if a process has ended, also if its parent has not taken notice. */
function hasEnded(pid: string): boolean {
  try {
    return /^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return true;
  }
}

/** The pids in a file, once it is there. */
async function pidsIn(path: string): Promise<string[]> {
  await until(() => existsSync(path));
  return readFileSync(path, "utf8").trim().split(" ");
}

/** Starts a worker that runs a shell script; `said` resolves once it has said so many things. */
function start(
  command: () => string[],
  {
    queue,
    script,
    socket,
    leaseMs = LEASE_MS,
  }: { queue: string; script: string; socket: string; leaseMs?: number },
): { child: ChildProcess; said: (count: number) => Promise<string[]>; complaints: () => string[] } {
  const [first = "", ...rest] = command();
  const child = spawn(first, [...rest, socket, queue, "sh", "-c", script], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LEASE_MS: String(leaseMs) },
    detached: true,
  });
  onTestFinished(async () => {
    // It takes the command along that it may be running.
    child.kill("SIGTERM");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  });
  let stderr = "";
  child.stderr?.on("data", (chunk) => {
    stderr += chunk;
  });
  const lines: string[] = [];
  let look = (): void => {};
  createInterface({ input: child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
    lines.push(line);
    look();
  });
  const said = (count: number): Promise<string[]> =>
    new Promise((resolve) => {
      look = () => lines.length >= count && resolve(lines);
      look();
    });
  return { child, said, complaints: () => stderr.split("\n").filter((line) => line !== "") };
}

describe.each(LANGUAGES)("$file", ({ file, needs, command, mostLines = MOST_LINES }) => {
  const isThere = isInstalled(needs);
  const daemon = sharedDaemon();
  if (!isThere) console.warn(`tests of ${file} are skipped: ${needs[0]} is not installed`);
  const startHere = (queue: string, script: string) =>
    start(command, { queue, script, socket: daemon().place.socket });

  test(`has fewer than ${mostLines} lines`, () => {
    expect(readFileSync(join(WORKERS, file), "utf8").trim().split("\n").length).toBeLessThan(mostLines);
  });

  test.runIf(isThere)(
    "completes what succeeds, gives back what fails, and renews what takes long",
    async () => {
      const queue = `does-${file}`;
      const client = await daemon().place.connect();
      onTestFinished(() => client.destroy());
      const output = join(privateDirectory(), "done");
      // The second fails; the last takes more than twice as long as the lease.
      const payloads = [
        { name: "one" },
        { name: "fail" },
        // A payload that looks like an answer is none.
        { name: "three", error: { code: 1, data: { kind: "claim_lost" } }, claimId: "another" },
        { name: "slow" },
      ];
      for (const payload of payloads) {
        await client.call("queue.enqueue", { queue, payloads: [payload], maxAttempts: 1 });
      }
      const { said } = startHere(
        queue,
        `claim=$(cat); case $claim in *fail*) exit 3;; *slow*) sleep 2;; esac; printf '%s\\n' "$claim" >> ${output}`,
      );
      expect(await said(4)).toEqual(["completed", "abandoned", "completed", "completed"]);
      const done = readFileSync(output, "utf8").trim().split("\n");
      expect(done.map((line) => /"name":\s*"(\w+)/.exec(line)?.[1])).toEqual(["one", "three", "slow"]);
      for (const line of done) expect(JSON.parse(line)).toBeTypeOf("object");
      const [stats] = (await client.call("queue.stats", { queue })).queues;
      expect(stats).toMatchObject({ ready: 0, claimed: 0, completed: 3, dead: 1 });
    },
  );

  test.runIf(isThere)("stops when its claim is lost, and goes on with the next", async () => {
    const queue = `loses-${file}`;
    const client = await daemon().place.connect();
    onTestFinished(() => client.destroy());
    const pids = join(privateDirectory(), "pids");
    await client.call("queue.enqueue", { queue, payloads: [{ name: "first" }] });
    const { child, said } = startHere(queue, `grep -q second || { ${lasting(pids)}; }`);
    const stats = async () => (await client.call("queue.stats", { queue })).queues[0];
    const running = await pidsIn(pids);
    process.kill(-(child.pid as number), "SIGSTOP");
    // Its lease passes while it stands still, and another takes the work.
    const { claim } = await client.call("queue.claim", { queue, owner: "test", waitMs: 60_000 });
    expect(claim?.batches).toHaveLength(1);
    expect(running.map(hasEnded)).toEqual([false, false]);
    process.kill(-(child.pid as number), "SIGCONT");
    expect(await said(1)).toEqual(["lost"]);
    // With what it had started.
    await until(() => running.every(hasEnded));
    await client.call("queue.enqueue", { queue, payloads: [{ name: "second" }] });
    expect(await said(2)).toEqual(["lost", "completed"]);
    expect(await stats()).toMatchObject({ claimed: 1, completed: 1 });
  });
});

describe("all of them", () => {
  const languages = LANGUAGES.filter(({ needs }) => isInstalled(needs));

  test("go on with a daemon that was started again, at work and idle", async () => {
    const place = new Place();
    let running = await place.start();
    let client = await place.connect();
    const workers = [];
    for (const { file: queue, command } of languages) {
      const [begun, finish] = [
        join(place.directory, `${queue}.begun`),
        join(place.directory, `${queue}.finish`),
      ];
      await client.call("queue.enqueue", { queue, payloads: ["first"] });
      const script = `echo begun >> ${begun}; until [ -e ${finish} ]; do sleep 0.01; done`;
      const options = { queue, script, socket: place.socket, leaseMs: LONG_LEASE_MS };
      workers.push({ queue, begun, finish, ...start(command, options) });
    }
    const expiresAt = async (queue: string) =>
      (await client.call("queue.explain", { queue })).holder?.expiresAt as number;
    const before = new Map<string, number>();
    for (const { queue, begun } of workers) {
      await until(() => existsSync(begun));
      before.set(queue, await expiresAt(queue));
    }
    await running.end("SIGKILL");
    running = await place.start();
    client = await place.connect();
    for (const { queue, begun, finish, said } of workers) {
      await until(async () => (await expiresAt(queue)) > (before.get(queue) as number));
      writeFileSync(finish, "");
      expect(await said(1)).toEqual(["completed"]);
      expect(readFileSync(begun, "utf8")).toBe("begun\n");
    }

    // They wait for work now.
    const outcomes = ["completed"];
    const idle = async () => (await client.call("daemon.stats", {})).connections.waiting === workers.length;
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      await until(idle);
      const complained = workers.map(({ complaints }) => complaints().length);
      await running.end(signal);
      for (const [index, { complaints }] of workers.entries())
        await until(() => complaints().length > (complained[index] as number));
      running = await place.start();
      client = await place.connect();
      outcomes.push("completed");
      for (const { queue, said } of workers) {
        await client.call("queue.enqueue", { queue, payloads: [signal] });
        expect(await said(outcomes.length)).toEqual(outcomes);
      }
    }
    for (const { complaints } of workers) {
      // One line for each time, however often it was tried meanwhile.
      expect(complaints().length).toBeLessThanOrEqual(3);
      for (const line of complaints())
        expect(line).toMatch(/(No daemon answers|is stopping).* Asking again\.$/);
    }
  });

  test("stop when no daemon comes back in time, and when they are stopped", async () => {
    const place = new Place();
    const running = await place.start();
    const client = await place.connect();
    const workers = [];
    for (const { file: queue, command } of languages) {
      const pids = join(place.directory, queue);
      await client.call("queue.enqueue", { queue, payloads: ["first"] });
      workers.push({ pids, ...start(command, { queue, script: lasting(pids), socket: place.socket }) });
    }
    const first: string[][] = [];
    for (const { pids } of workers) first.push(await pidsIn(pids));
    for (const { pids } of workers) rmSync(pids);
    await running.end("SIGKILL");
    for (const [index, { said }] of workers.entries()) {
      expect(await said(1)).toEqual(["lost"]);
      await until(() => (first[index] as string[]).every(hasEnded));
    }
    await place.start();
    for (const { pids, child, complaints } of workers) {
      const second = await pidsIn(pids);
      expect(second.map(hasEnded)).toEqual([false, false]);
      child.kill("SIGTERM");
      await once(child, "exit");
      await until(() => second.every(hasEnded));
      // Of the claim that could not be renewed, and of the next that was asked for.
      expect(complaints()).toHaveLength(2);
    }
  });
});

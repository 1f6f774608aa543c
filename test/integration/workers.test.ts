// The whole workers in other languages that the documentation shows (test/workers/worker.*).
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, onTestFinished, test } from "vitest";
import { privateDirectory, sharedDaemon } from "../daemon.js";

const WORKERS = join(import.meta.dirname, "../workers");
const MOST_LINES = 60;
/** What a worker has for a sign of life before its claim is another's. */
const LEASE_MS = 900;

const LANGUAGES = [
  {
    file: "worker.py",
    needs: ["python3", "--version"],
    command: () => ["python3", join(WORKERS, "worker.py")],
  },
  { file: "worker.sh", needs: ["socat", "-V"], command: () => ["bash", join(WORKERS, "worker.sh")] },
  { file: "worker.c", needs: ["cc", "--version"], command: compiled },
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

describe.each(LANGUAGES)("$file", ({ file, needs, command }) => {
  const [program = "", ...args] = needs;
  const isThere = spawnSync(program, args).status === 0;
  const daemon = sharedDaemon();
  if (!isThere) console.warn(`tests of ${file} are skipped: ${program} is not installed`);

  /** Starts a worker that runs a shell script; `said` resolves once it has said so many things. */
  function start(
    queue: string,
    script: string,
  ): { child: ChildProcess; said: (count: number) => Promise<string[]> } {
    const [first = "", ...rest] = command();
    const child = spawn(first, [...rest, daemon().place.socket, queue, "sh", "-c", script], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, LEASE_MS: String(LEASE_MS) },
      detached: true,
    });
    onTestFinished(() => {
      // With the command that it may be running.
      process.kill(-(child.pid as number), "SIGKILL");
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
    return { child, said };
  }

  test(`has fewer than ${MOST_LINES} lines`, () => {
    expect(readFileSync(join(WORKERS, file), "utf8").trim().split("\n").length).toBeLessThan(MOST_LINES);
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
        // What looks like an answer in what is to be done is none.
        { name: "three", error: { code: 1, data: { kind: "claim_lost" } }, claimId: "another" },
        { name: "slow" },
      ];
      for (const payload of payloads) {
        await client.call("queue.enqueue", { queue, payloads: [payload], maxAttempts: 1 });
      }
      const { said } = start(
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
    const output = join(privateDirectory(), "begun");
    await client.call("queue.enqueue", { queue, payloads: [{ name: "first" }] });
    const { child, said } = start(
      queue,
      `cat > /dev/null; echo begun >> ${output}; sleep 0.$(wc -l < ${output})`,
    );
    const stats = async () => (await client.call("queue.stats", { queue })).queues[0];
    while ((await stats())?.claimed !== 1);
    process.kill(-(child.pid as number), "SIGSTOP");
    // Its lease passes while it stands still, and another takes the work.
    const { claim } = await client.call("queue.claim", { queue, owner: "test", waitMs: 60_000 });
    expect(claim?.batches).toHaveLength(1);
    process.kill(-(child.pid as number), "SIGCONT");
    expect(await said(1)).toEqual(["lost"]);
    await client.call("queue.enqueue", { queue, payloads: [{ name: "second" }] });
    expect(await said(2)).toEqual(["lost", "completed"]);
    expect(await stats()).toMatchObject({ claimed: 1, completed: 1 });
  });
});

// `pawl lock` and `pawl leases`: a command that runs only while its lease is held, whoever is killed.
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { sharedDaemon, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { until } from "../until.js";
import { pawl, startPawl } from "./cli-program.js";

const DONE = 0;
const REFUSED = 1;
const USAGE = 2;

/** The state of a process, as proc_pid_stat(5) has it: T is stopped. */
function stateOf(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  return stat.slice(stat.lastIndexOf(")") + 2)[0] as string;
}

/** Says that it runs and stays; what it starts stays too, and holds its output open. */
const TREE = ["sh", "-c", "sleep 600 & echo running $$; wait"];

/** The same, and no signal ends it but KILL. */
const DEAF = ["sh", "-c", "trap '' TERM; sleep 600 & echo running $$; while :; do wait; done"];

/** The pid that it says, once it runs. */
async function pidOf(held: ReturnType<typeof startPawl>): Promise<string> {
  await held.printed(/running \d+/);
  return /running (\d+)/.exec(held.stdout)?.[1] as string;
}

/** False of a process that nobody has waited for yet, too. */
function isRunning(pid: string): boolean {
  try {
    return stateOf(Number(pid)) !== "Z";
  } catch {
    return false;
  }
}

/** Kills pawl while its guard is stopped: the lease stays held until that goes on, and kills the command. */
async function killBeforeItsGuard(
  held: ReturnType<typeof startPawl>,
  name: string,
  client: RawClient,
): Promise<void> {
  const guards = readdirSync("/proc").filter((pid) => isGuardOf(pid, held.child.pid));
  expect(guards).toHaveLength(1);
  const guard = Number(guards[0]);
  process.kill(guard, "SIGSTOP");
  held.child.kill("SIGKILL");
  await once(held.child, "exit");
  for (let look = 0; look < 5; look++) {
    expect((await client.call("lease.get", { name })).lease).not.toBeNull();
  }
  process.kill(guard, "SIGCONT");
}

function isGuardOf(pid: string, parent: number | undefined): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const isChild = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1] === String(parent);
    return isChild && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("pawl-guard");
  } catch {
    return false;
  }
}

/** Says whether a process still runs; one that nobody has waited for yet does not. */
function look(pid: string): string[] {
  return ["sh", "-c", `grep -qs '^State:.[^ZX]' /proc/${pid}/status && echo it goes on || echo it is gone`];
}

describe("a command under a lease", () => {
  const daemon = sharedDaemon();
  const run = (args: string[], input?: string) =>
    pawl(args, { socket: daemon().place.socket, ...(input === undefined ? {} : { input }) });
  const start = (args: string[]) => startPawl(args, { socket: daemon().place.socket });

  test("has the token in its environment, the input and output of pawl, and its exit code is that of pawl", async () => {
    const first = await run(
      ["lock", "env", "--", "sh", "-c", 'echo "$PAWL_LEASE $PAWL_FENCING_TOKEN"; cat; exit 7'],
      "in\n",
    );
    expect(first).toEqual({ code: 7, stdout: "env 1\nin\n", stderr: "" });
    const second = await run([
      "lock",
      "env",
      "--",
      "sh",
      "-c",
      'echo "$PAWL_FENCING_TOKEN"; echo no >&2; kill -9 $$',
    ]);
    expect(second).toEqual({ code: 128 + 9, stdout: "2\n", stderr: "no\n" });
  });

  test("options after the two dashes are its own", async () => {
    expect((await run(["lock", "dashes", "--", "echo", "--help", "-h", "--json", "--", "x"])).stdout).toBe(
      "--help -h --json -- x\n",
    );
  });

  test("does not get the connection to the daemon, and leads a process group of its own", async () => {
    // The first three are pipes of this test, which Node makes of sockets.
    const script =
      "for fd in /proc/$$/fd/*; do case $fd in */[012]) ;; *) readlink $fd;; esac; done | grep -c socket:; ps -o pgid= -p $$; echo $$";
    const held = start(["lock", "group", "--", "sh", "-c", script]);
    const { stdout } = await held.ended;
    const [sockets, group, pid] = stdout.trim().split(/\s+/);
    expect(sockets).toBe("0");
    expect(group).toBe(pid);
    expect(Number(group)).not.toBe(held.pid);
  });

  test("that is not there or cannot be run exits as in a shell, and the lease is free again", async () => {
    const missing = await run(["lock", "broken", "--", "no-such-program"]);
    expect(missing).toEqual({
      code: 127,
      stdout: "",
      stderr: 'pawl: There is no program "no-such-program" to run.\n',
    });
    expect((await run(["lock", "broken", "--", "/etc"])).code).toBe(126);
    expect((await run(["lock", "broken", "--", "true"])).code).toBe(DONE);
  });

  test("is not run while another holds the lease", async () => {
    const holder = start(["lock", "held", "--owner", "first", "--", ...TREE]);
    await holder.printed(/running/);
    const refused = await run(["lock", "held", "--", "echo", "never"]);
    expect([refused.code, refused.stdout]).toEqual([REFUSED, ""]);
    expect(refused.stderr).toMatch(
      /^pawl: held is held by first, for \d+(\.\d)? s more .*--wait.* \[lease_held\]\n$/,
    );
    const waited = await run(["lock", "held", "--wait", "50ms", "--", "echo", "never"]);
    expect(waited.stderr).toMatch(
      /^pawl: held is still held by first, .* after a wait of 50 ms\. .* \[lease_held\]\n$/,
    );
    const json = await run(["lock", "held", "--json", "--", "echo", "never"]);
    expect(json.code).toBe(REFUSED);
    expect(JSON.parse(json.stderr)).toMatchObject({
      code: -32012,
      data: {
        kind: "lease_held",
        retryable: true,
        holder: { owner: "first", remainingMs: expect.any(Number) },
      },
    });
    await holder.end("SIGTERM");
  });

  test("exits as it was told to where the lease is not to be had, and only then", async () => {
    const holder = start(["lock", "flock", "--shared", "--owner", "first", "--", ...TREE]);
    await holder.printed(/running/);
    const refused = await run(["lock", "flock", "--conflict-exit-code", "0", "--", "echo", "never"]);
    expect(refused).toMatchObject({ code: 0, stdout: "" });
    expect(refused.stderr).toMatch(/^pawl: flock is held by first/);
    expect((await run(["lock", "flock", "-E", "75", "--wait", "20ms", "--", "true"])).code).toBe(75);
    expect((await run(["lock", "flock", "-E", "75", "--shared", "--", "sh", "-c", "exit 3"])).code).toBe(3);
    expect((await run(["lock", "flock", "-E", "75", "--slots", "2", "--", "true"])).code).toBe(USAGE);
    await holder.end("SIGTERM");
  });

  test("has a line for each of several names, and the members of a pool", async () => {
    const set = await run(["lease", "set", "pool", "--members", "x,y,z"]);
    expect(set).toEqual({ code: DONE, stdout: "pool has 3 slots.\n", stderr: "" });
    const script = 'echo "$PAWL_LEASE|$PAWL_FENCING_TOKEN|$PAWL_MEMBER"';
    expect((await run(["lock", "pool", "--slots", "2", "--", "sh", "-c", script])).stdout).toBe(
      "pool|1|x\ny\n",
    );
    const several = await run(["lock", "several/a", "several/b", "--", "sh", "-c", script]);
    expect(several.stdout).toBe("several/a\nseveral/b|1\n1|\n");
    const holder = start(["lock", "pool", "--owner", "first", "--", ...TREE]);
    await holder.printed(/running/);
    const shown = await run(["lease", "show", "pool"]);
    expect(shown.stdout).toMatch(/^pool has 3 slots, 2 free\.\nfirst \(x\) has \d+(\.\d)? s left\.\n$/);
    const table = (await run(["leases", "poo"])).stdout.split("\n");
    expect(table[0]).toMatch(/TOKEN +AS +HELD FOR/);
    expect(table[1]).toMatch(/^pool +first +\d+ +2 +x /);
    expect((await run(["leases", "several"])).stderr).toBe("No leases are held.\n");
    await holder.end("SIGTERM");
  });

  test.each([
    [["lease", "set", "n"]],
    [["lease", "set", "n", "--slots", "2", "--members", "a"]],
    [["lease", "show", "n", "--slots", "2"]],
    [["lease", "give", "n"]],
    [["lease", "set", "n", "--members", "a,a"]],
    [["lease", "set", "n", "--slots", "0"]],
  ])("%j is bad usage", async (args) => {
    expect((await run(args)).code).toBe(USAGE);
  });

  test("waits its turn with --wait, and says for whom", async () => {
    const holder = start(["lock", "turn", "--owner", "first", "--", ...TREE]);
    await holder.printed(/running/);
    const second = start(["lock", "turn", "--wait", "1m", "--", "echo", "second"]);
    await second.complained(/^Waiting for turn, which first, pid \d+ has held for .*\.\n$/);
    expect(second.stdout).toBe("");
    await holder.end("SIGTERM");
    expect(await second.ended).toMatchObject({ code: DONE, stdout: "second\n" });
  });

  test("gets the signals that pawl gets, and decides", async () => {
    const script =
      "trap 'echo bye; exit 5' TERM; trap 'echo more' HUP; echo running; while :; do sleep 0.05; done";
    const held = start(["lock", "signals", "--", "sh", "-c", script]);
    await held.printed(/running/);
    held.child.kill("SIGHUP");
    await held.printed(/more/);
    expect(await held.end("SIGTERM")).toMatchObject({ code: 5, stdout: "running\nmore\nbye\n" });
    expect((await run(["lock", "signals", "--", "true"])).code).toBe(DONE);
  });

  test("is stopped with pawl by Ctrl-Z, and goes on with it", async () => {
    // It starts nothing: a shell that does could be caught in its vfork, and is then not shown as stopped.
    const held = start(["lock", "stopped", "--", "sh", "-c", "echo $$; exec sleep 600"]);
    await held.printed(/\d+\n/);
    const pid = Number(held.stdout);
    held.child.kill("SIGTSTP");
    await until(() => stateOf(held.pid) === "T" && stateOf(pid) === "T");
    held.child.kill("SIGCONT");
    await until(() => stateOf(held.pid) !== "T" && stateOf(pid) !== "T");
    await held.end("SIGTERM");
  });

  test("stopped past its ttl it does not go on: it is ended", async () => {
    const script = "trap '' TERM; echo $$; while :; do sleep 0.05; echo alive; done";
    const held = start(["lock", "overslept", "--ttl", "500ms", "--", "sh", "-c", script]);
    await held.printed(/alive/);
    held.child.kill("SIGTSTP");
    await until(() => stateOf(held.pid) === "T");
    const next = await run([
      "lock",
      "overslept",
      "--wait",
      "10s",
      "--",
      "sh",
      "-c",
      "echo $PAWL_FENCING_TOKEN",
    ]);
    expect([next.code, next.stdout]).toEqual([DONE, "2\n"]);
    const before = held.stdout;
    held.child.kill("SIGCONT");
    const { code, stdout, stderr } = await held.ended;
    expect(code).toBe(REFUSED);
    expect(stderr).toContain("[lease_lost]");
    // It had time for a moment before it was killed, not for a loop that went on.
    expect(stdout.length - before.length).toBeLessThan("alive\n".length * 20);
  });

  test("is ended when the lease is broken, and killed if it does not listen; pawl exits with 1", async () => {
    const script = "trap 'echo told' TERM; sleep 600 & echo running; while :; do wait; done";
    const held = start(["lock", "broken-by-force", "--ttl", "2s", "--", "sh", "-c", script]);
    await held.printed(/running/);
    await run(["call", "lease.break", '{"name":"broken-by-force","reason":"maintenance"}']);
    const { code, stdout, stderr } = await held.ended;
    expect([code, stdout]).toEqual([REFUSED, "running\ntold\n"]);
    expect(stderr).toMatch(/broken by force: maintenance\. \[lease_lost\]/);
  });

  test("dies with all it has started when pawl is killed, and the next one waits for nothing", async () => {
    const held = start(["lock", "killed", "--ttl", "10m", "--", ...TREE]);
    await held.printed(/running/);
    const next = start(["lock", "killed", "--wait", "1m", "--", "echo", "mine"]);
    await next.complained(/^Waiting/);
    // Its output closes only when nobody is left who could write to it.
    expect((await held.end("SIGKILL")).code).toBe("SIGKILL");
    expect(await next.ended).toMatchObject({ code: DONE, stdout: "mine\n" });
  });

  test("is not left behind, at whatever moment pawl is killed", async () => {
    for (let round = 0; round < 5; round++) {
      const killed = Array.from({ length: 6 }, async (_, index) => {
        const held = start(["lock", `moment-${round}-${index}`, "--", ...TREE]);
        await new Promise((resolve) => setTimeout(resolve, 80 + Math.random() * 300));
        // Resolves when the output is closed by everybody who could have written to it.
        return await held.end("SIGKILL");
      });
      for (const { stdout } of await Promise.all(killed)) expect(stdout).toMatch(/^(running \d+\n)?$/);
    }
  });

  test("has ended before the next one is granted the lease, when pawl is killed", async () => {
    const client = await daemon().place.connect();
    const held = start(["lock", "gone", "--", ...DEAF]);
    const pid = await pidOf(held);
    await killBeforeItsGuard(held, "gone", client);
    const { lease } = await client.call("lease.acquire", { name: "gone", owner: "next", waitMs: 60_000 });
    expect(lease.fencingToken).toBe(2);
    expect(isRunning(pid)).toBe(false);
  });

  test.each([
    ["is told to", "SIGCONT"],
    ["is stopped", "SIGSTOP"],
  ] as const)(
    "has ended before the next one is granted the lease, when pawl %s and loses it",
    async (_, signal) => {
      const held = start(["lock", "on-loss", "--on-loss", "TERM:200ms", "--", ...DEAF]);
      const pid = await pidOf(held);
      const next = start(["lock", "on-loss", "--wait", "1m", "--", ...look(pid)]);
      await next.complained(/^Waiting/);
      held.child.kill(signal);
      await run(["call", "lease.break", '{"name":"on-loss","reason":"maintenance"}']);
      expect(await next.ended).toMatchObject({ code: DONE, stdout: "it is gone\n" });
      await held.ended;
    },
  );

  test("bad usage runs nothing", async () => {
    const loss = await run(["lock", "name", "--on-loss", "STOP:1s", "--", "echo", "x"]);
    expect([loss.code, loss.stdout, loss.stderr]).toEqual([
      USAGE,
      "",
      expect.stringContaining("--on-loss takes one of TERM, INT"),
    ]);
    expect((await run(["lock", "name", "--on-loss", "TERM:soon", "--", "echo"])).code).toBe(USAGE);
    expect((await run(["lock", "name", "--on-loss", "TERM:1h", "--", "echo"])).code).toBe(USAGE);
    const noDashes = await run(["lock", "name", "echo", "x"]);
    expect([noDashes.code, noDashes.stdout]).toEqual([USAGE, ""]);
    expect(noDashes.stderr).toContain("The command to run is missing. Put it after two dashes");
    const shared = await run(["lock", "name", "--shared", "--slots", "2", "--", "echo", "x"]);
    expect([shared.code, shared.stdout]).toEqual([USAGE, ""]);
    expect((await run(["lock", "name", "-E", "256", "--", "echo"])).code).toBe(USAGE);
    const nothing = await run(["lock", "name"]);
    expect([nothing.code, nothing.stderr]).toEqual([
      USAGE,
      expect.stringContaining("The command to run is missing"),
    ]);
    const emptyTtl = await run(["lock", "name", "--ttl", "soon", "--", "echo", "x"]);
    expect([emptyTtl.code, emptyTtl.stdout]).toEqual([USAGE, ""]);
    expect(emptyTtl.stderr).toContain(`--ttl takes milliseconds, or 90s, 5m, 2h, 1d; not "soon".`);
    const tooShort = await run(["lock", "name", "--ttl", "5", "--", "echo", "x"]);
    expect([tooShort.code, tooShort.stdout, tooShort.stderr]).toEqual([
      USAGE,
      "",
      expect.stringContaining("--ttl must be at least 100, not 5."),
    ]);
  });
});

describe("when the daemon is killed", () => {
  test("and comes back, the command goes on and keeps its lease", async () => {
    const daemon = await startDaemon();
    const { place } = daemon;
    spawnSync("mkfifo", [`${place.directory}/fifo`]);
    const held = startPawl(["lock", "n", "--", "sh", "-c", "echo running; read -r line < fifo; echo done"], {
      socket: place.socket,
      cwd: place.directory,
    });
    await held.printed(/running/);
    await daemon.end("SIGKILL");
    const again = await place.start();
    const client = await place.connect();
    // It has been renewed once it belongs to a connection again and its whole ttl is left.
    await until(async () => {
      const { lease } = await client.call("lease.get", { name: "n" });
      expect(lease?.fencingToken).toBe(1);
      return (lease?.remainingMs ?? 0) > 10_000;
    });
    spawnSync("sh", ["-c", `echo go > ${place.directory}/fifo`]);
    expect(await held.ended).toEqual({ code: DONE, stdout: "running\ndone\n", stderr: "" });
    expect((await client.call("lease.get", { name: "n" })).lease).toBeNull();
    await again.end();
  });

  test("and comes back, the next one waits for the end of a command as before", async () => {
    const daemon = await startDaemon();
    const { place } = daemon;
    const held = startPawl(["lock", "n", "--", ...DEAF], { socket: place.socket });
    const pid = await pidOf(held);
    await daemon.end("SIGKILL");
    await place.start();
    const client = await place.connect();
    await until(
      async () => ((await client.call("lease.get", { name: "n" })).lease?.remainingMs ?? 0) >= 10_000,
    );
    await killBeforeItsGuard(held, "n", client);
    await client.call("lease.acquire", { name: "n", owner: "next", waitMs: 60_000 });
    expect(isRunning(pid)).toBe(false);
  });

  test("and does not come back, the command is ended before another could hold the lease", async () => {
    const daemon = await startDaemon();
    const held = startPawl(["lock", "n", "--ttl", "1s", "--", ...TREE], { socket: daemon.place.socket });
    await held.printed(/running/);
    const startedAt = performance.now();
    await daemon.end("SIGKILL");
    const { code, stderr } = await held.ended;
    expect(performance.now() - startedAt).toBeLessThan(1500);
    expect([code, stderr]).toEqual([REFUSED, expect.stringContaining("[lease_lost]")]);
  });
});

test("leases is a table of who holds what, and all of it in JSON", async () => {
  const daemon = await startDaemon();
  const { socket } = daemon.place;
  expect(await pawl(["leases"], { socket })).toEqual({
    code: DONE,
    stdout: "",
    stderr: "No leases are held.\n",
  });
  const held = startPawl(["lock", "deploy", "--note", "release 1.2", "--", ...TREE], { socket });
  await held.printed(/running/);
  const waiter = startPawl(["lock", "deploy", "--wait", "1m", "--", "true"], { socket });
  await waiter.complained(/^Waiting/);
  const { stdout } = await pawl(["leases"], { socket });
  const [titles, row] = stdout.split("\n");
  expect(titles?.split(/ {2,}/)).toEqual([
    "NAME",
    "OWNER",
    "PID",
    "TOKEN",
    "HELD FOR",
    "ENDS IN",
    "WAITING",
    "NOTE",
  ]);
  expect(row).toMatch(
    new RegExp(
      `^deploy +sh:${held.pid} +${held.pid} +1 +\\d+(\\.\\d)? m?s +\\d+(\\.\\d)? s +1 +release 1\\.2$`,
    ),
  );
  const client = await daemon.place.connect();
  // The note of an agent's session is for programs: people see the role, and where it works.
  const mark = { pid: 1, startTicks: 2, pidSpace: "pid:[3]", session: "s~1" };
  const sessionsOf = { ada: ["reviewer", "/srv/shop"], ben: ["", "/srv/shop"], cid: ["", ""] };
  for (const [name, [role, worktree]] of Object.entries(sessionsOf)) {
    const note = JSON.stringify({ ...mark, role, worktree });
    await client.call("lease.acquire", { name: `session/${name}`, owner: name, note });
  }
  await client.call("lease.acquire", { name: "session/other", owner: "x", note: "{" });
  const sessions = (await pawl(["leases", "session/"], { socket })).stdout;
  expect(sessions).toMatch(
    /ada .* reviewer in \/srv\/shop\n.*ben .* s +\/srv\/shop\n.*cid .* s\n.*other .* \{\n$/,
  );
  for (let index = 0; index < 1005; index++) {
    void client.call("lease.acquire", { name: `n${index}`, owner: "test" });
  }
  await client.call("lease.acquire", { name: "last", owner: "test" });
  const all = JSON.parse((await pawl(["leases", "--json"], { socket })).stdout).leases;
  expect(all).toHaveLength(1011);
  expect(all[0]).toMatchObject({ name: "deploy", note: "release 1.2", waiters: 1, pid: held.pid });
});

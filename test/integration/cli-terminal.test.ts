// Programs that `pawl lock`, `work` and `serve` run, as under flock(1), nohup and make: the terminal, signals that are
// ignored, descriptors that are inherited; and what they have started ends when it must.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { PAWL, sharedDaemon, startDaemon } from "../daemon.js";
import { hasTerminals, onTerminal } from "../terminal.js";
import { until } from "../until.js";
import { PawlProcess, pawl } from "./cli-program.js";

const daemon = sharedDaemon();
const socket = (): string => daemon().place.socket;
const CTRL_C = "\x03";
const CTRL_D = "\x04";
const CTRL_Z = "\x1a";

describe.skipIf(!hasTerminals)("on a terminal", () => {
  const lock = (name: string, ...command: string[]) =>
    onTerminal([PAWL, "lock", name, "--socket", socket(), "--", ...command]);

  test("the command reads and writes the terminal", async () => {
    const run = lock("tty", "sh", "-c", 'echo ready; read a </dev/tty; echo "got $a" >/dev/tty; exit 7');
    await run.printed(/ready/);
    run.type("hello\r");
    const { code, stdout } = await run.ended;
    expect(stdout).toContain("got hello");
    expect(code).toBe(7);
  });

  test("pawl events says what it follows and how to end it, and not where a program reads", async () => {
    const enqueue = () => pawl(["enqueue", "told", "1"], { socket: socket() });
    const args = ["events", "queue:told", "--socket", socket()];
    const run = onTerminal([PAWL, ...args]);
    await run.printed(/Following queue:told\. Ctrl-C ends it\./);
    await until(async () => {
      await enqueue();
      return run.stdout.includes("enqueued");
    });
    run.type(CTRL_C);
    await run.ended;
    for (const command of [
      [PAWL, ...args, "--json"],
      ["sh", "-c", '"$@" | cat', "sh", PAWL, ...args],
    ]) {
      const other = onTerminal(command);
      await until(async () => {
        await enqueue();
        return other.stdout.includes("enqueued");
      });
      expect(other.stdout).not.toContain("Following");
      other.type(CTRL_C);
      await other.ended;
    }
  });

  test("a password is typed without being shown", async () => {
    const ask = "import getpass; print('length', len(getpass.getpass()))";
    const run = lock("password", "python3", "-c", ask);
    await run.printed(/Password:/);
    run.type("secret\r");
    expect((await run.ended).stdout).toMatch(/length 6/);
    expect(run.stdout).not.toContain("secret");
  });

  test("the size of the window is told", async () => {
    const run = lock(
      "size",
      "sh",
      "-c",
      `trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done`,
    );
    await run.printed(/ready/);
    run.resize();
    expect((await run.ended).stdout).toContain("50 120");
  });

  test("Ctrl-C reaches the command once", async () => {
    const counts = `trap 'n=$((n+1)); echo int' INT; echo ready; until read a; do :; done; echo "count $n"`;
    const run = lock("ctrl-c", "sh", "-c", counts);
    await run.printed(/ready/);
    run.type(CTRL_C);
    await run.printed(/int/);
    run.type("go\r");
    expect((await run.ended).stdout).toContain("count 1");
  });

  test("a signal that only pawl gets is passed on", async () => {
    const run = lock(
      "passed",
      "sh",
      "-c",
      `trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done`,
    );
    await run.printed(/ready/);
    process.kill(await run.programPid(), "SIGTERM");
    const { code, stdout } = await run.ended;
    expect([code, stdout]).toEqual([3, expect.stringContaining("term")]);
  });

  test("Ctrl-Z stops it and fg goes on, in a shell", async () => {
    const shell = onTerminal(["bash", "--norc", "--noprofile", "-i"], { TERM: "dumb" });
    await shell.printed(/[$#] $/);
    shell.type(`'${PAWL}' lock jobs --socket '${socket()}' -- sh -c 'echo beg""un; cat; echo fin""ished'\r`);
    await shell.printed(/begun/);
    shell.type(CTRL_Z);
    await shell.printed(/Stopped[\s\S]*[$#] $/);
    shell.type("fg\r");
    await shell.printed(/fg\r\n.* lock jobs .*\r\n/);
    shell.type("some text\r");
    await shell.printed(/some text[\s\S]*some text/);
    shell.type(CTRL_D);
    await shell.printed(/finished[\s\S]*[$#] $/);
    shell.type("exit 5\r");
    expect((await shell.ended).code).toBe(5);
  });

  test("in the background of a shell it does not take the terminal", async () => {
    const shell = onTerminal(["bash", "--norc", "--noprofile", "-i"], { TERM: "dumb" });
    await shell.printed(/[$#] $/);
    shell.type(
      `'${PAWL}' lock background --socket '${socket()}' -- sh -c 'echo beg""un; read a; echo "got $a"' &\r`,
    );
    await shell.printed(/begun/);
    // Reading the terminal from the background stops the job. While it runs, fg could come in between.
    shell.type("wait %1; echo still he''re\r");
    await shell.printed(/Stopped[\s\S]*still here[\s\S]*[$#] $|still here[\s\S]*Stopped[\s\S]*[$#] $/);
    shell.type("fg\r");
    await shell.printed(/fg\r\n.* lock background .*\r\n/);
    shell.type("later\r");
    await shell.printed(/got later[\s\S]*[$#] $/);
    shell.type("exit 0\r");
    expect((await shell.ended).code).toBe(0);
  });

  test("killed, pawl takes all with it that the command has started on the terminal", async () => {
    // The second one has lost its parent, the third its environment too.
    const starts = "sleep 600 & (sleep 600 &); env -i sleep 600 & echo ready; wait";
    const run = lock("killed", "sh", "-c", starts);
    await run.printed(/ready/);
    process.kill(await run.programPid(), "SIGKILL");
    // The terminal is closed once nobody has it open any more.
    await run.ended;
    // The daemon may come to the end of that connection in the same moment as to this one.
    await until(async () => {
      const { stdout } = await pawl(["leases", "--json"], { socket: socket() });
      return !stdout.includes('"name":"killed"');
    });
  });

  test("a lost lease ends all that the command has started", async () => {
    const own = await startDaemon();
    const run = onTerminal([
      ...[PAWL, "lock", "lost", "--ttl", "1s", "--socket", own.place.socket, "--"],
      ...["sh", "-c", "trap '' TERM; (sleep 600 &); echo ready; sleep 600"],
    ]);
    await run.printed(/ready/);
    own.child.kill("SIGKILL");
    expect((await run.ended).code).toBe(1);
    expect(run.stdout).toContain("lease_lost");
  });

  test("Ctrl-C gives the batch of a worker back, and counts no attempt", async () => {
    await pawl(["enqueue", "typed", "1"], { socket: socket() });
    const works = ["sh", "-c", "echo ready; read a </dev/tty; echo got $a; sleep 600"];
    const run = onTerminal([PAWL, "work", "typed", "--socket", socket(), "--", ...works]);
    await run.printed(/ready/);
    run.type("text\r");
    await run.printed(/got text/);
    run.type(CTRL_C);
    expect((await run.ended).code).toBe(0);
    const { stdout } = await pawl(["call", "queue.list", '{"queue":"typed"}', "--json"], {
      socket: socket(),
    });
    expect(JSON.parse(stdout).batches[0]).toMatchObject({ state: "ready", attempt: 0 });
  });
});

/** Runs `pawl` by its first line, as a shell does, with more descriptors than the three streams. */
function direct(
  args: readonly string[],
  before: readonly string[] = [],
  more: ("ignore" | "pipe")[] = [],
): PawlProcess {
  const [program = "", ...rest] = [...before, PAWL, ...args];
  return new PawlProcess(spawn(program, rest, { stdio: ["pipe", "pipe", "pipe", ...more] }));
}

describe("inherited signals and descriptors", () => {
  test.each([
    ["lock", ["lock", "nohup"]],
    ["work", ["work", "nohup"]],
  ])("nohup pawl %s goes on after SIGHUP, and so does what it runs", async (name, args) => {
    await pawl(["enqueue", "nohup", "1"], { socket: socket() });
    const goOn = "echo begun; read a; grep SigIgn /proc/self/status; kill -HUP $$; echo finished";
    const command =
      name === "lock"
        ? ["sh", "-c", goOn]
        : ["sh", "-c", `read batch; ${goOn.replace("read a", "sleep 0.2")}`];
    const run = direct([...args, "--socket", socket(), "--", ...command], ["nohup"]);
    await run.printed(/begun/);
    run.child.kill("SIGHUP");
    run.child.stdin?.end("go\n");
    await run.printed(/SigIgn:\s*[0-9a-f]*[13579bdf]\n[\s\S]*finished/);
    if (name === "work") run.child.kill("SIGTERM");
    expect((await run.ended).code).toBe(0);
  });

  test("descriptors are handed on under their numbers", async () => {
    const list =
      "for fd in /proc/self/fd/*; do [ -e $fd ] && echo ${fd##*/}; done | tr '\\n' ' '; echo >&5 five; echo done";
    const more = ["pipe", "pipe", "pipe"] as const;
    const run = direct(["lock", "descriptors", "--socket", socket(), "--", "sh", "-c", list], [], [...more]);
    let five = "";
    (run.child.stdio as unknown as NodeJS.ReadableStream[])[5]?.on("data", (text) => {
      five += text;
    });
    expect(await run.ended).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^0 1 2 (\d+ )*3 4 5 (\d+ )*done/),
    });
    expect(five).toBe("five\n");
  });

  test("a descriptor beyond ten, and all of one digit taken", async () => {
    const more = Array.from({ length: 10 }, () => "pipe" as const);
    const run = direct(
      ["lock", "many", "--socket", socket(), "--", "bash", "-c", "echo x >&12 && echo done"],
      [],
      more,
    );
    expect(await run.ended).toMatchObject({ code: 0, stdout: "done\n" });
  });

  test.skipIf(spawnSync("make", ["--version"]).status !== 0)("a jobserver of make is handed on", () => {
    const directory = mkdtempSync(join(tmpdir(), "pawl-make-"));
    writeFileSync(
      join(directory, "Makefile"),
      `all:\n\t+@'${PAWL}' lock make --socket '${socket()}' -- $(MAKE) -f inner.mk\n`,
    );
    writeFileSync(join(directory, "inner.mk"), "all: a b\na b:\n\t@echo $@\n");
    const { status, stdout, stderr } = spawnSync("make", ["-j3", "--no-print-directory"], {
      cwd: directory,
      encoding: "utf8",
      env: { ...process.env, MAKEFLAGS: undefined },
    });
    expect([status, stderr, stdout.split("\n").sort().join("")]).toEqual([0, "", "ab"]);
  });
});

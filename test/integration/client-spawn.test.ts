import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { ConnectionLost, connect, type PawlClient, type SpawnOptions } from "@pawl/client";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { type ClientProcess, startProgram } from "../client-process.js";
import { PAWLD, Place } from "../daemon.js";

/** How a daemon is spawned in tests: this repository's, with its state in the test's place. */
function spawnOptions(place: Place, ...args: string[]): SpawnOptions {
  return { command: [process.execPath, PAWLD], args: ["--state-dir", place.stateDir, ...args] };
}

/** The pids of all daemons that were told to listen on a socket. */
function daemonsOn(socket: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const [, ...args] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        return args[0] === PAWLD && args.includes(socket);
      } catch {
        return false;
      }
    })
    .map(Number);
}

/** A place whose daemons, which nobody of this test started directly, are ended with the test. */
function spawnPlace(): Place {
  const place = new Place();
  onTestFinished(async () => {
    for (const pid of daemonsOn(place.socket)) process.kill(pid, "SIGKILL");
    while (daemonsOn(place.socket).length > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  });
  return place;
}

async function connectTo(place: Place): Promise<PawlClient> {
  const pawl = await connect({ socket: place.socket });
  onTestFinished(() => pawl.close());
  return pawl;
}

async function failure(options: SpawnOptions, place: Place): Promise<{ error: Error; tookMs: number }> {
  const began = performance.now();
  try {
    (await connect({ socket: place.socket, spawn: options })).close();
  } catch (error) {
    return { error: error as Error, tookMs: performance.now() - began };
  }
  throw new Error("a daemon was started");
}

const SPAWN_AND_COUNT = `
  const pawl = await connect({ socket: args[0], spawn: args[1] });
  const { pid } = await pawl.daemon.info();
  const { seq } = await pawl.sequence.next({ type: "FR" });
  print({ pid, seq });
  pawl.close();`;

describe("many at once", () => {
  test("20 processes end up with one daemon, and all are served by it", async () => {
    const place = spawnPlace();
    const programs = Array.from({ length: 20 }, () =>
      startProgram(SPAWN_AND_COUNT, [place.socket, spawnOptions(place)]),
    );
    const answers = await Promise.all(
      programs.map((program) => program.line<{ pid: number; seq: number }>(0)),
    );
    expect(await Promise.all(programs.map(({ exited }) => exited))).toEqual(Array(20).fill(0));
    const [{ pid } = { pid: 0 }] = answers;
    expect(new Set(answers.map((answer) => answer.pid))).toEqual(new Set([pid]));
    expect(answers.map(({ seq }) => seq).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 20 }, (_, index) => index + 1),
    );
    expect(daemonsOn(place.socket)).toEqual([pid]);
  });

  test("of one process too", async () => {
    const place = spawnPlace();
    const clients = await Promise.all(
      Array.from({ length: 5 }, () => connect({ socket: place.socket, spawn: spawnOptions(place) })),
    );
    onTestFinished(() => {
      for (const pawl of clients) pawl.close();
    });
    const pids = await Promise.all(clients.map(async (pawl) => (await pawl.daemon.info()).pid));
    expect(new Set(pids).size).toBe(1);
    expect(daemonsOn(place.socket)).toEqual([pids[0]]);
  });

  test("one that was killed while it started a daemon leaves the turn to the others", async () => {
    const place = spawnPlace();
    const never = { command: [process.execPath, "-e", "setInterval(() => {}, 1000)", "--"], args: [] };
    const stuck = startProgram(
      `connect({ socket: args[0], spawn: args[1] }).catch(() => {}); print("starting");`,
      [place.socket, never],
    );
    await stuck.line(0);
    const other = startProgram(SPAWN_AND_COUNT, [place.socket, spawnOptions(place)]);
    const child = await vi.waitFor(() => childOf(stuck.child.pid as number), { timeout: 10_000 });
    await stuck.end("SIGKILL");
    process.kill(child, "SIGKILL");
    expect(await other.line(0)).toMatchObject({ seq: 1 });
  });

  test("a daemon that runs already is taken, and none is started", async () => {
    const place = spawnPlace();
    const daemon = await place.start();
    const pawl = await connect({ socket: place.socket, spawn: { command: ["/nonexistent"] } });
    onTestFinished(() => pawl.close());
    expect((await pawl.daemon.info()).pid).toBe(daemon.pid);
  });
});

describe("the daemon", () => {
  test("outlives who started it, also when that is killed with its whole process group", async () => {
    const place = spawnPlace();
    const program = startProgram(
      `${SPAWN_AND_COUNT} await connect({ socket: args[0] });`,
      [place.socket, spawnOptions(place)],
      { detached: true },
    );
    const { pid } = await program.line<{ pid: number }>(0);
    for (const signal of ["SIGINT", "SIGHUP", "SIGKILL"] as const) {
      try {
        process.kill(-(program.child.pid as number), signal);
      } catch {
        // It ended by the signal before.
      }
    }
    await program.exited;
    const pawl = await connectTo(place);
    expect((await pawl.daemon.info()).pid).toBe(pid);
    expect((await pawl.sequence.next({ type: "FR" })).seq).toBe(2);
  });

  test("holds no descriptor, terminal or session of who started it", async () => {
    const place = spawnPlace();
    // Descriptors above the standard ones stand for the locks and pipes that shells leave open for programs.
    const stdio = Array.from({ length: 41 }, (_, fd) =>
      fd < 4 || fd === 20 || fd === 40 ? "pipe" : "ignore",
    );
    const program: ClientProcess = startProgram(SPAWN_AND_COUNT, [place.socket, spawnOptions(place)], {
      stdio: stdio as "pipe"[],
    });
    const { pid } = await program.line<{ pid: number }>(0);
    const ends = [1, 2, 3, 20, 40].map((fd) => {
      const pipe = program.child.stdio[fd] as NodeJS.ReadableStream;
      pipe.resume();
      return new Promise((resolve) => pipe.once("end", resolve));
    });
    // Each pipe ends although the daemon lives: it does not have the other end.
    expect(await program.exited).toBe(0);
    await Promise.all(ends);
    expect(daemonsOn(place.socket)).toEqual([pid]);

    const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    expect(open.filter((target) => /^pipe:|^\/dev\/(tty|pts)/.test(target)).filter(isShared(pid))).toEqual(
      [],
    );
    // Fields of proc_pid_stat(5) after the name in parentheses: state ppid pgrp session tty_nr.
    const [, , group, session, terminal] = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    expect([Number(group), Number(session), Number(terminal)]).toEqual([pid, pid, 0]);
  });

  test("is not told that it is a service, whatever its starter was told", async () => {
    const place = spawnPlace();
    const env = {
      NOTIFY_SOCKET: "/run/none",
      WATCHDOG_USEC: "1",
      LISTEN_FDS: "1",
      LISTEN_PID: "1",
      KEPT: "yes",
    };
    const program = startProgram(SPAWN_AND_COUNT, [place.socket, spawnOptions(place)], { env });
    const { pid } = await program.line<{ pid: number }>(0);
    const names = readFileSync(`/proc/${pid}/environ`, "utf8")
      .split("\0")
      .map((entry) => entry.split("=")[0]);
    expect(names.filter((name) => name !== undefined && name in env)).toEqual(["KEPT"]);
  });

  test("logs to a file where one is named", async () => {
    const place = spawnPlace();
    const log = join(place.directory, "pawld.log");
    const pawl = await connect({ socket: place.socket, spawn: { ...spawnOptions(place), log } });
    onTestFinished(() => pawl.close());
    await pawl.daemon.ping();
    expect(readFileSync(log, "utf8")).toContain('"msg":"listening"');
  });

  test("is found beside the client when no command is named", async () => {
    const place = spawnPlace();
    const program = startProgram(SPAWN_AND_COUNT, [place.socket, { args: ["--state-dir", place.stateDir] }]);
    const { pid } = await program.line<{ pid: number }>(0);
    expect(daemonsOn(place.socket)).toEqual([pid]);
  });
});

describe("a daemon that does not start", () => {
  test("fails at once with its own words when its options are wrong", async () => {
    const place = spawnPlace();
    const { error, tookMs } = await failure(spawnOptions(place, "--mode", "sideways"), place);
    expect(error).toBeInstanceOf(ConnectionLost);
    expect(error.message).toMatch(/^Started .* but it ended with 2: pawld: --mode must be one of .*sideways/);
    expect(tookMs).toBeLessThan(5000);
  });

  test("fails soon with its own words when it refuses the database", async () => {
    const place = spawnPlace();
    await (await place.start({ args: ["--mode", "distributed", "--node-id", "7"] })).end();
    const { error, tookMs } = await failure(spawnOptions(place, "--mode", "centralized"), place);
    expect(error).toBeInstanceOf(ConnectionLost);
    expect(error.message).toMatch(/it ended with 3: pawld: .*--accept-mode-change/s);
    expect(tookMs).toBeLessThan(8000);
  });

  test("fails at once when there is no such program", async () => {
    const place = spawnPlace();
    const { error, tookMs } = await failure({ command: ["/nonexistent/pawld"] }, place);
    expect(error).toBeInstanceOf(ConnectionLost);
    expect(error.message).toBe(
      `No daemon listens on ${place.socket}, and there is no program /nonexistent/pawld to start. Install one with npm install @pawl/daemon, or name it in $PAWLD.`,
    );
    expect(tookMs).toBeLessThan(2000);
  });

  test("is given up after the time that was set, and said to run on", async () => {
    const place = spawnPlace();
    const never = {
      command: [process.execPath, "-e", "console.error('thinking'); setInterval(() => {}, 1000)", "--"],
    };
    const { error, tookMs } = await failure({ ...never, timeoutMs: 1500 }, place);
    const [, pid] = /still runs as pid (\d+): thinking/.exec(error.message) ?? [];
    onTestFinished(() => void process.kill(Number(pid), "SIGKILL"));
    expect(Number(pid)).toBeGreaterThan(1);
    expect(tookMs).toBeLessThan(4000);
  });
});

/** The pid of a process that another has started; throws while there is none. */
function childOf(parent: number): number {
  for (const name of readdirSync("/proc").filter((each) => /^\d+$/.test(each))) {
    const status = existsSync(`/proc/${name}/status`) ? readFileSync(`/proc/${name}/status`, "utf8") : "";
    if (status.includes(`\nPPid:\t${parent}\n`)) return Number(name);
  }
  throw new Error(`${parent} has started no process`);
}

/** True if another process has the same pipe or terminal: Node has some pipes to itself. */
function isShared(pid: number): (target: string) => boolean {
  return (target) =>
    readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name) && Number(name) !== pid)
      .some((other) => {
        try {
          return readdirSync(`/proc/${other}/fd`).some((fd) => {
            try {
              return readlinkSync(`/proc/${other}/fd/${fd}`) === target;
            } catch {
              return false;
            }
          });
        } catch {
          return false;
        }
      });
}

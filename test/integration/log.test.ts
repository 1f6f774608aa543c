// The log cannot be written, or its reader does not read: the daemon goes on (spec: operations.md, Faults from
// outside).
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, constants, openSync, readFileSync, readSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { connect } from "@pawl/client";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { LogWriter } from "../../daemon/dist/log/log-writer.js";
import { PAWLD, Place, privateDirectory, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { mountDisk, noMount } from "../small-disk.js";

/** A stop takes no longer (spec: operations.md). */
const STOP_MS = 5000;

/** A daemon whose standard output a test has chosen. */
class Logging {
  readonly place = new Place();
  readonly child: ChildProcess;
  readonly exited: Promise<number | NodeJS.Signals>;
  #over = false;

  constructor(stdout: number | "pipe", wrapper: string[] = []) {
    const pawld = [
      process.execPath,
      PAWLD,
      "--socket",
      this.place.socket,
      "--state-dir",
      this.place.stateDir,
    ];
    const [program, ...args] = [...wrapper, ...pawld] as [string, ...string[]];
    this.child = spawn(program, args, { stdio: ["ignore", stdout, "ignore"] });
    this.exited = new Promise((resolve) =>
      this.child.once("exit", (code, signal) => {
        this.#over = true;
        resolve(signal ?? code ?? -1);
      }),
    );
    onTestFinished(async () => {
      this.child.kill("SIGKILL");
      await this.exited;
    });
  }

  /** A connection, once the daemon listens. */
  async client(): Promise<RawClient> {
    for (;;) {
      try {
        return await this.place.connect();
      } catch (error) {
        if (this.#over) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** Serves, counts so many lines as dropped or more, and stops when it is told to. */
  async isWell(client: RawClient, { dropped }: { dropped: number }): Promise<void> {
    await client.refusal("lease.get", {} as never);
    expect((await client.call("sequence.next", { type: "FR" })).seq).toBeGreaterThan(0);
    await vi.waitFor(
      async () =>
        expect((await client.call("daemon.stats", {})).logLinesDropped).toBeGreaterThanOrEqual(dropped),
      { timeout: 10_000 },
    );
    await this.stops();
  }

  async stops(): Promise<void> {
    const began = performance.now();
    this.child.kill("SIGTERM");
    expect(await this.exited).toBe(0);
    expect(performance.now() - began).toBeLessThan(STOP_MS);
  }
}

/** A pipe that has a name, open at both ends. */
function namedPipe(): { path: string; fd: number } {
  const path = join(privateDirectory(), "pipe");
  expect(spawnSync("mkfifo", [path]).status).toBe(0);
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  onTestFinished(() => closeSync(fd));
  return { path, fd };
}

/** The writing end of a pipe, to be given to a program. */
function writingEnd(path: string): number {
  const fd = openSync(path, constants.O_WRONLY);
  onTestFinished(() => closeSync(fd));
  return fd;
}

/** Fills a pipe with empty lines, so that who writes to it has to wait. */
function fillPipe(fd: number): void {
  for (let bytes = 4096; bytes >= 1; ) {
    try {
      writeSync(fd, "\n".repeat(bytes));
    } catch {
      bytes = Math.floor(bytes / 2);
    }
  }
}

/** The lines that are in a pipe now. */
function drain(fd: number): string[] {
  const read: Buffer[] = [];
  const buffer = Buffer.alloc(64 * 1024);
  try {
    for (;;) read.push(Buffer.from(buffer.subarray(0, readSync(fd, buffer))));
  } catch {
    return Buffer.concat(read).toString().split("\n").filter(Boolean);
  }
}

describe("a daemon goes on, and stops as ever, when its log", () => {
  test("is a full disk: /dev/full", async () => {
    const full = openSync("/dev/full", "w");
    onTestFinished(() => closeSync(full));
    const daemon = new Logging(full);
    await daemon.isWell(await daemon.client(), { dropped: 2 });
  });

  test("has lost its reader", async () => {
    const daemon = new Logging("pipe");
    daemon.child.stdout?.destroy();
    await daemon.isWell(await daemon.client(), { dropped: 1 });
  });

  test("has a reader that has stopped, of which only a thread hears", async () => {
    const { path, fd } = namedPipe();
    fillPipe(fd);
    const daemon = new Logging(writingEnd(path));
    await daemon.isWell(await daemon.client(), { dropped: 0 });
  });

  test("has a reader that goes on: then it gets every line", async () => {
    const { path, fd } = namedPipe();
    fillPipe(fd);
    const daemon = new Logging(writingEnd(path));
    const client = await daemon.client();
    await client.refusal("lease.get", {} as never);
    const lines: string[] = [];
    await vi.waitFor(() => {
      lines.push(...drain(fd));
      expect(lines.map((line) => JSON.parse(line).msg)).toEqual(["listening", "refused"]);
    });
    await daemon.stops();
    expect(drain(fd).map((line) => JSON.parse(line).msg)).toEqual(["stopping", "stopped"]);
  });

  test("and everything else is closed at the start", async () => {
    const daemon = new Logging("pipe", ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-']);
    await daemon.isWell(await daemon.client(), { dropped: 0 });
  });

  test("is not read, and it is told twice to stop: then it ends at once", async () => {
    const { path, fd } = namedPipe();
    fillPipe(fd);
    const daemon = new Logging(writingEnd(path));
    const client = await daemon.client();
    // It is given time to read its answers, as long as it does not.
    client.socket.pause();
    for (let sent = 0; sent < 64; sent += 1)
      client.send({ jsonrpc: "2.0", id: sent, method: "rpc.discover" });
    await daemon.client().then((other) => other.call("daemon.ping", {}));
    daemon.child.kill("SIGTERM");
    await new Promise((resolve) => setTimeout(resolve, 100));
    daemon.child.kill("SIGTERM");
    expect(await daemon.exited).toBe(1);
  });
});

test.skipIf(noMount !== undefined)(
  "a log on a full disk says, once there is space, how many lines were dropped",
  async () => {
    const directory = privateDirectory();
    expect(mountDisk(directory, 64 * 1024)).toBeUndefined();
    onTestFinished(() => void spawnSync("umount", ["-l", directory]));
    const path = join(directory, "log");
    const log = openSync(path, "a");
    const daemon = new Logging(log);
    closeSync(log);
    const client = await daemon.client();
    await vi.waitFor(() => expect(readFileSync(path, "utf8")).toContain("listening"));

    const filler = join(directory, "filler");
    spawnSync("sh", ["-c", `cat /dev/zero >${filler}`]);
    // The rest of the page that the log has already takes more; a page is soon full.
    const kinds = [];
    for (let method = 0; method < 200; method += 1) kinds.push(client.refusal("lease.get", {} as never));
    await Promise.all(kinds);
    // By empty lines: whatever fits, the next line of the daemon begins a line.
    spawnSync("sh", ["-c", `tr '\\0' '\\n' </dev/zero | head -c 8192 >>${path}`]);
    await client.refusal("sequence.next", {} as never);
    await vi.waitFor(async () =>
      expect((await client.call("daemon.stats", {})).logLinesDropped).toBeGreaterThan(0),
    );
    rmSync(filler);
    await vi.waitFor(() => expect(readFileSync(path, "utf8")).toContain("log lines were dropped"), {
      timeout: 10_000,
    });
    const told = readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line.includes('"dropped"'))
      // It may follow what filled the page, without a line's end between them.
      .map((line) => JSON.parse(line.slice(line.indexOf("{"))))
      .at(0);
    expect(told).toMatchObject({
      level: "warn",
      dropped: (await client.call("daemon.stats", {})).logLinesDropped,
    });
    await daemon.stops();
  },
);

const noTerminal = spawnSync("script", ["--version"]).error?.message;
if (noTerminal !== undefined) console.warn(`The test of a log on a terminal is skipped: ${noTerminal}.`);

test.skipIf(noTerminal !== undefined)(
  "a terminal that was stopped with Ctrl-S holds up nobody, and shows who calls",
  async () => {
    const place = new Place();
    const command = `exec ${process.execPath} ${PAWLD} --socket ${place.socket} --state-dir ${place.stateDir}`;
    const terminal = spawn("script", ["-qfec", command, "/dev/null"], { stdio: ["pipe", "pipe", "ignore"] });
    const exited = new Promise((resolve) => terminal.once("exit", resolve));
    onTestFinished(async () => {
      terminal.kill("SIGKILL");
      await exited;
    });
    let shown = "";
    terminal.stdout.on("data", (chunk) => {
      shown += chunk;
    });
    await vi.waitFor(() => expect(shown).toContain("listening"), { timeout: 30_000 });
    const client = await place.connect();
    await client.refusal("lease.get", {} as never);
    await vi.waitFor(() =>
      expect(shown).toContain(`<connection 1, pid ${process.pid}, uid ${process.getuid?.()}>`),
    );
    terminal.stdin.write("\x13");
    for (let round = 0; round < 20; round += 1) {
      await client.refusal("sequence.next", {} as never);
      await client.call("sequence.next", { type: "FR" });
    }
    terminal.stdin.write("\x11\x03");
    expect(await exited).toBe(0);
  },
);

test("connect({ spawn: { log } }) names a pipe that nobody reads, and does not wait for a reader", async () => {
  const path = join(privateDirectory(), "pipe");
  expect(spawnSync("mkfifo", [path]).status).toBe(0);
  const place = new Place();
  const command = [process.execPath, PAWLD, "--state-dir", place.stateDir];
  await expect(connect({ socket: place.socket, spawn: { command, log: path } })).rejects.toThrow(
    `spawn.log is ${path}, a pipe that nobody reads`,
  );
});

describe("the writer of the log", () => {
  const line = `${"x".repeat(1023)}\n`;

  test("keeps 1 MiB for a reader that has stopped, counts what is more, and says so after it", async () => {
    const { path, fd } = namedPipe();
    fillPipe(fd);
    const writer = new LogWriter(writingEnd(path), (dropped) => writer.write(`dropped ${dropped}\n`));
    writer.write("first\n");
    // A thread has it by then, and waits.
    await vi.waitFor(() => expect(writer.isHeldUp).toBe(true));
    for (let sent = 0; sent < 1100; sent += 1) writer.write(line);
    expect(writer.dropped).toBe(1100 - 1024);
    writer.write("last\n");

    const read: string[] = [];
    await vi.waitFor(
      () => {
        read.push(...drain(fd));
        expect(read.at(-1)).toBe(`dropped ${1100 - 1024 + 1}`);
      },
      { interval: 1, timeout: 20_000 },
    );
    expect(read.slice(0, 2)).toEqual(["first", line.trim()]);
    expect(read).toHaveLength(1 + 1024 + 1);
    writer.write("and on\n");
    await writer.close(10_000);
    expect(drain(fd)).toEqual(["and on"]);
  });

  test("is not held up by a pipe that is not to be waited for, and loses nothing", async () => {
    const { fd } = namedPipe();
    fillPipe(fd);
    const writer = new LogWriter(fd, () => {});
    writer.write("first\n");
    await new Promise((resolve) => setTimeout(resolve, 10));
    drain(fd);
    await writer.close(10_000);
    expect([drain(fd), writer.dropped]).toEqual([["first"], 0]);
  });

  test("writes what waits before a process ends, as far as there is room", () => {
    const { fd } = namedPipe();
    const writer = new LogWriter(fd, () => {});
    writer.write("fatal\n");
    writer.flush(() => true);
    expect(drain(fd)).toEqual(["fatal"]);
    writer.write("nobody reads it\n");
    writer.flush(() => false);
    expect(drain(fd)).toEqual([]);
  });
});

describe("a client", () => {
  test("that is refused thousands of times writes a line, and a count", async () => {
    const daemon = await startDaemon();
    const client = await daemon.place.connect();
    await client.call("lease.acquire", { name: "held", owner: "a" });
    const held = Array.from({ length: 2000 }, () =>
      client.refusal("lease.acquire", { name: "held", owner: "b" }),
    );
    const wrong = Array.from({ length: 500 }, () => client.refusal("sequence.next", {} as never));
    await Promise.all([...held, ...wrong]);
    const first = await daemon.logged(({ msg, kind }) => msg === "refused" && kind === "lease_held");
    expect(first).toMatchObject({ method: "lease.acquire", caller: { pid: process.pid } });
    // Within 10 s, and without another call.
    expect(
      await daemon.logged(({ msg, kind }) => msg === "refused again" && kind === "lease_held"),
    ).toMatchObject({
      level: "info",
      method: "lease.acquire",
      times: 1999,
    });
    const { errors } = await client.call("daemon.stats", {});
    expect(errors).toMatchObject({ "lease.acquire": { lease_held: 2000 } });
    await client.refusal("lease.acquire", { name: "held", owner: "b" });
    expect(await daemon.end()).toBe(0);
    // But for what is told of a place of shared names.
    const told = daemon.log.filter(({ place }) => place === undefined);
    expect(told.map(({ msg, times }) => [msg, times])).toEqual([
      ["listening", undefined],
      ["refused", undefined],
      ["refused", undefined],
      ["refused again", 1999],
      ["refused again", 499],
      ["stopping", undefined],
      ["refused again", 1],
      ["stopped", undefined],
    ]);
  });

  test("that breaks leases all the time does not fill the log either", async () => {
    const daemon = await startDaemon();
    const client = await daemon.place.connect();
    for (let round = 0; round < 70; round += 1) {
      await client.call("lease.acquire", { name: "held", owner: "a" });
      await client.call("lease.break", { name: "held", reason: "test" });
    }
    expect(await daemon.end()).toBe(0);
    expect(daemon.log.filter(({ msg }) => msg === "lease broken")).toHaveLength(50);
    expect(daemon.log).toContainEqual(expect.objectContaining({ msg: "lease broken again", times: 20 }));
  });
});

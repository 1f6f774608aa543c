// The daemon and its supervisor (sd_notify(3), sd_listen_fds(3)), without systemd itself.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import Database from "better-sqlite3";
import { expect, onTestFinished, test } from "vitest";
import { takePassed } from "../../daemon/dist/socket/supervisor.js";
import { type DaemonProcess, PAWLD, Place, privateDirectory } from "../daemon.js";
import { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";
import { pawl } from "./cli-program.js";

const hasSocat = spawnSync("socat", ["-V"]).status === 0;
const hasActivation = spawnSync("systemd-socket-activate", ["--version"]).status === 0;
const SCHEMA = join(import.meta.dirname, "../../daemon/store/schema");

/** Receives what is sent to a notify socket, as lines. */
class Supervisor {
  readonly address: string;
  readonly lines: string[] = [];
  readonly pid: number;
  #wanted: (() => void)[] = [];

  private constructor(address: string, receiver: string) {
    this.address = address;
    const child = spawn("socat", ["-u", receiver, "STDOUT"], { stdio: ["ignore", "pipe", "inherit"] });
    this.pid = child.pid as number;
    onTestFinished(() => void child.kill("SIGKILL"));
    createInterface({ input: child.stdout }).on("line", (line) => {
      this.lines.push(line);
      for (const look of this.#wanted) look();
    });
  }

  /** At a path, or by an abstract name. */
  static async open(abstract = false): Promise<Supervisor> {
    const path = join(privateDirectory(), "notify");
    const supervisor = new Supervisor(
      abstract ? `@${path}` : path,
      `${abstract ? "ABSTRACT" : "UNIX"}-RECV:${path}`,
    );
    const bound = () => readFileSync("/proc/net/unix", "utf8").includes(`${supervisor.address}\n`);
    while (!bound()) await new Promise((resolve) => setTimeout(resolve, 5));
    return supervisor;
  }

  /** Waits for so many lines that fit, of those from one on. */
  async told(pattern: RegExp, times = 1, from = 0): Promise<string[]> {
    const found = (): string[] => this.lines.slice(from).filter((line) => pattern.test(line));
    if (found().length < times) {
      await new Promise<void>((resolve) => {
        this.#wanted.push(() => found().length >= times && resolve());
      });
    }
    return found();
  }
}

test.runIf(hasSocat).each([
  ["a path", false],
  ["an abstract name", true],
])("READY, STATUS, WATCHDOG and STOPPING, at %s", async (_, abstract) => {
  const supervisor = await Supervisor.open(abstract);
  const place = new Place();
  const daemon = await place.start({
    env: { NOTIFY_SOCKET: supervisor.address, WATCHDOG_USEC: "100000" },
  });
  await supervisor.told(/^WATCHDOG=1$/, 3);
  expect(supervisor.lines.slice(0, 4)).toEqual([
    "STATUS=Opening the database",
    // A new database is made at once.
    expect.stringMatching(/^EXTEND_TIMEOUT_USEC=\d+$/),
    expect.stringMatching(/^STATUS=Migrating the database: version 0 of \d+, \d+ MB$/),
    "READY=1",
  ]);
  expect(supervisor.lines.indexOf("STATUS=Serving 0 connections")).toBe(
    supervisor.lines.indexOf("READY=1") + 1,
  );
  const client = await place.connect();
  await supervisor.told(/^STATUS=Serving 1 connection$/);
  await client.destroy();
  await supervisor.told(/^STATUS=Serving 0 connections$/, 2);
  expect(await daemon.end()).toBe(0);
  await supervisor.told(/^STATUS=Stopping \(SIGTERM\)$/);
  expect(supervisor.lines.slice(-2)).toEqual(["STOPPING=1", "STATUS=Stopping (SIGTERM)"]);
});

test.runIf(hasSocat)("the signs of life are those of the event loop", async () => {
  const supervisor = await Supervisor.open();
  const daemon = await new Place().start({
    env: { NOTIFY_SOCKET: supervisor.address, WATCHDOG_USEC: "20000" },
  });
  await supervisor.told(/^WATCHDOG=1$/, 2);
  daemon.child.kill("SIGSTOP");
  await until(() => /^State:\s+T/m.test(readFileSync(`/proc/${daemon.pid}/status`, "utf8")));
  // Messages of before it stood still arrive first.
  await new Promise((resolve) => setTimeout(resolve, 100));
  const before = supervisor.lines.length;
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(supervisor.lines.length).toBe(before);
  daemon.child.kill("SIGCONT");
  await supervisor.told(/^WATCHDOG=1$/, before);
});

test.runIf(hasSocat)(
  "a time longer than timers last is no reason to give signs of life all the time",
  async () => {
    const supervisor = await Supervisor.open();
    const place = new Place();
    await place.start({
      env: { NOTIFY_SOCKET: supervisor.address, WATCHDOG_USEC: String(2 ** 32 * 1000 * 3) },
    });
    const client = await place.connect();
    await supervisor.told(/^STATUS=Serving 1 connection$/);
    await client.destroy();
    await supervisor.told(/^STATUS=Serving 0 connections$/, 2);
    expect(supervisor.lines.filter((line) => line === "WATCHDOG=1")).toHaveLength(1);
  },
);

test.runIf(hasSocat)("each step of a migration is given time before it is made", async () => {
  const supervisor = await Supervisor.open();
  const place = new Place();
  await (await place.start()).end();
  // As the first release would have left it: everything that later steps made is taken away.
  const path = join(place.stateDir, "pawl.db");
  const { length } = spawnSync("ls", [SCHEMA], { encoding: "utf8" }).stdout.trim().split("\n");
  const old = new Database(path);
  old.pragma("foreign_keys = OFF");
  const first = new Database(":memory:").exec(readFileSync(join(SCHEMA, "0001-core.sql"), "utf8"));
  const kept = new Set(first.prepare("SELECT name FROM sqlite_schema").pluck().all());
  // An index of words has tables of its own, which go with it.
  const tables = old
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY sql NOT LIKE 'CREATE VIRTUAL %'")
    .pluck()
    .all() as string[];
  for (const table of tables) {
    if (!kept.has(table) && !table.startsWith("sqlite_")) old.exec(`DROP TABLE IF EXISTS ${table}`);
  }
  old.prepare("UPDATE pawl_meta SET value = '1' WHERE key = 'schema_version'").run();
  old.close();

  await place.start({ env: { NOTIFY_SOCKET: supervisor.address } });
  await supervisor.told(/^READY=1$/);
  const told = supervisor.lines.slice(0, supervisor.lines.indexOf("READY=1"));
  expect(told.filter((line) => line.startsWith("STATUS=Migrating"))).toEqual(
    Array.from({ length: length - 1 }, (_, index) =>
      expect.stringContaining(`STATUS=Migrating the database: version ${index + 1} of ${length}`),
    ),
  );
  const times = told.filter((line) => line.startsWith("EXTEND_TIMEOUT_USEC="));
  expect(times.length).toBe(length - 1);
  for (const time of times) expect(Number(time.split("=")[1])).toBeGreaterThanOrEqual(60e6);
});

test.runIf(hasSocat)("a daemon that cannot start says why", async () => {
  const supervisor = await Supervisor.open();
  const place = new Place();
  const first = await place.start();
  const second = place.spawn({ env: { NOTIFY_SOCKET: supervisor.address } });
  expect(await second.exited).toBe(3);
  const [said] = await supervisor.told(/^STATUS=Could not start/);
  expect(said).toContain(`The process with pid ${first.pid} writes the database`);
  expect(supervisor.lines).not.toContain("READY=1");
});

test.runIf(hasSocat)("a supervisor that does not read holds nothing up, and loses nothing", async () => {
  const supervisor = await Supervisor.open();
  const place = new Place();
  process.kill(supervisor.pid, "SIGSTOP");
  const daemon = await place.start({
    env: { NOTIFY_SOCKET: supervisor.address, WATCHDOG_USEC: "2000" },
  });
  const client = await place.connect();
  // More signs of life than any kernel keeps for a receiver (net.unix.max_dgram_qlen).
  const room = Number(readFileSync("/proc/sys/net/unix/max_dgram_qlen", "utf8"));
  const until = performance.now() + (room + 100) * 2;
  while (performance.now() < until) await client.call("sequence.next", { type: "FR" });
  process.kill(daemon.pid, "SIGTERM");
  await daemon.logged(({ msg }) => msg === "stopping");
  process.kill(supervisor.pid, "SIGCONT");
  await supervisor.told(/^STOPPING=1$/);
  expect(supervisor.lines.filter((line) => line === "READY=1")).toHaveLength(1);
  expect(supervisor.lines.indexOf("READY=1")).toBeLessThan(supervisor.lines.indexOf("STOPPING=1"));
  expect(await daemon.exited).toBe(0);
});

/** Writes a configuration file and has the daemon read it. */
async function reload(daemon: DaemonProcess, file: string, text: string): Promise<void> {
  const before = daemon.log.length;
  const isNew = (line: (typeof daemon.log)[number]): boolean => daemon.log.indexOf(line) >= before;
  writeFileSync(file, text);
  daemon.child.kill("SIGHUP");
  await daemon.logged(
    (line) => isNew(line) && /^(configuration read again|the configuration was)/.test(line.msg),
  );
}

test("SIGHUP takes over what can be changed, also for those who are connected", async () => {
  const supervisor = hasSocat ? await Supervisor.open() : undefined;
  const place = new Place();
  const file = join(place.directory, "pawld.toml");
  writeFileSync(file, "");
  const daemon = await place.start({
    args: ["--config", file],
    env: supervisor === undefined ? {} : { NOTIFY_SOCKET: supervisor.address },
  });
  const client = await place.connect();
  await client.call("sequence.next", { type: "FR" });
  const began = process.hrtime.bigint() / 1000n;
  // Of a line that is under way what has come is within the former limit, and beyond the new one.
  const [early, midway] = [await place.connect(), await place.connect()];
  await early.call("daemon.ping", {});
  midway.write("x".repeat(1500));

  await reload(
    daemon,
    file,
    'max-message-bytes = 2000\nretention-days = 1\nlog-level = "debug"\nmode = "centralized"',
  );
  expect(await daemon.logged(({ msg }) => msg === "configuration read again")).toMatchObject({
    taken: ["maxMessageBytes", "retentionDays", "logLevel"],
  });
  await daemon.logged(({ msg, needRestart }) => msg.includes("next start") && `${needRestart}` === "mode");
  expect((await client.call("daemon.info", {})).limits.maxMessageBytes).toBe(2000);
  const late = await place.connect();
  for (const connection of [late, early]) {
    expect((await connection.ask("x".repeat(2001))).error?.data.kind).toBe("message_too_large");
  }
  midway.write("x".repeat(501));
  expect((await midway.reply()).error?.data.kind).toBe("message_too_large");

  if (supervisor !== undefined) {
    await supervisor.told(/^READY=1$/, 2);
    const at = supervisor.lines.indexOf("RELOADING=1");
    const [, usec] = supervisor.lines[at + 1]?.split("=") ?? [];
    expect(supervisor.lines[at + 1]).toMatch(/^MONOTONIC_USEC=\d+$/);
    expect(BigInt(usec as string)).toBeGreaterThanOrEqual(began);
    expect(BigInt(usec as string)).toBeLessThanOrEqual(process.hrtime.bigint() / 1000n);
    expect(supervisor.lines.indexOf("READY=1", at)).toBeGreaterThan(at);
  }

  const own = process.getuid?.() as number;
  await reload(daemon, file, `allow-uid = [${own + 1}]`);
  expectRefusal(await client.refusal("sequence.next", { type: "FR" }), "forbidden");
  await reload(daemon, file, `allow-uid = [${own}]`);
  expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(2);

  await reload(daemon, file, "allow-uid = [");
  const failed = daemon.log.at(-1);
  expect(failed).toMatchObject({ level: "error", msg: expect.stringContaining("the former one stays") });
  // An operator who had it read again by a signal finds the reason in the status, as long as it stands.
  await supervisor?.told(
    /^STATUS=Serving \d connections?; on its former options: The config file .* cannot be read/,
  );
  const { configError } = await client.call("daemon.info", {});
  expect(configError).toMatch(/^The config file .* cannot be read/);
  const { stdout } = await pawl(["status"], { socket: place.socket });
  expect(stdout).toContain(`not taken over when it was read again, the former one stays: ${configError}`);
  const told = supervisor?.lines.length ?? 0;
  await reload(daemon, file, `allow-uid = [${own}]`);
  expect((await client.call("daemon.info", {})).configError).toBeNull();
  await supervisor?.told(/^STATUS=Serving \d connections?$/, 1, told);
  expect(supervisor?.lines.at(-1) ?? "").not.toContain("former options");
  expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(3);

  await client.destroy();
  await late.destroy();
  await reload(daemon, file, "idle-exit = 1");
  expect(await daemon.exited).toBe(0);
});

test("SIGHUP while it starts is no end", async () => {
  const place = new Place();
  const daemon = place.spawn();
  while (!/SigCgt:\s+\w*[13579bdf]$/m.test(readFileSync(`/proc/${daemon.pid}/status`, "utf8"))) {
    // SIGHUP is signal 1, the lowest bit of what is caught.
    await new Promise((resolve) => setImmediate(resolve));
  }
  daemon.child.kill("SIGHUP");
  await daemon.listening;
  expect(await place.next()).toBe(1);
});

test("SIGHUP before the configuration is read has it read, again once it serves", async () => {
  const place = new Place();
  const file = join(place.directory, "config");
  spawnSync("mkfifo", [file]);
  const daemon = place.spawn({ args: ["--config", file] });
  const reads = (): boolean =>
    readdirSync(`/proc/${daemon.pid}/fd`).some((fd) => {
      try {
        return readlinkSync(`/proc/${daemon.pid}/fd/${fd}`) === file;
      } catch {
        return false;
      }
    });
  // Opening it to write waits until pawld opens it to read, which then waits for what is in it.
  const writer = spawn("sh", ["-c", `exec 3> ${file}; kill -HUP ${daemon.pid}; echo 'idle-exit = 100' >&3`]);
  onTestFinished(() => void writer.kill("SIGKILL"));
  expect(await once(writer, "exit")).toEqual([0, null]);
  while (reads()) await new Promise((resolve) => setTimeout(resolve, 5));
  const again = spawn("sh", ["-c", `echo 'idle-exit = 200' > ${file}`]);
  onTestFinished(() => void again.kill("SIGKILL"));
  const read = await daemon.logged(({ msg }) => msg === "configuration read again");
  expect(read).toMatchObject({ taken: ["idleExit"] });
  expect(await place.next()).toBe(1);
});

test("SIGHUP before the program is read is no end", async () => {
  const place = new Place();
  const hook = `import Module from "node:module";
    const load = Module._extensions[".js"];
    Module._extensions[".js"] = (module, file) => {
      if (file.endsWith("/bin/compiled.js")) process.kill(process.pid, "SIGHUP");
      return load(module, file);
    };`;
  const command = [process.execPath, "--import", `data:text/javascript,${encodeURIComponent(hook)}`];
  await place.start({ command });
  expect(await place.next()).toBe(1);
});

/** Starts a daemon as systemd does when the first client connects: with sockets that listen already. */
async function activate(sockets: Record<string, string>, kind: string[] = []): Promise<DaemonProcess> {
  const place = new Place();
  const listen = Object.values(sockets).flatMap((path) => ["--listen", path.replace("DIR", place.directory)]);
  const names = Object.keys(sockets).join(":");
  const daemon = place.spawn({
    command: ["systemd-socket-activate", ...kind, ...listen, `--fdname=${names}`, process.execPath],
  });
  const paths = Object.values(sockets).map((path) => path.replace("DIR", place.directory));
  // The file is there from the bind on, and connections are taken from the listen on.
  const ready = kind.includes("--datagram") ? existsSync : listens;
  while (!paths.every((path) => ready(path))) await new Promise((resolve) => setTimeout(resolve, 5));
  return daemon;
}

/** True if the kernel has a socket at a path that takes connections (__SO_ACCEPTCON in the flags). */
function listens(path: string): boolean {
  const sockets = readFileSync("/proc/net/unix", "utf8").split("\n");
  return sockets.some((line) => line.endsWith(` ${path}`) && line.split(" ")[3] === "00010000");
}

test.runIf(hasActivation)("sockets passed under names: the main one, and one for reads", async () => {
  const daemon = await activate({ pawl: "DIR/main", "read-only": "DIR/reads" });
  const [main, reads] = [join(daemon.place.directory, "main"), join(daemon.place.directory, "reads")];
  const client = await RawClient.connect(main);
  expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
  expect((await client.call("daemon.info", {})).sockets).toEqual([
    { path: main, readOnly: false },
    { path: reads, readOnly: true },
  ]);
  const reader = await RawClient.connect(reads);
  expect((await reader.call("sequence.state", {})).sequences).toEqual({ FR: 1 });
  expectRefusal(await reader.refusal("sequence.next", { type: "FR" }), "read_only");
  await daemon.listening;
  expect(daemon.log.find(({ msg }) => msg === "listening")).toMatchObject({
    socket: main,
    readOnlySocket: reads,
  });
  // The one that the options name is not made, and what is systemd's is not taken away.
  expect(existsSync(daemon.place.socket)).toBe(false);
  const inodes = [statSync(main).ino, statSync(reads).ino];
  expect(await daemon.end()).toBe(0);
  expect([statSync(main).ino, statSync(reads).ino]).toEqual(inodes);
});

test.runIf(hasActivation)("a socket passed for reads leaves the main one to the daemon", async () => {
  const daemon = await activate({ "read-only": "DIR/reads" });
  const reader = await RawClient.connect(join(daemon.place.directory, "reads"));
  await daemon.listening;
  expect(await daemon.place.next()).toBe(1);
  expect((await reader.call("sequence.state", {})).sequences).toEqual({ FR: 1 });
});

test.runIf(hasActivation)("a socket under a name that is none of ours is refused", async () => {
  const daemon = await activate({ readonly: "DIR/x" });
  const client = await RawClient.connect(join(daemon.place.directory, "x"));
  expect(await daemon.exited).toBe(2);
  expect(daemon.stderr).toMatch(/^pawld: A socket was passed under the name "readonly"\. Name it/m);
  await client.destroy();
});

test.runIf(hasActivation)("a socket of another kind is refused: nobody would know who asks", async () => {
  const daemon = await activate({ pawl: "DIR/x" }, ["--datagram"]);
  spawnSync("socat", ["-u", "STDIN", `UNIX-SENDTO:${join(daemon.place.directory, "x")}`], { input: "x" });
  expect(await daemon.exited).toBe(3);
  expect(daemon.stderr).toMatch(/^pawld: What was passed as "pawl" \(descriptor 3\) is no listening stream/m);
});

test("descriptors that are passed are for this process alone", () => {
  const env: NodeJS.ProcessEnv = {
    LISTEN_PID: "7",
    LISTEN_FDS: "2",
    LISTEN_FDNAMES: "pawld.socket:read-only",
    NOTIFY_SOCKET: "/run/notify",
    WATCHDOG_PID: "7",
    WATCHDOG_USEC: "3000000",
    PATH: "/bin",
  };
  expect(takePassed({ ...env }, 8)).toMatchObject({ sockets: [], watchdogMs: undefined });
  expect(takePassed(env, 7)).toEqual({
    sockets: [
      { fd: 3, name: "pawld.socket", readOnly: false },
      { fd: 4, name: "read-only", readOnly: true },
    ],
    notifySocket: "/run/notify",
    watchdogMs: 3000,
  });
  expect(env).toEqual({ PATH: "/bin" });
  expect(takePassed(env, 7)).toEqual({ sockets: [], notifySocket: undefined, watchdogMs: undefined });
});

test("in the journal each line has its priority", async () => {
  const place = new Place();
  const path = join(place.directory, "journal");
  const stdout = openSync(path, "w");
  const { dev, ino } = fstatSync(stdout);
  const start = (env: Record<string, string>) =>
    spawn(process.execPath, [PAWLD, "--socket", place.socket, "--state-dir", place.stateDir], {
      stdio: ["ignore", stdout, "inherit"],
      env: { ...process.env, ...env },
    });
  const daemon = start({ JOURNAL_STREAM: `${dev}:${ino}` });
  onTestFinished(() => void daemon.kill("SIGKILL"));
  while (!readFileSync(path, "utf8").includes("listening"))
    await new Promise((resolve) => setTimeout(resolve, 5));
  daemon.kill("SIGHUP");
  while (!readFileSync(path, "utf8").includes("read again"))
    await new Promise((resolve) => setTimeout(resolve, 5));
  daemon.kill("SIGTERM");
  await once(daemon, "exit");
  const lines = readFileSync(path, "utf8").trim().split("\n");
  expect(lines.map((line) => line.slice(0, 3))).toEqual(lines.map(() => "<6>"));
  expect(lines.map((line) => JSON.parse(line.slice(3)).msg)).toEqual([
    "listening",
    "configuration read again",
    "stopping",
    "stopped",
  ]);
});

// The units of systemd, under a real systemd of this user that the test starts.
// Not over shared names: systemd starts its daemons.
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { PAWL, Place, privateDirectory } from "../daemon.js";
import { RawClient } from "../raw-client.js";
import { until } from "../until.js";
import { UserSystemd, whyNoSystemd } from "../user-systemd.js";

const UNITS = join(import.meta.dirname, "../../systemd");
const CLIENTS = 200;
/** Of systemd-analyze, from 0 (safe) to 10. */
const WORST_EXPOSURE = 3;
const why = whyNoSystemd();
if (why !== undefined) console.warn(`tests of the systemd units are skipped: ${why}`);

const run = (program: string, args: string[], env = {}) =>
  spawnSync(program, args, { encoding: "utf8", env: { ...process.env, ...env } });

describe("unit files", () => {
  test.each([["system"], ["user"]])("%s: templates are the units, for any instance", (kind) => {
    const names = readdirSync(join(UNITS, kind));
    expect(names.sort()).toEqual([
      "pawl-web.service",
      "pawl-web@.service",
      "pawld-read-only.socket",
      "pawld-read-only@.socket",
      "pawld.service",
      "pawld.socket",
      "pawld@.service",
      "pawld@.socket",
    ]);
    for (const name of names.filter((each) => !each.includes("@"))) {
      const unit = readFileSync(join(UNITS, kind, name), "utf8");
      const template = readFileSync(join(UNITS, kind, name.replace(".", "@.")), "utf8");
      expect(template).not.toBe(unit);
      // Only there is an instance that is called by its name.
      const made = template
        .replaceAll(/(pawld(?:-read-only)?)@%i\./g, "$1.")
        .replaceAll("%i", "default")
        // Each has a port of its own, that is free.
        .replace("127.0.0.1:0", "127.0.0.1:7295");
      expect(made).toBe(unit);
    }
  });

  test.each([["system"], ["user"]])("%s: what restricts the daemon says why", (kind) => {
    const text = readFileSync(join(UNITS, kind, "pawld.service"), "utf8");
    const begin = /^NoNewPrivileges=|^ProtectSystem=/m.exec(text)?.index as number;
    const blocks = text.slice(text.lastIndexOf("\n\n", begin), text.indexOf("[Install]")).trim().split("\n");
    // A comment speaks for the lines up to the next one.
    expect(blocks[0]).toMatch(/^# /);
    expect(blocks.filter((line) => line.startsWith("#")).length).toBeGreaterThan(4);
    expect(text).toContain("Not MemoryDenyWriteExecute=");
  });

  test.runIf(why === undefined)("systemd-analyze has nothing to say about them, and rates them safe", () => {
    const image = privateDirectory();
    const runtime = join(image, "run");
    const env = { XDG_RUNTIME_DIR: runtime };
    mkdirSync(runtime);
    for (const args of [["--web"], ["--network"], ["--instance", "ci", "--web"]]) {
      expect(run(process.execPath, [PAWL, "service", "install", "--root", image, ...args]).stderr).toBe("");
    }
    const directory = join(image, "etc/systemd/system");
    const units = readdirSync(directory)
      .filter((name) => /\.(service|socket)$/.test(name))
      .map((name) => join(directory, name.replace("@.", "@ci.")));
    expect(units).toHaveLength(8);
    expect(run("systemd-analyze", ["verify", ...units])).toMatchObject({ status: 0, stdout: "", stderr: "" });

    // The same for those of a user, as `install --user` writes them.
    const home = privateDirectory();
    for (const name of readdirSync(join(UNITS, "user"))) {
      const text = readFileSync(join(UNITS, "user", name), "utf8");
      writeFileSync(join(home, name), text.replace(/\/usr\/bin\/pawld?/, `${process.execPath} ${PAWL}`));
    }
    const users = readdirSync(home).map((name) => join(home, name.replace("@.", "@ci.")));
    expect(run("systemd-analyze", ["--user", "verify", ...users], env)).toMatchObject({
      status: 0,
      stdout: "",
      stderr: "",
    });

    rmSync(join(directory, "pawld.service.d"), { recursive: true });
    for (const unit of ["pawld.service", "pawld@ci.service", "pawl-web.service", "pawl-web@ci.service"]) {
      const rated = run("systemd-analyze", ["security", "--offline=true", `--root=${image}`, unit]);
      const [, exposure] = /Overall exposure level for \S+: ([\d.]+)/.exec(rated.stdout) ?? [];
      expect(Number(exposure), rated.stdout + rated.stderr).toBeLessThanOrEqual(WORST_EXPOSURE);
    }
  });

  test.runIf(why === undefined)("install into an image, and uninstall, leave nothing behind", () => {
    const image = privateDirectory();
    const files = (): string[] =>
      readdirSync(image, { recursive: true, withFileTypes: true })
        .filter((entry) => !entry.isDirectory())
        .map((entry) => join(entry.parentPath, entry.name).slice(image.length + 1))
        .sort();
    const service = (...args: string[]) =>
      run(process.execPath, [PAWL, "service", ...args, "--root", image, "--json"]);
    expect(JSON.parse(service("install", "--network").stdout)).toMatchObject({
      instance: "default",
      user: false,
      socket: "/run/pawl/default.sock",
    });
    service("install", "--instance", "ci", "--web");
    const status = (...args: string[]) => {
      const { status: code, stdout } = service("status", ...args);
      return [code, JSON.parse(stdout)];
    };
    const unit = { installed: true, active: false, enabled: true, state: "in an image" };
    expect(status()).toEqual([
      0,
      expect.objectContaining({
        socket: { ...unit, unit: "pawld.socket", path: "/run/pawl/default.sock" },
        readOnlySocket: { ...unit, unit: "pawld-read-only.socket", enabled: false },
        service: expect.objectContaining({
          unit: "pawld.service",
          installed: true,
          active: false,
          pid: null,
        }),
      }),
    ]);
    expect(status("--instance", "ci")).toMatchObject([0, { socket: { ...unit, unit: "pawld@ci.socket" } }]);
    expect(status("--instance", "other")).toMatchObject([1, { socket: { installed: true, enabled: false } }]);
    expect(files()).toEqual([
      "etc/systemd/system/multi-user.target.wants/pawl-web@ci.service",
      "etc/systemd/system/pawl-web@.service",
      "etc/systemd/system/pawld-read-only.socket",
      "etc/systemd/system/pawld-read-only@.socket",
      "etc/systemd/system/pawld.service",
      "etc/systemd/system/pawld.service.d/network.conf",
      "etc/systemd/system/pawld.socket",
      "etc/systemd/system/pawld@.service",
      "etc/systemd/system/pawld@.socket",
      "etc/systemd/system/sockets.target.wants/pawld-read-only@ci.socket",
      "etc/systemd/system/sockets.target.wants/pawld.socket",
      "etc/systemd/system/sockets.target.wants/pawld@ci.socket",
      "etc/sysusers.d/pawl.conf",
      "etc/tmpfiles.d/pawl.conf",
    ]);
    expect(service("uninstall").status).toBe(0);
    expect(files()).toContain("etc/sysusers.d/pawl.conf");
    expect(service("uninstall", "--instance", "ci").status).toBe(0);
    expect(files()).toEqual([]);
    expect(status()).toMatchObject([1, { socket: { installed: false, enabled: false } }]);
    const none = service("uninstall");
    expect([none.status, JSON.parse(none.stderr).data.kind]).toEqual([1, "not_found"]);
  });

  test.runIf(why === undefined)("everybody may read them, whatever the umask of who installs them", () => {
    const image = privateDirectory();
    const install = () =>
      run("sh", [
        "-c",
        `umask 077; exec "$@"`,
        "sh",
        process.execPath,
        PAWL,
        "service",
        "install",
        "--root",
        image,
        "--network",
      ]);
    const modes = () =>
      readdirSync(image, { recursive: true, withFileTypes: true }).flatMap((entry) => {
        const found = lstatSync(join(entry.parentPath, entry.name));
        return found.isSymbolicLink() ? [] : [`${entry.name} ${(found.mode & 0o777).toString(8)}`];
      });
    expect(install().status).toBe(0);
    expect(modes().length).toBeGreaterThan(10);
    expect(modes().filter((mode) => !/( 755|\.\w+ 644)$/.test(mode))).toEqual([]);
    // As an earlier version left it.
    chmodSync(join(image, "etc/systemd/system/pawld.service"), 0o600);
    expect(install().status).toBe(0);
    expect(modes()).toContain("pawld.service 644");
  });

  test.runIf(why === undefined)("sysusers and tmpfiles make what they say", () => {
    const image = privateDirectory();
    mkdirSync(join(image, "etc"));
    const users = run("systemd-sysusers", [`--root=${image}`, join(UNITS, "sysusers.d/pawl.conf")]);
    expect(users.status, users.stderr).toBe(0);
    expect(readFileSync(join(image, "etc/passwd"), "utf8")).toMatch(
      /^pawl:x:\d+:\d+:pawl .*:\/var\/lib\/pawl:/m,
    );
    const files = run("systemd-tmpfiles", [
      "--create",
      `--root=${image}`,
      join(UNITS, "tmpfiles.d/pawl.conf"),
    ]);
    expect(files.status, files.stderr).toBe(0);
    expect(["run/pawl", "var/lib/pawl", "etc/pawl"].map((path) => existsSync(join(image, path)))).toEqual([
      true,
      true,
      true,
    ]);
  });
});

test("service: mistakes are named", () => {
  const pawl = (...args: string[]) => run(process.execPath, [PAWL, "service", ...args]);
  expect(pawl("reinstall")).toMatchObject({ status: 2, stderr: expect.stringContaining('not "reinstall"') });
  expect(pawl("install", "--user", "--root", "/x").status).toBe(2);
  expect(pawl("install", "--instance", "../x")).toMatchObject({
    status: 2,
    stderr: expect.stringContaining("The instance name"),
  });
  const nowhere = run(process.execPath, [PAWL, "service", "status", "--user"], { XDG_RUNTIME_DIR: "" });
  expect(nowhere).toMatchObject({ status: 1, stderr: expect.stringContaining("XDG_RUNTIME_DIR is not set") });
});

/** The port of this machine on which a process listens, once it does. */
function listeningPort(pid: number): number | undefined {
  const LISTENING = "0A";
  const open = readdirSync(`/proc/${pid}/fd`).map((name) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${name}`);
    } catch {
      return "";
    }
  });
  for (const line of readFileSync(`/proc/${pid}/net/tcp`, "utf8").split("\n").slice(1)) {
    const [, local = "", , state, , , , , , inode] = line.trim().split(/\s+/);
    if (state === LISTENING && open.includes(`socket:[${inode}]`))
      return Number.parseInt(local.split(":")[1] as string, 16);
  }
  return undefined;
}

describe.runIf(why === undefined)("under systemd", () => {
  let systemd: UserSystemd;
  beforeAll(async () => {
    const actions: (() => void | Promise<void>)[] = [];
    systemd = await UserSystemd.start((action) => void actions.unshift(action));
    return async () => {
      for (const action of actions) await action();
    };
  });

  /** Installs an instance, and takes it away with everything that it kept at the end of the test. */
  async function install(...args: string[]): Promise<void> {
    await systemd.pawl("service", "install", "--user", ...args);
    onTestFinished(async () => {
      const named = args.filter((_, index) => args[index - 1] === "--instance");
      const of = named.length === 0 ? [] : ["--instance", ...named];
      await systemd.pawl("service", "uninstall", "--user", ...of);
      rmSync(join(systemd.home, ".local/state/pawl"), { recursive: true, force: true });
      rmSync(join(systemd.home, ".config/pawl"), { recursive: true, force: true });
      await systemd.systemctl("reset-failed");
    });
  }

  /** Adds to the unit of the daemon for this test. */
  async function dropIn(unit: string, text: string): Promise<void> {
    const directory = systemd.unit(`${unit}.d`);
    mkdirSync(directory, { recursive: true });
    onTestFinished(() => rmSync(directory, { recursive: true }));
    writeFileSync(join(directory, "test.conf"), text);
    await systemd.systemctl("daemon-reload");
  }

  async function connected(instance?: string): Promise<RawClient> {
    const client = await RawClient.connect(systemd.socket(instance));
    onTestFinished(() => client.destroy());
    return client;
  }

  test("with --web the page is served by a unit of its own, which only looks", async () => {
    await install("--web", "--instance", "page");
    const pid = await systemd.pid("pawl-web@page.service");
    const file = join(systemd.runtime, "pawl/page-web.token");
    let port: number | undefined;
    while (port === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      port = listeningPort(pid);
    }
    const token = readFileSync(file, "utf8").trim();
    expect(lstatSync(file).mode & 0o777).toBe(0o600);
    const metrics = await fetch(`http://127.0.0.1:${port}/metrics`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    expect(await metrics.text()).toContain('instance="page"');
    expect((await fetch(`http://127.0.0.1:${port}/metrics`)).status).toBe(401);
  });

  test("the first client starts the daemon; install, status and uninstall say what is", async () => {
    await expect(systemd.pawl("service", "status", "--user", "--json")).rejects.toMatchObject({ code: 1 });
    await install();
    const state = async () => JSON.parse(await systemd.pawl("service", "status", "--user", "--json"));
    expect(await state()).toMatchObject({
      instance: "default",
      user: true,
      socket: { active: true, enabled: true, path: systemd.socket(), state: "active (listening)" },
      readOnlySocket: { installed: true, active: false },
      service: { installed: true, active: false, pid: null },
    });

    // Many at once start one.
    const clients = await Promise.all(Array.from({ length: 20 }, () => connected()));
    const taken = await Promise.all(clients.map((client) => client.call("sequence.next", { type: "FR" })));
    expect(taken.map(({ seq }) => seq).sort((a, b) => a - b)).toEqual(clients.map((_, index) => index + 1));
    const { pid, sockets, database } = await (clients[0] as RawClient).call("daemon.info", {});
    expect(sockets).toEqual([{ path: systemd.socket(), readOnly: false }]);
    // The same as for a daemon that was started by hand.
    expect(database.path).toBe(join(systemd.home, ".local/state/pawl/default/pawl.db"));
    await systemd.until("pawld.service", ({ StatusText }) => StatusText === "Serving 20 connections");
    expect(await state()).toMatchObject({
      socket: { active: true },
      service: { active: true, pid, status: "Serving 20 connections", restarts: 0 },
    });
    expect(await systemd.pawl("service", "status", "--user")).toContain(`active (running), pid ${pid}`);

    // Again, on the same installation, it is the next version.
    await systemd.pawl("service", "install", "--user");
    expect(await systemd.pid("pawld.service")).not.toBe(pid);
    const done = JSON.parse(await systemd.pawl("service", "uninstall", "--user", "--json")).done as string[];
    expect(done.filter((step) => step.startsWith("removed"))).toHaveLength(3);
    expect(existsSync(systemd.socket())).toBe(false);
    expect(existsSync(database.path)).toBe(true);
    expect(readdirSync(systemd.unit("")).filter((name) => name.startsWith("pawld"))).toEqual([]);
    await systemd.pawl("service", "install", "--user");
    expect((await (await connected()).call("sequence.next", { type: "FR" })).seq).toBe(21);
  });

  test(`${CLIENTS} clients connect while it restarts: none is refused, nothing is lost or done twice`, async () => {
    await install();
    await (await connected()).call("daemon.ping", {});
    const before = await systemd.pid("pawld.service");
    let restarted = false;
    const restart = systemd.systemctl("restart", "pawld.service").then(() => {
      restarted = true;
    });
    let refused = 0;
    let repeated = 0;

    /** Connects and takes a number; again with the same requestId if the daemon went away before it answered. */
    async function take(requestId: string): Promise<number> {
      for (;;) {
        const socket = connect({ path: systemd.socket(), allowHalfOpen: true });
        const client = new RawClient(socket);
        const isConnected = await new Promise<boolean>((resolve) => {
          socket.once("connect", () => resolve(true));
          socket.once("error", () => resolve(false));
        });
        if (!isConnected) {
          refused += 1;
          continue;
        }
        try {
          return (await client.call("sequence.next", { type: "FR", requestId })).seq;
        } catch {
          repeated += 1;
        } finally {
          await client.destroy();
        }
      }
    }

    const numbers: Promise<number>[] = [];
    // They come all the time that it takes, and the last ones when it is over.
    for (let index = 0; index < CLIENTS; index += 1) {
      numbers.push(take(`client-${index}`));
      if (!restarted) await new Promise((resolve) => setTimeout(resolve, 3));
    }
    await restart;
    expect((await Promise.all(numbers)).sort((a, b) => a - b)).toEqual(
      Array.from({ length: CLIENTS }, (_, index) => index + 1),
    );
    expect(refused).toBe(0);
    // Only who was connected to the one that stopped had to ask again.
    expect(repeated).toBeLessThan(CLIENTS / 2);
    expect(await systemd.pid("pawld.service")).not.toBe(before);
  });

  test("kill -9: systemd starts it again, and nothing that was answered is lost", async () => {
    await install();
    const client = await connected();
    await client.call("sequence.next", { type: "FR" });
    await client.call("queue.enqueue", { queue: "q", payloads: [{ n: 1 }] });
    const { claim } = await client.call("queue.claim", { queue: "q", owner: "test" });
    const { lease } = await client.call("lease.acquire", { name: "x", owner: "test" });
    const pid = await systemd.pid("pawld.service");
    process.kill(pid, "SIGKILL");
    await client.ended;
    const again = await connected();
    expect((await again.call("sequence.next", { type: "FR" })).seq).toBe(2);
    const { claimId, leaseToken } = claim as NonNullable<typeof claim>;
    expect(await again.call("queue.renew", { claimId, leaseToken })).toMatchObject({
      expiresAt: expect.any(Number),
    });
    expect(await again.call("lease.heartbeat", { leaseId: lease.leaseId })).toMatchObject({
      expiresAt: expect.any(Number),
    });
    const found = await systemd.show("pawld.service");
    expect([found.NRestarts, Number(found.MainPID) === pid]).toEqual(["1", false]);
  });

  test("the watchdog ends a daemon that hangs, and another serves who waits", async () => {
    await install();
    await dropIn("pawld.service", "[Service]\nWatchdogSec=500ms\n");
    const client = await connected();
    expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
    const pid = await systemd.pid("pawld.service");
    // It gives its signs of life: three times as long as it may be silent.
    const firstUs = Number((await systemd.show("pawld.service")).WatchdogTimestampMonotonic);
    await systemd.until(
      "pawld.service",
      ({ WatchdogTimestampMonotonic }) => Number(WatchdogTimestampMonotonic) > firstUs + 1_500_000,
    );
    expect(await systemd.pid("pawld.service")).toBe(pid);
    process.kill(pid, "SIGSTOP");
    const waiting = await connected();
    expect((await waiting.call("sequence.next", { type: "FR" })).seq).toBe(2);
    const found = await systemd.show("pawld.service");
    expect([found.NRestarts, Number(found.MainPID) === pid]).toEqual(["1", false]);
  });

  test("reload takes over the options; an idle daemon ends, and the next client starts it again", async () => {
    await install();
    const client = await connected();
    expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
    const pid = await systemd.pid("pawld.service");
    writeFileSync(
      join(systemd.home, ".config/pawl/default.toml"),
      "idle-exit = 1\nmax-message-bytes = 5000\n",
    );
    await systemd.systemctl("reload", "pawld.service");
    await systemd.until("pawld.service", ({ StatusText }) => StatusText === "Serving 1 connection");
    await until(async () => (await client.call("daemon.info", {})).limits.maxMessageBytes === 5000);
    expect(await systemd.pid("pawld.service")).toBe(pid);
    await client.destroy();
    const idle = await systemd.until("pawld.service", ({ ActiveState }) => ActiveState === "inactive");
    expect(idle).toMatchObject({ Result: "success", NRestarts: "0", StatusText: expect.any(String) });
    expect((await systemd.show("pawld.socket")).SubState).toBe("listening");
    const next = await connected();
    expect((await next.call("sequence.next", { type: "FR" })).seq).toBe(2);
    // The file is read at the start as well.
    expect((await next.call("daemon.info", {})).limits.maxMessageBytes).toBe(5000);
    expect(await systemd.pid("pawld.service")).not.toBe(pid);
  });

  test("instances run beside each other, and one goes without the other; a socket for reads beside them", async () => {
    await install();
    await systemd.pawl("service", "install", "--user", "--instance", "ci.2-a");
    await systemd.systemctl("start", "pawld-read-only@ci.2-a.socket");
    const [plain, other] = [await connected(), await connected("ci.2-a")];
    for (let count = 1; count <= 3; count += 1) {
      expect((await plain.call("sequence.next", { type: "FR" })).seq).toBe(count);
    }
    expect((await other.call("sequence.next", { type: "FR" })).seq).toBe(1);
    expect(await other.call("daemon.info", {})).toMatchObject({
      instance: "ci.2-a",
      database: { path: join(systemd.home, ".local/state/pawl/ci.2-a/pawl.db") },
      sockets: [
        { path: systemd.socket("ci.2-a"), readOnly: false },
        { path: systemd.socket("ci.2-a-read-only"), readOnly: true },
      ],
    });
    const reader = await connected("ci.2-a-read-only");
    expect((await reader.call("sequence.state", {})).sequences).toEqual({ FR: 1 });
    expect((await reader.refusal("sequence.next", { type: "FR" })).data.kind).toBe("read_only");
    await systemd.pawl("service", "uninstall", "--user", "--instance", "ci.2-a");
    expect(existsSync(systemd.unit("pawld@.service"))).toBe(false);
    expect((await plain.call("sequence.next", { type: "FR" })).seq).toBe(4);
  });

  test("nothing of others is touched: a daemon that was started by hand, a unit of somebody else", async () => {
    const place = new Place();
    mkdirSync(dirname(systemd.socket()), { recursive: true });
    const daemon = await place.start({ args: ["--socket", systemd.socket()] });
    await expect(systemd.pawl("service", "install", "--user")).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`A daemon with pid ${daemon.pid} serves`),
    });
    expect(existsSync(systemd.unit("pawld.service"))).toBe(false);
    await daemon.end();
    mkdirSync(systemd.unit(""), { recursive: true });
    writeFileSync(systemd.unit("pawld.service"), "[Service]\nExecStart=/bin/true\n");
    onTestFinished(() => rmSync(systemd.unit("pawld.service")));
    await expect(systemd.pawl("service", "install", "--user")).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining("was not written by pawl"),
    });
    expect(readFileSync(systemd.unit("pawld.service"), "utf8")).toBe("[Service]\nExecStart=/bin/true\n");
  });

  test.runIf(process.getuid?.() === 0)(
    "the sandbox of the system's unit lets the daemon do its work",
    async () => {
      const image = privateDirectory();
      run(process.execPath, [PAWL, "service", "install", "--root", image]);
      mkdirSync(systemd.unit(""), { recursive: true });
      for (const name of ["pawld.service", "pawld.socket"]) {
        writeFileSync(systemd.unit(name), readFileSync(join(image, "etc/systemd/system", name), "utf8"));
        onTestFinished(() => rmSync(systemd.unit(name), { force: true }));
      }
      // As somebody without rights who is there on every machine, since there need be no user pawl.
      await dropIn("pawld.service", "[Service]\nUser=nobody\nGroup=nogroup\n");
      await dropIn("pawld.socket", "[Socket]\nSocketUser=\nSocketGroup=\n");
      await systemd.systemctl("start", "pawld.socket");
      onTestFinished(() => systemd.systemctl("stop", "pawld.socket", "pawld.service").then(() => {}));
      const client = await connected();
      expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
      const { database } = await client.call("daemon.info", {});
      expect(database.path).toMatch(/\/pawl\/default\/pawl\.db$/);
      const status = readFileSync(`/proc/${await systemd.pid("pawld.service")}/status`, "utf8");
      expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
      expect(status).toMatch(/^Seccomp:\s+2$/m);
      expect(status).toMatch(/^CapBnd:\s+0+$/m);
      expect(status).toMatch(/^Uid:\s+65534\b/m);
      // Who connects is known in there too, and nothing outside can be written.
      const { lease } = await client.call("lease.acquire", { name: "x", owner: "test" });
      expect(lease.owner).toBe("test");
      expect((await client.call("lease.get", { name: "x" })).lease).toMatchObject({
        pid: process.pid,
        uid: process.getuid?.(),
      });
      const path = join(privateDirectory(), "copy.db");
      await expect(client.call("daemon.backup", { path })).rejects.toThrow();
      const inside = join(dirname(database.path), "copy.db");
      expect((await client.call("daemon.backup", { path: inside })).bytes).toBeGreaterThan(0);
      // The watchdog and the end are told to systemd from in there.
      await systemd.until("pawld.service", ({ StatusText }) => StatusText === "Serving 1 connection");
    },
  );
});

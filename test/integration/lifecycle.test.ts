// How a daemon starts, who may start beside it, and how it stops (spec: operations.md, pawld).
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { MAX_UNSENT_BYTES } from "@pawl/protocol/limits";
import Database from "better-sqlite3";
import { describe, expect, test } from "vitest";
import { type DaemonProcess, Place, privateDirectory, startDaemon } from "../daemon.js";
import { RawClient, type RawReply } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

/** Stopping takes no longer (spec: operations.md). */
const STOP_MS = 5000;
const EXIT_NOT_STARTED = 3;
/** So many answers to rpc.discover are more than the kernel holds for a peer that does not read. */
const MADE_ANSWERS = 10;

/** A daemon that is expected not to start: what it says about it. */
async function refusedStart(daemon: DaemonProcess): Promise<string> {
  expect(await daemon.exited).toBe(EXIT_NOT_STARTED);
  expect(daemon.log).toEqual([]);
  expect(daemon.stderr).toMatch(/^pawld: .+[.?]\n$/);
  return daemon.stderr;
}

/** The next number of FR from a new connection: shows that a place is served. */
async function next(place: Place): Promise<number> {
  const client = await place.connect();
  const { seq } = await client.call("sequence.next", { type: "FR" });
  await client.destroy();
  return seq;
}

describe("one daemon at a time", () => {
  test("a second one on the same state directory says which process holds it", async () => {
    const first = await startDaemon();
    const other = new Place();
    const second = other.spawn({ args: ["--state-dir", first.place.stateDir] });
    const message = await refusedStart(second);
    expect(message).toContain(`pid ${first.pid} `);
    expect(message).toContain(first.place.stateDir);
    expect(existsSync(other.socket)).toBe(false);
    expect(await next(first.place)).toBe(1);
  });

  test("a second one on the same socket says which process serves it", async () => {
    const first = await startDaemon();
    const second = new Place().spawn({ args: ["--socket", first.place.socket] });
    const message = await refusedStart(second);
    expect(message).toContain(`pid ${first.pid}`);
    expect(message).toContain(first.place.socket);
    expect(await next(first.place)).toBe(1);
  });

  test.each<[string, number, (place: Place) => string[]]>([
    ["state directory", 10, (place) => ["--state-dir", place.stateDir]],
    ["socket", 3, (place) => ["--socket", place.socket]],
  ])("of two that start at once on one %s, one runs and the other names it", async (_, rounds, shared) => {
    for (let round = 0; round < rounds; round += 1) {
      const common = new Place();
      const pair = [new Place(), new Place()].map((own) => own.spawn({ args: shared(common) }));
      const started = await Promise.all(
        pair.map((daemon) =>
          daemon.listening.then(
            () => true,
            () => false,
          ),
        ),
      );
      expect(started.filter(Boolean)).toHaveLength(1);
      const [runner, loser] = started[0] ? pair : pair.toReversed();
      const message = await refusedStart(loser as DaemonProcess);
      expect(message).toContain(`pid ${runner?.pid}`);
      const client = await (existsSync(common.socket) ? common : (runner as DaemonProcess).place).connect();
      expect((await client.call("daemon.info", {})).pid).toBe(runner?.pid);
      await runner?.end("SIGKILL");
    }
  });

  test("a killed daemon is no obstacle: its stale socket is replaced, its lock is gone", async () => {
    const place = new Place();
    const first = await place.start();
    expect(await next(place)).toBe(1);
    expect(await first.end("SIGKILL")).toBe("SIGKILL");
    expect(lstatSync(place.socket).isSocket()).toBe(true);
    await place.start();
    expect(await next(place)).toBe(2);
  });

  test.each([
    ["a file", (path: string) => writeFileSync(path, "precious")],
    ["a directory", (path: string) => mkdirSync(path)],
    [
      "a link to a file",
      (path: string) => {
        writeFileSync(`${path}.to`, "precious");
        symlinkSync(`${path}.to`, path);
      },
    ],
    ["a link to nothing", (path: string) => symlinkSync("/nowhere", path)],
  ])("%s where the socket goes is left alone", async (_, make) => {
    const place = new Place();
    make(place.socket);
    const before = lstatSync(place.socket);
    const message = await refusedStart(place.spawn());
    expect(message).toContain(place.socket);
    const after = lstatSync(place.socket);
    expect([after.ino, after.mode, after.mtimeMs]).toEqual([before.ino, before.mode, before.mtimeMs]);
  });

  test("a socket that another program answers on is left to it", async () => {
    const place = new Place();
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.end("mine");
    }).listen(place.socket);
    await once(server, "listening");
    const message = await refusedStart(place.spawn());
    expect(message).toContain(place.socket);
    const socket = connect(place.socket);
    expect(String(await once(socket, "data"))).toBe("mine");
    await new Promise((resolve) => server.close(resolve));
  });

  test("a stopping daemon removes its socket, but not one that has taken its place", async () => {
    const daemon = await startDaemon();
    const { socket } = daemon.place;
    renameSync(socket, `${socket}.moved`);
    const server = createServer().listen(socket);
    await once(server, "listening");
    expect(await daemon.end()).toBe(0);
    expect(lstatSync(socket).isSocket()).toBe(true);
    await new Promise((resolve) => server.close(resolve));

    const other = await startDaemon();
    expect(await other.end()).toBe(0);
    expect(existsSync(other.place.socket)).toBe(false);
  });

  test("a socket left by another program that no longer answers is replaced", async () => {
    const place = new Place();
    const server = createServer().listen(`${place.socket}.bound`);
    await once(server, "listening");
    // Closing it removes the path that it was bound to, and leaves this one without anybody behind it.
    renameSync(`${place.socket}.bound`, place.socket);
    await new Promise((resolve) => server.close(resolve));
    expect(lstatSync(place.socket).isSocket()).toBe(true);
    await place.start();
    expect(await next(place)).toBe(1);
  });
});

describe("permissions", () => {
  const mode = (path: string): string => (lstatSync(path).mode & 0o777).toString(8);

  /** Runs an action under a umask that takes nothing away, as a careless parent would. */
  function withoutUmask<T>(action: () => T): T {
    const previous = process.umask(0);
    try {
      return action();
    } finally {
      process.umask(previous);
    }
  }

  /** Looks at everything in a directory and below, again and again, until a promise settles. */
  async function watchModes(directory: string, until: Promise<unknown>): Promise<Map<string, Set<string>>> {
    const seen = new Map<string, Set<string>>();
    let over = false;
    void until.finally(() => {
      over = true;
    });
    for (;;) {
      for (const name of readdirSync(directory, { recursive: true }) as string[]) {
        const found = lstatSync(join(directory, name), { throwIfNoEntry: false });
        if (found === undefined) continue;
        const modes = seen.get(name) ?? new Set();
        seen.set(name, modes.add(`${(found.mode & 0o777).toString(8)} ${found.gid}`));
      }
      if (over) return seen;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  test("files are 0600 and directories 0700 from the first instant", async () => {
    const directory = privateDirectory();
    const socket = join(directory, "run/deep/pawl.sock");
    const state = join(directory, "state/deep/er");
    const daemon = withoutUmask(() =>
      new Place(directory).spawn({ args: ["--socket", socket, "--state-dir", state] }),
    );
    const seen = await watchModes(directory, daemon.listening);
    const client = await RawClient.connect(socket);
    await client.call("sequence.next", { type: "FR" });
    for (const [name, modes] of [...seen, ...(await watchModes(directory, Promise.resolve()))]) {
      const isDirectory = statSync(join(directory, name), { throwIfNoEntry: false })?.isDirectory() ?? false;
      expect([name, ...modes]).toEqual([name, `${isDirectory ? "700" : "600"} ${process.getgid?.()}`]);
    }
    expect([...seen.keys()]).toContain("run/deep/pawl.sock");
    expect(existsSync(join(state, "pawl.db-wal"))).toBe(true);
  });

  test("--socket-mode and --socket-group: nobody else is let in at any moment", async () => {
    const place = new Place();
    const daemon = withoutUmask(() =>
      place.spawn({ args: ["--socket-mode", "0660", "--socket-group", "65534"] }),
    );
    const seen = await watchModes(place.directory, daemon.listening);
    expect(mode(place.socket)).toBe("660");
    expect(lstatSync(place.socket).gid).toBe(65534);
    for (const [name, modes] of seen) {
      if (!lstatSync(join(place.directory, name), { throwIfNoEntry: false })?.isSocket()) continue;
      for (const each of modes)
        expect(["600 65534", "660 65534", `600 ${process.getgid?.()}`]).toContain(each);
    }
    expect(mode(place.stateDir)).toBe("700");
  });

  test.each([["0660"], ["0666"]])("--socket-mode %s", async (wanted) => {
    const daemon = await startDaemon({ args: ["--socket-mode", wanted] });
    expect(`0${mode(daemon.place.socket)}`).toBe(wanted);
    expect(mode(join(daemon.place.stateDir, "pawl.db"))).toBe("600");
  });

  test("a group that does not exist is named", async () => {
    const message = await refusedStart(new Place().spawn({ args: ["--socket-group", "no-such-group"] }));
    expect(message).toContain("no-such-group");
  });

  test.each<[string, (path: string) => void]>([
    [
      "open to others",
      (path) => {
        mkdirSync(path);
        chmodSync(path, 0o777);
      },
    ],
    [
      "of another user",
      (path) => {
        mkdirSync(path, { mode: 0o700 });
        chownSync(path, 65534, 65534);
      },
    ],
    [
      "a link",
      (path) => {
        mkdirSync(`${path}.real`, { mode: 0o700 });
        symlinkSync(`${path}.real`, path);
      },
    ],
    ["a file", (path) => writeFileSync(path, "")],
  ])("the directory in the temporary directory is refused if it is %s", async (_, make) => {
    const directory = privateDirectory();
    const shared = join(directory, `pawl-${process.getuid?.()}`);
    make(shared);
    const daemon = new Place(directory).spawn({
      args: ["--socket", join(shared, "default.sock")],
      env: { TMPDIR: directory },
    });
    expect(await refusedStart(daemon)).toContain(shared);
  });

  test("the directory in the temporary directory is made for us alone", async () => {
    const directory = privateDirectory();
    const shared = join(directory, `pawl-${process.getuid?.()}`);
    const args = ["--socket", join(shared, "default.sock")];
    // Written in another way, it is the same directory.
    const env = { TMPDIR: `${directory}/../${directory.split("/").at(-1)}` };
    const daemon = await new Place(directory).start({ args, env });
    expect(mode(shared)).toBe("700");
    expect(await daemon.end()).toBe(0);
    chmodSync(shared, 0o755);
    expect(await refusedStart(new Place(directory).spawn({ args, env }))).toContain(shared);
  });
});

describe("what is in the way of a start", () => {
  test("a state directory that cannot be made", async () => {
    const place = new Place();
    writeFileSync(place.stateDir, "");
    expect(await refusedStart(place.spawn())).toContain(place.stateDir);
    const below = join(place.stateDir, "below");
    expect(await refusedStart(place.spawn({ args: ["--state-dir", below] }))).toContain(below);
  });

  test("a socket directory that cannot be made", async () => {
    const place = new Place();
    writeFileSync(join(place.directory, "file"), "");
    const below = join(place.directory, "file/below");
    const message = await refusedStart(place.spawn({ args: ["--socket", join(below, "pawl.sock")] }));
    expect(message).toContain(below);
  });

  test("a database file that is something else", async () => {
    const place = new Place();
    mkdirSync(place.stateDir);
    const path = join(place.stateDir, "pawl.db");
    writeFileSync(path, "This is a diary, not a database. ".repeat(100));
    const before = readFileSync(path);
    expect(await refusedStart(place.spawn())).toContain(path);
    expect(readFileSync(path)).toEqual(before);
  });

  test("a database of a newer pawl is refused and left as it is", async () => {
    const place = new Place();
    const first = await place.start();
    await first.end();
    const path = join(place.stateDir, "pawl.db");
    const database = new Database(path);
    database.prepare("UPDATE pawl_meta SET value = '9999' WHERE key = 'schema_version'").run();
    database.close();
    const message = await refusedStart(place.spawn());
    expect(message).toContain("9999");
    const after = new Database(path, { readonly: true });
    expect(after.prepare("SELECT value FROM pawl_meta WHERE key = 'schema_version'").pluck().get()).toBe(
      "9999",
    );
    after.close();
  });
});

describe("stopping", () => {
  test.each([["SIGTERM"], ["SIGINT"]] as const)(
    "%s: exit 0, no socket, everything in the database file",
    async (signal) => {
      const daemon = await startDaemon();
      const client = await daemon.place.connect();
      await client.call("sequence.next", { type: "FR" });
      // An idle connection is no reason to wait.
      const start = performance.now();
      expect(await daemon.end(signal)).toBe(0);
      expect(performance.now() - start).toBeLessThan(1500);
      await client.ended;
      expect(existsSync(daemon.place.socket)).toBe(false);
      expect(readdirSync(daemon.place.stateDir).sort()).toEqual(["pawl.db", "pawl.db.lock"]);
      expect(daemon.log.map(({ msg }) => msg)).toEqual(["listening", "stopping", "stopped"]);
      const database = new Database(join(daemon.place.stateDir, "pawl.db"), { readonly: true });
      expect(database.prepare("SELECT last FROM pawl_sequence").pluck().all()).toEqual([1]);
      database.close();
    },
  );

  test("what was received is answered: nothing takes effect that its caller does not hear of", async () => {
    const place = new Place();
    const daemon = await place.start();
    const clients = await Promise.all(Array.from({ length: 8 }, () => place.connect()));
    const line = '{"jsonrpc":"2.0","id":"s","method":"sequence.next","params":{"type":"FR"}}\n';
    for (const client of clients) client.write(line.repeat(3000));
    await clients[0]?.line();
    const ended = daemon.end();
    await Promise.all(
      clients.map(async (client) => {
        await client.ended;
        client.socket.destroy();
        await client.closed;
      }),
    );
    expect(await ended).toBe(0);
    const replies = clients.flatMap(({ lines }) => lines.map((text) => JSON.parse(text) as RawReply));
    const numbers = replies.flatMap(({ result }) =>
      result === undefined ? [] : [(result as { seq: number }).seq],
    );
    for (const { error } of replies) if (error !== undefined) expect(error.data.kind).toBe("unavailable");
    // The first reply was taken by itself.
    const answered = numbers.length + 1;
    await place.start();
    expect(await next(place)).toBe(answered + 1);
  });

  test("waits end with `unavailable`", async () => {
    const daemon = await startDaemon();
    const [holder, waiter] = [await daemon.place.connect(), await daemon.place.connect()];
    await holder.call("lease.acquire", { name: "x", owner: "holder" });
    const waits = Array.from({ length: 100 }, () =>
      waiter.refusal("lease.acquire", { name: "x", owner: "waiter", waitMs: 3_600_000 }),
    );
    while ((await holder.call("daemon.stats", {})).connections.waiting < waits.length);
    expect(await daemon.end()).toBe(0);
    for (const error of await Promise.all(waits)) {
      expect(expectRefusal(error, "unavailable").data.reason).toBe("stopping");
    }
  });

  test("a client that never reads does not keep it from ending in time", async () => {
    const daemon = await startDaemon();
    const socket = connect(daemon.place.socket).pause();
    socket.on("error", () => {});
    socket.write('{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n'.repeat(MAX_UNSENT_BYTES / 10_000));
    const watcher = await daemon.place.connect();
    while (((await watcher.call("daemon.stats", {})).requests["rpc.discover"] ?? 0) < MADE_ANSWERS);
    const start = performance.now();
    expect(await daemon.end()).toBe(0);
    expect(performance.now() - start).toBeLessThan(STOP_MS);
    socket.destroy();
  });

  test("a second signal ends it at once", async () => {
    const daemon = await startDaemon();
    const socket = connect(daemon.place.socket).pause();
    socket.on("error", () => {});
    socket.write('{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n'.repeat(MAX_UNSENT_BYTES / 10_000));
    const watcher = await daemon.place.connect();
    while (((await watcher.call("daemon.stats", {})).requests["rpc.discover"] ?? 0) < MADE_ANSWERS);
    daemon.child.kill("SIGTERM");
    await daemon.logged(({ msg }) => msg === "stopping");
    const start = performance.now();
    expect(await daemon.end("SIGTERM")).toBe(1);
    expect(performance.now() - start).toBeLessThan(1000);
    expect(daemon.log.map(({ msg }) => msg)).not.toContain("stopped");
    socket.destroy();
  });

  test("--idle-exit: not while somebody is connected, then soon", async () => {
    const daemon = await startDaemon({ args: ["--idle-exit", "1"] });
    const client = await daemon.place.connect();
    // A timer of the daemon that ran from its start would be over by now.
    await new Promise((resolve) => setTimeout(resolve, 1300));
    await client.call("sequence.next", { type: "FR" });
    await client.destroy();
    expect(await daemon.exited).toBe(0);
    expect(daemon.log.map(({ msg, reason }) => reason ?? msg)).toEqual(["listening", "idle", "stopped"]);
    expect(existsSync(daemon.place.socket)).toBe(false);
  });

  test("--idle-exit: a daemon that nobody ever connects to", async () => {
    const daemon = await startDaemon({ args: ["--idle-exit", "1"] });
    expect(await daemon.exited).toBe(0);
  });

  test("losing the reader of its log does not end it", async () => {
    const daemon = await startDaemon();
    daemon.child.stdout?.destroy();
    const client = await daemon.place.connect();
    for (let i = 0; i < 50; i += 1) await client.refusal("sequence.next", {});
    expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
    expect(await daemon.end()).toBe(0);
  });
});

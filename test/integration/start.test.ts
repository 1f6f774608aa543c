// How a daemon starts, and what keeps it from starting (spec: operations.md, pawld).
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, test } from "vitest";
import { type DaemonProcess, Place, privateDirectory, startDaemon } from "../daemon.js";
import { refusedStart } from "../refusal.js";

test("a daemon whose SQLite has no native part, or one for another Node, says what mends that", () => {
  // As `npm install --ignore-scripts` leaves it.
  const modules = join(privateDirectory(), "node_modules");
  mkdirSync(modules);
  const installed = join(import.meta.dirname, "../../node_modules");
  for (const name of readdirSync(installed).filter((each) => !["@pawl", "better-sqlite3"].includes(each))) {
    symlinkSync(join(installed, name), join(modules, name));
  }
  mkdirSync(join(modules, "@pawl/daemon"), { recursive: true });
  for (const part of ["package.json", "bin", "dist"]) {
    cpSync(join(import.meta.dirname, "../../daemon", part), join(modules, "@pawl/daemon", part), {
      recursive: true,
    });
  }
  const sqlite = join(modules, "better-sqlite3");
  mkdirSync(sqlite);
  for (const part of ["package.json", "lib"]) {
    cpSync(join(installed, "better-sqlite3", part), join(sqlite, part), { recursive: true });
  }
  const place = new Place();
  const starts = (): unknown[] => {
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(modules, "@pawl/daemon/bin/pawld.js"), "--socket", place.socket, "--state-dir", place.stateDir],
      { encoding: "utf8" },
    );
    return [status, stderr];
  };
  const saying = (why: string): unknown[] => [
    3,
    `pawld: SQLite cannot be loaded, because ${why}. Run: npm run install --prefix ${sqlite}\n`,
  ];
  expect(starts()).toEqual(saying("its install script was not run"));
  // The linker refuses what this Node cannot load, whatever it is.
  mkdirSync(join(sqlite, "build/Release"), { recursive: true });
  writeFileSync(join(sqlite, "build/Release/better_sqlite3.node"), "of another version");
  expect(starts()).toEqual(saying("it was built for another version of Node"));
});

describe("one daemon at a time", () => {
  test("a second one on the same state directory says which process holds it", async () => {
    const first = await startDaemon();
    const other = new Place();
    const second = other.spawn({ args: ["--state-dir", first.place.stateDir] });
    const message = await refusedStart(second);
    expect(message).toContain(`pid ${first.pid} `);
    expect(message).toContain(first.place.stateDir);
    expect(existsSync(other.socket)).toBe(false);
    expect(await first.place.next()).toBe(1);
  });

  test("a second one on the same socket says which process serves it", async () => {
    const first = await startDaemon();
    const second = new Place().spawn({ args: ["--socket", first.place.socket] });
    const message = await refusedStart(second);
    expect(message).toContain(`pid ${first.pid}`);
    expect(message).toContain(first.place.socket);
    expect(await first.place.next()).toBe(1);
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
    expect(await place.next()).toBe(1);
    expect(await first.end("SIGKILL")).toBe("SIGKILL");
    expect(lstatSync(place.socket).isSocket()).toBe(true);
    await place.start();
    expect(await place.next()).toBe(2);
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
    expect(await place.next()).toBe(1);
  });
});

describe("obstacles to a start", () => {
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

// The state directory is one daemon's, and nobody else's (spec: operations.md, Faults from outside).
// Not over shared names: it is about the daemon's own database.
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, onTestFinished, test } from "vitest";
import { openDispenser } from "../../daemon/dist/dispenser.js";
import { Place, startDaemon, WITHOUT_KOFFI } from "../daemon.js";
import { RawClient } from "../raw-client.js";
import { refusedStart } from "../refusal.js";
import { mountDisk, noMount } from "../small-disk.js";

/** Has every file system say that it is NFS, as statfs(2) of one does. */
const NFS = `
  #include <string.h>
  struct type { long value; };
  int statfs(const char *path, struct type *buf) { memset(buf, 0, 120); buf->value = 0x6969; return 0; }
  int statfs64(const char *path, struct type *buf) { return statfs(path, buf); }
`;

const FUSE = join(import.meta.dirname, "../workers/fuse.py");

describe("the lock", () => {
  test("has no file that could be removed; who is refused learns where the holder listens", async () => {
    const first = await startDaemon();
    const { stateDir, socket } = first.place;
    for (const name of readdirSync(stateDir)) {
      if (!/^pawl\.db(-wal|-shm)?$/.test(name)) rmSync(join(stateDir, name));
    }
    const nameless = await refusedStart(new Place().spawn({ args: ["--state-dir", stateDir] }));
    expect(nameless).toContain(`pid ${first.pid} `);

    await first.end();
    const second = await first.place.start();
    const message = await refusedStart(new Place().spawn({ args: ["--state-dir", stateDir] }));
    expect(message).toContain(`pid ${second.pid} `);
    expect(message).toContain(`listens on ${socket}`);
  });

  test("does not say where one listened that was killed", async () => {
    const first = await startDaemon();
    const { stateDir } = first.place;
    await first.end("SIGKILL");
    const dispenser = openDispenser({ path: join(stateDir, "pawl.db") });
    const message = await refusedStart(new Place().spawn({ args: ["--state-dir", stateDir] }));
    expect(message).toContain(`pid ${process.pid} `);
    expect(message).not.toContain("listens on");
    dispenser.close();
  });

  test("a file of before is locked too, as long as it is there", async () => {
    const place = new Place();
    mkdirSync(place.stateDir, { mode: 0o700 });
    const former = new Database(join(place.stateDir, "pawl.db.lock"));
    former.pragma("journal_mode = MEMORY");
    former.exec("BEGIN EXCLUSIVE");
    expect(await refusedStart(place.spawn())).toContain(`pid ${process.pid} `);
    former.close();
    const daemon = await place.start();
    const locked = new Database(join(place.stateDir, "pawl.db.lock"), { timeout: 0 });
    expect(() => locked.exec("BEGIN EXCLUSIVE")).toThrow(/locked/);
    locked.close();
    expect(await daemon.end()).toBe(0);
  });

  test("a daemon that cannot lock a directory locks the file, and one that can excludes it and is excluded", async () => {
    const place = new Place();
    const first = await place.start();
    const without = place.spawn({ command: WITHOUT_KOFFI });
    expect(await without.exited).toBe(3);
    expect(without.stderr).toContain(`pid ${first.pid} `);
    await first.end();
    const second = await place.start({ command: WITHOUT_KOFFI });
    for (const command of [WITHOUT_KOFFI, [process.execPath]]) {
      const other = new Place().spawn({ command, args: ["--state-dir", place.stateDir] });
      expect(await other.exited).toBe(3);
      expect(other.stderr).toContain(`pid ${second.pid} `);
    }
  });

  test("a process that has the database without a daemon, and a daemon, exclude each other", async () => {
    const place = new Place();
    const daemon = await place.start();
    const path = join(place.stateDir, "pawl.db");
    expect(() => openDispenser({ path })).toThrow(
      `pid ${daemon.pid} writes the database ${path} and listens on`,
    );
    await daemon.end();
    const dispenser = openDispenser({ path });
    expect(await dispenser.next("FR")).toBe(1);
    expect(await refusedStart(place.spawn())).toContain(`pid ${process.pid} `);
    dispenser.close();
    await place.start();
    expect(await place.next()).toBe(2);
  });
});

test("a database that others could read is closed to them before anything is written beside it", async () => {
  const place = new Place();
  await (await place.start()).end();
  const path = join(place.stateDir, "pawl.db");
  chmodSync(path, 0o644);
  const daemon = await place.start();
  expect(await place.next()).toBe(1);
  const modes = ["", "-wal", "-shm"].map((suffix) => lstatSync(`${path}${suffix}`).mode & 0o777);
  expect(modes).toEqual([0o600, 0o600, 0o600]);
  const { mode } = await daemon.logged(({ msg }) => msg.startsWith("the database was open to other users"));
  expect(mode).toBe("0644");
});

describe("refused, naming it", () => {
  test("a state directory that others may write to, or that is another's", async () => {
    for (const mode of [0o777, 0o1777, 0o770]) {
      const place = new Place();
      mkdirSync(place.stateDir);
      chmodSync(place.stateDir, mode);
      const message = await refusedStart(place.spawn());
      expect(message).toContain(`${place.stateDir} has mode ${mode.toString(8).padStart(4, "0")}`);
      expect(readdirSync(place.stateDir)).toEqual([]);
    }
    if (process.getuid?.() !== 0)
      return console.warn("skipped, for want of root: a directory of another user");
    const place = new Place();
    mkdirSync(place.stateDir, { mode: 0o700 });
    chownSync(place.stateDir, 65534, 65534);
    expect(await refusedStart(place.spawn())).toContain(
      `${place.stateDir} belongs to the user with uid 65534, and we are uid 0`,
    );
    const restored = new Place();
    await (await restored.start()).end();
    chownSync(join(restored.stateDir, "pawl.db"), 65534, 65534);
    expect(await refusedStart(restored.spawn())).toContain(
      "pawl.db belongs to the user with uid 65534, and we are uid 0",
    );
    const linked = new Place();
    mkdirSync(`${linked.stateDir}.real`, { mode: 0o700 });
    symlinkSync(`${linked.stateDir}.real`, linked.stateDir);
    await (await linked.start()).end();
  });

  test("a link in the state directory, whatever it leads to", async () => {
    const place = new Place();
    const daemon = await place.start();
    const client = await place.connect();
    await client.call("pipeline.write", { storyId: "A", stage: "1_backlog" });
    await daemon.end();
    for (const name of ["pawl.db", "pawl.db-wal", "pawl.db-shm", "pawl.db.lock", "identity.key"]) {
      const path = join(place.stateDir, name);
      const elsewhere = join(place.directory, `elsewhere-${name}`);
      const wasThere = existsSync(path);
      if (wasThere) renameSync(path, elsewhere);
      symlinkSync(elsewhere, path);
      expect(await refusedStart(place.spawn())).toContain(`${path} is a link`);
      expect(existsSync(elsewhere)).toBe(wasThere);
      rmSync(path);
      if (wasThere) renameSync(elsewhere, path);
    }
    linkSync(join(place.stateDir, "pawl.db"), join(place.directory, "other.db"));
    expect(await refusedStart(place.spawn())).toContain("has 2 names (hard links)");
    rmSync(join(place.directory, "other.db"));
    await place.start();
  });

  test("a network file system, by its name, unless it is accepted", async () => {
    const place = new Place();
    const library = join(place.directory, "nfs.so");
    writeFileSync(`${library}.c`, NFS);
    if (spawnSync("cc", ["-shared", "-fPIC", "-o", library, `${library}.c`]).status !== 0) {
      return console.warn("skipped, for want of a C compiler: a directory on a network file system");
    }
    const env = { LD_PRELOAD: library };
    const message = await refusedStart(place.spawn({ env }));
    expect(message).toContain(`${place.stateDir} is on a network file system (NFS)`);
    expect(message).toContain("--accept-network-filesystem");
    await place.start({ env, args: ["--accept-network-filesystem"] });
    expect(await place.next()).toBe(1);
  });

  test("a network file system that a program serves by FUSE, by the name of its type, and no local one", async () => {
    const place = new Place();
    mkdirSync(place.stateDir, { mode: 0o700 });
    const serve = async (kind: string): Promise<string> => {
      const program = spawn("python3", [FUSE, place.stateDir, kind], { stdio: ["ignore", "pipe", "pipe"] });
      const unmount = (): void => {
        spawnSync("umount", ["-l", place.stateDir]);
        program.kill("SIGKILL");
      };
      onTestFinished(unmount);
      const said = await new Promise<string>((resolve) => {
        program.once("error", ({ message }) => resolve(message));
        program.stdout.once("data", () => resolve("mounted"));
        program.stderr.once("data", (why) => resolve(`${why}`.trim()));
      });
      if (said !== "mounted") return said;
      const message = await refusedStart(place.spawn());
      unmount();
      return message;
    };
    const message = await serve("fuse.sshfs");
    if (!message.includes(place.stateDir)) {
      return console.warn(
        `skipped, since FUSE does not work here: a network file system by FUSE (${message})`,
      );
    }
    expect(message).toContain(`${place.stateDir} is on a network file system (sshfs)`);
    // That of a local type is empty and cannot be written, which is another reason.
    expect(await serve("fuse.bindfs")).toContain("unable to open database file");
  });

  test("a link where the socket's lock goes", async () => {
    const place = new Place();
    symlinkSync(join(place.directory, "nowhere"), `${place.socket}.lock`);
    expect(await refusedStart(place.spawn())).toContain(`${place.socket}.lock is a link`);
    expect(existsSync(join(place.directory, "nowhere"))).toBe(false);
    expect(lstatSync(`${place.socket}.lock`).isSymbolicLink()).toBe(true);
  });

  test("a database of a reader that is a link", async () => {
    const place = new Place();
    await place.start();
    const reader = new Place();
    mkdirSync(reader.stateDir, { mode: 0o700 });
    symlinkSync(join(place.stateDir, "pawl.db"), join(reader.stateDir, "pawl.db"));
    expect(await refusedStart(reader.spawn({ args: ["--read-only"] }))).toContain("pawl.db is a link");
  });
});

test("the remains of a holder's file, and a file in its place, are no obstacle", async () => {
  const place = new Place();
  mkdirSync(place.stateDir, { mode: 0o700 });
  writeFileSync(join(place.stateDir, "pawl.holder"), "{");
  await place.start();
  expect(await refusedStart(new Place().spawn({ args: ["--state-dir", place.stateDir] }))).toContain(
    `listens on ${place.socket}`,
  );
});

test("the read-only socket has no identity key made", async () => {
  const place = new Place();
  const readOnlySocket = join(place.directory, "ro.sock");
  await place.start({ args: ["--read-only-socket", readOnlySocket] });
  const reader = await RawClient.connect(readOnlySocket);
  expect((await reader.refusal("pipeline.identity", {})).data.kind).toBe("not_found");
  expect(existsSync(join(place.stateDir, "identity.key"))).toBe(false);
  const client = await place.connect();
  await client.call("pipeline.write", { storyId: "A", stage: "1_backlog" });
  const { author } = await client.call("pipeline.identity", {});
  expect((await reader.call("pipeline.identity", {})).author).toBe(author);
});

describe.skipIf(noMount !== undefined)("a file system that is mounted read-only", () => {
  test("the advice that is given works", async () => {
    const place = new Place();
    expect(mountDisk(place.stateDir, 4 * 1024 * 1024)).toBeUndefined();
    onTestFinished(() => void spawnSync("umount", ["-l", place.stateDir]));
    const daemon = await place.start();
    expect(await place.next()).toBe(1);
    await daemon.end();
    expect(spawnSync("mount", ["-o", "remount,ro", place.stateDir]).status).toBe(0);
    for (const args of [[], ["--read-only"]]) {
      const message = await refusedStart(place.spawn({ args }));
      expect(message).toContain("mounted read-only");
      expect(message).toContain("read the copy: pawld --read-only --state-dir DIR.");
      expect(message).not.toContain("start that daemon first");
    }
    const copy = new Place();
    mkdirSync(copy.stateDir, { mode: 0o700 });
    copyFileSync(join(place.stateDir, "pawl.db"), join(copy.stateDir, "pawl.db"));
    await copy.start({ args: ["--read-only"] });
    const client = await copy.connect();
    expect((await client.call("sequence.state", {})).sequences).toEqual({ FR: 1 });
  });
});

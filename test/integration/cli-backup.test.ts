// daemon.backup at the socket, and `pawl backup` while the daemon is in use.
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import Database from "better-sqlite3";
import { describe, expect, onTestFinished, test } from "vitest";
import { type DaemonProcess, NAMES_ARE_SHARED, Place, privateDirectory, startDaemon } from "../daemon.js";
import type { RawClient, RawError } from "../raw-client.js";
import { mayBeOther, OTHER_UID, pawlAsOther, startPawl } from "./cli-program.js";

const MEGABYTE = 1_000_000;
/** Between two reports of how far a backup is. */
const PROGRESS_EVERY_MS = 100;

/** A daemon on a database that also holds a large table of somebody else, so that a copy takes its time. */
async function largeDaemon(megabytes: number, args: string[] = []): Promise<DaemonProcess> {
  const place = new Place();
  mkdirSync(place.stateDir, { mode: 0o700 });
  const database = new Database(join(place.stateDir, "pawl.db"));
  database.exec("CREATE TABLE filler (content BLOB)");
  const insert = database.prepare("INSERT INTO filler VALUES (randomblob(?))");
  database.transaction(() => {
    for (let count = 0; count < megabytes; count++) insert.run(MEGABYTE);
  })();
  database.close();
  return await place.start({ args });
}

interface Progress {
  pages: number;
  totalPages: number;
}

/** The next progress that the daemon reports on a connection. */
async function progressOf(client: RawClient): Promise<Progress> {
  const message = JSON.parse(await client.line());
  expect(message).toEqual({ jsonrpc: "2.0", method: "daemon.backupProgress", params: expect.anything() });
  return message.params;
}

function open(path: string): Database.Database {
  const database = new Database(path, { readonly: true });
  expect(database.pragma("integrity_check", { simple: true })).toBe("ok");
  return database;
}

test("other calls go on meanwhile, in turns of their own, and the copy is one moment of the database", async () => {
  const daemon = await largeDaemon(80);
  const copy = join(daemon.place.directory, "copy.db");
  const asking = await daemon.place.connect();
  const other = await daemon.place.connect();
  let done = false;
  const backup = asking.call("daemon.backup", { path: copy }).finally(() => {
    done = true;
  });
  await progressOf(asking);

  let taken = 0;
  while (!done) {
    // Two counters that every transaction keeps equal: no copy of one moment shows them apart.
    await other.call("transact", {
      calls: ["LEFT", "RIGHT"].map((type) => ({ method: "sequence.next", params: { type } })),
    });
    taken += 1;
  }
  const { bytes, pages } = await backup;
  const logged = await daemon.logged(({ msg }) => msg === "backup made");
  expect(logged).toMatchObject({ pid: daemon.pid, bytes, pages, caller: { pid: process.pid } });
  expect(bytes).toBe(statSync(copy).size);
  expect(pages * 4096).toBe(bytes);
  expect(taken).toBeGreaterThan(5);
  expect(readdirSync(daemon.place.directory).sort()).toEqual([
    "copy.db",
    "pawl.sock",
    "pawl.sock.lock",
    "state",
  ]);
  // The copy is one of the daemon's own file.
  if (NAMES_ARE_SHARED) return;
  const database = open(copy);
  const rows = database.prepare("SELECT type, last FROM pawl_sequence ORDER BY type").all() as {
    last: number;
  }[];
  expect(rows).toHaveLength(2);
  expect(rows[0]?.last).toBe(rows[1]?.last);
  expect(rows[0]?.last).toBeGreaterThan(0);
  database.close();
});

test("its caller is told how far it is", async () => {
  const daemon = await largeDaemon(80);
  const client = await daemon.place.connect();
  const backup = client.call("daemon.backup", { path: join(daemon.place.directory, "copy.db") });
  const first = await progressOf(client);
  // However fast it copies, it takes longer than from one report to the next.
  daemon.child.kill("SIGSTOP");
  onTestFinished(() => void daemon.child.kill("SIGCONT"));
  await pause(2 * PROGRESS_EVERY_MS);
  daemon.child.kill("SIGCONT");
  const { pages } = await backup;
  const reports = [first, ...client.lines.map((line) => JSON.parse(line).params as Progress)];
  expect(reports.length).toBeGreaterThan(1);
  for (const [index, report] of reports.entries()) {
    expect(report.totalPages).toBe(pages);
    expect(report.pages).toBeGreaterThanOrEqual(index === 0 ? 0 : (reports[index - 1] as Progress).pages);
    expect(report.pages).toBeLessThanOrEqual(pages);
  }
});

describe("is given up, and nothing of it stays, when", () => {
  test("its caller goes", async () => {
    const daemon = await largeDaemon(80);
    const client = await daemon.place.connect();
    client.call("daemon.backup", { path: join(daemon.place.directory, "copy.db") }).catch(() => {});
    await progressOf(client);
    await client.destroy();
    await daemon.logged(({ msg, method }) => msg === "refused" && method === "daemon.backup");
    expect(readdirSync(daemon.place.directory).sort()).toEqual(["pawl.sock", "pawl.sock.lock", "state"]);
  });

  test("the daemon is stopped", async () => {
    const daemon = await largeDaemon(80);
    const client = await daemon.place.connect();
    client.call("daemon.backup", { path: join(daemon.place.directory, "copy.db") }).catch(() => {});
    await progressOf(client);
    expect(await daemon.end()).toBe(0);
    expect(readdirSync(daemon.place.directory).sort()).toEqual(["pawl.sock.lock", "state"]);
  });

  test("the daemon is killed: nothing has the name that was asked for", async () => {
    const daemon = await largeDaemon(80);
    const client = await daemon.place.connect();
    client.call("daemon.backup", { path: join(daemon.place.directory, "copy.db") }).catch(() => {});
    await progressOf(client);
    await daemon.end("SIGKILL");
    expect(readdirSync(daemon.place.directory)).not.toContain("copy.db");
  });
});

test("one at a time", async () => {
  const daemon = await largeDaemon(80);
  const first = await daemon.place.connect();
  const second = await daemon.place.connect();
  const backup = first.call("daemon.backup", { path: join(daemon.place.directory, "a.db") });
  await progressOf(first);
  const refused = await second.refusal("daemon.backup", { path: join(daemon.place.directory, "b.db") });
  expect(refused.data).toEqual({ kind: "unavailable", retryable: true, reason: "backup_under_way" });
  await backup;
  await second.call("daemon.backup", { path: join(daemon.place.directory, "b.db") });
});

describe("refuses", () => {
  async function refusalOf(path: string): Promise<RawError> {
    const daemon = await startDaemon();
    return await (await daemon.place.connect()).refusal("daemon.backup", { path });
  }

  test.each([
    "copy.db",
    "./copy.db",
    "/tmp/../tmp/copy.db",
    "/tmp/",
    "/tmp/.",
    "/",
    `/tmp/${"x".repeat(256)}`,
    "/tmp/\0",
  ])("the path %j", async (path) => {
    const { data } = await refusalOf(path);
    expect(data).toMatchObject({ kind: "invalid_params", issues: [{ path: "/path" }] });
  });

  test("a directory that is not there, or is none", async () => {
    expect((await refusalOf("/nowhere/copy.db")).data).toMatchObject({
      kind: "not_found",
      what: "directory",
    });
    expect((await refusalOf("/dev/null/copy.db")).data).toMatchObject({
      kind: "not_found",
      what: "directory",
    });
  });

  test("a name that is taken, by a file, a directory or a link to nothing", async () => {
    const directory = privateDirectory();
    writeFileSync(join(directory, "file"), "x");
    mkdirSync(join(directory, "directory"));
    spawnSync("ln", ["-s", "/nowhere", join(directory, "link")]);
    for (const name of ["file", "directory", "link"]) {
      expect((await refusalOf(join(directory, name))).data.kind).toBe("conflict");
    }
    expect(readFileSync(join(directory, "file"), "utf8")).toBe("x");
  });

  test("a place where nothing can be written", async () => {
    expect((await refusalOf("/proc/copy.db")).data.kind).toBe("forbidden");
  });

  test.skipIf(!mayBeOther)("another user than that of the daemon and root", async () => {
    const daemon = await startDaemon({ args: ["--socket-mode", "0666"] });
    chmodSync(daemon.place.directory, 0o755);
    const path = join(daemon.place.directory, "copy.db");
    const { status, stderr } = pawlAsOther(["backup", path], daemon.place.socket);
    expect(stderr).toContain(`not uid ${OTHER_UID}. [forbidden]`);
    expect(status).toBe(1);
    expect(readdirSync(daemon.place.directory)).not.toContain("copy.db");
  });
});

test("pawl backup ended by Ctrl-C gives it up", async () => {
  const daemon = await largeDaemon(80);
  const pawl = startPawl(["backup", join(daemon.place.directory, "copy.db")], {
    socket: daemon.place.socket,
  });
  const directory = daemon.place.directory;
  while (!readdirSync(directory).some((name) => name.endsWith(".partial"))) await new Promise(setImmediate);
  expect((await pawl.end("SIGINT")).code).toBe("SIGINT");
  await daemon.logged(({ msg, method }) => msg === "refused" && method === "daemon.backup");
  expect(readdirSync(directory).sort()).toEqual(["pawl.sock", "pawl.sock.lock", "state"]);
});

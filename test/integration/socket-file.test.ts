// The socket's file, which others may remove or replace (spec: operations.md, Faults from outside).
// Not over shared names: it is about files of the daemon.
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, lstatSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { type DaemonProcess, Place, startDaemon } from "../daemon.js";

const PUT_BACK = "the socket's file was gone, and is put back";
const NOT_PUT_BACK = "the socket's file is gone, and cannot be put back";
/** Within which it is put back, and time for a busy machine. */
const SOON = { timeout: 20_000 };

/** A daemon in a directory of its own, which others may clean. */
async function daemonInRun(
  args: string[] = [],
): Promise<{ daemon: DaemonProcess; run: string; socket: string }> {
  const place = new Place();
  const run = join(place.directory, "run");
  const socket = join(run, "pawl.sock");
  const daemon = await place.start({ args: ["--socket", socket, ...args] });
  return { daemon, run, socket };
}

test("the kernel knows the socket by its path, so that cleaners know that it is in use", async () => {
  const daemon = await startDaemon();
  const { socket } = daemon.place;
  expect(readFileSync("/proc/net/unix", "utf8").split("\n")).toContainEqual(
    expect.stringMatching(new RegExp(` ${socket}$`)),
  );
});

test("that is removed is put back, with its mode, and who is connected notices nothing", async () => {
  const { daemon, run, socket } = await daemonInRun(["--socket-mode", "0660"]);
  const place = new Place(run);
  const client = await place.connect();
  await client.call("sequence.next", { type: "FR" });
  rmSync(run, { recursive: true });
  expect(await daemon.logged(({ msg }) => msg === PUT_BACK)).toMatchObject({ level: "warn", socket });
  expect(lstatSync(socket).mode & 0o777).toBe(0o660);
  expect(lstatSync(run).mode & 0o777).toBe(0o700);
  expect(await place.next()).toBe(2);
  expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(3);
  // Once more, and nothing is left at the end.
  rmSync(socket);
  await vi.waitFor(async () => expect(await place.next()).toBe(4), SOON);
  expect(await daemon.end()).toBe(0);
  expect(existsSync(socket)).toBe(false);
});

test("where another program answers by now is left to it until it ends", async () => {
  const daemon = await startDaemon();
  const { socket } = daemon.place;
  rmSync(socket);
  const other = createServer((connection) => connection.destroy());
  other.listen(socket);
  await once(other, "listening");
  expect(await daemon.logged(({ msg }) => msg === NOT_PUT_BACK)).toMatchObject({
    level: "error",
    reason: "another answers",
  });
  const before = lstatSync(socket).ino;
  // Ended without having been able to remove its file.
  other.unref();
  const left = `${socket}.left`;
  spawnSync("ln", [socket, left]);
  await new Promise((resolve) => other.close(resolve));
  spawnSync("mv", [left, socket]);
  expect(lstatSync(socket).ino).toBe(before);
  await daemon.logged(({ msg }) => msg === PUT_BACK);
  expect(await daemon.place.next()).toBe(1);
});

test("where a file lies by now is left as it is, and the daemon says so", async () => {
  const daemon = await startDaemon();
  const { socket } = daemon.place;
  rmSync(socket);
  writeFileSync(socket, "mine");
  expect(await daemon.logged(({ msg }) => msg === NOT_PUT_BACK)).toMatchObject({ reason: "no socket" });
  expect(await daemon.end()).toBe(0);
  expect(readFileSync(socket, "utf8")).toBe("mine");
});

test("of a daemon that took the place stays when the one before ends", async () => {
  const daemon = await startDaemon();
  const { socket, directory } = daemon.place;
  rmSync(socket);
  rmSync(`${socket}.lock`);
  const second = new Place(directory);
  await second.start({ args: ["--state-dir", join(directory, "other")] });
  const { ino } = lstatSync(socket);
  await daemon.logged(({ msg }) => msg === NOT_PUT_BACK);
  expect(await daemon.end()).toBe(0);
  expect(lstatSync(socket).ino).toBe(ino);
  expect(await second.next()).toBe(1);
});

const noCleaner = spawnSync("systemd-tmpfiles", ["--version"]).error?.message;
if (noCleaner !== undefined) console.warn(`The test of a cleaner is skipped: ${noCleaner}.`);

test.skipIf(noCleaner !== undefined)("systemd-tmpfiles leaves a socket that is in use", async () => {
  const { daemon, run, socket } = await daemonInRun();
  const [old, configuration] = [join(run, "old"), join(daemon.place.directory, "clean.conf")];
  writeFileSync(old, "");
  writeFileSync(configuration, `d ${run} 0700 - - mM:1s\n`);
  const longAgo = new Date(Date.now() - 24 * 60 * 60 * 1000);
  for (const path of [old, socket, `${socket}.lock`]) utimesSync(path, longAgo, longAgo);
  const { status, stderr } = spawnSync("systemd-tmpfiles", ["--clean", configuration], { encoding: "utf8" });
  expect([status, stderr]).toEqual([0, ""]);
  expect([existsSync(old), existsSync(socket)]).toEqual([false, true]);
  expect(await new Place(run).next()).toBe(1);
  // The lock's file, which is as old as the daemon, is made anew.
  await vi.waitFor(() => expect(existsSync(`${socket}.lock`)).toBe(true), SOON);
  onTestFinished(() => expect(daemon.log.some(({ msg }) => msg === PUT_BACK)).toBe(false));
});

// A database that was copied, to another machine or beside itself, says so until that is accepted (spec: sequence.md).
// Not over shared names: it is about the daemon's own database.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type DaemonProcess, Place, privateDirectory, type StartOptions } from "../daemon.js";
import { pawl } from "./cli-program.js";

const MACHINE_ID = "/etc/machine-id";

/** Why no other machine can be played here, if that is so. */
const noOther = (() => {
  if (!existsSync(MACHINE_ID)) return `there is no ${MACHINE_ID}`;
  const { status, stderr, error } = spawnSync("unshare", ["-mu", "true"], { encoding: "utf8" });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
})();
if (noOther !== undefined) console.warn(`The tests of another machine are skipped: ${noOther}.`);

/** Starts a daemon as on another machine: with another name of the machine, and another host name. */
function onOtherMachine(): StartOptions {
  const id = join(privateDirectory(), "machine-id");
  writeFileSync(id, `${"0".repeat(31)}1\n`);
  const script = `mount --bind "$0" ${MACHINE_ID} && hostname other-host && exec "$@"`;
  return { command: ["unshare", "-mu", "sh", "-c", script, id, process.execPath] };
}

const isCopy = ({ msg }: { msg: string }): boolean => msg.startsWith("the database is a copy");

/** A place with a database that was used, and a copy of all of it, the witness included. */
async function copied(): Promise<{ first: Place; copy: Place }> {
  const first = new Place();
  const daemon = await first.start();
  expect(await first.next()).toBe(1);
  await daemon.end();
  const copy = new Place();
  cpSync(first.stateDir, copy.stateDir, { recursive: true });
  return { first, copy };
}

async function copiedOf({ place }: DaemonProcess): Promise<unknown> {
  const client = await place.connect();
  return (await client.call("daemon.info", {})).copied;
}

test.skipIf(noOther !== undefined)("on another machine, over restarts, until it is accepted", async () => {
  const { first, copy } = await copied();
  const told = {
    since: expect.any(Number),
    from: `${hostname()}:${join(first.stateDir, "pawl.db")}`,
  };
  const other = onOtherMachine();
  for (let start = 0; start < 2; start += 1) {
    const daemon = await copy.start(other);
    expect(await daemon.logged(isCopy)).toMatchObject({ level: "warn", ...told });
    expect(await copiedOf(daemon)).toEqual(told);
    expect(await copy.next()).toBe(start + 2);
    await daemon.end("SIGKILL");
  }
  const daemon = await copy.start(other);
  const { socket } = copy;
  expect((await pawl(["status"], { socket })).stdout).toContain(`of ${told.from}, as it was at 20`);
  expect((await pawl(["status", "--accept-copy"], { socket })).stdout).toBe(
    `Accepted: ${told.from} is gone, and this database goes on in its place.\n`,
  );
  expect(await copiedOf(daemon)).toBeNull();
  expect(await (await copy.connect()).call("daemon.acceptCopy", {})).toEqual({ accepted: null });
  expect((await pawl(["status"], { socket })).stdout).not.toContain(told.from);
  await daemon.end("SIGKILL");
  const later = await copy.start(other);
  expect(await copiedOf(later)).toBeNull();
  expect(later.log.filter(isCopy)).toEqual([]);
});

test("beside the first on one machine, while that is in its place", async () => {
  const { first, copy } = await copied();
  const running = await first.start();
  const daemon = await copy.start();
  await daemon.logged(isCopy);
  expect(await copiedOf(daemon)).toMatchObject({ from: `${hostname()}:${join(first.stateDir, "pawl.db")}` });
  // The first is none.
  expect(await copiedOf(running)).toBeNull();
  await running.end();
  expect(await copiedOf(await first.start())).toBeNull();
});

test("not one that was moved, nor a copy that has taken the place of the first", async () => {
  const { first, copy } = await copied();
  rmSync(first.stateDir, { recursive: true });
  const daemon = await copy.start();
  expect(await copiedOf(daemon)).toBeNull();
  await daemon.end();
  renameSync(copy.stateDir, first.stateDir);
  const moved = await first.start();
  expect(await copiedOf(moved)).toBeNull();
  await moved.end();
  // As a restored backup is.
  cpSync(first.stateDir, `${first.stateDir}.copy`, { recursive: true });
  rmSync(first.stateDir, { recursive: true });
  renameSync(`${first.stateDir}.copy`, first.stateDir);
  expect(await copiedOf(await first.start())).toBeNull();
});

// The peers that connect, as the kernel tells of them.
import { spawnSync } from "node:child_process";
import { chmodSync } from "node:fs";
import { METHODS, type Result } from "@pawl/protocol";
import { describe, expect, test } from "vitest";
import { Place, type StartOptions, startDaemon, WITHOUT_KOFFI } from "../daemon.js";
import type { RawReply } from "../raw-client.js";
import { startRaw } from "../raw-process.js";
import { expectRefusal } from "../refusal.js";
import { until } from "../until.js";

const UID = process.getuid?.() as number;
const GID = process.getgid?.() as number;
/** Somebody else, without a name on most machines. */
const OTHER_UID = 54321;
const OTHER_GID = 54322;
const SUPPLEMENTARY_GID = 54323;

const asOther = [
  "setpriv",
  `--reuid=${OTHER_UID}`,
  `--regid=${OTHER_GID}`,
  `--groups=${SUPPLEMENTARY_GID}`,
] as const;
const mayBecomeOther =
  spawnSync(asOther[0], [...asOther.slice(1), process.execPath, "--version"]).status === 0;

/** A daemon that other users can reach. */
async function startOpen(options: StartOptions = {}) {
  const place = new Place();
  chmodSync(place.directory, 0o755);
  const args = ["--socket-mode", "0666", ...(options.args ?? [])];
  return await place.start({ ...options, args });
}

describe("grants and log lines", () => {
  test("carry the process, user and group that asked", async () => {
    const daemon = await startDaemon();
    const holder = startRaw(daemon.place.socket, [
      { method: "lease.acquire", params: { name: "mine", owner: "a", ttlMs: 60_000 } },
      { method: "lease.acquire", params: { name: "mine", owner: "a" } },
    ]);
    await holder.line(1);
    const client = await daemon.place.connect();
    const { lease } = await client.call("lease.get", { name: "mine" });
    expect(lease).toMatchObject({ pid: holder.child.pid, uid: UID });
    expect((await client.call("lease.list", {})).leases).toMatchObject([{ pid: holder.child.pid, uid: UID }]);
    const line = await daemon.logged(({ kind }) => kind === "lease_held");
    expect(line).toMatchObject({
      method: "lease.acquire",
      caller: { pid: holder.child.pid, uid: UID, gid: GID },
    });
  });

  test.skipIf(!mayBecomeOther)("tell one user from another", async () => {
    const daemon = await startOpen();
    const acquire = { method: "lease.acquire", params: { name: "theirs", owner: "a", ttlMs: 60_000 } };
    await startRaw(daemon.place.socket, [acquire], { command: asOther }).line(0);
    const client = await daemon.place.connect();
    expect((await client.call("lease.get", { name: "theirs" })).lease).toMatchObject({ uid: OTHER_UID });
  });
});

describe("--allow-uid and --allow-gid", () => {
  test("serve those listed", async () => {
    for (const args of [
      ["--allow-uid", String(UID)],
      ["--allow-uid", "54300", "--allow-uid", String(UID)],
      ["--allow-gid", String(GID)],
    ]) {
      const daemon = await startDaemon({ args });
      const client = await daemon.place.connect();
      expect((await client.call("sequence.next", { type: "FR" })).seq).toBe(1);
      await daemon.end();
    }
  });

  test("can be set in the environment", async () => {
    const daemon = await startDaemon({ env: { PAWL_ALLOW_UID: "54300, 54301" } });
    const client = await daemon.place.connect();
    expectRefusal(await client.refusal("sequence.next", { type: "FR" }), "forbidden");
  });

  test("answer every request of others with `forbidden`, whatever it is, and do nothing", async () => {
    const daemon = await startDaemon({ args: ["--allow-uid", "54300", "--allow-gid", "54300"] });
    const client = await daemon.place.connect();
    for (const { name } of METHODS) {
      const error = expectRefusal(await client.refusal(name, {}), "forbidden");
      expect(error.data).toMatchObject({ uid: UID, gid: GID });
    }
    expectRefusal(await client.refusal("no.such", {}), "forbidden");
    const batch = [
      { jsonrpc: "2.0", id: "a", method: "sequence.next", params: { type: "FR" } },
      { jsonrpc: "2.0", method: "sequence.next", params: { type: "FR" } },
    ];
    client.send(batch);
    const replies = (await client.reply()) as unknown as RawReply[];
    expect(replies.map(({ id }) => id)).toEqual(["a"]);
    expectRefusal(replies[0]?.error, "forbidden");
    const line = await daemon.logged(({ kind }) => kind === "forbidden");
    expect(line).toMatchObject({ caller: { pid: process.pid, uid: UID, gid: GID } });
    await daemon.end();

    const open = await daemon.place.start();
    const later = await daemon.place.connect();
    expect((await later.call("sequence.next", { type: "FR" })).seq).toBe(1);
    await open.end();
  });

  test.skipIf(!mayBecomeOther)("tell users apart by uid, by group and by supplementary group", async () => {
    const next = [{ method: "sequence.next", params: { type: "FR" } }];
    const outcomes: Record<string, unknown> = {};
    for (const args of [
      ["--allow-uid", String(OTHER_UID)],
      ["--allow-gid", String(OTHER_GID)],
      ["--allow-gid", String(SUPPLEMENTARY_GID)],
      ["--allow-uid", String(UID)],
    ]) {
      const daemon = await startOpen({ args });
      const reply = await startRaw(daemon.place.socket, next, { command: asOther }).line<RawReply>(0);
      outcomes[args.join(" ")] = reply.error?.data.kind ?? (reply.result as Result<"sequence.next">).seq;
      await daemon.end();
    }
    expect(outcomes).toEqual({
      [`--allow-uid ${OTHER_UID}`]: 1,
      [`--allow-gid ${OTHER_GID}`]: 1,
      [`--allow-gid ${SUPPLEMENTARY_GID}`]: 1,
      [`--allow-uid ${UID}`]: "forbidden",
    });
  });

  test.each([["root"], ["-1"], ["4294967295"], ["1,,2"]])("refuse %j by name", async (value) => {
    const daemon = new Place().spawn({ args: [`--allow-uid=${value}`] });
    expect(await daemon.exited).toBe(2);
    expect(daemon.stderr).toContain("--allow-uid");
    expect(daemon.stderr).toContain(`not "${value}"`);
  });
});

describe("where the kernel cannot be asked", () => {
  const command = WITHOUT_KOFFI;

  test("the daemon says so once and serves all the same", async () => {
    const place = new Place();
    const daemon = await place.start({ command });
    const client = await place.connect();
    await place.connect();
    await client.call("lease.acquire", { name: "a", owner: "a" });
    expect((await client.call("lease.get", { name: "a" })).lease).toMatchObject({ pid: null, uid: null });
    expect(daemon.log.filter(({ level }) => level === "warn")).toMatchObject([
      { msg: "running without knowing who connects", reason: "no koffi here" },
    ]);
  });

  test("a waiter that half-closed and was killed is found out all the same", async () => {
    const place = new Place();
    await place.start({ command });
    const client = await place.connect();
    await client.call("lease.acquire", { name: "a", owner: "a", ttlMs: 60_000 });
    const waiting = (count: number): Promise<void> =>
      until(async () => (await client.call("lease.get", { name: "a" })).lease?.waiters === count);
    const wait = { method: "lease.acquire", params: { name: "a", owner: "b", waitMs: 60_000 } };
    const waiter = startRaw(place.socket, [wait], { halfClose: true });
    await waiting(1);
    await waiter.end("SIGKILL");
    await waiting(0);
  });

  test("a daemon without peer credentials does not start with --allow-uid", async () => {
    const daemon = new Place().spawn({ command, args: ["--allow-uid", String(UID)] });
    expect(await daemon.exited).toBe(3);
    expect(daemon.stderr).toContain("--allow-uid");
  });
});

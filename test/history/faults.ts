// The faults from outside, as the table in the specification lists them (operations.md): each happens to a daemon that
// serves a load, and is over when its promise resolves.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { FailingIo, Failure } from "./failing-io.js";
import type { Lives } from "./lives.js";
import type { Random } from "./random.js";

export interface Stage {
  lives: Lives;
  random: Random;
  io: FailingIo;
  /** Where libfaketime reads the wall clock from; none where it is not installed. */
  clock: Clock | undefined;
  /** Says what must not be. */
  complain: (what: string) => void;
}

const SECOND_MS = 1000;
const HOUR_MS = 3600 * SECOND_MS;
/** The specification says 5 s; the rest is for a machine that is busy. */
const PUT_BACK_MS = 20 * SECOND_MS;
const ENDS_MS = 20 * SECOND_MS;
const ALL_OF_THEM = 1_000_000_000;
const DEAF = 20;
const IDLE = 300;
const FLOOD = 3000;

/** Faults that a daemon lives through. */
export const FAULTS: Record<string, (stage: Stage) => Promise<void>> = {
  "log reader stopped": async ({ lives, random }) => {
    const { stdout } = lives;
    stdout?.pause();
    await flood(lives, random);
    stdout?.resume();
  },
  "socket file removed": async ({ lives, complain }) => {
    rmSync(lives.socket, { force: true });
    const from = performance.now();
    while (lives.isAlive && !existsSync(lives.socket)) {
      if (performance.now() - from > PUT_BACK_MS) return complain("the socket's file was not put back");
      await sleep(50);
    }
  },
  "lock file removed": async ({ lives }) => {
    rmSync(`${lives.socket}.lock`, { force: true });
    rmSync(join(lives.stateDir, "pawl.db.lock"), { force: true });
  },
  "foreign lock on the database": async ({ lives, random }) => {
    await transaction(lives, "begin immediate", random.of([200, 1000, 6500]));
  },
  "foreign reader of the database": ({ lives, random }) =>
    transaction(lives, "begin; select * from sqlite_schema", random.of([200, 3000])),
  "clock step": async ({ clock, random }) => {
    clock?.set((random.next() - 0.5) * random.of([10 * SECOND_MS, 10 * HOUR_MS, 10_000 * HOUR_MS]));
    await sleep(random.next() * SECOND_MS);
    if (random.chance(0.7)) clock?.set(0);
  },
  "few descriptors": async ({ lives }) => {
    const sockets = await Promise.all(Array.from({ length: IDLE }, () => opened(lives)));
    await sleep(SECOND_MS / 2);
    for (const socket of sockets) socket.destroy();
  },
  "no descriptor at all": async ({ lives, random }) => {
    const taken = readdirSync(`/proc/${lives.pid}/fd`).length;
    // Until the daemon has found out, who connects is closed, and cannot know that nothing was performed.
    const limit = { option: "nofile", name: "Max open files", limit: taken };
    await limited(lives, limit, random.next() * (SECOND_MS / 5));
  },
  "files that may not grow": async ({ lives, random }) => {
    const { size } = statSync(join(lives.stateDir, "pawl.db-wal"), { throwIfNoEntry: false }) ?? { size: 0 };
    const limit = { option: "fsize", name: "Max file size", limit: size + random.upTo(100_000) };
    await limited(lives, limit, random.next() * 3 * SECOND_MS);
  },
  stopped: async ({ lives, random }) => {
    lives.signal("SIGSTOP");
    await sleep(random.next() * random.of([300, 3500]));
    lives.signal("SIGCONT");
  },
  "disk full": ({ io, random }) => failing(io, { calls: "write", error: "ENOSPC" }, random),
  "quota used up": ({ io, random }) => failing(io, { calls: "write", error: "EDQUOT" }, random),
  "failed sync beside the commits": async (stage) => {
    failOnce(stage, { calls: "other sync", error: "EIO" });
    await sleep(stage.random.next() * SECOND_MS);
    stage.io.stop();
  },
  "short writes": ({ io, random }) => failing(io, { calls: "write", error: "short" }, random),
  "clients that do not read": async ({ lives, random }) => {
    const asked = '{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n'.repeat(100);
    const sockets = await Promise.all(Array.from({ length: DEAF }, () => opened(lives)));
    for (const socket of sockets) socket.pause().write(asked);
    await sleep(SECOND_MS * (0.5 + random.next()));
    for (const socket of sockets) socket.destroy();
  },
  "flood of what is refused": ({ lives, random }) => flood(lives, random),
};

/** Faults that end it; the next life begins after them. */
export const ENDS: Record<string, (stage: Stage) => Promise<void>> = {
  "kill -9": async ({ lives }) => void (await lives.end("SIGKILL")),
  SIGTERM: async ({ lives, complain }) => {
    const how = await lives.end("SIGTERM");
    if (how !== 0) complain(`after SIGTERM it ended with ${how}: ${lives.log.slice(-5).join("\n")}`);
  },
  "failed write": (stage) =>
    endsByItself(stage, () => failOnce(stage, { calls: "write of a commit", error: "EIO" })),
  "failed sync": (stage) =>
    endsByItself(stage, () => failOnce(stage, { calls: "sync of a commit", error: "EIO" })),
  "state directory moved": async (stage) => {
    const { stateDir } = stage.lives;
    await endsByItself(stage, () => renameSync(stateDir, `${stateDir}.moved`));
    // One that made the directory anew would have lost everything.
    if (existsSync(stateDir)) stage.complain("it made the directory anew that was moved");
    rmSync(stateDir, { recursive: true, force: true });
    renameSync(`${stateDir}.moved`, stateDir);
  },
};

/** Has another program open a transaction on the database for a while. */
async function transaction({ stateDir }: Lives, begin: string, heldMs: number): Promise<void> {
  const script = `
    const database = new (require("better-sqlite3"))(process.argv[1], { timeout: 5000 });
    database.exec(process.argv[2]);
    setTimeout(() => { database.exec("rollback"); database.close(); }, Number(process.argv[3]));`;
  const args = ["-e", script, join(stateDir, "pawl.db"), begin, String(heldMs)];
  await once(spawn(process.execPath, args, { cwd: import.meta.dirname, stdio: "ignore" }), "exit");
}

/** Gives a daemon a limit that it has reached, and after a while the former one again (prlimit(1)). */
async function limited(
  lives: Lives,
  { option, name, limit }: { option: string; name: string; limit: number },
  lastsMs: number,
): Promise<void> {
  const { pid } = lives;
  const limits = readFileSync(`/proc/${pid}/limits`, "utf8");
  const [, former] = new RegExp(`^${name} +(\\S+)`, "m").exec(limits) ?? [];
  const set = (soft: string | number): void =>
    void spawnSync("prlimit", ["--pid", `${pid}`, `--${option}=${soft}:`]);
  set(limit);
  await sleep(lastsMs);
  set(former ?? "unlimited");
}

function failOnce({ io, random }: Stage, failure: Failure): void {
  io.fail(failure, random.upTo(30), 1);
}

/** Waits until the daemon gives up, as it has to, with exit code 1. */
async function endsByItself({ lives, io, complain }: Stage, cause: () => void): Promise<void> {
  cause();
  const gaveUp = await Promise.race([lives.exited.then(() => true), sleep(ENDS_MS, false, { ref: false })]);
  io.stop();
  if (!gaveUp) complain(`it did not end: ${lives.log.slice(-5).join("\n")}`);
  const how = await lives.end("SIGKILL");
  if (gaveUp && how !== 1) complain(`it ended with ${how}, not with 1: ${lives.log.slice(-5).join("\n")}`);
}

async function failing(io: FailingIo, failure: Failure, random: Random): Promise<void> {
  io.fail(failure, 0, ALL_OF_THEM);
  await sleep(random.next() * 2 * SECOND_MS);
  io.stop();
}

/** A connection that is no part of the history; it may stay in the backlog. */
async function opened(lives: Lives): Promise<Socket> {
  const socket = connect(lives.socket);
  socket.on("error", () => {});
  await Promise.race([once(socket, "connect").catch(() => {}), sleep(SECOND_MS)]);
  return socket;
}

async function flood(lives: Lives, random: Random): Promise<void> {
  const socket = await opened(lives);
  const lines = [
    '{"jsonrpc":"2.0","id":1,"method":"lease.get","params":{"nmae":"x"}}\n',
    '{"jsonrpc":"2.0","id":1,"method":"nosuch"}\n',
    '{"jsonrpc":"2.0","id":1,"method":"queue.get","params":{"batchId":"qwb:none"}}\n',
    '{"jsonrpc":"2.0",\n',
  ];
  for (let sent = 0; sent < FLOOD && !socket.destroyed; sent += 100) {
    socket.write(random.of(lines).repeat(100));
    await sleep(5);
  }
  socket.destroy();
}

/** The wall clock of the daemons, by libfaketime. */
export class Clock {
  readonly env: Record<string, string>;
  readonly #file: string;

  constructor(directory: string, library: string) {
    this.#file = join(directory, "clock");
    this.set(0);
    this.env = {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      DONT_FAKE_MONOTONIC: "1",
    };
  }

  set(offsetMs: number): void {
    writeFileSync(`${this.#file}.new`, `${offsetMs >= 0 ? "+" : ""}${(offsetMs / SECOND_MS).toFixed(3)}`);
    renameSync(`${this.#file}.new`, this.#file);
  }
}

/** Debian's libfaketime, if it is installed. */
export const faketime = readdirSync("/usr/lib")
  .map((directory) => join("/usr/lib", directory, "faketime/libfaketimeMT.so.1"))
  .find((path) => existsSync(path));

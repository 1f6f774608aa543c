// @ts-check
/**
 * Section `hostile`: how long a polite client waits alone and beside each attack, and how much memory the daemon takes.
 * The daemon, the polite client and the attack are processes of their own; each attack meets a fresh daemon.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ATTACKS } from "./hostile/attacks.js";
import { makeState } from "./hostile/state.js";

const CONNECTIONS = [1, 10, 100];
const QUICK_CONNECTIONS = [10];
const ATTACK_MS = 3000;
const QUICK_ATTACK_MS = 1500;
const ALONE_MS = 5000;
/** Stalls that closing brings about count too. */
const CLOSING_MS = 500;
const LOOK_AT_MEMORY_MS = 50;
const MEMORY_BACK_MS = 60_000;

/** The polite client may wait so many times as long as alone, and so much longer. */
const P99_TIMES = 5;
const P99_MS = 20;
const LONGEST_MS = 250;
/** Of statm (proc(5)). */
const PAGE_BYTES = 4096;
const MEBIBYTE = 1024 * 1024;
const MEMORY_BYTES = 400 * MEBIBYTE;
const MEMORY_AFTER_BYTES = 120 * MEBIBYTE;

/**
 * @typedef {{p99Ms: number, longestMs: number}} Latency
 * @typedef {{read: Latency, write: Latency}} Latencies
 * @typedef {object} Row
 * @property {string} attack
 * @property {number} connections
 * @property {Latencies} latencies
 * @property {number} memoryBytes the most during the attack.
 * @property {number} afterBytes a minute after it, or as soon as it is little enough.
 * @property {number} afterMs when that was.
 * @property {string} [died] how the daemon ended, if it did.
 */

/**
 * @param {{pawlPeer: import("./peers/program.js").Peer, root: string, quick: boolean, only: string | undefined,
 *   progress: (text: string) => void}} options
 * @returns {Promise<{text: string, failed: boolean, rows: Row[]}>}
 */
export async function runHostile({ pawlPeer, root, quick, only, progress }) {
  const wanted = only?.toLowerCase().split(",");
  const attacks = ATTACKS.filter(
    ({ name }) => wanted?.some((part) => name.toLowerCase().includes(part)) ?? true,
  );
  const seed = path.join(root, "hostile-seed");
  mkdirSync(seed, { mode: 0o700 });
  progress("hostile: making the state");
  await makeState(pawlPeer, seed, quick ? 0.1 : 1);

  const alone = (await beside(pawlPeer, root, seed, ALONE_MS, undefined)).latencies;
  progress(`hostile: alone, ${shownLatencies(alone)}`);
  /** @type {Row[]} */
  const rows = [];
  for (const { name } of attacks) {
    for (const connections of quick ? QUICK_CONNECTIONS : CONNECTIONS) {
      const attack = { name, connections };
      const row = await beside(pawlPeer, root, seed, quick ? QUICK_ATTACK_MS : ATTACK_MS, attack);
      rows.push(row);
      progress(`hostile: ${name}, ${connections}: ${shownLatencies(row.latencies)}${misses(row, alone)}`);
    }
  }
  return { text: shown(alone, rows), failed: rows.some((row) => row.died !== undefined), rows };
}

/**
 * @param {import("./peers/program.js").Peer} peer
 * @param {string} root
 * @param {string} seed
 * @param {number} ms
 * @param {{name: string, connections: number} | undefined} attack
 * @returns {Promise<Row>}
 */
async function beside(peer, root, seed, ms, attack) {
  const state = path.join(root, "hostile");
  rmSync(state, { recursive: true, force: true });
  cpSync(seed, state, { recursive: true, preserveTimestamps: true });
  const reading = path.join(state, "reading.sock");
  const server = await peer.start(state, ["--read-only-socket", reading, "--accept-restore"]);
  const polite = start("polite.js", [server.socket]);
  const lines = createInterface({ input: polite.stdout })[Symbol.asyncIterator]();
  const look = async () => {
    polite.stdin.write("\n");
    return JSON.parse((await lines.next()).value);
  };
  /** @type {import("node:child_process").ChildProcess | undefined} */
  let attacker;
  const memory = watchMemory(server.pid);
  try {
    await sleep(CLOSING_MS);
    if (attack !== undefined) {
      attacker = start("attacker.js", [attack.name, String(attack.connections), server.socket, reading]);
      const begun = once(/** @type {import("node:stream").Readable} */ (attacker.stdout), "data");
      const ended = once(attacker, "exit").then(([code]) => {
        throw new Error(`the attack ${attack.name} ended with ${code} before it had begun`);
      });
      await Promise.race([begun, ended]);
      ended.catch(() => {});
    }
    await look();
    await sleep(ms);
    attacker?.kill("SIGKILL");
    await sleep(CLOSING_MS);
    const { read, write } = await look();
    const { highest, died } = memory();
    const after = attack === undefined ? { bytes: 0, ms: 0 } : await memoryAfter(server.pid);
    return {
      attack: attack?.name ?? "none",
      connections: attack?.connections ?? 0,
      latencies: { read: latency(read), write: latency(write) },
      memoryBytes: highest,
      afterBytes: after.bytes,
      afterMs: after.ms,
      ...(died ? { died: "the daemon has ended" } : {}),
    };
  } finally {
    memory();
    attacker?.kill("SIGKILL");
    polite.kill("SIGKILL");
    await server.stop();
  }
}

/**
 * The programs that run now, so that none outlives the benchmark.
 *
 * @type {Set<import("node:child_process").ChildProcess>}
 */
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** @param {string} file @param {string[]} args */
function start(file, args) {
  const program = fileURLToPath(new URL(`hostile/${file}`, import.meta.url));
  const child = spawn(process.execPath, [program, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.on("error", () => {});
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}

/** @param {number} pid @returns {() => {highest: number, died: boolean}} ends it. */
function watchMemory(pid) {
  let highest = 0;
  let died = false;
  const look = () => {
    const bytes = memoryOf(pid);
    died ||= bytes === 0;
    highest = Math.max(highest, bytes);
  };
  const timer = setInterval(look, LOOK_AT_MEMORY_MS);
  return () => {
    clearInterval(timer);
    look();
    return { highest, died };
  };
}

/** @param {number} pid @returns {Promise<{bytes: number, ms: number}>} */
async function memoryAfter(pid) {
  for (let ms = 0; ; ms += LOOK_AT_MEMORY_MS) {
    const bytes = memoryOf(pid);
    if (bytes < MEMORY_AFTER_BYTES || ms >= MEMORY_BACK_MS) return { bytes, ms };
    await sleep(LOOK_AT_MEMORY_MS);
  }
}

/** @param {number} pid @returns {number} 0 for a process that is not there. */
function memoryOf(pid) {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * PAGE_BYTES;
  } catch {
    return 0;
  }
}

/** @param {number[]} took @returns {Latency} */
function latency(took) {
  const sorted = took.toSorted((a, b) => a - b);
  return {
    p99Ms: sorted[Math.ceil(sorted.length * 0.99) - 1] ?? Number.POSITIVE_INFINITY,
    longestMs: sorted.at(-1) ?? Number.POSITIVE_INFINITY,
  };
}

/** The marks that a row misses, for the end of its line. @param {Row} row @param {Latencies} alone */
function misses({ latencies, memoryBytes, afterBytes, died }, alone) {
  const missed = [];
  for (const kind of /** @type {const} */ (["read", "write"])) {
    if (latencies[kind].p99Ms > P99_TIMES * alone[kind].p99Ms + P99_MS) missed.push(`${kind} p99`);
    if (latencies[kind].longestMs > LONGEST_MS) missed.push(`${kind} longest`);
  }
  if (memoryBytes > MEMORY_BYTES) missed.push("memory");
  if (afterBytes > MEMORY_AFTER_BYTES) missed.push("memory after");
  if (died !== undefined) missed.push(died);
  return missed.length === 0 ? "" : `  MISSES ${missed.join(", ")}`;
}

/** @param {Latencies} latencies */
function shownLatencies({ read, write }) {
  const one = (/** @type {Latency} */ { p99Ms, longestMs }) =>
    `${p99Ms.toFixed(1)}/${longestMs.toFixed(0)} ms`;
  return `read ${one(read)}, write ${one(write)}`;
}

/** @param {Latencies} alone @param {Row[]} rows */
function shown(alone, rows) {
  const head = ["attack", "from", "read p99", "longest", "write p99", "longest", "memory", "after", ""];
  const body = rows.map((row) => {
    const { read, write } = row.latencies;
    return [
      row.attack,
      String(row.connections),
      ...[read.p99Ms, read.longestMs, write.p99Ms, write.longestMs].map((ms) => `${ms.toFixed(1)} ms`),
      `${Math.round(row.memoryBytes / MEBIBYTE)} MiB`,
      `${Math.round(row.afterBytes / MEBIBYTE)} MiB, ${(row.afterMs / 1000).toFixed(1)} s`,
      misses(row, alone).trim(),
    ];
  });
  const aloneRow = [
    "alone",
    "",
    ...[alone.read, alone.write].flatMap(({ p99Ms, longestMs }) => [
      `${p99Ms.toFixed(1)} ms`,
      `${longestMs.toFixed(1)} ms`,
    ]),
  ];
  const all = [head, aloneRow, ...body];
  const widths = head.map((_, at) => Math.max(...all.map((line) => (line[at] ?? "").length)));
  const missing = body.filter((line) => line.at(-1) !== "").length;
  return [
    ...all.map((line) =>
      line
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join("  ")
        .trimEnd(),
    ),
    "",
    `Wanted: p99 under ${P99_TIMES} times alone plus ${P99_MS} ms, longest under ${LONGEST_MS} ms, memory under ${MEMORY_BYTES / MEBIBYTE} MiB and under ${MEMORY_AFTER_BYTES / MEBIBYTE} MiB a minute after. ${missing} of ${body.length} miss something.`,
  ].join("\n");
}

// @ts-check
/** flock(1) of util-linux, as scripts use it: shells that lock a file and unlock it, each time by a process. */
import { execFileSync, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { watchOthers } from "../others.js";
import { findProgram } from "./program.js";

/**
 * Raises the number in a file under the lock, by what the shell has built in, so that two who hold it at a time are
 * noticed. Begins when it is told to, and then says when each of its rounds ended.
 */
const LOOP = `
  exec 9>>"$1"
  loop() {
    times=($EPOCHREALTIME)
    for ((round = 0; round < $1; round++)); do
      flock 9
      read -r count < "$2"
      echo $((count + 1)) > "$2"
      flock -u 9
      times+=($EPOCHREALTIME)
    done
  }
  loop "$3" "$2"
  echo ready
  read -r go
  loop "$4" "$2"
  echo done
  read -r report
  echo "\${times[*]}"
`;

const MICROSECONDS_PER_MS = 1_000;

export const flock = {
  name: "flock(1)",
  durability: "none: a lock of the kernel, gone with its holder",
  missing: () =>
    findProgram("flock") && findProgram("bash") ? undefined : "flock (util-linux) or bash is not installed",
  version: () => execFileSync("flock", ["--version"], { encoding: "utf8" }).trim().split(" ").at(-1) ?? "?",
};

/**
 * Lets shells lock and unlock, each so many times.
 *
 * @param {string} directory an empty one.
 * @param {{processes: number, isOneName: boolean, warmUp: number, operations: number}} work of each process.
 * @returns {Promise<import("../driver.js").Run>}
 */
export async function lockInLoops(directory, { processes, isOneName, warmUp, operations }) {
  const names = Array.from({ length: processes }, (_, index) => (isOneName ? "lock" : `lock-${index}`));
  const files = names.map((name) => path.join(directory, name));
  for (const file of files) writeFileSync(`${file}.count`, "0\n");
  const shells = files.map((file) =>
    spawn("bash", ["-c", LOOP, "bash", file, `${file}.count`, String(warmUp), String(operations)], {
      stdio: ["pipe", "pipe", "inherit"],
    }),
  );
  const lines = shells.map((shell) => linesOf(shell.stdout));
  const all = () => Promise.all(lines.map(async (each) => String((await each.next()).value)));
  const tell = () => {
    for (const shell of shells) shell.stdin.write("go\n");
  };
  try {
    await all();
    const others = watchOthers();
    const cpuBefore = process.cpuUsage();
    const startedAtMs = performance.now();
    tell();
    await all();
    const seconds = (performance.now() - startedAtMs) / 1000;
    const { user, system } = process.cpuUsage(cpuBefore);
    const othersCpuSeconds = others();
    tell();
    const latenciesMs = (await all()).flatMap(latenciesOf);
    assertCounted(files, (warmUp + operations) * (isOneName ? processes : 1));
    return {
      operations: processes * operations,
      seconds,
      latenciesMs: Float64Array.from(latenciesMs),
      driverCpuSeconds: (user + system) / 1e6,
      othersCpuSeconds,
    };
  } finally {
    for (const shell of shells) shell.kill("SIGKILL");
  }
}

/** @param {import("node:stream").Readable} stream */
async function* linesOf(stream) {
  let rest = "";
  for await (const text of stream.setEncoding("utf8")) {
    const lines = (rest + text).split("\n");
    rest = /** @type {string} */ (lines.pop());
    yield* lines;
  }
}

/** @param {string} line the moments at which rounds ended, in seconds, with some separator before the microseconds. */
function latenciesOf(line) {
  const moments = line.split(" ").map((moment) => Number(moment.replace(/\D/, "")));
  return moments.slice(1).map((moment, i) => (moment - Number(moments[i])) / MICROSECONDS_PER_MS);
}

/**
 * @param {readonly string[]} files
 * @param {number} count
 */
function assertCounted(files, count) {
  for (const file of files) {
    const counted = Number(readFileSync(`${file}.count`, "utf8"));
    if (counted !== count) throw new Error(`flock(1) let ${counted} of ${count} rounds count ${file} alone`);
  }
}

// @ts-check
/** Starts and stops the servers that are measured, each private: its own directory, its own socket, no port. */
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Session } from "../driver.js";

/**
 * @typedef {import("node:child_process").ChildProcess} ChildProcess
 * @typedef {import("../driver.js").Protocol} Protocol
 *
 * @typedef {object} Holds how callers hold what they lock.
 * @property {number} ms so long; 0 to give it back at once, and then nothing is logged.
 * @property {number[]} log the number of a caller once it is told that it holds its lock, and the complement of that
 *   (`~`) when it asks to give it back, in their order.
 */

/**
 * @typedef {object} Server a running one.
 * @property {string} socket path to connect to.
 * @property {number} pid
 * @property {number} [withPid] of another that works for it, with its children.
 * @property {() => Promise<void>} stop
 */

/**
 * @typedef {object} Peer a system that can be measured.
 * @property {string} name
 * @property {string} durability the setting that makes its answers durable, as the report prints it.
 * @property {() => string | undefined} missing why it cannot be started here.
 * @property {() => string} version
 * @property {(directory: string, args?: readonly string[]) => Promise<Server>} start with state in a directory, which
 *   the system owns, and with further arguments.
 */

/** The programs that run now, so that none outlives the benchmark. @type {Set<ChildProcess>} */
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/**
 * Looks a program up in PATH and in further directories.
 *
 * @param {string} name
 * @param {readonly string[]} [directories]
 * @returns {string | undefined} its path.
 */
export function findProgram(name, directories = []) {
  for (const directory of [...(process.env.PATH ?? "").split(":"), ...directories]) {
    const file = path.join(directory, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not here: look on.
    }
  }
  return undefined;
}

/**
 * Starts a server and waits until it answers on its socket.
 *
 * @param {{command: string, args: readonly string[], socket: string, protocol: Protocol, probe?: string,
 *   stopSignal?: NodeJS.Signals, uid?: number | undefined, gid?: number | undefined, directory?: string}} program
 *   `probe` is a request that it answers once it serves; without one, an answered greeting will do. `directory` is
 *   where it is started.
 * @returns {Promise<Server>}
 */
export async function startServer({
  command,
  args,
  socket,
  protocol,
  probe,
  stopSignal = "SIGTERM",
  uid,
  gid,
  directory,
}) {
  const owner = uid === undefined || gid === undefined ? {} : { uid, gid };
  const place = directory === undefined ? {} : { cwd: directory };
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...owner, ...place });
  running.add(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      if (process.env.SHOW) process.stderr.write(text);
      said = (said + text).slice(-KEPT_OUTPUT_CHARACTERS);
    });
  }
  /** @type {Promise<string>} */
  const ended = new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => {
      running.delete(child);
      resolve(`exited with ${signal ?? code}`);
    });
  });

  let stopped = "";
  void ended.then((how) => {
    stopped = how;
  });
  const giveUpAtMs = Date.now() + START_LIMIT_MS;
  while (!(await answers(socket, protocol, probe))) {
    if (stopped !== "") throw new Error(`${command} ${stopped}\n${said}`);
    if (Date.now() > giveUpAtMs) throw new Error(`${command} does not answer on ${socket}\n${said}`);
    await sleep(PROBE_INTERVAL_MS);
  }
  return {
    socket,
    pid: child.pid ?? 0,
    async stop() {
      child.kill(stopSignal);
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_LIMIT_MS);
      await ended;
      clearTimeout(timer);
    },
  };
}

/**
 * @param {string} socket
 * @param {Protocol} protocol
 * @param {string | undefined} probe
 */
async function answers(socket, protocol, probe) {
  try {
    const session = await Session.connect(socket, protocol);
    if (probe !== undefined) await session.ask(probe);
    session.close();
    return true;
  } catch {
    return false;
  }
}

const START_LIMIT_MS = 30_000;
const STOP_LIMIT_MS = 10_000;
const PROBE_INTERVAL_MS = 10;
const KEPT_OUTPUT_CHARACTERS = 4_000;

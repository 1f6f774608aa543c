// @ts-check
/**
 * Section `costs`: the worst legal call of each method on a very large database, or the longest of the steps that it is
 * done in. The operations are driven here, without a socket, and the processor's time is what counts: the least of up
 * to 20 runs: a machine has other things to do, and the first runs are those of code that is not compiled yet.
 */
import { mkdirSync } from "node:fs";
import path from "node:path";
import Database from "better-sqlite3";
import { MEANING, WIDE_PARTS } from "../../daemon/dist/domain/check.js";
import { encode } from "../../daemon/dist/json/raw-json.js";
import { openNodeIdentity } from "../../daemon/dist/node-identity.js";
import { servedMethods } from "../../daemon/dist/rpc/served-methods.js";
import { Inspection } from "../../daemon/dist/store/inspection.js";
import { openDatabase } from "../../daemon/dist/store/open-database.js";
import { Unfinished, Wait } from "../../daemon/dist/turns/operation.js";
import { TurnMemory } from "../../daemon/dist/turns/turn-memory.js";
import { textsOf } from "../../protocol/dist/json-text.js";
import { METHODS } from "../../protocol/dist/methods.js";
import { ELSEWHERE, worstCalls } from "./costs/worst-calls.js";
import { open } from "./driver.js";
import * as pawl from "./peers/pawl.js";
import * as rows from "./peers/pawl-rows.js";

const ROWS = 1_000_000;
const NAMES = 100_000;
const ITEMS = 30_000;
const UPDATES = 80_000;
const QUICK_SCALE = 0.1;
const CONNECTIONS = 16;
const RUNS = 20;

/** A call may take so long ... */
const CALL_MS = 5;
/** ... and so much for each batch, change or item that it names ... */
const NAMED_MS = 0.02;
/** ... and for each MiB that it carries, there and back. */
const MEBIBYTE_MS = 10;
const MEBIBYTE = 1024 * 1024;

/**
 * @typedef {{method: string, call: string, longestMs: number, steps: number, allowedMs: number, error?: string}} Row
 *
 * @param {{pawlPeer: import("./peers/program.js").Peer, root: string, quick: boolean, only: string | undefined,
 *   progress: (text: string) => void}} options
 * @returns {Promise<{text: string, failed: boolean, rows: Row[]}>}
 */
export async function runCosts({ pawlPeer, root, quick, only, progress }) {
  const directory = path.join(root, "costs");
  mkdirSync(directory, { mode: 0o700 });
  await makeState(pawlPeer, directory, quick ? QUICK_SCALE : 1, progress);
  const file = path.join(directory, "pawl.db");
  const calls = worstCalls(new Database(file, { readonly: true }));
  const bench = new Bench(file);
  /** @type {Row[]} */
  const found = [];
  for (const { method, call, params, named = 0 } of calls) {
    if (only !== undefined && !method.includes(only)) continue;
    const row = { method, call, ...bench.measure(method, params, named) };
    found.push(row);
    progress(
      `costs: ${method}: ${row.longestMs.toFixed(1)} ms${row.error === undefined ? "" : ` (${row.error})`}`,
    );
  }
  if (only === undefined || "daemon.check".includes(only)) found.push(longestPiece(file));
  const missing = METHODS.map(({ name }) => name).filter(
    (name) => !Object.hasOwn(ELSEWHERE, name) && !found.some(({ method }) => method === name),
  );
  const isWhole = only !== undefined || missing.length === 0;
  const failed = !isWhole || found.some(({ error }) => error !== undefined);
  return { text: shown(found, isWhole ? [] : missing), failed, rows: found };
}

/**
 * @param {import("./peers/program.js").Peer} peer
 * @param {string} directory
 * @param {number} scale
 * @param {(text: string) => void} progress
 */
async function makeState(peer, directory, scale, progress) {
  const server = await peer.start(directory);
  const load = { connections: CONNECTIONS, depth: 4 };
  const items = ITEMS * scale;
  const writers = await open(server.socket, pawl.protocol, load, pawl.itemWrites(items));
  await writers.run(items);
  await writers.run(UPDATES * scale);
  writers.close();
  const one = await open(server.socket, pawl.protocol, { connections: 1, depth: 1 }, () => firstRows());
  await one.run(3);
  one.close();
  await server.stop();
  progress("costs: made the board; multiplying rows");
  rows.multiplyBatches(directory, ROWS * scale);
  rows.multiplyPending(directory, ROWS * scale);
  rows.multiplyLeases(directory, ROWS * scale);
  rows.addQueues(directory, NAMES * scale);
  rows.addTypes(directory, NAMES * scale);
  rows.addDeployments(directory, NAMES * scale);
}

/** A batch, a command and a lease that are multiplied. @returns {import("./driver.js").Lane} */
function firstRows() {
  const calls = [
    ["queue.enqueue", { queue: "deep", payloads: ["x"] }],
    ["command.create", { deployment: "busy", command: "c", params: { a: 1 } }],
    ["lease.acquire", { name: "lease", owner: "o", ttlMs: 86_400_000 }],
  ];
  return {
    request: () => {
      const [method, params] = /** @type {[string, object]} */ (calls.shift());
      return pawl.request(1, method, params);
    },
    reply: () => true,
  };
}

/** Drives operations against a database, a transaction for each step. */
class Bench {
  /** @param {string} file */
  constructor(file) {
    this.database = openDatabase({ path: file });
    const place = { stateDir: path.dirname(file), credentialsDirectory: undefined, acceptChange: false };
    this.identity = openNodeIdentity(this.database, place, () => {}).identity;
    const outside = () => {
      throw new Error("this has no operation of its own");
    };
    /** @type {any} */
    const surroundings = {
      ownReport: { now: () => 0, info: outside, stats: outside },
      commandPush: () => ({ serve: outside, count: () => 0, deployments: () => [] }),
      events: { journal: undefined, subscriptions: {} },
      async: { "daemon.backup": outside, "daemon.check": outside },
    };
    this.methods = servedMethods(surroundings);
  }

  /**
   * @param {string} name
   * @param {import("./costs/worst-calls.js").Params} paramsOf
   * @param {number} named batches, changes and items that the call names.
   */
  measure(name, paramsOf, named) {
    let best = { longestMs: Number.POSITIVE_INFINITY, steps: 0, allowedMs: 0 };
    try {
      for (let run = 0; run < RUNS && best.longestMs > CALL_MS; run++) {
        const params = paramsOf(run, (method, first) => this.#call(method, first).outcome);
        const { longestMs, steps, bytes } = this.#call(name, params);
        const carried = (bytes + JSON.stringify(params).length) / MEBIBYTE;
        const allowedMs = CALL_MS + NAMED_MS * named + MEBIBYTE_MS * carried;
        if (longestMs < best.longestMs) best = { longestMs, steps, allowedMs };
      }
    } catch (error) {
      this.database.store.rollback();
      return { ...best, error: /** @type {Error} */ (error).message };
    }
    return best;
  }

  /** @param {string} name @param {object} params */
  #call(name, params) {
    const method = /** @type {any} */ (this.methods.get(name));
    const text = JSON.stringify(params);
    let longestMs = 0;
    let steps = 0;
    let cpu = process.cpuUsage();
    const checked = method.check(JSON.parse(text), []);
    if (checked instanceof Error) throw checked;
    const { raw } = method;
    const texts = raw === undefined ? [] : textsOf(checked, raw, () => `{"params":${text}}`, ["params"]);
    /** @type {any} */
    let next = (/** @type {any} */ env) => method.perform(checked, env, texts);
    for (;;) {
      const { store } = this.database;
      const memory = new TurnMemory();
      store.begin();
      const outcome = store.perform(next(this.#env(memory)));
      store.perform(memory.writeBack());
      const answer = outcome instanceof Unfinished ? "" : encode(outcome);
      const { user, system } = process.cpuUsage(cpu);
      longestMs = Math.max(longestMs, (user + system) / 1000);
      steps += 1;
      store.commit();
      if (outcome instanceof Error && !(outcome instanceof Wait)) throw outcome;
      if (!(outcome instanceof Unfinished))
        return { longestMs, steps, bytes: answer.length, outcome: JSON.parse(answer) };
      next = outcome.goOn;
      cpu = process.cpuUsage();
    }
  }

  /** @param {TurnMemory} turn */
  #env(turn) {
    const { now, wallMs, retentionNow } = this.database.clock.read();
    const nothing = () => {};
    return {
      now,
      wallMs,
      retentionNow,
      mode: this.database.mode,
      idDigits: this.database.idDigits,
      caller: { connection: 1, pid: 1, uid: 0, gid: 0 },
      mayWait: false,
      woken: null,
      mayGoOn: true,
      turn,
      effects: new Proxy({}, { get: (_, name) => (name === "isFollowed" ? false : nothing) }),
      waiting: () => 0,
      waitsBefore: () => false,
      before: () => [],
      contenders: {
        contenders: 0,
        of: () => [],
        below: () => [],
        under: () => [],
        standingIn: () => [],
        everyone: () => [],
      },
      random: (/** @type {number} */ bytes) => globalThis.crypto.getRandomValues(Buffer.alloc(bytes)),
      sign: this.database.sign,
      identity: this.identity,
      retentionMs: 7 * 86_400_000,
      idMark: "",
    };
  }
}

/** @param {string} file @returns {Row} */
function longestPiece(file) {
  const inspection = new Inspection(file);
  let [longestMs, steps, longest] = [0, 0, ""];
  const look = (/** @type {string} */ name, /** @type {() => any} */ piece) => {
    let found;
    let leastMs = Number.POSITIVE_INFINITY;
    // One that takes long is looked at again: it finds the same, and something else may have taken the time.
    for (let run = 0; run < RUNS && leastMs > CALL_MS; run++) {
      const cpu = process.cpuUsage();
      found = piece();
      const { user, system } = process.cpuUsage(cpu);
      leastMs = Math.min(leastMs, (user + system) / 1000);
    }
    if (leastMs > longestMs) [longestMs, longest] = [leastMs, name];
    steps += 1;
    return found;
  };
  for (const part of inspection.parts(inspection.tables("pawl_"), MEANING)) {
    let key;
    do ({ next: key } = look(part.name, () => part.look(key)));
    while (key !== undefined);
  }
  for (const part of WIDE_PARTS) {
    let [key, within] = [undefined, undefined];
    do ({ next: key, within } = look(part.name, () => inspection.perform(part.look(key, within))));
    while (key !== undefined || within !== undefined);
  }
  inspection.close();
  return {
    method: "daemon.check",
    call: `the whole database: ${longest}`,
    longestMs,
    steps,
    allowedMs: CALL_MS,
  };
}

/** @param {Row[]} found @param {string[]} missing methods that nothing measures. */
function shown(found, missing) {
  const head = ["method", "worst call", "longest step", "steps", "allowed", ""];
  const body = found.map(({ method, call, longestMs, steps, allowedMs, error }) => [
    method,
    call,
    `${longestMs.toFixed(1)} ms`,
    String(steps),
    `${allowedMs.toFixed(1)} ms`,
    error ?? (longestMs > allowedMs ? "ABOVE" : ""),
  ]);
  const all = [head, ...body];
  const widths = head.map((_, at) => Math.max(...all.map((line) => (line[at] ?? "").length)));
  return [
    ...all.map((line) =>
      line
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join("  ")
        .trimEnd(),
    ),
    "",
    ...(missing.length === 0 ? [] : [`NOT COMPLETE: nothing measures ${missing.join(", ")}.`]),
    `Measured elsewhere: ${Object.keys(ELSEWHERE).join(", ")}.`,
  ].join("\n");
}

// @ts-check
/** pawld, over JSON-RPC lines, by as little client as the other systems get: prepared requests, no JSON.parse. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { open, Session } from "../driver.js";
import { startServer } from "./program.js";

/**
 * @typedef {import("../driver.js").Protocol} Protocol
 * @typedef {import("../driver.js").Lane} Lane
 * @typedef {import("./program.js").Holds} Holds
 */

const DAEMON_DIRECTORY = fileURLToPath(new URL("../../../daemon/", import.meta.url));
const NEWLINE = 0x0a;
/** Longer than any run, so that no lease ends in one. */
const LEASE_MS = 3_600_000;
const PRELOAD_CONNECTIONS = 2;
const PRELOAD_DEPTH = 64;
/** Batches in one enqueueMany. */
const ENQUEUE_BATCHES = 1_000;

/**
 * @param {{profileDirectory?: string | undefined, daemonDirectory?: string}} options
 * @returns {import("./program.js").Peer}
 */
export function pawl({ profileDirectory, daemonDirectory = DAEMON_DIRECTORY }) {
  const program = path.join(daemonDirectory, "bin/pawld.js");
  return {
    name: "pawl",
    durability: "SQLite WAL, synchronous=FULL",
    missing: () => (existsSync(program) ? undefined : `${program} is not there`),
    version: () => JSON.parse(readFileSync(path.join(daemonDirectory, "package.json"), "utf8")).version,
    start(directory, more = []) {
      const socket = path.join(directory, "pawl.sock");
      const flags = profileDirectory
        ? ["--cpu-prof", `--cpu-prof-dir=${path.resolve(profileDirectory)}`]
        : [];
      return startServer({
        command: process.execPath,
        args: [
          ...flags,
          program,
          "--socket",
          socket,
          "--state-dir",
          directory,
          "--log-level",
          "warn",
          ...more,
        ],
        socket,
        protocol,
        probe: request(0, "daemon.ping", {}),
      });
    },
  };
}

/** A reply is a line. @type {Protocol} */
export const protocol = {
  replyEnd(bytes, start, end) {
    const newline = bytes.indexOf(NEWLINE, start);
    return newline === -1 || newline >= end ? -1 : newline + 1;
  },
  refusal: (reply) => JSON.parse(reply.toString("utf8")).error?.message,
};

/**
 * @param {Session} session
 * @param {string} method
 * @param {object} params
 * @returns {Promise<any>} the result.
 */
export async function call(session, method, params) {
  return JSON.parse((await session.ask(request(0, method, params))).toString("utf8")).result;
}

/**
 * Callers of sequence.next for one type.
 *
 * @param {string} type
 * @param {number[]} numbers takes the answers.
 * @returns {(index: number) => Lane}
 */
export function increments(type, numbers) {
  return (index) => {
    const next = request(index, "sequence.next", { type });
    return {
      request: () => next,
      reply(bytes, start, end) {
        const text = answer(bytes, start, end, index);
        numbers.push(numberAt(text, '"seq":'));
        return true;
      },
    };
  };
}

/**
 * Callers that enqueue a batch, claim one and complete that claim.
 *
 * @param {string} queue
 * @param {unknown} payload
 * @param {string[]} taken takes the id of each batch completed.
 * @returns {(index: number) => Lane}
 */
export function cycles(queue, payload, taken) {
  return (index) => {
    const enqueue = request(index, "queue.enqueue", { queue, payloads: [payload] });
    return claimAndComplete(queue, index, taken, enqueue);
  };
}

/**
 * Callers that claim and complete what is already in the queue.
 *
 * @param {string} queue
 * @param {string[]} taken
 * @returns {(index: number) => Lane}
 */
export function claims(queue, taken) {
  return (index) => claimAndComplete(queue, index, taken, undefined);
}

/**
 * @param {string} queue
 * @param {number} index
 * @param {string[]} taken
 * @param {string | undefined} enqueue what comes before each claim.
 * @returns {Lane}
 */
function claimAndComplete(queue, index, taken, enqueue) {
  const claim = request(index, "queue.claim", { queue, owner: `worker-${index}`, leaseMs: LEASE_MS });
  const first = enqueue ?? claim;
  let step = first;
  let next = first;
  let batchId = "";
  return {
    request: () => next,
    reply(bytes, start, end) {
      const text = answer(bytes, start, end, index);
      if (step === enqueue) {
        step = next = claim;
        return false;
      }
      if (step === claim) {
        // Somebody else may have had the last one.
        if (text.includes('"claim":null')) return false;
        batchId = stringAt(text, '"batchId":"');
        step = "complete";
        next = `{"jsonrpc":"2.0","id":${index},"method":"queue.complete","params":{"claimId":"${stringAt(text, '"claimId":"')}","leaseToken":"${stringAt(text, '"leaseToken":"')}"}}\n`;
        return false;
      }
      if (!text.includes('"completed":1')) throw new Error(`queue.complete: ${text}`);
      taken.push(batchId);
      step = next = first;
      return true;
    },
  };
}

/**
 * Callers that acquire a lease and release it. Those who come later wait.
 *
 * @param {(index: number) => string} nameOf a caller's lease.
 * @param {Holds} holds
 * @param {Map<string, number[]>} tokens takes the fencing tokens of each name.
 * @returns {(index: number) => Lane}
 */
export function leases(nameOf, holds, tokens) {
  return (index) => {
    const name = nameOf(index);
    const asked = { name, owner: `caller-${index}`, ttlMs: LEASE_MS, waitMs: LEASE_MS };
    const acquire = request(index, "lease.acquire", asked);
    const own = tokens.get(name) ?? [];
    tokens.set(name, own);
    let isHeld = false;
    let next = acquire;
    return {
      request() {
        if (isHeld && holds.ms > 0) holds.log.push(~index);
        return next;
      },
      reply(bytes, start, end) {
        const text = answer(bytes, start, end, index);
        isHeld = !isHeld;
        if (!isHeld) {
          if (!text.includes('"released":true')) throw new Error(`lease.release: ${text}`);
          next = acquire;
          return true;
        }
        if (holds.ms > 0) holds.log.push(index);
        own.push(numberAt(text, '"fencingToken":'));
        const leaseId = stringAt(text, '"leaseId":"');
        next = `{"jsonrpc":"2.0","id":${index},"method":"lease.release","params":{"leaseId":"${leaseId}"}}\n`;
        return false;
      },
      pauseMs: () => holds.ms,
    };
  };
}

/**
 * Callers that create a command, lease one and answer that.
 *
 * @param {string} deployment
 * @param {unknown} params
 * @param {string[]} answered takes the id of each command answered.
 * @returns {(index: number) => Lane}
 */
export function commands(deployment, params, answered) {
  return (index) => {
    const create = createRequest(index, deployment, params);
    const lease = request(index, "command.lease", {
      deployment,
      owner: `worker-${index}`,
      leaseMs: LEASE_MS,
    });
    let step = create;
    let next = create;
    let commandId = "";
    return {
      request: () => next,
      reply(bytes, start, end) {
        const text = answer(bytes, start, end, index);
        if (step === create) {
          step = next = lease;
          return false;
        }
        if (step === lease) {
          if (text.includes('"leases":[]')) return false;
          commandId = stringAt(text, '"commandId":"');
          step = "respond";
          next = respondRequest(index, commandId, stringAt(text, '"leaseId":"'));
          return false;
        }
        if (!text.includes('"accepted":true')) throw new Error(`command.respond: ${text}`);
        answered.push(commandId);
        step = next = create;
        return true;
      },
    };
  };
}

/**
 * Callers that first make so many items of a board, and then update them, each request a change.
 *
 * @param {number} items
 * @param {number} made how many requests were made before, by others.
 * @returns {() => Lane}
 */
export function itemWrites(items, made = 0) {
  let lanes = 0;
  return () => {
    const id = lanes++;
    return {
      request() {
        const index = made++ - items;
        const params =
          index < 0
            ? { storyId: `S-${index + items}`, ...firstFields(index + items) }
            : { storyId: `S-${(index * STRIDE) % items}`, ...fieldsOf(index) };
        return request(id, "pipeline.write", params);
      },
      reply(bytes, start, end) {
        answer(bytes, start, end, id);
        return true;
      },
    };
  };
}

/** Far from the item of the update before. */
const STRIDE = 7919;

/** @param {number} index */
function firstFields(index) {
  return { stage: "1_backlog", name: `Story number ${index}` };
}

/** @param {number} index */
function fieldsOf(index) {
  switch (index % 4) {
    case 0:
      return { stage: `${1 + (index % 5)}_stage` };
    case 1:
      return { agent: `agent-${index % 50}` };
    case 2:
      return { retryCount: index % 10 };
    default:
      return { blocked: index % 8 === 3 };
  }
}

/**
 * A caller that lists a whole board, page by page, and parses what it gets.
 *
 * @param {number} items
 * @returns {() => Lane}
 */
export function itemLists(items) {
  return () => {
    /** @type {string | undefined} */
    let after;
    let listed = 0;
    return {
      request: () => request(0, "pipeline.list", { limit: LIST_PAGE_ITEMS, after }),
      reply(bytes, start, end) {
        const { result } = JSON.parse(bytes.toString("utf8", start, end));
        for (const stage of Object.values(result.stages)) listed += stage.length;
        after = result.next;
        if (after !== undefined) return false;
        if (listed !== items) throw new Error(`pawl listed ${listed} items, not ${items}`);
        listed = 0;
        return true;
      },
    };
  };
}

const LIST_PAGE_ITEMS = 1_000;

/**
 * All changes of a board, as requests by which another node takes them in.
 *
 * @param {string} socket
 * @returns {Promise<{identity: {author: string, board: string}, calls: {line: string, changes: number}[]}>}
 */
export async function boardChanges(socket) {
  const session = await Session.connect(socket, protocol);
  const identity = await call(session, "pipeline.identity", {});
  const calls = [];
  /** @type {object[]} */
  let heads = [];
  for (let more = true; more; ) {
    const page = await call(session, "pipeline.changes", { heads });
    calls.push({
      line: JSON.stringify({ method: "pipeline.apply", params: { changes: page.changes } }).slice(1),
      changes: page.changes.length,
    });
    const { body } = page.changes.at(-1);
    const { author, incarnation, seq } = JSON.parse(body);
    heads = [{ author, incarnation, seq, hash: createHash("sha256").update(body).digest("hex") }];
    more = page.more;
  }
  session.close();
  return { identity, calls };
}

/**
 * Callers that have a node take in changes.
 *
 * @param {{line: string, changes: number}[]} calls in their order, which one connection keeps.
 * @returns {(index: number) => Lane}
 */
export function boardApplies(calls) {
  let sent = 0;
  return (id) => {
    let changes = 0;
    return {
      request() {
        const next = /** @type {{line: string, changes: number}} */ (calls[sent++]);
        changes = next.changes;
        return `{"jsonrpc":"2.0","id":${id},${next.line}\n`;
      },
      reply(bytes, start, end) {
        const text = answer(bytes, start, end, id);
        if (numberAt(text, '"applied":') !== changes) throw new Error(`pipeline.apply: ${text}`);
        return true;
      },
    };
  };
}

/**
 * Fills a queue.
 *
 * @param {string} socket
 * @param {string} queue
 * @param {unknown} payload
 * @param {number} count
 */
export async function enqueueMany(socket, queue, payload, count) {
  const batch = { queue, payloads: [payload] };
  const requests = [];
  for (let left = count; left > 0; left -= ENQUEUE_BATCHES) {
    const size = Math.min(left, ENQUEUE_BATCHES);
    requests.push(request(0, "queue.enqueueMany", { batches: new Array(size).fill(batch) }));
  }
  await all(socket, requests, () => {});
}

/**
 * Brings one command to SUCCEEDED, with its answer kept.
 *
 * @param {string} socket
 * @param {string} deployment
 * @param {unknown} params
 */
export async function finishCommand(socket, deployment, params) {
  const callers = await open(
    socket,
    protocol,
    { connections: 1, depth: 1 },
    commands(deployment, params, []),
  );
  await callers.run(1);
  callers.close();
}

/**
 * Sends prepared requests, pipelined, over a few connections.
 *
 * @param {string} socket
 * @param {string[]} requests
 * @param {(result: any) => void} take gets each result, in no certain order.
 */
async function all(socket, requests, take) {
  let sent = 0;
  const callers = await open(
    socket,
    protocol,
    { connections: PRELOAD_CONNECTIONS, depth: PRELOAD_DEPTH },
    () => ({
      request: () => /** @type {string} */ (requests[sent++]),
      reply(bytes, start, end) {
        const { result, error } = JSON.parse(bytes.toString("utf8", start, end));
        if (error !== undefined) throw new Error(error.message);
        take(result);
        return true;
      },
    }),
  );
  await callers.run(requests.length);
  callers.close();
}

/**
 * @param {number} id
 * @param {string} method
 * @param {object} params
 */
export function request(id, method, params) {
  return `${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`;
}

/**
 * @param {number} id
 * @param {string} deployment
 * @param {unknown} params
 */
function createRequest(id, deployment, params) {
  return request(id, "command.create", { deployment, command: "render", params });
}

/**
 * @param {number} id
 * @param {string} commandId
 * @param {string} leaseId
 */
function respondRequest(id, commandId, leaseId) {
  return `{"jsonrpc":"2.0","id":${id},"method":"command.respond","params":{"commandId":"${commandId}","leaseId":"${leaseId}","response":{"status":"success","response":{"done":true}}}}\n`;
}

/**
 * The text of a reply, which must be the answer to the caller's own request.
 *
 * @param {Buffer} bytes
 * @param {number} start
 * @param {number} end
 * @param {number} id
 */
function answer(bytes, start, end, id) {
  const text = bytes.toString("latin1", start, end);
  if (numberAt(text, '"id":') !== id || text.includes('"error":'))
    throw new Error(`to request ${id}: ${text}`);
  return text;
}

/**
 * @param {string} text
 * @param {string} key with its quotes and colon.
 */
function numberAt(text, key) {
  const at = text.indexOf(key);
  return at === -1
    ? Number.NaN
    : Number.parseInt(text.slice(at + key.length, at + key.length + MAX_DIGITS), 10);
}

/**
 * @param {string} text
 * @param {string} key with its quotes, its colon and the quote that opens the value.
 */
function stringAt(text, key) {
  const at = text.indexOf(key);
  if (at === -1) throw new Error(`no ${key} in ${text}`);
  const from = at + key.length;
  return text.slice(from, text.indexOf('"', from));
}

/** Of 2^53 - 1. */
const MAX_DIGITS = 16;

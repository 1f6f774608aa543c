// @ts-check
/**
 * The one driver that loads every system in the benchmark. It knows nothing of what it measures: a
 * `Protocol` says where a reply ends, and a `Lane` is one caller that gives its next request for each reply.
 *
 * Driver and server share the machine, so the driver spends as little as it can and the same for all:
 * latin1 strings out, one read buffer for all sockets, one write per packet of replies read.
 */
import { Buffer } from "node:buffer";
import net from "node:net";
import { performance } from "node:perf_hooks";
import { watchOthers } from "./others.js";

const READ_BUFFER_BYTES = 256 * 1024;
const EMPTY = Buffer.alloc(0);

/**
 * @typedef {object} Lane one caller: it asks, waits for the whole reply, and asks again.
 * @property {() => string} request the bytes of its next request, as latin1.
 * @property {(bytes: Buffer, start: number, end: number) => boolean} reply takes one whole reply and says
 *   whether it ended an operation. Throws when it is not the reply that was to be expected.
 * @property {() => number} [pauseMs] how long it waits, after a reply that ended nothing, before it asks again.
 */

/**
 * @typedef {object} Protocol
 * @property {(bytes: Buffer, start: number, end: number) => number} replyEnd where the reply that starts at
 *   `start` ends, or -1 when not all of it has arrived.
 * @property {(reply: Buffer) => string | undefined} refusal what a reply says went wrong, if it does.
 * @property {readonly string[]} [greeting] requests that each connection sends before it is measured.
 */

/**
 * @typedef {object} Run
 * @property {number} operations
 * @property {number} seconds wall time from the first request to the last reply.
 * @property {Float64Array} latenciesMs of each operation.
 * @property {number} driverCpuSeconds spent by this process: near `seconds`, the driver is the limit.
 * @property {number} othersCpuSeconds spent by what is not part of the measurement.
 * @property {number} [memoryBytes] that the system has in use after it.
 */

/**
 * @typedef {object} Callers connected callers.
 * @property {(operations: number) => Promise<Run>} run does so many operations, shared out as callers come free.
 * @property {() => void} close
 */

/**
 * Connects `connections` sockets, each with `depth` lanes that have one request in flight each.
 *
 * @param {string} path of the Unix socket.
 * @param {Protocol} protocol
 * @param {{connections: number, depth: number}} load
 * @param {(index: number) => Lane} lane makes the callers, numbered from 0 over all connections.
 * @returns {Promise<Callers>}
 */
export async function open(path, protocol, { connections, depth }, lane) {
  /** @type {Session[]} */
  const sessions = [];
  for (let i = 0; i < connections; i++) {
    const session = await Session.connect(path, protocol);
    session.lanes = Array.from({ length: depth }, (_, slot) => lane(i * depth + slot));
    sessions.push(session);
  }
  return {
    run: (operations) => run(sessions, operations),
    close: () => {
      for (const session of sessions) session.close();
    },
  };
}

/**
 * @param {Session[]} sessions
 * @param {number} operations
 * @returns {Promise<Run>}
 */
function run(sessions, operations) {
  return new Promise((resolve, reject) => {
    const latenciesMs = new Float64Array(operations);
    let started = 0;
    let done = 0;
    const others = watchOthers();
    const cpuBefore = process.cpuUsage();
    const startedAtMs = performance.now();

    /** @param {Session} session */
    function take(session) {
      const { protocol, inFlight } = session;
      let requests = "";
      for (;;) {
        const end = protocol.replyEnd(session.bytes, session.start, session.end);
        if (end === -1) break;
        const caller = inFlight.shift();
        if (caller === undefined) throw new Error(`a reply that nobody waits for: ${session.rest()}`);
        const ended = caller.lane.reply(session.bytes, session.start, end);
        session.start = end;
        if (ended) {
          const nowMs = performance.now();
          latenciesMs[done++] = nowMs - caller.sinceMs;
          if (done === operations) finish(nowMs);
          if (started === operations) continue;
          started++;
          caller.sinceMs = nowMs;
        }
        const pauseMs = ended ? 0 : (caller.lane.pauseMs?.() ?? 0);
        if (pauseMs > 0) setTimeout(askLater, pauseMs, session, caller);
        else {
          inFlight.push(caller);
          requests += caller.lane.request();
        }
      }
      if (requests !== "") session.send(requests);
    }

    /** @param {Session} session @param {Session["inFlight"][0]} caller */
    function askLater(session, caller) {
      session.inFlight.push(caller);
      session.send(caller.lane.request());
    }

    /** @param {number} nowMs */
    function finish(nowMs) {
      const { user, system } = process.cpuUsage(cpuBefore);
      const seconds = (nowMs - startedAtMs) / 1000;
      const driverCpuSeconds = (user + system) / 1e6;
      resolve({ operations, seconds, latenciesMs, driverCpuSeconds, othersCpuSeconds: others() });
    }

    for (const session of sessions) {
      session.onFailure = reject;
      session.onBytes = take;
      let requests = "";
      for (const lane of session.lanes) {
        if (started === operations) break;
        started++;
        session.inFlight.push({ lane, sinceMs: performance.now() });
        requests += lane.request();
      }
      if (requests !== "") session.send(requests);
    }
  });
}

/** One socket. Its unread bytes are `bytes` from `start` to `end`. */
export class Session {
  /** @type {Lane[]} */
  lanes = [];
  /** Callers that wait for a reply, in the order of their requests. @type {{lane: Lane, sinceMs: number}[]} */
  inFlight = [];
  /** @type {(session: Session) => void} */
  onBytes = () => {};
  /** @type {(error: Error) => void} */
  onFailure = () => {};
  bytes = EMPTY;
  start = 0;
  end = 0;
  #closing = false;
  /** @type {net.Socket} */
  #socket;

  /**
   * @param {string} path
   * @param {Protocol} protocol
   * @returns {Promise<Session>} once it is connected and its greeting is answered.
   */
  static async connect(path, protocol) {
    const session = new Session(path, protocol);
    await new Promise((resolve, reject) => {
      session.onFailure = reject;
      session.#socket.once("connect", resolve);
    });
    for (const request of protocol.greeting ?? []) await session.ask(request);
    return session;
  }

  /**
   * @param {string} path
   * @param {Protocol} protocol
   */
  constructor(path, protocol) {
    this.protocol = protocol;
    this.#socket = net.connect({
      path,
      onread: { buffer: readBuffer, callback: (count) => this.#receive(count) },
    });
    this.#socket.on("error", (error) => this.onFailure(error));
    this.#socket.on("close", () => {
      if (!this.#closing) this.onFailure(new Error(`the server closed ${path}`));
    });
  }

  /** @param {string} requests */
  send(requests) {
    this.#socket.write(requests, "latin1");
  }

  /**
   * Sends one request outside of a run. Rejects when the reply is a refusal.
   *
   * @param {string} request
   * @returns {Promise<Buffer>}
   */
  ask(request) {
    return new Promise((resolve, reject) => {
      this.onFailure = reject;
      this.onBytes = () => {
        const end = this.protocol.replyEnd(this.bytes, this.start, this.end);
        if (end === -1) return;
        const reply = Buffer.from(this.bytes.subarray(this.start, end));
        this.start = end;
        const refusal = this.protocol.refusal(reply);
        if (refusal === undefined) resolve(reply);
        else reject(new Error(refusal));
      };
      this.send(request);
    });
  }

  rest() {
    return this.bytes.toString("latin1", this.start, this.end);
  }

  close() {
    this.#closing = true;
    this.#socket.destroy();
  }

  /** @param {number} count bytes of `readBuffer` that have just been filled. */
  #receive(count) {
    const unread = this.end - this.start;
    this.bytes = unread === 0 ? readBuffer : Buffer.concat([this.bytes, readBuffer.subarray(0, count)]);
    this.end = unread + count;
    try {
      this.onBytes(this);
    } catch (error) {
      this.onFailure(/** @type {Error} */ (error));
    }
    // The read buffer is everybody's: an unfinished reply is copied out of it.
    const kept = this.start < this.end;
    this.bytes = kept ? Buffer.from(this.bytes.subarray(this.start, this.end)) : EMPTY;
    this.end = this.bytes.length;
    this.start = 0;
    return true;
  }
}

const readBuffer = Buffer.alloc(READ_BUFFER_BYTES);

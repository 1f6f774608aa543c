// @ts-check
/**
 * One attack in a process of its own: `attacker.js NAME CONNECTIONS SOCKET READING_SOCKET`. The process says on
 * standard output that it has begun, goes on until it is killed, and begins each connection anew that ends.
 */
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { ATTACKS } from "./attacks.js";

/** A connection that ended at once is made anew after so long. */
const AGAIN_MS = 2;
/** Requests of `callAll` in one write. */
const PART = 256;

/** @param {string} method @param {unknown} params @param {unknown} id */
const line = (method, params, id) => `${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`;

/** A connection of an attack. */
export class Peer {
  #socket;
  #text = "";
  #nextId = 1;
  /** @type {Map<unknown, (reply: any) => void>} */
  #calls = new Map();
  #isOpen = true;
  /** Resolves when the connection is closed. @type {Promise<void>} */
  closed;

  /** @param {net.Socket} socket @param {boolean} isDeaf */
  constructor(socket, isDeaf) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.#isOpen = false;
        for (const resolveCall of this.#calls.values()) resolveCall({ error: { message: "closed" } });
        resolve();
      });
    });
    socket.on("error", () => {});
    if (isDeaf) socket.pause();
    else socket.on("data", (bytes) => this.#read(bytes));
  }

  /** Resolves once the kernel has room for more, or the connection is closed. @param {string | Uint8Array} bytes */
  async write(bytes) {
    if (!this.#isOpen || this.#socket.write(bytes)) return;
    await Promise.race([new Promise((resolve) => this.#socket.once("drain", resolve)), this.closed]);
  }

  /**
   * Writes the same, or the next, until the connection is closed.
   *
   * @param {string | Uint8Array | (() => string | Uint8Array)} bytes
   */
  async flood(bytes) {
    const same = typeof bytes === "function" ? undefined : Buffer.from(bytes);
    while (this.#isOpen) {
      await this.write(same ?? /** @type {() => string | Uint8Array} */ (bytes)());
      // The answers have to be read between two writes.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Resolves with the result. @param {string} method @param {unknown} params @returns {Promise<any>} */
  async call(method, params) {
    const id = `call-${this.#nextId++}`;
    /** @type {Promise<any>} */
    const answered = new Promise((resolve) => this.#calls.set(id, resolve));
    await this.write(line(method, params, id));
    const { result, error } = await answered;
    if (error !== undefined) throw new Error(error.message);
    return result;
  }

  /**
   * So many calls at once; resolves when all are answered.
   *
   * @param {number} count
   * @param {string} method
   * @param {unknown | ((number: number) => unknown)} params
   */
  async callAll(count, method, params) {
    for (let first = 0; first < count; first += PART) {
      const calls = Array.from({ length: Math.min(PART, count - first) }, (_, at) =>
        this.call(method, typeof params === "function" ? params(first + at) : params).catch(() => {}),
      );
      await Promise.all(calls);
    }
  }

  /** @param {number} ms */
  pause(ms) {
    return Promise.race([sleep(ms), this.closed]);
  }

  /** Half-closes after these bytes, and resolves once the daemon has closed too. @param {string} bytes */
  async end(bytes) {
    this.#socket.end(bytes);
    await this.closed;
  }

  /** Closes in the middle of whatever is under way. */
  reset() {
    this.#socket.destroy();
  }

  /** @param {Buffer} bytes */
  #read(bytes) {
    // A flood has no calls, and its answers are not kept.
    if (this.#calls.size === 0) return;
    this.#text += bytes.toString("latin1");
    const lines = this.#text.split("\n");
    this.#text = lines.pop() ?? "";
    for (const each of lines) {
      if (!each.includes('"id":"call-')) continue;
      const reply = JSON.parse(each);
      this.#calls.get(reply.id)?.(reply);
      this.#calls.delete(reply.id);
    }
  }
}

/** The things that an attack is begun with. */
export class Attacker {
  /** @param {string} socket */
  constructor(socket) {
    this.socket = socket;
  }

  /** Puts so many batches into a queue. @param {string} queue @param {number} count */
  async fill(queue, count) {
    const peer = await connect(this.socket, false);
    for (let made = 0; made < count; made += 1000) {
      const batches = Array.from({ length: 1000 }, () => ({ queue, payloads: [1] }));
      await peer.call("queue.enqueueMany", { batches });
    }
    peer.reset();
  }
}

/** @param {string} path @param {boolean} isDeaf @returns {Promise<Peer>} */
async function connect(path, isDeaf) {
  const socket = net.connect({ path, allowHalfOpen: true });
  await new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  return new Peer(socket, isDeaf);
}

async function main() {
  const [name, connections, socket, reading] = process.argv.slice(2);
  const attack = ATTACKS.find((each) => each.name === name);
  if (attack === undefined || socket === undefined || reading === undefined)
    throw new Error(`no attack ${name}`);
  const path = attack.reads ? reading : socket;
  await attack.before?.(new Attacker(socket));
  const attackOn = async (/** @type {number} */ index) => {
    for (;;) {
      try {
        const peer = await connect(path, attack.deaf ?? false);
        await attack.run(peer, index);
        peer.reset();
      } catch {
        // The daemon refused or closed the connection: that is how it defends itself.
      }
      await sleep(AGAIN_MS);
    }
  };
  process.stdout.write("begun\n");
  await Promise.all(Array.from({ length: Number(connections) }, (_, index) => attackOn(index)));
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main();

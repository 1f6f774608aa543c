// @ts-check
/**
 * The polite client, in a process of its own: `polite.js SOCKET`. One connection reads and one writes, each a call
 * every 20 ms whether or not the last one is answered. For each line on standard input the client says how long the
 * calls took since the line before: `{"read": [ms, ...], "write": [ms, ...]}`.
 */
import net from "node:net";
import { performance } from "node:perf_hooks";

const EVERY_MS = 20;

const CALLS = /** @type {const} */ ({
  read: ["pipeline.read", { storyId: "S-7" }],
  write: ["sequence.next", { type: "POLITE" }],
});

/** One caller: the times of its answers, in the order of its calls. */
class Caller {
  /** @type {number[]} */
  took = [];
  /** @type {number[]} */
  #sentMs = [];
  #socket;

  /** @param {string} path @param {readonly [string, object]} call */
  constructor(path, [method, params]) {
    this.#socket = net.connect(path);
    this.#socket.on("data", (bytes) => {
      const nowMs = performance.now();
      for (const byte of bytes) if (byte === 0x0a) this.took.push(nowMs - Number(this.#sentMs.shift()));
    });
    this.#socket.on("error", (error) => {
      process.stderr.write(`${error.message}\n`);
      process.exit(1);
    });
    this.request = `${JSON.stringify({ jsonrpc: "2.0", id: 1, method, params })}\n`;
  }

  send() {
    this.#sentMs.push(performance.now());
    this.#socket.write(this.request);
  }

  /** The times since the last look; what is not answered yet has taken as long as it has. */
  look() {
    const nowMs = performance.now();
    const pending = this.#sentMs.map((sentMs) => nowMs - sentMs);
    return [...this.took.splice(0), ...pending.filter((ms) => ms > EVERY_MS)];
  }
}

const path = String(process.argv[2]);
const reader = new Caller(path, CALLS.read);
const writer = new Caller(path, CALLS.write);
setInterval(() => {
  reader.send();
  writer.send();
}, EVERY_MS);
process.stdin.on("data", () => {
  process.stdout.write(`${JSON.stringify({ read: reader.look(), write: writer.look() })}\n`);
});
process.stdin.on("end", () => process.exit(0));

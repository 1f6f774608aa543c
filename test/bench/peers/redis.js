// @ts-check
/** Redis, over RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/). */
import { execFileSync } from "node:child_process";
import path from "node:path";
import { findProgram, startServer } from "./program.js";

/**
 * @typedef {import("../driver.js").Protocol} Protocol
 * @typedef {import("../driver.js").Lane} Lane
 */

const COLON = 0x3a;
const MINUS = 0x2d;
const NEWLINE = 0x0a;
const ZERO = 0x30;

/** @type {import("./program.js").Peer} */
export const redis = {
  name: "Redis",
  durability: "appendfsync always",
  missing: () => (findProgram("redis-server") ? undefined : "redis-server is not installed"),
  version: () =>
    /v=(\S+)/.exec(execFileSync("redis-server", ["--version"], { encoding: "utf8" }))?.[1] ?? "?",
  start(directory) {
    const socket = path.join(directory, "redis.sock");
    return startServer({
      command: "redis-server",
      // No snapshots and no rewriting of the log: nothing but the increments and their fsyncs is measured.
      args: [
        ...["--port", "0", "--unixsocket", socket, "--dir", directory, "--save", ""],
        ...["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"],
      ],
      socket,
      protocol,
      probe: command("PING"),
    });
  },
};

/** Simple strings, errors and integers: all replies that INCR and PING have. @type {Protocol} */
export const protocol = {
  replyEnd(bytes, start, end) {
    const newline = bytes.indexOf(NEWLINE, start);
    return newline === -1 || newline >= end ? -1 : newline + 1;
  },
  refusal: (reply) => (reply[0] === MINUS ? reply.toString("latin1") : undefined),
};

/**
 * Callers that INCR one key.
 *
 * @param {string} key
 * @param {number[]} numbers takes the answers.
 * @returns {() => Lane}
 */
export function increments(key, numbers) {
  const incr = command("INCR", key);
  return () => ({
    request: () => incr,
    reply(bytes, start, end) {
      if (bytes[start] !== COLON) throw new Error(`INCR: ${bytes.toString("latin1", start, end)}`);
      let number = 0;
      for (let i = start + 1; i < end - 2; i++)
        number = number * 10 + /** @type {number} */ (bytes[i]) - ZERO;
      numbers.push(number);
      return true;
    },
  });
}

/** @param {string[]} words */
function command(...words) {
  return `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;
}

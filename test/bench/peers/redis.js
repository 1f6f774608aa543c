// @ts-check
/** Redis, over RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/). */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import path from "node:path";
import { findProgram, startServer } from "./program.js";

/**
 * @typedef {import("../driver.js").Protocol} Protocol
 * @typedef {import("../driver.js").Lane} Lane
 * @typedef {import("./program.js").Holds} Holds
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

/** Replies of one line: simple strings, errors, integers and nothing, all that is asked for here. @type {Protocol} */
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

/** Deletes a lock that is still the caller's own, as the documentation of SET has it. */
const RELEASE = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) else return 0 end`;
const RELEASE_SHA = createHash("sha1").update(RELEASE).digest("hex");
/** Longer than any run, so that no lock ends in one. */
const LOCK_MS = "3600000";
/** How long a caller waits that found the lock taken: a random time, as the documentation of locks has it. */
const MIN_RETRY_MS = 1;
const MAX_RETRY_MS = 5;

/** The protocol of callers that lock: each connection has the script known. @type {Protocol} */
export const lockProtocol = { ...protocol, greeting: [command("EVAL", RELEASE, "1", "none", "none")] };

/**
 * Callers that take a lock by SET NX PX and give it back by the script.
 *
 * @param {(index: number) => string} nameOf a caller's lock.
 * @param {Holds} holds
 * @returns {(index: number) => Lane}
 */
export function locks(nameOf, holds) {
  return (index) => {
    const [name, token] = [nameOf(index), `token-${index}`];
    const set = command("SET", name, token, "NX", "PX", LOCK_MS);
    const release = command("EVALSHA", RELEASE_SHA, "1", name, token);
    let isLocked = false;
    return {
      request() {
        if (isLocked && holds.ms > 0) holds.log.push(~index);
        return isLocked ? release : set;
      },
      reply(bytes, start, end) {
        const text = bytes.toString("latin1", start, end);
        if (isLocked) {
          if (text !== ":1\r\n") throw new Error(`the release script: ${text}`);
          isLocked = false;
          return true;
        }
        if (text === "+OK\r\n") {
          isLocked = true;
          if (holds.ms > 0) holds.log.push(index);
        } else if (text !== "$-1\r\n") throw new Error(`SET NX PX: ${text}`);
        return false;
      },
      pauseMs: () => (isLocked ? holds.ms : MIN_RETRY_MS + Math.random() * (MAX_RETRY_MS - MIN_RETRY_MS)),
    };
  };
}

/** @param {string[]} words */
function command(...words) {
  return `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;
}

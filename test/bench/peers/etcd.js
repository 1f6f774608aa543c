// @ts-check
/** etcd and its own lock, over the JSON gateway (https://etcd.io/docs/v3.4/dev-guide/api_concurrency_reference_v3/). */
import { execFileSync } from "node:child_process";
import path from "node:path";
import { Session } from "../driver.js";
import { findProgram, startServer } from "./program.js";

/**
 * @typedef {import("../driver.js").Protocol} Protocol
 * @typedef {import("../driver.js").Lane} Lane
 * @typedef {import("./program.js").Holds} Holds
 */

const HEAD_END = "\r\n\r\n";
/** Longer than any run, so that no session ends in one. */
const SESSION_SECONDS = 3_600;
/** etcd takes no path of a Unix socket, only something like a host and a port, from where it was started. */
const SOCKET = "etcd:1";
const PEER_SOCKET = "peer:1";
const NOT_USED = "http://localhost:1";

/** @type {import("./program.js").Peer} */
export const etcd = {
  name: "etcd",
  durability: "raft log of one member, fsync",
  missing: () => (findProgram("etcd") ? undefined : "etcd is not installed (etcd-server)"),
  version: () => /: (\S+)/.exec(execFileSync("etcd", ["--version"], { encoding: "utf8" }))?.[1] ?? "?",
  start(directory) {
    return startServer({
      command: "etcd",
      args: [
        ...["--data-dir", path.join(directory, "etcd"), "--logger", "zap", "--log-level", "error"],
        ...["--listen-client-urls", `unix://${SOCKET}`, "--advertise-client-urls", NOT_USED],
        ...["--listen-peer-urls", `unix://${PEER_SOCKET}`, "--initial-advertise-peer-urls", NOT_USED],
        ...["--initial-cluster", `default=${NOT_USED}`],
      ],
      directory,
      socket: path.join(directory, SOCKET),
      protocol,
      probe: post("/v3/kv/range", { key: base64("none") }),
    });
  },
};

/** An HTTP response, whose length its head tells. @type {Protocol} */
export const protocol = {
  replyEnd(bytes, start, end) {
    const headEnd = bytes.indexOf(HEAD_END, start, "latin1");
    if (headEnd === -1 || headEnd >= end) return -1;
    const length = /\r\ncontent-length: (\d+)/i.exec(bytes.toString("latin1", start, headEnd))?.[1];
    if (length === undefined) throw new Error(`etcd: ${bytes.toString("latin1", start, end)}`);
    const replyEnd = headEnd + HEAD_END.length + Number(length);
    return replyEnd > end ? -1 : replyEnd;
  },
  refusal: (reply) => (isGood(reply, 0) ? undefined : reply.toString("latin1")),
};

/**
 * Sessions for so many callers: etcd's client makes one, and takes its locks with it.
 *
 * @param {string} socket
 * @param {number} count
 * @returns {Promise<string[]>} their lease ids.
 */
export async function sessions(socket, count) {
  const session = await Session.connect(socket, protocol);
  const ids = [];
  for (let i = 0; i < count; i++) {
    const reply = await session.ask(post("/v3/lease/grant", { TTL: SESSION_SECONDS }));
    ids.push(JSON.parse(bodyOf(reply.toString("latin1"))).ID);
  }
  session.close();
  return ids;
}

/**
 * Callers that lock a name and unlock it. etcd has those who come later wait.
 *
 * @param {readonly string[]} leases of the callers' sessions.
 * @param {(index: number) => string} nameOf a caller's lock.
 * @param {Holds} holds
 * @returns {(index: number) => Lane}
 */
export function locks(leases, nameOf, holds) {
  return (index) => {
    const lock = post("/v3/lock/lock", { name: base64(nameOf(index)), lease: leases[index] });
    let isLocked = false;
    let next = lock;
    return {
      request() {
        if (isLocked && holds.ms > 0) holds.log.push(~index);
        return next;
      },
      reply(bytes, start, end) {
        if (!isGood(bytes, start)) throw new Error(`etcd: ${bytes.toString("latin1", start, end)}`);
        isLocked = !isLocked;
        if (!isLocked) {
          next = lock;
          return true;
        }
        if (holds.ms > 0) holds.log.push(index);
        const key = /"key":"([^"]+)"/.exec(bytes.toString("latin1", start, end))?.[1];
        next = post("/v3/lock/unlock", { key });
        return false;
      },
      pauseMs: () => holds.ms,
    };
  };
}

const GOOD = "HTTP/1.1 200 ";

/**
 * @param {Buffer} bytes
 * @param {number} start
 */
function isGood(bytes, start) {
  return bytes.toString("latin1", start, start + GOOD.length) === GOOD;
}

/** @param {string} reply */
function bodyOf(reply) {
  return reply.slice(reply.indexOf(HEAD_END) + HEAD_END.length);
}

/**
 * @param {string} target
 * @param {object} message
 */
function post(target, message) {
  const body = JSON.stringify(message);
  return `POST ${target} HTTP/1.1\r\nHost: etcd\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

/** @param {string} text */
function base64(text) {
  return Buffer.from(text).toString("base64");
}

// @ts-check
/** beanstalkd, over its text protocol (https://github.com/beanstalkd/beanstalkd/blob/master/doc/protocol.txt). */
import { execFileSync } from "node:child_process";
import path from "node:path";
import { findProgram, startServer } from "./program.js";

/**
 * @typedef {import("../driver.js").Protocol} Protocol
 * @typedef {import("../driver.js").Lane} Lane
 */

const NEWLINE = 0x0a;

/** @type {import("./program.js").Peer} */
export const beanstalkd = {
  name: "beanstalkd",
  durability: "-f 0 (puts and deletes; a reserve is not logged)",
  missing: () => (findProgram("beanstalkd") ? undefined : "beanstalkd is not installed"),
  version: () => execFileSync("beanstalkd", ["-v"], { encoding: "utf8" }).trim().replace("beanstalkd ", ""),
  start(directory) {
    const socket = path.join(directory, "beanstalkd.sock");
    return startServer({
      command: "beanstalkd",
      args: ["-l", `unix:${socket}`, "-b", directory, "-f", "0"],
      socket,
      protocol,
      probe: "stats\r\n",
    });
  },
};

/** A line, and after `RESERVED` and `OK` as many bytes as its last word says. @type {Protocol} */
export const protocol = {
  replyEnd(bytes, start, end) {
    const newline = bytes.indexOf(NEWLINE, start);
    if (newline === -1 || newline >= end) return -1;
    const first = String.fromCharCode(
      /** @type {number} */ (bytes[start]),
      /** @type {number} */ (bytes[start + 1]),
    );
    if (first !== "RE" && first !== "OK") return newline + 1;
    const head = bytes.toString("latin1", start, newline - 1);
    const dataEnd = newline + 1 + Number(head.slice(head.lastIndexOf(" ") + 1)) + "\r\n".length;
    return dataEnd > end ? -1 : dataEnd;
  },
  refusal(reply) {
    const text = reply.toString("latin1");
    return /^(INSERTED|RESERVED|DELETED|OK) ?/.test(text) ? undefined : text;
  },
};

/**
 * Callers that put a job, reserve one and delete that.
 *
 * @param {string} payload
 * @param {string[]} taken takes the id of each job deleted.
 * @returns {() => Lane}
 */
export function cycles(payload, taken) {
  const put = `put 0 0 60 ${payload.length}\r\n${payload}\r\n`;
  return () => {
    let id = "";
    let request = put;
    return {
      request: () => request,
      reply(bytes, start, end) {
        const text = bytes.toString("latin1", start, end);
        if (text.startsWith("INSERTED ")) {
          request = "reserve\r\n";
          return false;
        }
        if (text.startsWith("RESERVED ")) {
          id = text.slice("RESERVED ".length, text.indexOf(" ", "RESERVED ".length));
          request = `delete ${id}\r\n`;
          return false;
        }
        if (text !== "DELETED\r\n") throw new Error(`${JSON.stringify(request)}: ${text}`);
        taken.push(id);
        request = put;
        return true;
      },
    };
  };
}

/**
 * @param {import("../driver.js").Session} session
 * @returns {Promise<number>} jobs that are still in the queue, in whatever state.
 */
export async function jobsLeft(session) {
  const stats = (await session.ask("stats\r\n")).toString("latin1");
  let jobs = 0;
  for (const [, count] of stats.matchAll(/^current-jobs-(?:ready|reserved|delayed|buried): (\d+)/gm))
    jobs += Number(count);
  return jobs;
}

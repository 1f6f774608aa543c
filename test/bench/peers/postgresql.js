// @ts-check
/**
 * PostgreSQL, over its protocol version 3 (https://www.postgresql.org/docs/current/protocol-message-formats.html):
 * statements prepared once per connection, then one Bind, Execute and Sync per statement in one write.
 */
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { chownSync, mkdirSync, readdirSync } from "node:fs";
import path from "node:path";
import { Session } from "../driver.js";
import { findProgram, startServer } from "./program.js";

/**
 * @typedef {import("../driver.js").Protocol} Protocol
 * @typedef {import("../driver.js").Lane} Lane
 */

const DEBIAN_VERSIONS_DIRECTORY = "/usr/lib/postgresql";
const USER = "bench";
const DATABASE = "postgres";
const PROTOCOL_VERSION = 196_608;
const DATA_ROW = 0x44;
const ERROR_RESPONSE = 0x45;
const READY_FOR_QUERY = 0x5a;
const MESSAGE_HEADER_BYTES = 5;
const INT16_BYTES = 2;
const INT32_BYTES = 4;

/** @type {import("./program.js").Peer} */
export const postgresql = {
  name: "PostgreSQL",
  durability: "fsync=on synchronous_commit=on",
  missing() {
    if (program("postgres") === undefined || program("initdb") === undefined)
      return "postgresql is not installed";
    return process.getuid?.() === 0 && postgresUser() === undefined
      ? "postgresql does not run as root, and there is no user postgres"
      : undefined;
  },
  version: () =>
    execFileSync(found("postgres"), ["--version"], { encoding: "utf8" }).split(" ")[2]?.trim() ?? "?",
  async start(directory) {
    // PostgreSQL refuses to run as root, as whom CI often runs.
    const owner = process.getuid?.() === 0 ? postgresUser() : undefined;
    const data = path.join(directory, "data");
    mkdirSync(data, { mode: 0o700 });
    if (owner) for (const each of [directory, data]) chownSync(each, owner.uid, owner.gid);
    execFileSync(
      found("initdb"),
      ["-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
      { stdio: ["ignore", "ignore", "pipe"], cwd: directory, ...owner },
    );
    return startServer({
      command: found("postgres"),
      args: [
        ...["-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "logging_collector=off"],
        ...["-c", "fsync=on", "-c", "synchronous_commit=on"],
      ],
      socket: path.join(directory, ".s.PGSQL.5432"),
      protocol,
      // The fast shutdown: SIGTERM waits for the connections to go.
      stopSignal: "SIGINT",
      ...owner,
    });
  },
};

/** @param {string} name */
function program(name) {
  return findProgram(name, debianDirectories());
}

/** @param {string} name */
function found(name) {
  const file = program(name);
  if (file === undefined) throw new Error(`${name} is not installed`);
  return file;
}

/** Debian keeps the server's programs out of PATH, by version; the newest first. */
function debianDirectories() {
  try {
    const versions = readdirSync(DEBIAN_VERSIONS_DIRECTORY).sort((a, b) => Number(b) - Number(a));
    return versions.map((version) => path.join(DEBIAN_VERSIONS_DIRECTORY, version, "bin"));
  } catch {
    return [];
  }
}

function postgresUser() {
  try {
    const id = (/** @type {string} */ flag) =>
      Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8", stdio: "pipe" }));
    return { uid: id("-u"), gid: id("-g") };
  } catch {
    return undefined;
  }
}

/** A reply is all messages up to ReadyForQuery, which ends the answer to each Sync. @type {Protocol} */
const answersToSync = {
  replyEnd(bytes, start, end) {
    let at = start;
    while (at + MESSAGE_HEADER_BYTES <= end) {
      const type = bytes[at];
      at += 1 + bytes.readInt32BE(at + 1);
      if (type === READY_FOR_QUERY) return at <= end ? at : -1;
    }
    return -1;
  },
  refusal(reply) {
    for (let at = 0; at < reply.length; at += 1 + reply.readInt32BE(at + 1)) {
      if (reply[at] === ERROR_RESPONSE) return fieldsOf(reply, at).join(" ");
    }
    return undefined;
  },
};

/** Connects with no statement prepared. @type {Protocol} */
export const protocol = { ...answersToSync, greeting: [startup()] };

/**
 * Connects and prepares statements under their names.
 *
 * @param {Record<string, string>} statements
 * @returns {Protocol}
 */
function prepared(statements) {
  const parses = Object.entries(statements).map(
    ([name, sql]) => message("P", `${name}\0${sql}\0${int16(0)}`) + SYNC,
  );
  return { ...answersToSync, greeting: [startup(), ...parses] };
}

/**
 * Callers that raise one row of a table of counters.
 *
 * @param {string} name
 * @param {number[]} numbers takes the answers.
 * @returns {{protocol: Protocol, schema: string, lane: () => Lane}}
 */
export function counter(name, numbers) {
  const update = execute("next", [name]);
  return {
    schema: `CREATE TABLE IF NOT EXISTS counters (name text PRIMARY KEY, last bigint NOT NULL);
      INSERT INTO counters VALUES ('${name}', 0);`,
    protocol: prepared({ next: "UPDATE counters SET last = last + 1 WHERE name = $1 RETURNING last" }),
    lane: () => ({
      request: () => update,
      reply(bytes, start, end) {
        numbers.push(Number(firstRow(bytes, start, end)?.[0]));
        return true;
      },
    }),
  };
}

/**
 * Callers that insert a row, claim one by FOR UPDATE SKIP LOCKED under a lease, and delete that. A claim that
 * finds all rows of its snapshot taken by others is made again.
 *
 * @param {string} payload
 * @param {string[]} taken takes the id of each row deleted.
 * @returns {{protocol: Protocol, schema: string, lane: () => Lane}}
 */
export function leasedCycles(payload, taken) {
  const insert = execute("enqueue", [payload]);
  const claim = execute("claim", ["worker"]);
  return {
    schema: QUEUE_SCHEMA,
    protocol: prepared({
      enqueue: ENQUEUE,
      claim: `UPDATE batches SET owner = $1, leased_until = now() + interval '30 s' WHERE id =
        (SELECT id FROM batches WHERE owner IS NULL ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)
        RETURNING id, payload`,
      complete: "DELETE FROM batches WHERE id = $1 AND owner IS NOT NULL RETURNING id",
    }),
    lane: () => cycle(taken, insert, claim, claim, (id) => execute("complete", [id])),
  };
}

/**
 * The same, but the claim is the row lock of a transaction that stays open until the row is deleted: one commit
 * less for each batch, in exchange for a connection and a transaction held for as long as the work takes.
 *
 * @param {string} payload
 * @param {string[]} taken
 * @returns {{protocol: Protocol, schema: string, lane: () => Lane}}
 */
export function lockedCycles(payload, taken) {
  const insert = execute("enqueue", [payload]);
  return {
    schema: QUEUE_SCHEMA,
    protocol: prepared({
      enqueue: ENQUEUE,
      begin: "BEGIN",
      claim: "SELECT id, payload FROM batches ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1",
      complete: "DELETE FROM batches WHERE id = $1 RETURNING id",
      commit: "COMMIT",
    }),
    lane: () =>
      cycle(
        taken,
        insert,
        bindExecute("begin", []) + execute("claim", []),
        execute("claim", []),
        (id) => bindExecute("complete", [id]) + execute("commit", []),
      ),
  };
}

const ENQUEUE = "INSERT INTO batches (payload) VALUES ($1) RETURNING id";
const QUEUE_SCHEMA = `DROP TABLE IF EXISTS batches;
  CREATE TABLE batches (id bigserial PRIMARY KEY, payload text NOT NULL, owner text, leased_until timestamptz);
  CREATE INDEX batches_ready ON batches (id) WHERE owner IS NULL;`;

/**
 * @param {string[]} taken
 * @param {string} enqueue
 * @param {string} claim
 * @param {string} claimAgain
 * @param {(id: string) => string} complete
 * @returns {Lane}
 */
function cycle(taken, enqueue, claim, claimAgain, complete) {
  let step = "enqueue";
  let request = enqueue;
  return {
    request: () => request,
    reply(bytes, start, end) {
      const row = firstRow(bytes, start, end);
      if (step === "enqueue") {
        step = "claim";
        request = claim;
        return false;
      }
      const id = row?.[0];
      if (step === "claim") {
        if (id === undefined) {
          request = claimAgain;
          return false;
        }
        step = "complete";
        request = complete(id);
        return false;
      }
      if (id === undefined) throw new Error("the claimed row is gone");
      taken.push(id);
      step = "enqueue";
      request = enqueue;
      return true;
    },
  };
}

/**
 * Runs statements by the simple query protocol, outside of what is measured.
 *
 * @param {string} socket
 * @param {string} sql
 * @returns {Promise<string[] | undefined>} the first row.
 */
export async function query(socket, sql) {
  const session = await Session.connect(socket, protocol);
  try {
    const reply = await session.ask(message("Q", `${sql}\0`));
    return firstRow(reply, 0, reply.length);
  } finally {
    session.close();
  }
}

/**
 * @param {Buffer} bytes
 * @param {number} start
 * @param {number} end
 * @returns {string[] | undefined} the columns of the first row, NULL as an empty string.
 */
function firstRow(bytes, start, end) {
  for (let at = start; at < end; at += 1 + bytes.readInt32BE(at + 1)) {
    if (bytes[at] === ERROR_RESPONSE) throw new Error(fieldsOf(bytes, at).join(" "));
    if (bytes[at] === DATA_ROW) return columnsOf(bytes, at);
  }
  return undefined;
}

/**
 * @param {Buffer} bytes
 * @param {number} message where a DataRow starts.
 */
function columnsOf(bytes, message) {
  const columns = [];
  let at = message + MESSAGE_HEADER_BYTES;
  let left = bytes.readInt16BE(at);
  at += INT16_BYTES;
  for (; left > 0; left--) {
    const length = Math.max(0, bytes.readInt32BE(at));
    at += INT32_BYTES;
    columns.push(bytes.toString("latin1", at, at + length));
    at += length;
  }
  return columns;
}

/**
 * @param {Buffer} bytes
 * @param {number} message where an ErrorResponse starts.
 */
function fieldsOf(bytes, message) {
  const end = message + 1 + bytes.readInt32BE(message + 1);
  const fields = bytes.toString("utf8", message + MESSAGE_HEADER_BYTES, end).split("\0");
  return fields.filter((field) => /^[CM]/.test(field)).map((field) => field.slice(1));
}

/**
 * @param {string} statement
 * @param {string[]} values
 */
function execute(statement, values) {
  return bindExecute(statement, values) + SYNC;
}

/**
 * @param {string} statement
 * @param {string[]} values in text form.
 */
function bindExecute(statement, values) {
  const parameters = values.map((value) => int32(value.length) + value).join("");
  const bind = `\0${statement}\0${int16(0)}${int16(values.length)}${parameters}${int16(0)}`;
  return message("B", bind) + message("E", `\0${int32(0)}`);
}

function startup() {
  const body = `${int32(PROTOCOL_VERSION)}user\0${USER}\0database\0${DATABASE}\0\0`;
  return int32(INT32_BYTES + body.length) + body;
}

/**
 * @param {string} type
 * @param {string} body
 */
function message(type, body) {
  return type + int32(INT32_BYTES + body.length) + body;
}

/** @param {number} value */
function int16(value) {
  return String.fromCharCode((value >> 8) & 255, value & 255);
}

/** @param {number} value */
function int32(value) {
  return int16(value >> 16) + int16(value & 65_535);
}

const SYNC = message("S", "");

// An example of a lease provider of one's own: leases in a directory that all machines mount.
//
//   pawld --lease-provider 'release/*=custom:./directory-provider.js,directory=/mnt/shared/leases'
//
// Each name has numbered files there, `<name>.<number>`, and the highest number is its record. A file comes to be
// with link(2), complete or not at all, and only if its number is not taken: so of several who try to write the
// next record, one succeeds. That is all that leases need: compare and set.

import { createHash, randomUUID } from "node:crypto";
import { link, mkdir, readdir, readFile, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** Former records are kept so that a number is never used again while somebody may still look at an older one. */
const KEPT_RECORDS = 100;
/** How often to look at a name that is held, milliseconds. */
const LOOK_MS = 250;

/** @type {import("@pawl/daemon").CreateLeaseProvider} */
export async function createLeaseProvider({ elapsed, now, params }) {
  const { directory } = params;
  if (directory === undefined) throw new Error("say where, with directory=PATH");
  await mkdir(directory, { recursive: true });
  /** Since when this process has seen the record of a name that it sees now. */
  const watched = new Map();
  /** Until when what this process holds lasts by its clock. */
  const own = new Map();

  // Names can hold any character, and a file name cannot.
  const fileOf = (name) => createHash("sha256").update(name).digest("hex");
  // Who reads the directory must not be able to renew or release.
  const digestOf = (leaseId) => createHash("sha256").update(leaseId).digest("hex");

  /** The record of a name and its number, and what may remain of its lease. */
  async function read(name) {
    for (;;) {
      const file = fileOf(name);
      const numbers = (await readdir(directory))
        .filter((each) => each.startsWith(`${file}.`))
        .map((each) => Number(each.slice(file.length + 1)));
      const number = Math.max(0, ...numbers);
      if (number === 0) return { number, token: 0, remainingMs: 0 };
      const text = await readFile(join(directory, `${file}.${number}`), "utf8").catch(() => undefined);
      // It has been replaced so often that it is gone: look again.
      if (text === undefined) continue;
      const record = JSON.parse(text);
      // The time of a record counts from when it was first seen, by our own clock: never by its date.
      if (watched.get(name)?.number !== number) watched.set(name, { number, since: elapsed() });
      const remainingMs =
        record.leaseIdDigest === null ? 0 : Math.max(0, watched.get(name).since + record.ttlMs - elapsed());
      return { ...record, number, remainingMs };
    }
  }

  /** Writes the next record; false if somebody else has. */
  async function replace(name, { number }, record) {
    const file = fileOf(name);
    const draft = join(directory, `draft-${randomUUID()}`);
    await writeFile(draft, JSON.stringify(record), { flush: true });
    try {
      await link(draft, join(directory, `${file}.${number + 1}`));
    } catch (error) {
      if (error.code === "EEXIST") return false;
      throw error;
    } finally {
      await unlink(draft);
    }
    await unlink(join(directory, `${file}.${number + 1 - KEPT_RECORDS}`)).catch(() => {});
    return true;
  }

  function holderOf({ owner, token, acquiredAt, note, remainingMs }) {
    const peer = { pid: null, uid: null, gid: null };
    return { owner, fencingToken: token, acquiredAt, remainingMs, note, peer };
  }

  /** A lease that could not be read or written is not known: it is neither lost nor granted. */
  async function reachable(perform) {
    try {
      return await perform();
    } catch (error) {
      throw Object.assign(new Error(`the directory ${directory} cannot be used: ${error.message}`), {
        kind: "provider_unavailable",
      });
    }
  }

  return {
    acquire: ({ name, leaseId, owner, ttlMs, note, tokenAbove }) =>
      reachable(async () => {
        for (;;) {
          const current = await read(name);
          const mine = current.leaseIdDigest === digestOf(leaseId);
          if (!mine && current.remainingMs > 0) {
            const retryMs = Math.min(current.remainingMs, LOOK_MS);
            return { granted: false, holder: holderOf(current), retryMs };
          }
          // Asked again with the leaseId that holds the name: an answer was lost, so it is given again.
          const token = mine ? current.token : Math.max(current.token, tokenAbove) + 1;
          const since = elapsed();
          const record = { token, leaseIdDigest: digestOf(leaseId), owner, note, ttlMs, acquiredAt: now() };
          if (!(await replace(name, current, record))) continue;
          own.set(leaseId, since + ttlMs);
          return { granted: true, fencingToken: token, remainingMs: ttlMs - (elapsed() - since) };
        }
      }),

    heartbeat: ({ name, leaseId, ttlMs }) =>
      reachable(async () => {
        for (;;) {
          const { number, remainingMs: _, ...record } = await read(name);
          const ended = (own.get(leaseId) ?? Number.POSITIVE_INFINITY) <= elapsed();
          if (ended || record.leaseIdDigest !== digestOf(leaseId)) return null;
          const since = elapsed();
          if (!(await replace(name, { number }, { ...record, ttlMs }))) continue;
          own.set(leaseId, since + ttlMs);
          return { remainingMs: ttlMs - (elapsed() - since) };
        }
      }),

    release: ({ name, leaseId }) =>
      reachable(async () => {
        for (;;) {
          const current = await read(name);
          if (current.leaseIdDigest !== digestOf(leaseId)) return false;
          const ended = (own.get(leaseId) ?? Number.POSITIVE_INFINITY) <= elapsed();
          // The token stays for ever.
          if (!(await replace(name, current, { token: current.token, leaseIdDigest: null }))) continue;
          own.delete(leaseId);
          return !ended;
        }
      }),

    get: (name) =>
      reachable(async () => {
        const current = await read(name);
        return current.remainingMs > 0 ? holderOf(current) : null;
      }),

    inspect: (name) =>
      reachable(async () => {
        const current = await read(name);
        return { holder: current.remainingMs > 0 ? holderOf(current) : null, highest: current.token };
      }),

    break: (name) =>
      reachable(async () => {
        for (;;) {
          const current = await read(name);
          if (current.remainingMs === 0) return false;
          if (await replace(name, current, { token: current.token, leaseIdDigest: null })) return true;
        }
      }),
  };
}

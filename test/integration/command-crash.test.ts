// Receivers by pull and by push on one deployment, some slow and some hanging, while they and the daemon are killed
// again and again. Each delivery has an end (executionMs), and some commands are for one receiver. A short run
// always; with PAWL_TORTURE=1 a long one: 8 receivers, 10,000 commands, ten deaths of the daemon, and the same with two
// daemons that share the deployment, which is all that there is of it where names of tests are shared.
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Result } from "@pawl/protocol";
import Database from "better-sqlite3";
import { expect, onTestFinished, test } from "vitest";
import { NAMES_ARE_SHARED, Place, type StartOptions } from "../daemon.js";
import { sized, TORTURE, WHOLE } from "../long-form.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient, Refused } from "../raw-client.js";
import { makePlace } from "../shared-daemons.js";

const RECEIVERS = TORTURE ? 8 : 4;
const COMMANDS = sized(10_000, 200);
const DAEMON_KILLS = sized(10, 2);
/** A receiver is killed each time that so many more are final: however slow the machine is, they come to work. */
const COMMANDS_PER_KILL = TORTURE ? 20 : 8;
const LEASE_MS = 1000;
const MOST_WORK_MS = 20;
const LOOK_EVERY_MS = 20;
const GIVE_UP_MS = TORTURE ? 1_200_000 : 55_000;
/** Commands sent and not yet final, at most: of few there are several looks at which a receiver is killed. */
const MOST_UNDER_WAY = TORTURE ? 100 : 25;

/** Of so many commands one has a deadline that may pass, or few attempts, or is cancelled. */
const TTL_EACH = 20;
const FEW_ATTEMPTS_EACH = 21;
const CANCELLED_EACH = 22;
const FEW_ATTEMPTS = 2;
const EXECUTION_MS = 400;
/** Of so many commands one is for a receiver that is alive at that moment. */
const MEANT_EACH = 23;

interface Row {
  commandId: string;
  state: string;
  attempt: number;
  maxAttempts: number;
  code: string | null;
  response: string | null;
  incarnation: string | null;
  isIdle: 0 | 1;
}

/** Where the commands are, and how many of them have ended. */
interface Kept {
  readonly places: readonly Place[];
  readonly options: StartOptions;
  final(client: RawClient): Promise<number>;
  /** All commands as they are stored, with nobody left who could change them. */
  rows(): Row[];
}

test.each([
  ["of the daemon", inOneDatabase],
  ["of one of two daemons that share the deployment", inPostgreSql],
] as const)(
  `${RECEIVERS} receivers, ${COMMANDS} commands, kill -9 of receivers and ${DAEMON_KILLS} times %s: each has one answer`,
  async (_of, keep) => {
    if (keep === inPostgreSql && !(HAS_POSTGRESQL && (TORTURE || NAMES_ARE_SHARED))) return;
    // It looks at rows of the daemon's own file.
    if (keep === inOneDatabase && NAMES_ARE_SHARED) return;
    MEANT.clear();
    const { places, options, final: finalOf, rows: rowsOf } = await keep();
    const log = join((places[0] as Place).directory, "shared.log");
    writeFileSync(log, "");
    const daemons = await Promise.all(places.map((place) => place.start(options)));
    const clients = await Promise.all(places.map((place) => place.connect()));
    let [client] = clients as [RawClient];
    let started = 0;

    const receivers = new Map<ChildProcess, string>();
    const startOne = (way: string): void => {
      const { socket } = places[Math.floor(started++ / 2) % places.length] as Place;
      const args = [join(import.meta.dirname, "../workers/command.js"), socket, "d", log, way];
      const child = spawn(process.execPath, [...args, String(LEASE_MS), String(MOST_WORK_MS)], {
        stdio: ["ignore", "ignore", "inherit"],
      });
      receivers.set(child, way);
      child.once("exit", (code) => {
        receivers.delete(child);
        // One that ends by itself has met something that must not be.
        if (code !== null) expect.soft(code, "exit code of a receiver").toBe(0);
      });
    };
    onTestFinished(() => {
      for (const child of receivers.keys()) child.kill("SIGKILL");
    });
    for (let count = 0; count < RECEIVERS; count += 1) startOne(count % 2 === 0 ? "pull" : "push");

    const ids: string[] = [];
    const killed = { pull: 0, push: 0, daemon: 0 };
    const startedAt = performance.now();
    let killReceiverAt = COMMANDS_PER_KILL;
    for (let final = 0; final < COMMANDS; ) {
      if (performance.now() - startedAt > GIVE_UP_MS) throw new Error(`only ${final} commands are final`);
      // While the database is slow it counts as away, and nobody can be asked.
      final = await finalOf(client).catch(unlessAway(final));
      // Spread over the whole run by how much of the work is done; in the middle of what is sent, too.
      const isDue = final > (COMMANDS * (killed.daemon + 1)) / (DAEMON_KILLS + 2);
      const dies = isDue && killed.daemon < DAEMON_KILLS;
      const which = killed.daemon % places.length;
      if (dies) {
        killed.daemon += 1;
        setTimeout(() => daemons[which]?.child.kill("SIGKILL"), Math.random() * LOOK_EVERY_MS);
      }
      while (ids.length < Math.min(COMMANDS, final + MOST_UNDER_WAY)) {
        const id = await create(client, ids.length, log);
        // The daemon is gone; under its key it is the same command the next time.
        if (id === undefined) break;
        ids.push(id);
        if (ids.length % CANCELLED_EACH === 0) {
          await client.call("command.cancel", { commandId: id }).catch(() => {});
        }
      }
      if (dies) {
        expect(await daemons[which]?.end("SIGKILL")).toBe("SIGKILL");
        daemons[which] = await (places[which] as Place).start(options);
        clients[which] = await (places[which] as Place).connect();
        client = clients[0] as RawClient;
      }
      if (final >= killReceiverAt) {
        killReceiverAt += COMMANDS_PER_KILL;
        const way = killed.pull > killed.push ? "push" : "pull";
        const those = [...receivers.keys()].filter((child) => receivers.get(child) === way);
        // Of the older half, which are at work by now.
        const victim = those[Math.floor((Math.random() * those.length) / 2)];
        // It dies with one that is for it alone.
        if (
          victim?.pid !== undefined &&
          ids.length < COMMANDS &&
          !MEANT.has(ids.length) &&
          namedIn(log).has(victim.pid)
        ) {
          MEANT.set(ids.length, victim.pid);
          const id = await create(client, ids.length, log);
          if (id !== undefined) ids.push(id);
        }
        if (victim?.kill("SIGKILL")) {
          killed[way] += 1;
          startOne(way);
        }
      }
      await sleep(LOOK_EVERY_MS);
    }
    const seconds = (performance.now() - startedAt) / 1000;

    expect(killed.daemon).toBe(DAEMON_KILLS);
    expect(Math.min(killed.pull, killed.push)).toBeGreaterThan(0);
    for (const child of receivers.keys()) child.kill("SIGKILL");
    await expect.poll(() => receivers.size).toBe(0);
    for (const daemon of daemons) expect(await daemon.end()).toBe(0);

    expect(new Set(ids).size).toBe(COMMANDS);
    const rows = rowsOf();
    expect(new Set(rows.map(({ commandId }) => commandId))).toEqual(new Set(ids));
    if (WHOLE) expect(rows.some(({ code }) => code === "GONE")).toBe(true);
    const ends = check(rows, readFileSync(log, "utf8").trim().split("\n"));
    console.log(
      `${COMMANDS} commands in ${seconds.toFixed(1)} s; killed: ${killed.pull} by pull, ${killed.push} by push, ${killed.daemon} daemons; ${JSON.stringify(ends)}`,
    );
  },
  GIVE_UP_MS + 30_000,
);

/** Gives what was known before if the names cannot be asked for now, and throws otherwise. */
function unlessAway(before: number): (error: Refused) => number {
  return (error) => {
    if (error.kind !== "unavailable") throw error;
    return before;
  };
}

/** The pids of receivers that have named themselves, as the log has them: one that never did is waited for. */
function namedIn(log: string): Set<number> {
  const lines = readFileSync(log, "utf8").matchAll(/^named - - (\d+)$/gm);
  return new Set([...lines].map(([, pid]) => Number(pid)));
}

/** By number, the pids of the receivers that commands are for; undefined for those that are for any. */
const MEANT = new Map<number, number | undefined>();

/** Sends the command of this number, once however often it is called; undefined if the daemon went away. */
async function create(client: RawClient, number: number, log: string): Promise<string | undefined> {
  // Under a key it is for the same one, however often it is called.
  const isMeant = number % MEANT_EACH === 0 && number > 0;
  if (!MEANT.has(number)) MEANT.set(number, isMeant ? [...namedIn(log)].at(-1) : undefined);
  const chosen = MEANT.get(number);
  try {
    const { commandId } = await client.call("command.create", {
      deployment: "d",
      command: "run",
      params: { number },
      idempotencyKey: String(number),
      executionMs: EXECUTION_MS,
      ...(chosen === undefined ? {} : { incarnation: `${chosen}.1` }),
      ...(number % TTL_EACH === 0 ? { ttlMs: 1 + Math.floor(Math.random() * 200) } : {}),
      ...(number % FEW_ATTEMPTS_EACH === 0 ? { maxAttempts: FEW_ATTEMPTS } : {}),
    });
    return commandId;
  } catch {
    return undefined;
  }
}

const COLUMNS = `
  command_id AS "commandId", state, attempt, max_attempts AS "maxAttempts", error_code AS code,
  (SELECT response FROM pawl_command_response r WHERE r.seq = c.seq) AS response,
  incarnation, CASE WHEN coalesce(ready_place, delayed_until, due_at, lease_expires_at, lease_connection,
    execution_ends_at, lease_incarnation_id) IS NULL THEN 1 ELSE 0 END AS "isIdle"`;

async function inOneDatabase(): Promise<Kept> {
  const place = new Place();
  return {
    places: [place],
    options: {},
    async final(client) {
      const { states } = (await client.call("daemon.stats", {})).commands;
      return states.SUCCEEDED + states.FAILED + states.EXPIRED;
    },
    rows() {
      const database = new Database(join(place.stateDir, "pawl.db"), { readonly: true });
      const rows = database.prepare(`SELECT ${COLUMNS} FROM pawl_command c ORDER BY seq`).all() as Row[];
      expect(database.pragma("integrity_check", { simple: true })).toBe("ok");
      database.close();
      return rows;
    },
  };
}

async function inPostgreSql(): Promise<Kept> {
  const postgres = await PostgreSql.start(onTestFinished);
  await makePlace(postgres.url());
  const of = async (client: RawClient, state: "SUCCEEDED" | "FAILED" | "EXPIRED"): Promise<number> => {
    let count = 0;
    for (let after: string | undefined, isFirst = true; isFirst || after !== undefined; isFirst = false) {
      const page: Result<"command.list"> = await client.call("command.list", {
        deployment: "d",
        state,
        limit: 1000,
        ...(after && { after }),
      });
      count += page.commands.length;
      after = page.next;
    }
    return count;
  };
  return {
    places: [new Place(), new Place()],
    options: { args: ["--shared", `command:d=${postgres.url()}`] },
    final: async (client) =>
      (await of(client, "SUCCEEDED")) + (await of(client, "FAILED")) + (await of(client, "EXPIRED")),
    rows() {
      const script = `SELECT json_agg(each) FROM (SELECT ${COLUMNS} FROM pawl.pawl_command c ORDER BY seq) AS each`;
      return JSON.parse(
        postgres.psql(script.replaceAll("FROM pawl_command_", "FROM pawl.pawl_command_")).output,
      );
    },
  };
}

/**
 * Each command is final, by an answer that one of its deliveries gave or by a cause of the daemon's own; each
 * delivery was given out once, under the attempt that it was.
 *
 * @returns how often commands ended how.
 */
function check(rows: readonly Row[], lines: readonly string[]): Record<string, number> {
  const begun = new Map<string, Set<number>>();
  const receivers = new Map<string, Set<string>>();
  const answered = new Map<string, Set<string>>();
  const accepted = new Map<string, string>();
  const offenders: string[] = [];
  for (const line of lines) {
    const [what, id, attempt, pid] = line.split(" ") as [string, string, string, string];
    const delivery = `${attempt} ${pid}`;
    if (what === "begin") {
      const attempts = begun.get(id) ?? new Set();
      begun.set(id, attempts);
      if (attempts.has(Number(attempt))) offenders.push(`${line}: this attempt was given out before`);
      attempts.add(Number(attempt));
      receivers.set(id, (receivers.get(id) ?? new Set()).add(pid));
    } else if (what === "answer") {
      answered.set(id, (answered.get(id) ?? new Set()).add(delivery));
    } else if (what === "accepted") {
      if (accepted.has(id)) offenders.push(`${line}: ${accepted.get(id)} was accepted before`);
      accepted.set(id, delivery);
    }
  }

  const ends: Record<string, number> = { redelivered: 0 };
  for (const row of rows) {
    const { commandId, state, attempt, maxAttempts, code, response, isIdle, incarnation } = row;
    const complain = (why: string): void => void offenders.push(`${JSON.stringify(row)}: ${why}`);
    const attempts = begun.get(commandId) ?? new Set();
    const last = Math.max(0, ...attempts);
    if (isIdle === 0) complain("something is still to come of it");
    const others = [...(receivers.get(commandId) ?? [])].filter((pid) => `${pid}.1` !== incarnation);
    if (incarnation !== null && others.length > 0) complain(`it went to ${others}`);
    if (last > attempt) complain(`attempt ${last} was given out`);
    if (attempt > 1) ends.redelivered = (ends.redelivered ?? 0) + 1;
    const isAnswer = state === "SUCCEEDED" || code === "NO";
    const end = isAnswer ? state : (code ?? state);
    ends[end] = (ends[end] ?? 0) + 1;
    if (isAnswer) {
      const { response: success, details: error } = JSON.parse(response ?? "{}");
      const by = success ?? error;
      const delivery = `${by?.attempt} ${by?.pid}`;
      // A late answer is that of the delivery before, while nobody has had it since.
      const isLate = by?.attempt === attempt - 1 && !attempts.has(attempt);
      if (isLate) ends.late = (ends.late ?? 0) + 1;
      if (by?.attempt !== attempt && !isLate) complain("its answer is of another attempt");
      if (!attempts.has(by?.attempt)) complain("nobody had this attempt");
      if (!answered.get(commandId)?.has(delivery)) complain("nobody gave this answer");
      if (accepted.has(commandId) && accepted.get(commandId) !== delivery) complain("another was accepted");
    } else {
      if (response !== null || accepted.has(commandId)) complain("it has an answer");
      if (state !== (code === "EXPIRED" ? "EXPIRED" : "FAILED")) complain("no such end");
      if (!["EXPIRED", "CANCELLED", "ATTEMPTS_EXHAUSTED", "GONE"].includes(code ?? ""))
        complain("no such cause");
      if (code === "GONE" && incarnation === null) complain("it was for no receiver");
      if (code === "ATTEMPTS_EXHAUSTED" && attempt !== maxAttempts) complain("it had attempts left");
    }
  }
  expect(offenders).toEqual([]);
  return ends;
}

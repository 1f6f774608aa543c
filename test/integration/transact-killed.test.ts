// A daemon that is killed at each statement of a transaction, and before and after its commit: all of it is
// there afterwards, or nothing.
// Not over shared names: it kills the daemon at statements of SQLite.
import { cpSync } from "node:fs";
import { join } from "node:path";
import type { Params } from "@pawl/protocol";
import { expect, test } from "vitest";
import { Place, privateDirectory } from "../daemon.js";
import { contentOf } from "../in-process.js";

/**
 * Loaded into pawld before its own code, which has the rest of better-sqlite3 in its bundle: counts in its native part
 * the statements that its database performs from the first savepoint on, which is where a `transact` begins, and kills
 * the process after the one with the given number. The write of the time is not counted: a turn that follows another
 * within a second has none, and so has other numbers. Nor are pragmas, which ask after the commit how long the log is.
 */
const KILLER = `
  import { createRequire } from "node:module";
  const requireOther = createRequire(${JSON.stringify(join(import.meta.dirname, "../../daemon/index.ts"))});
  const { Database } = requireOther("better-sqlite3/build/Release/better_sqlite3.node");
  const { prepare } = Database.prototype;
  let count = -1;
  Database.prototype.prepare = function (sql, ...rest) {
    const statement = prepare.call(this, sql, ...rest);
    if (sql.includes("'clock'") || sql.startsWith("PRAGMA")) return statement;
    for (const name of ["run", "all", "get"]) {
      const perform = statement[name];
      statement[name] = function (...args) {
        const answer = perform.apply(this, args);
        if (count >= 0 || sql.startsWith("SAVEPOINT")) count += 1;
        if (count === Number(process.env.KILL_AFTER)) process.kill(process.pid, "SIGKILL");
        return answer;
      };
    }
    return statement;
  };
`;
const command = [process.execPath, "--import", `data:text/javascript,${encodeURIComponent(KILLER)}`];

/** More statements than the transaction has. */
const MAX_STATEMENTS = 60;

test("killed after each statement: all or nothing, and all if it was answered", async () => {
  const origin = new Place();
  const first = await origin.start();
  const client = await origin.connect();
  const { lease } = await client.call("lease.acquire", { name: "board", owner: "worker", ttlMs: 3_600_000 });
  await client.call("queue.enqueue", { queue: "work", payloads: [{ task: 1 }] });
  const { claim } = await client.call("queue.claim", { queue: "work", owner: "worker", leaseMs: 3_600_000 });
  if (claim === null) throw new Error("nothing to claim");
  const { claimId, leaseToken } = claim;
  expect(await first.end()).toBe(0);
  const params: Params<"transact"> = {
    guards: [
      { lease: { name: "board", fencingToken: lease.fencingToken } },
      { claim: { claimId, leaseToken } },
    ],
    calls: [
      { method: "sequence.next", params: { type: "FR" } },
      { method: "queue.enqueue", params: { queue: "items", payloads: [{ id: { $result: "/0/id" } }] } },
      { method: "queue.complete", params: { claimId, leaseToken } },
    ],
  };

  const outcomes: string[] = [];
  for (let killAfter = 0; killAfter < MAX_STATEMENTS; killAfter += 1) {
    const directory = privateDirectory();
    cpSync(origin.stateDir, join(directory, "state"), { recursive: true });
    const place = new Place(directory);
    const daemon = await place.start({ command, env: { KILL_AFTER: String(killAfter) } });
    const database = join(place.stateDir, "pawl.db");
    const before = contentOf(database);
    const answered = await (await place.connect()).call("transact", params).then(
      () => true,
      () => false,
    );
    if (answered) break;
    expect(await daemon.exited).toBe("SIGKILL");

    const after = contentOf(database);
    const done = after.pawl_sequence?.length === 1;
    if (!done) expect(after).toEqual(before);
    const outcome = done ? "all" : "nothing";
    // The rows are the same each time that nothing is done, and so is what the next daemon makes of them.
    const isNew = !outcomes.includes(outcome);
    outcomes.push(outcome);
    if (!isNew) continue;
    const restarted = await place.start();
    const later = await place.connect();
    const { batches: items } = await later.call("queue.list", { queue: "items" });
    const { batches: work } = await later.call("queue.list", { queue: "work" });
    expect((await later.call("sequence.state", {})).sequences).toEqual(done ? { FR: 1 } : {});
    expect(items.map(({ payloads }) => payloads)).toEqual(done ? [[{ id: "FR-001" }]] : []);
    expect(work.map(({ state }) => state)).toEqual([done ? "completed" : "claimed"]);
    await restarted.end("SIGKILL");
  }
  // Nothing up to the commit, all after it.
  expect(outcomes.length).toBeGreaterThan(7);
  expect(outcomes.length).toBeLessThan(MAX_STATEMENTS);
  expect(outcomes).toEqual([...outcomes.slice(0, -1).map(() => "nothing"), "all"]);
});

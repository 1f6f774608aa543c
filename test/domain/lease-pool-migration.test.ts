// Pools are kept in parts: what a lease of a long one reads and writes, and the pools that a version before kept whole.
// Not over shared names: it is about the daemon's own database.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { privateDirectory } from "../daemon.js";
import { InProcess, rowsOf } from "../in-process.js";

const SCHEMA = join(import.meta.dirname, "../../daemon/store/schema");
const BEFORE = "0037";
const members = Array.from({ length: 1000 }, (_, index) => String(index).padEnd(100));

/** A database as the version before wrote it, with a long pool, and one of a single member. */
function oldDatabase(): string {
  const path = join(privateDirectory(), "pawl.db");
  const database = new Database(path);
  const steps = readdirSync(SCHEMA)
    .filter((name) => name.slice(0, BEFORE.length) <= BEFORE)
    .sort();
  for (const name of steps) database.exec(readFileSync(join(SCHEMA, name), "utf8"));
  const meta = database.prepare("INSERT INTO pawl_meta (key, value) VALUES (?, ?)");
  meta.run("schema_version", String(steps.length));
  meta.run("mode", '{"kind":"centralized"}');
  const token = database.prepare(
    "INSERT INTO pawl_lease_token (name, highest, capacity, pool) VALUES (?, ?, ?, ?)",
  );
  token.run("long", 7, members.length, JSON.stringify(members));
  token.run("single", 0, null, '["only"]');
  token.run("counted", 3, 4, null);
  token.run("plain", 5, null, null);
  database.close();
  return path;
}

test("pools of the version before are what they were", async () => {
  const path = oldDatabase();
  const pawl = new InProcess({ path });
  const configured = async (name: string) => await pawl.call("lease.configure", { name });
  expect(await configured("long")).toEqual({ name: "long", slots: 1000, members });
  expect(await configured("single")).toEqual({ name: "single", slots: 1, members: ["only"] });
  expect(await configured("counted")).toEqual({ name: "counted", slots: 4 });
  expect(await configured("plain")).toEqual({ name: "plain", slots: 1 });
  const { lease } = await pawl.call("lease.acquire", { name: "long", owner: "o", slots: 999 });
  expect(lease).toMatchObject({ fencingToken: 8, members: members.slice(0, 999) });
  // The lease has put it into parts, for the next one.
  const parts = rowsOf(path, "SELECT members FROM pawl_lease_pool WHERE name = 'long' ORDER BY part");
  expect(parts.length).toBe(16);
  expect(await configured("long")).toEqual({ name: "long", slots: 1000, members });
  const next = await pawl.call("lease.acquire", { name: "long", owner: "o" });
  expect(next.lease).toMatchObject({ fencingToken: 9, members: members.slice(999) });
  expect((await pawl.call("lease.acquire", { name: "single", owner: "o" })).lease.members).toEqual(["only"]);
  expect((await pawl.call("lease.acquire", { name: "counted", owner: "o" })).lease.members).toBeUndefined();
});

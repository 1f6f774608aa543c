// What no test at the socket can bring about: the clock of the machine that jumps.
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { postpone } from "../../daemon/dist/grants/expiry.js";
import { openDatabase } from "../../daemon/dist/store/open-database.js";
import { privateDirectory } from "../daemon.js";

test("when the clock jumps ahead, a lease kept here keeps what remains of it, and one kept outside does not", () => {
  const path = join(privateDirectory(), "pawl.db");
  const { store, close } = openDatabase({ path });
  const database = new Database(path);
  const insert = database.prepare(
    `INSERT INTO pawl_lease (name, lease_id, fencing_token, owner, acquired_at, expires_at, ttl_ms, release_on,
       connection, provider) VALUES (:name, :name, 1, 'test', 0, 1000, 1000, 'expiry', 0, :provider)`,
  );
  insert.run({ name: "here", provider: null });
  insert.run({ name: "outside", provider: "custom:/m.js" });
  store.begin();
  store.perform(postpone(5000));
  store.commit(0);
  const rows = database.prepare("SELECT name, expires_at FROM pawl_lease ORDER BY name").all();
  expect(rows).toEqual([
    { name: "here", expires_at: 6000 },
    { name: "outside", expires_at: 1000 },
  ]);
  database.close();
  close();
});

// Names kept in PostgreSQL: several real daemons on one real server.
import { beforeAll, describe, expect, test } from "vitest";
import { createTables } from "../../daemon/dist/shared/tables.js";
import { Session } from "../../daemon/dist/shared/session.js";
import { type AtEnd, type DaemonProcess, Place } from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import type { RawClient } from "../raw-client.js";

describe.skipIf(!HAS_POSTGRESQL)("names that daemons share", () => {
  let postgres: PostgreSql;
  let daemons: DaemonProcess[];
  beforeAll(async () => {
    const endings: Parameters<AtEnd>[0][] = [];
    const atEnd: AtEnd = (action) => void endings.unshift(action);
    postgres = await PostgreSql.start(atEnd);
    const session = await Session.open(postgres.url());
    await createTables(session, { dryRun: false });
    await session.close();
    const args = ["--shared", `s/*=${postgres.url()}`, "--shared", `sequence:S*=${postgres.url()}`];
    daemons = await Promise.all([1, 2].map(() => new Place(undefined, atEnd).start({ args })));
    return async () => {
      for (const action of endings) await action();
    };
  });

  async function connect(): Promise<[RawClient, RawClient]> {
    const [first, second] = daemons as [DaemonProcess, DaemonProcess];
    return [await first.place.connect(), await second.place.connect()];
  }

  test("a sequence goes on over both, and what is not shared does not", async () => {
    const [first, second] = await connect();
    const numbers = [];
    for (const client of [first, second, second, first])
      numbers.push((await client.call("sequence.next", { type: "SHARED" })).seq);
    expect(numbers).toEqual([1, 2, 3, 4]);
    expect((await first.call("sequence.next", { type: "FR" })).seq).toBe(1);
    expect((await second.call("sequence.next", { type: "FR" })).seq).toBe(1);
  });
});

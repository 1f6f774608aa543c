// Operations speak the SQL that SQLite and PostgreSQL share: a real PostgreSQL is given the same tables, and prepares
// every statement that any operation has.
// Not over shared names: it is about both databases.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, onTestFinished, test } from "vitest";
import { migrationSteps } from "../../daemon/dist/shared/schema.js";
import { byNumber } from "../../daemon/dist/shared/statements.js";
import { migrate } from "../../daemon/dist/store/migrate.js";
import { declaredSearches, declaredStatements } from "../../daemon/dist/store/statement.js";
import { madeForTests } from "../daemon.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";

const DAEMON = join(import.meta.dirname, "../../daemon");

describe.skipIf(!HAS_POSTGRESQL)("PostgreSQL", () => {
  const postgres = madeForTests((atEnd) => PostgreSql.start(atEnd));

  test("has the tables of the schema, translated word by word", () => {
    const schema = migrationSteps().map(({ sql }) => sql);
    const { status, output } = postgres().psql(schema.join("\n"), "-v", "ON_ERROR_STOP=1", "-1");
    expect(output).toBe("");
    expect(status).toBe(0);
  });

  test("prepares every statement that operations have", async () => {
    await importAll();
    const statements = declaredStatements().map(({ sql }) => sql);
    expect(statements.length).toBeGreaterThan(150);
    const script = statements
      .map((sql, n) => `\\echo #${n}\nPREPARE s${n} AS ${byNumber(sql).text};`)
      .join("\n");
    const refused = postgres()
      .psql(script)
      .output.split(/^#(?=\d+$)/m)
      .filter((part) => part.includes("ERROR"))
      .map((part) => `${/ERROR:.*/.exec(part)?.[0]}\n${statements[Number.parseInt(part, 10)]}`);
    expect(refused).toEqual([]);
  });

  test("finds what a statement is about by an index, as SQLite does", async () => {
    await importAll();
    const statements = declaredStatements().map(({ sql }) => sql);
    const explained = statements.map((sql, n) => {
      const { text, names } = byNumber(sql);
      const values = names.length === 0 ? "" : `(${names.map(() => "NULL").join(", ")})`;
      return `\\echo #${n}\nPREPARE plan${n} AS ${text};\nEXPLAIN EXECUTE plan${n}${values};`;
    });
    // Of empty tables all would be read; so that is only done where nothing else can be.
    const settings = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan;\n";
    const plans = postgres()
      .psql(settings + explained.join("\n"))
      .output.split(/^#(?=\d+$)/m);
    expect(plans.length).toBeGreaterThan(150);
    const scans = plans
      .filter((plan) => /Seq Scan on (pawl_batch|pawl_command|pawl_lease|pawl_path_reservation)\b/.test(plan))
      .map((plan) => statements[Number.parseInt(plan, 10)] as string);
    expect(scans.filter((sql) => !AT_A_RESTART.test(sql))).toEqual([]);

    const database = new Database(":memory:");
    onTestFinished(() => void database.close());
    migrate(database);
    const changes = statements.filter((sql) => /^\s*(UPDATE|DELETE)/.test(sql));
    const scansOfSqlite = changes.filter((sql) => {
      const values = Object.fromEntries(byNumber(sql).names.map((name) => [name, 1]));
      const plan = database.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(values) as Step[];
      return plan.some(({ detail }) => /^SCAN pawl_(batch|command|lease|path_reservation)$/.test(detail));
    });
    expect(scansOfSqlite.filter((sql) => !AT_A_RESTART.test(sql))).toEqual([]);
  });

  test("has nothing left out but a search in an index of words", async () => {
    await importAll();
    const searches = declaredSearches().map(({ sql }) => sql);
    expect(searches).toHaveLength(1);
    // Each is refused for that alone.
    for (const sql of searches) {
      expect(sql.match(/\bMATCH\b/g)).toHaveLength(1);
      const { output } = postgres().psql(`PREPARE search AS ${byNumber(sql.replace("MATCH", "=")).text};`);
      expect(output).not.toContain("ERROR");
    }
  });
});

test("batches of a key are found by the index of keys, not among those of all keys", async () => {
  await importAll();
  const database = new Database(":memory:");
  onTestFinished(() => void database.close());
  migrate(database);
  const ofKey = declaredStatements().filter(
    ({ sql }) => /\bkey = :key\b/.test(sql) && sql.includes("pawl_batch"),
  );
  expect(ofKey.length).toBeGreaterThan(8);
  const others = ofKey.flatMap(({ sql }) => {
    const names = [...sql.matchAll(/:([A-Za-z_]\w*)/g)].map(([, name]) => [name as string, 1]);
    const plan = database.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(Object.fromEntries(names)) as Step[];
    const wrong = plan.filter(({ detail }) => /pawl_batch_lane|SCAN (b|pawl_batch)\b/.test(detail));
    return wrong.length === 0 ? [] : [{ sql, plan: wrong.map(({ detail }) => detail) }];
  });
  expect(others).toEqual([]);
});

/** No connection of before is left then, or none of a daemon that is gone: all rows are looked at, once. */
const AT_A_RESTART =
  /SET (holder_connection = NULL|warn_at = NULL, connection = 0($| WHERE connection >= :first)|connection = 0\b)/;

/** Of a plan of SQLite. */
interface Step {
  readonly detail: string;
}

/** Loads every module that declares statements. */
async function importAll(): Promise<void> {
  for (const name of readdirSync(DAEMON, { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".ts") || /^(dist|node_modules)\//.test(name)) continue;
    if (/\b(?:sql|search)(?:<|\()/.test(readFileSync(join(DAEMON, name), "utf8")))
      await import(join(DAEMON, "dist", name.replace(/ts$/, "js")));
  }
}

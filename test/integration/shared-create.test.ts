// `pawl shared create`, by the daemon's program, on a real PostgreSQL.
import { expect, onTestFinished, test } from "vitest";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import { pawl } from "./cli-program.js";

test.skipIf(!HAS_POSTGRESQL)(
  "pawl shared create makes the tables once, and says what it would do",
  async () => {
    const postgres = await PostgreSql.start(onTestFinished);
    const url = postgres.url("ci");

    const dry = await pawl(["shared", "create", url, "--dry-run", "--json"]);
    const { steps, sql } = JSON.parse(dry.stdout) as { steps: string[]; sql: string };
    expect(sql).toContain("CREATE TABLE pawl_batch (");
    expect(steps).toContain("0002-queue");
    expect(postgres.psql("SELECT to_regnamespace('ci')").output).toBe("\n");

    const made = await pawl(["shared", "create", url]);
    expect(made).toMatchObject({ code: 0, stdout: expect.stringMatching(/postgres, schema ci: made\n$/) });
    expect(postgres.psql("SELECT count(*) FROM ci.pawl_shared_step").output).toBe(`${steps.length}\n`);
    const again = await pawl(["shared", "create", url, "--json"]);
    expect(JSON.parse(again.stdout)).toMatchObject({ schema: "ci", from: steps.length, steps: [] });

    const nobody = await pawl(["shared", "create", url.replace("pawl@", "nobody:secret@")]);
    expect(nobody).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('role "nobody" does not exist'),
    });
    expect(nobody.stderr).not.toContain("secret");
    const nowhere = await pawl(["shared", "create", "postgresql://me:secret@127.0.0.1:1/work"]);
    expect(nowhere).toMatchObject({
      code: 4,
      stderr: expect.stringMatching(/no answer from 127\.0\.0\.1:1\/work: .*ECONNREFUSED/),
    });
    expect(nowhere.stderr).not.toContain("secret");
    const misread = await pawl(["shared", "create", url.replace("schema=", "shcema=")]);
    expect(misread).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('the URL has "shcema"; there are schema, host'),
    });
    expect(await pawl(["shared", "destroy", url])).toMatchObject({ code: 2 });
  },
);

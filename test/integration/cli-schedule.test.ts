// Schedules as people and programs use them: `pawl schedule`, and `client.schedules`.
import { PawlError } from "@pawl/protocol/errors";
import { describe, expect, onTestFinished, test } from "vitest";
import { connect, type PawlClient } from "../../client/dist/index.js";
import { sharedDaemon } from "../daemon.js";
import { pawl } from "./cli-program.js";

const USAGE = 2;
const daemon = sharedDaemon();

const run = (words: string[]) => pawl(["schedule", ...words, "--socket", daemon().place.socket]);

async function json(words: string[]): Promise<Record<string, never>> {
  const { stdout } = await run([...words, "--json"]);
  return JSON.parse(stdout) as Record<string, never>;
}

describe("pawl schedule", () => {
  test("sets, shows, lists, runs and removes", async () => {
    const set = await run([
      "set",
      "cli",
      "work",
      '"a"',
      "1.0",
      "--cron",
      "30 2 * * *",
      "--time-zone",
      "Europe/Berlin",
    ]);
    expect(set.stdout).toMatch(
      /^cli comes next \d{4}-\d\d-\d\d \d\d:30:00, local time \(UTC[+-]\d\d:\d\d\)\.\n$/,
    );
    expect((await run(["get", "cli"])).stdout).toContain(
      'cli enqueues ["a",1.0] in work: 30 2 * * * Europe/Berlin.',
    );
    expect((await run(["get", "cli", "--json"])).stdout).toContain('"payloads":["a",1.0]');
    expect((await run(["list", "--json"])).stdout).toContain('"payloads":["a",1.0]');
    expect((await run(["list"])).stdout).toMatch(
      /^NAME\s+WHEN\s+QUEUE\s+NEXT\s+LAST\ncli\s+30 2 \* \* \* Europe\/Berlin\s+work/,
    );
    expect((await run(["run", "cli"])).stdout).toMatch(/^qwb:[0-9a-f]{64}\n$/);
    expect((await run(["next", "cli", "-n", "2"])).stdout.trimEnd().split("\n")).toHaveLength(2);
    expect((await run(["rm", "cli"])).stdout).toBe("cli is deleted.\n");
    const nothing = { code: 1, stdout: "", stderr: "There was no schedule cli.\n" };
    expect(await run(["delete", "cli"])).toEqual(nothing);
    const forPrograms = { code: 1, stdout: '{"deleted":false}\n', stderr: "" };
    expect(await run(["rm", "cli", "--json"])).toEqual(forPrograms);
  });

  test("has every option", async () => {
    const options = [
      "--every",
      "5m",
      "--priority=3",
      "--key",
      "k",
      "--max-attempts",
      "2",
      "--overlap",
      "skip",
    ];
    const more = ["--missed", "all", "--missed-window", "2h", "--end", "2099-01-01T00:00:00Z", "--disabled"];
    expect(await json(["set", "options", "work", "1", ...options, ...more])).toMatchObject({
      schedule: {
        everyMs: 300_000,
        cron: null,
        priority: 3,
        key: "k",
        maxAttempts: 2,
        overlap: "skip",
        missed: "all",
        missedWindowMs: 7_200_000,
        endAt: Date.parse("2099-01-01T00:00:00Z"),
        enabled: false,
        nextAt: null,
      },
    });
    expect((await run(["get", "options"])).stdout).toContain("options is disabled.");
    expect((await json(["next", "--cron", "@daily", "--time-zone", "local", "-n", "3"])).times).toHaveLength(
      3,
    );
  });

  test.each([
    ["set", "x"],
    ["set", "x", "q", "1"],
    ["set", "x", "q", "1", "--cron", "@daily", "--every", "5m"],
    ["set", "x", "q", "--every", "5m"],
    ["set", "x", "q", "no json", "--every", "5m"],
    ["set", "x", "q", "1", "--cron", "61 * * * *"],
    ["get"],
    ["run"],
    ["next"],
    ["next", "x", "--cron", "@daily"],
    ["list", "x", "q"],
    ["put", "x"],
  ])("%s %s %s %s %s is a wrong command line", async (...words) => {
    const { code, stderr } = await run(words.filter((word) => word !== undefined));
    expect([code, stderr]).toEqual([USAGE, expect.stringMatching(/^pawl: /)]);
  });

  test("what is not there is a refusal", async () => {
    for (const verb of ["get", "run", "next"]) expect((await run([verb, "nobody"])).code).toBe(1);
  });
});

test("client.schedules has whole lists, and what answers are about", async () => {
  const client: PawlClient = await connect({ socket: daemon().place.socket });
  onTestFinished(() => client.close());
  const { schedules } = client;
  const set = await schedules.set({ name: "lib", everyMs: 60_000, queue: "lib", payloads: [{ a: 1 }] });
  expect(await schedules.get("lib")).toEqual(set);
  expect((await schedules.list()).map(({ name }) => name)).toContain("lib");
  expect(await schedules.next("lib")).toEqual([set.nextAt]);
  expect(await schedules.next({ cron: "@hourly", count: 2 })).toHaveLength(2);
  expect(await schedules.run("lib")).toMatchObject({ queue: "lib", sourceKey: null });
  expect([await schedules.delete("lib"), await schedules.delete("lib")]).toEqual([true, false]);
  const refusal = await schedules
    .set({ ...set, name: "lib", everyMs: 1 } as never)
    .catch((error: unknown) => error);
  expect(refusal).toBeInstanceOf(PawlError);
});

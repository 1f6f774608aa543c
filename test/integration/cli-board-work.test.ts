// Work from the board at the terminal: pawl board ready, claim, finish and configure, and pawl why item.
import { expect, test } from "vitest";
import { startDaemon } from "../daemon.js";
import { pawl, type Ran } from "./cli-program.js";

test("pawl board takes work, sends it on, and says why there is none", async () => {
  const { place } = await startDaemon();
  const run = (...args: string[]): Promise<Ran> => pawl(args, { socket: place.socket });
  const done = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(...args);
    expect([code, stderr]).toEqual([0, ""]);
    return stdout;
  };
  const client = await place.connect();
  await client.call("pipeline.write", {
    storyId: "FR-1",
    stage: "1_backlog",
    name: "Sign in",
    fields: { priority: 2 },
    labels: ["web"],
  });
  await client.call("pipeline.write", { storyId: "FR-2", stage: "1_backlog", dependsOn: ["FR-1", "FR-9"] });

  expect(await done("board", "ready")).toMatch(/^ITEM .*\nFR-1 +1_backlog +2 +Sign in\s*\n$/);
  expect(JSON.parse(await done("board", "ready", "--label", "web,x", "--json"))).toEqual({ items: [] });
  expect(await done("why", "item", "FR-1")).toBe("FR-1 is ready: it can be claimed now.\n");
  expect(await done("why", "FR-1")).toBe("FR-1 is ready: it can be claimed now.\n");
  expect(await done("why", "item", "FR-2")).toBe(
    'FR-2 depends on FR-1, which is in "1_backlog", and on FR-9, which does not exist.\n' +
      "It depends on what does not exist: FR-9.\n",
  );
  expect(await done("board", "claim", "--agent", "ana", "--to", "2_current", "--lease", "1m")).toMatch(
    /^FR-1 {2}Sign in\n {2}Stage {4}2_current\n {2}Token {4}1\n {2}Lease {4}lease_\w+\n {2}Ends in {2}\S.*\n$/,
  );
  expect(await done("item", "show", "FR-1")).toMatch(/\n {2}Claim {4}ana, pid \d+\n/);
  expect(await run("board", "claim")).toMatchObject({
    code: 1,
    stdout: "",
    stderr: expect.stringContaining("No item of 1_backlog is ready."),
  });
  expect(await run("board", "claim", "FR-1", "--json")).toMatchObject({ code: 1 });
  expect(await done("board", "finish", "FR-1", "1", "--to", "5_done", "--note", "merged")).toBe(
    "FR-1 is in 5_done.\n",
  );
  expect((await run("board", "finish", "FR-1", "1", "--to", "5_done")).code).toBe(1);

  expect(
    await done(
      "board",
      "configure",
      "--work",
      "1_backlog,3_qa",
      "--done",
      "5_done",
      "--follow",
      "3_qa=5_done",
    ),
  ).toBe(
    "Work from  1_backlog, 3_qa\nDone in    5_done\nBlocked    at 5 retries\nMoves      only these\n           3_qa: 5_done\n",
  );
  expect((await run("item", "set", "FR-2", "--stage", "3_qa")).stderr).toContain("no stage may follow it");
  expect(JSON.parse(await done("board", "configure", "--default", "stages,follow", "--json"))).toEqual({
    stages: [
      { stage: "1_backlog", ready: true },
      { stage: "5_done", done: true },
    ],
    transitions: null,
    maxRetries: 5,
  });
});

test.each([
  [["board", "--to", "5_done"], "--to belongs to `pawl board claim` and `pawl board finish`."],
  [["board", "ready", "FR-1"], '"FR-1" is one word too many.'],
  [["board", "ready", "--watch"], "--watch belongs to `pawl board` alone."],
  [
    ["board", "finish", "FR-1", "7", "--stage", "5_done"],
    "`pawl board claim`. `pawl board finish` takes --agent, --to and --note.",
  ],
  [["board", "claim", "--text", "x"], "--text belongs to `pawl board` alone."],
  [["board", "claim", "--limit", "3"], "--limit belongs to `pawl board` alone and `pawl board ready`."],
  [["board", "claim", "--note", "x"], "--note belongs to `pawl board finish`."],
  [["board", "ready", "--text", "x"], "--text belongs to `pawl board` alone."],
  [["board", "configure", "--agent", "x"], "`pawl board configure` takes --work"],
  [["board", "rebuild", "--stage", "x"], "`pawl board rebuild` takes --verify."],
  [["board", "rebuild", "FR-1"], '"FR-1" is one word too many.'],
  [["board", "finish", "FR-1"], "Say which item is finished"],
  [["board", "finish", "FR-1", "x", "--to", "5_done"], "A token is a number"],
  [["board", "finish", "FR-1", "7"], "Say where the item goes"],
  [["board", "claim", "FR-1", "--label", "x"], "Leave --stage and --label out."],
  [["board", "configure", "--work", "a"], "Stages are set together"],
  [["board", "configure", "--follow", "a"], "--follow takes rules"],
  [["board", "configure", "--default", "all"], "--default takes stages, follow, max-retries"],
  [["why", "story", "FR-1"], "story is none of lease, queue, command, path, item."],
])("pawl %j is refused before anybody is asked", async (args, says) => {
  const { code, stderr } = await pawl(args, { socket: "/nowhere/pawl.sock" });
  expect([code, stderr]).toEqual([2, expect.stringContaining(says)]);
});

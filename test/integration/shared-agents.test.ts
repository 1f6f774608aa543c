// A coding agent at a daemon whose paths and inboxes are shared: the board, which it works on, is the node's own.
import { expect, onTestFinished, test } from "vitest";
import { Place, privateDirectory } from "../daemon.js";
import { Agent } from "../mcp-agent.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";
import { makePlace } from "../shared-daemons.js";

test.skipIf(!HAS_POSTGRESQL)("work ends, and with it its paths; who is to go on is told", async () => {
  const url = (await PostgreSql.start(onTestFinished)).url();
  await makePlace(url);
  const { place } = await new Place().start({ args: ["--shared", `*=${url}`] });
  const [ada, ben] = await Promise.all(
    ["ada", "ben"].map(async (name) => {
      const agent = await Agent.start({ socket: place.socket, args: ["--tools", "full"] });
      await agent.done("session_start", { name, worktree: privateDirectory() });
      return agent;
    }),
  );
  const agent = ada as Agent;
  await agent.done("item_edit", { id: "A-1", title: "A story", stage: "1_backlog" });
  const { work } = await agent.done("work_next");
  expect(work).toMatchObject({ id: "A-1" });
  await agent.done("paths_reserve", { paths: ["src/"] });
  const handed = { id: "A-1", outcome: "handoff", to: "ben", note: "half of it" };
  expect(await agent.done("work_finish", handed)).toMatchObject({ free: true, releasedPaths: ["src/"] });
  const { reservations } = await (await place.connect()).call("path.list", {});
  expect(reservations).toEqual([]);
  const { messages } = await (ben as Agent).done("inbox");
  expect(JSON.stringify(messages)).toContain("half of it");
  expect((await agent.refused("work_finish", { id: "A-1", outcome: "done" })).kind).toBe("lease_lost");
});

// Lists of commands by time, whatever becomes of the clock.
import type { Command } from "@pawl/protocol";
import { expect, test } from "vitest";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";

const HOUR_MS = 3_600_000;

async function create(pawl: InProcess, count: number): Promise<void> {
  const call = () => pawl.call("command.create", { deployment: "d", command: "run" });
  await Promise.all(Array.from({ length: count }, call));
}

/** All pages of a list, and how many there were. */
async function listed(
  pawl: InProcess,
  createdAfter: number,
): Promise<{ commands: Command[]; pages: number }> {
  const commands: Command[] = [];
  let pages = 0;
  for (let after: string | undefined; ; pages += 1) {
    const page = await pawl.call("command.list", {
      createdAfter,
      limit: 1000,
      ...(after === undefined ? {} : { after }),
    });
    commands.push(...page.commands);
    after = page.next;
    if (after === undefined) return { commands, pages: pages + 1 };
  }
}

test("those since a time end at the first that is older, unless the clock was set back since", async () => {
  const clocks = new Clocks();
  const pawl = new InProcess({ time: clocks });
  await create(pawl, 2500);
  clocks.pass(HOUR_MS);
  const since = clocks.wall();
  await create(pawl, 5);
  const found = await listed(pawl, since);
  expect([found.commands.length, found.pages]).toEqual([5, 1]);
  expect((await listed(pawl, since - HOUR_MS)).commands).toHaveLength(2505);
  expect(await listed(pawl, since + 1)).toEqual({ commands: [], pages: 1 });

  // Those from before were created later, by the clock as it is.
  clocks.step(-2 * HOUR_MS);
  await create(pawl, 1500);
  expect((await listed(pawl, since)).commands).toHaveLength(5);
  clocks.pass(4 * HOUR_MS);
  const again = clocks.wall();
  await create(pawl, 3);
  const last = await listed(pawl, again);
  expect([last.commands.length, last.pages]).toEqual([3, 1]);
});

// What work from the board costs those who do not use it: statements of writes, counted.
import { expect, onTestFinished, test } from "vitest";
import { read, write } from "../../daemon/dist/domain/board/items.js";
import { LOSING } from "../../daemon/dist/grants/on-loss.js";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Env } from "../../daemon/dist/turns/operation.js";
import { Clocks } from "../clocks.js";
import { changeRows, InProcess } from "../in-process.js";
import { Author } from "../property/board-author.js";
import { type Driver, envOf, synchronousDriver } from "./drive.js";

const AUTHOR = new Author(1);
const ignored = () => {};

function envAt(wallMs: number): Env {
  return envOf({
    now: wallMs,
    wallMs,
    identity: () => ({ author: AUTHOR.id, privateKey: AUTHOR.privateKey, databaseFile: "memory" }),
    sign: () => "a".repeat(43),
    random: (bytes: number) => Buffer.alloc(bytes, 7),
    mayGoOn: true,
    effects: envOf({
      wake: ignored,
      deadline: ignored,
      count: ignored,
      tell: ignored,
    } as unknown as Partial<Env>) as unknown as Env["effects"],
  });
}

/** How many statements an operation takes. */
async function statementsOf<T>(driver: Driver, operation: Operation<T>): Promise<number> {
  let statements = 0;
  await driver.perform(
    (function* (): Operation<T> {
      let step = operation.next();
      while (!step.done) {
        statements += 1;
        step = operation.next(yield step.value);
      }
      return step.value;
    })(),
  );
  return statements;
}

test("a write asks for nothing more because of claims, but for whether a new item's lease is held", async () => {
  const driver = synchronousDriver();
  onTestFinished(() => driver.close());
  let wallMs = 1000;
  const of = (params: Parameters<typeof write>[0]) => statementsOf(driver, write(params, envAt(wallMs++)));
  await of({ storyId: "first", stage: "1_backlog" });
  const counts = {
    // The item, the last rank, its lease, the node; the change, the head, the node and the item are written.
    made: await of({ storyId: "A", stage: "1_backlog" }),
    named: await of({ storyId: "A", name: "x" }),
    moved: await of({ storyId: "A", stage: "2_current" }),
    given: await of({ storyId: "A", agent: "x" }),
    // Whoever depends on it is looked for.
    done: await of({ storyId: "A", stage: "5_done" }),
    read: await statementsOf(driver, read({ storyId: "A" }, envAt(wallMs))),
  };
  expect(counts).toEqual({ made: 8, named: 6, moved: 6, given: 6, done: 7, read: 2 });
});

test("an item whose claim is lost, while its process is being ended, is shown without a claim and not given on", async () => {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  await pawl.call("pipeline.write", { storyId: "A", stage: "1_backlog" });
  const { item } = await pawl.call("pipeline.claim", { agent: "a", storyId: "A" });
  expect(item).not.toBe(null);
  changeRows(pawl.path, `UPDATE pawl_lease SET on_loss = 1, ${LOSING.replace("CAST(:now AS BIGINT)", "1")}`);
  const read = await pawl.call("pipeline.read", { storyId: "A" });
  expect(read.item).not.toHaveProperty("claim");
  const again = await pawl.call("pipeline.claim", { agent: "b", storyId: "A" });
  expect(again.item).toBe(null);
});

test("who waits for work is given an item that is ready once it is made anew from its changes", async () => {
  const pawl = new InProcess();
  await pawl.call("pipeline.write", { storyId: "A", stage: "1_backlog" });
  changeRows(pawl.path, "UPDATE pawl_item SET stage = '3_qa', ready = 0");
  const waiting = pawl.call("pipeline.claim", { agent: "a", waitMs: 60_000 }, 2);
  await pawl.call("daemon.ping", {});
  const { next } = await pawl.call("pipeline.rebuild", { verify: false });
  expect(
    (await pawl.call("pipeline.rebuild", { verify: false, after: next as string })).differences,
  ).not.toEqual([]);
  expect((await waiting).item).toMatchObject({ storyId: "A", stage: "1_backlog", agent: "a" });
});

// The statements that a change of the board takes: what is not used costs none.
import { expect, test } from "vitest";
import { list, write } from "../../daemon/dist/domain/board/items.js";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Env } from "../../daemon/dist/turns/operation.js";
import { Author } from "../property/board-author.js";
import { envOf, performSteps, synchronousDriver } from "./drive.js";

const AUTHOR = new Author(1);
const ignored = () => {};
let now = 1_000_000;

function env(): Env {
  now += 1;
  return envOf({
    now,
    wallMs: now,
    identity: () => ({ author: AUTHOR.id, privateKey: AUTHOR.privateKey, databaseFile: "memory" }),
    sign: () => "a".repeat(43),
    random: (bytes: number) => Buffer.alloc(bytes, 7),
    mayGoOn: true,
    effects: envOf({
      wake: ignored,
      count: ignored,
      log: ignored,
      tell: ignored,
    } as unknown as Partial<Env>) as unknown as Env["effects"],
  });
}

/** The first words of each statement of an operation, in their order. */
function* noted<T>(operation: Operation<T>, into: string[]): Operation<T> {
  let step = operation.next();
  while (!step.done) {
    const words = step.value.statement.sql.trim().split(/\s+/);
    into.push(
      words[0] === "SELECT"
        ? `SELECT ${/FROM (\w+)/.exec(step.value.statement.sql)?.[1]}`
        : words.slice(0, 3).join(" "),
    );
    step = operation.next(yield step.value);
  }
  return step.value;
}

test("a write takes a statement for what it says, and none for what it does not", async () => {
  const driver = synchronousDriver();
  const statementsOf = async (params: object): Promise<string[]> => {
    const statements: string[] = [];
    await driver.perform(noted(write({ storyId: "A", ...params }, env()), statements));
    return statements;
  };
  await statementsOf({ stage: "1_backlog", name: "a" });
  const plain = [
    "SELECT pawl_item",
    "SELECT pawl_board",
    "UPDATE pawl_branch SET",
    "INSERT INTO pawl_change",
    "UPDATE pawl_board SET",
    "INSERT INTO pawl_item",
  ];
  expect(await statementsOf({ stage: "2_current" })).toEqual(plain);
  expect(await statementsOf({ name: "b", agent: "c", blocked: true })).toEqual(plain);
  expect(await statementsOf({ note: "d" })).toEqual([...plain, "INSERT INTO pawl_note"]);
  expect(await statementsOf({ name: "e" })).toEqual(plain);
  // With fields of its own an item takes one more, to be shown.
  await statementsOf({ fields: { priority: 1 } });
  expect(await statementsOf({ stage: "3_qa" })).toEqual([...plain, "SELECT pawl_cell"]);
  await statementsOf({ fields: { priority: null } });
  expect(await statementsOf({ stage: "2_current" })).toEqual(plain);

  // From the first search on, a name is also in the index of words; a stage is not.
  await performSteps(driver, (given) => list({ text: "e", limit: 1 }, given), env());
  expect(await statementsOf({ stage: "3_qa" })).toEqual(plain);
  expect(await statementsOf({ name: "f" })).toEqual([
    ...plain,
    "SELECT pawl_text",
    "DELETE FROM pawl_text_index",
    "INSERT INTO pawl_text_index",
  ]);
  driver.close();
});

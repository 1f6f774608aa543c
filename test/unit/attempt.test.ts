// What one turn makes of answers to calls that have waited: no more than so many bytes of them, whatever the time.
import { expect, test } from "vitest";
import { RawJson } from "../../daemon/dist/json/raw-json.js";
import type { Operation } from "../../daemon/dist/store/statement.js";
import { Attempt, type Setting } from "../../daemon/dist/turns/attempt.js";
import { type Call, DAEMON } from "../../daemon/dist/turns/call.js";
import { Wait } from "../../daemon/dist/turns/operation.js";
import { Waiters } from "../../daemon/dist/turns/waiters.js";

const MIB = 1024 * 1024;
const TIME = { now: 0, retentionNow: 0, wallMs: 0 };

/** Operations here have no statements, so they end with their first step. */
const SETTING = {
  store: {
    begin: () => {},
    commit: () => {},
    perform: (operation: Operation<unknown>) => operation.next().value,
  },
  readOnly: false,
} as unknown as Setting;

test("calls that one change wakes are answered with 8 MiB a turn, and with more where the answers are short", () => {
  for (const { length, turns } of [
    { length: 3 * MIB, turns: [3, 3, 3, 1] },
    { length: 10, turns: [10] },
  ]) {
    const waiters = new Waiters(() => {});
    const answer = { batch: new RawJson(`"${"x".repeat(length - 2)}"`) };
    const settled: unknown[] = [];
    let isOver = false;
    const waiting = (connection: number): Call => ({
      caller: { ...DAEMON, connection },
      waitMs: 60_000,
      closed: false,
      *start() {
        return isOver ? answer : new Wait("k");
      },
      settle: (outcome) => void settled.push(outcome),
    });
    const end: Call = {
      caller: { ...DAEMON, connection: 100 },
      waitMs: 0,
      closed: false,
      *start({ effects }) {
        isOver = true;
        effects.wake("k");
      },
      settle: () => {},
    };
    const answeredIn = (perform: (attempt: Attempt) => void): number => {
      const before = settled.length;
      const attempt = new Attempt(SETTING, waiters, TIME);
      perform(attempt);
      attempt.commit();
      attempt.answer();
      return settled.length - before;
    };
    for (let connection = 1; connection <= 10; connection += 1) {
      answeredIn((attempt) => attempt.perform(waiting(connection)));
    }
    const counts = [answeredIn((attempt) => attempt.perform(end))];
    while (waiters.someLeft) counts.push(answeredIn((attempt) => attempt.serveLeft()));
    expect(counts).toEqual(turns);
    expect(settled).toEqual(Array.from({ length: 10 }, () => answer));
  }
});

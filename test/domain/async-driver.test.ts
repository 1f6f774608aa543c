// The rules are written once, for stores that answer at once and for stores that are asked over a network:
// a driver that awaits between all steps has to come to the same results and the same rows.
import type { Mode } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_INTEGER } from "@pawl/protocol/limits";
import fc from "fast-check";
import { expect, test } from "vitest";
import * as sequence from "../../daemon/dist/domain/sequence/sequence.js";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Env } from "../../daemon/dist/turns/operation.js";
import { asynchronousDriver, type Driver, sequenceEnv, synchronousDriver } from "./drive.js";

const START = 1_750_000_000_000;
const DAY = 86_400_000;

/** One call as it is generated: which operation, with what, and how much later than the one before. */
interface Call {
  name: "next" | "reserve" | "peek" | "state" | "format" | "parse" | "advance";
  type: string;
  number: number;
  requestId: string | undefined;
  afterMs: number;
}

const call: fc.Arbitrary<Call> = fc.record({
  name: fc.constantFrom("next", "reserve", "peek", "state", "format", "parse", "advance"),
  type: fc.constantFrom("FR", "fr", "BUG"),
  number: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(1_000_000, MAX_INTEGER - 1, MAX_INTEGER)),
  requestId: fc.option(fc.constantFrom("a", "b"), { nil: undefined }),
  afterMs: fc.constantFrom(0, 1, DAY / 2, DAY),
});

const mode: fc.Arbitrary<Mode> = fc.constantFrom({ kind: "centralized" }, { kind: "distributed", nodeId: 7 });

function start({ name, type, number, requestId }: Call, env: Env): Operation<unknown> {
  switch (name) {
    case "next":
      return sequence.next({ type, requestId }, env);
    case "reserve":
      return sequence.reserve({ type, count: Math.min(number, 1_000_000), requestId }, env);
    case "peek":
      return sequence.peek({ type }, env);
    case "state":
      return sequence.state({}, env);
    case "format":
      return sequence.format({ type, seq: number }, env);
    case "parse":
      return sequence.parse({ id: `${type}-${number}` });
    case "advance":
      return sequence.advance({ type, to: number }, env);
  }
}

/** Everything that came of the calls: answers, what they counted, and the rows that they left. */
async function outcomeOf(
  driver: Driver,
  calls: readonly Call[],
  of: Mode,
  together: boolean,
): Promise<unknown> {
  const counted = { dispensed: 0 };
  let now = START;
  const run = (each: Call): Promise<unknown> => {
    now += each.afterMs;
    return driver.perform(start(each, sequenceEnv(now, of, counted)));
  };
  const answers: unknown[] = [];
  if (together) answers.push(...(await Promise.all(calls.map(run))));
  else for (const each of calls) answers.push(await run(each));
  const rows = ["pawl_sequence", "pawl_request"].map((table) =>
    driver.database.prepare(`SELECT * FROM ${table} ORDER BY 1, 2`).all(),
  );
  driver.close();
  return {
    answers: answers.map((each) =>
      each instanceof PawlError ? { kind: each.kind, message: each.message, details: each.details } : each,
    ),
    rows,
    counted,
  };
}

test.each([
  ["one after the other", false],
  ["all begun at once", true],
])("sequences come to the same, driven with awaits between all steps: %s", async (_, together) => {
  await fc.assert(
    fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 12 }), mode, async (calls, of) => {
      const expected = await outcomeOf(synchronousDriver(), calls, of, false);
      expect(await outcomeOf(asynchronousDriver(), calls, of, together)).toEqual(expected);
    }),
    { numRuns: 100 },
  );
});

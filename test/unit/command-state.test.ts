// The state table of commands, every cell of it, and what time makes of a stored command (spec: command.md).
import { COMMAND_STATES, type CommandState } from "@pawl/protocol";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  isFinal,
  returned,
  stateAt,
  type Timed,
  transition,
} from "../../daemon/dist/domain/command/state.js";

/** As the specification has it, written down once more. */
const PERMITTED = [
  "PENDING_UPLOAD PENDING",
  "PENDING_UPLOAD EXPIRED",
  "PENDING_UPLOAD FAILED",
  "PENDING DISPATCHED",
  "PENDING EXPIRED",
  "PENDING FAILED",
  "PENDING SUCCEEDED",
  "DISPATCHED PENDING",
  "DISPATCHED SUCCEEDED",
  "DISPATCHED FAILED",
  "DISPATCHED EXPIRED",
];
const FINAL: readonly CommandState[] = ["SUCCEEDED", "FAILED", "EXPIRED"];
const NOW = 1_750_000_000_000;
/** The wall clock is not where the elapsed time is. */
const SKEW_MS = -3_600_000;
const TIME = { now: NOW, wallMs: NOW + SKEW_MS };

describe("transitions", () => {
  const cells = COMMAND_STATES.flatMap((from) => COMMAND_STATES.map((to) => [from, to] as const));

  test.each(cells)("%s to %s", (from, to) => {
    const wanted = from === to ? "same" : PERMITTED.includes(`${from} ${to}`) ? "change" : "forbidden";
    expect(transition(from, to)).toBe(wanted);
  });

  test("nothing leaves a final state", () => {
    expect(COMMAND_STATES.filter(isFinal)).toEqual(FINAL);
  });
});

const state = fc.constantFrom(...COMMAND_STATES);
const moment = fc.option(fc.integer({ min: NOW - 3, max: NOW + 3 }), { nil: null });
const timed: fc.Arbitrary<Timed> = fc.record({
  state,
  attempt: fc.integer({ min: 1, max: 4 }),
  maxAttempts: fc.integer({ min: 0, max: 4 }),
  deadline: moment.map((at) => at && at + SKEW_MS),
  dueAt: moment,
  leaseExpiresAt: moment,
  graceEndsAt: moment,
  executionEndsAt: moment,
});

describe("a delivery without an answer", () => {
  test("is followed by another with no limit", () => {
    expect(returned({ attempt: 999, maxAttempts: 0 })).toEqual({ state: "PENDING", attempt: 1000 });
  });

  test("is the last when there have been as many as may be", () => {
    expect(returned({ attempt: 1, maxAttempts: 1 })).toEqual({ state: "FAILED", attempt: 1 });
    expect(returned({ attempt: 1, maxAttempts: 2 })).toEqual({ state: "PENDING", attempt: 2 });
    expect(returned({ attempt: 2, maxAttempts: 2 })).toEqual({ state: "FAILED", attempt: 2 });
  });
});

describe("commands and time", () => {
  test("is a permitted transition, or nothing", () => {
    fc.assert(
      fc.property(timed, (command) => {
        const { state: to, attempt } = stateAt(command, TIME);
        expect(transition(command.state, to)).not.toBe("forbidden");
        // An end of a delivery counts whether or not the command was due after it.
        const mayCount = command.state === "DISPATCHED" && to !== "DISPATCHED" && to !== "FAILED";
        expect(attempt - command.attempt).toBeLessThanOrEqual(mayCount ? 1 : 0);
        expect(attempt - command.attempt).toBeGreaterThanOrEqual(mayCount && to === "PENDING" ? 1 : 0);
      }),
    );
  });

  test("leaves a final command as it is", () => {
    fc.assert(
      fc.property(timed, fc.constantFrom(...FINAL), (command, final) => {
        const { attempt } = command;
        expect(stateAt({ ...command, state: final }, TIME)).toEqual({ state: final, attempt });
      }),
    );
  });

  const live = {
    attempt: 1,
    maxAttempts: 0,
    deadline: null,
    dueAt: null,
    leaseExpiresAt: null,
    graceEndsAt: null,
    executionEndsAt: null,
  } as const;

  test.each(["PENDING_UPLOAD", "PENDING", "DISPATCHED"] as const)(
    "%s expires when its time is over",
    (from) => {
      expect(stateAt({ ...live, state: from, dueAt: NOW + 1 }, TIME).state).toBe(from);
      expect(stateAt({ ...live, state: from, dueAt: NOW }, TIME).state).toBe("EXPIRED");
      const { wallMs } = TIME;
      expect(stateAt({ ...live, state: from, deadline: wallMs + 1 }, TIME).state).toBe(from);
      expect(stateAt({ ...live, state: from, deadline: wallMs }, TIME).state).toBe("EXPIRED");
    },
  );

  test("a lease ends at its end, and not that of a push", () => {
    const dispatched = { ...live, state: "DISPATCHED" } as const;
    expect(stateAt({ ...dispatched, leaseExpiresAt: NOW + 1 }, TIME).state).toBe("DISPATCHED");
    expect(stateAt({ ...dispatched, leaseExpiresAt: NOW }, TIME)).toEqual({ state: "PENDING", attempt: 2 });
    expect(stateAt(dispatched, TIME).state).toBe("DISPATCHED");
    const inGrace = { ...dispatched, leaseExpiresAt: NOW + 9, graceEndsAt: NOW + 1 };
    expect(stateAt(inGrace, TIME).state).toBe("DISPATCHED");
    expect(stateAt({ ...inGrace, graceEndsAt: NOW }, TIME).state).toBe("PENDING");
    expect(stateAt({ ...dispatched, graceEndsAt: NOW }, TIME).state).toBe("PENDING");
    const limited = { ...dispatched, leaseExpiresAt: NOW + 9, executionEndsAt: NOW + 1 };
    expect(stateAt(limited, TIME).state).toBe("DISPATCHED");
    expect(stateAt({ ...limited, executionEndsAt: NOW }, TIME).state).toBe("PENDING");
    expect(stateAt({ ...dispatched, executionEndsAt: NOW }, TIME).state).toBe("PENDING");
  });

  test("of a deadline and the end of a lease, the first counts, and the deadline at the same moment", () => {
    const at = (dueAt: number, leaseExpiresAt: number, maxAttempts = 0) =>
      stateAt({ ...live, state: "DISPATCHED", maxAttempts, dueAt, leaseExpiresAt }, TIME);
    expect(at(NOW, NOW)).toEqual({ state: "EXPIRED", attempt: 1 });
    expect(at(NOW - 1, NOW)).toEqual({ state: "EXPIRED", attempt: 1 });
    expect(at(NOW, NOW - 1)).toEqual({ state: "EXPIRED", attempt: 2 });
    expect(at(NOW, NOW - 1, 1)).toEqual({ state: "FAILED", attempt: 1 });
    const named = { ...live, state: "DISPATCHED", leaseExpiresAt: NOW - 5 } as const;
    expect(stateAt({ ...named, deadline: TIME.wallMs - 5 }, TIME)).toEqual({ state: "EXPIRED", attempt: 1 });
    expect(stateAt({ ...named, deadline: TIME.wallMs - 4 }, TIME)).toEqual({ state: "EXPIRED", attempt: 2 });
  });
});

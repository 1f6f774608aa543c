// The daemon's time under every way in which the clocks of a machine can move (spec: wire.md, Time).
import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { Clock, type KeptTime, shownAt } from "../../daemon/dist/clock.js";
import { Clocks, START } from "../clocks.js";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const YEAR = 365 * DAY;

let time: Clocks;
beforeEach(() => {
  time = new Clocks();
});

/** The time that the database keeps of a clock that has just written it. */
function keep(clock: Clock): KeptTime {
  const kept = clock.toKeep(clock.read());
  if (kept === undefined) throw new Error("what is kept will do");
  return kept;
}

describe("elapsed time", () => {
  test("begins as the wall clock, in whole milliseconds", () => {
    const clock = new Clock(undefined, time);
    expect(clock.read()).toEqual({ now: START, retentionNow: START, wallMs: START });
    time.pass(1234.4);
    expect(clock.read()).toEqual({ now: START + 1234, retentionNow: START + 1234, wallMs: START + 1234 });
  });

  test.each([HOUR * 8, DAY * 9, YEAR, -HOUR * 8, -DAY * 9, -YEAR])(
    "goes on when the clock is set by %i ms",
    (byMs) => {
      const clock = new Clock(undefined, time);
      time.pass(1000);
      time.step(byMs);
      expect(clock.read()).toEqual({
        now: START + 1000,
        retentionNow: START + 1000,
        wallMs: START + 1000 + byMs,
      });
      time.pass(500);
      time.step(-byMs);
      expect(clock.read()).toEqual({ now: START + 1500, retentionNow: START + 1500, wallMs: START + 1500 });
    },
  );

  test("stands still while the machine sleeps, and its boottime does not", () => {
    const clock = new Clock(undefined, time);
    const { boottimeMs } = clock.boottime();
    time.sleep(HOUR);
    expect(clock.read()).toMatchObject({ now: START, wallMs: START + HOUR });
    expect(clock.boottime()).toEqual({ boot: "boot 1", boottimeMs: boottimeMs + HOUR });
    expect(clock.takeJump()).toEqual({ step: undefined, slept: true });
    expect(clock.lastStep).toBeNull();
  });

  test("goes on over a restart, though the process is held up while it first reads the clocks", () => {
    const program = `
      const hrtime = process.hrtime.bigint;
      process.hrtime.bigint = () => {
        const now = hrtime();
        process.hrtime.bigint = hrtime;
        while (hrtime() < now + 200_000_000n);
        return now;
      };
      const { Clock } = await import(${JSON.stringify(new URL("../../daemon/dist/clock.js", import.meta.url))});
      const clock = new Clock(undefined);
      const beforeMs = Number(hrtime()) / 1e6;
      const { monotonicMs } = clock.toKeep(clock.read());
      console.log(JSON.stringify({ beforeMs, monotonicMs, afterMs: Number(hrtime()) / 1e6 }));
    `;
    const printed = execFileSync(process.execPath, ["--input-type=module", "-e", program], {
      encoding: "utf8",
    });
    const { beforeMs, monotonicMs, afterMs } = JSON.parse(printed);
    // What is kept is whole milliseconds.
    expect(monotonicMs).toBeGreaterThan(beforeMs - 2);
    expect(monotonicMs).toBeLessThanOrEqual(afterMs);
  });

  test("goes on over a restart in the same boot, whatever the wall clock does meanwhile", () => {
    const before = new Clock(undefined, time);
    const kept = keep(before);
    time.pass(10 * HOUR);
    time.step(-YEAR);
    const clock = new Clock(kept, time);
    expect(clock.read().now).toBe(START + 10 * HOUR);
    expect(clock.lastStep).toEqual({ steppedAt: START + 10 * HOUR - YEAR, byMs: -YEAR });
  });

  test("goes on by the wall clock over a reboot, and never back", () => {
    const kept = keep(new Clock(undefined, time));
    time.reboot(HOUR);
    expect(new Clock(kept, time).read().now).toBe(START + HOUR);
    time.reboot(0, -2 * HOUR);
    const clock = new Clock(kept, time);
    expect(clock.read().now).toBeGreaterThan(START);
    expect(clock.read().now).toBeLessThanOrEqual(START + 1000);
    expect(clock.lastStep).toEqual({ steppedAt: START - HOUR, byMs: -HOUR });
  });

  test("is compared over no restart where the kernel does not name the boot", () => {
    const nameless = { ...time, boot: null };
    const kept = keep(new Clock(undefined, nameless));
    time.pass(HOUR);
    time.step(HOUR);
    expect(new Clock(kept, nameless).read().now).toBe(START + 2 * HOUR);
  });

  test("of retention has at most a day of the time between two boots", () => {
    const kept = keep(new Clock(undefined, time));
    time.reboot(YEAR);
    const clock = new Clock(kept, time);
    expect(clock.read()).toMatchObject({ now: START + YEAR, retentionNow: START + DAY });
    const again = keep(clock);
    time.pass(HOUR);
    expect(new Clock(again, time).read()).toMatchObject({ retentionNow: START + DAY + HOUR });
    time.reboot(HOUR);
    expect(new Clock(again, time).read()).toMatchObject({ retentionNow: START + DAY + 2 * HOUR });
  });
});

describe("a step of the wall clock", () => {
  test("is told once, with what it was set to and by how much", () => {
    const clock = new Clock(undefined, time);
    time.pass(1000);
    time.step(HOUR);
    clock.read();
    const step = { steppedAt: START + 1000 + HOUR, byMs: HOUR };
    expect(clock.takeJump()).toEqual({ step, slept: false });
    expect(clock.takeJump()).toBeUndefined();
    clock.read();
    expect(clock.takeJump()).toBeUndefined();
    expect(clock.lastStep).toEqual(step);
  });

  test("of a second or less is the error of reading two clocks", () => {
    const clock = new Clock(undefined, time);
    time.step(1000);
    clock.read();
    expect(clock.takeJump()).toBeUndefined();
    time.step(1001);
    clock.read();
    expect(clock.takeJump()?.step?.byMs).toBe(1001);
  });

  test("is told apart from a sleep at the same time", () => {
    const clock = new Clock(undefined, time);
    time.sleep(8 * HOUR);
    time.step(-HOUR);
    clock.read();
    expect(clock.takeJump()).toEqual({ step: { steppedAt: START + 7 * HOUR, byMs: -HOUR }, slept: true });
  });
});

describe("the time that the database keeps", () => {
  test("is written again after a second, after a step, and in another boot", () => {
    const clock = new Clock(undefined, time);
    const first = keep(clock);
    clock.wasKept(first);
    time.pass(999);
    expect(clock.toKeep(clock.read())).toBeUndefined();
    time.pass(1);
    const second = keep(clock);
    clock.wasKept(second);
    time.step(-HOUR);
    const third = keep(clock);
    expect(third).toMatchObject({ wallMs: START + 1000 - HOUR, elapsedMs: START + 1000 });
    time.reboot(0);
    expect(new Clock(third, time).toKeep(new Clock(third, time).read())?.boot).toBe("boot 2");
  });
});

test("a moment is shown by the wall clock as it is, from what remains", () => {
  const clock = new Clock(undefined, time);
  const end = clock.read().now + 5000;
  time.pass(1000);
  time.step(-YEAR);
  expect(shownAt(end, clock.read())).toBe(START + 5000 - YEAR);
});

test("whatever the clocks do, elapsed time is what has passed, and goes on over restarts", () => {
  const move = fc.record({
    passed: fc.nat({ max: 10_000 }),
    set: fc.oneof(fc.constant(0), fc.integer({ min: -YEAR, max: YEAR })),
    slept: fc.oneof(fc.constant(0), fc.nat({ max: DAY })),
    restarts: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(move, { maxLength: 50 }), (moves) => {
      time = new Clocks();
      let clock = new Clock(undefined, time);
      let kept = keep(clock);
      let expected = START;
      for (const { passed, set, slept, restarts } of moves) {
        time.pass(passed);
        time.step(set);
        time.sleep(slept);
        expected += passed;
        if (restarts) {
          kept = clock.toKeep(clock.read()) ?? kept;
          clock = new Clock(kept, time);
        }
        const { wallMs, ...elapsed } = clock.read();
        expect(elapsed).toEqual({ now: expected, retentionNow: expected });
        expect(Math.abs(wallMs - time.wall())).toBeLessThanOrEqual(1);
      }
    }),
  );
});

// The daemon's clock under every way in which the clocks of a machine can move (spec: wire.md, Time).
import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { Clock } from "../../daemon/dist/clock.js";

const START = 1_750_000_000_000;
const HOUR = 3_600_000;

let wall: number;
let monotonic: number;
beforeEach(() => {
  wall = START;
  monotonic = 5000;
});

const open = (highWaterMark = 0): Clock =>
  new Clock(highWaterMark, { wall: () => wall, monotonic: () => monotonic });

/** Time passes as it should. */
function pass(ms: number): void {
  wall += ms;
  monotonic += ms;
}

/** What the turn loop does with a reading, once what remains of the grants is safe. */
function readAndFollow(clock: Clock): { now: number; steppedMs: number } {
  const reading = clock.read();
  clock.follow(reading.steppedMs);
  return reading;
}

describe("from the start on", () => {
  test("it is the wall clock, in whole milliseconds", () => {
    wall += 0.7;
    const clock = open();
    expect(clock.read()).toEqual({ now: START, steppedMs: 0 });
    pass(1234.4);
    expect(clock.read()).toEqual({ now: START + 1234, steppedMs: 0 });
  });

  test("it begins no earlier than the database has seen", () => {
    const clock = open(START + HOUR);
    expect(clock.read()).toEqual({ now: START + HOUR, steppedMs: 0 });
    pass(500);
    expect(clock.read().now).toBe(START + HOUR + 500);
    // The wall clock catches up, and nothing jumps.
    pass(2 * HOUR);
    expect(clock.read()).toEqual({ now: START + 3 * HOUR + 500, steppedMs: 0 });
  });

  test("a high-water mark of the past is only that", () => {
    expect(open(START - HOUR).read().now).toBe(START);
  });
});

describe("when the wall clock is set", () => {
  test("back: it goes on as if nothing had happened", () => {
    const clock = open();
    pass(1000);
    wall -= 24 * HOUR;
    expect(clock.read()).toEqual({ now: START + 1000, steppedMs: 0 });
    pass(500);
    expect(clock.read()).toEqual({ now: START + 1500, steppedMs: 0 });
  });

  test("forward: it says by how much, and jumps only when told to", () => {
    const clock = open();
    pass(1000);
    wall += HOUR;
    expect(clock.read()).toEqual({ now: START + 1000, steppedMs: HOUR });
    pass(10);
    // Still to be done, for instance because the database could not be written.
    expect(clock.read()).toEqual({ now: START + 1010, steppedMs: HOUR });
    clock.follow(HOUR);
    expect(clock.read()).toEqual({ now: START + HOUR + 1010, steppedMs: 0 });
  });

  test("forward and back again: it stays where it has been", () => {
    const clock = open();
    wall += HOUR;
    readAndFollow(clock);
    wall -= HOUR;
    expect(clock.read()).toEqual({ now: START + HOUR, steppedMs: 0 });
    pass(HOUR);
    expect(clock.read()).toEqual({ now: START + 2 * HOUR, steppedMs: 0 });
  });

  test("by less than a second: that is drift, which the monotonic clock is right about", () => {
    const clock = open();
    wall += 999;
    expect(clock.read()).toEqual({ now: START, steppedMs: 0 });
    wall += 1;
    expect(clock.read()).toEqual({ now: START, steppedMs: 1000 });
  });
});

test("a machine that slept: the wall clock went on, the monotonic one did not", () => {
  const clock = open();
  pass(1000);
  wall += 8 * HOUR;
  expect(readAndFollow(clock)).toEqual({ now: START + 1000, steppedMs: 8 * HOUR });
  expect(clock.read()).toEqual({ now: START + 1000 + 8 * HOUR, steppedMs: 0 });
});

test("whatever the clocks do, it never runs backwards, and what passes is never less than the monotonic clock says", () => {
  const move = fc.record({
    passed: fc.nat({ max: 10_000 }),
    set: fc.oneof(fc.constant(0), fc.integer({ min: -2 * HOUR, max: 2 * HOUR })),
    follows: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(move, { maxLength: 50 }), fc.integer({ min: -HOUR, max: HOUR }), (moves, ahead) => {
      [wall, monotonic] = [START, 5000];
      const clock = open(START + ahead);
      let last = clock.read().now;
      let steppedMs = 0;
      for (const { passed, set, follows } of moves) {
        pass(passed);
        wall += set;
        if (follows) clock.follow(steppedMs);
        const jumped = follows ? steppedMs : 0;
        const reading = clock.read();
        expect(reading.now).toBe(last + passed + jumped);
        expect(reading.steppedMs).toSatisfy((ms: number) => ms === 0 || ms >= 1000);
        if (reading.steppedMs > 0) expect(reading.now + reading.steppedMs).toBe(Math.floor(wall));
        ({ now: last, steppedMs } = reading);
      }
    }),
  );
});

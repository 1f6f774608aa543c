import { MAX_CLOCK_COUNTER } from "@pawl/protocol/limits";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CLOCK_START,
  compareHlc,
  type Hlc,
  observe,
  tick,
} from "../../daemon/dist/domain/board/hybrid-clock.js";

describe("the hybrid clock", () => {
  test("follows the wall clock while that goes on", () => {
    expect(tick(CLOCK_START, 1000)).toEqual([1000, 0]);
    expect(tick([1000, 5], 1001)).toEqual([1001, 0]);
  });

  test("counts while the wall clock stands still or goes backwards", () => {
    expect(tick([1000, 0], 1000)).toEqual([1000, 1]);
    expect(tick([1000, 1], 10)).toEqual([1000, 2]);
  });

  test("goes to the next millisecond when the counter is full", () => {
    expect(tick([1000, MAX_CLOCK_COUNTER], 1000)).toEqual([1001, 0]);
    expect(tick([1000, MAX_CLOCK_COUNTER - 1], 1000)).toEqual([1000, MAX_CLOCK_COUNTER]);
  });

  test("takes over only what is later", () => {
    expect(observe([1000, 3], [1000, 4])).toEqual([1000, 4]);
    expect(observe([1000, 3], [1000, 2])).toEqual([1000, 3]);
    expect(observe([1000, 3], [1001, 0])).toEqual([1001, 0]);
    expect(observe([1000, 3], [999, 9])).toEqual([1000, 3]);
  });

  test("is later at each local change than at everything seen", () => {
    const time: fc.Arbitrary<Hlc> = fc.tuple(
      fc.nat({ max: 50 }),
      fc.constantFrom(0, 1, 2, MAX_CLOCK_COUNTER),
    );
    const event = fc.oneof(time, fc.nat({ max: 60 }));
    fc.assert(
      fc.property(fc.array(event, { maxLength: 50, size: "max" }), (events) => {
        let clock = CLOCK_START;
        const seen: Hlc[] = [];
        for (const each of events) {
          if (typeof each === "number") {
            clock = tick(clock, each);
            const reading = clock;
            expect(seen.every((earlier) => compareHlc(reading, earlier) > 0)).toBe(true);
            expect(clock[0]).toBeGreaterThanOrEqual(each);
            expect(clock[1]).toBeLessThanOrEqual(MAX_CLOCK_COUNTER);
            seen.push(clock);
          } else {
            clock = observe(clock, each);
            seen.push(each);
          }
        }
      }),
    );
  });
});

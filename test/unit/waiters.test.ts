// The states of parked calls, and what a commit and a rollback make of them.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Call, DAEMON } from "../../daemon/dist/turns/call.js";
import { Wait } from "../../daemon/dist/turns/operation.js";
import { type Parked, Waiters } from "../../daemon/dist/turns/waiters.js";

const WAIT_MS = 50;

function callOf(connection: number): Call {
  return {
    caller: { ...DAEMON, connection },
    waitMs: WAIT_MS,
    closed: false,
    *start() {},
    settle() {},
  };
}

describe("a parked call", () => {
  let waiters: Waiters;
  const timeUp = vi.fn<(parked: Parked) => void>();

  beforeEach(() => {
    vi.useFakeTimers();
    waiters = new Waiters(timeUp);
  });
  afterEach(() => {
    vi.useRealTimers();
    timeUp.mockReset();
  });

  const [first, second] = [callOf(1), callOf(2)];
  const woken = (key: string): Parked[] => {
    const line = waiters.wokenBy(key);
    const all: Parked[] = [];
    for (let parked = line?.next(); parked !== undefined; parked = line?.next()) all.push(parked);
    return all;
  };
  const parkedUnder = (key: string): Call[] => woken(key).map(({ call }) => call);

  function parkForGood(...calls: Call[]): void {
    for (const call of calls) waiters.park(call, new Wait("k"), 0);
    waiters.commit();
  }

  test("waits once its turn is committed, and is told when its time is up", () => {
    waiters.park(first, new Wait("k"), 0);
    vi.advanceTimersByTime(WAIT_MS);
    expect(timeUp).not.toHaveBeenCalled();
    waiters.commit();
    vi.advanceTimersByTime(WAIT_MS);
    expect(timeUp).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({ call: first, state: "waiting" }),
    );
    expect(waiters.size).toBe(1);
  });

  test("is gone when the turn that parked it is rolled back", () => {
    waiters.park(first, new Wait("k"), 0);
    waiters.rollBack();
    expect(parkedUnder("k")).toEqual([]);
    expect(waiters.size).toBe(0);
  });

  test("is not tried once one of another sort that was tried before it has ended its wait", () => {
    const [served, ended] = [new Wait("k", "exclusive"), new Wait("k", "shared")].map((wait, index) =>
      waiters.park(callOf(index), wait, 0),
    );
    const line = waiters.wokenBy("k");
    expect(line?.next()).toBe(served);
    waiters.serve(ended as Parked);
    expect(line?.next()).toBeUndefined();
    // What is served twice takes the next one under its key with it.
    waiters.commit();
    waiters.park(first, new Wait("k"), 0);
    waiters.commit();
    expect(parkedUnder("k")).toContain(first);
  });

  test("is gone when it is served in the turn that parked it, whatever becomes of that turn", () => {
    waiters.park(first, new Wait("k"), 0);
    for (const parked of woken("k")) waiters.serve(parked);
    waiters.commit();
    expect(waiters.size).toBe(0);
    vi.advanceTimersByTime(WAIT_MS);
    expect(timeUp).not.toHaveBeenCalled();
  });

  test("that was served waits on when that turn is rolled back, in its old place", () => {
    parkForGood(first, second);
    for (const parked of woken("k")) if (parked.call === first) waiters.serve(parked);
    expect(waiters.count("k")).toBe(1);
    waiters.rollBack();
    expect(waiters.count("k")).toBe(2);
    expect(parkedUnder("k")).toEqual([first, second]);
  });

  test("that was served is gone once that turn is committed, and its time is never up", () => {
    parkForGood(first, second);
    for (const parked of woken("k")) if (parked.call === first) waiters.serve(parked);
    waiters.commit();
    expect(parkedUnder("k")).toEqual([second]);
    vi.advanceTimersByTime(WAIT_MS);
    expect(timeUp).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ call: second }));
  });

  test("ends with its connection", () => {
    parkForGood(first, second);
    waiters.removeOf(1);
    expect(parkedUnder("k")).toEqual([second]);
    expect(waiters.size).toBe(1);
  });

  test("of the daemon itself is not counted among those who wait", () => {
    parkForGood(callOf(DAEMON.connection), first);
    expect(waiters.count("k")).toBe(1);
    expect(waiters.size).toBe(1);
  });
});

import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";

/** A wall clock this much ahead of ours was set forward, or the machine slept; less is drift. */
const STEP_THRESHOLD_MS = 1000;

/** The two clocks of a machine, so that tests can move them. Both in milliseconds. */
export interface TimeSource {
  /** Since the Unix epoch; may jump. */
  wall(): number;
  /** Since any moment; never jumps, and stands still while the machine sleeps. */
  monotonic(): number;
}

const systemTime: TimeSource = {
  wall: () => Date.now(),
  monotonic: () => performance.now(),
};

/** What a reading found: the time, and by how much the wall clock has jumped ahead of it. */
export interface Reading {
  now: number;
  steppedMs: number;
}

/**
 * The daemon's one clock (spec: wire.md, Time). It runs at the pace of the monotonic clock from the later of
 * the wall clock and the high-water mark of the database, so it never runs backwards. When the wall clock is
 * found ahead (set forward, or the machine slept), the reading says by how much, and the clock goes on at its
 * pace until it is told to follow: by then the deadlines of leases have been moved by the same amount and that
 * is committed, so that what remains of a lease stays what it was also if the database could not be written.
 */
export class Clock {
  readonly #time: TimeSource;
  /** Added to the monotonic clock to give the time. */
  #offset: number;
  #last: number;

  /** @param highWaterMark the latest time that the database has seen, 0 for a new one. */
  constructor(highWaterMark: number, time: TimeSource = systemTime) {
    this.#time = time;
    this.#last = Math.max(Math.floor(time.wall()), highWaterMark);
    this.#offset = this.#last - time.monotonic();
  }

  read(): Reading {
    const wall = this.#time.wall();
    const monotonic = this.#time.monotonic();
    const ahead = Math.floor(wall - (monotonic + this.#offset));
    const steppedMs = ahead >= STEP_THRESHOLD_MS ? ahead : 0;
    this.#last = Math.max(this.#last, Math.floor(monotonic + this.#offset));
    return { now: this.#last, steppedMs };
  }

  /** The wall clock as it is: it may run backwards. Other nodes' times are compared with this. */
  wallMs(): number {
    return Math.floor(this.#time.wall());
  }

  /** Jumps ahead by as much as a reading said. */
  follow(steppedMs: number): void {
    this.#offset += steppedMs;
  }
}

/** CLOCK_MONOTONIC in microseconds, as systemd compares it with its own. */
export function monotonicMicroseconds(): bigint {
  return process.hrtime.bigint() / 1000n;
}

/** Milliseconds of the monotonic clock, for measuring how long something took. */
export function elapsed(): number {
  return performance.now();
}

/** The time of day, for people: what is shown and never compared. */
export function wallTime(): number {
  return Date.now();
}

/** A moment that processes of one boot of the machine can compare, whatever happens to the time of day. */
export interface Uptime {
  /** Which boot, or null where the kernel does not say: then nothing can be compared over a restart. */
  readonly boot: string | null;
  /** Milliseconds of the monotonic clock, which Linux counts from the boot. */
  readonly uptimeMs: number;
}

let boot: string | null | undefined;

export function uptime(): Uptime {
  if (boot === undefined) {
    try {
      boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    } catch {
      boot = null;
    }
  }
  return { boot, uptimeMs: Math.floor(Number(process.hrtime.bigint()) / 1e6) };
}

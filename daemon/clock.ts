// The clocks of the machine, and the daemon's time made of them. Nothing else in the daemon reads a clock.
import { readFileSync } from "node:fs";
import { uptime } from "node:os";
import { performance } from "node:perf_hooks";

/** A wall clock that has left the monotonic one by more than this was set, as far as people are told. */
const STEP_THRESHOLD_MS = 1000;
/** Two clocks in whole milliseconds differ now by one more, now by one less. */
const ROUNDING_MS = 1;
/** While the database is written, the time is kept in it this often, for the next boot of the machine. */
const KEEP_EVERY_MS = 1000;
/** Retention counts no more than this of the time between two boots, because the wall clock may have been set. */
const MAX_RETENTION_OVER_BOOTS_MS = 24 * 60 * 60 * 1000;

/** The clocks of a machine, so that tests can move them. All in milliseconds. */
export interface TimeSource {
  /** Since the Unix epoch; may jump. */
  wall(): number;
  /** CLOCK_MONOTONIC: since the boot; never jumps, and stands still while the machine sleeps. */
  monotonic(): number;
  /** CLOCK_BOOTTIME: the same, and goes on while the machine sleeps. */
  boottime(): number;
  /** Which boot of the machine, or null where the kernel does not say: then nothing is comparable over a restart. */
  readonly boot: string | null;
}

/** The time as the database keeps it, from which the next life of the daemon goes on. All in milliseconds. */
export interface KeptTime {
  readonly boot: string | null;
  readonly monotonicMs: number;
  readonly boottimeMs: number;
  readonly wallMs: number;
  readonly elapsedMs: number;
  /** The part of the elapsed time that does not count for retention. */
  readonly unretainedMs: number;
}

export interface Reading {
  /** Elapsed time: in milliseconds, comparable over restarts and reboots, never running backwards. */
  readonly now: number;
  /** Elapsed time as retention counts it. */
  readonly retentionNow: number;
  /** The wall clock as it is, in milliseconds since the Unix epoch; it may run backwards. */
  readonly wallMs: number;
}

/** A wall clock that was set: to what, and by how many milliseconds, negative for back. */
export interface Step {
  readonly steppedAt: number;
  readonly byMs: number;
}

/** The wall clock left the monotonic one: it was set, or the machine slept, or both. */
export interface Jump {
  readonly step: Step | undefined;
  readonly slept: boolean;
}

/**
 * The daemon's time (spec: wire.md, Time). Elapsed time runs with CLOCK_MONOTONIC, also over a restart in the same
 * boot of the machine, and over a reboot goes on by the difference of the wall clock. Elapsed time begins as the wall
 * clock of when the database was made, and is equal to no clock of anybody's afterwards. The wall clock only passes
 * through.
 */
export class Clock {
  readonly #time: TimeSource;
  /** Added to the monotonic clock to give the elapsed time. */
  #offsetMs = 0;
  #unretainedMs = 0;
  /** Added to the elapsed time to give the wall clock; another number once that was set, or the machine slept. */
  #wallAheadMs = 0;
  /** How long the machine had slept when that changed last. */
  #sleptMs: number;
  #boottimeAheadMs = 0;
  #lastStep: Step | null = null;
  #untold: Jump | undefined;
  #kept: KeptTime | undefined;

  /** @param kept the time as the database keeps it; undefined for a new one. */
  constructor(kept: KeptTime | undefined, time: TimeSource = systemTime) {
    this.#time = time;
    this.#sleptMs = time.boottime() - time.monotonic();
    if (kept === undefined) this.#offsetMs = Math.floor(time.wall() - time.monotonic());
    else this.goOnFrom(kept);
  }

  read(): Reading {
    let look = this.#look();
    // A process that is held up between its two readings sees a jump, but not twice.
    if (Math.abs(look.byMs) > ROUNDING_MS) look = this.#look();
    const { now, wallMs, byMs } = look;
    if (Math.abs(byMs) > ROUNDING_MS) this.#seeJump(wallMs, byMs);
    return { now, retentionNow: now - this.#unretainedMs, wallMs: now + this.#wallAheadMs };
  }

  /** Both clocks, and by how much the wall clock has left the elapsed time. */
  #look(): { now: number; wallMs: number; byMs: number } {
    const wallMs = Math.floor(this.#time.wall());
    const now = Math.floor(this.#time.monotonic() + this.#offsetMs);
    return { now, wallMs, byMs: wallMs - now - this.#wallAheadMs };
  }

  /**
   * Goes on from where another life of the daemon was: the one before, or for a daemon that only reads, the one that
   * writes. Does nothing for the same object again.
   */
  goOnFrom(kept: KeptTime): void {
    if (kept === this.#kept) return;
    this.#kept = kept;
    const wallMs = Math.floor(this.#time.wall());
    const monotonic = this.#time.monotonic();
    this.#unretainedMs = kept.unretainedMs;
    if (kept.boot !== null && kept.boot === this.#time.boot && monotonic >= kept.monotonicMs) {
      this.#offsetMs = kept.elapsedMs - kept.monotonicMs;
      this.#wallAheadMs = kept.wallMs - kept.elapsedMs;
      this.#sleptMs = kept.boottimeMs - kept.monotonicMs;
      return;
    }
    // A commit after the time was last kept may have seen so much later.
    const passedMs = Math.max(wallMs - kept.wallMs, KEEP_EVERY_MS);
    this.#offsetMs = Math.ceil(kept.elapsedMs + passedMs - monotonic);
    this.#wallAheadMs = wallMs - Math.floor(monotonic + this.#offsetMs);
    this.#unretainedMs += Math.max(passedMs - MAX_RETENTION_OVER_BOOTS_MS, 0);
    if (kept.wallMs - wallMs > STEP_THRESHOLD_MS) {
      this.#tell({ step: { steppedAt: wallMs, byMs: wallMs - kept.wallMs }, slept: false });
    }
  }

  /** The last step of the wall clock in this life of the daemon or at its start. */
  get lastStep(): Step | null {
    return this.#lastStep;
  }

  /** The last jump of the wall clock against the monotonic one, if this has not given it yet. */
  takeJump(): Jump | undefined {
    const jump = this.#untold;
    this.#untold = undefined;
    return jump;
  }

  /** The time to be kept with a transaction that writes; undefined if what was kept will do. */
  toKeep({ now, wallMs }: Reading): KeptTime | undefined {
    const kept = this.#kept;
    const isFresh = kept?.boot === this.#time.boot && now - kept.elapsedMs < KEEP_EVERY_MS;
    const isRight =
      kept !== undefined && Math.abs(wallMs - kept.wallMs - (now - kept.elapsedMs)) <= STEP_THRESHOLD_MS;
    return isFresh && isRight ? undefined : this.#present(now, wallMs);
  }

  /** Says that the transaction that keeps this time is committed. */
  wasKept(kept: KeptTime): void {
    this.#kept = kept;
  }

  /**
   * CLOCK_BOOTTIME, in milliseconds since the boot: the leases of providers go on by it. The kernel gives
   * hundredths of a second, so the first readings may be some milliseconds late; none is early or goes back.
   */
  boottime(): Boottime {
    const monotonic = this.#time.monotonic();
    this.#boottimeAheadMs = Math.max(this.#boottimeAheadMs, this.#time.boottime() - monotonic);
    return { boot: this.#time.boot, boottimeMs: Math.floor(monotonic + this.#boottimeAheadMs) };
  }

  #present(now: number, wallMs: number): KeptTime {
    const monotonicMs = now - this.#offsetMs;
    const sleptMs = Math.floor(this.#time.boottime() - this.#time.monotonic());
    return {
      boot: this.#time.boot,
      monotonicMs,
      boottimeMs: monotonicMs + sleptMs,
      wallMs,
      elapsedMs: now,
      unretainedMs: this.#unretainedMs,
    };
  }

  /** The wall clock is no longer where the elapsed time says: it was set, or the machine slept. */
  #seeJump(wallMs: number, jumpMs: number): void {
    this.#wallAheadMs += jumpMs;
    if (Math.abs(jumpMs) <= STEP_THRESHOLD_MS) return;
    const sleptMs = this.#time.boottime() - this.#time.monotonic();
    const byMs = Math.round(jumpMs - (sleptMs - this.#sleptMs));
    const step = Math.abs(byMs) > STEP_THRESHOLD_MS ? { steppedAt: wallMs, byMs } : undefined;
    this.#tell({ step, slept: sleptMs - this.#sleptMs > STEP_THRESHOLD_MS });
    this.#sleptMs = sleptMs;
  }

  #tell({ step, slept }: Jump): void {
    this.#lastStep = step ?? this.#lastStep;
    this.#untold = { step: step ?? this.#untold?.step, slept: slept || this.#untold?.slept === true };
  }
}

/** A moment of one boot of the machine, which goes on while the machine sleeps. */
export interface Boottime {
  /** Which boot, or null where the kernel does not say. */
  readonly boot: string | null;
  readonly boottimeMs: number;
}

/** A moment of elapsed time as the wall clock shows it now, in milliseconds since the Unix epoch. */
export function shownAt(at: number, { now, wallMs }: Pick<Reading, "now" | "wallMs">): number {
  return wallMs + (at - now);
}

/**
 * `performance.now` counts from the start of the process, and is quicker than `hrtime`. A process that is held up
 * between the two readings finds too little, and its monotonic clock would be late for its whole life: the best of
 * several counts.
 */
const MONOTONIC_AT_START_MS = Math.max(
  ...Array.from({ length: 5 }, () => Number(process.hrtime.bigint()) / 1e6 - performance.now()),
);

const systemTime: TimeSource = {
  wall: () => Date.now(),
  monotonic: () => performance.now() + MONOTONIC_AT_START_MS,
  boottime: () => uptime() * 1000,
  boot: readBoot(),
};

function readBoot(): string | null {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return null;
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

/** What this process has used of the processor, in milliseconds. */
export function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** The time of day, for people: what is shown and never compared. */
export function wallTime(): number {
  return Date.now();
}

/** What the process has used of the processor, in microseconds, and read from disks (`process.resourceUsage`). */
export type Usage = Pick<NodeJS.ResourceUsage, "userCPUTime" | "systemCPUTime" | "fsRead">;

/** So much of what came before may be taken for a part of a request that takes long. */
const LOOK_EVERY_MS = 1;

/**
 * Tells time in which the daemon worked from time in which other processes had the processor. On a busy machine these
 * have it for longer than a cheap request takes, in the middle of any.
 */
export class ProcessorTime {
  readonly #usage: () => Usage;
  #usedMs: number | undefined;
  #fsRead = 0;
  /** How long those have taken that came since it was looked at last. */
  #passedMs = 0;

  constructor(usage: () => Usage) {
    this.#usage = usage;
  }

  /** Something begins that may have to be looked at. Returns what was used before. */
  begin(): number {
    const { userCPUTime, systemCPUTime, fsRead } = this.#usage();
    this.#fsRead = fsRead;
    this.#usedMs = (userCPUTime + systemCPUTime) / 1000;
    this.#passedMs = 0;
    return this.#usedMs;
  }

  /** Something is over that took too little to be looked at: what it needed is no part of what follows. */
  passed(ms: number): void {
    if (this.#usedMs === undefined) return;
    this.#passedMs += ms;
    if (this.#passedMs >= LOOK_EVERY_MS) this.begin();
  }

  /** Nothing that follows has to be looked at. */
  forget(): void {
    this.#usedMs = undefined;
  }

  /**
   * How much of the last so many milliseconds the daemon needed at most, as far as that is known: what was used since
   * `begin` or the last call, unless the daemon had to wait for a disk.
   */
  needed(ms: number): number {
    const usedBefore = this.#usedMs;
    const readBefore = this.#fsRead;
    if (usedBefore === undefined) return ms;
    const usedMs = this.begin();
    return this.#fsRead === readBefore ? Math.min(ms, usedMs - usedBefore) : ms;
  }
}

import { type Stats, statSync } from "node:fs";

/** Somebody has moved, removed or replaced a file of the database: what is written there is nowhere to be found. */
export class FilesMoved extends Error {}

/**
 * The files of an open database, found by their names. SQLite goes on with files that have lost their names,
 * and gives numbers that others, who find other files there, give too.
 */
export class OwnFiles {
  readonly #files: { readonly path: string; readonly dev: number; readonly ino: number }[] = [];

  /** @param paths of the files as they are now; those that are not there are not looked at. */
  constructor(paths: readonly string[]) {
    for (const path of paths) {
      const found = statOf(path);
      if (found !== undefined) this.#files.push({ path, dev: found.dev, ino: found.ino });
    }
  }

  /** Throws `FilesMoved` when one is not in its place any more. Takes some 2 us a file. */
  check(): void {
    const lost = this.#lost();
    if (lost !== undefined) throw new FilesMoved(`${lost} was moved, removed or replaced`);
  }

  /** True if all are in their places. */
  get areThere(): boolean {
    return this.#lost() === undefined;
  }

  #lost(): string | undefined {
    for (const { path, dev, ino } of this.#files) {
      const found = statOf(path);
      if (found?.ino !== ino || found.dev !== dev) return path;
    }
    return undefined;
  }
}

/** Undefined for what is not there, or where a directory above it is none any more. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

import { type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import { elapsed } from "../clock.js";

/** Somebody has moved, removed or replaced a file of the database: what is written there is nowhere to be found. */
export class FilesMoved extends Error {}

/** A kernel tells changes of a directory apart that are a clock tick from each other; a tick is 10 ms at most. */
const DIRECTORY_SETTLES_MS = 20;

interface Place {
  readonly path: string;
  readonly dev: number;
  readonly ino: number;
}

/**
 * The files of an open database, found by their names. SQLite goes on with files that have lost their names,
 * and gives numbers that others, who find other files there, give too.
 */
export class OwnFiles {
  readonly #files: readonly Place[];
  /** Where all of them are. Each change of a name in it changes its `ctimeMs`. */
  readonly #directory: Place | undefined;
  #ctimeMs = 0;
  /** By the clock of the process, when `#ctimeMs` was first seen. */
  #seenAtMs = 0;

  /** @param paths of the files as they are now, all in one directory; those that are not there are not looked at. */
  constructor(paths: readonly string[]) {
    this.#files = paths.flatMap((path) => placeOf(path) ?? []);
    this.#directory = this.#files[0] && placeOf(dirname(this.#files[0].path));
  }

  /** Throws `FilesMoved` when one is not in its place any more. Takes some 2 us while their directory is as it was. */
  check(): void {
    if (this.#directoryIsAsItWas()) return;
    const lost = this.#lost();
    if (lost !== undefined) throw new FilesMoved(`${lost} was moved, removed or replaced`);
  }

  /** True if all are in their places. */
  get areThere(): boolean {
    return this.#lost() === undefined;
  }

  #directoryIsAsItWas(): boolean {
    if (this.#directory === undefined) return false;
    const found = statOf(this.#directory.path);
    if (found?.ino !== this.#directory.ino || found.dev !== this.#directory.dev) return false;
    const nowMs = elapsed();
    if (found.ctimeMs === this.#ctimeMs) return nowMs - this.#seenAtMs > DIRECTORY_SETTLES_MS;
    this.#ctimeMs = found.ctimeMs;
    this.#seenAtMs = nowMs;
    return false;
  }

  #lost(): string | undefined {
    for (const { path, dev, ino } of this.#files) {
      const found = statOf(path);
      if (found?.ino !== ino || found.dev !== dev) return path;
    }
    return undefined;
  }
}

function placeOf(path: string): Place | undefined {
  const found = statOf(path);
  return found && { path, dev: found.dev, ino: found.ino };
}

/** Undefined for what is not there, or where a directory above it is none any more. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

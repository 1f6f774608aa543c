import { closeSync, fdatasyncSync, fsync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { syncDirectory } from "./new-file.js";

/**
 * Puts a long file of ours in the place of what has its name, without having anybody wait: it is written part by part,
 * and synced once all but the last is there. At any moment there is the whole former one or the whole new one. If it
 * cannot be written, the former one stays.
 */
export class FileInSteps {
  readonly #path: string;
  readonly #partial: string;
  readonly #parts: Iterator<string>;
  readonly #to: Told;
  /** Undefined once it is named, or given up. */
  #file: number | undefined;
  #next: NodeJS.Immediate | undefined;
  #isSyncing = false;

  /** @param parts short ones, each made when its turn comes. */
  constructor(path: string, parts: Iterator<string>, to: Told) {
    this.#path = path;
    this.#partial = partialOf(path);
    this.#parts = parts;
    this.#to = to;
    this.#next = setImmediate(() => this.#attempt(() => this.#begin()));
  }

  /** Leaves the former file as it is. */
  giveUp(): void {
    clearImmediate(this.#next);
    const file = this.#file;
    this.#file = undefined;
    if (file !== undefined && !this.#isSyncing) closeSync(file);
    try {
      removePartial(this.#path);
    } catch {
      // The next one does.
    }
    this.#to.ended();
  }

  #begin(): void {
    removePartial(this.#path);
    this.#file = openSync(this.#partial, "wx", 0o600);
    this.#step(this.#file);
  }

  #step(file: number): void {
    const { done, value } = this.#parts.next();
    if (done) {
      this.#isSyncing = true;
      fsync(file, (error) => this.#synced(file, error));
    } else {
      writeFileSync(file, value);
      this.#next = setImmediate(() => this.#attempt(() => this.#step(file)));
    }
  }

  #synced(file: number, error: Error | null): void {
    this.#isSyncing = false;
    if (this.#file === undefined) closeSync(file);
    else if (error) this.giveUp();
    else this.#attempt(() => this.#end(file));
  }

  #end(file: number): void {
    writeFileSync(file, this.#to.last());
    fdatasyncSync(file);
    renameSync(this.#partial, this.#path);
    syncDirectory(dirname(this.#path));
    this.#file = undefined;
    this.#to.named(file);
    this.#to.ended();
  }

  #attempt(action: () => void): void {
    try {
      action();
    } catch {
      this.giveUp();
    }
  }
}

/** Who is told of a file that is written in steps. */
interface Told {
  /** Called once all parts are on disk: what is written at once behind them, before the file has its name. */
  last(): string;
  /** The file has its name. `file` stays open, to be appended to. */
  named(file: number): void;
  /** It has its name, or was given up. */
  ended(): void;
}

/** Removes what is there of one: a daemon that was killed has left it. */
export function removePartial(path: string): void {
  rmSync(partialOf(path), { force: true });
}

function partialOf(path: string): string {
  return `${path}.new`;
}

import { randomBytes } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  linkSync,
  lstatSync,
  openSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";

/** The errors by which file systems without links refuse one, such as some of other machines. */
const NO_LINKS = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]);

/**
 * Gives a file that is complete its final name. Throws with code `EEXIST` when there is something of that name:
 * it is never replaced. Without links, something that comes at this very moment would be.
 */
export function nameNewFile(partial: string, path: string): void {
  try {
    linkSync(partial, path);
    unlinkSync(partial);
  } catch (error) {
    if (!NO_LINKS.has((error as NodeJS.ErrnoException).code ?? "")) throw error;
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) {
      throw Object.assign(new Error(`EEXIST: file already exists, ${path}`, { cause: error }), {
        code: "EEXIST",
      });
    }
    renameSync(partial, path);
  }
}

/**
 * Puts a file of ours alone in the place of what has its name, a link too: at any moment there is the whole former one
 * or the whole new one. `durable` returns once the new one is on disk, and has that hold over a power loss.
 */
export function replaceFile(path: string, text: string, { durable }: { durable: boolean }): void {
  const partial = `${path}.${randomBytes(8).toString("hex")}`;
  try {
    const file = openSync(partial, "wx", 0o600);
    try {
      writeFileSync(file, text);
      if (durable) fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
  if (durable) syncDirectory(dirname(path));
}

/** Waits until the names in a directory are on disk. */
export function syncDirectory(directory: string): void {
  const file = openSync(directory, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

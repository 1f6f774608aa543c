import { linkSync, lstatSync, renameSync, unlinkSync } from "node:fs";

/** What file systems without links say to one, such as some of other machines. */
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

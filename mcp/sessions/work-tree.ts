import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";

/** Where a directory stands in git. */
export interface WorkTree {
  /** The top of the work tree that it is in; the directory itself outside of git. */
  readonly top: string;
  /**
   * The top of the repository's main work tree, which all its work trees share: reservations count there, so that those
   * of two work trees meet before their changes do. `top` itself but for linked work trees (git-worktree(1)).
   */
  readonly shared: string;
}

/** A path without symbolic links, as far as it exists; what does not exist yet is added as it is. */
export function realPath(path: string): string {
  const whole = resolve(path);
  for (let known = whole; ; known = dirname(known)) {
    try {
      return join(realpathSync(known), relative(known, whole));
    } catch {
      if (dirname(known) === known) return whole;
    }
  }
}

/** The work tree of a directory, which need not exist. No program is run for it: hooks ask before each edit. */
export function workTreeOf(directory: string): WorkTree {
  const here = realPath(directory);
  for (let top = here; ; top = dirname(top)) {
    const git = join(top, ".git");
    if (existsSync(git)) return { top, shared: sharedTop(git) ?? top };
    if (dirname(top) === top) return { top: here, shared: here };
  }
}

/** Of a linked work tree, whose `.git` is a file that names its part of the repository; undefined for all others. */
function sharedTop(git: string): string | undefined {
  try {
    if (statSync(git).isDirectory()) return undefined;
    const own = resolve(
      dirname(git),
      readFileSync(git, "utf8")
        .replace(/^gitdir:/, "")
        .trim(),
    );
    // Only linked work trees have it (gitrepository-layout(5)); submodules do not.
    const main = realPath(resolve(own, readFileSync(join(own, "commondir"), "utf8").trim()));
    return basename(main) === ".git" ? dirname(main) : main;
  } catch {
    return undefined;
  }
}

/** A path relative to a directory, or undefined if it is not below it. */
export function below(directory: string, path: string): string | undefined {
  const found = relative(directory, path);
  return found === ".." || found.startsWith(`..${sep}`) || isAbsolute(found) ? undefined : found;
}

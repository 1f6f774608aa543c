import { basename, dirname, join } from "node:path";
import type { Result } from "@pawl/protocol/types";
import { below, realPath, workTreeOf } from "../sessions/work-tree.js";
import type { DaemonCalls } from "./daemon-call.js";

/** Somebody else who has reserved a file. */
export type PathHolder = Result<"path.check">["holders"][number] & { readonly root: string };

/**
 * The reservations of others that a file fits: those of its work tree, and those of the repository, which count in all
 * its work trees.
 *
 * @param own names whose reservations are one's own.
 */
export async function holdersOf(
  daemon: DaemonCalls,
  file: string,
  own: readonly string[],
): Promise<readonly PathHolder[]> {
  // A link is not followed itself: it is the link that is replaced, or the file behind it, as the editor likes.
  const real = join(realPath(dirname(file)), basename(file));
  const { top, shared } = workTreeOf(dirname(real));
  const path = below(top, real);
  if (path === undefined || path === "") return [];
  const owner = own.length === 1 ? { owner: own[0] as string } : {};
  const roots = [...new Set([top, shared])];
  const answers = await Promise.all(roots.map((root) => daemon.call("path.check", { root, path, ...owner })));
  return answers.flatMap(({ holders }, index) =>
    holders
      .filter((holder) => !own.includes(holder.owner))
      .map((holder) => ({ ...holder, root: roots[index] as string })),
  );
}

/** A holder in words: the name, what it does, by which pattern and since when. */
export async function inWords(daemon: DaemonCalls, holder: PathHolder): Promise<string> {
  const { owner, note, pattern, pid, root } = holder;
  const { reservations } = await daemon.call("path.list", { root, owner });
  const since = reservations.find(({ patterns }) => patterns.includes(pattern))?.acquiredAt;
  const details = [
    note === null || note === "" ? "" : JSON.stringify(note),
    `as ${pattern}`,
    since === undefined ? "" : `since ${new Date(since).toLocaleTimeString("en-GB")}`,
    pid === null ? "" : `process ${pid}`,
  ];
  return `${owner} (${details.filter((part) => part !== "").join(", ")})`;
}

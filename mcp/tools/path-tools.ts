import { statSync } from "node:fs";
import { isAbsolute, join, normalize } from "node:path";
import { z } from "zod";
import { Refusal } from "../refusal.js";
import type { Session } from "../sessions/session.js";
import { below, realPath, type WorkTree, workTreeOf } from "../sessions/work-tree.js";
import { losing } from "./holding.js";
import { reserve, shareWith } from "./path-reserving.js";
import { covers, type Reserved, reservedBy, workFor } from "./path-works.js";
import { ADDS, hint, SETS, tool, waitSeconds } from "./tool.js";

const paths = z.array(z.string().min(1).max(4095)).min(1).max(64);
const root = z.string().max(4095).optional().meta({
  description: "Another directory tree than your repository, absolute.",
});

export const pathsReserve = tool({
  name: "paths_reserve",
  title: "Reserve files before you edit them",
  description:
    "Call this before you create, change or delete files, for all that the task needs at once: nobody else gets them until you call paths_release or end that work. Paths are relative to the top of the repository and count in all its worktrees; edit in your own. You get all or none; call again to add more. A lease_held says who has them, who is told; do another part first, or wait. Never edit what another has reserved. Merging finished work of others is no edit of their paths, unless you resolve conflicts in them.",
  annotations: ADDS,
  input: {
    paths: paths.meta({
      description:
        "Patterns, such as `src/cart/` (all below), `src/*.ts`, `**/package.json`, or files: *, ? and [a-z] within a name, ** for any directories.",
    }),
    mode: z.enum(["write", "read"]).optional().meta({
      description: "`write` (default): for you alone. `read`: they must not change while you read.",
    }),
    for: z.string().min(1).max(256).optional().meta({
      description: "Your work that needs them; default: the latest.",
    }),
    note: z.string().max(500).optional().meta({ description: "What you do there, for whoever is refused." }),
    root,
    waitSeconds: waitSeconds("until all are free"),
  },
  output: { root: z.string(), for: z.string().nullable(), reserved: z.array(z.string()), hint },
  async run({ paths: wanted, mode = "write", note, root: given, for: named, waitSeconds: seconds }, call) {
    const { session } = call;
    const tree = treeOf(session, given);
    const work = workFor(session, named);
    const all = wanted.map((path) => patternOf(path, tree));
    const here = reservedBy(session).filter(({ id }) => id === tree.shared);
    const works = work === undefined ? [] : [work];
    const own = here.find(
      (hold) => hold.mode === mode && hold.works.length === works.length && isFor(hold, work),
    );
    // What the session has already is not taken twice; that of other work is for both then.
    const others = here.filter((hold) => hold !== own && (hold.mode === mode || hold.mode === "write"));
    const isOthers = (path: string): boolean => others.some(({ patterns }) => covers(patterns, path));
    const more = all.filter((path) => !isOthers(path));
    if (more.length > 0) await reserve(call, { tree, mode, works, note, own, all: more }, seconds);
    for (const hold of others.filter((each) => !isFor(each, work)))
      if (all.some((path) => covers(hold.patterns, path))) await shareWith(call, hold, works, note);
    const mine = reservedBy(session).filter((hold) => hold.id === tree.shared && isFor(hold, work));
    return {
      root: tree.shared,
      for: work ?? null,
      reserved: mine.flatMap(({ patterns }) => patterns),
      ...hintOf(mine.filter((hold) => hold.works.length > 1)),
    };
  },
});

/** True of what is reserved for that work; or for none. */
function isFor({ works }: Reserved, work: string | undefined): boolean {
  return work === undefined ? works.length === 0 : works.includes(work);
}

function hintOf(shared: readonly Reserved[]): { hint?: string } {
  if (shared.length === 0) return {};
  const each = shared.map(({ patterns, works }) => `${patterns.join(" ")} until ${works.join(" and ")}`);
  return { hint: `You keep ${each.join(", and ")} have ended.` };
}

export const pathsRelease = tool({
  name: "paths_release",
  title: "Give reserved files back",
  description:
    "Call this as soon as others may change files that you reserved (your changes are committed). Gives back the patterns in `paths`, written as paths_reserve returned them, or all without `paths`. work_finish does it for those of the work that it ends.",
  annotations: SETS,
  input: { paths: paths.optional(), root },
  output: { released: z.array(z.string()), reserved: z.array(z.string()) },
  async run({ paths: wanted, root: given }, call) {
    const { session, link } = call;
    const tree = treeOf(session, given);
    const patterns = wanted?.map((path) => patternOf(path, tree));
    const own = reservedBy(session).filter(
      (hold) => (given === undefined && wanted === undefined) || hold.id === tree.shared,
    );
    const released: string[] = [];
    for (const hold of own) {
      const part = patterns?.filter((pattern) => hold.patterns.includes(pattern));
      if (part?.length === 0) continue;
      const { reservationId } = hold;
      const { patterns: left } = await losing(call, hold, () =>
        link.call("path.release", { reservationId, ...(part === undefined ? {} : { patterns: part }) }),
      );
      released.push(...hold.patterns.filter((pattern) => !left.includes(pattern)));
      if (left.length === 0) session.drop(hold);
      else session.add({ ...hold, patterns: left });
    }
    const reserved = reservedBy(session).flatMap((hold) => hold.patterns);
    const unknown = patterns?.filter((pattern) => !released.includes(pattern)) ?? [];
    if (unknown.length > 0 && released.length === 0) {
      throw new Refusal(
        "not_found",
        `You have not reserved ${unknown.join(", ")}.`,
        { reserved },
        "Name patterns exactly as paths_reserve returned them, or leave `paths` out to give back all.",
      );
    }
    return { released, reserved };
  },
});

function treeOf({ identity }: Session, given: string | undefined): WorkTree {
  if (given !== undefined && !isAbsolute(given)) {
    throw new Refusal("invalid_params", `root must be an absolute directory, not ${JSON.stringify(given)}.`);
  }
  return workTreeOf(given ?? identity.worktree);
}

/** A pattern as the daemon takes it: relative to the root, and with a final / for a directory. */
function patternOf(path: string, { top, shared }: WorkTree): string {
  const real = isAbsolute(path) ? realPath(path) : undefined;
  const relative = real === undefined ? normalize(path) : (below(top, real) ?? below(shared, real));
  if (relative === undefined || relative.startsWith("..")) {
    throw new Refusal(
      "invalid_params",
      `${path} is not below ${top}.`,
      {},
      "Give paths relative to that directory.",
    );
  }
  if (relative === "" || relative === "." || relative === "./") return "**";
  if (relative.endsWith("/") || /[*?[]/.test(relative)) return relative;
  return isDirectory(join(top, relative)) || path.endsWith("/") ? `${relative}/` : relative;
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

import { statSync } from "node:fs";
import { isAbsolute, join, normalize } from "node:path";
import { z } from "zod";
import { Interrupted, kindOf, Refusal } from "../refusal.js";
import { TERMS } from "../sessions/grants.js";
import type { Session } from "../sessions/session.js";
import type { Hold } from "../sessions/state-file.js";
import { below, realPath, type WorkTree, workTreeOf } from "../sessions/work-tree.js";
import { heldPaths } from "./held-paths.js";
import { keep, losing } from "./holding.js";
import { ADDS, SETS, type SessionCall, tool, waitSeconds } from "./tool.js";
import { askedUntilMessage, ending } from "./waiting.js";

const paths = z.array(z.string().min(1).max(4095)).min(1).max(64);
const root = z.string().max(4095).optional().meta({
  description: "Another directory tree than your repository, absolute.",
});

export const pathsReserve = tool({
  name: "paths_reserve",
  title: "Reserve files before you edit them",
  description:
    "Call this before you create, change or delete files, for all that the task needs at once: nobody else gets them until you call paths_release or end your last work. Paths are relative to the top of the repository and count in all its worktrees; edit in your own. You get all or none; call again to add more. Refused with lease_held: it says by whom and what for; do another part first, wait with waitSeconds, or ask the holder. Never edit what another has reserved. Merging finished work of others is no edit of their paths, unless you resolve conflicts in them.",
  annotations: ADDS,
  input: {
    paths: paths.meta({
      description:
        "Patterns, such as `src/cart/` (all below), `src/*.ts`, `**/package.json`, or files: *, ? and [a-z] within a name, ** for any directories.",
    }),
    mode: z.enum(["write", "read"]).optional().meta({
      description: "`write` (default): for you alone. `read`: they must not change while you read.",
    }),
    note: z.string().max(500).optional().meta({ description: "What you do there, for whoever is refused." }),
    root,
    waitSeconds,
  },
  output: { root: z.string(), reserved: z.array(z.string()) },
  async run({ paths: wanted, mode = "write", note, root: given, waitSeconds: seconds }, call) {
    const { session, link } = call;
    const tree = treeOf(session, given);
    const all = wanted.map((path) => patternOf(path, tree));
    // A file that is there, with brackets in its name, is that file.
    const files = all.filter((path) => /[*?[]/.test(path) && exists(join(tree.top, path)));
    const patterns = all.filter((path) => !files.includes(path));
    const own = session.holds.find(
      (hold): hold is Reserved => hold.kind === "paths" && hold.id === tree.shared && hold.mode === mode,
    );
    const request = {
      root: tree.shared,
      owner: session.name,
      // Several agents of one process wait for each other all the same.
      task: session.id,
      mode,
      ...TERMS,
      ...(note === undefined ? {} : { note }),
      ...(own === undefined ? {} : { reservationId: own.reservationId }),
    };
    const both = {
      ...(patterns.length === 0 ? {} : { patterns }),
      ...(files.length === 0 ? {} : { files }),
    };
    const { answer } = await askedUntilMessage(call, seconds, "waiting for the paths", (waitMs, endWait) =>
      link.call("path.reserve", { ...request, ...both, waitMs }, ending(endWait)),
    ).catch(async (error: unknown) => {
      const each = all.map((text) => ({ text, isFile: files.includes(text) }));
      throw await inWords(call, error, own, { request, wanted: each, hasWaited: (seconds ?? 0) > 0 });
    });
    const { reservationId, fencingToken, patterns: reserved } = answer.reservation;
    const hold = {
      kind: "paths",
      id: tree.shared,
      mode,
      reservationId,
      fencingToken,
      patterns: reserved,
    } as const;
    if (own === undefined) await keep(call, hold);
    else await keepMore(call, own, hold);
    return { root: tree.shared, reserved };
  },
});

type Reserved = Extract<Hold, { kind: "paths" }>;

/** A refusal as the agent is told it. One's own reservation may have ended meanwhile. */
async function inWords(
  call: SessionCall,
  error: unknown,
  own: Reserved | undefined,
  asked: Omit<Parameters<typeof heldPaths>[1], "refused">,
): Promise<unknown> {
  const refused = error instanceof Interrupted ? error.refused : error;
  if (own !== undefined && kindOf(refused) === "lease_lost") call.session.lose(own, "ended");
  if (kindOf(refused) !== "lease_held") return error;
  const worded = await heldPaths(call, { ...asked, refused });
  return error instanceof Interrupted ? new Interrupted(worded) : worded;
}

/** Keeps what was added to a reservation; for a caller that has given up meanwhile it is given back. */
async function keepMore(
  { session, link, signal }: SessionCall,
  own: Reserved,
  hold: Reserved,
): Promise<void> {
  const added = hold.patterns.filter((pattern) => !own.patterns.includes(pattern));
  if (signal.aborted && added.length > 0)
    await link.call("path.release", { reservationId: own.reservationId, patterns: added });
  signal.throwIfAborted();
  session.add(hold);
}

export const pathsRelease = tool({
  name: "paths_release",
  title: "Give reserved files back",
  description:
    "Call this as soon as others may change files that you reserved (your changes are committed). Gives back the patterns in `paths`, written as paths_reserve returned them, or all without `paths`. work_finish does it too when it ends your last work.",
  annotations: SETS,
  input: { paths: paths.optional(), root },
  output: { released: z.array(z.string()), reserved: z.array(z.string()) },
  async run({ paths: wanted, root: given }, call) {
    const { session, link } = call;
    const tree = treeOf(session, given);
    const patterns = wanted?.map((path) => patternOf(path, tree));
    const own = session.holds.filter(
      (hold) =>
        hold.kind === "paths" &&
        (given === undefined && wanted === undefined ? true : hold.id === tree.shared),
    );
    const released: string[] = [];
    for (const hold of own) {
      if (hold.kind !== "paths") continue;
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
    const reserved = session.holds.flatMap((hold) => (hold.kind === "paths" ? hold.patterns : []));
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

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

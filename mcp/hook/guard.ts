import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { sessionsDirectory } from "../sessions/runtime-directory.js";
import { DaemonCalls } from "./daemon-call.js";
import type { HookAnswer, HookOptions } from "./hook.js";
import { ownSessions } from "./own-sessions.js";
import { holdersOf, inWords } from "./path-check.js";

const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
/** So many files are asked about at a time. */
const FILES_AT_A_TIME = 200;
/** So many are named; the commit is refused all the same. */
const MAX_NAMED = 20;

/** Whether what is staged in the repository here may be committed: nothing of it is reserved by somebody else. */
export async function guard({ socketPaths, env }: Omit<HookOptions, "input">): Promise<HookAnswer> {
  const [top = "", staged = ""] = await Promise.all([
    git("rev-parse", "--show-toplevel"),
    git("diff", "--cached", "--name-only", "--no-renames", "-z"),
  ]);
  const tree = top.trimEnd();
  const files = staged.split("\0").filter((name) => name !== "");
  const daemon = await DaemonCalls.open(socketPaths);
  if (daemon === undefined) return unchecked("no daemon answers.");
  const refused: string[] = [];
  try {
    const { names } = ownSessions({
      directory: sessionsDirectory(daemon.socketPath, env),
      cwd: tree,
      env,
      parent: process.ppid,
    });
    for (let from = 0; from < files.length; from += FILES_AT_A_TIME) {
      const some = files.slice(from, from + FILES_AT_A_TIME);
      const holders = await Promise.all(some.map((name) => holdersOf(daemon, join(tree, name), names)));
      for (const [index, [first]] of holders.entries()) {
        if (first === undefined) continue;
        const holder = refused.length < MAX_NAMED ? await inWords(daemon, first) : first.owner;
        refused.push(`  ${some[index]} is reserved by ${holder}`);
      }
    }
  } catch (error) {
    // What is known to be reserved stays so.
    if (refused.length === 0) return unchecked(error instanceof Error ? error.message : String(error));
  } finally {
    daemon.close();
  }
  if (refused.length === 0) return { stdout: "", stderr: "", code: 0 };
  const shown = refused.slice(0, MAX_NAMED);
  if (shown.length < refused.length) shown.push(`  and ${refused.length - shown.length} more`);
  const help =
    "Wait until they are given back (pawl paths), or commit without them (git restore --staged FILE).";
  return { stdout: "", stderr: `pawl guard: not committed.\n${shown.join("\n")}\n${help}\n`, code: 1 };
}

/** A daemon that is not there, or does not answer, keeps nobody from committing. */
function unchecked(why: string): HookAnswer {
  return { stdout: "", stderr: `pawl guard: ${why} What is staged was not checked.\n`, code: 0 };
}

async function git(...args: string[]): Promise<string> {
  return (await promisify(execFile)("git", args, { maxBuffer: MAX_OUTPUT_BYTES })).stdout;
}

import { accessSync, constants } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { type Context, command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { PROGRAM, packageOfHooks } from "./packages.js";

const hook = command({
  args: "[action]",
  summary: "Answer a hook of a coding agent, or install them",
  options: {
    project: { type: "flag", describe: "Install for the project here, instead of for the user" },
    "dry-run": { type: "flag", describe: "Show the settings, and write nothing" },
  },
  words: { action: ["install"] },
  details:
    "Without an action it answers a hook as Claude Code documents it: JSON on standard input, JSON on standard output. Before an edit it denies files that another has reserved, naming the holder; at a session's start it tells what is held and unread; on stop it says once what is still claimed; at its end it gives all back. Whose hook it is says PAWL_SESSION, or else the directory: the session of `pawl mcp` in whose work tree it is. Without a daemon it lets the agent go on, and says so once. `install` writes the hooks into ~/.claude/settings.json, or into .claude/settings.json here with --project; what else is there stays. Where there is no pawl on the PATH, they call this program by its path. It is the package @pawl/mcp.",
  examples: [
    ["pawl hook install", "For all projects of the user"],
    ["pawl hook install --project --dry-run", "The settings of the project here, as they would be"],
    ["pawl hook < hook.json", "One answer"],
  ],
  async run({ action, project, "dry-run": dryRun }, { output, stdin, env, socketPaths }) {
    const { installHooks, runHook } = await packageOfHooks();
    if (action === undefined) {
      if (project || dryRun) throw new UsageError("--project and --dry-run belong to pawl hook install.");
      return print(await runHook({ socketPaths: socketPaths(), env, input: await text(stdin) }), output);
    }
    if (action !== "install") throw new UsageError(`${JSON.stringify(action)} is no action; install is one.`);
    const file = project ? resolve(".claude/settings.json") : join(homedir(), ".claude/settings.json");
    const own = commandOf(env);
    const installed = installing(() => installHooks(file, !dryRun, own));
    if (own !== undefined) output.note(`There is no pawl on the PATH: hooks call ${PROGRAM}.`);
    const written = installed.changed && !dryRun;
    output.result({ file, changed: installed.changed, written }, () => {
      if (dryRun) return installed.text.trimEnd();
      return installed.changed ? `The hooks are in ${file} now.` : `The hooks were in ${file} already.`;
    });
    return undefined;
  },
});

/** The command of a hook, which finds this program also where the shell does not; undefined for the usual one. */
function commandOf({ PATH = "" }: Context["env"]): string | undefined {
  if (PATH.split(delimiter).some((directory) => directory !== "" && isProgram(join(directory, "pawl")))) {
    return undefined;
  }
  return `${/^[\w@%+=:,./-]+$/.test(PROGRAM) ? PROGRAM : `'${PROGRAM.replaceAll("'", "'\\''")}'`} hook`;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Settings that cannot be read are the user's to put right; a system error says it all. */
function installing<T>(install: () => T): T {
  try {
    return install();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== undefined) throw error;
    throw new UsageError((error as Error).message);
  }
}

const guard = command({
  args: "",
  summary: "Refuse a git commit of files that another has reserved",
  options: {},
  details:
    "It is made for git's pre-commit hook. It looks at what is staged, and exits with 1 if somebody else has reserved any of it, naming who. Whose commit it is says PAWL_SESSION, or else the work tree, as for `pawl hook`. Without a daemon it says so, and the commit goes on. It is the package @pawl/mcp.",
  examples: [
    [
      "echo 'command -v pawl >/dev/null || exit 0; exec pawl guard' > .git/hooks/pre-commit",
      "In one repository, with chmod +x; without pawl on the PATH nothing is refused",
    ],
    ["pawl guard && git push", "By hand"],
  ],
  async run(_args, { output, env, socketPaths }) {
    const { guard: check } = await packageOfHooks();
    return print(await check({ socketPaths: socketPaths(), env }), output);
  },
});

function print(
  { stdout, stderr, code }: { stdout: string; stderr: string; code: number },
  output: Output,
): number | undefined {
  if (stderr !== "") output.complain(stderr.trimEnd());
  if (stdout !== "") output.write(stdout);
  return code === 0 ? undefined : code;
}

export const commands = { hook, guard };

import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

/** The command of the hooks where `pawl` is on the PATH of the agent's host. */
const COMMAND = "pawl hook";
/** Ours, by whatever path of the program. */
const OURS = /(^|[/' ])pawl(\.js)?'? hook$/;
const TIMEOUT_SECONDS = 10;
/** By event, the tools before which the hook is asked; undefined where the event is about no tool. */
const HOOKS: Readonly<Record<string, string | undefined>> = {
  PreToolUse: "Edit|MultiEdit|Write|NotebookEdit",
  SessionStart: undefined,
  SessionEnd: undefined,
  Stop: undefined,
};

interface Matcher {
  readonly matcher?: string;
  readonly hooks?: readonly { readonly type?: string; readonly command?: string }[];
}

type Settings = Record<string, unknown> & { hooks?: Record<string, Matcher[]> };

export interface Installed {
  readonly text: string;
  /** False if all of it was there. */
  readonly changed: boolean;
}

/**
 * The settings of Claude Code with the hooks in them, beside all that is there. Written, unless it is only to be shown.
 * Throws where the file is no JSON object.
 *
 * @param command the command of the hooks. One by a path of its own that is there already stays.
 */
export function installHooks(file: string, write: boolean, command = COMMAND): Installed {
  const before = readSettings(file);
  const hooks: Record<string, Matcher[]> = { ...before.hooks };
  let changed = false;
  for (const [event, matcher] of Object.entries(HOOKS)) {
    const present = hooks[event] ?? [];
    const own = present.flatMap((each) => each.hooks ?? []).filter((each) => OURS.test(each.command ?? ""));
    const fit = own.some((each) => each.command === command || each.command !== COMMAND);
    if (fit) continue;
    changed = true;
    if (own.length > 0) {
      // It would find no program.
      hooks[event] = present.map((each) => withCommand(each, command));
      continue;
    }
    const hook = { type: "command", command, timeout: TIMEOUT_SECONDS };
    hooks[event] = [...present, { ...(matcher === undefined ? {} : { matcher }), hooks: [hook] }];
  }
  const text = `${JSON.stringify({ ...before, hooks }, null, 2)}\n`;
  if (changed && write) writeWhole(file, text);
  return { text, changed };
}

/** The same with our command in the place of the one that is found on the PATH. */
function withCommand(each: Matcher, command: string): Matcher {
  if (each.hooks === undefined) return each;
  return { ...each, hooks: each.hooks.map((one) => (one.command === COMMAND ? { ...one, command } : one)) };
}

function readSettings(file: string): Settings {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw error;
  }
  const settings: unknown = text.trim() === "" ? {} : parsed(file, text);
  if (typeof settings === "object" && settings !== null && !Array.isArray(settings))
    return settings as Settings;
  throw new Error(`${file} holds no JSON object. Put it right, or move it away.`);
}

function parsed(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${file} is not JSON (${(error as Error).message}). Put it right, or move it away.`);
  }
}

/** A reader sees all of it or what was there before; its mode stays. */
function writeWhole(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  const mode = statSync(file, { throwIfNoEntry: false })?.mode ?? 0o600;
  const fresh = `${file}.${process.pid}`;
  writeFileSync(fresh, text, { mode: mode & 0o777 });
  renameSync(fresh, file);
}

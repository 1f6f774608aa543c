import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

const COMMAND = "pawl hook";
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
 */
export function installHooks(file: string, write: boolean): Installed {
  const before = readSettings(file);
  const hooks: Record<string, Matcher[]> = { ...before.hooks };
  let changed = false;
  for (const [event, matcher] of Object.entries(HOOKS)) {
    const present = hooks[event] ?? [];
    if (present.some((each) => each.hooks?.some(({ command }) => command === COMMAND))) continue;
    const hook = { type: "command", command: COMMAND, timeout: TIMEOUT_SECONDS };
    hooks[event] = [...present, { ...(matcher === undefined ? {} : { matcher }), hooks: [hook] }];
    changed = true;
  }
  const text = `${JSON.stringify({ ...before, hooks }, null, 2)}\n`;
  if (changed && write) writeWhole(file, text);
  return { text, changed };
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

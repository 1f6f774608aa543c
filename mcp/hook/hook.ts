import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { giveBack } from "../sessions/grants.js";
import { isAlive } from "../sessions/process-mark.js";
import { sessionsDirectory } from "../sessions/runtime-directory.js";
import { SESSION_LEASES } from "../sessions/session-name.js";
import { removeState, type SessionState } from "../sessions/state-file.js";
import { DaemonCalls } from "./daemon-call.js";
import { type HookPlace, ownSessions } from "./own-sessions.js";
import { holdersOf, inWords } from "./path-check.js";

export interface HookOptions {
  /** Where the daemon may listen, the likeliest first. */
  readonly socketPaths: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The JSON of the host. */
  readonly input: string;
  /** The process that has started the hook; that of this process, if not given. */
  readonly parent?: number;
}

/** What the hook's process prints, and its exit code. */
export interface HookAnswer {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

/** What a host gives its hooks (code.claude.com/docs/en/hooks), as much as is needed. */
interface HookInput {
  readonly hook_event_name: string;
  readonly session_id?: string;
  readonly cwd?: string;
  readonly tool_input?: { readonly file_path?: unknown; readonly notebook_path?: unknown };
  readonly stop_hook_active?: boolean;
}

const GO_ON: HookAnswer = { stdout: "", stderr: "", code: 0 };
/** A failure that the host shows, and by which it stops nothing. */
const FAILED = 1;

interface Around extends HookPlace {
  readonly daemon: DaemonCalls;
}

/** Answers a host's hook. Whatever fails lets the agent go on. */
export async function runHook({
  socketPaths,
  env,
  input,
  parent = process.ppid,
}: HookOptions): Promise<HookAnswer> {
  let hook: HookInput;
  try {
    hook = JSON.parse(input) as HookInput;
    if (typeof hook.hook_event_name !== "string") throw new Error("it has no hook_event_name");
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return {
      ...GO_ON,
      stderr: `pawl hook: standard input is not the JSON of a hook: ${why}\n`,
      code: FAILED,
    };
  }
  const answer = EVENTS[hook.hook_event_name];
  if (answer === undefined) return GO_ON;
  const daemon = await DaemonCalls.open(socketPaths);
  if (daemon === undefined) return withoutDaemon(hook, socketPaths[0]);
  const around = {
    daemon,
    directory: sessionsDirectory(daemon.socketPath, env),
    cwd: hook.cwd ?? process.cwd(),
    env,
    parent,
  };
  try {
    const output = await answer(hook, around);
    return output === undefined ? GO_ON : { ...GO_ON, stdout: `${JSON.stringify(output)}\n` };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { ...GO_ON, stderr: `pawl hook: ${why} Nothing was checked.\n`, code: FAILED };
  } finally {
    daemon.close();
  }
}

type Answer = (hook: HookInput, around: Around) => Promise<Record<string, unknown> | undefined>;

const EVENTS: Readonly<Record<string, Answer>> = {
  PreToolUse: beforeEdit,
  SessionStart: atStart,
  SessionEnd: atEnd,
  Stop: onStop,
};

/** Denies the edit of a file that somebody else has reserved. */
async function beforeEdit({ tool_input: input = {} }: HookInput, around: Around): ReturnType<Answer> {
  const given = input.file_path ?? input.notebook_path;
  if (typeof given !== "string") return undefined;
  const { daemon, cwd } = around;
  const { names } = ownSessions(around);
  const [first, ...others] = await holdersOf(daemon, resolve(cwd, given), names);
  if (first === undefined) return undefined;
  const more = others.length === 0 ? "" : ` and ${others.length} more`;
  const holder = await inWords(daemon, first);
  // Only agents have an inbox. The edit is denied also where that cannot be known.
  const ask = (await isAgent(daemon, first.owner).catch(() => false))
    ? `, or ask ${first.owner} with message_send`
    : "";
  return {
    hookSpecificOutput: {
      hookEventName: "PreToolUse",
      permissionDecision: "deny",
      permissionDecisionReason: `${given} is reserved by ${holder}${more}. Do not edit it, and do not work around this: do another part first, or wait for it with paths_reserve and waitSeconds${ask}.`,
    },
  };
}

/** True if the owner is the name of an agent's session. */
async function isAgent(daemon: DaemonCalls, name: string): Promise<boolean> {
  return (await daemon.call("lease.get", { name: SESSION_LEASES + name })).lease !== null;
}

/** Tells what is held and unread. */
async function atStart(_hook: HookInput, around: Around): ReturnType<Answer> {
  const { daemon, env } = around;
  const { states } = ownSessions(around);
  const name = env.PAWL_SESSION || states[0]?.name;
  if (name === undefined) return undefined;
  const { queues } = await daemon.call("queue.stats", { queue: `inbox/${name}` });
  const unread = queues[0]?.ready ?? 0;
  const held = states.flatMap(heldBy);
  const said = [
    `Your name among the agents of this machine is ${name}: call session_start of the pawl server with it before anything else.`,
    held.length === 0 ? "You hold nothing." : `You still hold ${held.join(", ")}.`,
    unread === 0 ? "" : `You have ${unread} unread messages: read them with inbox.`,
  ];
  const additionalContext = said.filter((part) => part !== "").join(" ");
  return { hookSpecificOutput: { hookEventName: "SessionStart", additionalContext } };
}

/** Gives back all that the agent's sessions hold, and their names. */
async function atEnd(_hook: HookInput, around: Around): ReturnType<Answer> {
  const { daemon, directory } = around;
  const { states } = ownSessions(around);
  for (const state of states) {
    await Promise.all(state.holds.map((hold) => giveBack(daemon, hold).catch(() => {})));
    await daemon.call("lease.release", { leaseId: state.leaseId });
    removeState(directory, state);
  }
  return undefined;
}

/** Says once what is still claimed. */
async function onStop(hook: HookInput, around: Around): ReturnType<Answer> {
  if (hook.stop_hook_active === true) return undefined;
  const { directory } = around;
  const { states } = ownSessions(around);
  const alive = states.filter(({ process: server }) => isAlive(server));
  const claimed = alive
    .flatMap(({ holds }) => holds)
    .filter(({ kind }) => kind === "item" || kind === "batch")
    .map(({ id }) => id)
    .sort();
  if (claimed.length === 0 || !saidFirst(directory, `stop-${hook.session_id}`, claimed.join(" ")))
    return undefined;
  return {
    decision: "block",
    reason: `You still hold ${claimed.join(", ")}, and nobody else can take it meanwhile. End it with work_finish (done, failed, give_back or handoff, with a note). If you only wait for your user and will go on with it, stop again: you are told this once.`,
  };
}

function heldBy({ holds }: SessionState): string[] {
  return holds.flatMap((hold) => {
    if (hold.kind === "paths") return [`the paths ${hold.patterns.join(" ")}`];
    return hold.kind === "messages" || hold.kind === "notice" ? [] : [`${hold.kind} ${hold.id}`];
  });
}

function withoutDaemon({ session_id: id }: HookInput, socketPath: string): HookAnswer {
  if (!saidFirst(sessionsDirectory(socketPath), `no-daemon-${id}`, "")) return GO_ON;
  const systemMessage = `pawl: no daemon answers on ${socketPath}, so nothing is checked: others may edit the same files. Start one with pawld, or use pawl mcp --spawn.`;
  return { ...GO_ON, stdout: `${JSON.stringify({ systemMessage })}\n` };
}

/** True if that was not said yet. Where it cannot be kept that it was, it stays unsaid: hooks run often. */
function saidFirst(directory: string, name: string, what: string): boolean {
  const file = join(directory, `${name.replace(/[^\w-]/g, "_")}.said`);
  try {
    if (readFileSync(file, "utf8") === what) return false;
  } catch {
    // Nothing was said before.
  }
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    writeFileSync(file, what, { mode: 0o600 });
    return true;
  } catch {
    return false;
  }
}

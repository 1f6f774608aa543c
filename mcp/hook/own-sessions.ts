import { isAlive, parentOf } from "../sessions/process-mark.js";
import { readState, readStates, type SessionState } from "../sessions/state-file.js";
import { below, realPath } from "../sessions/work-tree.js";

/** Where a hook runs, and for whom. */
export interface HookPlace {
  /** Where sessions have their files. */
  readonly directory: string;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The process that has started the hook. */
  readonly parent: number;
}

/** The names under which an agent works, and what is known of them. */
export interface OwnSessions {
  readonly names: readonly string[];
  /**
   * Of these, those that are certainly the agent's: named by it, or with a server that its own host has started. Of a
   * server that has ended nobody knows the host.
   */
  readonly states: readonly SessionState[];
}

/**
 * The sessions of the agent that a hook belongs to: `$PAWL_SESSION`, else those whose work tree holds the directory,
 * the closest one. Where several agents share a work tree, those count whose server has the hook's own host.
 */
export function ownSessions({ directory, cwd, env, parent }: HookPlace): OwnSessions {
  const named = env.PAWL_SESSION;
  if (named) {
    const state = readState(directory, named);
    return { names: [named], states: state === undefined ? [] : [state] };
  }
  const here = realPath(cwd);
  const around = readStates(directory).filter(({ worktree }) => below(worktree, here) !== undefined);
  const closest = Math.max(...around.map(({ worktree }) => worktree.length));
  const there = around.filter(({ worktree }) => worktree.length === closest);
  const ours = ofOwnHost(there, parent);
  const names = (ours.length > 0 ? ours : there).map(({ name }) => name);
  return { names, states: [...ours, ...there.filter((state) => !isAlive(state.process))] };
}

/** Of sessions, those whose server has a parent that is the hook's parent or one of its ancestors. */
function ofOwnHost(states: readonly SessionState[], hookParent: number): readonly SessionState[] {
  const ancestors = new Set<number>();
  for (let pid: number | undefined = hookParent; pid !== undefined && pid > 1; pid = parentOf(pid)) {
    ancestors.add(pid);
  }
  return states.filter((state) => {
    const parent = isAlive(state.process) ? parentOf(state.process.pid) : undefined;
    return parent !== undefined && ancestors.has(parent);
  });
}

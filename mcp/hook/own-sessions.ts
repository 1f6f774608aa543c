import { isAlive, parentOf } from "../sessions/process-mark.js";
import { readState, readStates, type SessionState } from "../sessions/state-file.js";
import { below, realPath } from "../sessions/work-tree.js";

type Environment = Readonly<Record<string, string | undefined>>;

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
export function ownSessions(directory: string, place: string, env: Environment): OwnSessions {
  const named = env.PAWL_SESSION;
  if (named) {
    const state = readState(directory, named);
    return { names: [named], states: state === undefined ? [] : [state] };
  }
  const here = realPath(place);
  const around = readStates(directory).filter(({ worktree }) => below(worktree, here) !== undefined);
  const closest = Math.max(...around.map(({ worktree }) => worktree.length));
  const there = around.filter(({ worktree }) => worktree.length === closest);
  const ours = ofOwnHost(there);
  const names = (ours.length > 0 ? ours : there).map(({ name }) => name);
  return { names, states: [...ours, ...there.filter((state) => !isAlive(state.process))] };
}

/** Of sessions, those whose server has a parent that is one of this process's ancestors. */
function ofOwnHost(states: readonly SessionState[]): readonly SessionState[] {
  const ancestors = new Set<number>();
  for (let pid: number | undefined = process.ppid; pid !== undefined && pid > 1; pid = parentOf(pid)) {
    ancestors.add(pid);
  }
  return states.filter((state) => {
    const parent = isAlive(state.process) ? parentOf(state.process.pid) : undefined;
    return parent !== undefined && ancestors.has(parent);
  });
}

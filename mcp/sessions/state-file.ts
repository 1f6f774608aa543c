import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ProcessMark } from "./process-mark.js";

/** Something that a session holds, with the secret that proves it. */
export type Hold =
  | { readonly kind: "item"; readonly id: string; readonly leaseId: string; readonly fencingToken: number }
  | {
      readonly kind: "batch";
      /** The first batch of the claim, or the only one. */
      readonly id: string;
      readonly queue: string;
      readonly claimId: string;
      readonly leaseToken: string;
      readonly fencingToken: number;
    }
  | {
      readonly kind: "paths";
      /** The root. */
      readonly id: string;
      readonly mode: "write" | "read";
      readonly reservationId: string;
      readonly patterns: readonly string[];
      readonly fencingToken: number;
      /** The ids of the work that it is for; it may have ended. */
      readonly works: readonly string[];
      /** What the agent said of it. */
      readonly note: string | null;
    }
  | { readonly kind: "lock"; readonly id: string; readonly leaseId: string; readonly fencingToken: number }
  /** Messages that were shown, until the agent's next call says that it has seen them; of the queue of its name. */
  | { readonly kind: "messages"; readonly id: string; readonly claimId: string; readonly leaseToken: string }
  /** The same, of one that was for this session alone. */
  | { readonly kind: "notice"; readonly id: string; readonly leaseId: string }
  /** A request of another that is to be answered. */
  | { readonly kind: "request"; readonly id: string; readonly leaseId: string; readonly from: string };

/** A request of a session that has no answer yet. */
export interface OpenRequest {
  readonly id: string;
  /** The name that was asked. */
  readonly to: string;
  readonly text: string;
}

/** A session, as its file has it. */
export interface SessionState {
  readonly version: 1;
  /** The name with a part that no other session of this name ever has. */
  readonly session: string;
  readonly name: string;
  readonly role: string | null;
  /** An absolute directory. */
  readonly worktree: string;
  readonly process: ProcessMark;
  /** Of the lease `session/<name>`, which makes the name this session's. */
  readonly leaseId: string;
  readonly holds: readonly Hold[];
  readonly open: readonly OpenRequest[];
  /** Items that it has done. */
  readonly finished: readonly string[];
}

const ENDING = ".json";

/** The file of a session by its name; undefined without one, or with one that another version wrote. */
export function readState(directory: string, name: string): SessionState | undefined {
  try {
    const state = JSON.parse(readFileSync(join(directory, name + ENDING), "utf8")) as SessionState;
    return state.version === 1 && Array.isArray(state.holds) ? state : undefined;
  } catch {
    return undefined;
  }
}

/** All sessions that have a file. Some of their processes may have ended. */
export function readStates(directory: string): SessionState[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return [];
  }
  return names
    .filter((name) => name.endsWith(ENDING))
    .map((name) => readState(directory, name.slice(0, -ENDING.length)))
    .filter((state) => state !== undefined);
}

/** Keeps a session: it holds secrets, so only the user may read it, from the first instant. */
export function writeState(directory: string, state: SessionState): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, state.name + ENDING);
  const fresh = `${path}.${process.pid}`;
  writeFileSync(fresh, `${JSON.stringify(state)}\n`, { mode: 0o600 });
  renameSync(fresh, path);
}

/** Removes the file of a session, unless a later one of the name has it. */
export function removeState(directory: string, { name, session }: SessionState): void {
  if (readState(directory, name)?.session !== session) return;
  rmSync(join(directory, name + ENDING), { force: true });
}

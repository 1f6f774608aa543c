import type { CommandState } from "@pawl/protocol";
import { endOf } from "../../grants/grant.js";

/**
 * The state table of commands (spec: command.md, States).
 *
 *     PENDING_UPLOAD ──► PENDING ──► DISPATCHED ──► SUCCEEDED
 *                           ▲            │
 *                           └────────────┘  released, or its delivery ended unanswered
 *
 * From PENDING also to SUCCEEDED, by a late answer.
 *
 * From all of the first three also to FAILED (cancelled, answered with an error, attempts exhausted) and to
 * EXPIRED (past the deadline). From the last three, to nowhere.
 */
const NEXT: Readonly<Record<CommandState, readonly CommandState[]>> = {
  PENDING_UPLOAD: ["PENDING", "EXPIRED", "FAILED"],
  PENDING: ["DISPATCHED", "EXPIRED", "FAILED", "SUCCEEDED"],
  DISPATCHED: ["PENDING", "SUCCEEDED", "FAILED", "EXPIRED"],
  SUCCEEDED: [],
  FAILED: [],
  EXPIRED: [],
};

/** The kind of a transition: `same` is accepted and changes nothing, `forbidden` is refused (invalid_state). */
export function transition(from: CommandState, to: CommandState): "change" | "same" | "forbidden" {
  if (from === to) return "same";
  return NEXT[from].includes(to) ? "change" : "forbidden";
}

/** True if a command in this state stays in it for ever. */
export function isFinal(state: CommandState): boolean {
  return NEXT[state].length === 0;
}

/** The columns that time decides by, in milliseconds. All but the deadline is elapsed time. */
export interface Timed {
  readonly state: CommandState;
  readonly attempt: number;
  readonly maxAttempts: number;
  /** When it becomes EXPIRED, while it is not final, by the wall clock: a time that was named. */
  readonly deadline: number | null;
  /** When it becomes EXPIRED, while it is not final, because of a time that was given from its creation on. */
  readonly dueAt: number | null;
  /** When its delivery ends unanswered, while it is DISPATCHED; null for one that ends with its connection. */
  readonly leaseExpiresAt: number | null;
  /** While its receiver may come back after a restart: until when. */
  readonly graceEndsAt: number | null;
  /** When its delivery ends unanswered at the latest, while it is DISPATCHED; null for no such time. */
  readonly executionEndsAt: number | null;
}

/** Where a command is after a delivery without an answer. */
export interface Returned {
  readonly state: "PENDING" | "FAILED";
  readonly attempt: number;
}

/** A delivery ended without an answer: there is another, unless that was the last (ATTEMPTS_EXHAUSTED). */
export function returned(command: Pick<Timed, "attempt" | "maxAttempts">): Returned {
  const { attempt, maxAttempts } = command;
  return maxAttempts > 0 && attempt >= maxAttempts
    ? { state: "FAILED", attempt }
    : { state: "PENDING", attempt: attempt + 1 };
}

/**
 * Where a stored command is now. What time has changed is written, but in bounded steps, so a command may be met before
 * its turn. A delivery that ended before the command was due counts as an attempt; at the same moment the deadline is
 * first.
 */
export function stateAt(
  command: Timed,
  { now, wallMs }: { readonly now: number; readonly wallMs: number },
): { state: CommandState; attempt: number } {
  const { state, attempt, deadline, dueAt } = command;
  if (isFinal(state)) return { state, attempt };
  const isDue = (dueAt !== null && dueAt <= now) || (deadline !== null && deadline <= wallMs);
  if (isDue) {
    const lost = lostBefore(command, { now, wallMs });
    return lost?.state === "FAILED" ? lost : { state: "EXPIRED", attempt: lost?.attempt ?? attempt };
  }
  const end = deliveryEndOf(command);
  if (state === "DISPATCHED" && end !== null && end <= now) return returned(command);
  return { state, attempt };
}

/** Where a command that is due now was left by a delivery that had ended before; undefined if none had. */
export function lostBefore(
  command: Timed,
  { now, wallMs }: { readonly now: number; readonly wallMs: number },
): Returned | undefined {
  const end = deliveryEndOf(command);
  if (command.state !== "DISPATCHED" || end === null) return undefined;
  const { deadline, dueAt } = command;
  const overAt = deadline === null ? Number.POSITIVE_INFINITY : now - (wallMs - deadline);
  return end < Math.min(overAt, dueAt ?? Number.POSITIVE_INFINITY) ? returned(command) : undefined;
}

/** When a delivery ends unless it is renewed; null for one that ends with its connection alone. */
export function deliveryEndOf(
  command: Pick<Timed, "leaseExpiresAt" | "graceEndsAt" | "executionEndsAt">,
): number | null {
  return endOf(endOf(command.leaseExpiresAt, command.graceEndsAt), command.executionEndsAt);
}

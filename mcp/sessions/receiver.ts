import type { Link } from "../link.js";
import { kindOf } from "../refusal.js";
import { GRACE_MS, TTL_MS } from "./grants.js";
import type { SessionState } from "./state-file.js";

/** Whom commands for agents are sent to is a deployment below this. */
export const RECEIVERS = "agent/";
/** Nothing is sent to this target. */
const NOBODY = "nobody";

/** How a session takes commands: those that are for it alone, and those for whoever has its name. */
export function receiver({ name, session }: Pick<SessionState, "name" | "session">) {
  return {
    deployment: RECEIVERS + name,
    owner: name,
    incarnation: session,
    leaseMs: TTL_MS,
    releaseOn: "disconnect",
    graceMs: GRACE_MS,
  } as const;
}

/** Tells the daemon that a session receives over this connection: from now on it knows when the session has ended. */
export async function announce(link: Link, session: Pick<SessionState, "name" | "session">): Promise<void> {
  try {
    await link.call("command.lease", { ...receiver(session), targets: [NOBODY], max: 1, waitMs: 0 });
  } catch (error) {
    // It counts as ended, after too long without a connection. What is for its name comes to it all the same.
    if (kindOf(error) !== "invalid_state") throw error;
  }
}

import { z } from "zod";
import { shownHolds } from "../sessions/session.js";
import { workTreeOf } from "../sessions/work-tree.js";
import { SETS, startingTool } from "./tool.js";

export const agentName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, "must be 1 to 64 letters, digits, `.`, `_` or `-`");

const held = z.looseObject({ kind: z.string(), id: z.string() });

export const sessionStart = startingTool({
  name: "session_start",
  title: "Join the other agents",
  description:
    "Call this first, once, before any other tool of this server. Several agents work on this machine at the same time; this server keeps them from doing the same work twice and from overwriting each other's files. Returns `session`: pass it to every other call. `held` is what you already hold, if you were here a moment ago (after a restart, say): go on with it. You never have to renew anything; what you hold is given back when your process ends. Call it again with the same name whenever you are not sure of your session. Refused with lease_held if another agent has the name: choose another one.",
  annotations: SETS,
  input: {
    name: agentName.meta({
      description:
        "Your name among the agents, such as `cart-1`; if the environment variable PAWL_SESSION is set, its value.",
    }),
    role: z
      .string()
      .max(200)
      .optional()
      .meta({ description: "What you are here for, in a few words, for others." }),
    worktree: z
      .string()
      .max(4095)
      .optional()
      .meta({ description: "The absolute directory that you work in; the server's own if not given." }),
  },
  output: {
    session: z.string(),
    resumed: z.boolean(),
    root: z.string().meta({ description: "Paths are reserved relative to this directory." }),
    held: z.array(held),
  },
  async run({ name, role, worktree }, { sessions, signal, waiting }) {
    const { top, shared } = workTreeOf(worktree ?? process.cwd());
    const started = await waiting("waiting for the name", () =>
      sessions.start({ name, role: role ?? null, worktree: top }, { signal }),
    );
    const { session, how, lost } = started;
    session.tell(lost);
    return {
      result: {
        session: session.id,
        resumed: how === "resumed",
        root: shared,
        held: shownHolds(session.holds),
      },
      session,
    };
  },
});

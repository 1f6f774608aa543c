import { z } from "zod";
import { type Session, type ShownHold, shownHolds } from "../sessions/session.js";
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
    "Call this first, once. Several agents work on this machine at the same time; this server keeps them from doing the same work twice and from overwriting each other's files. Pass the `session` that it returns to every other call; call it again with the same name and worktree when you are not sure of it. `held` is what you hold already (after a restart, say): go on with it. You never renew anything; what you hold is kept for 30 s after this server ends. Refused with lease_held if another has the name: choose another. Every result ends with `unread` (messages that wait: read inbox) and `lost` (what you held and hold no more: stop working on it).",
  annotations: SETS,
  input: {
    name: agentName.meta({
      description: "Your name, such as `cart-1`; if the environment variable PAWL_SESSION is set, its value.",
    }),
    role: z.string().max(200).optional().meta({ description: "What you are here for, for others." }),
    worktree: z
      .string()
      .max(4095)
      .optional()
      .meta({ description: "The absolute directory that you work in; the server's own if not given." }),
  },
  output: {
    session: z.string(),
    resumed: z.boolean(),
    root: z.string().meta({
      description:
        "The repository, as reservations of all its worktrees name it. Edit in your own worktree, not there.",
    }),
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
        held: await Promise.all(shownHolds(session.holds).map((hold) => titled(session, hold))),
      },
      session,
    };
  },
});

/** What is held, of an item with its title. */
async function titled({ link }: Session, hold: ShownHold): Promise<z.input<typeof held>> {
  if (hold.kind !== "item") return { ...hold };
  // The session is begun by now, whatever else fails.
  const found = await link.call("pipeline.read", { storyId: hold.id }).catch(() => undefined);
  return { ...hold, title: found?.item?.name ?? null };
}

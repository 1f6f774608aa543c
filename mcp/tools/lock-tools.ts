import { z } from "zod";
import { kindOf, Refusal } from "../refusal.js";
import { TERMS } from "../sessions/grants.js";
import { SESSION_LEASES } from "../sessions/session-name.js";
import { noteOf } from "../sessions/sessions.js";
import { keep, losing } from "./holding.js";
import { ADDS, DESTROYS, READS, SETS, tool, waitSeconds } from "./tool.js";
import { askedUntilMessage, ending } from "./waiting.js";
import { heldLease, tellHolders } from "./wanting.js";

const name = z.string().min(1).max(160);
/** Names that other tools hold, by which a lock would be taken for what it is not. */
const RESERVED = /^(item|session|session-start)\//;

export const lock = tool({
  name: "lock",
  title: "Have something that is no file for yourself",
  description:
    "Use this for what only one may use at a time and that is no file of the repository: a port, a device, a test database, a deployment. Returns a `fencingToken`, which is higher than that of every earlier holder. Refused with lease_held if another has it: wait with waitSeconds, or do something else. Give it back with unlock as soon as you can.",
  annotations: ADDS,
  input: {
    name: name.meta({
      description: "What it is, such as port/8080 or db/test; all have to use the same name.",
    }),
    note: z.string().max(500).optional().meta({ description: "What for; others see it." }),
    waitSeconds: waitSeconds("until it is free"),
  },
  output: { name: z.string(), fencingToken: z.int() },
  async run({ name: wanted, note, waitSeconds: seconds }, call) {
    const { link, session } = call;
    if (RESERVED.test(wanted))
      throw new Refusal("invalid_params", `${wanted} is kept for sessions and items.`);
    const own = session.find("lock", wanted);
    if (own !== undefined) return { name: wanted, fencingToken: own.fencingToken };
    const request = {
      name: wanted,
      owner: session.name,
      task: session.id,
      ...TERMS,
      ...(note === undefined ? {} : { note }),
    };
    const tellHolder = async (waits: boolean): Promise<void> => {
      const words = { words: `${wanted}, which you have by lock`, how: "unlock it when you do not need it." };
      await tellHolders(call, await heldLease(call, wanted, words), waits);
    };
    const { answer } = await askedUntilMessage(
      call,
      seconds,
      `waiting for ${wanted}`,
      (waitMs, endWait) => link.call("lease.acquire", { ...request, waitMs }, ending(endWait)),
      { whenWaiting: () => tellHolder(true) },
    ).catch(async (error: unknown) => {
      if (kindOf(error) === "lease_held") await tellHolder(false);
      throw error;
    });
    const { leaseId, fencingToken } = answer.lease;
    await keep(call, { kind: "lock", id: wanted, leaseId, fencingToken });
    return { name: wanted, fencingToken };
  },
});

export const unlock = tool({
  name: "unlock",
  title: "Give a lock back",
  description: "Use this for what you have by lock, as soon as you do not need it any more.",
  annotations: SETS,
  input: { name },
  output: { name: z.string() },
  async run({ name: wanted }, call) {
    const own = call.session.find("lock", wanted);
    if (own === undefined) throw new Refusal("not_found", `You do not hold ${wanted}.`);
    await losing(call, own, () => call.link.call("lease.release", { leaseId: own.leaseId }));
    call.session.drop(own);
    return { name: wanted };
  },
});

export const who = tool({
  name: "who",
  title: "See who is here and holds what",
  description:
    "Use this to find the agent to ask, or to see why something is refused. Returns the agents that are here, with the work, locks and paths of each.",
  annotations: READS,
  input: {},
  output: { agents: z.array(z.looseObject({ name: z.string() })) },
  async run(_args, { link }) {
    const [{ leases }, { reservations }] = await Promise.all([
      link.call("lease.list", { limit: 1000 }),
      link.call("path.list", { limit: 1000 }),
    ]);
    const agents = leases
      .filter((lease) => lease.name.startsWith(SESSION_LEASES))
      .map((lease) => {
        const { session, role, worktree, pid } = noteOf(lease.note) ?? { pid: lease.pid };
        const mine = leases.filter((each) => each.owner === lease.owner && !each.name.startsWith("session"));
        const paths = reservations.filter(({ owner }) => owner === lease.owner);
        return {
          name: lease.owner,
          session,
          role: role ?? null,
          worktree,
          pid,
          since: new Date(lease.acquiredAt).toISOString(),
          work: mine
            .filter((each) => each.name.startsWith("item/"))
            .map((each) => each.name.slice("item/".length)),
          locks: mine.filter((each) => !each.name.startsWith("item/")).map((each) => each.name),
          paths: paths.flatMap(({ patterns, note }) => patterns.map((pattern) => ({ pattern, note }))),
        };
      });
    return { agents };
  },
});

export const forceRelease = tool({
  name: "force_release",
  title: "Take away what another holds",
  description:
    "Only if your user told you to, or the holder certainly hangs and does not answer message_send: ends another agent's hold of an item, or of a lock. That agent is told that it lost it; work that was not committed is lost. What it writes afterwards is refused. Never use it to get on faster.",
  annotations: DESTROYS,
  input: {
    kind: z
      .enum(["item", "lock", "agent"])
      .meta({ description: "`agent`: the name of a session that hangs." }),
    id: name.meta({ description: "The id of the item, or the name of the lock or agent." }),
    reason: z.string().min(1).max(500).meta({ description: "Why; the holder is told, and it is logged." }),
  },
  output: { released: z.boolean() },
  async run({ kind, id, reason }, { link, session }) {
    const lease = kind === "item" ? `item/${id}` : kind === "agent" ? SESSION_LEASES + id : id;
    const words = `${session.name}: ${reason}`;
    const { broken } = await link.call("lease.break", { name: lease, reason: words });
    if (!broken) throw new Refusal("not_found", `Nobody holds ${kind} ${id}.`);
    return { released: true };
  },
});

// Whoever holds what another wants is told of it, once.
import { SESSION_LEASES } from "../sessions/session-name.js";
import { noticeCall } from "./message-tools.js";
import type { SessionCall } from "./tool.js";

/** Something that another holds and this session wants. */
export interface HeldByOther {
  readonly owner: string;
  /** Tells this hold from later ones of the same. */
  readonly key: string;
  /** What it wants: the end of the sentence that begins with its name. */
  readonly words: string;
  /** How the holder gives it up. */
  readonly how: string;
}

/** Tells the agents that hold something, each of them once of each hold. Never rejects: it is a help alone. */
export async function tellHolders(
  call: SessionCall,
  wanted: readonly HeldByOther[],
  waits: boolean,
): Promise<void> {
  const { session, link } = call;
  const told = wanted.filter(({ owner, key }) => owner !== session.name && session.tellsFirst(key));
  const verb = waits ? "waits for" : "wants";
  await Promise.all(
    told.map(async ({ owner, words, how }) => {
      const text = `${session.name} ${verb} ${words}. ${how} This needs no answer.`;
      await link.call("queue.enqueue", noticeCall(owner, text).params);
    }),
  ).catch(() => {});
}

/** A lease that is wanted, if one holds it who reads messages. */
export async function heldLease(
  { link }: SessionCall,
  name: string,
  { words, how }: Pick<HeldByOther, "words" | "how">,
): Promise<HeldByOther[]> {
  const { lease } = await link.call("lease.get", { name });
  if (lease === null) return [];
  const { lease: reader } = await link.call("lease.get", { name: SESSION_LEASES + lease.owner });
  if (reader === null) return [];
  return [{ owner: lease.owner, key: `${name} ${lease.fencingToken}`, words, how }];
}

// Logs of which one node was given cuts, and not yet all that replaced what they stand for: a sync with any node that
// has all of it brings them to an end.
import type { PawlClient } from "../connect.js";
import { type LogPosition, logOf } from "./logs.js";
import { type OpenLog, sharedOf } from "./peer-answers.js";

/** What giver and receiver say of logs of which changes were taken away. */
export interface BetweenCuts {
  /** Whether both know cuts. */
  readonly areKnown: boolean;
  /** The logs that are open at the receiver. */
  readonly open: readonly OpenLog[];
  /** The logs that are open at the giver. */
  readonly openThere: readonly OpenLog[];
}

/** The open logs of the receiver that the giver can end: it has what was taken away, or what replaced it. */
export async function askedAgain(
  giver: PawlClient,
  { areKnown, open, openThere }: BetweenCuts,
): Promise<OpenLog[]> {
  const there = new Set(openThere.map(logOf));
  const asked = areKnown ? open.filter((each) => !there.has(logOf(each))) : [];
  if (asked.length === 0) return [];
  const ends = asked.map(({ author, incarnation, cut }) => ({ author, incarnation, ...cut }));
  const shared = await sharedOf(giver, ends);
  return asked.filter(({ cut }) => shared.has(cut.hash));
}

/**
 * Of the logs that are open now, those of which the receiver has been given all that the giver has. Another giver may
 * have opened one meanwhile, which this one has not been asked for.
 *
 * @param again the logs that were given again.
 * @param cuts where the cuts stand that the receiver was given.
 */
export function closedBy(
  open: readonly OpenLog[],
  again: readonly OpenLog[],
  cuts: readonly LogPosition[],
  openThere: readonly OpenLog[],
): OpenLog[] {
  const there = new Set(openThere.map(logOf));
  return open.filter((each) => {
    const log = logOf(each);
    const ofLog = cuts.filter((cut) => logOf(cut) === log);
    const asked = again.filter((other) => logOf(other) === log);
    const begins = (prev: string | null) => prev === (each.after?.hash ?? null);
    const ends = (hash: string) => hash === each.cut.hash;
    return (
      !there.has(log) &&
      (ofLog.some(({ prev }) => begins(prev)) || asked.some(({ after }) => begins(after?.hash ?? null))) &&
      (ofLog.some(({ hash }) => ends(hash)) || asked.some(({ cut }) => ends(cut.hash)))
    );
  });
}

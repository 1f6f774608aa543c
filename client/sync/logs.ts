// The places of nodes in the logs of a board, reckoned from the heads that they tell.
import { createHash } from "node:crypto";
import { type Change, type Head, type Heads, isHead, isHex } from "./peer-answers.js";

/** True if a node with `known` lacks nothing of these. */
export function includes(known: Heads, given: Heads): boolean {
  const hashes = new Set(known.map(({ hash }) => hash));
  return given.every(({ hash }) => hashes.has(hash));
}

/** How many changes a node with `known` lacks, exactly if no log is forked. */
export function lackingOf(given: Heads, known: Heads): number {
  const places = new Map<string, number>();
  for (const head of known) {
    places.set(logOf(head), Math.max(head.seq, places.get(logOf(head)) ?? 0));
  }
  const lacks = given.map((head) => Math.max(0, head.seq - (places.get(logOf(head)) ?? 0)));
  return lacks.reduce((sum, each) => sum + each, 0);
}

/** A change's place in its log; that of the last of those that a cut stands for. */
export interface LogPosition extends Head {
  readonly prev: string | null;
  /** Whether it is that of a cut. */
  readonly isCut: boolean;
}

/** The position that a change says it has; undefined if it does not say so, and then it is no change. */
export function positionOf({ body }: Change): LogPosition | undefined {
  try {
    const { author, incarnation, prev, cut, ...rest } = JSON.parse(body) as LogPosition & {
      cut?: LogPosition;
    };
    const position = {
      author,
      incarnation,
      seq: (cut ?? rest).seq,
      prev,
      hash: cut === undefined ? createHash("sha256").update(body).digest("hex") : cut.hash,
      isCut: cut !== undefined,
    };
    return isHead(position) && (prev === null || isHex(prev, 64)) ? position : undefined;
  } catch {
    return undefined;
  }
}

/** The heads of one who has these and also the changes, which are in the order of their logs. */
export function advance(heads: Heads, positions: readonly (LogPosition | undefined)[]): Heads {
  const tips = new Map(heads.map((head) => [head.hash, head]));
  for (const position of positions) {
    if (position === undefined) continue;
    const { prev, isCut: _, ...head } = position;
    if (prev !== null) tips.delete(prev);
    tips.set(head.hash, head);
  }
  return [...tips.values()];
}

export function logOf({
  author,
  incarnation,
}: {
  author: string | null;
  incarnation: string | null;
}): string {
  return `${author} ${incarnation}`;
}

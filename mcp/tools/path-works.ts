// What reserved paths are for: the work of the session, and how their note tells others of it.
import { Refusal } from "../refusal.js";
import { TTL_MS } from "../sessions/grants.js";
import type { Session } from "../sessions/session.js";
import type { Hold } from "../sessions/state-file.js";
import type { SessionCall } from "./tool.js";

export type Reserved = Extract<Hold, { kind: "paths" }>;

/** The longest note that the daemon takes. */
const MAX_NOTE_LENGTH = 1024;
/** How the note of a reservation begins that is for work: items, and jobs with a colon in their ids. */
const FOR = /^for ([\w.-]+(?::\w+)?(?:, [\w.-]+(?::\w+)?)*)(?:: (.*))?$/s;

/** The note of a reservation, as others read it. */
export function noteText({ works, note }: Pick<Reserved, "works" | "note">): string {
  const words = note ?? "";
  if (works.length === 0) return words;
  return `for ${works.join(", ")}${words === "" ? "" : `: ${words}`}`.slice(0, MAX_NOTE_LENGTH);
}

/** What an agent's note says. */
export function readNote(text: string): { works: readonly string[]; note?: string } {
  const [, works, note] = FOR.exec(text) ?? [];
  if (works === undefined) return { works: [], note: text };
  return { works: works.split(", "), ...(note === undefined ? {} : { note }) };
}

/** What a session has reserved. */
export function reservedBy({ holds }: Session): readonly Reserved[] {
  return holds.filter((hold) => hold.kind === "paths");
}

/** The work that it holds, the latest last. */
export function worksOf({ holds }: Session): readonly string[] {
  return holds.filter(({ kind }) => kind === "item" || kind === "batch").map(({ id }) => id);
}

/** The work that paths are asked for: the named one, or the one that was taken last; undefined if none is held. */
export function workFor(session: Session, named: string | undefined): string | undefined {
  const works = worksOf(session);
  if (named === undefined || works.includes(named)) return named ?? works.at(-1);
  throw new Refusal(
    "invalid_params",
    `You do not hold ${named}.`,
    { held: works },
    "Take it first, or leave `for` out.",
  );
}

/** True if a pattern is among those, or lies below one of them. */
export function covers(patterns: readonly string[], pattern: string): boolean {
  return patterns.some(
    (each) => each === pattern || each === "**" || (each.endsWith("/") && pattern.startsWith(each)),
  );
}

/** Says anew what a reservation is for. */
export async function nameWorks(
  { session, link }: SessionCall,
  hold: Reserved,
  named: Pick<Reserved, "works" | "note">,
): Promise<void> {
  const { reservationId } = hold;
  await link.call("path.heartbeat", { reservationId, ttlMs: TTL_MS, note: noteText(named) });
  // It may have been given back meanwhile.
  const current = reservedBy(session).find((each) => each.reservationId === reservationId);
  if (current !== undefined) session.add({ ...current, ...named });
}

/** Paths with what they are for. */
export type ShownPaths = { paths: string[]; for: string | null };

export function shownPaths({ patterns, works }: Reserved): ShownPaths {
  return { paths: [...patterns], for: works.length === 0 ? null : works.join(", ") };
}

/** The same in words. */
export function inWords(hold: Reserved): string {
  const { paths, for: work } = shownPaths(hold);
  return `${paths.join(" ")} (for ${work ?? "no work"})`;
}

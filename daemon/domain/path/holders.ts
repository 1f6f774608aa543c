// The holders that stand in the way of patterns: found by their literal beginnings, and compared by what both fit.
import { type PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_COMPARED_PLACES } from "@pawl/protocol/limits";
import { all, type Operation, one, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { keptPattern, meet, type Pattern, type Work } from "./pattern.js";
import { conflict, type Mode, type ReservationRow, TAKEN } from "./row.js";

/** The last of the beginnings up to a text, by which the ones are found that begin the text. */
const selectBeginning = sql<{ beginning: string }>(`
  SELECT beginning FROM pawl_path_pattern WHERE root_id = :rootId AND beginning <= :upTo
  ORDER BY beginning DESC LIMIT 1`);

const selectPatterns = sql<FoundRow>(`
  SELECT p.beginning, p.number, p.position, p.pattern, r.mode FROM pawl_path_pattern p CROSS JOIN pawl_path_reservation r
  WHERE p.root_id = :rootId AND (p.beginning, p.number, p.position) > (:beginning, :number, :position)
    AND p.beginning < :behind AND r.number = p.number AND ${TAKEN}
  ORDER BY p.beginning, p.number, p.position LIMIT :rows`);

interface FoundRow {
  beginning: string;
  number: number;
  position: number;
  pattern: string;
  mode: Mode;
}

const selectReservation = sql<ReservationRow>("SELECT * FROM pawl_path_reservation WHERE number = :number");

/** Patterns that are read at a time. */
const ROWS_PER_READ = 100;
/** Reading and parsing one pattern takes as long as comparing so many places. */
const PLACES_PER_ROW = 100;
/** Less than any character of a path: there is no NUL. */
const FIRST_CHARACTER = "\u0001";
const LAST_CHARACTER = "\u{10ffff}";

/** A reservation that stands in the way, and the first of its patterns that does. */
export interface Holder {
  readonly row: ReservationRow;
  readonly pattern: string;
}

export interface Wanted {
  readonly rootId: number;
  readonly patterns: readonly Pattern[];
  readonly mode: Mode;
  /** True of reservations that are the caller's own. */
  readonly isOwn: (row: ReservationRow) => boolean;
}

/** The budget of one call, or of all calls of a `transact`: some 5 ms at most. */
export function workOf({ places }: Env): Work {
  return places ?? { left: MAX_COMPARED_PLACES };
}

/**
 * The reservations that conflict with what is wanted, the earliest first. When the work is used up, the answer is a
 * refusal.
 *
 * @param most when so many are found, others are not looked for.
 */
export function* findHolders(
  { rootId, patterns, mode, isOwn }: Wanted,
  most: number,
  work: Work,
  env: Env,
): Operation<Holder[] | PawlError> {
  const found = new Map<number, Holder>();
  const own = new Set<number>();
  for (const wanted of patterns) {
    for (const { beginning, behind } of yield* placesOf(rootId, wanted, work)) {
      let after = { beginning, number: -1, position: -1 };
      for (let isMore = work.left >= 0; isMore; ) {
        const rows = yield* all(selectPatterns, {
          rootId,
          behind,
          ...after,
          now: env.now,
          rows: ROWS_PER_READ,
        });
        for (const { number, pattern, mode: held } of rows) {
          if (found.size >= most) return inOrder(found);
          work.left -= PLACES_PER_ROW;
          if (found.has(number) || own.has(number) || !conflict(mode, held)) continue;
          if (meet(wanted, keptPattern(pattern), work)) {
            // Most that are compared do not meet: the rest of a reservation is read of those alone that do.
            const row = (yield* one(selectReservation, { number })) as ReservationRow;
            if (isOwn(row)) own.add(number);
            else found.set(number, { row, pattern });
          }
          if (work.left < 0) return tooMuch(env);
        }
        isMore = rows.length === ROWS_PER_READ;
        after = rows.at(-1) ?? after;
      }
    }
  }
  return work.left < 0 ? tooMuch(env) : inOrder(found);
}

function inOrder(found: ReadonlyMap<number, Holder>): Holder[] {
  return [...found.values()].sort((one, other) => one.row.number - other.row.number);
}

/** Where in the order of beginnings the patterns are that a pattern may meet: from one beginning to before another. */
function* placesOf(
  rootId: number,
  { beginning, isLiteral }: Pattern,
  work: Work,
): Operation<{ beginning: string; behind: string }[]> {
  const places = isLiteral ? [] : [{ beginning, behind: behind(beginning) }];
  // Beginnings that begin this one: those with which it goes on, and shorter and shorter ones.
  let upTo: string | undefined = isLiteral ? beginning : shorter(beginning);
  while (upTo !== undefined && work.left >= 0) {
    work.left -= PLACES_PER_ROW;
    const last: string | undefined = (yield* one(selectBeginning, { rootId, upTo }))?.beginning;
    if (last === undefined) break;
    if (upTo.startsWith(last)) {
      places.push({ beginning: last, behind: last + FIRST_CHARACTER });
      upTo = shorter(last);
    } else upTo = common(upTo, last);
  }
  return places;
}

/** Without the last character; undefined of the empty text. */
function shorter(text: string): string | undefined {
  return text === "" ? undefined : Array.from(text).slice(0, -1).join("");
}

/** The beginning that two texts have in common, in whole characters. */
function common(one: string, other: string): string {
  let length = 0;
  for (const character of one) {
    if (!other.startsWith(character, length)) break;
    length += character.length;
  }
  return one.slice(0, length);
}

/** The least text that is greater than all that begin with another, in the order of code points. */
function behind(beginning: string): string {
  const characters = Array.from(beginning);
  while (characters.at(-1) === LAST_CHARACTER) characters.pop();
  const last = characters.pop();
  // Greater than every beginning, since none is as long.
  if (last === undefined) return LAST_CHARACTER.repeat(LONGER_THAN_ANY);
  const point = last.codePointAt(0) as number;
  // Surrogates are no characters.
  const next = point === 0xd7ff ? 0xe000 : point + 1;
  return characters.join("") + String.fromCodePoint(next);
}

const LONGER_THAN_ANY = 4096;

export function tooMuch({ places }: Env): PawlError {
  const together =
    places === undefined ? "" : ` The calls of a transact compare ${MAX_COMPARED_PLACES} places together.`;
  return refuse(
    "exhausted",
    `Comparing these patterns with all that are reserved or waited for below the root takes too long, because few of them begin differently. Ask for fewer at a time, or have them begin with directories.${together}`,
    { limit: MAX_COMPARED_PLACES },
  );
}

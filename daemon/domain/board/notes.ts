import type { Result } from "@pawl/protocol";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { all, type Operation, one, sql } from "../../store/statement.js";
import { readStored } from "./change.js";
import type { StampRow } from "./tables.js";
import { notesOf } from "./write.js";

/** The bodies of changes that an answer is made from: some 3 ms of work. Notes before those take another call. */
const MAX_READ_CHARACTERS = 262_144;

/** From the newest on; those at the same time are in the order that the merge gives their changes. */
const selectNotes = sql<NoteRow>(`
  SELECT t.n, t.idx, c.wall, c.counter, b.author, c.change_id
  FROM pawl_note t JOIN pawl_change c ON c.n = t.n JOIN pawl_branch b ON b.branch = c.branch
  WHERE t.story_id = :storyId AND t.wall <= :wall
    AND (t.wall, t.counter, b.author, c.change_id, t.idx) < (:wall, :counter, :author, :id, :index)
  ORDER BY t.wall DESC, t.counter DESC, b.author DESC, c.change_id DESC, t.idx DESC LIMIT :rows`);

const selectChange = sql<{ body: string; signature: string }>(
  "SELECT body, signature FROM pawl_change WHERE n = :n",
);

interface NoteRow extends StampRow {
  n: number;
  idx: number;
}

/** Some of the notes of an item, in their order, and where to go on with those before them. */
export type NotesPage = Pick<Result<"pipeline.read">, "notes" | "before">;

/** The last notes of an item before a place, at most `rows`. Refuses a place that no answer gave. */
export function* readNotes(
  storyId: string,
  rows: number,
  before: string | undefined,
): Operation<NotesPage | PawlError> {
  const from = before === undefined ? NEWEST : placeOf(before);
  if (from === undefined) {
    const message = `${shown(before)} is not the \`before\` of an answer about this item`;
    return refuse("invalid_params", `${message}. Begin without it.`, {
      issues: [{ path: "/before", message }],
    });
  }
  const { wall, counter, author, change_id: id, idx: index } = from;
  const found = yield* all(selectNotes, { storyId, wall, counter, author, id, index, rows: rows + 1 });
  const notes: NonNullable<NotesPage["notes"]> = [];
  let characters = 0;
  let last: NoteRow | undefined;
  for (const row of found) {
    if (last !== undefined && (notes.length === rows || characters > MAX_READ_CHARACTERS)) {
      return { notes: notes.reverse(), before: cursorOf(last) };
    }
    const change = (yield* one(selectChange, { n: row.n })) as { body: string; signature: string };
    characters += change.body.length;
    const op = readStored(row.change_id, change).ops.find((each) => each.storyId === storyId);
    const note = notesOf(op?.set ?? new Map()).find((each) => each.index === row.idx)?.note;
    // Only a damaged table speaks of notes that are not there; a rebuild says so.
    if (note !== undefined)
      notes.push({ at: row.wall, author: row.author, agent: note.agent, text: note.text });
    last = row;
  }
  return { notes: notes.reverse() };
}

/** After every note. */
const NEWEST: NoteRow = {
  n: 0,
  idx: 0,
  wall: Number.MAX_SAFE_INTEGER,
  counter: Number.MAX_SAFE_INTEGER,
  author: "",
  change_id: "",
};

function cursorOf({ wall, counter, author, change_id: id, idx }: NoteRow): string {
  return JSON.stringify([wall, counter, author, id, idx]);
}

function placeOf(cursor: string): NoteRow | undefined {
  try {
    const [wall, counter, author, id, idx, ...rest] = JSON.parse(cursor) as unknown[];
    const fits =
      [wall, counter, idx].every((each) => Number.isSafeInteger(each)) &&
      typeof author === "string" &&
      typeof id === "string" &&
      rest.length === 0;
    if (!fits) return undefined;
    return {
      n: 0,
      idx: idx as number,
      wall: wall as number,
      counter: counter as number,
      author,
      change_id: id,
    };
  } catch {
    return undefined;
  }
}

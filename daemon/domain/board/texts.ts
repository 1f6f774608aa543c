import { all, insert, type Operation, one, run, search, sql } from "../../store/statement.js";
import { type Note, type Op, OWN_FIELD, readStored } from "./change.js";
import type { ItemRow } from "./merge.js";
import { notesOf } from "./write.js";

/*
 * The index of words: of names and descriptions, a row for each item, and of notes, a row for each. It is made by the
 * first search, in steps, and kept by each change from then on. A board that nobody searches pays nothing for it, not
 * even a statement: `texts` is a column of the row that each change reads anyway.
 */

/** Of `texts` when all items are in the index: no storyId has this character, and all are before it. */
const ALL_ITEMS = "~";
/** Items that one step puts into the index, some 4 ms of work ... */
const ITEMS_PER_STEP = 48;
/** ... and notes: an item that has more takes all of a step. */
const NOTES_PER_STEP = 96;
/** Rows of the index that one step of a search reads: some 3 ms of work. */
const MATCHES_PER_STEP = 1500;

const DESCRIPTION = "description";

const selectTexts = sql<{ texts: string | null }>("SELECT texts FROM pawl_board");

const updateTexts = sql("UPDATE pawl_board SET texts = :texts WHERE id = 1");

const selectDescription = sql<{ value: string }>(
  `SELECT value FROM pawl_cell WHERE story_id = :storyId AND field = '${OWN_FIELD}${DESCRIPTION}'`,
);

const selectDoc = sql<{ doc: number }>(
  "SELECT doc FROM pawl_text WHERE story_id = :storyId AND n = :n AND idx = :index",
);

const insertDoc = sql("INSERT INTO pawl_text (story_id, n, idx) VALUES (:storyId, :n, :index)");

const deleteDoc = sql("DELETE FROM pawl_text WHERE doc = :doc");

const deleteDocs = sql("DELETE FROM pawl_text WHERE story_id = :storyId");

const insertWords = sql("INSERT INTO pawl_text_index (rowid, words) VALUES (:doc, :words)");

const deleteWords = sql("DELETE FROM pawl_text_index WHERE rowid = :doc");

const deleteAllWords = sql(
  "DELETE FROM pawl_text_index WHERE rowid IN (SELECT doc FROM pawl_text WHERE story_id = :storyId)",
);

const selectItems = sql<{ story_id: string; name: string | null; notes: number; stage: string | null }>(`
  SELECT story_id, name, notes, stage FROM pawl_item WHERE story_id > :after ORDER BY story_id LIMIT :rows`);

const selectName = sql<{ name: string | null }>("SELECT name FROM pawl_item WHERE story_id = :storyId");

const selectNotes = sql<{ n: number; idx: number; change_id: string; body: string; signature: string }>(`
  SELECT t.n, t.idx, c.change_id, c.body, c.signature FROM pawl_note t JOIN pawl_change c ON c.n = t.n
  WHERE t.story_id = :storyId ORDER BY t.wall, t.counter, t.n, t.idx`);

const selectMatches = search<{ doc: number; story_id: string }>(`
  SELECT t.doc, t.story_id FROM pawl_text_index w JOIN pawl_text t ON t.doc = w.rowid
  WHERE w.words MATCH :query AND w.rowid > :after ORDER BY w.rowid LIMIT :rows`);

/**
 * Brings the index up to date with what an op has made of an item, if it has the item.
 *
 * @param texts up to which item it has them, null for none.
 */
export function* indexChange(
  texts: string | null,
  { set }: Op,
  before: ItemRow | undefined,
  after: ItemRow,
  n: number,
): Operation<void> {
  const { storyId } = after;
  if (texts === null || storyId > texts) return;
  const isReset = before !== undefined && before.generation !== after.generation;
  if (isReset) yield* forget(storyId);
  if (isReset || set.has("name") || set.has(OWN_FIELD + DESCRIPTION)) {
    const description = after.fields.includes(DESCRIPTION)
      ? yield* one(selectDescription, { storyId })
      : undefined;
    yield* setWords(storyId, { n: 0, index: 0 }, wordsOf(after.name, description?.value));
  }
  for (const { index, note } of notesOf(set)) yield* setWords(storyId, { n, index }, note.text);
}

/** Puts an item into the index anew, which other ways than an op have changed. */
export function* indexAnew(storyId: string): Operation<void> {
  const { texts = null } = (yield* one(selectTexts)) ?? {};
  if (texts === null || storyId > texts) return;
  yield* forget(storyId);
  const item = yield* one(selectName, { storyId });
  if (item !== undefined) yield* indexItem(storyId, item.name);
}

function* indexItem(storyId: string, name: string | null): Operation<number> {
  const description = yield* one(selectDescription, { storyId });
  const words = wordsOf(name, description?.value);
  if (words !== "") yield* addWords(storyId, { n: 0, index: 0 }, words);
  const notes = yield* all(selectNotes, { storyId });
  for (const { n, idx: index, change_id: id, body, signature } of notes) {
    const op = readStored(id, { body, signature }).ops.find((each) => each.storyId === storyId);
    const said = notesOf(op?.set ?? new Map()).find((each) => each.index === index);
    if (said !== undefined) yield* addWords(storyId, { n, index }, (said.note as Note).text);
  }
  return notes.length;
}

/** One step of making the index; returns true once it is whole, and where there is nothing that could be in it. */
export function* makeIndex(): Operation<boolean> {
  const node = yield* one(selectTexts);
  if (node === undefined || node.texts === ALL_ITEMS) return true;
  const rows = yield* all(selectItems, { after: node.texts ?? "", rows: ITEMS_PER_STEP });
  let notes = 0;
  let last = node.texts ?? "";
  for (const { story_id: storyId, name } of rows) {
    if (notes > NOTES_PER_STEP) break;
    notes += yield* indexItem(storyId, name);
    last = storyId;
  }
  const isWhole = rows.length < ITEMS_PER_STEP && last === (rows.at(-1)?.story_id ?? last);
  yield* run(updateTexts, { texts: isWhole ? ALL_ITEMS : last });
  return isWhole;
}

/** True if a search finds all that there is. */
export function* isIndexWhole(): Operation<boolean> {
  const node = yield* one(selectTexts);
  return node === undefined || node.texts === ALL_ITEMS;
}

/** One step of a search: adds the items that it finds; returns where to go on, undefined at the end. */
export function* findMatches(
  query: string,
  after: number,
  found: Set<string>,
): Operation<number | undefined> {
  const rows = yield* all(selectMatches, { query, after, rows: MATCHES_PER_STEP });
  for (const { story_id: storyId } of rows) found.add(storyId);
  return rows.length < MATCHES_PER_STEP ? undefined : rows.at(-1)?.doc;
}

/** All words of a text, each also as the beginning of a longer one, in the language of FTS5. */
export function queryOf(text: string): string {
  const words = text.split(/\s+/).filter((word) => word !== "");
  return words.map((word) => `"${word.replaceAll('"', '""')}"*`).join(" ");
}

function wordsOf(name: string | null, description: string | undefined): string {
  const value: unknown = description === undefined ? null : JSON.parse(description);
  return [name, typeof value === "string" ? value : null].filter((each) => each !== null).join("\n");
}

function* forget(storyId: string): Operation<void> {
  yield* run(deleteAllWords, { storyId });
  yield* run(deleteDocs, { storyId });
}

interface DocPlace {
  readonly n: number;
  readonly index: number;
}

function* setWords(storyId: string, place: DocPlace, words: string): Operation<void> {
  const known = yield* one(selectDoc, { storyId, ...place });
  if (known === undefined) {
    if (words !== "") yield* addWords(storyId, place, words);
    return;
  }
  const { doc } = known;
  yield* run(deleteWords, { doc });
  if (words === "") yield* run(deleteDoc, { doc });
  else yield* run(insertWords, { doc, words });
}

function* addWords(storyId: string, place: DocPlace, words: string): Operation<void> {
  const doc = yield* insert(insertDoc, { storyId, ...place });
  yield* run(insertWords, { doc, words });
}

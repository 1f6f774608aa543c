// The marks by which ids of names are known that other databases keep, so that they are known while those are away.
import { createHash } from "node:crypto";
import { all, type Operation, run, sql } from "../store/statement.js";

const BEGINNING = "shared_mark:";

const selectMarks = sql<{ key: string; value: string }>(
  "SELECT key, value FROM pawl_meta WHERE key >= 'shared_mark:' AND key < 'shared_mark;'",
);

const upsertMark = sql(`
  INSERT INTO pawl_meta (key, value) VALUES (:key, :mark)
  ON CONFLICT (key) DO UPDATE SET value = excluded.value`);

/** The key of a place, whose address may hold a password. */
export function markKey(url: string): string {
  return `${BEGINNING}${createHash("sha256").update(url).digest("hex")}`;
}

export function* readMarks(marks: Map<string, string>): Operation<void> {
  for (const { key, value } of yield* all(selectMarks)) marks.set(key, value);
}

export function* keepMark(url: string, mark: string): Operation<void> {
  yield* run(upsertMark, { key: markKey(url), mark });
}

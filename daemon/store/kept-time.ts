// The time of the daemon as the database keeps it.
import type { KeptTime } from "../clock.js";
import { type Operation, run, sql } from "./statement.js";

const saveTime = sql(`
  INSERT INTO pawl_meta (key, value) VALUES ('clock', :time)
  ON CONFLICT (key) DO UPDATE SET value = excluded.value`);

export function* keepTime(time: KeptTime): Operation<void> {
  yield* run(saveTime, { time: JSON.stringify(time) });
}

/** @param text as the table has it; undefined in a database that has kept no time yet. */
export function readTime(text: string | undefined): KeptTime | undefined {
  return text === undefined ? undefined : (JSON.parse(text) as KeptTime);
}

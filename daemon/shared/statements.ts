// A statement as PostgreSQL takes it, and values as operations give and receive them.
import type { SqlParams, SqlValue, Statement } from "../store/statement.js";
import { keyColumns } from "./schema.js";

/** A statement in the words of PostgreSQL, prepared under a name of its own on each connection. */
export interface Translated {
  readonly name: string;
  readonly text: string;
  /** The names of the parameters, in the order of their numbers. */
  readonly names: readonly string[];
}

const translated = new WeakMap<Statement, Translated>();
const translatedWithKey = new WeakMap<Statement, Insertion>();
let count = 0;

export function translate(statement: Statement): Translated {
  let found = translated.get(statement);
  if (found === undefined) {
    count += 1;
    const { text, names } = byNumber(statement.sql);
    found = { name: `pawl_${count}`, text, names };
    translated.set(statement, found);
  }
  return found;
}

/** An insertion that is given its key. */
export interface Insertion extends Translated {
  readonly table: string;
  readonly column: string;
}

/** The name of the parameter that a key is given by. */
export const KEY = "key of the row";

/** An insertion of one row whose key is known before. */
export function insertionWithKey(statement: Statement): Insertion {
  let found = translatedWithKey.get(statement);
  if (found === undefined) {
    const { text, names } = byNumber(statement.sql);
    const [beginning, table] = /^\s*INSERT INTO (\w+)\s*\(/.exec(text) ?? [];
    const column = table === undefined ? undefined : keyColumns().get(table);
    if (beginning === undefined || table === undefined || column === undefined) {
      throw new Error(`no insertion of a row with an integer key of its own: ${text}`);
    }
    const rest = text
      .slice(beginning.length)
      .replace(/\bVALUES\s*\(/, (values) => `${values}$${names.length + 1}, `);
    count += 1;
    found = {
      name: `pawl_${count}`,
      text: `${beginning}${column}, ${rest}`,
      names: [...names, KEY],
      table,
      column,
    };
    translatedWithKey.set(statement, found);
  }
  return found;
}

/** Gives a statement `$1` where it first has some `:name`, and the names in the order of their numbers. */
export function byNumber(sql: string): { text: string; names: string[] } {
  const names: string[] = [];
  const text = sql.replaceAll(PARAMETER, (found, name: string | undefined) => {
    if (name === undefined) return found;
    if (!names.includes(name)) names.push(name);
    return `$${names.indexOf(name) + 1}`;
  });
  return { text, names };
}

/** Text literals and comments, where a colon is only a colon, or a parameter. */
const PARAMETER = /'(?:[^']|'')*'|--[^\n]*|:([A-Za-z_]\w*)/g;

/** The values of params in the order of their numbers; throws for one that is not given, as SQLite's driver does. */
export function valuesOf(params: SqlParams, names: readonly string[]): SqlValue[] {
  return names.map((name) => {
    const value = params[name];
    if (value === undefined) throw new Error(`no value for :${name}`);
    return value;
  });
}

/** Types of PostgreSQL by their numbers, which never change. */
const BOOL = 16;
const BYTEA = 17;
const INT8 = 20;
const INT2 = 21;
const INT4 = 23;
const FLOAT4 = 700;
const FLOAT8 = 701;
const NUMERIC = 1700;

/** Values as SQLite gives them: numbers for all that is one, 1 and 0 for true and false, bytes as a Buffer. */
const PARSERS = new Map<number, (text: string) => SqlValue>([
  [BOOL, (text) => (text === "t" ? 1 : 0)],
  [BYTEA, bytesOf],
  ...[INT8, INT2, INT4, FLOAT4, FLOAT8, NUMERIC].map((type) => [type, Number] as const),
]);

/** What reads the text of a value of a type. */
export function parserOf(type: number): (text: string) => SqlValue {
  return PARSERS.get(type) ?? asItIs;
}

function asItIs(text: string): string {
  return text;
}

/** `bytea_output` is hex: `\x` and two digits for each byte. */
function bytesOf(text: string): Buffer {
  return Buffer.from(text.slice(2), "hex");
}

/** A value as it is sent: as text, or as the bytes that it is. */
export function textOf(value: SqlValue): string | Buffer | null {
  if (value === null || typeof value === "string") return value;
  return typeof value === "number"
    ? String(value)
    : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

/** Texts as a value of the type `text[]`. */
export function arrayOf(texts: readonly string[]): string {
  return `{${texts.map((text) => `"${text.replaceAll(/["\\]/g, "\\$&")}"`).join(",")}}`;
}

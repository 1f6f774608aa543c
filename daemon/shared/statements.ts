// A statement as PostgreSQL takes it, and values as operations give and receive them.
import { NEW_KEY, type SqlParams, type SqlValue, type Statement } from "../store/statement.js";
import { keyColumns } from "./schema.js";

/** A statement in the words of PostgreSQL, prepared under a name of its own on each connection. */
export interface Translated {
  readonly name: string;
  readonly text: string;
  /** The names of the parameters, in the order of their numbers. */
  readonly names: readonly string[];
  /** The table that it writes, and which of its parameters is the key of the one row there (`Statement.writes`). */
  readonly table: string | undefined;
  readonly row: number | undefined;
  /** True if it only reads. */
  readonly reads: boolean;
}

const translated = new WeakMap<Statement, Translated>();
const translatedWithKey = new WeakMap<Statement, Insertion>();
let count = 0;

export function translate(statement: Statement): Translated {
  let found = translated.get(statement);
  if (found === undefined) {
    count += 1;
    const { text, names } = byNumber(statement.sql);
    found = { name: `pawl_${count}`, text, names, ...whatItWrites(statement, text, names) };
    translated.set(statement, found);
  }
  return found;
}

function whatItWrites(
  { writes }: Statement,
  text: string,
  names: readonly string[],
): Pick<Translated, "table" | "row" | "reads"> {
  const [, table] = /^\s*(?:INSERT INTO|UPDATE) (\w+)/.exec(text) ?? [];
  const row = writes === undefined ? undefined : names.indexOf(writes);
  return { table, row, reads: /^\s*SELECT\b/.test(text) };
}

/** An insertion that is given its key. */
export interface Insertion extends Translated {
  readonly table: string;
  readonly column: string;
}

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
    const withKey = { text: `${beginning}${column}, ${rest}`, names: [...names, NEW_KEY] };
    const { row, reads } = whatItWrites(statement, withKey.text, withKey.names);
    found = { name: `pawl_${count}`, ...withKey, table, column, row, reads };
    translatedWithKey.set(statement, found);
  }
  return found;
}

const types = new WeakMap<Translated, readonly string[]>();

/** The types of a statement's parameters; undefined as long as no server has been asked. They are the same on all. */
export function typesOf(statement: Translated, learnt?: readonly string[]): readonly string[] | undefined {
  if (learnt !== undefined) types.set(statement, learnt);
  return types.get(statement);
}

/** The column that says for which of several executions a row was found, from 1. */
export const PLACE = "place among all";

const texts = new WeakMap<Translated, string>();

/** Several executions of a statement as one: its parameters are arrays, with an element for each. */
export function allIn(
  statement: Translated,
  types: readonly string[],
  values: readonly (readonly SqlValue[])[],
): { name: string; text: string; values: readonly SqlValue[] } {
  let text = texts.get(statement);
  if (text === undefined) {
    text = textOfAll(statement, types);
    texts.set(statement, text);
  }
  const arrays = types.map((_, index) => arrayOf(values.map((each) => each[index] as SqlValue)));
  return { name: `${statement.name}_all`, text, values: arrays };
}

function textOfAll({ text, reads, row }: Translated, types: readonly string[]): string {
  const arrays = types.map((type, index) => `$${index + 1}::${type}[]`).join(", ");
  const columns = types.map((_, index) => `p${index + 1}`);
  const own = text.replaceAll(NUMBERED, (found, number?: string) =>
    number === undefined ? found : `asked.p${number}`,
  );
  if (reads) {
    return `SELECT asked.place AS "${PLACE}", found.* FROM unnest(${arrays}) WITH ORDINALITY AS asked (${columns.join(", ")}, place)
      CROSS JOIN LATERAL (${own}) AS found`;
  }
  const from = `FROM unnest(${arrays}) AS asked (${columns.join(", ")})`;
  const [, insertion, list] = /^(\s*INSERT INTO[^(]+\([^)]*\)\s*)VALUES\s*\(([\s\S]*)\)\s*$/.exec(own) ?? [];
  if (insertion !== undefined) return `${insertion} SELECT ${list} ${from}`;
  const [, change, condition] = /^([\s\S]*)(\bWHERE \w+ = asked\.p\d+\s*)$/.exec(own) ?? [];
  if (change === undefined || row === undefined) throw new Error(`not a statement about one row: ${text}`);
  return `${change} ${from} ${condition}`;
}

/** Text literals, where a number is a text, or a parameter. */
const NUMBERED = /'(?:[^']|'')*'|\$(\d+)/g;

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

/** Values as one of an array type. */
export function arrayOf(values: readonly SqlValue[]): string {
  return `{${values.map(elementOf).join(",")}}`;
}

function elementOf(value: SqlValue): string {
  if (value === null) return "NULL";
  if (typeof value === "number") return String(value);
  const text = typeof value === "string" ? value : `\\x${Buffer.from(value).toString("hex")}`;
  return `"${text.replaceAll(/["\\]/g, "\\$&")}"`;
}

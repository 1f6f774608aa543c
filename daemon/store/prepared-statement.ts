import type Database from "better-sqlite3";
import type { SqlParams, SqlValue, Statement } from "./statement.js";

/** A statement as SQLite has compiled it. */
export interface Prepared {
  readonly compiled: Database.Statement<SqlValue[]>;
  /** The values of params in the order of their places; throws for one that is not given. */
  valuesOf(params: SqlParams): SqlValue[];
  /** The object that a row is given as; undefined for a statement that returns no rows. */
  toObject: ((row: RawRow) => Record<string, SqlValue>) | undefined;
  readonly writes: boolean;
  /** How often it was performed. */
  uses: number;
  /** Makes `valuesOf` and `toObject` faster: they are compiled for this statement. */
  speedUp(): void;
}

/**
 * After so many uses the functions of a statement are compiled, which takes some 0.1 ms. A row of 20 columns then takes
 * 0.3 microseconds instead of 5: an object of which each name is found anew has no shape that V8 could know beforehand.
 */
export const USES_BEFORE_COMPILING = 32;

/**
 * Values are bound by place and rows come as arrays, because better-sqlite3 makes and looks up every name
 * anew for each value: an update of 13 columns takes 2.2 instead of 3.8 microseconds, a row of 13 columns 3.8
 * instead of 6.4. Without the array, a row of one column takes 0.6 instead of 1.5.
 */
export function prepare(database: Database.Database, statement: Statement): Prepared {
  const { text, names } = byPlace(statement.sql);
  const compiled = database.prepare<SqlValue[]>(text);
  const columns = compiled.reader ? compiled.columns().map(({ name }) => name) : undefined;
  if (columns?.length === 1) compiled.pluck();
  else if (columns !== undefined) compiled.raw();
  return {
    compiled,
    valuesOf: (params) => valuesOf(params, names),
    toObject: columns === undefined ? undefined : (row) => toObject(row, columns),
    writes: !compiled.readonly,
    uses: 0,
    speedUp() {
      try {
        this.valuesOf = compiledValuesOf(names);
        if (columns !== undefined) this.toObject = compiledToObject(columns);
      } catch (error) {
        // A process may have been told to compile no text (--disallow-code-generation-from-strings).
        if (!(error instanceof EvalError)) throw error;
      }
    },
  };
}

/**
 * Replaces `:name` by `?`, and gives the names in their order. The plus after LIMIT keeps SQLite from planning
 * the statement anew whenever another value is bound there, which takes some 30 microseconds each time.
 */
function byPlace(sql: string): { text: string; names: string[] } {
  const names: string[] = [];
  const text = sql.replace(PARAMETER, (found, limit: string | undefined, name: string | undefined) => {
    if (name === undefined) return found;
    names.push(name);
    return limit === undefined ? "?" : `${limit}+?`;
  });
  return { text, names };
}

/** Text literals and comments, where a colon is only a colon, or a parameter, perhaps after LIMIT. */
const PARAMETER = /'(?:[^']|'')*'|--[^\n]*|(LIMIT\s+)?:([A-Za-z_]\w*)/g;

function valuesOf(params: SqlParams, names: readonly string[]): SqlValue[] {
  const values = new Array<SqlValue>(names.length);
  for (let index = 0; index < names.length; index++) {
    const name = names[index] as string;
    const value = params[name];
    // SQLite would take it for NULL.
    values[index] = value === undefined ? notGiven(name) : value;
  }
  return values;
}

function compiledValuesOf(names: readonly string[]): Prepared["valuesOf"] {
  const each = names.map((name) => `given.${name} === undefined ? notGiven("${name}") : given.${name}`);
  const make = new Function("notGiven", `return (given) => [${each.join(", ")}];`);
  return make(notGiven) as Prepared["valuesOf"];
}

function notGiven(name: string): never {
  throw new Error(`no value for :${name}`);
}

/** As better-sqlite3 gives it: its values, or its only value. */
export type RawRow = readonly SqlValue[] | SqlValue;

function toObject(row: RawRow, columns: readonly string[]): Record<string, SqlValue> {
  if (!Array.isArray(row)) return { [columns[0] as string]: row as SqlValue };
  const object: Record<string, SqlValue> = {};
  for (let index = 0; index < columns.length; index++) {
    object[columns[index] as string] = row[index] as SqlValue;
  }
  return object;
}

function compiledToObject(columns: readonly string[]): NonNullable<Prepared["toObject"]> {
  const names = columns.map((column) => JSON.stringify(column));
  const members = names.length === 1 ? [`${names[0]}: row`] : names.map((name, at) => `${name}: row[${at}]`);
  return new Function("row", `return { ${members.join(", ")} };`) as NonNullable<Prepared["toObject"]>;
}

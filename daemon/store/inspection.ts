// A look at a whole database while it is in use, in pieces that take some milliseconds each.
import { MAX_INTEGER } from "@pawl/protocol/limits";
import Database from "better-sqlite3";
import { elapsed } from "../clock.js";
import { connectToRead } from "./connection.js";
import { SqliteStore } from "./sqlite.js";
import type { Operation } from "./statement.js";

/** Rows of a table that one piece looks at ... */
const ROWS_PER_PIECE = 128;
/** ... and their bytes, but for the last of them. */
const BYTES_PER_PIECE = 64 * 1024;
/** Entries of an index that one piece looks at ... */
const ENTRIES_PER_PIECE = 256;
/** ... unless that takes longer. */
const PIECE_MS = 2;
/** Faults of one kind that a piece names. */
const MAX_FAULTS_PER_PIECE = 20;

/** The values of a key, in the order of its columns. */
export type Key = readonly (string | number)[];

/** Something in a database that is not as it has to be. */
export interface Fault {
  readonly what: "structure" | "index" | "value" | "reference" | "count" | "log";
  /** A row by its table and key, an index, a queue, a change. */
  readonly where: string;
  readonly message: string;
}

/** A piece of a look at something that has an order. */
export interface Piece {
  readonly faults: readonly Fault[];
  /** Rows or entries that were looked at. */
  readonly checked: number;
  /** The key behind which the next piece begins; undefined when there is no more. */
  readonly next: Key | undefined;
}

/** The meaning of tables, beyond the types of their columns. */
export interface Meaning {
  /** By table: the columns that hold JSON. */
  readonly json: Readonly<Record<string, readonly string[]>>;
  /** By table and column: the values that there are. */
  readonly values: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
  readonly references: readonly Reference[];
}

/** A column that names a row of another table. */
export interface Reference {
  readonly table: string;
  readonly column: string;
  readonly to: string;
  readonly toColumn: string;
  /** The condition of the rows of `table` that name one; all if there is none. */
  readonly where?: string;
}

/** A part of the structure, a table or an index, that is looked at in pieces. */
export interface Part {
  readonly name: string;
  /** Of its keys, in values. */
  readonly keyLength: number;
  look(after: Key | undefined): Piece;
}

/** One state of a database, seen by a connection of its own, which reads what is in the files. */
export class Inspection {
  readonly #database: Database.Database;
  readonly #store: SqliteStore;

  /** @param path of the database file; its writer may be this process or another one. */
  constructor(path: string) {
    this.#database = connectToRead(path);
    this.#store = new SqliteStore(this.#database);
    this.#store.begin();
  }

  /** The tables whose names begin with this, by their names. They are the same as long as nobody migrates. */
  tables(prefix: string): Table[] {
    const names = this.#database
      .prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND substr(name, 1, ?) = ? ORDER BY name",
      )
      .pluck()
      .all(prefix.length, prefix) as string[];
    return names.map((name) => describeTable(this.#database, name));
  }

  /** These tables, each with its indexes, as parts to be looked at. */
  parts(tables: readonly Table[], meaning: Meaning): Part[] {
    return tables.flatMap((table) => [
      new Rows(this.#database, table, meaning),
      ...table.indexes.map((index) => new Entries(this.#database, table, index)),
    ]);
  }

  /** Drives an operation that only reads. */
  perform<T>(operation: Operation<T>): T {
    return this.#store.perform(operation);
  }

  close(): void {
    this.#store.rollback();
    this.#database.close();
  }
}

/** The fault that an error shows; undefined for an error that shows none of the database. */
export function faultOf(error: unknown, where: string): Fault | undefined {
  const code = error instanceof Database.SqliteError ? error.code : "";
  if (!code.startsWith("SQLITE_CORRUPT") && code !== "SQLITE_NOTADB") return undefined;
  return { what: "structure", where, message: `cannot be read to its end. ${RESTORE}` };
}

const RESTORE = "Restore the database from a backup.";

interface TableColumn {
  readonly name: string;
  readonly type: string;
  readonly notnull: number;
  /** Its place in the primary key, from 1 on; 0 for none. */
  readonly pk: number;
}

export interface Table {
  readonly name: string;
  readonly columns: readonly TableColumn[];
  /** The columns of its order: `rowid`, or the primary key of a table without that. */
  readonly key: readonly string[];
  readonly indexes: readonly Index[];
}

interface Index {
  readonly name: string;
  readonly columns: readonly string[];
  /** The condition of the rows that are in it. */
  readonly where: string;
}

function describeTable(database: Database.Database, name: string): Table {
  const columns = database.pragma(`table_info(${name})`) as TableColumn[];
  const [{ wr: isWithoutRowid }] = database.pragma(`table_list(${name})`) as [{ wr: number }];
  const primary = columns.filter(({ pk }) => pk > 0).sort((a, b) => a.pk - b.pk);
  const key = isWithoutRowid === 1 ? primary.map((column) => column.name) : ["rowid"];
  const indexes = (database.pragma(`index_list(${name})`) as { name: string; origin: string }[])
    // The primary key of a table without rowid is the table itself.
    .filter(({ origin }) => isWithoutRowid === 0 || origin !== "pk")
    .map((index) => ({
      name: index.name,
      columns: (database.pragma(`index_xinfo(${index.name})`) as { name: string; key: number }[])
        .filter((column) => column.key === 1)
        .map((column) => column.name),
      where: conditionOf(database, index.name),
    }));
  return { name, columns, key, indexes: indexes.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

/** An index of a primary key or of a UNIQUE has no text, and no condition. */
function conditionOf(database: Database.Database, index: string): string {
  const sql = database.prepare("SELECT sql FROM sqlite_schema WHERE name = ?").pluck().get(index) as
    | string
    | null;
  return /\sWHERE\s+(.*)$/is.exec(sql ?? "")?.[1] ?? "TRUE";
}

type Raw = readonly (string | number | null)[];

/** A search for rows between two keys that are not as they have to be. */
interface Search {
  readonly statement: Database.Statement;
  /** The fault that a row of it shows. */
  fault(row: Raw): Fault;
}

/** The rows of a table in their order: their types, what they mean, and their entries in the indexes. */
class Rows implements Part {
  readonly name: string;
  readonly keyLength: number;
  readonly #database: Database.Database;
  readonly #table: Table;
  readonly #meaning: Meaning;
  #first: Database.Statement | undefined;
  #following: Database.Statement | undefined;
  #searches: readonly Search[] = [];

  constructor(database: Database.Database, table: Table, meaning: Meaning) {
    this.name = table.name;
    this.keyLength = table.key.length;
    this.#database = database;
    this.#table = table;
    this.#meaning = meaning;
  }

  look(after: Key | undefined): Piece {
    this.#prepare();
    let first: Key | undefined;
    let last = after;
    let checked = 0;
    let bytes = 0;
    const rows = after === undefined ? this.#first?.iterate() : this.#following?.iterate(...after);
    for (const row of rows as IterableIterator<Raw>) {
      const key = row.slice(0, -1) as Key;
      if (last !== undefined && !isGreater(key, last)) return this.#disorder(key, last, checked);
      first ??= key;
      last = key;
      checked += 1;
      bytes += row.at(-1) as number;
      if (checked === ROWS_PER_PIECE || bytes >= BYTES_PER_PIECE) break;
    }
    if (first === undefined) return { faults: [], checked, next: undefined };
    const range = [...first, ...(last as Key)];
    const faults = this.#searches.flatMap(({ statement, fault }) =>
      (statement.all(...range) as Raw[]).map((row) => fault(row)),
    );
    return { faults, checked, next: last };
  }

  #disorder(key: Key, before: Key, checked: number): Piece {
    const message = `has the row ${shownKey(key)} behind ${shownKey(before)}. ${RESTORE}`;
    return { faults: [{ what: "structure", where: this.name, message }], checked, next: undefined };
  }

  #prepare(): void {
    if (this.#first !== undefined) return;
    const { name, columns, key } = this.#table;
    const keys = key.join(", ");
    // The length is in the head of a row: the value itself is not read for it.
    const sizes = columns.filter(isLong).map((column) => `coalesce(octet_length(${column.name}), 0)`);
    const select = `SELECT ${keys}, ${["0", ...sizes].join(" + ")} FROM ${name} NOT INDEXED`;
    this.#first = this.#raw(`${select} ORDER BY ${keys}`);
    this.#following = this.#raw(`${select} WHERE (${keys}) > (${places(key)}) ORDER BY ${keys}`);
    this.#searches = [this.#wrongValues(), ...this.#danglingNames(), ...this.#missingEntries()];
  }

  #raw(sql: string): Database.Statement {
    return this.#database.prepare(sql).raw();
  }

  /** A search among the rows of a piece, which are `t`. */
  #search(columns: string, condition: string): Database.Statement {
    const { name, key } = this.#table;
    const keys = key.map((column) => `t.${column}`).join(", ");
    return this.#raw(`
      SELECT ${keys}${columns} FROM ${name} AS t NOT INDEXED
      WHERE (${keys}) >= (${places(key)}) AND (${keys}) <= (${places(key)}) AND (${condition})
      LIMIT ${MAX_FAULTS_PER_PIECE}`);
  }

  #where(row: Raw): string {
    return `${this.name} ${shownKey(row.slice(0, this.#table.key.length) as Key)}`;
  }

  /** Reads every value to its end. */
  #wrongValues(): Search {
    const json = this.#meaning.json[this.name] ?? [];
    const values = this.#meaning.values[this.name] ?? {};
    const cases = this.#table.columns.map((column) => {
      const { name, type, notnull, pk } = column;
      const types = [type.toLowerCase(), ...(notnull === 0 && pk === 0 ? ["null"] : [])];
      const isWrong = `typeof(t.${name}) NOT IN (${types.map((each) => `'${each}'`).join(", ")})`;
      const isNoJson = json.includes(name) ? ` OR (t.${name} IS NOT NULL AND NOT json_valid(t.${name}))` : "";
      const known = values[name];
      const isUnknown =
        known === undefined ? "" : ` OR t.${name} NOT IN (${known.map((each) => `'${each}'`).join(", ")})`;
      const isUnsafe = isLong(column) ? "" : ` OR t.${name} NOT BETWEEN -${MAX_INTEGER} AND ${MAX_INTEGER}`;
      const isCut = isLong(column) && isNoJson === "" ? ` OR length(substr(t.${name}, -1)) > 1` : "";
      return `WHEN ${isWrong}${isNoJson}${isUnknown}${isUnsafe}${isCut} THEN '${name}'`;
    });
    const wrong = `CASE ${cases.join(" ")} END`;
    return {
      statement: this.#search(`, ${wrong}`, `${wrong} IS NOT NULL`),
      fault: (row) => {
        const column = row.at(-1) as string;
        const kind = json.includes(column) ? "JSON" : "value that it can have";
        return { what: "value", where: this.#where(row), message: `has no ${kind} in ${column}. ${RESTORE}` };
      },
    };
  }

  #danglingNames(): Search[] {
    const references = this.#meaning.references.filter(({ table }) => table === this.name);
    return references.map(({ column, to, toColumn, where = "TRUE" }) => ({
      statement: this.#search(
        `, t.${column}`,
        `${where} AND NOT EXISTS (SELECT 1 FROM ${to} AS o WHERE o.${toColumn} = t.${column})`,
      ),
      fault: (row) => ({
        what: "reference",
        where: this.#where(row),
        message: `belongs to the row of ${to} with ${toColumn} ${row.at(-1)}, which is missing. ${RESTORE}`,
      }),
    }));
  }

  #missingEntries(): Search[] {
    const { name, key, indexes } = this.#table;
    return indexes.map((index) => {
      const same = [...index.columns, ...key].map((column) => `i.${column} IS t.${column}`).join(" AND ");
      return {
        statement: this.#search(
          "",
          `${index.where} AND NOT EXISTS
            (SELECT 1 FROM ${name} AS i INDEXED BY ${index.name} WHERE ${same} AND ${index.where})`,
        ),
        fault: (row) => ({
          what: "index",
          where: this.#where(row),
          message: `is missing in the index ${index.name}. ${REINDEX}`,
        }),
      };
    });
  }
}

const REINDEX = "Stop the daemon and have sqlite3 REINDEX the database, or restore it from a backup.";

interface EntryStatements {
  readonly first: Database.Statement;
  /** Behind a key: what is equal to it but for its last value, but for its last two, and so on. */
  readonly behind: readonly Database.Statement[];
  /** The row that an entry is of. */
  readonly row: Database.Statement;
}

/** The entries of an index in their order: each is that of a row. */
class Entries implements Part {
  readonly name: string;
  readonly keyLength: number;
  readonly #database: Database.Database;
  readonly #table: Table;
  readonly #index: Index;
  #statements: EntryStatements | undefined;

  constructor(database: Database.Database, table: Table, index: Index) {
    this.name = index.name;
    this.keyLength = index.columns.length + table.key.length;
    this.#database = database;
    this.#table = table;
    this.#index = index;
  }

  look(after: Key | undefined): Piece {
    this.#statements ??= this.#prepare();
    const { first, behind, row } = this.#statements;
    if (after === undefined) return this.#check(first.iterate(), undefined, row);
    // One search by all values of a key would read every entry that is equal but for the key of its row.
    for (const [index, statement] of behind.entries()) {
      const found = this.#check(statement.iterate(...after.slice(0, after.length - index)), after, row);
      if (found.next !== undefined || found.faults.length > 0) return found;
    }
    return { faults: [], checked: 0, next: undefined };
  }

  #check(entries: IterableIterator<unknown>, after: Key | undefined, row: Database.Statement): Piece {
    const faults: Fault[] = [];
    const until = elapsed() + PIECE_MS;
    let last = after;
    let checked = 0;
    for (const entry of entries as IterableIterator<Key>) {
      // A value that is damaged may stand for none here; the row itself is named for it.
      if ((entry as Raw).includes(null)) continue;
      if (last !== undefined && !isGreater(entry, last)) {
        const message = `has an entry for ${shownKey(entry)} behind that for ${shownKey(last)}. ${REINDEX}`;
        return { faults: [{ what: "index", where: this.name, message }], checked, next: undefined };
      }
      last = entry;
      checked += 1;
      if (row.get(...entry) === undefined && faults.length < MAX_FAULTS_PER_PIECE) {
        const key = entry.slice(this.#index.columns.length);
        const message = `has an entry for the row ${shownKey(key)} of ${this.#table.name}, which is not such a row. ${REINDEX}`;
        faults.push({ what: "index", where: this.name, message });
      }
      if (checked === ENTRIES_PER_PIECE || elapsed() > until) break;
    }
    return { faults, checked, next: checked === 0 ? undefined : last };
  }

  #prepare(): EntryStatements {
    const { name, key } = this.#table;
    const { columns, where } = this.#index;
    const all = [...columns, ...key];
    const order = all.join(", ");
    const select = `SELECT ${order} FROM ${name} INDEXED BY ${this.name} WHERE ${where}`;
    const prepare = (sql: string): Database.Statement => this.#database.prepare(sql).raw();
    const behind = all.map((greater, index) => {
      const equal = all.slice(0, index).map((column) => `${column} = ?`);
      return prepare(`${select} AND ${[...equal, `${greater} > ?`].join(" AND ")} ORDER BY ${order}`);
    });
    return {
      first: prepare(`${select} ORDER BY ${order}`),
      behind: behind.reverse(),
      row: prepare(`
        SELECT 1 FROM ${name} NOT INDEXED
        WHERE ${all.map((column) => `${column} IS ?`).join(" AND ")} AND ${where}`),
    };
  }
}

/** Of a text in a key, the characters that are shown. */
const MAX_SHOWN_LENGTH = 128;

function places(columns: readonly string[]): string {
  return columns.map(() => "?").join(", ");
}

/** True for a column whose values may fill pages of their own. */
function isLong({ type }: TableColumn): boolean {
  return type !== "INTEGER";
}

/** Compares keys as SQLite orders them: numbers by value, texts by their bytes. */
function isGreater(a: Key, b: Key): boolean {
  for (const [index, value] of a.entries()) {
    const other = b[index] as string | number;
    if (value === other) continue;
    if (typeof value === "string" && typeof other === "string") {
      return Buffer.compare(Buffer.from(value), Buffer.from(other)) > 0;
    }
    return typeof value === "string" || (typeof other !== "string" && value > other);
  }
  return false;
}

/** Of a long text only its beginning. */
function shownKey(key: Key): string {
  return key
    .map((value) => JSON.stringify(typeof value === "string" ? value.slice(0, MAX_SHOWN_LENGTH) : value))
    .join(" ");
}

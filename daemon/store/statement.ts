/**
 * An operation is a generator that yields SQL statements and receives their rows: it reads, decides, writes.
 * It does no I/O itself and never awaits, so that a synchronous store and an asynchronous one can drive the
 * same rules. A refusal is decided before the first write and returned as a value; breakage throws.
 */
export type Operation<T> = Generator<Step, T, unknown>;

export interface Step {
  readonly statement: Statement;
  readonly params: SqlParams;
  /** True if the first row alone is wanted, and given as it is instead of in an array. */
  readonly single?: true;
  /** True if the integer key of the row that is inserted is wanted. */
  readonly key?: true;
  /** Performed once for each of these, instead of with `params`: the answers are given in their order. */
  readonly each?: readonly SqlParams[];
  /** True if nobody looks at the result: a store that is asked over a network need not wait for it. */
  readonly unread?: true;
}

export type SqlValue = string | number | null | Uint8Array;
export type SqlParams = Readonly<Record<string, SqlValue>>;

/** A named-parameter statement, made once at module level; a store prepares it once. */
export interface Statement<Row = unknown> {
  readonly sql: string;
  /** Never set: it only carries the type of the rows. */
  readonly row?: Row;
  /**
   * The parameter by which a statement names the one row that it writes, by the integer key of its table; `NEW_KEY` for
   * an insertion that is given one. It reads no other row, and changes nothing by which others are told apart: such
   * statements about different rows may be performed in any order, and those of one text as one.
   */
  readonly writes?: string;
}

/** The parameter of a key that is chosen for a new row (`insert`). */
export const NEW_KEY = "key of the row";

const declared: Statement[] = [];

/** Declares a statement, at module level, in the SQL that SQLite and PostgreSQL share. */
export function sql<Row = never>(text: string, of: Pick<Statement, "writes"> = {}): Statement<Row> {
  const statement: Statement<Row> = { sql: text, ...of };
  declared.push(statement);
  return statement;
}

const searches: Statement[] = [];

/**
 * Declares a search in an index of words (`MATCH`), at module level. Each database has a language of its own for these;
 * this is SQLite's, FTS5. What fills the index is in the SQL that is shared.
 */
export function search<Row>(text: string): Statement<Row> {
  const statement: Statement<Row> = { sql: text };
  searches.push(statement);
  return statement;
}

/** The searches of all modules that were loaded. */
export function declaredSearches(): readonly Statement[] {
  return searches;
}

/** The statements of all modules that were loaded, for the test that has PostgreSQL prepare them. */
export function declaredStatements(): readonly Statement[] {
  return declared;
}

/** Performs a statement and gives all its rows; none for a statement that returns none. */
export function* all<Row>(statement: Statement<Row>, params: SqlParams = {}): Operation<Row[]> {
  return (yield { statement, params }) as Row[];
}

/** Performs a statement and gives its first row. */
export function* one<Row>(statement: Statement<Row>, params: SqlParams = {}): Operation<Row | undefined> {
  return (yield { statement, params, single: true }) as Row | undefined;
}

/**
 * Performs a statement once for each of these and gives the first row of each, in their order: a store that is asked
 * over a network asks for all at once.
 */
export function* each<Row>(
  statement: Statement<Row>,
  params: readonly SqlParams[],
): Operation<(Row | undefined)[]> {
  if (params.length === 0) return [];
  return (yield { statement, params: {}, single: true, each: params }) as (Row | undefined)[];
}

/** The result of a statement that returns no rows. */
export interface Done {
  /** Rows inserted, updated or deleted. */
  readonly changes: number;
  /** The integer key of the row that was inserted. */
  readonly lastInsertRowid: number | bigint;
}

/** Performs a statement for its effect and gives how many rows it changed. */
export function* run(statement: Statement<never>, params: SqlParams = {}): Operation<number> {
  return ((yield { statement, params }) as Done).changes;
}

/** Performs a statement for its effect, whatever rows that changes: nobody waits for the answer. */
export function* write(statement: Statement<never>, params: SqlParams): Operation<void> {
  yield { statement, params, unread: true };
}

/** Performs an insertion of one row and gives its integer key: for SQLite half the cost of RETURNING it. */
export function* insert(statement: Statement<never>, params: SqlParams): Operation<number> {
  return Number(((yield { statement, params, key: true }) as Done).lastInsertRowid);
}

// What is asked for before the next tick, in the order in which it goes out: statements of one text about different
// rows as one, since the server takes longer to begin a statement than to perform it.
import type { SqlValue } from "../store/statement.js";
import type { Answer, Ask, Batch, Row } from "./batch.js";
import { allIn, type Translated, typesOf } from "./statements.js";

type Resolve = (answer: Answer) => void;
type Reject = (error: unknown) => void;

interface Asked {
  readonly values: readonly SqlValue[];
  readonly resolve: Resolve;
  readonly reject: Reject;
}

/** Statements of one text. */
interface Group {
  readonly statement: Translated;
  readonly asked: Asked[];
  /** The rows that they write, by their keys in `table`; undefined where that is not known. */
  readonly rows: Set<SqlValue> | undefined;
}

const SELECT_TYPES =
  "SELECT to_json(parameter_types::text[]) AS types FROM pg_prepared_statements WHERE name = $1";

export class Gathered {
  readonly #batch: Batch;
  #writes: Group[] = [];
  /** They go out behind all writes: an operation asks for one once it has said all that it writes before. */
  readonly #reads = new Map<Translated, Group>();

  constructor(batch: Batch) {
    this.#batch = batch;
  }

  /** Behind all that came before. */
  add(ask: Ask, resolve: Resolve, reject: Reject): void {
    this.#close();
    this.#batch.add(ask, resolve, reject);
  }

  /** Behind all writes that came before, and beside other reads. */
  read(statement: Translated, values: readonly SqlValue[], resolve: Resolve, reject: Reject): void {
    const group = this.#reads.get(statement);
    if (group !== undefined) group.asked.push({ values, resolve, reject });
    else this.#reads.set(statement, { statement, asked: [{ values, resolve, reject }], rows: undefined });
  }

  /** Behind all that came before which writes the same row, or which writes nobody knows what. */
  write(statement: Translated, values: readonly SqlValue[], reject: Reject): void {
    const asked = { values, resolve: IGNORED, reject };
    const { row } = statement;
    const key = row === undefined ? null : (values[row] as SqlValue);
    const group = key === null ? undefined : this.#groupFor(statement, key);
    if (group === undefined) {
      this.#writes.push({ statement, asked: [asked], rows: key === null ? undefined : new Set([key]) });
      return;
    }
    group.asked.push(asked);
    group.rows?.add(key);
  }

  /** The group that a write may join, before all that came after it. */
  #groupFor(statement: Translated, key: SqlValue): Group | undefined {
    for (let at = this.#writes.length - 1; at >= 0; at -= 1) {
      const group = this.#writes[at] as Group;
      if (group.rows === undefined) return undefined;
      if (group.statement.table === statement.table && group.rows.has(key)) return undefined;
      if (group.statement === statement) return group;
    }
    return undefined;
  }

  /** Nothing more is asked for: the batch has all of it. */
  end(): Batch {
    this.#close();
    return this.#batch;
  }

  #close(): void {
    for (const group of this.#writes) this.#send(group);
    for (const group of this.#reads.values()) this.#send(group);
    this.#writes = [];
    this.#reads.clear();
  }

  #send({ statement, asked }: Group): void {
    const types = asked.length === 1 ? undefined : typesOf(statement);
    if (types !== undefined) return this.#sendAsOne(statement, asked, types);
    const { name, text } = statement;
    for (const { values, resolve, reject } of asked) this.#batch.add({ name, text, values }, resolve, reject);
    if (asked.length > 1 && statement.names.length > 0) this.#askForTypes(statement);
  }

  #sendAsOne(statement: Translated, asked: readonly Asked[], types: readonly string[]): void {
    const ask = allIn(
      statement,
      types,
      asked.map(({ values }) => values),
    );
    const reject = (error: unknown): void => {
      for (const each of asked) each.reject(error);
    };
    this.#batch.add(ask, (answer) => shareOut(answer, asked), reject);
  }

  /** The server has just prepared it: only this one knows of what types it takes its parameters to be. */
  #askForTypes(statement: Translated): void {
    const ask = { name: "pawl_types", text: SELECT_TYPES, values: [statement.name] };
    const learn = ({ rows: [row] }: Answer): void => {
      if (row !== undefined) typesOf(statement, JSON.parse(row.types as string) as string[]);
    };
    this.#batch.add(ask, learn, IGNORED);
  }
}

function shareOut({ command, rows, places, givesRows }: Answer, asked: readonly Asked[]): void {
  const own = asked.map((): Answer["rows"] => []);
  for (let index = 0; index < rows.length; index++)
    own[(places[index] as number) - 1]?.push(rows[index] as Row);
  for (const [index, { resolve }] of asked.entries()) {
    const found = own[index] as Answer["rows"];
    resolve({ command, count: found.length, rows: found, places: [], givesRows });
  }
}

const IGNORED = (): void => {};

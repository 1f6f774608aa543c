// Statements that go out together. The server answers them all by one message, and after one that fails performs none.
import pg from "pg";
import type { SqlValue } from "../store/statement.js";
import { PLACE, parserOf, textOf } from "./statements.js";

/** A statement, beside those of operations also one of this room. */
export interface Ask {
  readonly text: string;
  readonly values?: readonly SqlValue[];
  /** Under which it is prepared, once on each connection; one without is parsed each time. */
  readonly name?: string;
}

export type Row = Record<string, SqlValue>;

/** What the server answers a statement. */
export interface Answer {
  /** As `INSERT`. */
  readonly command: string;
  /** The rows that it has found or changed; null for a statement that has none. */
  readonly count: number | null;
  readonly rows: Row[];
  /** Of several executions in one: for which of them each row was found, from 1; otherwise empty. */
  readonly places: readonly number[];
  /** True of one that gives rows, also where it has found none. */
  readonly givesRows: boolean;
}

interface Column {
  readonly name: string;
  readonly parse: (text: string) => SqlValue;
}

interface Asked extends Ask {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
  columns: readonly Column[] | undefined;
  readonly rows: Row[];
  readonly places: number[];
}

/**
 * The statements that a connection has prepared, by their names. Their columns are known once they were answered, and
 * stay what they are: no daemon runs while tables are changed.
 */
export type Prepared = Map<string, readonly Column[] | "sent" | "doubtful">;

/**
 * Statements with one Sync behind them, which has the server answer. `pg` has one for each, and a write, a read and a
 * description of the columns with each of those; it lets subclasses of its `Query` say what goes out.
 */
export class Batch extends pg.Query {
  readonly #prepared: Prepared;
  readonly #asked: Asked[] = [];
  #answered = 0;

  constructor(prepared: Prepared) {
    super("");
    this.#prepared = prepared;
  }

  add(ask: Ask, resolve: Asked["resolve"], reject: Asked["reject"]): void {
    this.#asked.push({ ...ask, resolve, reject, columns: undefined, rows: [], places: [] });
  }

  override readonly submit = (connection: pg.Connection): void => {
    connection.stream.cork();
    for (const asked of this.#asked) this.#send(asked, connection);
    connection.sync();
    connection.stream.uncork();
  };

  #send(asked: Asked, connection: pg.Connection): void {
    const { name = "", text, values = [] } = asked;
    const known = name === "" ? undefined : this.#prepared.get(name);
    if (known === "doubtful") connection.close({ type: "S", name }, true);
    if (known === undefined || known === "doubtful") {
      connection.parse({ name, text, types: [] }, true);
      if (name !== "") this.#prepared.set(name, "sent");
    }
    connection.bind({ statement: name, values: values.map(textOf) as string[] }, true);
    if (typeof known === "object") asked.columns = known;
    else connection.describe({ type: "P" }, true);
    connection.execute(null, true);
  }

  handleRowDescription({ fields }: { fields: readonly pg.FieldDef[] }): void {
    const asked = this.#asked[this.#answered] as Asked;
    asked.columns = fields.map(({ name, dataTypeID }) => ({ name, parse: parserOf(dataTypeID) }));
  }

  handleDataRow({ fields }: { fields: readonly (string | null)[] }): void {
    const { columns, rows, places } = this.#asked[this.#answered] as Asked & { columns: readonly Column[] };
    const row: Row = {};
    for (let index = 0; index < columns.length; index++) {
      const { name, parse } = columns[index] as Column;
      const text = fields[index] as string | null;
      if (name === PLACE) places.push(Number(text));
      else row[name] = text === null ? null : parse(text);
    }
    rows.push(row);
  }

  handleCommandComplete({ text }: { text: string }): void {
    const { name, columns = [], rows, places, resolve } = this.#asked[this.#answered] as Asked;
    this.#answered += 1;
    if (name !== undefined) this.#prepared.set(name, columns);
    const [command = "", ...counts] = text.split(" ");
    const count = counts.length === 0 ? null : Number(counts.at(-1));
    resolve({ command, count, rows, places, givesRows: columns.length > 0 });
  }

  /** The first that was not answered has failed, and all after it were not performed. */
  handleError(error: unknown): void {
    for (const { name, reject } of this.#asked.slice(this.#answered)) {
      if (name !== undefined && this.#prepared.get(name) === "sent") this.#prepared.set(name, "doubtful");
      reject(error);
    }
    this.#answered = this.#asked.length;
  }

  handleReadyForQuery(): void {
    if (this.#answered < this.#asked.length) this.handleError(new Error("a statement was not answered"));
  }
}

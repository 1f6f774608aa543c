// Names in PostgreSQL for tests that have the turn loop in their own process: a store that waits for a thread that asks
// the server. `PAWL_TEST_SHARED`, the URL of a database, has all of them use it.
import { randomBytes } from "node:crypto";
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import { PawlError } from "@pawl/protocol/errors";
import type { Operation, SqlValue, Step } from "../daemon/dist/store/statement.js";
import type { Store } from "../daemon/dist/store/store.js";

/** The database that all tests in a process use, if they do. */
export const SHARED_URL = process.env.PAWL_TEST_SHARED;

/** The thread that asks, and which of its answers is waited for. */
class Thread {
  readonly #port: MessagePort;
  readonly #flag = new Int32Array(new SharedArrayBuffer(4));

  constructor() {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const worker = new Worker(new URL("./workers/postgresql.js", import.meta.url), {
      workerData: { port: port2, flag: this.#flag },
      transferList: [port2],
    });
    worker.unref();
    port1.unref();
  }

  ask(action: string, ...args: unknown[]): unknown {
    Atomics.store(this.#flag, 0, 0);
    this.#port.postMessage([action, ...args]);
    // A notification may be late, and meant for the answer before.
    while (Atomics.load(this.#flag, 0) === 0) Atomics.wait(this.#flag, 0, 0);
    const answer = receiveMessageOnPort(this.#port) as { message: unknown };
    const { error, value } = answer.message as { error?: { message: string }; value?: unknown };
    if (error !== undefined) throw Object.assign(new Error(error.message), error);
    return value;
  }
}

let thread: Thread | undefined;
let sessions = 0;

/** One session with a schema of the server. */
export class PostgreSqlStore implements Store {
  readonly writer = undefined;
  readonly #number: number;
  readonly #thread: Thread;
  #wrote = false;
  #operationWrote = false;
  #inTransaction = false;

  constructor(url: string, schema: string) {
    thread ??= new Thread();
    this.#thread = thread;
    sessions += 1;
    this.#number = sessions;
    const place = new URL(url);
    place.searchParams.set("schema", schema);
    this.#thread.ask("open", this.#number, place.href);
  }

  begin(): void {
    this.#begin(false);
  }

  beginToRead(): void {
    this.#begin(true);
  }

  #begin(toRead: boolean): void {
    this.#wrote = false;
    this.#thread.ask("begin", this.#number, toRead);
    this.#inTransaction = true;
  }

  get wrote(): boolean {
    return this.#wrote;
  }

  commit(): void {
    this.#inTransaction = false;
    this.#thread.ask("commit", this.#number);
  }

  rollback(): void {
    if (this.#inTransaction) this.#thread.ask("rollback", this.#number);
    this.#inTransaction = false;
  }

  perform<T>(operation: Operation<T>): T {
    this.#operationWrote = false;
    const outcome = this.#drive(operation);
    if (this.#operationWrote && outcome instanceof PawlError) {
      throw new Error(`refused (${outcome.kind}) after it had written`, { cause: outcome });
    }
    return outcome;
  }

  performOrUndo<T>(operation: Operation<T>, isToUndo: (outcome: T) => boolean): T {
    this.script("SAVEPOINT operation");
    const outcome = this.#drive(operation);
    if (isToUndo(outcome)) this.script("ROLLBACK TO operation");
    this.script("RELEASE operation");
    return outcome;
  }

  script(text: string): void {
    this.#thread.ask("script", this.#number, text);
  }

  query(text: string, values: readonly SqlValue[] = []): Record<string, SqlValue>[] {
    const rows = this.#thread.ask("query", this.#number, text, values) as Record<string, SqlValue>[];
    return rows.map(withBuffers);
  }

  close(): void {
    this.#thread.ask("close", this.#number);
  }

  #drive<T>(operation: Operation<T>): T {
    let step = operation.next();
    while (!step.done) step = operation.next(this.#execute(step.value));
    return step.value;
  }

  #execute({ statement, params, single, key, each }: Step): unknown {
    if (each !== undefined)
      return each.map((own) => this.#execute({ statement, params: own, ...(single && { single }) }));
    const { sql } = statement;
    const result = this.#thread.ask("execute", this.#number, { sql, params, single, key });
    const rows = Array.isArray(result) ? result.length : result === undefined ? 0 : undefined;
    const changes = rows ?? (result as { changes?: number }).changes ?? 1;
    if (changes > 0 && /\b(INSERT INTO|UPDATE \w+ (AS \w+ )?SET|DELETE FROM)\b/.test(sql)) {
      this.#wrote = true;
      this.#operationWrote = true;
    }
    if (Array.isArray(result)) return result.map(withBuffers);
    return result === undefined ? undefined : withBuffers(result as Record<string, SqlValue>);
  }
}

/** Bytes are no Buffer any more once they have gone from thread to thread. */
function withBuffers<Row extends Record<string, SqlValue>>(row: Row): Row {
  for (const [name, value] of Object.entries(row)) {
    if (value instanceof Uint8Array) {
      (row as Record<string, SqlValue>)[name] = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    }
  }
  return row;
}

/** A store that takes the place of a database file. */
export interface InPlace {
  readonly store: PostgreSqlStore;
  /** Leaves its rows for who opens the path again; once some others were closed, the schema is used for another one. */
  close(): void;
}

/** Those of a server, and the schemas there. */
interface Place {
  readonly url: string;
  readonly schema: string;
}

/** By the paths of the database files in whose place they are. */
const places = new Map<string, Place>();
/** Those of stores that were closed, the longest ago first. */
const closed: string[] = [];
let inMemory = 0;

/** So many that were closed can be opened again. */
const KEPT_CLOSED = 8;

/** The store in place of the database file of a path: the same rows for the same path. */
export function inPlaceOf(path: string, url: string): InPlace {
  let key = path;
  if (path === ":memory:") {
    inMemory += 1;
    key += inMemory;
  }
  const store = openAt(placeFor(key, url));
  const again = closed.indexOf(key);
  if (again >= 0) closed.splice(again, 1);
  return {
    store,
    close() {
      store.close();
      closed.push(key);
    },
  };
}

/** True if the rows of a path are in PostgreSQL. */
export function isInPlaceOf(path: string): boolean {
  return places.has(path);
}

function openAt({ url, schema }: Place): PostgreSqlStore {
  return new PostgreSqlStore(url, schema);
}

function openInPlaceOf(path: string): PostgreSqlStore {
  return openAt(places.get(path) as Place);
}

function placeFor(key: string, url: string): Place {
  const known = places.get(key);
  if (known !== undefined) return known;
  let place: Place = { url, schema: `pawl_${randomBytes(8).toString("hex")}` };
  const [oldest] = closed;
  const left = oldest === undefined ? undefined : (places.get(oldest) as Place);
  if (closed.length > KEPT_CLOSED && left?.url === url) {
    places.delete(closed.shift() as string);
    place = left;
    empty(place);
  }
  places.set(key, place);
  return place;
}

function empty(place: Place): void {
  const store = openAt(place);
  store.script(`TRUNCATE ${tablesOf(store).join(", ")} RESTART IDENTITY; ${FIRST_ROWS}`);
  store.close();
}

/** As `0009-batch-ids` leaves them. */
const FIRST_ROWS =
  "INSERT INTO pawl_batch_level VALUES (0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)";

function tablesOf(store: PostgreSqlStore): string[] {
  const rows = store.query(`
    SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
      AND relname NOT LIKE 'pawl\\_shared\\_%' ORDER BY relname COLLATE "C"`);
  return rows.map(({ name }) => name as string);
}

/** What a statement, in the SQL that both databases have, gives on the rows in place of a file. */
export function askInPlaceOf(path: string, text: string): Record<string, SqlValue>[] {
  const store = openInPlaceOf(path);
  const rows = store.query(text);
  store.close();
  return rows;
}

/** Every row of every table in place of a file, in the order of their first two columns. */
export function contentInPlaceOf(path: string): Record<string, Record<string, SqlValue>[]> {
  const store = openInPlaceOf(path);
  const content = tablesOf(store).map((table) => {
    const [{ columns }] = store.query(
      "SELECT count(*) AS columns FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = $1",
      [table],
    ) as [{ columns: number }];
    return [table, store.query(`SELECT * FROM ${table} ORDER BY ${columns > 1 ? "1, 2" : "1"}`)] as const;
  });
  store.close();
  return Object.fromEntries(content);
}

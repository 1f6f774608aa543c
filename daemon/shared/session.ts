// One connection to PostgreSQL, on which operations are driven with awaits between their steps.
//
// `pg` is the library because one client is one connection there, which nothing opens anew behind our back (locks and
// LISTEN live as long as it), and statements go out without waiting for the answers to those before them.
import type { Duplex } from "node:stream";
import { PawlError } from "@pawl/protocol/errors";
import pg from "pg";
import type { Inserts } from "../domain/queue/ahead.js";
import {
  type Done,
  NEW_KEY,
  type Operation,
  type SqlParams,
  type SqlValue,
  type Statement,
  type Step,
} from "../store/statement.js";
import { type Answer, type Ask, Batch, type Prepared, type Row } from "./batch.js";
import { ConnectionLost } from "./failure.js";
import { Gathered } from "./gathered.js";
import { readAddress, wrongParameter } from "./specification.js";
import { insertionWithKey, type Translated, translate, valuesOf } from "./statements.js";

/** Before it, some of what the tables and the turns need is not there. */
const OLDEST_SERVER_VERSION = 140_000;
const CONNECT_TIMEOUT_MS = 10_000;
/** The kernel asks a silent peer after so long whether it is still there. */
const KEEP_ALIVE_AFTER_MS = 5_000;
/** A server that has stopped does not close its side of a session: the session is given up after so long. */
const CLOSING_MS = 500;
const DEFAULT_SCHEMA = "pawl";

/**
 * Settings of each session. Statements are short, so compiling them would take longer than they do, and planning them
 * each time as long as they do. They are written for SQLite, which finds rows by indexes, one in the other: a plan for
 * what a table has when it is new reads all of it, and is kept while the table grows. A server whose peer has gone
 * without a word notices so soon, and gives its locks free.
 */
const SETTINGS = {
  jit: "off",
  plan_cache_mode: "force_generic_plan",
  enable_seqscan: "off",
  enable_hashjoin: "off",
  enable_mergejoin: "off",
  // Of the role, perhaps; the daemon bounds by itself how long it waits for a lock, or for an answer.
  statement_timeout: "0",
  lock_timeout: "0",
  default_transaction_isolation: "read committed",
  tcp_keepalives_idle: "5",
  tcp_keepalives_interval: "2",
  tcp_keepalives_count: "3",
  tcp_user_timeout: "10000",
};

export interface SessionOptions {
  /** The name under which the server shows the session. */
  readonly application?: string;
}

/** Keys that are reserved at once at most: those that a transaction does not use are never given. */
const MAX_RESERVED_KEYS = 256;
const RESERVE_KEYS: Ask = {
  name: "pawl_reserve_keys",
  // The subquery is performed once, and not for each key: to find the sequence takes longer than a key does.
  text: `SELECT nextval((SELECT pg_get_serial_sequence($1, $2)::regclass)) AS key FROM generate_series(1, $3)`,
};

/** The keys of a table that a transaction has reserved. */
interface Keys {
  readonly table: string;
  readonly column: string;
  free: number[];
  /** How many it has used. */
  used: number;
  /** How many it reserves next. */
  next: number;
}

interface OpenTransaction {
  isOpen: boolean;
  /** True if an operation has written anything in it. */
  wrote: boolean;
  /** Of the first statement of it that failed: the server has refused all that came after. */
  failure: unknown;
}

const BEGIN: Ask = { name: "pawl_begin", text: "BEGIN" };
const BEGIN_TO_READ: Ask = {
  name: "pawl_begin_to_read",
  text: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
};
const COMMIT: Ask = { name: "pawl_commit", text: "COMMIT" };

/**
 * All the statements of a session are answered in their order; one transaction is open at a time, or about to be
 * committed while the next is begun. What is asked in it
 * before the next tick goes out together.
 */
export class Session {
  /** The PostgreSQL schema that has the tables. */
  readonly schema: string;
  /** The server and the database, as people are shown them: without credentials. */
  readonly shown: string;
  readonly #client: pg.Client;
  readonly #channels = new Map<string, (payload: string) => void>();
  readonly #endings: ((error: ConnectionLost) => void)[] = [];
  #lost: ConnectionLost | undefined;
  #transaction: OpenTransaction = { isOpen: false, wrote: false, failure: undefined };
  readonly #prepared: Prepared = new Map();
  /** What goes out before the next tick. */
  #gathered: Gathered | undefined;
  readonly #keys = new Map<string, Keys>();

  private constructor(url: string, { application = "pawld" }: SessionOptions) {
    const { connectionString, schema, shown } = placeOf(url);
    this.schema = schema;
    this.shown = shown;
    this.#client = new pg.Client({
      connectionString,
      application_name: application,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEP_ALIVE_AFTER_MS,
      pipeline: true,
    });
    this.#client.on("error", (error) => this.#end(error));
    this.#client.on("end", () => this.#end(new Error("the server closed the connection")));
    this.#client.on("notification", ({ channel, payload = "" }) => this.#channels.get(channel)?.(payload));
  }

  /**
   * Connects. Throws `ConnectionLost` where there is no server, and the server's own error where it refuses; refuses
   * (`invalid_state`) a server that is too old, that commits before it has synced, or whose text is not UTF-8.
   *
   * @param url as `postgresql://USER@HOST/DATABASE`, with `?schema=` for another than `pawl`.
   */
  static async open(url: string, options: SessionOptions = {}): Promise<Session> {
    const session = new Session(url, options);
    let late: NodeJS.Timeout | undefined;
    try {
      await session.#client.connect();
      late = setTimeout(() => session.destroy(), CONNECT_TIMEOUT_MS);
      await session.#check();
    } catch (error) {
      const explained = session.#notOpened(error);
      await session.close();
      throw explained;
    } finally {
      clearTimeout(late);
    }
    return session;
  }

  async #check(): Promise<void> {
    const [server] = await this.query<{ version: number; commit: string; encoding: string }>(`
      SELECT current_setting('server_version_num')::int AS version, current_setting('synchronous_commit') AS commit,
        current_setting('server_encoding') AS encoding`);
    const { version, commit, encoding } = server as NonNullable<typeof server>;
    if (version < OLDEST_SERVER_VERSION) {
      throw unfit(
        `${this.shown} is PostgreSQL ${Math.floor(version / 10_000)}; pawl needs 14 or newer.`,
        version,
      );
    }
    if (commit === "off") {
      throw unfit(
        `${this.shown} has synchronous_commit = off, so that it loses what it has answered. Set it to on for this user or database.`,
        commit,
      );
    }
    if (encoding !== "UTF8") {
      throw unfit(`The database ${this.shown} has the encoding ${encoding}; pawl needs UTF8.`, encoding);
    }
    // The role may have one, and a session of the daemon may have nothing to do for long. Older servers know none.
    await this.query("SET idle_session_timeout = 0");
  }

  /** The process of the server that serves this session, for `pg_terminate_backend`. */
  get pid(): number {
    return (this.#client as unknown as { processID: number }).processID;
  }

  get isOpen(): boolean {
    return this.#lost === undefined;
  }

  /** True if the open transaction, or the last one, has written anything in an operation. */
  get wrote(): boolean {
    return this.#transaction.wrote;
  }

  /** Runs once the session has no connection any more, also after `close`. */
  onEnd(action: (error: ConnectionLost) => void): void {
    if (this.#lost === undefined) this.#endings.push(action);
    else action(this.#lost);
  }

  /**
   * Opens a transaction, and gives what the first statements in it were answered, all in one round trip. The commit of
   * the one before may be under way: the server comes to both in their order.
   *
   * @param options `toRead` for one snapshot of everything, in which nothing can be written. `inserts` is how many rows
   * will be inserted, where that is known.
   */
  async begin(
    first: readonly Ask[] = [],
    { toRead = false, inserts = [] }: { toRead?: boolean; inserts?: readonly Inserts[] } = {},
  ): Promise<Row[][]> {
    this.#transaction = { isOpen: true, wrote: false, failure: undefined };
    if (toRead) this.#keys.clear();
    const keys = this.#keysForNext(inserts);
    const [, ...answers] = await this.together([
      toRead ? BEGIN_TO_READ : BEGIN,
      ...first,
      ...keys.map((each) => this.#reserve(each)),
    ]);
    for (const [index, each] of keys.entries()) each.free = keysIn(answers[first.length + index] as Row[]);
    return answers.slice(0, first.length);
  }

  /**
   * The tables that get keys: as many as are known to be needed, or as the last transaction has used. Those that it has
   * left are not above what others have given since.
   */
  #keysForNext(inserts: readonly Inserts[]): Keys[] {
    const known = new Map<Keys, number>();
    for (const { statement, times } of inserts) {
      const keys = this.#keysOf(insertionWithKey(statement));
      known.set(keys, (known.get(keys) ?? 0) + times);
    }
    for (const [table, keys] of this.#keys) {
      keys.next = Math.min(known.get(keys) ?? keys.used, MAX_RESERVED_KEYS);
      keys.free = [];
      keys.used = 0;
      if (keys.next === 0) this.#keys.delete(table);
    }
    return [...this.#keys.values()];
  }

  #keysOf({ table, column }: Pick<Keys, "table" | "column">): Keys {
    let keys = this.#keys.get(table);
    if (keys === undefined) {
      keys = { table, column, free: [], used: 0, next: 1 };
      this.#keys.set(table, keys);
    }
    return keys;
  }

  #reserve({ table, column, next }: Keys): Ask {
    return { ...RESERVE_KEYS, values: [`${this.schema}.${table}`, column, next] };
  }

  /** Reserves keys for rows beside those that were known when the transaction began. */
  async reserve(inserts: readonly Inserts[]): Promise<void> {
    await allOf(
      inserts.map(async ({ statement, times }) => {
        if (times === 0) return;
        const keys = this.#keysOf(insertionWithKey(statement));
        const { rows } = await this.#ask(
          this.#reserve({ ...keys, next: Math.min(times, MAX_RESERVED_KEYS) }),
        );
        keys.free.push(...keysIn(rows));
      }),
    );
  }

  /**
   * Commits, together with some last statements, in one round trip. Throws if the transaction was not committed; what
   * became of it is not known where `classifyShared` says `lost`. All of it has gone out when this returns a promise.
   */
  async commit(last: readonly Ask[] = []): Promise<Row[][]> {
    const transaction = this.#transaction;
    const asked = [...last, COMMIT].map((ask) => this.#ask(ask));
    // After one that fails the server passes over all that goes out together with it.
    this.#sendGathered();
    const answers = await allOf(asked);
    transaction.isOpen = false;
    // After an error in the transaction the server answers so, and has undone it.
    if (answers.at(-1)?.command !== "COMMIT")
      throw transaction.failure ?? new Error("the transaction was undone instead of committed");
    return answers.slice(0, -1).map(({ rows }) => rows);
  }

  /** Undoes what is open, if anything still is. Never throws: a connection that is lost has undone it. */
  async rollback(): Promise<void> {
    if (!this.#transaction.isOpen) return;
    // What fails before it has the server pass over all that goes out together with that.
    this.#sendGathered();
    this.#transaction.isOpen = false;
    await this.#ask({ text: "ROLLBACK" }).catch(() => {});
  }

  /**
   * Performs one operation inside the open transaction and returns what it returned. Throws if it throws, and if it
   * returns a refusal after it had written.
   */
  async perform<T>(operation: Operation<T>): Promise<T> {
    const writes = new Writes();
    const outcome = await this.drive(operation, writes);
    if (writes.some && outcome instanceof PawlError) {
      throw new Error(`refused (${outcome.kind}) after it had written`, { cause: outcome });
    }
    return outcome;
  }

  /** Performs one operation like `perform`, but undoes its writes where `isToUndo` says so of what it returned. */
  async performOrUndo<T>(operation: Operation<T>, isToUndo: (outcome: T) => boolean): Promise<T> {
    this.#send("SAVEPOINT operation");
    const outcome = await this.drive(operation);
    if (isToUndo(outcome)) this.#send("ROLLBACK TO operation");
    this.#send("RELEASE operation");
    return outcome;
  }

  /**
   * Performs an operation, each of its steps once the one before is answered. Several may go on side by side.
   *
   * @param writes is told what it writes.
   */
  async drive<T>(operation: Operation<T>, writes = new Writes()): Promise<T> {
    let step = operation.next();
    while (!step.done) step = operation.next(await this.#execute(step.value, writes));
    return step.value;
  }

  async #execute(step: Step, writes: Writes): Promise<unknown> {
    const { statement, params, single, key, unread, each } = step;
    if (each !== undefined) {
      const { each: _, ...one } = step;
      return await allOf(each.map((own) => this.#execute({ ...one, params: own }, writes)));
    }
    if (key) return await this.#insert(statement, params, writes);
    const translated = translate(statement);
    const values = valuesOf(params, translated.names);
    if (unread) return this.#sendWrite(translated, values, writes);
    const { name, text, reads } = translated;
    const asked = reads ? this.#read(translated, values) : this.#ask({ name, text, values });
    const { command, count, rows, givesRows } = await asked;
    if (command !== "SELECT" && count !== null && count > 0) this.#noteWrite(writes);
    if (!givesRows) return { changes: count, lastInsertRowid: 0 };
    return single ? rows[0] : rows;
  }

  /** Inserts a row under a key that the transaction has reserved: nobody waits for the insertion. */
  async #insert(statement: Statement, params: SqlParams, writes: Writes): Promise<Done> {
    const insertion = insertionWithKey(statement);
    const keys = this.#keysOf(insertion);
    while (keys.free.length === 0) {
      // Another operation may take what this one has asked for.
      keys.free.push(...keysIn((await this.#ask(this.#reserve(keys))).rows));
      keys.next = Math.min(2 * keys.next, MAX_RESERVED_KEYS);
    }
    keys.used += 1;
    const key = keys.free.shift() as number;
    this.#sendWrite(insertion, valuesOf({ ...params, [NEW_KEY]: key }, insertion.names), writes);
    return { changes: 1, lastInsertRowid: key };
  }

  #noteWrite(writes: Writes): void {
    this.#transaction.wrote = true;
    writes.some = true;
  }

  /** Sends a statement whose failure is that of all that come after it. */
  #sendWrite(statement: Translated, values: readonly SqlValue[], writes: Writes): void {
    this.#noteWrite(writes);
    const transaction = this.#transaction;
    this.#gather().write(statement, values, (error) => void this.#failed(error, transaction));
    if (!transaction.isOpen) this.#sendGathered();
  }

  #read(statement: Translated, values: readonly SqlValue[]): Promise<Answer> {
    const transaction = this.#transaction;
    return new Promise((resolve, reject) => {
      this.#gather().read(statement, values, resolve, (error) => reject(this.#failed(error, transaction)));
      if (!transaction.isOpen) this.#sendGathered();
    });
  }

  /** Performs a statement and gives its rows. Several that are asked for without waiting go out one after the other. */
  async query<Found = Row>(text: string, values: readonly SqlValue[] = [], name?: string): Promise<Found[]> {
    const { rows } = await this.#ask({ text, values, ...(name === undefined ? {} : { name }) });
    return rows as Found[];
  }

  /** Performs several statements in one round trip, and gives the rows of each; throws the first error. */
  async together(asks: readonly Ask[]): Promise<Row[][]> {
    return (await allOf(asks.map((ask) => this.#ask(ask)))).map(({ rows }) => rows);
  }

  /** Performs a text of several statements without parameters. */
  async script(text: string): Promise<void> {
    this.#sendGathered();
    await this.#client.query(text).catch((error) => {
      throw this.#explained(error);
    });
  }

  /** Has `onNotify` called with the payload of each notification on a channel, until the session ends. */
  async listen(channel: string, onNotify: (payload: string) => void): Promise<void> {
    this.#channels.set(channel, onNotify);
    await this.script(`LISTEN ${pg.escapeIdentifier(channel)}`);
  }

  /** Ends the session; what is open is undone. */
  async close(): Promise<void> {
    this.#sendGathered();
    const late = setTimeout(() => this.#stream.destroy(), CLOSING_MS);
    await this.#client.end().catch(() => {});
    clearTimeout(late);
    this.#end(new Error("the session was closed"));
  }

  /** Ends the session without a word to the server, whatever is under way. */
  destroy(): void {
    this.#stream.destroy();
    this.#end(new Error("the session was given up"));
  }

  /** Sends a statement whose failure shows in those after it. */
  #send(text: string): void {
    this.#ask({ text }).catch(() => {});
  }

  #ask(ask: Ask): Promise<Answer> {
    const transaction = this.#transaction;
    return new Promise((resolve, reject) => {
      this.#gather().add(ask, resolve, (error) => reject(this.#failed(error, transaction)));
      if (!transaction.isOpen) this.#sendGathered();
    });
  }

  /** What a statement fails with: in a transaction for what the first one did. */
  #failed(error: unknown, transaction: OpenTransaction): unknown {
    const explained = this.#explained(error);
    if (!transaction.isOpen) return explained;
    transaction.failure ??= explained;
    return transaction.failure;
  }

  #gather(): Gathered {
    if (this.#gathered !== undefined) return this.#gathered;
    const gathered = new Gathered(new Batch(this.#prepared));
    this.#gathered = gathered;
    process.nextTick(() => {
      if (this.#gathered === gathered) this.#sendGathered();
    });
    return gathered;
  }

  #sendGathered(): void {
    const gathered = this.#gathered;
    this.#gathered = undefined;
    if (gathered !== undefined) this.#client.query(gathered.end());
  }

  get #stream(): Duplex {
    return (this.#client as unknown as { connection: { stream: Duplex } }).connection.stream;
  }

  /** An error of the server as it is; any other is one of the connection, if that has ended. */
  #explained(error: unknown): unknown {
    if (error instanceof pg.DatabaseError || error instanceof PawlError) return error;
    if (error instanceof ConnectionLost) return error;
    const { message, code } = error as Error & { code?: unknown };
    if (this.#lost !== undefined) return new ConnectionLost(this.#lost.message, { cause: error });
    return isOfSystem(error)
      ? new ConnectionLost(`${this.shown}: ${message || code}`, { cause: error })
      : error;
  }

  #notOpened(error: unknown): unknown {
    const explained = this.#explained(error);
    if (explained instanceof ConnectionLost || explained instanceof pg.DatabaseError) return explained;
    if (explained instanceof PawlError) return explained;
    const { message } = explained as Error;
    if (NO_PASSWORD.test(message)) {
      return unfit(`${this.shown} asks for a password. Set PGPASSWORD in the daemon's environment.`, "");
    }
    return new ConnectionLost(`${this.shown}: ${message}`, { cause: error });
  }

  #end(error: Error): void {
    if (this.#lost !== undefined) return;
    this.#transaction.isOpen = false;
    this.#lost = new ConnectionLost(`${this.shown}: ${error.message}`, { cause: error });
    for (const action of this.#endings.splice(0)) action(this.#lost);
  }
}

function keysIn(rows: readonly Row[]): number[] {
  return rows.map(({ key }) => key as number);
}

/** Whether an operation has written anything. */
class Writes {
  some = false;
}

/** Of several statements that are under way: all are waited for, the first error is thrown. */
async function allOf<T>(asked: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(asked);
  return settled.map((each) => {
    if (each.status === "rejected") throw each.reason;
    return each.value;
  });
}

/** Errors of a socket, of the name service and of TLS have a code; that the server did not answer in time has none. */
function isOfSystem(error: unknown): boolean {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return typeof code === "string" || /timeout|terminated/i.test(String(message));
}

/** As `pg` says it that was given none. */
const NO_PASSWORD = /password must be a (?:non-empty )?string/;

function unfit(message: string, from: string | number): PawlError {
  return new PawlError("invalid_state", message, { from, to: "" });
}

const SCHEMA_NAME = /^[a-z_][a-z0-9_]{0,62}$/;

/** Takes a URL apart; refuses one that is none of PostgreSQL (`invalid_params`). The password is not in `shown`. */
export function placeOf(text: string): { connectionString: string; schema: string; shown: string } {
  let address: ReturnType<typeof readAddress>;
  try {
    address = readAddress(text);
  } catch {
    throw notAPlace();
  }
  const { url, user, database: named } = address;
  if (url.protocol !== "postgresql:" && url.protocol !== "postgres:") throw notAPlace();
  const wrong = wrongParameter(url);
  if (wrong !== undefined) throw new PawlError("invalid_params", `${wrong}.`, { issues: [] });
  const schema = url.searchParams.get("schema") ?? DEFAULT_SCHEMA;
  if (!SCHEMA_NAME.test(schema) || schema.startsWith("pg_")) {
    throw new PawlError(
      "invalid_params",
      `${schema} is no name of a schema: lower-case letters, digits and _`,
      {
        issues: [],
      },
    );
  }
  url.searchParams.delete("schema");
  const settings = Object.entries({ search_path: schema, ...SETTINGS });
  const own = url.searchParams.get("options") ?? "";
  url.searchParams.set(
    "options",
    [own, ...settings.map(([name, value]) => `-c ${name}=${value.replaceAll(" ", "\\ ")}`)].join(" ").trim(),
  );
  const host = url.searchParams.get("host") ?? (address.host || "localhost");
  const database = named || user;
  // `pg` leaves characters encoded that have a meaning in some part of an address.
  url.pathname = `/${encodeURI(named)}`;
  return { connectionString: url.href, schema, shown: `${host}/${database}` };
}

function notAPlace(): PawlError {
  return new PawlError("invalid_params", "a place of shared names is postgresql://USER@HOST/DATABASE", {
    issues: [],
  });
}

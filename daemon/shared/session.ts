// One connection to PostgreSQL, on which operations are driven with awaits between their steps.
//
// `pg` is the library because one client is one connection there, which nothing opens anew behind our back (locks and
// LISTEN live as long as it), and statements go out without waiting for the answers to those before them.
import type { Duplex } from "node:stream";
import { PawlError } from "@pawl/protocol/errors";
import pg from "pg";
import type { Done, Operation, SqlParams, SqlValue, Statement, Step } from "../store/statement.js";
import { type Answer, type Ask, Batch, type Prepared, type Row } from "./batch.js";
import { ConnectionLost } from "./failure.js";
import { insertionWithKey, KEY, translate, valuesOf } from "./statements.js";

/** Before it, some of what the tables and the turns need is not there. */
const OLDEST_SERVER_VERSION = 140_000;
const CONNECT_TIMEOUT_MS = 10_000;
/** The kernel asks a silent peer after so long whether it is still there. */
const KEEP_ALIVE_AFTER_MS = 5_000;
const DEFAULT_SCHEMA = "pawl";

/**
 * Settings of each session. Statements are short, so compiling them would take longer than they do. A server whose peer
 * has gone without a word notices so soon, and gives its locks free.
 */
const SETTINGS = {
  jit: "off",
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
const MAX_RESERVED_KEYS = 64;
const RESERVE_KEYS: Ask = {
  name: "pawl_reserve_keys",
  text: "SELECT nextval(pg_get_serial_sequence($1, $2)) AS key FROM generate_series(1, $3)",
};

const BEGIN: Ask = { name: "pawl_begin", text: "BEGIN" };
const BEGIN_TO_READ: Ask = {
  name: "pawl_begin_to_read",
  text: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
};
const COMMIT: Ask = { name: "pawl_commit", text: "COMMIT" };

/**
 * All the statements of a session are answered in their order; one transaction is open at a time. What is asked in it
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
  #inTransaction = false;
  #wrote = false;
  #operationWrote = false;
  readonly #prepared: Prepared = new Map();
  /** What goes out before the next tick. */
  #batch: Batch | undefined;
  /** Of the first statement of the transaction that failed: the server has refused all that came after. */
  #failure: unknown;
  /** The keys that the transaction has reserved, by their tables, and how many it reserves next. */
  readonly #keys = new Map<string, { free: number[]; next: number }>();

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
    try {
      await session.#client.connect();
      await session.#check();
    } catch (error) {
      await session.close();
      throw session.#explained(error);
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
    return this.#wrote;
  }

  /** Runs once the session has no connection any more, also after `close`. */
  onEnd(action: (error: ConnectionLost) => void): void {
    if (this.#lost === undefined) this.#endings.push(action);
    else action(this.#lost);
  }

  /**
   * Opens a transaction, and gives what the first statements in it were answered, all in one round trip.
   *
   * @param toRead true for one snapshot of everything, in which nothing can be written.
   */
  async begin(first: readonly Ask[] = [], { toRead = false } = {}): Promise<Row[][]> {
    this.#inTransaction = true;
    this.#wrote = false;
    this.#failure = undefined;
    // What the last transaction has left is not above what others have given since.
    this.#keys.clear();
    const [, ...answers] = await this.together([toRead ? BEGIN_TO_READ : BEGIN, ...first]);
    return answers;
  }

  /**
   * Commits, together with some last statements, in one round trip. Throws if the transaction was not committed; what
   * became of it is not known where `classifyShared` says `lost`.
   */
  async commit(last: readonly Ask[] = []): Promise<Row[][]> {
    const answers = await allOf([...last, COMMIT].map((ask) => this.#ask(ask)));
    this.#inTransaction = false;
    // After an error in the transaction the server answers so, and has undone it.
    if (answers.at(-1)?.command !== "COMMIT")
      throw this.#failure ?? new Error("the transaction was undone instead of committed");
    return answers.slice(0, -1).map(({ rows }) => rows);
  }

  /** Undoes what is open, if anything still is. Never throws: a connection that is lost has undone it. */
  async rollback(): Promise<void> {
    if (!this.#inTransaction) return;
    // What fails before it has the server pass over all that goes out together with that.
    this.#sendBatch();
    this.#inTransaction = false;
    await this.#ask({ text: "ROLLBACK" }).catch(() => {});
  }

  /**
   * Performs one operation inside the open transaction and returns what it returned. Throws if it throws, and if it
   * returns a refusal after it had written.
   */
  async perform<T>(operation: Operation<T>): Promise<T> {
    this.#operationWrote = false;
    const outcome = await this.drive(operation);
    if (this.#operationWrote && outcome instanceof PawlError) {
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

  /** Performs an operation, each of its steps once the one before is answered. */
  async drive<T>(operation: Operation<T>): Promise<T> {
    let step = operation.next();
    while (!step.done) step = operation.next(await this.#execute(step.value));
    return step.value;
  }

  async #execute({ statement, params, single, key, unread }: Step): Promise<unknown> {
    if (key) return await this.#insert(statement, params);
    const { name, text, names } = translate(statement);
    const ask = { name, text, values: valuesOf(params, names) };
    if (unread) return this.#sendWrite(ask);
    const { command, count, rows, givesRows } = await this.#ask(ask);
    if (command !== "SELECT" && count !== null && count > 0) this.#noteWrite();
    if (!givesRows) return { changes: count, lastInsertRowid: 0 };
    return single ? rows[0] : rows;
  }

  /** Inserts a row under a key that the transaction has reserved: nobody waits for the insertion. */
  async #insert(statement: Statement, params: SqlParams): Promise<Done> {
    const { name, text, names, table, column } = insertionWithKey(statement);
    let keys = this.#keys.get(table);
    if (keys === undefined) {
      keys = { free: [], next: 1 };
      this.#keys.set(table, keys);
    }
    if (keys.free.length === 0) {
      const ask = { ...RESERVE_KEYS, values: [`${this.schema}.${table}`, column, keys.next] };
      const { rows } = await this.#ask(ask);
      keys.free = rows.map(({ key }) => key as number);
      keys.next = Math.min(2 * keys.next, MAX_RESERVED_KEYS);
    }
    const key = keys.free.shift() as number;
    this.#sendWrite({ name, text, values: valuesOf({ ...params, [KEY]: key }, names) });
    return { changes: 1, lastInsertRowid: key };
  }

  #noteWrite(): void {
    this.#wrote = true;
    this.#operationWrote = true;
  }

  /** Sends a statement whose failure is that of all that come after it. */
  #sendWrite(ask: Ask): void {
    this.#noteWrite();
    this.#ask(ask).catch(() => {});
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
    this.#sendBatch();
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
    this.#sendBatch();
    await this.#client.end().catch(() => {});
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
    return new Promise((resolve, reject) => {
      const fail = (error: unknown): void => {
        const explained = this.#explained(error);
        if (this.#inTransaction) this.#failure ??= explained;
        reject(this.#inTransaction ? this.#failure : explained);
      };
      this.#openBatch().add(ask, resolve, fail);
      if (!this.#inTransaction) this.#sendBatch();
    });
  }

  #openBatch(): Batch {
    if (this.#batch !== undefined) return this.#batch;
    const batch = new Batch(this.#prepared);
    this.#batch = batch;
    process.nextTick(() => {
      if (this.#batch === batch) this.#sendBatch();
    });
    return batch;
  }

  #sendBatch(): void {
    const batch = this.#batch;
    this.#batch = undefined;
    if (batch !== undefined) this.#client.query(batch);
  }

  get #stream(): Duplex {
    return (this.#client as unknown as { connection: { stream: Duplex } }).connection.stream;
  }

  /** An error of the server as it is; any other is one of the connection, if that has ended. */
  #explained(error: unknown): unknown {
    if (error instanceof pg.DatabaseError || error instanceof PawlError) return error;
    if (error instanceof ConnectionLost) return error;
    const { message } = error as Error;
    if (this.#lost !== undefined) return new ConnectionLost(this.#lost.message, { cause: error });
    return isOfSystem(error) ? new ConnectionLost(`${this.shown}: ${message}`, { cause: error }) : error;
  }

  #end(error: Error): void {
    if (this.#lost !== undefined) return;
    this.#inTransaction = false;
    this.#lost = new ConnectionLost(`${this.shown}: ${error.message}`, { cause: error });
    for (const action of this.#endings.splice(0)) action(this.#lost);
  }
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

function unfit(message: string, from: string | number): PawlError {
  return new PawlError("invalid_state", message, { from, to: "" });
}

const SCHEMA_NAME = /^[a-z_][a-z0-9_]{0,62}$/;

/** Takes a URL apart; refuses one that is none of PostgreSQL (`invalid_params`). The password is not in `shown`. */
export function placeOf(text: string): { connectionString: string; schema: string; shown: string } {
  let url: URL;
  try {
    // As PostgreSQL's own programs take it: a user, and no host, because it is a socket.
    url = new URL(text.replace(/^(\w+:\/\/[^/?]*@)(?=[/?]|$)/, "$1localhost"));
  } catch {
    throw notAPlace();
  }
  if (url.protocol !== "postgresql:" && url.protocol !== "postgres:") throw notAPlace();
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
  const host = url.searchParams.get("host") ?? (decodeURIComponent(url.host) || "localhost");
  const database = decodeURIComponent(url.pathname.slice(1)) || decodeURIComponent(url.username);
  return { connectionString: url.href, schema, shown: `${host}/${database}` };
}

function notAPlace(): PawlError {
  return new PawlError("invalid_params", "a place of shared names is postgresql://USER@HOST/DATABASE", {
    issues: [],
  });
}

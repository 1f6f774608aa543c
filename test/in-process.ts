// The daemon from validation to commit without a socket, on a real database file, with a store and a clock that
// a test can get in between.
import { dirname, join } from "node:path";
import type { MethodName, Params, Result } from "@pawl/protocol";
import type { OneLease, SeveralLeases, SeveralNames } from "@pawl/protocol/types";
import Database from "better-sqlite3";
import pino from "pino";
import { onTestFinished } from "vitest";
import type { Step, TimeSource } from "../daemon/dist/clock.js";
import { ENDINGS } from "../daemon/dist/domain/ends.js";
import { Ends } from "../daemon/dist/grants/ends.js";
import { encode } from "../daemon/dist/json/raw-json.js";
import { RepeatedLines } from "../daemon/dist/log/repeated-lines.js";
import { openNodeIdentity } from "../daemon/dist/node-identity.js";
import { Dispatcher } from "../daemon/dist/rpc/dispatch.js";
import { servedMethods } from "../daemon/dist/rpc/served-methods.js";
import { classify } from "../daemon/dist/store/failure.js";
import { keepTime } from "../daemon/dist/store/kept-time.js";
import { type OpenDatabase, openDatabase } from "../daemon/dist/store/open-database.js";
import type { SqlValue } from "../daemon/dist/store/statement.js";
import type { Store } from "../daemon/dist/store/store.js";
import type { Call } from "../daemon/dist/turns/call.js";
import { Statistics } from "../daemon/dist/turns/statistics.js";
import { TurnLoop } from "../daemon/dist/turns/turn-loop.js";
import { privateDirectory } from "./daemon.js";
import {
  askInPlaceOf,
  contentInPlaceOf,
  type InPlace,
  inPlaceOf,
  isInPlaceOf,
  SHARED_URL,
} from "./postgresql-store.js";

export interface InProcessOptions {
  path?: string;
  time?: TimeSource;
  /**
   * The clock by which the loop tells that it was held up, and lets grants go on for a moment. Beside clocks of the
   * test it stands still, unless given, so that only those say what has ended, however slow the machine is.
   */
  elapsed?: () => number;
  /** How many milliseconds the next turn has; that of the daemon, unless given. */
  turnMs?: () => number;
  /** Where random bytes come from, if not from the kernel. */
  random?: (bytes: number) => Buffer;
  /** Puts something between the loop and the database. */
  wrap?: (store: Store) => Store;
  /** Members of what has arrived, in place of those of nothing. */
  arrivals?: PropertyDescriptorMap;
  /** Called after each turn that was committed. */
  committed?: () => void;
  /** The URL of a server that has the rows; null for SQLite also where `PAWL_TEST_SHARED` names one. */
  postgresql?: string | null;
  /** The process of each connection; otherwise all have one of which nothing is known. */
  processes?: boolean;
  /** The number of the process that another one is a child of. */
  parentOf?: (pid: number) => number | undefined;
  /** False while the peer of a connection has too much to read. */
  hasRoom?: (connection: number) => boolean;
}

export class InProcess {
  readonly path: string;
  readonly loop: TurnLoop;
  /** The errors that rolled turns back. */
  readonly rolledBack: unknown[] = [];
  /** How the wall clock was set. */
  readonly steps: Step[] = [];
  /** How many turns were committed. */
  turns = 0;
  readonly notified: { connection: number; method: string; params: object }[] = [];
  readonly #dispatcher: Dispatcher;
  readonly #database: OpenDatabase;
  /** The rows of its operations, where they are in PostgreSQL; the file has the time and the keys. */
  readonly #inPlace: InPlace | undefined;
  readonly #hasProcesses: boolean;
  readonly #hasRoom: (connection: number) => boolean;
  #open = true;

  constructor(options: InProcessOptions = {}) {
    this.path = options.path ?? join(privateDirectory(), "pawl.db");
    const { parentOf, time } = options;
    const elapsed = options.elapsed ?? (time === undefined ? undefined : () => 0);
    const database = openDatabase({
      path: this.path,
      ...(time === undefined ? {} : { time }),
    });
    const { postgresql = SHARED_URL ?? null } = options;
    this.#inPlace = postgresql === null ? undefined : inPlaceOf(this.path, postgresql);
    const store = this.#inPlace?.store ?? database.store;
    const ends = new Ends(ENDINGS);
    this.#hasProcesses = options.processes ?? false;
    this.#hasRoom = options.hasRoom ?? (() => true);
    this.loop = new TurnLoop({
      setting: {
        witness: undefined,
        store: options.wrap?.(store) ?? store,
        clock: database.clock,
        mode: database.mode,
        idDigits: database.idDigits,
        sign: database.sign,
        ...(options.random === undefined ? {} : { random: options.random }),
        // The key is a file beside the database, if that is one.
        identity:
          this.path === ":memory:"
            ? null
            : openNodeIdentity(
                { ...database, store },
                { stateDir: dirname(this.path), credentialsDirectory: undefined, acceptChange: false },
                () => {},
              ).identity,
        retentionMs: 7 * 24 * 60 * 60 * 1000,
        readOnly: false,
        ...(parentOf === undefined ? {} : { ancestorsOf: ({ pid }) => ancestors(pid, parentOf) }),
      },
      ...(elapsed === undefined ? {} : { elapsed }),
      ...(options.turnMs === undefined ? {} : { turnMs: options.turnMs }),
      classify,
      endings: ends,
      arrivals: Object.defineProperties(
        {
          waiting: 0,
          mayTakeMore: false,
          beginTurn: () => {},
          takeNext: () => undefined,
          took: () => {},
          used: () => {},
          stop: () => {},
          hold: () => {
            throw new Error("nothing has arrived");
          },
          keepTimes: () => {},
          goOn: () => false,
          isOpen: () => true,
        },
        options.arrivals ?? {},
      ),
      reports: {
        committed: () => {
          this.turns += 1;
          options.committed?.();
        },
        rolledBack: (error) => this.rolledBack.push(error),
        broken: () => {},
        locked: () => {},
        unlocked: () => {},
        stepped: (step) => this.steps.push(step),
        count: () => {},
        log: () => {},
        notify: (connection, method, params) => this.notified.push({ connection, method, params }),
      },
    });
    const outside = () => {
      throw new Error("there is nothing outside this process");
    };
    this.#dispatcher = new Dispatcher({
      methods: servedMethods({
        ownReport: { now: () => this.loop.time().wallMs, info: outside, stats: outside },
        // Nobody is connected whom a command could be pushed to.
        commandPush: () => ({ serve: outside, count: () => 0, deployments: () => [] }),
        events: {
          journal: undefined,
          subscriptions: { count: outside, nextId: outside, add: outside, remove: outside, has: outside },
        },
        async: { "daemon.backup": outside, "daemon.check": outside },
      }),
      statistics: new Statistics(),
      lines: new RepeatedLines(pino({ level: "silent" })),
      readOnly: false,
    });
    this.#database = database;
    this.loop.performNow((env) => ends.restart(env, database.clock.boottime()));
    this.loop.keepTime();
    onTestFinished(() => this.close());
  }

  /** Performs a method; rejects with its refusal. Calls made together share a turn. */
  call(method: "lease.acquire", params: SeveralNames, connection?: number): Promise<SeveralLeases>;
  call(method: "lease.acquire", params: Params<"lease.acquire">, connection?: number): Promise<OneLease>;
  call<N extends MethodName>(method: N, params: Params<N>, connection?: number): Promise<Result<N>>;
  async call<N extends MethodName>(method: N, params: Params<N>, connection = 1): Promise<Result<N>> {
    const sender = {
      caller: {
        connection,
        pid: this.#hasProcesses ? connection : 1,
        uid: 1,
        gid: 1,
        startTicks: this.#hasProcesses ? START_TICKS : null,
      },
      readOnly: false,
      closed: false,
      parked: () => {},
      holds: () => {},
    };
    const source = { json: () => JSON.stringify({ method, params }), bytes: 0 };
    const hasRoom = this.#hasRoom;
    const outcome = await new Promise((answer) => {
      const calls: Call[] = [];
      this.#dispatcher.call(method, params, sender, source, calls, {
        id: undefined,
        refusal: undefined,
        get hasRoom() {
          return hasRoom(connection);
        },
        answer,
      });
      for (const call of calls) this.submit(call);
    });
    if (outcome instanceof Error) throw outcome;
    // As it would travel.
    return JSON.parse(encode(outcome)) as Result<N>;
  }

  protected submit(call: Call): void {
    this.loop.submit(call);
  }

  /** Like a connection that closes: its waits end, and then what was granted for as long as it lasts. */
  disconnect(connection: number): void {
    this.loop.endWaits(connection);
    this.loop.disconnect(connection);
  }

  /** Like an orderly stop: the next one begins at the time at which this one ended. */
  close(): void {
    if (!this.#open) return;
    this.loop.keepTime();
    this.#database.end();
    this.crash();
  }

  /** Like `kill -9`: only what was committed is there afterwards. */
  crash(): void {
    if (!this.#open) return;
    this.#open = false;
    if (this.#inPlace !== undefined) this.#leaveInPlace(this.#inPlace);
    this.#database.close();
  }

  /** The next one reads the time from the file. */
  #leaveInPlace({ store, close }: InPlace): void {
    store.rollback();
    const [kept] = store.query("SELECT value FROM pawl_meta WHERE key = 'clock'");
    if (kept !== undefined) {
      const { store: file } = this.#database;
      file.begin();
      file.perform(keepTime(JSON.parse(kept.value as string)));
      file.commit();
    }
    close();
  }
}

/** When all processes began. */
const START_TICKS = 100;

function ancestors(
  pid: number | null,
  parentOf: (pid: number) => number | undefined,
): { pid: number; startTicks: number }[] {
  const found: { pid: number; startTicks: number }[] = [];
  for (let next = pid === null ? undefined : parentOf(pid); next !== undefined; next = parentOf(next))
    found.push({ pid: next, startTicks: START_TICKS });
  return found;
}

/** Every row of every table of a database, but for the clock, which moves by itself. */
export function contentOf(path: string): Record<string, unknown[]> {
  const content: Record<string, { key?: unknown }[]> = isInPlaceOf(path)
    ? contentInPlaceOf(path)
    : contentOfFile(path);
  return Object.fromEntries(
    Object.entries(content).map(([table, rows]) => [table, rows.filter(({ key }) => key !== "clock")]),
  );
}

function contentOfFile(path: string): Record<string, { key?: unknown }[]> {
  const database = new Database(path, { readonly: true });
  try {
    const tables = database
      .prepare(
        "SELECT name FROM pragma_table_list WHERE type IN ('table', 'shadow') AND name LIKE 'pawl!_%' ESCAPE '!' ORDER BY name",
      )
      .pluck()
      .all() as string[];
    return Object.fromEntries(
      tables.map((table) => {
        const order = database.prepare(`SELECT * FROM ${table}`).columns().length > 1 ? "1, 2" : "1";
        return [table, database.prepare(`SELECT * FROM ${table} ORDER BY ${order}`).all() as object[]];
      }),
    );
  } finally {
    database.close();
  }
}

/** What a query gives, in the SQL that SQLite and PostgreSQL share, on the rows of a database. */
export function rowsOf(path: string, query: string): Record<string, SqlValue>[] {
  if (isInPlaceOf(path)) return askInPlaceOf(path, query);
  const database = new Database(path, { readonly: true });
  try {
    return database.prepare(query).all() as Record<string, SqlValue>[];
  } finally {
    database.close();
  }
}

/** Changes rows of a database by a statement of the SQL that both share. */
export function changeRows(path: string, statement: string): void {
  if (isInPlaceOf(path)) return void askInPlaceOf(path, statement);
  const database = new Database(path);
  database.exec(statement);
  database.close();
}

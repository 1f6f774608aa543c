// Operations without a daemon: two drivers of the same generators, and the world as a test wants it.

import { randomBytes } from "node:crypto";
import type { Mode } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_ID_DIGITS } from "@pawl/protocol/limits";
import type Database from "better-sqlite3";
import { Session } from "../../daemon/dist/shared/session.js";
import { createTables } from "../../daemon/dist/shared/tables.js";
import { connect } from "../../daemon/dist/store/connection.js";
import { migrate } from "../../daemon/dist/store/migrate.js";
import { SqliteStore } from "../../daemon/dist/store/sqlite.js";
import type { Operation, SqlParams, Statement, Step } from "../../daemon/dist/store/statement.js";
import { isToUndo } from "../../daemon/dist/turns/attempt.js";
import { type Env, type Outcome, Unfinished, Wait } from "../../daemon/dist/turns/operation.js";
import { TurnMemory } from "../../daemon/dist/turns/turn-memory.js";
import { SHARED_URL } from "../postgresql-store.js";

/** Something that runs operations, each in a transaction of its own. */
export interface Driver {
  readonly database: Database.Database;
  perform<T>(operation: Operation<T>): Promise<T>;
  close(): void;
}

/** Performs an operation to its last step, each step in a transaction of its own. */
export async function performSteps<T>(
  driver: Driver,
  start: (env: Env) => Operation<Outcome<T>>,
  env: Env,
): Promise<T> {
  let outcome: unknown = await driver.perform(start(env));
  while (outcome instanceof Unfinished) outcome = await driver.perform(outcome.goOn(env));
  if (outcome instanceof PawlError || outcome instanceof Wait) throw outcome;
  return outcome as T;
}

/** An environment in which everything that a test does not give is missing, and says so when it is asked for. */
export function envOf(given: Partial<Env>): Env {
  return new Proxy(given, {
    get(target, name) {
      if (!(name in target)) throw new Error(`the test gives operations no ${String(name)}`);
      return target[name as keyof Env];
    },
  }) as Env;
}

/** The environment of a sequence operation. Its counts are added to `counted`. */
export function sequenceEnv(now: number, mode: Mode, counted: { dispensed: number } = { dispensed: 0 }): Env {
  const count = (_: string, by: number): void => {
    counted.dispensed += by;
  };
  return envOf({
    now,
    mode,
    idDigits: DEFAULT_ID_DIGITS,
    turn: new TurnMemory(),
    effects: envOf({
      count,
      tell: () => {},
      isFollowed: false,
      deadline: () => {},
      reached: () => {},
    } as Partial<Env>) as unknown as Env["effects"],
  });
}

/** The daemon's own store: every step at once. */
export function synchronousDriver(): Driver {
  const database = connect(":memory:");
  migrate(database);
  const store = new SqliteStore(database);
  return {
    database,
    async perform(operation) {
      store.begin();
      try {
        const outcome = store.perform(operation);
        store.commit();
        return outcome;
      } finally {
        store.rollback();
      }
    },
    close: () => store.close(),
  };
}

/** A driver whose database may be either. */
export interface OwnDriver extends Pick<Driver, "perform"> {
  /** The rows of a query in the SQL that both share. */
  rows(query: string): Promise<Record<string, unknown>[]>;
  close(): unknown;
}

/** The daemon's own store; a session that awaits with the server that `PAWL_TEST_SHARED` names, if it does. */
export async function ownDriver(): Promise<OwnDriver> {
  if (SHARED_URL === undefined) {
    const driver = synchronousDriver();
    const rows = async (query: string) => driver.database.prepare(query).all() as Record<string, unknown>[];
    return { ...driver, rows };
  }
  const place = new URL(SHARED_URL);
  place.searchParams.set("schema", `pawl_${randomBytes(8).toString("hex")}`);
  const session = await Session.open(place.href);
  await createTables(session, { dryRun: false });
  return {
    async perform(operation) {
      await session.begin();
      try {
        const outcome = await session.perform(operation);
        await session.commit();
        return outcome;
      } finally {
        await session.rollback();
      }
    },
    rows: (query) => session.query(query),
    close: () => session.close(),
  };
}

/**
 * A store that is asked over a network, as far as operations can tell. Operations that are begun meanwhile wait, since
 * there is one transaction.
 */
export function asynchronousDriver(): Driver {
  const database = connect(":memory:");
  migrate(database);
  let last: Promise<unknown> = Promise.resolve();
  return {
    database,
    perform(operation) {
      const outcome = last.then(() => driveWithAwaits(database, operation));
      last = outcome.catch(() => {});
      return outcome;
    },
    close: () => database.close(),
  };
}

/** Drives an operation in a transaction of its own, each step answered some turns of the event loop later. */
export async function driveWithAwaits<T>(database: Database.Database, operation: Operation<T>): Promise<T> {
  const answer = async ({ statement, params, single, each }: Step): Promise<unknown> => {
    if (each !== undefined) {
      const answers = [];
      for (const own of each)
        answers.push(await answer({ statement, params: own, ...(single && { single }) }));
      return answers;
    }
    await new Promise((resolve) => setImmediate(resolve));
    const prepared = preparedIn(database, statement);
    const perform = prepared.reader ? (single ? prepared.get : prepared.all) : prepared.run;
    const result: unknown = perform.call(prepared, params);
    await Promise.resolve();
    return result;
  };
  const order = (sql: string): Promise<unknown> => answer({ statement: { sql }, params: {} });

  await order("BEGIN IMMEDIATE");
  try {
    let step = operation.next();
    while (!step.done) step = operation.next(await answer(step.value));
    await order(isToUndo(step.value) ? "ROLLBACK" : "COMMIT");
    return step.value;
  } finally {
    if (database.inTransaction) database.exec("ROLLBACK");
  }
}

const prepared = new WeakMap<Database.Database, Map<string, Database.Statement<SqlParams>>>();

function preparedIn(database: Database.Database, { sql }: Statement): Database.Statement<SqlParams> {
  const known = prepared.get(database) ?? new Map<string, Database.Statement<SqlParams>>();
  prepared.set(database, known);
  const statement = known.get(sql) ?? database.prepare<SqlParams>(sql);
  known.set(sql, statement);
  return statement;
}

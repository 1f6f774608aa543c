import {
  type Dispenser,
  METHODS,
  type Method,
  type MethodName,
  type Mode,
  type Params,
  type Parsed,
  type Result,
} from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { node } from "./config/values.js";
import { format, next, peek, state } from "./domain/sequence/sequence.js";
import { describeIssues } from "./rpc/validation-errors.js";
import { keepTime } from "./store/kept-time.js";
import { type DatabaseOptions, openDatabase } from "./store/open-database.js";
import type { Operation } from "./store/statement.js";
import { ActorsApart } from "./turns/apart.js";
import type { Contenders, Effects, Env } from "./turns/operation.js";
import { TurnMemory } from "./turns/turn-memory.js";

/** A dispenser in this process; `close` lets another process have the database. */
export interface LocalDispenser extends Dispenser {
  close(): void;
}

/**
 * Opens the sequences of a database file in this process, without a daemon: the same rules, durable in the
 * same way, and like the daemon its only writer as long as it is open. Tables of other applications in the
 * file are left alone. Throws `PawlError` `invalid_state` when another process has it, or made it in another mode.
 */
export function openDispenser(options: DatabaseOptions): LocalDispenser {
  const database = openDatabase({ ...options, mode: checkedMode(options.mode) });

  function perform<T>(start: (env: Env) => Operation<T | PawlError>): T {
    const { store, clock } = database;
    const time = clock.read();
    store.begin();
    try {
      const outcome = store.perform(
        start({
          ...time,
          mode: database.mode,
          idDigits: database.idDigits,
          caller: NOBODY,
          mayWait: false,
          woken: null,
          waitsBefore: () => false,
          isLeft: () => false,
          mayGoOn: false,
          effects: NO_EFFECTS,
          turn: new TurnMemory(),
          waiting: () => 0,
          before: () => [],
          contenders: NOBODY_WAITS,
          contender: undefined,
          mayOvertake: false,
          cancelWaits: () => false,
          random: noRandom,
          sign: database.sign,
          identity: null,
          retentionMs: 0,
          idMark: "",
        }),
      );
      const toKeep = store.wrote ? clock.toKeep(time) : undefined;
      if (toKeep !== undefined) store.perform(keepTime(toKeep));
      store.commit();
      if (toKeep !== undefined) clock.wasKept(toKeep);
      if (outcome instanceof PawlError) throw outcome;
      return outcome;
    } finally {
      store.rollback();
    }
  }

  const take = (type: string) => perform((env) => next(parse("sequence.next", { type }), env));
  return {
    next: async (type) => take(type).seq,
    nextId: async (type) => take(type).id,
    peek: async (type) => perform((env) => peek(parse("sequence.peek", { type }), env)).seq,
    state: async (): Promise<Result<"sequence.state">> => {
      const pageAfter = (after?: string): Result<"sequence.state"> =>
        perform(
          (env) => state(parse("sequence.state", { after }), env) as Operation<Result<"sequence.state">>,
        );
      const { next, ...whole } = pageAfter();
      for (let after = next; after !== undefined; ) {
        const page = pageAfter(after);
        Object.assign(whole.sequences, page.sequences);
        Object.assign(whole.granted, page.granted);
        after = page.next;
      }
      return whole;
    },
    formatId: async (type, seq) => perform((env) => format(parse("sequence.format", { type, seq }), env)).id,
    close: () => database.close(),
  };
}

/** The same in memory: numbers start at 1 each time. For tests. */
export function memoryDispenser(options: Omit<DatabaseOptions, "path"> = {}): LocalDispenser {
  return openDispenser({ ...options, path: ":memory:" });
}

/** Params that the daemon would take; throws what it would refuse others with. */
function parse<N extends MethodName>(name: N, params: Params<N>): Parsed<N> {
  const { params: schema } = METHODS.find((method) => method.name === name) as Method;
  const { success, data, error } = schema.safeParse(params);
  if (!success) throw describeIssues(name, error.issues, params);
  return data as Parsed<N>;
}

/** The node id as the daemon reads it, which has names in upper case. */
function checkedMode(given: Mode | undefined): Mode | undefined {
  return given?.kind === "distributed" ? { ...given, nodeId: node(given.nodeId, "nodeId") } : given;
}

const NOBODY = { connection: 0, pid: null, uid: null, gid: null };

const NOBODY_WAITS: Contenders = {
  apart: new ActorsApart(),
  of: () => [],
  below: () => [],
  under: () => [],
  standingIn: () => [],
  everyone: () => [],
};

const NO_EFFECTS: Effects = {
  wake: () => {},
  deadline: () => {},
  wallDeadline: () => {},
  count: () => {},
  reached: () => {},
  bind: () => {},
  notify: () => {},
  tell: () => {},
  note: () => {},
  noteDuration: () => {},
  isFollowed: false,
  log: () => {},
  afterCommit: () => {},
};

function noRandom(): never {
  throw new Error("sequences need no randomness");
}

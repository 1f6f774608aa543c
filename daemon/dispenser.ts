import type { Dispenser, Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { formatId, next, peek, state } from "./domain/sequence.js";
import { type EngineOptions, openEngine } from "./engine.js";
import type { Effects, Env, Operation } from "./operation.js";

/** A dispenser in this process; `close` lets another process have the database. */
export interface LocalDispenser extends Dispenser {
  close(): void;
}

/**
 * Opens the sequences of a database file in this process, without a daemon: the same engine, durable in the
 * same way, and like the daemon its only writer as long as it is open. Tables of other applications in the
 * file are left alone. Throws `PawlError` `invalid_state` when another process has it, or made it in another mode.
 */
export function openDispenser(options: EngineOptions): LocalDispenser {
  const engine = openEngine(options);

  function perform<T>(start: (env: Env) => Operation<T | PawlError>): T {
    const { now } = engine.clock.read();
    engine.store.begin();
    try {
      const outcome = engine.store.perform(
        start({
          now,
          mode: engine.mode,
          caller: NOBODY,
          mayWait: false,
          effects: NO_EFFECTS,
          random: noRandom,
        }),
      );
      engine.store.commit(now);
      if (outcome instanceof PawlError) throw outcome;
      return outcome;
    } finally {
      engine.store.rollback();
    }
  }

  return {
    next: async (type) => perform((env) => next({ type }, env)).seq,
    nextId: async (type) => perform((env) => next({ type }, env)).id,
    peek: async (type) => perform((env) => peek({ type }, env)).seq,
    state: async (): Promise<Result<"sequence.state">> => perform((env) => state({}, env)),
    formatId: async (type, seq) => formatId(type.toUpperCase(), seq, engine.mode),
    close: () => engine.close(),
  };
}

/** The same engine in memory: numbers start at 1 each time. For tests. */
export function memoryDispenser(options: Omit<EngineOptions, "path"> = {}): LocalDispenser {
  return openDispenser({ ...options, path: ":memory:" });
}

const NOBODY = { connection: 0, pid: null, uid: null };

const NO_EFFECTS: Effects = {
  wake: () => {},
  deadline: () => {},
  count: () => {},
  bind: () => {},
  afterCommit: () => {},
};

function noRandom(): never {
  throw new Error("sequences need no randomness");
}

// The daemon in this process, but with a store that answers later: each operation of a call is driven with awaits
// between its steps, over the same database file.
import { PawlError } from "@pawl/protocol/errors";
import type Database from "better-sqlite3";
import { connect } from "../daemon/dist/store/connection.js";
import { type Operation, run, sql } from "../daemon/dist/store/statement.js";
import { isToUndo } from "../daemon/dist/turns/attempt.js";
import { type Call, following } from "../daemon/dist/turns/call.js";
import { type Env, type Outcome, Tried, Unfinished, Wait } from "../daemon/dist/turns/operation.js";
import { TurnMemory } from "../daemon/dist/turns/turn-memory.js";
import { driveWithAwaits } from "./domain/drive.js";
import { InProcess, type InProcessOptions } from "./in-process.js";

/**
 * Each call is a transaction of its own on another connection. The turn loop tells the time, ends what is due before
 * the call, and carries out its effects after it; a call that has to wait is left to it.
 */
export class AsynchronousInProcess extends InProcess {
  readonly #database: Database.Database;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: InProcessOptions = {}) {
    super({ ...options, postgresql: null });
    this.#database = connect(this.path);
    // The loop commits before and after, and is synced.
    this.#database.pragma("synchronous = OFF");
  }

  /** A call that a limit of time has cut off may be within its transaction, which would lock the file. */
  override close(): void {
    this.#database.close();
    super.close();
  }

  override crash(): void {
    this.#database.close();
    super.crash();
  }

  protected override submit(call: Call): void {
    this.#last = this.#last.then(() => this.#perform(call)).catch((error) => call.settle(error));
  }

  async #perform(call: Call): Promise<void> {
    const env = await this.#ask(call, answering);
    const memory = new TurnMemory();
    const effects: [keyof Env["effects"], unknown[]][] = [];
    const collector = new Proxy({} as Env["effects"], {
      get:
        (_, name: keyof Env["effects"]) =>
        (...args: unknown[]) =>
          void effects.push([name, args]),
    });
    const changesBefore = this.#changes();
    const outcome = await driveWithAwaits(
      this.#database,
      (function* () {
        const result: Outcome<unknown> = yield* call.start({ ...env, turn: memory, effects: collector });
        if (!isToUndo(result)) yield* memory.writeBack();
        return result;
      })(),
    );
    if (outcome instanceof Wait) return this.loop.submit(call);
    if (outcome instanceof Tried) return call.settle(outcome.result);
    if (!(outcome instanceof PawlError)) {
      const wrote = this.#changes() > changesBefore;
      await this.#ask(call, function* (given) {
        for (const [name, args] of effects) (given.effects[name] as (...args: unknown[]) => void)(...args);
        // After a turn that wrote, the loop looks sooner for what ends.
        if (wrote) yield* run(writeNothingNew);
      });
    }
    if (outcome instanceof Unfinished) return this.#perform(following(call, outcome.goOn));
    call.settle(outcome);
  }

  #changes(): number {
    return this.#database.prepare("SELECT total_changes()").pluck().get() as number;
  }

  /** Has the loop make a turn for a caller, in which it performs this operation. */
  #ask<T>(call: Call, perform: (env: Env) => Operation<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.loop.submit({
        caller: call.caller,
        waitMs: call.waitMs,
        get closed() {
          return call.closed;
        },
        *start(env) {
          return { result: yield* perform(env) };
        },
        settle: (outcome) =>
          outcome instanceof Error ? reject(outcome) : resolve((outcome as { result: T }).result),
      });
    });
  }
}

const writeNothingNew = sql("UPDATE pawl_meta SET value = value WHERE key = 'mode'");

/** An operation that gives what it is given. */
function* answering<T>(given: T): Operation<T> {
  return given;
}

import { PawlError } from "@pawl/protocol/errors";
import * as records from "../domain/lease/remote-lease.js";
import { DAEMON } from "../turns/call.js";
import type { TurnLoop } from "../turns/turn-loop.js";
import type { ConfiguredProvider } from "./configured-provider.js";
import { inTurn } from "./in-turn.js";

/** The fencing tokens that providers have told of, so that every later one is higher. The database keeps them. */
export class SeenTokens {
  readonly #loop: TurnLoop;
  readonly #readOnly: boolean;
  /** By name, the highest that could not be written down: there is no space, or the daemon only reads. */
  readonly #unwritten = new Map<string, number>();

  constructor(loop: TurnLoop, readOnly: boolean) {
    this.#loop = loop;
    this.#readOnly = readOnly;
  }

  /** The highest token of a name, of the one that the database has and those that could not be written down. */
  highest(name: string, written: number): number {
    return Math.max(written, this.#unwritten.get(name) ?? 0);
  }

  /** Has every later token of a name be higher than this one, also when there is no space to write it down. */
  async remember(name: string, fencingToken: number, { text: provider }: ConfiguredProvider): Promise<void> {
    if (!this.#readOnly) {
      try {
        await inTurn(this.#loop, DAEMON, (env) => records.see({ name, fencingToken, provider }, env));
        this.#unwritten.delete(name);
        return;
      } catch (error) {
        if (!(error instanceof PawlError)) throw error;
      }
    }
    this.#unwritten.set(name, this.highest(name, fencingToken));
  }
}

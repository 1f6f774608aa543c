import type { Result } from "./types.js";

/**
 * Sequences, wherever they are kept: in the daemon (`@pawl/client`), in a database file or in memory of this
 * process (`@pawl/daemon`). All reject with `PawlError`.
 */
export interface Dispenser {
  /** Takes the next number of a type. */
  next(type: string): Promise<number>;
  /** Takes the next number of a type, as an id. */
  nextId(type: string): Promise<string>;
  /** The number that `next` would return. */
  peek(type: string): Promise<number>;
  /** The mode, and the last number dispensed per type. */
  state(): Promise<Result<"sequence.state">>;
  /** The id of a number. */
  formatId(type: string, seq: number): Promise<string>;
}

import type { PawlError } from "@pawl/protocol/errors";
import { MAX_WAITS_BYTES } from "@pawl/protocol/limits";
import { elapsed } from "../clock.js";

/** Calls wait so long for a database that cannot be written, and are then refused. */
export const MAX_HELD_MS = 5000;

/** Its params are parsed already: the values of a text of many small ones take some so many times as much as it. */
const HELD_BYTES_PER_BYTE = 16;

/** A call that cannot be performed now, and where it goes from here. */
export interface HeldCall {
  /** Since when it waits, in milliseconds of `elapsed`. */
  readonly since: number;
  /** The bytes of its request. */
  readonly bytes: number;
  /** Puts it back in its place, to be performed. */
  goOn(): void;
  refuse(refusal: PawlError): void;
}

/** The calls that wait until the database can be written, in the order they came. */
export class HeldCalls {
  readonly #calls = new Set<HeldCall>();
  #bytes = 0;

  get size(): number {
    return this.#calls.size;
  }

  /** True if no call of so many bytes may be added: all together would take too much. One alone may have any length. */
  isFullFor(bytes: number): boolean {
    return this.#calls.size > 0 && (this.#bytes + bytes) * HELD_BYTES_PER_BYTE > MAX_WAITS_BYTES;
  }

  add(call: HeldCall): void {
    this.#calls.add(call);
    this.#bytes += call.bytes;
  }

  /** Puts all back in their places. */
  goOn(): void {
    for (const call of this.#takeAll()) call.goOn();
  }

  /** Refuses those that have waited for as long as they may. */
  refuseOverdue(refusal: () => PawlError): void {
    const now = elapsed();
    let told: PawlError | undefined;
    for (const call of this.#calls) {
      if (now - call.since < MAX_HELD_MS) continue;
      this.#calls.delete(call);
      this.#bytes -= call.bytes;
      told ??= refusal();
      call.refuse(told);
    }
  }

  refuseAll(refusal: PawlError): void {
    for (const call of this.#takeAll()) call.refuse(refusal);
  }

  #takeAll(): HeldCall[] {
    const all = [...this.#calls];
    this.#calls.clear();
    this.#bytes = 0;
    return all;
  }
}

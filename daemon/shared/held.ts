// What the connections of this daemon hold at a place, as far as they have to be told of its loss when the database
// cannot be reached: the others end it then, and this daemon would not hear of that.
import type { NotificationName } from "@pawl/protocol";
import { elapsed } from "../clock.js";
import type { LostRow } from "../grants/on-loss.js";
import type { HolderProcess } from "../turns/holder-process.js";

/** A grant whose holder is told of its loss. */
export interface HeldGrant {
  readonly connection: number;
  /** For how long it was granted or renewed last. */
  readonly ttlMs: number;
  readonly tell: readonly { readonly method: NotificationName; readonly params: object }[];
  /** Its process, if that is ended when the grant is lost. */
  readonly onLoss:
    | (Pick<LostRow, "noun" | "signal" | "grace_ms"> & { readonly holder: HolderProcess })
    | undefined;
}

/** The same with its id, and since when it is held without being renewed, in milliseconds of `elapsed`. */
type Kept = HeldGrant & { readonly id: string; readonly since: number };

/** Grants by their ids, and how long the shortest of them lasts. */
export class HeldGrants {
  readonly #byId = new Map<string, Kept>();
  /** How many there are of each length. */
  readonly #lengths = new Map<number, number>();

  keep(id: string, grant: HeldGrant): void {
    // What is added to a reservation says nothing of that anew.
    const onLoss = grant.onLoss ?? this.#byId.get(id)?.onLoss;
    this.drop(id);
    this.#byId.set(id, { ...grant, onLoss, id, since: elapsed() });
    this.#lengths.set(grant.ttlMs, (this.#lengths.get(grant.ttlMs) ?? 0) + 1);
  }

  renew(id: string, ttlMs: number): void {
    const grant = this.#byId.get(id);
    if (grant !== undefined) this.keep(id, { ...grant, ttlMs });
  }

  has(id: string): boolean {
    return this.#byId.has(id);
  }

  drop(id: string): void {
    const grant = this.#byId.get(id);
    if (grant === undefined) return;
    this.#byId.delete(id);
    const left = (this.#lengths.get(grant.ttlMs) ?? 1) - 1;
    if (left === 0) this.#lengths.delete(grant.ttlMs);
    else this.#lengths.set(grant.ttlMs, left);
  }

  dropOf(connection: number): void {
    // A process that is ended when it loses the grant may go on without its connection.
    for (const [id, grant] of this.#byId)
      if (grant.connection === connection && grant.onLoss === undefined) this.drop(id);
  }

  /** In milliseconds; infinity for none. */
  get shortestMs(): number {
    let shortest = Number.POSITIVE_INFINITY;
    for (const ttlMs of this.#lengths.keys()) shortest = Math.min(shortest, ttlMs);
    return shortest;
  }

  takeAll(): Kept[] {
    const all = [...this.#byId.values()];
    this.#byId.clear();
    this.#lengths.clear();
    return all;
  }
}

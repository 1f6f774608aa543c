// What the connections of this daemon hold at a place, as far as they have to be told of its loss when the database
// cannot be reached: the others end it then, and this daemon would not hear of that.
import type { NotificationName } from "@pawl/protocol";

/** A grant whose holder is told of its loss. */
export interface HeldGrant {
  readonly connection: number;
  /** For how long it was granted or renewed last. */
  readonly ttlMs: number;
  readonly tell: readonly { readonly method: NotificationName; readonly params: object }[];
}

/** Grants by their ids, and how long the shortest of them lasts. */
export class HeldGrants {
  readonly #byId = new Map<string, HeldGrant>();
  /** How many there are of each length. */
  readonly #lengths = new Map<number, number>();

  keep(id: string, grant: HeldGrant): void {
    this.drop(id);
    this.#byId.set(id, grant);
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
    for (const [id, grant] of this.#byId) if (grant.connection === connection) this.drop(id);
  }

  /** In milliseconds; infinity for none. */
  get shortestMs(): number {
    let shortest = Number.POSITIVE_INFINITY;
    for (const ttlMs of this.#lengths.keys()) shortest = Math.min(shortest, ttlMs);
    return shortest;
  }

  takeAll(): HeldGrant[] {
    const all = [...this.#byId.values()];
    this.#byId.clear();
    this.#lengths.clear();
    return all;
  }
}

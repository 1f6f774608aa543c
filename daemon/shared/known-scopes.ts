import { type About, type GivenId, scopeOf, scopesOf } from "../domain/about.js";
import type { Operation } from "../store/statement.js";
import { EVERYTHING } from "../turns/operation.js";
import { type Losses, lossesOf } from "./held-elsewhere.js";

/** Claims and leases whose scopes are remembered. */
const MAX_REMEMBERED = 50_000;

/** The scope of what is about nothing that is there. */
export const NOWHERE = "nowhere";

/** By their ids, what holders of grants are told of a loss that were not granted here. */
export type Elsewhere = Map<string, Losses>;

/** The scopes that calls are about: known by their names, or by the ids of claims and leases that were granted here. */
export class KnownScopes {
  readonly #byId = new Map<string, readonly string[]>();

  /** Undefined if they have to be looked up. */
  of(about: About): readonly string[] | undefined {
    if (about.reaches) return [EVERYTHING];
    const scopes = [...about.names.map(scopeOf), ...about.beside];
    for (const { id } of about.ids) {
      const known = this.#byId.get(id);
      if (known === undefined) return undefined;
      scopes.push(...known);
    }
    return [...new Set(scopes)];
  }

  /**
   * Looks up what is not known.
   *
   * @param look performs an operation that only reads.
   * @param elsewhere is given what holders have to be told of what was not granted here; undefined if nobody asks.
   */
  async find(
    about: About,
    look: <T>(start: () => Operation<T>) => Promise<T>,
    elsewhere?: Elsewhere,
  ): Promise<readonly string[]> {
    const scopes = [...about.names.map(scopeOf), ...about.beside];
    for (const given of about.ids) {
      const found = await look(() => scopesOf(given));
      scopes.push(...found);
      if (found.length > 0) this.remember(given, found);
      elsewhere?.set(given.id, await look(() => lossesOf(given)));
    }
    // What is not there is refused by any turn.
    return scopes.length === 0 ? [NOWHERE] : [...new Set(scopes)];
  }

  remember({ kind, id }: Pick<GivenId, "kind" | "id">, scopes: readonly string[]): void {
    if (kind === "batch") return;
    if (this.#byId.size >= MAX_REMEMBERED) this.#byId.clear();
    this.#byId.set(id, scopes);
  }

  forget(id: string): void {
    this.#byId.delete(id);
  }

  clear(): void {
    this.#byId.clear();
  }
}

/**
 * Actors of whom a search for circles has found, in the turn under way, that they and all whom they wait for wait for
 * none but each other. A wait of somebody else that comes upon one of them closes no circle there: of many that begin
 * to wait behind each other, only the first has all of them looked at. A grant forgets them, since others wait for it.
 */
export class ActorsApart {
  readonly #actors = new Set<string>();
  readonly #processes = new Set<string>();

  has(actor: string): boolean {
    return this.#actors.has(actor);
  }

  /** @param process that the actor is of, as its descendants have it among their ancestors. */
  add(actor: string, process: string): void {
    this.#actors.add(actor);
    this.#processes.add(process);
  }

  /** Somebody waits for something more: forgets all, if one of them may wait for it, or it is one of them. */
  begins(actor: string, ancestors: readonly string[]): void {
    if (this.#actors.has(actor) || ancestors.some((each) => this.#processes.has(each))) this.forget();
  }

  forget(): void {
    if (this.#actors.size === 0) return;
    this.#actors.clear();
    this.#processes.clear();
  }
}

import type { Operation } from "../store/statement.js";

/** Rows that operations of one transaction have in common, kept by the room of the domain whose rows they are. */
export interface KeptRows {
  /** Writes what has changed since they were read or written last. */
  writeBack(): Operation<void>;
}

/**
 * Rows that many operations of a transaction read and change: the first one reads them, all change them here, and they
 * are written once, before the commit. A rollback drops them. A `transact`, which can be undone alone, begins with all
 * of them written, and when it has been undone they are read anew. An operation that reads such rows by SQL has them
 * written first, and must not refuse afterwards, because something is written then.
 */
export class TurnMemory {
  readonly #kept = new Map<new () => KeptRows, KeptRows>();

  /** The rows of a kind, none at first. */
  of<Rows extends KeptRows>(kind: new () => Rows): Rows {
    let rows = this.#kept.get(kind);
    if (rows === undefined) {
      rows = new kind();
      this.#kept.set(kind, rows);
    }
    return rows as Rows;
  }

  /** The rows of a kind; undefined if nobody has asked for them yet. */
  known<Rows extends KeptRows>(kind: new () => Rows): Rows | undefined {
    return this.#kept.get(kind) as Rows | undefined;
  }

  *writeBack(): Operation<void> {
    for (const rows of this.#kept.values()) yield* rows.writeBack();
  }

  forget(): void {
    this.#kept.clear();
  }
}

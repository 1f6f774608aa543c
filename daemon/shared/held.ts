// What the connections of this daemon hold at a place, as far as they have to be told of its loss when the database
// cannot be reached: the others end it then, and this daemon would not hear of that.
import type { NotificationName } from "@pawl/protocol";
import { elapsed } from "../clock.js";
import type { LostRow } from "../grants/on-loss.js";
import type { HolderProcess } from "../turns/holder-process.js";
import { type Caller, EVERYTHING } from "../turns/operation.js";

/** A grant whose holder is told of its loss. */
export interface HeldGrant {
  readonly connection: number;
  /** For how long it was granted or renewed last. */
  readonly ttlMs: number;
  /** For how long it goes on once others take this daemon for dead; infinity for what lasts by its time alone. */
  readonly graceMs: number;
  readonly tell: readonly { readonly method: NotificationName; readonly params: object }[];
  /** True if it is over by its time without a word to anybody. */
  readonly lapses?: boolean | undefined;
  /** Its process, if that is ended when the grant is lost. */
  readonly onLoss:
    | (Pick<LostRow, "noun" | "signal" | "grace_ms"> & { readonly holder: HolderProcess })
    | undefined;
}

/** The same with its id, and since when it is held without being renewed, in milliseconds of `elapsed`. */
type Kept = HeldGrant & { readonly id: string; readonly since: number };

/** A holder is told after this part of the time for which nobody else ends its grant, if the database is silent. */
export const TOLD_AFTER_PART = 1 / 3;

/** Grants by their ids, and how long the shortest of them is safe. */
export class HeldGrants {
  readonly #byId = new Map<string, Kept>();
  /** Of grants whose process is ended when they are lost, also of lost ones: the connection that has to close then. */
  readonly #toClose = new Map<string, number>();
  /** How many there are of each length. */
  readonly #lengths = new Map<number, number>();

  keep(id: string, grant: HeldGrant): void {
    // What is added to a reservation says nothing of that anew.
    const onLoss = grant.onLoss ?? this.#byId.get(id)?.onLoss;
    if (grant.onLoss !== undefined && !this.#toClose.has(id)) this.#toClose.set(id, grant.connection);
    this.drop(id);
    this.#byId.set(id, { ...grant, onLoss, id, since: elapsed() });
    this.#lengths.set(safeMs(grant), (this.#lengths.get(safeMs(grant)) ?? 0) + 1);
  }

  /** One that is bound to no connection is told of at the one that renews it, as its row has it. */
  renew(id: string, ttlMs: number, { connection, pid }: Pick<Caller, "connection" | "pid">): void {
    const grant = this.#byId.get(id);
    if (grant === undefined) return;
    if (grant.onLoss?.holder.pid === pid) this.#toClose.set(id, connection);
    const isBound = grant.graceMs < Number.POSITIVE_INFINITY;
    this.keep(id, { ...grant, ttlMs, connection: isBound ? grant.connection : connection });
  }

  has(id: string): boolean {
    return this.#byId.has(id);
  }

  /** Forgets one that was given back. */
  forget(id: string): void {
    this.drop(id);
    this.#toClose.delete(id);
  }

  /** The connection of this daemon that has to close before others are granted what was lost; 0 if it has. */
  toClose(id: string): number {
    return this.#toClose.get(id) ?? 0;
  }

  drop(id: string): void {
    const grant = this.#byId.get(id);
    if (grant === undefined) return;
    this.#byId.delete(id);
    const left = (this.#lengths.get(safeMs(grant)) ?? 1) - 1;
    if (left === 0) this.#lengths.delete(safeMs(grant));
    else this.#lengths.set(safeMs(grant), left);
  }

  /** Drops those of a connection that has closed, and gives their ids. */
  dropOf(connection: number): string[] {
    for (const [id, toClose] of this.#toClose) if (toClose === connection) this.#toClose.delete(id);
    // A process that is ended when it loses the grant may go on without its connection.
    return this.#take((grant) => grant.connection === connection && grant.onLoss === undefined).map(
      ({ id }) => id,
    );
  }

  /** The shortest time for which nobody else ends one of them, in milliseconds; infinity for none. */
  get shortestMs(): number {
    let shortest = Number.POSITIVE_INFINITY;
    for (const ms of this.#lengths.keys()) shortest = Math.min(shortest, ms);
    return shortest;
  }

  /** Forgets what is over by its time. */
  dropLapsed(): void {
    const now = elapsed();
    for (const { id, lapses, since, ttlMs } of this.#byId.values())
      if (lapses === true && since + ttlMs <= now) this.drop(id);
  }

  /**
   * The moment at which the first holder has to be told, in milliseconds of `elapsed`; infinity for none.
   *
   * @param heardAt since when the database has not answered.
   */
  firstLossAt(heardAt: number): number {
    let first = Number.POSITIVE_INFINITY;
    for (const grant of this.#byId.values()) first = Math.min(first, lossAt(grant, heardAt));
    return first;
  }

  /** Those whose holders have to be told by now. */
  lost(heardAt: number): HeldGrant[] {
    this.dropLapsed();
    return [...this.#byId.values()].filter(isLost(heardAt));
  }

  takeLost(heardAt: number): Kept[] {
    return this.#take(isLost(heardAt));
  }

  /** Takes those that end once others take this daemon for dead. */
  takeEndingWithLife(): Kept[] {
    return this.#take(endsWithLife);
  }

  #take(isTaken: (grant: Kept) => boolean): Kept[] {
    this.dropLapsed();
    const taken = [...this.#byId.values()].filter(isTaken);
    for (const { id } of taken) this.drop(id);
    return taken;
  }
}

/** The process of a lost grant is ended by the daemon that has the number under which it was granted. */
export function endsWithLife({ graceMs, onLoss }: HeldGrant): boolean {
  return graceMs < Number.POSITIVE_INFINITY || onLoss !== undefined;
}

function safeMs({ ttlMs, graceMs }: HeldGrant): number {
  return Math.min(ttlMs, graceMs);
}

function isLost(heardAt: number): (grant: Kept) => boolean {
  const now = elapsed();
  return (grant) => lossAt(grant, heardAt) <= now;
}

/** Who has not renewed for long is not told later than the grant ends. */
function lossAt(grant: Kept, heardAt: number): number {
  return Math.min(heardAt + safeMs(grant) * TOLD_AFTER_PART, grant.since + grant.ttlMs);
}

/** A connection's scopes are remembered up to so many. */
const MAX_SCOPES = 100;
/** The nouns whose grants end with connections, by the beginnings of their scopes. */
const NOUN = /^(lease|path|queue|command)[:.]/;

/** The scopes of what a connection was granted for as long as it lasts. */
export class HeldScopes {
  readonly #byNoun = new Map<string, Set<string>>();
  #count = 0;
  #isAll = false;

  add(scopes: readonly string[]): void {
    for (const scope of scopes) if (!this.#isAll) this.#add(scope);
  }

  #add(scope: string): void {
    const [, noun] = NOUN.exec(scope) ?? [];
    if (noun === undefined || this.#count >= MAX_SCOPES) {
      this.#isAll = true;
      this.#byNoun.clear();
      return;
    }
    const known = this.#byNoun.get(noun);
    if (known?.has(scope)) return;
    if (known === undefined) this.#byNoun.set(noun, new Set([scope]));
    else known.add(scope);
    this.#count += 1;
  }

  /** By their nouns; undefined is the noun where there may be any. */
  *byNoun(): Iterable<[noun: string | undefined, scopes: readonly string[]]> {
    if (this.#isAll) yield [undefined, [EVERYTHING]];
    for (const [noun, scopes] of this.#byNoun) yield [noun, [...scopes]];
  }
}

// A node of the board in memory: the pure rules over maps that stand for the tables that merge.ts describes,
// with no more loaded for each step than it asks for.
import { PawlError } from "@pawl/protocol/errors";
import { type Change, openChange, writeChange } from "../../daemon/dist/domain/board/change.js";
import { CLOCK_START, compareHlc, type Hlc, observe } from "../../daemon/dist/domain/board/hybrid-clock.js";
import { checkPlace, stepHeads } from "../../daemon/dist/domain/board/log.js";
import {
  type Cell,
  type Increment,
  type Item,
  type ItemRow,
  isNewer,
  itemOf,
  merge,
  type NoteCell,
  stampOf,
} from "../../daemon/dist/domain/board/merge.js";
import type { SignedChange } from "../../daemon/dist/domain/board/signed-text.js";
import { type ItemWrite, planDelete, planWrite } from "../../daemon/dist/domain/board/write.js";
import { type Author, BOARD, incarnation } from "./board-author.js";

/** The rules that can be replaced by mutants of them. */
export const RULES = { merge, itemOf, stepHeads, planWrite, planDelete };
export type Rules = typeof RULES;

export interface Snapshot {
  log: Map<string, Change>;
  heads: Map<string, Map<string, number>>;
  items: Map<string, ItemRow>;
  cells: Map<string, Map<string, Cell>>;
  increments: Map<string, Map<string, Increment>>;
  notes: Map<string, Map<string, NoteCell>>;
  clock: Hlc;
  incarnation: string;
  own: { seq: number; hash: string } | null;
}

export type Taken = "applied" | "forked" | "duplicate" | PawlError;

const opened = new WeakMap<SignedChange, Change>();

export class BoardNode {
  readonly author: Author;
  readonly #trusted: ReadonlySet<string>;
  readonly #rules: Rules;
  #incarnations = 0;
  #state: Snapshot;

  constructor(author: Author, trusted: readonly Author[], rules: Rules = RULES) {
    this.author = author;
    this.#trusted = new Set(trusted.map(({ id }) => id));
    this.#rules = rules;
    this.#state = {
      log: new Map(),
      heads: new Map(),
      items: new Map(),
      cells: new Map(),
      increments: new Map(),
      notes: new Map(),
      clock: CLOCK_START,
      incarnation: incarnation(0),
      own: null,
    };
  }

  get log(): ReadonlyMap<string, Change> {
    return this.#state.log;
  }

  get clock(): Hlc {
    return this.#state.clock;
  }

  get incarnation(): string {
    return this.#state.incarnation;
  }

  item(storyId: string): Item | null {
    const row = this.#state.items.get(storyId);
    if (row === undefined) return null;
    const cells = this.#state.cells.get(storyId);
    const fields = row.fields.map(
      (name) => [name, JSON.parse(cells?.get(`f/${name}`)?.value ?? "null")] as const,
    );
    return this.#rules.itemOf(row, Object.fromEntries(fields));
  }

  /** `wall author agent text` of an item's notes, in their order. */
  notes(storyId: string): string[] {
    const notes = [...(this.#state.notes.get(storyId)?.values() ?? [])];
    notes.sort((a, b) =>
      isNewer(a.stamp, b.stamp) ? 1 : isNewer(b.stamp, a.stamp) ? -1 : a.index - b.index,
    );
    return notes.map(({ index, stamp: { hash, wall, author } }) => {
      const op = this.#state.log.get(hash)?.ops.find((each) => each.storyId === storyId);
      const { agent, text } = JSON.parse(op?.set.get(`n/${index}`) ?? "{}");
      return `${wall} ${author} ${agent} ${text}`;
    });
  }

  /** `pipeline.write`. Undefined when there is nothing to say. */
  write(params: ItemWrite, now: number): Change | PawlError | undefined {
    const ranks = [...this.#state.items.values()]
      .map((row) => this.#rules.itemOf(row))
      .filter((item) => item !== null && item.stage === params.stage)
      .map((item) => (item as Item).rank);
    const op = this.#rules.planWrite(
      this.#state.items.get(params.storyId),
      params,
      ranks.sort().at(-1) ?? null,
    );
    return op === undefined || op instanceof PawlError ? op : this.#commitLocal([op], now);
  }

  /** `pipeline.delete`. */
  delete(storyId: string, now: number): Change | PawlError | undefined {
    const op = this.#rules.planDelete(this.#state.items.get(storyId));
    return op === undefined || op instanceof PawlError ? op : this.#commitLocal([op], now);
  }

  /** One change of `pipeline.apply`. */
  take(signed: SignedChange, now: number): Taken {
    const change = this.#open(signed);
    if (change instanceof PawlError) return change;
    if (this.#state.log.has(change.id)) return "duplicate";
    const prev = change.prev === null ? undefined : this.#state.log.get(change.prev);
    const refused = checkPlace(change, prev, now);
    if (refused !== undefined) return refused;
    const forks = this.#commit(change);
    // A change of its own that it does not know: it was restored from a copy, and goes on under another name.
    if (change.author === this.author.id && change.incarnation === this.#state.incarnation) {
      this.#incarnations += 1;
      this.#state.incarnation = incarnation(this.#incarnations);
      this.#state.own = null;
    }
    return forks ? "forked" : "applied";
  }

  copy(): Snapshot {
    return copyOf(this.#state);
  }

  restore(copy: Snapshot): void {
    this.#state = copyOf(copy);
  }

  /** Everything in the tables, in an order of its own. */
  tables(): unknown {
    const { items, cells, increments, notes, log } = this.#state;
    return {
      log: [...log.keys()].sort(),
      heads: this.heads(),
      items: sorted(items),
      cells: sorted(cells).map(([id, rows]) => [id, sorted(rows)]),
      increments: sorted(increments).map(([id, rows]) => [id, sorted(rows)]),
      notes: sorted(notes).map(([id, rows]) => [id, sorted(rows)]),
    };
  }

  heads(): string[] {
    const all = [...this.#state.heads].flatMap(([log, hashes]) =>
      [...hashes].map(([hash, seq]) => `${log}/${seq}/${hash}`),
    );
    return all.sort();
  }

  /** Canonical JSON of every field of the items that are alive, by storyId. */
  fields(): Map<string, Map<string, string>> {
    const alive = [...this.#state.items.values()].filter(({ generation }) => generation % 2 === 1);
    return new Map(
      alive.map(({ storyId }) => {
        const cells = this.#state.cells.get(storyId) ?? new Map<string, Cell>();
        return [storyId, new Map([...cells].map(([field, { value }]) => [field, value]))];
      }),
    );
  }

  get items(): Map<string, Item> {
    const shown = [...this.#state.items.keys()].map((storyId) => [storyId, this.item(storyId)] as const);
    return new Map(shown.filter((entry): entry is [string, Item] => entry[1] !== null));
  }

  get increments(): number {
    return [...this.#state.increments.values()].reduce((total, { size }) => total + size, 0);
  }

  /** Signatures found good once are remembered: verifying takes longer than all the rest, and retries are many. */
  #open(signed: SignedChange): Change | PawlError {
    const known = opened.get(signed);
    if (known !== undefined && this.#trusted.has(known.author)) return known;
    const change = openChange(signed, BOARD, (author) => (this.#trusted.has(author) ? "trusted" : "unknown"));
    if (!(change instanceof PawlError)) opened.set(signed, change);
    return change;
  }

  #commitLocal(ops: Parameters<typeof writeChange>[1], now: number): Change | PawlError {
    const { own: head, clock, incarnation } = this.#state;
    const log = { author: this.author.id, board: BOARD, incarnation, head, clock };
    const change = writeChange(log, ops, now, this.author.privateKey);
    if (change instanceof PawlError) return change;
    if (compareHlc(change.hlc, clock) <= 0)
      throw new Error("a local change is not later than everything seen");
    this.#commit(change);
    this.#state.own = { seq: change.seq, hash: change.id };
    return change;
  }

  #commit(change: Change): boolean {
    const state = this.#state;
    const log = `${change.author}/${change.incarnation}`;
    const heads = inner(state.heads, log);
    const { replaces, forks } = this.#rules.stepHeads(new Set(heads.keys()), change);
    if (replaces !== null) heads.delete(replaces);
    heads.set(change.id, change.seq);
    state.log.set(change.id, change);
    state.clock = observe(state.clock, change.hlc);
    for (const op of change.ops) {
      const item = state.items.get(op.storyId);
      const cells = inner(state.cells, op.storyId);
      const increments = inner(state.increments, op.storyId);
      const notes = inner(state.notes, op.storyId);
      const stored = item && {
        item,
        cells: new Map([...cells].filter(([field]) => op.set.has(field) || op.add.has(field))),
        increments: [...increments.values()].filter(({ field }) => op.set.has(field)),
      };
      const merged = this.#rules.merge(stored, op, stampOf(change));
      if (merged === undefined) continue;
      state.items.set(op.storyId, merged.item);
      if (merged.reset) {
        cells.clear();
        increments.clear();
        notes.clear();
      }
      for (const cell of merged.cells) cells.set(cell.field, cell);
      for (const { field, stamp } of merged.swallowed) increments.delete(`${field} ${stamp.hash}`);
      for (const each of merged.increments) increments.set(`${each.field} ${each.stamp.hash}`, each);
      for (const each of merged.notes) notes.set(`${each.stamp.hash} ${each.index}`, each);
    }
    return forks;
  }
}

function inner<V>(outer: Map<string, Map<string, V>>, key: string): Map<string, V> {
  let map = outer.get(key);
  if (map === undefined) {
    map = new Map();
    outer.set(key, map);
  }
  return map;
}

function sorted<V>(map: ReadonlyMap<string, V>): [string, V][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Rows are never changed in place, so that a copy of the maps is a copy of the state. */
function copyOf(state: Snapshot): Snapshot {
  const nested = <V>(outer: ReadonlyMap<string, ReadonlyMap<string, V>>) =>
    new Map([...outer].map(([key, map]) => [key, new Map(map)] as const));
  return {
    ...state,
    log: new Map(state.log),
    heads: nested(state.heads),
    items: new Map(state.items),
    cells: nested(state.cells),
    increments: nested(state.increments),
    notes: nested(state.notes),
  };
}

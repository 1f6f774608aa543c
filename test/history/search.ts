// A search for an order in which the operations on one thing could have taken effect, one after the other, each
// between its request and its answer, so that a model gives the answers that were given (linearizability).
//
// The history is followed in the order of its moments, and every explanation so far is kept: a state of the model, and
// which operations that are under way have taken effect in it ("just in time": an operation takes effect in an
// explanation only once an answer needs it; G. Lowe, Testing for linearizability, 2017). An answer that no explanation
// gives is a violation, at the first moment at which it can be known.
import type { Operation } from "./history.js";

export interface Model<State> {
  initial: State;
  /**
   * The states in which the operation may leave the thing if it takes effect in `state`, not later than `beforeMs`;
   * none if its outcome cannot be so. The very same `state` means that it changes nothing.
   */
  step(state: State, operation: Operation, beforeMs: number): State[];
}

/** An answer that cannot be explained, with the answers that it contradicts. */
export interface Violation {
  object: string;
  operation: Operation;
  /** The smallest set of operations whose outcomes, with that of `operation`, cannot all be true. */
  window: Operation[];
  /** The states that the thing could have been in before the answer. */
  states: string[];
}

/** Raised when there are too many explanations to follow them all. */
export class TooManyExplanations extends Error {}

/** More explanations than these are not followed: memory. An hour of faults had some with more than 20,000. */
const MAX_EXPLANATIONS = 200_000;
/** The same while the window of a violation is sought, which is tried again for each of its operations. */
const MAX_EXPLANATIONS_OF_WINDOW = 500;
/** Of a window, the most operations that are tried one by one. */
const MAX_TRIED = 400;
const MOST_SHOWN_STATES = 3;

interface Explanation<State> {
  state: State;
  /** Ids of operations that are under way and have taken effect, rising. */
  done: readonly number[];
  /** Which operations without a known outcome took effect, of those that `isWatched`: `+12-13`. */
  marks: string;
}

type Event = { operation: Operation; what: "sent" | "ended" };

export class Search<State> {
  readonly #object: string;
  readonly #model: Model<State>;
  readonly #isWatched: (operation: Operation) => boolean;
  #explanations: Explanation<State>[];
  #pending: Operation[] = [];
  #most = MAX_EXPLANATIONS;
  /** Where things stood when nothing was under way for the last time, and what came since. */
  #quiet: { explanations: Explanation<State>[]; events: Event[] };

  constructor(
    object: string,
    model: Model<State>,
    isWatched: (operation: Operation) => boolean = () => false,
  ) {
    this.#object = object;
    this.#model = model;
    this.#isWatched = isWatched;
    this.#explanations = [{ state: model.initial, done: [], marks: "" }];
    this.#quiet = { explanations: this.#explanations, events: [] };
  }

  get explanations(): number {
    return this.#explanations.length;
  }

  /** Follows operations that all come after those of before; returns the first answer that cannot be explained. */
  feed(operations: readonly Operation[]): Violation | undefined {
    for (const event of eventsOf(operations)) {
      const before = this.#explanations;
      this.#quiet.events.push(event);
      if (!this.#follow(event)) return this.#violation(event.operation, before);
      if (this.#pending.length === 0) this.#quiet = { explanations: this.#explanations, events: [] };
    }
    return undefined;
  }

  /**
   * Of each watched operation without a known outcome: whether it may have taken effect, and whether it may not.
   * Forgets them.
   */
  settle(): Map<number, Set<boolean>> {
    const outcomes = new Map<number, Set<boolean>>();
    for (const { marks } of this.#explanations) {
      for (const [, sign, id] of marks.matchAll(/([+-])(\d+)/g)) {
        const known = outcomes.get(Number(id)) ?? new Set();
        outcomes.set(Number(id), known.add(sign === "+"));
      }
    }
    this.#explanations = distinct(this.#explanations.map((each) => ({ ...each, marks: "" })));
    if (this.#pending.length === 0) this.#quiet = { explanations: this.#explanations, events: [] };
    return outcomes;
  }

  /** Follows one event; false if nothing explains it. */
  #follow({ operation, what }: Event): boolean {
    if (what === "sent") {
      this.#pending.push(operation);
      return true;
    }
    this.#explanations =
      operation.outcome.kind === "unknown" ? this.#given(operation) : this.#explaining(operation);
    this.#pending = this.#pending.filter(({ id }) => id !== operation.id);
    return this.#explanations.length > 0;
  }

  /** The explanations, once it is too late for an operation whose outcome nobody knows. */
  #given(operation: Operation): Explanation<State>[] {
    // It may have taken effect just before.
    const found: Explanation<State>[] = [...this.#explanations];
    for (const each of this.#through(operation)) found.push(each);
    const isWatched = this.#isWatched(operation);
    return distinct(
      found.map(({ state, done, marks }) => {
        const isDone = done.includes(operation.id);
        return {
          state,
          done: done.filter((id) => id !== operation.id),
          marks: isWatched ? `${marks}${isDone ? "+" : "-"}${operation.id}` : marks,
        };
      }),
    );
  }

  /** The explanations in which an operation has taken effect by now, which is then over. */
  #explaining(operation: Operation): Explanation<State>[] {
    return distinct(
      this.#through(operation).map((each) => ({
        ...each,
        done: each.done.filter((id) => id !== operation.id),
      })),
    );
  }

  /** Every way on from the explanations in which the operation takes effect, as the last one if not before. */
  #through(operation: Operation): Explanation<State>[] {
    const found: Explanation<State>[] = [];
    const seen = new Set<string>();
    const stack = [...this.#explanations];
    for (let each = stack.pop(); each !== undefined; each = stack.pop()) {
      if (each.done.includes(operation.id)) {
        found.push(each);
        continue;
      }
      const key = keyOf(each);
      if (seen.has(key)) continue;
      seen.add(key);
      if (seen.size > this.#most) throw new TooManyExplanations(`more than ${this.#most}`);
      stack.push(...this.#next(each, operation.ended.ms));
    }
    return found;
  }

  /** The explanation with one more operation that takes effect. */
  #next(explanation: Explanation<State>, beforeMs: number): Explanation<State>[] {
    const { state, done } = explanation;
    const found: Explanation<State>[] = [];
    for (const operation of this.#pending) {
      if (!this.#mayTakeEffect(operation, done)) continue;
      const states = this.#model.step(state, operation, Math.min(beforeMs, operation.ended.ms));
      const isKnown = operation.outcome.kind !== "unknown";
      for (const each of states) {
        if (each === state && !isKnown) continue;
        const next = { ...explanation, state: each, done: [...done, operation.id].sort((a, b) => a - b) };
        // Nothing is lost by taking at once an answer that fits and changes nothing.
        if (each === state && isKnown && states.length === 1) return [next];
        found.push(next);
      }
    }
    return found;
  }

  /** Not twice, and in the order in which its connection sent it. */
  #mayTakeEffect(operation: Operation, done: readonly number[]): boolean {
    if (done.includes(operation.id)) return false;
    if (operation.waits) return true;
    return this.#pending.every((other) => {
      if (other.connection !== operation.connection || other.waits || other.id === operation.id) return true;
      // Of those without an answer, an earlier one may have had no effect, and none has one after a later one.
      if (other.id > operation.id) return !done.includes(other.id);
      return other.outcome.kind === "unknown" || done.includes(other.id);
    });
  }

  #violation(operation: Operation, before: Explanation<State>[]): Violation {
    const { explanations, events } = this.#quiet;
    return {
      object: this.#object,
      operation,
      window: smallestWindow(operation, events, (weakened) => {
        const again = new Search(this.#object, this.#model, this.#isWatched);
        again.#explanations = explanations;
        again.#most = MAX_EXPLANATIONS_OF_WINDOW;
        return events.some((event) => !again.#follow(weakenedEvent(event, weakened)));
      }),
      states: before.slice(0, MOST_SHOWN_STATES).map(({ state }) => JSON.stringify(state)),
    };
  }
}

function eventsOf(operations: readonly Operation[]): Event[] {
  return operations
    .flatMap((operation): Event[] => [
      { operation, what: "sent" },
      { operation, what: "ended" },
    ])
    .sort((a, b) => momentOf(a) - momentOf(b));
}

function momentOf({ operation, what }: Event): number {
  return operation[what].order;
}

function keyOf<State>({ state, done, marks }: Explanation<State>): string {
  return `${done.join()}|${marks}|${JSON.stringify(state)}`;
}

function distinct<State>(explanations: Explanation<State>[]): Explanation<State>[] {
  if (explanations.length < 2) return explanations;
  const found = [...new Map(explanations.map((each) => [keyOf(each), each])).values()];
  if (found.length > MAX_EXPLANATIONS) throw new TooManyExplanations(`more than ${MAX_EXPLANATIONS}`);
  return found;
}

/**
 * The operations whose answers are needed for the contradiction. An answer that is forgotten only allows more, so what
 * cannot be explained without it can be explained with it even less.
 */
function smallestWindow(
  operation: Operation,
  events: readonly Event[],
  fails: (weakened: ReadonlySet<number>) => boolean,
): Operation[] {
  const known = [...new Set(events.map((event) => event.operation))].filter(
    ({ id, outcome }) => id !== operation.id && outcome.kind !== "unknown",
  );
  const weakened = new Set<number>();
  const failsWithout = (ids: readonly number[]): boolean => {
    for (const id of ids) weakened.add(id);
    try {
      if (fails(weakened)) return true;
    } catch (error) {
      if (!(error instanceof TooManyExplanations)) throw error;
    }
    for (const id of ids) weakened.delete(id);
    return false;
  };
  // In halves first, then one by one.
  for (let size = Math.ceil(known.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    const left = known.filter(({ id }) => !weakened.has(id));
    if (left.length > MAX_TRIED && size === 1) break;
    for (let from = 0; from < left.length; from += size) {
      failsWithout(left.slice(from, from + size).map(({ id }) => id));
    }
  }
  return [...known.filter(({ id }) => !weakened.has(id)), operation];
}

/** The event of an operation whose outcome is taken as unknown if it is among the weakened. */
function weakenedEvent({ operation, what }: Event, weakened: ReadonlySet<number>): Event {
  if (!weakened.has(operation.id)) return { operation, what };
  return { operation: { ...operation, outcome: { kind: "unknown" } }, what };
}

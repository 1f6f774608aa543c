import { EVENT_KINDS, type EventKind, type EventNoun, MAX_NAMED_QUEUES } from "@pawl/protocol";

/** The upper bounds of how long batches waited for their claims and were worked on, in milliseconds. */
const WORK_BOUNDS_MS = [
  5, 25, 100, 500, 2_500, 10_000, 60_000, 300_000, 1_800_000, 7_200_000, 86_400_000,
] as const;

/** How often there was something up to each bound and beyond the last, and the sum of it. */
export interface Histogram {
  readonly bounds: readonly number[];
  /** Of those above the bound before, up to this one; the last is of those beyond all bounds. */
  readonly counts: number[];
  readonly sum: number;
}

/** The place of the bound up to which something is, or that behind the last one. */
export function bucketOf(value: number, bounds: readonly number[]): number {
  let bucket = 0;
  while (bucket < bounds.length && value > (bounds[bucket] as number)) bucket += 1;
  return bucket;
}

/** What has happened to the batches of a queue. */
interface QueueTally {
  /** Null for all queues that are not named. */
  readonly queue: string | null;
  readonly events: Record<EventKind<"queue">, number>;
  readonly waitMs: Histogram;
  readonly runMs: Histogram;
}

const NOUNS = Object.keys(EVENT_KINDS) as EventNoun[];

/** The place of each kind among those of its noun. */
const PLACES = Object.fromEntries(
  NOUNS.map((noun) => [noun, Object.fromEntries(EVENT_KINDS[noun].map((kind, place) => [kind, place]))]),
) as Record<EventNoun, Record<string, number>>;

/** Buckets of a histogram, with the one beyond all bounds, and its sum behind them. */
const BUCKETS = WORK_BOUNDS_MS.length + 1;
/** What a queue has: its kinds, and two histograms. */
const WAIT = EVENT_KINDS.queue.length;
const RUN = WAIT + BUCKETS + 1;
const QUEUE_NUMBERS = RUN + BUCKETS + 1;

/** The first number of each noun but the queues. */
const FIRST = {} as Record<EventNoun, number>;
let others = 0;
for (const noun of NOUNS) {
  FIRST[noun] = others;
  if (noun !== "queue") others += EVENT_KINDS[noun].length;
}
/** The numbers of all queues that are not named; those of named queues follow. */
const REST = others;

/**
 * How often each effect was committed since the start of the daemon, in numbers that only go up. An effect of the turn
 * under way is noted as the place of its number, and is counted once the turn is committed: no statement, and no memory
 * once as many were noted in one turn before. The first queues to which something happens are named, so that what is
 * counted of one never changes its place; the others are counted together.
 */
export class Tally {
  #totals = new Float64Array(REST + QUEUE_NUMBERS);
  /** The first number of each queue that is named. */
  readonly #queues = new Map<string, number>();
  /** How much had been noted when each queue was named that the turn under way has named, in the order of those. */
  readonly #namedAt: number[] = [];
  #places = new Int32Array(64);
  #amounts = new Float64Array(64);
  #pending = 0;

  /** How much the turn under way has noted. */
  get pending(): number {
    return this.#pending;
  }

  /** Notes effects of the turn under way. @param name of the queue, if it is about one. */
  note<N extends EventNoun>(noun: N, name: string, kind: EventKind<N>, times: number): void {
    const first = noun === "queue" ? this.#ofQueue(name) : FIRST[noun];
    this.#add(first + (PLACES[noun][kind] as number), times);
  }

  /** Notes how long a batch waited for its claim, or was worked on. */
  noteDuration(queue: string, what: "wait" | "run", ms: number): void {
    const first = this.#ofQueue(queue) + (what === "wait" ? WAIT : RUN);
    this.#add(first + bucketOf(ms, WORK_BOUNDS_MS), 1);
    this.#add(first + BUCKETS, ms);
  }

  /** Counts what is no part of a turn. */
  count(noun: "daemon", kind: EventKind<"daemon">): void {
    const place = FIRST[noun] + (PLACES[noun][kind] as number);
    this.#totals[place] = (this.#totals[place] as number) + 1;
  }

  /** An operation of the turn under way was refused: forgets what came after so much. */
  forget(pending: number): void {
    this.#pending = pending;
    if (this.#namedAt.length > 0) this.#forgetNames(pending);
  }

  /** Queues to which nothing has happened after all are not named. */
  #forgetNames(pending: number): void {
    const kept = this.#namedAt.filter((at) => at < pending).length;
    const names = [...this.#queues.keys()].slice(this.#queues.size - this.#namedAt.length + kept);
    for (const name of names) this.#queues.delete(name);
    this.#namedAt.length = kept;
    this.#totals = this.#totals.slice(0, REST + (1 + this.#queues.size) * QUEUE_NUMBERS);
  }

  /** The turn under way is committed. */
  commit(): void {
    const totals = this.#totals;
    for (let index = 0; index < this.#pending; index++) {
      const place = this.#places[index] as number;
      totals[place] = (totals[place] as number) + (this.#amounts[index] as number);
    }
    this.#pending = 0;
    if (this.#namedAt.length > 0) this.#namedAt.length = 0;
  }

  /** How many effects of each kind there were, by noun. */
  get events(): Record<EventNoun, Record<string, number>> {
    const events = {} as Record<EventNoun, Record<string, number>>;
    for (const noun of NOUNS) events[noun] = this.#kinds(noun, FIRST[noun]);
    const firsts = [REST, ...this.#queues.values()];
    for (const [place, kind] of EVENT_KINDS.queue.entries()) {
      events.queue[kind] = firsts.reduce((sum, first) => sum + (this.#totals[first + place] as number), 0);
    }
    return events;
  }

  /** The same by queue: the named ones in the order in which they came, then all others together. */
  get queues(): QueueTally[] {
    const named = [...this.#queues].map(([queue, first]) => this.#queueAt(queue, first));
    return [...named, this.#queueAt(null, REST)];
  }

  #queueAt(queue: string | null, first: number): QueueTally {
    return {
      queue,
      events: this.#kinds("queue", first) as QueueTally["events"],
      waitMs: this.#histogram(first + WAIT),
      runMs: this.#histogram(first + RUN),
    };
  }

  #kinds(noun: EventNoun, first: number): Record<string, number> {
    return Object.fromEntries(
      EVENT_KINDS[noun].map((kind, place) => [kind, this.#totals[first + place] ?? 0]),
    );
  }

  #histogram(first: number): Histogram {
    const counts = [...this.#totals.subarray(first, first + BUCKETS)];
    return { bounds: WORK_BOUNDS_MS, counts, sum: this.#totals[first + BUCKETS] as number };
  }

  #ofQueue(name: string): number {
    const first = this.#queues.get(name);
    if (first !== undefined) return first;
    if (this.#queues.size === MAX_NAMED_QUEUES) return REST;
    const made = this.#totals.length;
    const totals = new Float64Array(made + QUEUE_NUMBERS);
    totals.set(this.#totals);
    this.#totals = totals;
    this.#queues.set(name, made);
    this.#namedAt.push(this.#pending);
    return made;
  }

  #add(place: number, amount: number): void {
    if (this.#pending === this.#places.length) this.#grow();
    this.#places[this.#pending] = place;
    this.#amounts[this.#pending] = amount;
    this.#pending += 1;
  }

  #grow(): void {
    const places = new Int32Array(2 * this.#places.length);
    places.set(this.#places);
    this.#places = places;
    const amounts = new Float64Array(2 * this.#amounts.length);
    amounts.set(this.#amounts);
    this.#amounts = amounts;
  }
}

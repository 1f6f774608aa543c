import { randomBytes } from "node:crypto";
import { EVENT_KINDS, type EventKind, type EventNoun } from "@pawl/protocol";

/** So many events of a noun are kept ... */
const MAX_KEPT = 16_384;
/** ... or so many bytes of them. */
const MAX_KEPT_BYTES = 8 * 1024 * 1024;
/** What an event takes beside its labels. */
const KEPT_BYTES = 160;

/** Members of an event that only some have (spec: events.md). */
export interface EventDetails {
  readonly by?: string | undefined;
  readonly fencingToken?: number | undefined;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  readonly reason?: string | undefined;
}

/** The key under which calls wait for events: those of one thing, or of several. */
export function eventsKey(only: Pick<KeptEvent, "noun" | "name"> | undefined): string {
  return only === undefined ? "events" : `events ${only.noun}:${only.name}`;
}

/** One effect on one thing. Its text is made for those who are told of it: most events are told to few or to nobody. */
export interface KeptEvent {
  /** Its place among all events of this life of the daemon, from 1 on. */
  readonly number: number;
  readonly noun: EventNoun;
  readonly name: string;
  readonly kind: string;
  readonly id: string;
  /** By the wall clock. */
  readonly at: number;
  readonly details: EventDetails | undefined;
}

/** Events behind a place, in their order, and the place to go on from. */
export interface Page {
  readonly events: readonly KeptEvent[];
  readonly next: number;
  /** True if events that would be in it may be gone; then it is empty. */
  readonly gap: boolean;
}

/** The topics of one follower, made ready to be compared. */
export class Topics {
  /** By noun: the names, the beginnings of names, or all; a noun that is not there has none. */
  readonly #byNoun = new Map<EventNoun, { all: boolean; names: Set<string>; prefixes: string[] }>();
  /** The one thing that they are about; undefined for several or a pattern. */
  readonly only: { readonly noun: EventNoun; readonly name: string } | undefined;

  /** Tells them apart from others. */
  readonly text: string;

  /** @param topics as `queue:mail`, `lease:deploy/*`, `daemon` or `*`; checked before. */
  constructor(topics: readonly string[]) {
    this.text = JSON.stringify(topics);
    for (const topic of topics) {
      const colon = topic.indexOf(":");
      const noun = (colon < 0 ? topic : topic.slice(0, colon)) as EventNoun | "*";
      if (noun === "*") for (const each of NOUNS) this.#of(each).all = true;
      else if (colon < 0) this.#of(noun).all = true;
      else if (topic.endsWith("*")) this.#of(noun).prefixes.push(topic.slice(colon + 1, -1));
      else this.#of(noun).names.add(topic.slice(colon + 1));
    }
    const [first, second] = this.#byNoun;
    if (first === undefined || second !== undefined) return;
    const [noun, { all, names, prefixes }] = first;
    const [name] = names;
    if (!all && prefixes.length === 0 && names.size === 1) this.only = { noun, name: name as string };
  }

  get nouns(): Iterable<EventNoun> {
    return this.#byNoun.keys();
  }

  fit({ noun, name }: Pick<KeptEvent, "noun" | "name">): boolean {
    const wanted = this.#byNoun.get(noun);
    if (wanted === undefined) return false;
    return wanted.all || wanted.names.has(name) || wanted.prefixes.some((prefix) => name.startsWith(prefix));
  }

  #of(noun: EventNoun) {
    let wanted = this.#byNoun.get(noun);
    if (wanted === undefined) {
      wanted = { all: false, names: new Set(), prefixes: [] };
      this.#byNoun.set(noun, wanted);
    }
    return wanted;
  }
}

const NOUNS = Object.keys(EVENT_KINDS) as EventNoun[];

function bytesOf({ name, id, details }: KeptEvent): number {
  let bytes = KEPT_BYTES + name.length + id.length;
  if (details === undefined) return bytes;
  const { by, from, to, reason } = details;
  for (const text of [by, from, to, reason]) bytes += text === undefined ? 0 : text.length;
  return bytes;
}

/** The last events of a noun, the oldest first. */
class Ring {
  #events: KeptEvent[] = [];
  #first = 0;
  #bytes = 0;
  /** The number of the last event that is gone. */
  gone = 0;

  push(event: KeptEvent): void {
    this.#events.push(event);
    this.#bytes += bytesOf(event);
    while (this.#events.length - this.#first > MAX_KEPT || this.#bytes > MAX_KEPT_BYTES) {
      const oldest = this.#events[this.#first] as KeptEvent;
      this.gone = oldest.number;
      this.#bytes -= bytesOf(oldest);
      this.#first += 1;
    }
    if (this.#first <= MAX_KEPT) return;
    this.#events = this.#events.slice(this.#first);
    this.#first = 0;
  }

  /** The place of the first event behind a number. */
  placeBehind(number: number): number {
    let [low, high] = [this.#first, this.#events.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#events[middle] as KeptEvent).number > number) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  at(place: number): KeptEvent | undefined {
    return this.#events[place];
  }
}

/**
 * The last events of this life of the daemon, in memory. Nothing is kept, and nothing costs anything, before somebody
 * asks for the first time.
 */
export class Journal {
  /** Tells cursors of this life from those of others. */
  readonly #life = randomBytes(4).toString("hex");
  readonly #startedAt: number;
  readonly #rings = new Map<EventNoun, Ring>(NOUNS.map((noun) => [noun, new Ring()]));
  #last = 0;
  /** The events of the turn under way, which others see once it is committed. */
  #pending: KeptEvent[] = [];
  #isKept = false;
  /** True once somebody has waited by a call: only then events wake calls. */
  isWatched = false;
  /** Called when events were added. */
  onAdded: () => void = () => {};

  /** @param startedAt when the daemon started, by the wall clock. */
  constructor(startedAt: number) {
    this.#startedAt = startedAt;
  }

  /** True once somebody has asked. */
  get isKept(): boolean {
    return this.#isKept;
  }

  /** The number of the last event, also of the turn under way. */
  get last(): number {
    return this.#last + this.#pending.length;
  }

  /** The number of the last event that was committed. */
  get lastCommitted(): number {
    return this.#last;
  }

  /** How many events the turn under way has. */
  get pending(): number {
    return this.#pending.length;
  }

  /** Keeps events from now on. */
  keep(): void {
    this.#isKept = true;
  }

  cursor(number: number): string {
    return `${this.#life}-${number}`;
  }

  /** The number of a cursor; undefined for one of another life, or that was not given yet. */
  numberOf(cursor: string): number | undefined {
    const [life, number] = cursor.split("-");
    return life === this.#life && Number(number) <= this.last ? Number(number) : undefined;
  }

  /** True of a cursor that this life of the daemon has not given. */
  isOfAnotherLife(cursor: string): boolean {
    return !cursor.startsWith(this.#life);
  }

  /** Adds an event to the turn under way. */
  add<N extends EventNoun>(
    noun: N,
    name: string,
    kind: EventKind<N>,
    id: string,
    at: number,
    details?: EventDetails,
  ): void {
    this.#pending.push({ number: this.last + 1, noun, name, kind, id, at, details });
  }

  /**
   * That this life of the daemon has begun, for those who followed the one before: there is nobody else to tell.
   *
   * @param number where the follower goes on.
   */
  startedText(number: number): string {
    return this.textOf({
      number,
      noun: "daemon",
      name: "",
      kind: "started",
      id: "pawld",
      at: this.#startedAt,
      details: undefined,
    });
  }

  /** An event as JSON, as it is answered. */
  textOf({ number, noun, name, kind, id, at, details }: KeptEvent): string {
    const topic = noun === "daemon" ? '"daemon"' : JSON.stringify(`${noun}:${name}`);
    const text = `{"cursor":"${this.cursor(number)}","at":${at},"topic":${topic},"kind":"${kind}","id":${JSON.stringify(id)}`;
    const more = details === undefined ? "{}" : JSON.stringify(details);
    return more === "{}" ? `${text}}` : `${text},${more.slice(1)}`;
  }

  /** An operation of the turn under way was refused: forgets what came after so many events. */
  forget(pending: number): void {
    this.#pending.length = pending;
  }

  /** The turn under way is committed. */
  commit(): void {
    if (this.#pending.length === 0) return;
    for (const event of this.#pending) (this.#rings.get(event.noun) as Ring).push(event);
    this.#last += this.#pending.length;
    this.#pending = [];
    this.onAdded();
  }

  /** Events behind a number that topics fit, at most so many, with those of the turn under way. */
  read(topics: Topics, since: number, limit: number): Page {
    const rings = [...topics.nouns].map((noun) => this.#rings.get(noun) as Ring);
    if (rings.some(({ gone }) => gone > since)) return { events: [], next: this.last, gap: true };
    const places = rings.map((ring) => ring.placeBehind(since));
    const events: KeptEvent[] = [];
    for (;;) {
      let first: KeptEvent | undefined;
      let of = 0;
      for (let index = 0; index < rings.length; index++) {
        const event = rings[index]?.at(places[index] as number);
        if (event === undefined || (first !== undefined && event.number > first.number)) continue;
        first = event;
        of = index;
      }
      if (first === undefined) break;
      places[of] = (places[of] as number) + 1;
      if (!topics.fit(first)) continue;
      events.push(first);
      if (events.length === limit) return { events, next: first.number, gap: false };
    }
    for (const event of this.#pending) {
      if (event.number <= since || !topics.fit(event)) continue;
      events.push(event);
      if (events.length === limit) return { events, next: event.number, gap: false };
    }
    return { events, next: this.last, gap: false };
  }
}

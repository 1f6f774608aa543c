import type { MethodName, Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type About, aboutOf, type GivenId, type Named, NOTHING } from "../domain/about.js";
import { LEASE_BEGINNING } from "../domain/board/work-state.js";
import { Found, find as findHolders, ownSource } from "../domain/graph.js";
import type { WaitingElsewhere } from "../domain/lease/holder.js";
import { fits, fitsBeginning } from "../domain/name-pattern.js";
import { someEnabled } from "../domain/schedule/occurrences.js";
import { find } from "../domain/schedule/row.js";
import type { Operation } from "../store/statement.js";
import { type Call, DAEMON } from "../turns/call.js";
import type { Caller, Env } from "../turns/operation.js";
import { ConnectionOrder } from "./connection-order.js";
import { Place, type PlaceOptions, type Request } from "./place.js";
import { PlacedCall } from "./placed-call.js";
import type { SharedNoun, SharedRule } from "./specification.js";
import { isDoneWithin } from "./within.js";

/**
 * A call that is performed at a place, and not in this process's turns; or about schedules, which are `sought`, since
 * their names do not say where they are; or about `all` schedules; or about all who hold and wait (`graph`).
 */
export interface Route {
  readonly place: Place | "sought" | "all" | "graph";
  readonly request: Request;
}

/** The node's own database. */
export interface Here {
  /** True if it has signed a text so. */
  readonly hasSigned: (text: string, signature: string) => boolean;
  /** Performs a call in a turn of this process. */
  readonly submit: (call: Call) => void;
  /** The calls that wait for leases which providers keep. */
  readonly everyoneWaiting: () => readonly WaitingElsewhere[];
}

/** A call of this process's own turns that stands between calls of its connection at a place. */
class CallBetween extends PlacedCall {
  constructor(call: Call, performed: () => void) {
    super({ call, about: NOTHING, scopes: [], remember: (outcome) => outcome, performed });
  }

  override parked(bytes: number): void {
    super.parked(bytes);
    if (bytes > 0) this.performed();
  }
}

/** A call that is performed in several places: its outcome in one of them. */
class PartOfCall extends PlacedCall {
  readonly #done: (outcome: unknown) => void;

  constructor(call: Call, done: (outcome: unknown) => void) {
    super({ call, about: NOTHING, scopes: [], remember: (outcome) => outcome, performed: () => {} });
    this.#done = done;
  }

  override answered(outcome: unknown): void {
    this.#done(outcome);
  }
}

/** Undefined is this database. */
type Kept = Place | undefined;

/** The places of a daemon: which of them has a name. */
export class Places {
  readonly #rules: readonly (Omit<SharedRule, "url"> & { readonly place: Place })[];
  readonly #places: readonly Place[];
  /** Those that may have queues, and with them schedules. */
  readonly #withQueues: readonly Place[];
  readonly #order: ConnectionOrder;

  readonly #here: Here;

  private constructor(
    rules: readonly SharedRule[],
    places: ReadonlyMap<string, Place>,
    order: ConnectionOrder,
    here: Here,
  ) {
    this.#here = here;
    this.#rules = rules.map(({ noun, pattern, url }) => ({ noun, pattern, place: places.get(url) as Place }));
    this.#places = [...places.values()];
    const withQueues = this.#rules.filter(({ noun }) => noun === undefined || noun === "queue");
    this.#withQueues = [...new Set(withQueues.map(({ place }) => place))];
    this.#order = order;
  }

  /**
   * @param make the options of a place, but for its address.
   * @param onPerformed called when a call of a connection is performed, so that `mayTakeUp` may be true again.
   */
  static of(
    rules: readonly SharedRule[],
    make: Omit<PlaceOptions, "url">,
    here: Here,
    onPerformed: (connection: number) => void,
  ): Places {
    const places = new Map<string, Place>();
    const order = new ConnectionOrder(onPerformed);
    for (const { url } of rules) if (!places.has(url)) places.set(url, new Place({ ...make, url }, order));
    return new Places(rules, places, order, here);
  }

  /** Connects to all; throws for one that is not fit. */
  async start(): Promise<void> {
    await Promise.all(this.#places.map((place) => place.start()));
  }

  /** Where a call is performed: undefined for here. Refused if what it is about is in different places. */
  route(method: string, params: object): Route | PawlError | undefined {
    if (method === GRAPH) return { place: "graph", request: { method, params, about: NOTHING } };
    const about = aboutOf(method as MethodName, params as Readonly<Record<string, unknown>>);
    if (about === undefined) return undefined;
    const request = { method, params, about };
    const found = this.#keptOf(about);
    if (found instanceof PawlError) return found;
    if (this.#withQueues.length > 0) {
      if (method === "schedule.list") return { place: "all", request };
      if (about.schedules.length > 0) return { place: "sought", request };
    }
    return found === undefined ? undefined : { place: found, request };
  }

  /** The place whose ids end with a mark; undefined for this database. */
  markedBy(mark: string): Kept {
    return mark === "" ? undefined : this.#places.find((place) => place.mark === mark);
  }

  /** The refusal of a part of a transaction that is made where ids end with this mark. */
  elsewhere(method: string, params: object, mark: string): PawlError | undefined {
    const about = aboutOf(method as MethodName, params as Readonly<Record<string, unknown>>);
    if (about === undefined) return undefined;
    const kept = this.#keptOf(about);
    if (kept instanceof PawlError) return kept;
    const here = this.markedBy(mark);
    const isNamed = about.names.length > 0 || about.ids.length > 0;
    if (!isNamed || kept === here) return undefined;
    return mixed([`this call ${inPlace(kept)}`, `the transaction ${inPlace(here)}`]);
  }

  /** @param found where its schedules are, as far as that is known. */
  #keptOf(about: About, found: ReadonlyMap<string, Kept> = new Map()): Kept | PawlError {
    const kept = new Map<Kept, string>();
    const note = (place: Kept, what: string): void => {
      if (!kept.has(place)) kept.set(place, `${what} ${inPlace(place)}`);
    };
    for (const named of about.names) {
      const place = this.#placeOf(named);
      // A list of what is partly here is a list of what is here.
      if (place === "several" && about.isList) return undefined;
      if (place === "several") return severalUnder(named);
      note(place, `${named.noun === "command" ? "deployment" : named.noun} ${shown(named.name)}`);
    }
    for (const id of about.ids) {
      const place = this.#placeOfId(id);
      if (place === "nobody") continue;
      // Ids of places are marked, those of this node are not, and neither are those that nobody has.
      if (place === undefined && !kept.has(place)) {
        kept.set(place, `${id.kind} ${shown(id.id)} is kept by this node, or not at all`);
      } else note(place, `${id.kind} ${shown(id.id)}`);
    }
    for (const [name, place] of found) note(place, `schedule ${shown(name)}`);
    if (kept.size === 0) return undefined;
    for (const method of about.here) note(undefined, `what ${method} is about`);
    const [[place] = [undefined], ...others] = [...kept];
    return others.length === 0 ? place : mixed([...kept.values()]);
  }

  #placeOf({ noun, name, isBeginning = false }: Named): Kept | "several" {
    if (noun === "lease" && name.startsWith(LEASE_BEGINNING)) return undefined;
    for (const rule of this.#rules) {
      if (rule.noun !== undefined && rule.noun !== noun) continue;
      if (!isBeginning) {
        if (fits(rule.pattern, name)) return rule.place;
        continue;
      }
      const covers = fitsBeginning(rule.pattern, name);
      if (covers === "all") return rule.place;
      if (covers === "some") return "several";
    }
    return undefined;
  }

  /** `nobody`: what names no grant of any place is refused wherever the call is performed. */
  #placeOfId(given: GivenId): Kept | "nobody" {
    const isClaim = given.kind === "claim";
    for (const place of this.#places) {
      const { mark } = place;
      if (isClaim ? place.hasSigned(given.id, given.proof) : mark && given.id.endsWith(mark)) return place;
    }
    if (isClaim && this.#here.hasSigned(given.id, given.proof)) return undefined;
    // As long as a place was never seen, nobody knows what is its own.
    const noun = NOUN_OF[given.kind];
    const unknown = this.#rules.find(
      ({ noun: own, place }) =>
        (own === undefined || own === noun) && (isClaim ? !place.isKnown : place.mark === undefined),
    );
    if (unknown !== undefined) return unknown.place;
    // Leases of items are always here.
    const all = noun === "lease" ? undefined : this.#placeOf({ noun, name: "", isBeginning: true });
    if (all !== "several" && all !== undefined) return all;
    return isClaim ? "nobody" : undefined;
  }

  shown(): { pattern: string; noun: SharedNoun | null; place: string; connected: boolean }[] {
    return this.#rules.map(({ pattern, noun, place }) => ({
      pattern,
      noun: noun ?? null,
      place: place.shown,
      connected: place.isConnected,
    }));
  }

  /** Where a name is kept, as people are told; undefined for here. */
  placeOf(named: Named): string | undefined {
    const place = this.#placeOf(named);
    return place === "several" ? undefined : place?.shown;
  }

  /** Of how many places the databases are away. */
  get away(): string[] {
    return this.#places.filter(({ isConnected }) => !isConnected).map(({ shown: name }) => name);
  }

  get waiting(): number {
    return this.#places.reduce((sum, { waiting }) => sum + waiting, 0);
  }

  get waitingBytes(): number {
    return this.#places.reduce((sum, { waitingBytes }) => sum + waitingBytes, 0);
  }

  perform(call: Call, { place, request }: Route): void {
    if (place instanceof Place) return place.arrive(call, request);
    const perform = { all: this.#listAll, sought: this.#seek, graph: this.#showGraph }[place];
    this.#order.inOrder(call.caller.connection, (performed) => perform.call(this, call, request, performed));
  }

  /** Performs a call about schedules where they are. */
  async #seek(call: Call, request: Request, performed: () => void): Promise<void> {
    try {
      const kept = await this.#keptWithSchedules(request.about);
      if (kept instanceof PawlError) throw kept;
      if (kept === undefined) this.#here.submit(new CallBetween(call, performed));
      else kept.perform(call, request, performed);
    } catch (error) {
      call.settle(error);
      performed();
    }
  }

  async #keptWithSchedules(about: About): Promise<Kept | PawlError> {
    let kept = this.#keptOf(about);
    if (kept instanceof PawlError) return kept;
    let isKnown = about.names.length > 0 || about.ids.length > 0;
    const found = new Map<string, Kept>();
    for (const name of new Set(about.schedules)) {
      const place = await this.#findSchedule(name, isKnown ? [kept] : []);
      if (place === "nobody") continue;
      found.set(name, place);
      if (!isKnown) kept = place;
      isKnown = true;
    }
    return this.#keptOf(about, found);
  }

  /**
   * The first place that has a schedule: this database, if no other is to be looked at before. A place that is away is
   * passed over if it is known where the call is performed, and otherwise refuses it.
   */
  async #findSchedule(name: string, first: readonly Kept[]): Promise<Kept | "nobody"> {
    let refusal: PawlError | undefined;
    for (const place of new Set([...first, undefined, ...this.#withQueues])) {
      try {
        const row = await (place === undefined
          ? this.#performHere(() => find(name))
          : place.look(() => find(name)));
        if (row !== undefined) return place;
      } catch (error) {
        if (!(error instanceof PawlError)) throw error;
        refusal ??= error;
      }
    }
    if (refusal !== undefined && first.length === 0) throw refusal;
    return "nobody";
  }

  /** Performs what only reads in a turn of this process. */
  #performHere<T>(start: (env: Env) => Operation<T>): Promise<T> {
    return new Promise((resolve, reject) =>
      this.#here.submit({
        caller: DAEMON,
        waitMs: 0,
        writes: false,
        closed: false,
        start,
        settle: (outcome) => (outcome instanceof Error ? reject(outcome) : resolve(outcome as T)),
      }),
    );
  }

  /** A page of the schedules of all places. */
  async #listAll(call: Call, request: Request, performed: () => void): Promise<void> {
    const outcomes = await Promise.all(
      [undefined, ...this.#withQueues].map(
        (place) =>
          new Promise((done) => {
            const part = new PartOfCall(call, done);
            if (place === undefined) this.#here.submit(part);
            else place.perform(part, request, () => {});
          }),
      ),
    );
    const { limit } = request.params as Parsed<"schedule.list">;
    const refusal = outcomes.find((outcome) => outcome instanceof Error);
    call.settle(refusal ?? pageOf(outcomes as Result<"schedule.list">[], limit));
    performed();
  }

  /** Who holds and who waits, here and at all places; a place that does not answer in time counts as away. */
  async #showGraph(call: Call, { params }: Request, performed: () => void): Promise<void> {
    const elsewhere = this.#here.everyoneWaiting();
    const away: string[] = [];
    try {
      const databases = 1 + this.#places.length;
      const found = await this.#performHere(function* (env) {
        const begun = new Found(databases);
        yield* findHolders(begun, env, ownSource(elsewhere));
        return begun;
      });
      for (const place of this.#places)
        if (!(await isDone(place.findHolders(found), MAX_GRAPH_MS))) away.push(place.shown);
      call.settle(found.shown((params as Parsed<"daemon.graph">).pid, away));
    } catch (error) {
      call.settle(error);
    }
    performed();
  }

  /**
   * For how many milliseconds the last of the grants lasts that this daemon has made at places; infinity if a schedule
   * is enabled there, or nobody can find out now.
   */
  async lastMs(): Promise<number> {
    const schedules = this.#withQueues.map(async (place) =>
      (await place.look(someEnabled)) ? Number.POSITIVE_INFINITY : 0,
    );
    const each = [...schedules, ...this.#places.map((place) => place.lastMs())];
    return Math.max(0, ...(await Promise.all(each.map((ms) => ms.catch(() => Number.POSITIVE_INFINITY)))));
  }

  get all(): readonly Place[] {
    return this.#places;
  }

  /** True if calls of a connection are under way at a place: neither answered yet, nor known to wait. */
  isPerforming(connection: number): boolean {
    return this.#order.has(connection);
  }

  /** True if one more request of a connection may be taken up, of which `most` may be under way (`ConnectionOrder`). */
  mayTakeUp(connection: number, most: number): boolean {
    return this.#order.mayTakeUp(connection, most);
  }

  /** Performs a call of this process's own turns once all are performed that came before it on its connection. */
  afterCalls(call: Call): void {
    const { connection } = call.caller;
    this.#order.inOrder(connection, (performed) => this.#here.submit(new CallBetween(call, performed)));
  }

  roomAgain(connection: number): void {
    for (const place of this.#places) place.roomAgain(connection);
  }

  endWaits(connection: number): void {
    for (const place of this.#places) place.endWaits(connection);
  }

  disconnect(connection: number): void {
    for (const place of this.#places) place.disconnect(connection);
  }

  cancel({ connection }: Caller, id: string | number | null): boolean {
    return this.#places.filter((place) => place.cancel(connection, id)).length > 0;
  }

  async stop(refusal: PawlError): Promise<void> {
    await Promise.all(this.#places.map((place) => place.stop(refusal)));
  }

  async close(): Promise<void> {
    await Promise.all(this.#places.map((place) => place.close()));
  }
}

const GRAPH: MethodName = "daemon.graph";
/** A place is waited for so long. */
const MAX_GRAPH_MS = 2000;

/** Waits for something about a place; false if its database is away, or silent for so long. */
async function isDone(asked: Promise<void>, mostMs: number): Promise<boolean> {
  try {
    return await isDoneWithin(asked, mostMs);
  } catch (error) {
    if (error instanceof PawlError) return false;
    throw error;
  }
}

const NOUN_OF = {
  batch: "queue",
  claim: "queue",
  lease: "lease",
  reservation: "path",
  command: "command",
} as const;

function inPlace(place: Kept): string {
  return place === undefined ? "is kept by this node" : `is kept in ${place.shown}`;
}

function mixed(which: readonly string[]): PawlError {
  const message = `is about what is kept in different places: ${which.join("; ")}`;
  return refuse("invalid_params", `The call ${message}. One call is about one place; make one for each.`, {
    issues: [{ path: "", message }],
  });
}

function severalUnder({ name }: Named): PawlError {
  const message = `names ${shown(`${name}*`)}, of which some are kept elsewhere than others`;
  return refuse("invalid_params", `The call ${message}. Name what is in one place.`, {
    issues: [{ path: "", message }],
  });
}

/** One page of several lists, each by name. */
function pageOf(lists: readonly Result<"schedule.list">[], limit: number): Result<"schedule.list"> {
  const all = lists.flatMap(({ schedules }) => schedules).sort((a, b) => inBytes(a.name, b.name));
  // Of a list that goes on, nothing is known behind its last.
  const ends = lists.flatMap(({ next }) => next ?? []).sort(inBytes);
  const known = all.filter(({ name }) => ends[0] === undefined || inBytes(name, ends[0]) <= 0);
  const schedules = known.slice(0, limit);
  const last = schedules.at(-1);
  const isWhole = schedules.length === all.length && ends.length === 0;
  return isWhole || last === undefined ? { schedules } : { schedules, next: last.name };
}

/** As databases compare texts. */
function inBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

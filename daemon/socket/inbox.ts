import { elapsed } from "../clock.js";
import { isCancel } from "../rpc/cancel-request.js";
import type { LineUnderWay } from "../rpc/peer.js";
import type { Call } from "../turns/call.js";
import type { Arrivals, Holding } from "../turns/turn-loop.js";
import { DEAR_MS, DearRequests, isCertain, LONG_LINE_BYTES, WHOLE_TURN_MS } from "./dear-requests.js";
import { ProcessorTime, type Usage } from "./processor-time.js";

/** The connections of one process. Together they have the part of the turns that another's only one has. */
export interface Siblings {
  /** How many of them have something that waits for its turn. */
  ready: number;
  /** How long the last request of one of them took. */
  tookMs?: number;
  /** The place of the next of them that is new, or has waited for long, on the scale of `usedMs`. */
  nextPlaceMs?: number;
}

/** A connection, as far as the inbox needs to know it. */
export interface LineSource {
  readonly lane: Lane;
  readonly siblings: Siblings;
  /** True if one more line may be taken up, or more of one that was begun. */
  readonly mayTakeUp: boolean;
  readonly mayGoOn: boolean;
  /** True if a line that ends a wait may be taken up, whatever is unanswered. */
  readonly mayTakeUpCancel: boolean;
  /** How many requests one turn may take up. */
  readonly requestsPerTurn: number;
  /** How many bytes the next answer may well have. */
  readonly answerBytes: number;
  /** A line is taken up to its end. */
  tookUp(line: Buffer): void;
}

/** A new connection comes so much behind those that were there before, so that many new ones do not hold them up. */
const NEWCOMER_MS = 2;
/** Once dear requests have taken so much more time than others while something waits, others go first ... */
const DEAR_LEAD_MS = 5;
/** ... until they have made up for that, or for so much of it. */
const MAX_DEAR_LEAD_MS = 50;
/** Of so many requests of a connection, one may take long by chance, as when garbage is collected meanwhile ... */
const REQUESTS_PER_CHANCE = 16;
/** ... and so many, one soon after the other. */
const MAX_CHANCES = 4;
/** So many lanes are looked at for one whose next request takes less than a whole turn. */
const MAX_LOOKED_AT = 64;
/** An answer of so many bytes or more is expected to take time to be written. */
const LONG_ANSWER_BYTES = 64 * 1024;
/**
 * How long it takes to read a byte of a long line, to have it written with the commit, and to collect what it leaves,
 * beside what its request takes: some 5 ms for each MiB.
 */
const MS_PER_LINE_BYTE = 5e-6;
/** Once requests that are done in steps take so many bytes together between these, no others like them are begun. */
export const MAX_HELD_BYTES = 48 * 1024 * 1024;
/** How long it takes to write a byte of an answer: some 10 ms for each MiB. */
const MS_PER_ANSWER_BYTE = 1e-5;
/** ... and to send one that is made already. */
const MS_PER_SHARED_BYTE = 1e-6;

/** Takes up one line and adds its calls; returns a line that takes more than one step, nothing of it taken up yet. */
type Receive<From> = (line: Buffer, from: From, calls: Call[]) => LineUnderWay | undefined;

/**
 * The lines of one connection that wait to be taken up, in the order they came.
 *
 *     empty ----> ready ----> held
 *
 * `ready`: the inbox takes the lane in its order. `held`: the connection has too much unanswered or unsent, until it
 * says that there is room, or its next call cannot be performed now.
 */
export class Lane {
  readonly connection: LineSource;
  /** Lines, and at the end of a closed connection what is done after them. */
  readonly items: (Buffer | (() => void))[] = [];
  /** The index of the first item. */
  first = 0;
  /** The first line, once it was taken up in part. */
  underWay: LineUnderWay | undefined;
  /** A call that has done some of its steps; what came after its line waits. */
  goingOn: Call | undefined;
  /** True if nothing more is taken up in this turn, because a call that was is to go on after its commit. */
  stopped = false;
  /** Since when `goingOn` waits, if it cannot be performed now. */
  waitingSince: number | undefined;
  /** When the last lines arrived, as far as that was kept. */
  readonly arrivedAt: number[] = [];
  #state: "empty" | "ready" | "held" = "empty";
  /**
   * The time that the connection has used, on the scale of the inbox's `#now`, where that of one of several siblings
   * counts as often as there are some that wait; undefined for a new one.
   */
  usedMs: number | undefined;
  /** The same when the lane was put in its place; if it was put aside, with what its next request may well take. */
  placedMs = 0;
  /** How long the last request took, or the last step of one. */
  tookMs = 0;
  /** True until it has a place behind its siblings. */
  isNew = true;
  /** True if its last request was expected to have a long answer. */
  expectedLong = false;
  /** How many requests may have taken long by chance. */
  chances = 1;
  /** The turn in which the lane was served last, and how many requests that took up. */
  turn = 0;
  requests = 0;

  constructor(connection: LineSource) {
    this.connection = connection;
  }

  get state(): "empty" | "ready" | "held" {
    return this.#state;
  }

  set state(state: "empty" | "ready" | "held") {
    const { siblings } = this.connection;
    if (this.#state === "ready") siblings.ready -= 1;
    if (state === "ready") siblings.ready += 1;
    this.#state = state;
  }

  get isEmpty(): boolean {
    return this.first === this.items.length && this.goingOn === undefined;
  }

  get mayTakeUp(): boolean {
    if (this.waitingSince !== undefined) return false;
    if (this.goingOn !== undefined) return true;
    if (this.underWay !== undefined) return this.connection.mayGoOn;
    return this.connection.mayTakeUp || this.#mayCancel;
  }

  /** True if the next line makes room, where there is room for no other. */
  get #mayCancel(): boolean {
    const next = this.items[this.first];
    return this.connection.mayTakeUpCancel && next instanceof Buffer && isCancel(next);
  }

  /** True if it is in the middle of a line. */
  get isBegun(): boolean {
    return this.goingOn !== undefined || this.underWay !== undefined;
  }

  /** True if its last answers were long. A new connection, of which nothing is known, counts as just not so. */
  get hasLongAnswers(): boolean {
    return this.connection.answerBytes > LONG_ANSWER_BYTES;
  }

  /** The line that is taken up next, unless something that was begun goes on before. */
  get nextLine(): Buffer | undefined {
    if (this.isBegun) return undefined;
    const next = this.items[this.first];
    return next instanceof Buffer ? next : undefined;
  }

  removeFirst(): void {
    this.items[this.first] = EMPTY;
    this.first += 1;
    if (this.arrivedAt.length > this.items.length - this.first) this.arrivedAt.shift();
    if (this.first < this.items.length) return;
    this.items.length = 0;
    this.first = 0;
  }
}

const EMPTY = Buffer.alloc(0);

/**
 * The lines that have arrived and are not yet taken up. Connections share the turns by the time that their requests
 * take (start-time fair queueing): the next one is that which has used the least, counted from when it last had
 * nothing to do, and among equals that which came first. So lines are taken up in the order they came as long as a
 * turn takes up all of them, and otherwise a connection that asks for little never waits for one that asks for much.
 * A process that opens a hundred connections has no more of the turns for that: each of them is charged for all.
 *
 * Hundreds that have each used little and ask for much at the same moment would still come first. So once dear requests
 * have taken more time than others, those that can be expected to be dear are put aside as long as others wait, until
 * these have had as much. What was dear by surprise counts for neither: nobody would be put aside for it.
 *
 * A request that takes a whole turn or more would hold back the answers of all that were taken up before it in its
 * turn. So it has a turn of its own: once nothing else waits, or others have had as many turns as it takes. Long lines
 * of which nothing is known have one, too. Before another such one come those who ask for less, though they have used a
 * little more.
 *
 * Requests that are done in steps keep what they have collected until the last one. Once all together keep much, these
 * come to their end before other dear ones are begun: hundreds of pages that grow at once would fill the memory.
 *
 * One connection among hundreds would wait for all of these if it were charged for what it did not need: for time in
 * which other processes had the processor, or in which the garbage of others was collected.
 */
export class Inbox<From extends LineSource> {
  readonly #receive: Receive<From>;
  /** Lanes that have used no more than `#now`, in the order they came. */
  readonly #fresh: Lane[] = [];
  #firstFresh = 0;
  /** The other lanes, a binary heap by `placedMs`. */
  readonly #heap: Lane[] = [];
  /** Lanes whose next requests are dear and let others go first, a heap by the time used once that is performed. */
  readonly #aside: Lane[] = [];
  readonly #dear = new DearRequests();
  readonly #processor: ProcessorTime;
  /** How much more time dear requests have taken than others since something waits. */
  #dearLeadMs = 0;
  /**
   * A lane whose next request is to have a turn of its own, how many turns others may have before, and how many more
   * those may who have used no more than anybody: they would wait for all of it.
   */
  #putOff: Lane | undefined;
  #turnsBefore = 0;
  #moreTurns = 0;
  /** What others have since a request took a whole turn, as it could be expected to: the turn to come, or this one. */
  #othersTurn: "none" | "next" | "this" = "none";
  /** True if the turn has taken up something. */
  #isBegun = false;
  /** True if it may matter in this turn what a request needed of the processor. */
  #looksAtProcessor = false;
  /** True if the last turn that took something up has left some, as far as it has come. */
  #hasLeft = false;
  /** Lanes that have had their share of the turn. */
  #nextTurn: Lane[] = [];
  #turn = 1;
  /** How much time the lane that was served last had used; the longest of all once nothing waits. */
  #now = 0;
  #mostUsed = 0;
  #serving: Lane | undefined;
  /** The line of the request that was taken up last; undefined if something went on that was begun. */
  #servedLine: Buffer | undefined;
  /** How many lines wait, also of connections that are held. */
  #lines = 0;
  /** Lines wait at most since then; undefined while nobody asks how long they have waited. */
  #waitingSince: number | undefined;
  /** What requests that are done in steps take between two of them. */
  #heldBytes = 0;
  /** How many lanes have one that can go on, and in how many one has done a step in this turn. */
  #goingOn = 0;
  #stopped = 0;
  /** Lanes whose next requests are dear, and that wait until some of those have come to their end. */
  #unbegun: Lane[] = [];
  /** Since when the line waited that was taken up last, as far as that is known. */
  #takenSince: number | undefined;

  /** @param usage what the process has used of the processor. */
  constructor(receive: Receive<From>, usage: () => Usage = () => process.resourceUsage()) {
    this.#receive = receive;
    this.#processor = new ProcessorTime(usage);
  }

  get #mayTakeMore(): boolean {
    if (this.#firstFresh < this.#fresh.length || this.#heap.length > 0 || this.#mayBegin) return true;
    return this.#aside.length > 0 || this.#nextTurn.length > 0 || this.#putOff !== undefined;
  }

  /** @param find an open connection by its number. */
  arrivals(find: (connection: number) => From | undefined): Arrivals {
    const inbox = this;
    return {
      get waiting() {
        return inbox.#lines;
      },
      get mayTakeMore() {
        return inbox.#mayTakeMore;
      },
      beginTurn: () => this.#beginTurn(),
      takeNext: (calls) => this.#takeNext(calls),
      took: (ms) => this.#took(ms),
      used: (connection, ms) => this.#used(find(connection), ms),
      stop: () => {
        if (this.#serving === undefined) return;
        this.#serving.stopped = true;
        this.#stopped += 1;
      },
      hold: (call) => this.#hold(call),
      keepTimes: (since) => {
        this.#waitingSince = since;
      },
      goOn: (call) => {
        const from = find(call.caller.connection);
        return from !== undefined && this.#goOn(from, call);
      },
      isOpen: (connection) => find(connection) !== undefined,
    };
  }

  /** @param item a line that has arrived, or what is to be done in the place of one. */
  push({ lane }: From, item: Buffer | (() => void)): void {
    this.#append(lane, item);
    if (lane.state === "empty") this.#place(lane);
  }

  /** Does something after all lines of a connection that sends no more: at once if none waits. */
  afterLines({ lane }: From, action: () => void): void {
    if (lane.isEmpty) return action();
    this.#append(lane, action);
    if (lane.state !== "ready") this.#place(lane);
  }

  #append(lane: Lane, item: Buffer | (() => void)): void {
    lane.items.push(item);
    this.#lines += 1;
    if (this.#waitingSince !== undefined) lane.arrivedAt.push(elapsed());
    else if (lane.arrivedAt.length > 0) lane.arrivedAt.length = 0;
  }

  /** A connection that was held has room again. */
  roomAgain({ lane }: From): void {
    if (lane.state === "held" && lane.waitingSince === undefined) this.#place(lane);
  }

  /** Has a connection go on with a call before anything else of it. Returns false if it has to with another already. */
  #goOn({ lane }: From, call: Call): boolean {
    if (lane.goingOn !== undefined) return false;
    lane.goingOn = call;
    this.#goingOn += 1;
    if (lane.state !== "ready") this.#place(lane);
    return true;
  }

  /** What requests that are done in steps take between two of them. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** They take so many bytes more, or fewer. Returns true if something waits for that. */
  holds(bytes: number): boolean {
    this.#heldBytes += bytes;
    return bytes < 0 && this.#mayBegin;
  }

  /** True if some wait to be begun until others have come to their end, and have waited long enough. */
  get #mayBegin(): boolean {
    return this.#unbegun.length > 0 && (this.#heldBytes < MAX_HELD_BYTES || this.#goingOn === 0);
  }

  /** Keeps a call that was taken up last before the rest of its connection. */
  #hold(call: Call): Holding {
    const lane = this.#serving as Lane;
    const since = this.#takenSince ?? elapsed();
    lane.goingOn = call;
    lane.waitingSince = since;
    const goOn = (): void => {
      lane.waitingSince = undefined;
      if (lane.goingOn !== undefined) this.#goingOn += 1;
      if (lane.state !== "held") return;
      if (lane.isEmpty) lane.state = "empty";
      else this.#place(lane);
    };
    return {
      since,
      goOn,
      drop: () => {
        lane.goingOn = undefined;
        goOn();
      },
    };
  }

  /** A turn begins: every connection has its share again. */
  #beginTurn(): void {
    this.#turn += 1;
    this.#isBegun = false;
    if (this.#othersTurn === "this") this.#othersTurn = "none";
    this.#stopped = 0;
    this.#turnsBefore -= 1;
    // Where turns take up all that there is, nobody waits for others, whatever each is charged for.
    this.#looksAtProcessor = (this.#lines > 1 && this.#hasLeft) || !this.#dear.isEmpty;
    this.#processor.forget();
    if (this.#mayBegin) for (const lane of this.#unbegun.splice(0)) this.#place(lane);
    const lanes = this.#nextTurn;
    if (lanes.length === 0) return;
    this.#nextTurn = [];
    for (const lane of lanes) {
      lane.stopped = false;
      if (lane.isEmpty) lane.state = "empty";
      else this.#place(lane);
    }
  }

  /**
   * Takes up one request of the connection whose turn it is, and adds its calls, if any.
   *
   * @returns how many milliseconds it may well take beside: its answer, and its line if that is long; undefined if
   * nothing may be taken up in this turn.
   */
  #takeNext(calls: Call[]): number | undefined {
    // What the turn did before is no part of its first request.
    if (!this.#isBegun && this.#looksAtProcessor) this.#processor.begin();
    this.#putBack();
    for (let lane = this.#next(); lane !== undefined; lane = this.#next()) {
      if (!lane.mayTakeUp) {
        lane.state = "held";
        continue;
      }
      if (lane.turn !== this.#turn) {
        lane.turn = this.#turn;
        lane.requests = 0;
      }
      if (lane.requests >= lane.connection.requestsPerTurn) {
        this.#nextTurn.push(lane);
        continue;
      }
      const line = lane.nextLine;
      const wholeTurns = this.#isBegun ? this.#wholeTurnsOf(line, lane.tookMs) : 0;
      if (wholeTurns > 0 && this.#putOff === undefined) {
        this.#putOff = lane;
        this.#turnsBefore = wholeTurns;
        this.#moreTurns = wholeTurns;
        continue;
      }
      if (wholeTurns > 0) {
        this.#nextTurn.push(lane);
        return undefined;
      }
      lane.requests += 1;
      this.#isBegun = true;
      this.#hasLeft = true;
      this.#serving = lane;
      this.#servedLine = line;
      lane.expectedLong = lane.hasLongAnswers;
      this.#takeUp(lane, calls);
      const { answerBytes } = lane.connection;
      const answerMs = answerBytes >= LONG_ANSWER_BYTES ? answerBytes * MS_PER_ANSWER_BYTE : 0;
      return answerMs + besideMs(line);
    }
    if (this.#putOff === undefined && this.#unbegun.length === 0) {
      this.#now = Math.max(this.#now, this.#mostUsed);
      this.#dearLeadMs = 0;
      this.#hasLeft = this.#nextTurn.length > 0;
    }
    return undefined;
  }

  /** The request that was taken up last is performed, and took so long. */
  #took(ms: number): void {
    const neededMs = this.#neededOf(ms) + besideMs(this.#servedLine);
    const wasExpected = this.#learn(neededMs);
    if (wasExpected && neededMs >= WHOLE_TURN_MS) this.#othersTurn = "next";
    const lane = this.#serving;
    if (lane !== undefined) {
      const isUnclear = this.#servedLine === undefined || !isCertain(this.#servedLine, neededMs);
      const isByChance = neededMs >= DEAR_MS && !wasExpected && isUnclear && lane.chances >= 1;
      // What it is charged with then is what its requests take otherwise, as far as that is known.
      this.#charge(lane, isByChance ? Math.min(lane.tookMs || DEAR_MS, DEAR_MS) : neededMs);
      lane.chances = Math.min(lane.chances + (isByChance ? -1 : 1 / REQUESTS_PER_CHANCE), MAX_CHANCES);
      lane.tookMs = neededMs;
      lane.isNew = false;
      const { siblings } = lane.connection;
      if (neededMs >= DEAR_MS / 4 || siblings.tookMs !== undefined) siblings.tookMs = neededMs;
    }
    this.#putBack();
  }

  /** The end of a wait of a connection took so long: others have had that time, as if it had been a request. */
  #used(from: From | undefined, ms: number): void {
    const neededMs = this.#neededOf(ms);
    if (from !== undefined) this.#charge(from.lane, Math.min(neededMs, DEAR_MS));
    this.#lead(-neededMs);
  }

  #neededOf(ms: number): number {
    if (ms >= DEAR_MS) return this.#processor.needed(ms);
    this.#processor.passed(ms);
    return ms;
  }

  /** Returns true if it could be expected that the request is dear. */
  #learn(ms: number): boolean {
    const isDear = ms >= DEAR_MS;
    const line = this.#servedLine;
    const isLong = line !== undefined && line.length >= LONG_LINE_BYTES;
    if (!isDear && !isLong && this.#dear.isEmpty && this.#dearLeadMs === 0) return false;
    const wasExpected = line === undefined || this.#dear.took(line, ms);
    // What took long by chance, as when garbage was collected, is none of those that are put aside.
    const isKnown = wasExpected || (isDear && this.#dear.expectedMs(line) > 0);
    if (!isDear || isKnown) this.#lead(isDear ? ms : -ms);
    return wasExpected;
  }

  /** A request of a connection was answered with so many bytes, made for it or shared by all such answers. */
  answered({ lane }: From, bytes: number, { isShared }: { isShared: boolean }): void {
    if (bytes < LONG_ANSWER_BYTES) return;
    const ms = bytes * (isShared ? MS_PER_SHARED_BYTE : MS_PER_ANSWER_BYTE);
    this.#charge(lane, ms);
    this.#lead(lane.expectedLong ? ms : -ms);
  }

  #lead(ms: number): void {
    this.#dearLeadMs = Math.min(Math.max(this.#dearLeadMs + ms, 0), MAX_DEAR_LEAD_MS);
  }

  #takeUp(lane: Lane, calls: Call[]): void {
    this.#takenSince = undefined;
    if (lane.goingOn !== undefined) {
      calls.push(lane.goingOn);
      lane.goingOn = undefined;
      this.#goingOn -= 1;
      return;
    }
    if (this.#waitingSince !== undefined) this.#takenSince = this.#sinceOf(lane);
    const item = lane.items[lane.first] as Buffer | (() => void);
    if (typeof item === "function") {
      this.#removeFirst(lane);
      return item();
    }
    lane.underWay ??= this.#receive(item, lane.connection as From, calls);
    lane.underWay?.goOn(1, calls);
    if (lane.underWay !== undefined && lane.underWay.left > 0) return;
    lane.underWay = undefined;
    this.#removeFirst(lane);
    lane.connection.tookUp(item);
  }

  /** Since when the next line of a lane waits. */
  #sinceOf({ arrivedAt, items, first }: Lane): number | undefined {
    const isKept = arrivedAt.length > 0 && arrivedAt.length === items.length - first;
    return isKept ? arrivedAt[0] : this.#waitingSince;
  }

  #removeFirst(lane: Lane): void {
    lane.removeFirst();
    this.#lines -= 1;
  }

  #charge(lane: Lane, ms: number): void {
    lane.usedMs = (lane.usedMs ?? this.#now) + ms * Math.max(lane.connection.siblings.ready, 1);
    if (lane.usedMs > this.#mostUsed) this.#mostUsed = lane.usedMs;
  }

  /** Puts the lane that was served last in its new place. */
  #putBack(): void {
    const lane = this.#serving;
    if (lane === undefined) return;
    this.#serving = undefined;
    if (lane.waitingSince !== undefined) lane.state = "held";
    else if (lane.stopped) this.#nextTurn.push(lane);
    else if (lane.isEmpty) lane.state = "empty";
    else this.#place(lane, false);
  }

  /** @param mayBeFresh false if it was served just now: whoever asks for one request goes before its next. */
  #place(lane: Lane, mayBeFresh = true): void {
    lane.state = "ready";
    lane.usedMs ??= this.#mayTakeMore ? this.#now + NEWCOMER_MS : this.#now;
    const isBehind = lane.usedMs <= this.#now;
    if (isBehind) lane.usedMs = mayBeFresh ? this.#now : this.#nextPlace(lane);
    lane.placedMs = lane.usedMs;
    if (isBehind && mayBeFresh) this.#fresh.push(lane);
    else insert(this.#heap, lane);
  }

  /**
   * Where a lane belongs that is new, or has waited and so has used less than others: behind those of its siblings that
   * have such a place already, as if each took as long as the last one. All at once, they would hold up who asks for
   * little.
   */
  #nextPlace({ connection }: Lane): number {
    const { siblings } = connection;
    const place = Math.max(siblings.nextPlaceMs ?? 0, this.#now);
    siblings.nextPlaceMs = place + Math.min(siblings.tookMs ?? 0, DEAR_MS);
    return place;
  }

  /** Those that were put aside go on among the others, once these have had as much. */
  #bringBack(): void {
    while (this.#aside.length > 0 && ((this.#aside[0] as Lane).usedMs as number) < this.#now)
      this.#place(removeLeast(this.#aside) as Lane, false);
  }

  /** How many whole turns the next request of a lane may well take, or the next step of what it has begun. */
  #wholeTurnsOf(nextLine: Buffer | undefined, tookMs: number): number {
    return nextLine === undefined ? Math.floor(tookMs / WHOLE_TURN_MS) : this.#dear.wholeTurns(nextLine);
  }

  #next(): Lane | undefined {
    if (this.#othersTurn === "this" || (this.#othersTurn === "next" && !this.#isBegun)) {
      const short = this.#nextShort();
      this.#othersTurn = short === undefined ? "none" : "this";
      if (short !== undefined) return short;
    }
    if (this.#isBegun || this.#putOff === undefined) return this.#nextOfOthers();
    const isFresh = this.#firstFresh < this.#fresh.length;
    // It may be dear itself, and come first by its place.
    const lane = this.#turnsBefore > (isFresh ? -this.#moreTurns : 0) ? this.#nextOfOthers() : undefined;
    if (lane !== undefined) return lane;
    const putOff = this.#putOff;
    this.#putOff = undefined;
    return putOff;
  }

  /** The first of those whose next requests take less than a whole turn, though others may have used a little less. */
  #nextShort(): Lane | undefined {
    const end = Math.min(this.#fresh.length, this.#firstFresh + MAX_LOOKED_AT);
    for (let at = this.#firstFresh; at < end; at++)
      if (this.#isShort(this.#fresh[at] as Lane)) return this.#takeFresh(at);
    const least = this.#heap[0];
    return least !== undefined && !least.isNew && this.#isShort(least) ? this.#nextInHeap() : undefined;
  }

  #isShort(lane: Lane): boolean {
    return this.#wholeTurnsOf(lane.nextLine, lane.tookMs) === 0 && !this.#leavesUnbegun(lane);
  }

  #nextOfOthers(): Lane | undefined {
    if (this.#aside.length > 0 && this.#dearLeadMs <= DEAR_LEAD_MS) this.#bringBack();
    if (this.#isForAside) return this.#takeAside();
    for (let lane = this.#nextInOrder(); lane !== undefined; lane = this.#nextInOrder()) {
      if (this.#leavesUnbegun(lane)) this.#unbegun.push(lane);
      else if (!this.#putsAside(lane)) {
        this.#now = Math.max(this.#now, lane.placedMs);
        return lane;
      }
    }
    return this.#takeAside();
  }

  /** What was begun comes to its end before something else is that may well be done in steps. */
  #leavesUnbegun({ nextLine }: Lane): boolean {
    if (this.#heldBytes < MAX_HELD_BYTES || this.#goingOn + this.#stopped === 0) return false;
    return nextLine !== undefined && this.#dear.expectedMs(nextLine) > 0;
  }

  /** True if a lane that was put aside has waited long enough, and has used no more than the others. */
  get #isForAside(): boolean {
    const lane = this.#aside[0];
    // While dozens wait that have had less, each of those that are fresh has one request before them, and only one.
    if (lane === undefined || this.#firstFresh < this.#fresh.length) return false;
    const other = this.#heap[0];
    // Who is in the middle of a line has had more already, and goes on with what is dear as a whole.
    if (this.#dearLeadMs > DEAR_LEAD_MS) return other?.isBegun === true && lane.placedMs <= other.placedMs;
    return other === undefined || (lane.usedMs as number) <= other.placedMs;
  }

  #takeAside(): Lane | undefined {
    for (let lane = removeLeast(this.#aside); lane !== undefined; lane = removeLeast(this.#aside)) {
      if (this.#leavesUnbegun(lane)) {
        this.#unbegun.push(lane);
        continue;
      }
      this.#now = Math.max(this.#now, lane.usedMs as number);
      return lane;
    }
    return undefined;
  }

  #putsAside(lane: Lane): boolean {
    if (this.#dearLeadMs <= DEAR_LEAD_MS) return false;
    const { nextLine, tookMs, hasLongAnswers, connection } = lane;
    const answerMs = hasLongAnswers ? connection.answerBytes * MS_PER_ANSWER_BYTE : 0;
    const expectedMs = answerMs + (nextLine === undefined ? tookMs : this.#dear.expectedMs(nextLine));
    if (expectedMs < DEAR_MS) return false;
    lane.placedMs = (lane.usedMs as number) + expectedMs;
    insert(this.#aside, lane);
    return true;
  }

  #nextInOrder(): Lane | undefined {
    if (this.#firstFresh < this.#fresh.length) return this.#takeFresh(this.#firstFresh);
    return this.#nextInHeap();
  }

  /** Takes one of those that have used no more than `#now`. */
  #takeFresh(at: number): Lane {
    const lane = this.#fresh[at] as Lane;
    if (at === this.#firstFresh) this.#firstFresh += 1;
    else this.#fresh.splice(at, 1);
    if (this.#firstFresh === this.#fresh.length) {
      this.#fresh.length = 0;
      this.#firstFresh = 0;
    }
    return lane;
  }

  #nextInHeap(): Lane | undefined {
    for (let lane = removeLeast(this.#heap); lane !== undefined; lane = removeLeast(this.#heap)) {
      // Answers written meanwhile count too.
      if (!lane.isNew && (lane.usedMs as number) <= lane.placedMs) return lane;
      if (lane.isNew) lane.usedMs = Math.max(lane.usedMs as number, this.#nextPlace(lane));
      lane.isNew = false;
      lane.placedMs = lane.usedMs as number;
      insert(this.#heap, lane);
    }
    return undefined;
  }
}

/** What a request takes beside what its turn sees, for a long line. */
function besideMs(line: Buffer | undefined): number {
  return line === undefined || line.length < LONG_LINE_BYTES ? 0 : line.length * MS_PER_LINE_BYTE;
}

function insert(heap: Lane[], lane: Lane): void {
  let at = heap.length;
  heap.push(lane);
  while (at > 0) {
    const above = (at - 1) >> 1;
    const other = heap[above] as Lane;
    if (other.placedMs <= lane.placedMs) break;
    heap[at] = other;
    at = above;
  }
  heap[at] = lane;
}

function removeLeast(heap: Lane[]): Lane | undefined {
  const least = heap[0];
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return least;
  let at = 0;
  for (let below = 1; below < heap.length; below = 2 * at + 1) {
    const right = heap[below + 1];
    if (right !== undefined && right.placedMs < (heap[below] as Lane).placedMs) below += 1;
    const other = heap[below] as Lane;
    if (other.placedMs >= last.placedMs) break;
    heap[at] = other;
    at = below;
  }
  heap[at] = last;
  return least;
}

// Whose request is next: a connection that asks for little waits neither for one that asks for much nor for hundreds.
import { expect, test } from "vitest";
import type { LineUnderWay } from "../../daemon/dist/rpc/peer.js";
import { DearRequests } from "../../daemon/dist/socket/dear-requests.js";
import {
  Inbox,
  Lane,
  type LineSource,
  MAX_HELD_BYTES,
  type Siblings,
} from "../../daemon/dist/socket/inbox.js";
import { type Call, DAEMON } from "../../daemon/dist/turns/call.js";
import type { Arrivals } from "../../daemon/dist/turns/turn-loop.js";

const TURN_MS = 5;
const CONNECTIONS = 500;

class Source implements LineSource {
  readonly lane = new Lane(this);
  readonly siblings: Siblings;
  readonly mayTakeUp = true;
  readonly mayGoOn = true;
  readonly mayTakeUpCancel = true;
  readonly requestsPerTurn = 128;
  answerBytes = 256;

  constructor(siblings: Siblings = { ready: 0 }) {
    this.siblings = siblings;
  }

  tookUp(): void {}
}

const PING = line("ping", 0.1);

/**
 * A line of so many steps that each take so many milliseconds; in those of `held`, others have the processor, and in
 * those of `disk`, it waits for that.
 */
function line(method: string, ms: number, bytes = 60, { steps = 1, held = 0, disk = 0 } = {}): Buffer {
  return Buffer.from(JSON.stringify({ id: 1, method, params: { ms, steps, held, disk } }).padEnd(bytes));
}

/** An inbox, and turns by a clock that only its lines move. */
class Turns {
  /** Whose lines were performed, and when. */
  readonly performed: Source[] = [];
  nowMs = 0;
  /** How long the daemon did not have the processor, and what it has read from disks. */
  #idleMs = 0;
  #fsRead = 0;
  #tookMs = 0;
  readonly inbox: Inbox<Source>;
  readonly #arrivals: Arrivals;
  readonly #numbered = new Map<number, Source>();

  constructor() {
    this.inbox = new Inbox<Source>(
      (taken, from) => {
        this.performed.push(from);
        const { ms, steps, held, disk } = JSON.parse(taken.toString()).params;
        this.#tookMs = ms;
        this.#idleMs += held + disk;
        if (disk > 0) this.#fsRead += 8;
        return steps === 1 ? undefined : this.#inSteps(from, ms, steps);
      },
      () => ({ userCPUTime: 1000 * (this.nowMs - this.#idleMs), systemCPUTime: 0, fsRead: this.#fsRead }),
    );
    this.#arrivals = this.inbox.arrivals((number) => this.#numbered.get(number));
  }

  /** The end of a wait of a connection takes so long. */
  endWait(source: Source, ms: number): void {
    this.#numbered.set(1, source);
    this.nowMs += ms;
    this.#arrivals.used(1, ms);
  }

  /** The request of a connection that was performed last goes on in a later turn, and keeps so many bytes meanwhile. */
  goOn(source: Source, bytes: number, number: number): void {
    this.#numbered.set(number, source);
    this.inbox.holds(bytes);
    const call: Call = {
      caller: { ...DAEMON, connection: number },
      waitMs: 0,
      closed: false,
      *start() {},
      settle() {},
    };
    this.#arrivals.goOn(call);
  }

  /** The next step of what goes on is the last one. */
  isLastStep = false;

  #answer(source: Source): void {
    const { answerBytes } = source;
    if (answerBytes > 1000) this.nowMs += answerBytes * 1e-6;
    this.inbox.answered(source, answerBytes, { isShared: true });
  }

  #inSteps(from: Source, ms: number, left: number): LineUnderWay {
    const line = {
      left,
      goOn: () => {
        this.performed.push(from);
        this.#tookMs = ms;
        line.left -= 1;
      },
    };
    return line;
  }

  get waiting(): number {
    return this.#arrivals.waiting;
  }

  /** Returns whose lines it performed. */
  turn(): Source[] {
    const before = this.performed.length;
    this.#arrivals.beginTurn();
    const later: Call[] = [];
    let besideMs = 0;
    for (const until = this.nowMs + TURN_MS; this.nowMs + besideMs < until; ) {
      const calls: Call[] = [];
      const expectedMs = this.#arrivals.takeNext(calls);
      if (expectedMs === undefined) break;
      besideMs += expectedMs;
      if (calls.length > 0 && !this.isLastStep) {
        later.push(...calls);
        this.#arrivals.stop();
      }
      this.nowMs += this.#tookMs;
      this.#arrivals.took(this.#tookMs);
    }
    for (const call of later) this.#arrivals.goOn(call);
    const taken = this.performed.slice(before);
    for (const source of taken) this.#answer(source);
    return taken;
  }
}

/** Connections that are open and have used a little. */
function open(turns: Turns, count: number): Source[] {
  const sources = Array.from({ length: count }, () => new Source());
  for (const source of sources) {
    turns.inbox.push(source, PING);
    while (turns.waiting > 0) turns.turn();
  }
  return sources;
}

/** How long each of the polite one's pings took until its turn was over, one in each, while there is anything else. */
function pingsMs(turns: Turns, polite: Source): number[] {
  const took: number[] = [];
  while (turns.waiting > 0) {
    turns.inbox.push(polite, PING);
    const begunMs = turns.nowMs;
    while (!turns.turn().includes(polite));
    took.push(turns.nowMs - begunMs);
  }
  return took;
}

for (const [what, bytes, steps] of [
  ["long", 30_000, 1],
  ["short", 60, 1],
  ["done in steps", 60, 3],
] as const) {
  test(`hundreds of dear requests that are ${what} do not hold up one that asks for little`, () => {
    const turns = new Turns();
    const polite = new Source();
    const others = open(turns, CONNECTIONS);
    open(turns, 1);
    for (const other of [...others, ...Array.from({ length: 100 }, () => new Source())]) {
      turns.inbox.push(other, line("dear", 20, bytes, { steps }));
    }
    const took = pingsMs(turns, polite);
    // The first may be performed after the two that show what they take, and each other after one.
    expect(Math.max(...took)).toBeLessThan(3 * 20 + TURN_MS);
    expect(Math.max(...took.slice(1))).toBeLessThan(20 + TURN_MS);
    expect(took.length).toBeGreaterThan(CONNECTIONS / 2);
    if (steps === 1) expect(took.filter((ms) => ms < 1).length).toBeGreaterThan(0.7 * took.length);
  });
}

test("those who ask for much have half of the time, however many ask for little", () => {
  const turns = new Turns();
  const sources = open(turns, 200);
  const dear = new Set(sources.slice(0, 100));
  let idle = sources;
  let used = 0;
  while (turns.nowMs < 10_000) {
    for (const each of idle) turns.inbox.push(each, dear.has(each) ? line("dear", 20) : PING);
    idle = turns.turn();
    used += 20 * idle.filter((each) => dear.has(each)).length;
  }
  expect(used / turns.nowMs).toBeCloseTo(0.5, 1);
});

test("one that asks for much has no more time than each of those who ask for little", () => {
  const turns = new Turns();
  const sources = open(turns, 100);
  const [dear] = sources as [Source];
  let idle = sources;
  let used = 0;
  while (turns.nowMs < 10_000) {
    for (const each of idle) turns.inbox.push(each, each === dear ? line("dear", 20) : PING);
    idle = turns.turn();
    used += idle.includes(dear) ? 20 : 0;
  }
  expect(used).toBeGreaterThan(0.5 * (10_000 / 100));
  expect(used).toBeLessThan(1.5 * (10_000 / 100));
});

test("one dear request is performed when it comes, and lines of one turn are in the order in which they came", () => {
  const turns = new Turns();
  const sources = open(turns, 40);
  for (let round = 0; round < 2; round += 1) {
    const lines = sources.map((_, index) => (index === 3 ? line("dear", 2) : line("ping", 0.01)));
    for (const [index, each] of sources.entries()) turns.inbox.push(each, lines[index] as Buffer);
    expect(turns.turn().map((each) => sources.indexOf(each))).toEqual([...sources.keys()]);
    expect(turns.turn()).toEqual([]);
  }
});

test("what requests took keeps back neither other methods nor short ones of the same, nor does one hiccup", () => {
  const turns = new Turns();
  const sources = open(turns, 6);
  const lines = [
    line("dear", 20, 30_000),
    line("dear", 20, 30_000),
    line("other", 20),
    line("dear", 20, 30_000),
    line("dear", 0.1),
    line("other", 0.1),
  ];
  for (const [index, each] of sources.entries()) turns.inbox.push(each, lines[index] as Buffer);
  const orders = sources.slice(0, 5).map(() => turns.turn().map((each) => sources.indexOf(each)));
  expect(orders).toEqual([[0], [1], [2], [4, 5], [3]]);
});

test("what takes a whole turn holds back no answer of others, and has its turn all the same", () => {
  const turns = new Turns();
  const [dear, other, ...polite] = open(turns, 20) as [Source, Source, ...Source[]];
  for (let round = 0; round < 2; round += 1) {
    turns.inbox.push(dear, line("dear", 40, 30_000));
    turns.turn();
  }
  for (let round = 0; round < 20; round += 1) {
    for (const each of polite.slice(0, 9)) turns.inbox.push(each, PING);
    if (round % 4 === 0) for (const each of [dear, other]) turns.inbox.push(each, line("dear", 40, 30_000));
    for (const each of polite.slice(9)) turns.inbox.push(each, PING);
    const taken = turns.turn();
    expect(taken).toSatisfy(
      (sources: Source[]) => sources.length === 1 || (!sources.includes(dear) && !sources.includes(other)),
    );
  }
  // Five of each were sent. Before each there are as many turns of others as it takes.
  expect(turns.performed.filter((each) => each === dear).length).toBeGreaterThanOrEqual(3);
  expect(turns.performed.filter((each) => each === other).length).toBeGreaterThanOrEqual(2);
});

/**
 * The most requests of others that were performed between when each of a polite one's came, one after the other, and
 * when it was performed, beside a hundred connections that always ask for something.
 */
function mostBetween(
  turns: Turns,
  polite: Source,
  pings: readonly Buffer[],
  other: Buffer,
  others: readonly Source[] = open(turns, 100),
): number {
  let idle = others;
  const fill = (): void => {
    for (const each of idle) if (each !== polite) turns.inbox.push(each, other);
  };
  let most = 0;
  for (const ping of pings) {
    fill();
    turns.inbox.push(polite, ping);
    const before = turns.performed.length;
    for (idle = turns.turn(); !idle.includes(polite); idle = turns.turn()) fill();
    most = Math.max(most, turns.performed.indexOf(polite, before) - before);
  }
  return most;
}

test("who comes while a request takes a whole turn does not wait for another such one", () => {
  const turns = new Turns();
  const [polite] = open(turns, 1) as [Source];
  const siblings = { ready: 0 };
  const others = Array.from({ length: 10 }, () => new Source(siblings));
  const push = (each: Source): void => turns.inbox.push(each, line("dear", 20));
  for (const each of others) push(each);
  /** Turns until one performs something of these; who asks for much asks again at once. */
  const turnsUntil = (isOf: (each: Source) => boolean): void => {
    for (let isDone = false; !isDone; ) {
      const taken = turns.turn();
      for (const each of taken) if (each !== polite) push(each);
      isDone = taken.some(isOf);
    }
  };
  let most = 0;
  for (let ping = 0; ping < 400; ping += 1) {
    // A whole turn of one of them, and another ping by the end of it.
    turnsUntil((each) => each !== polite);
    turns.inbox.push(polite, PING);
    const before = turns.performed.length;
    turnsUntil((each) => each === polite);
    // The first two show what such a request takes.
    if (ping >= 2) most = Math.max(most, turns.performed.indexOf(polite, before) - before);
  }
  expect(most).toBe(0);
  expect(turns.performed.filter((each) => each !== polite).length).toBeGreaterThan(400);
});

test("one waits for few of the requests of one process that are dear now and then, however many wait", () => {
  const turns = new Turns();
  const polite = new Source();
  const siblings = { ready: 0 };
  const others = Array.from({ length: 100 }, () => new Source(siblings));
  let number = 0;
  // Some are dear by what is known, and some are not.
  const push = (each: Source): void =>
    turns.inbox.push(each, line("list", number++ % 1200 < 600 ? 0.4 : 0.7));
  for (const each of [...others, ...others]) push(each);
  let most = 0;
  for (let ping = 0; ping < 2000; ping += 1) {
    turns.inbox.push(polite, PING);
    const before = turns.performed.length;
    for (let isDone = false; !isDone; ) {
      const taken = turns.turn();
      for (const each of taken) if (each !== polite) push(each);
      isDone = taken.includes(polite);
    }
    most = Math.max(most, turns.performed.indexOf(polite, before) - before);
  }
  expect(most).toBeLessThan(10);
});

/** Pings of which every so many is another. */
function pingsWith(other: Buffer, every: number): Buffer[] {
  return Array.from({ length: 400 }, (_, index) => (index % every === every - 1 ? other : PING));
}

test("time in which other processes have the processor is not charged to whoever asks for little", () => {
  const turns = new Turns();
  const [polite] = open(turns, 1) as [Source];
  const pings = pingsWith(line("ping", 20.1, 60, { held: 20 }), 3);
  // The first two show what they take.
  expect(mostBetween(turns, polite, pings, line("dear", 60, 30_000))).toBeLessThanOrEqual(2);
});

test("a process has no more of the turns for having hundreds of connections", () => {
  const turns = new Turns();
  const siblings = { ready: 0 };
  const [polite] = open(turns, 1) as [Source];
  const others = Array.from({ length: CONNECTIONS }, () => new Source(siblings));
  for (const other of others) {
    for (let count = 0; count < 20; count += 1) turns.inbox.push(other, PING);
  }
  for (let count = 0; count < 500; count += 1) turns.inbox.push(polite, PING);
  while (polite.lane.state !== "empty") turns.turn();
  const ofOthers = turns.performed.filter((source) => source.siblings === siblings);
  expect(ofOthers.length).toBeGreaterThan(400);
  expect(ofOthers.length).toBeLessThan(1100);
  // Among them each has as much as another.
  const counts = others.map((other) => ofOthers.filter((source) => source === other).length);
  expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
  expect(siblings.ready).toBe(CONNECTIONS);
  while (turns.waiting > 0) turns.turn();
  expect(siblings.ready).toBe(0);
});

test("time in which a request waits for a disk is charged", () => {
  const turns = new Turns();
  const [polite] = open(turns, 1) as [Source];
  const other = line("dear", 60, 30_000, { disk: 59.9 });
  expect(mostBetween(turns, polite, pingsWith(PING, 1), other)).toBeLessThanOrEqual(2);
});

test("what takes long by chance now and then puts nobody behind hundreds", () => {
  const pings = pingsWith(line("ping", 30), 25);
  for (const [other, most] of [
    [line("dear", 60, 30_000), 3],
    // Others may have had as much as is charged to it: 0.5 ms each.
    [line("read", 0.2), 4 * 100],
  ] as const) {
    const turns = new Turns();
    const [polite] = open(turns, 1) as [Source];
    expect(mostBetween(turns, polite, pings, other)).toBeLessThanOrEqual(most);
  }
});

test("requests that took long while the daemon was new are not taken to be dear later", () => {
  const turns = new Turns();
  const polite = new Source();
  for (const ms of [3, 3, 3, 3, ...Array.from({ length: 20 }, () => 0.1)]) {
    turns.inbox.push(polite, line("ping", ms));
    while (turns.waiting > 0) turns.turn();
  }
  const [one, two] = open(turns, 2) as [Source, Source];
  turns.inbox.push(one, line("dear", 60, 30_000));
  turns.turn();
  turns.inbox.push(polite, PING);
  turns.inbox.push(two, line("dear", 60, 30_000));
  expect(turns.turn()[0]).toBe(polite);
});

test("what takes long by chance has nobody put aside whose requests take a little longer than most", () => {
  const turns = new Turns();
  const [polite, ...others] = open(turns, 101) as [Source, ...Source[]];
  const request = line("read", 0.6);
  let asked = 0;
  const fill = (idle: readonly Source[]): void => {
    for (const each of idle) {
      asked += 1;
      if (each !== polite) turns.inbox.push(each, asked % 40 === 0 ? line("ping", 20) : PING);
    }
  };
  let idle: readonly Source[] = others;
  let most = 0;
  for (let count = 0; count < 60; count += 1) {
    fill(idle);
    turns.inbox.push(polite, request);
    const before = turns.performed.length;
    idle = turns.turn();
    while (!idle.includes(polite) && turns.performed.length - before < 10_000) {
      fill(idle);
      idle = turns.turn();
    }
    most = Math.max(most, turns.performed.length - before);
  }
  // Each of the others may have had as much: six of their requests.
  expect(most).toBeLessThan(1000);
});

test("a long line of which nothing is known has a turn of its own, until one like it took less", () => {
  const turns = new Turns();
  const [one, two, three] = open(turns, 3) as [Source, Source, Source];
  const push = (ms: number): void => {
    turns.inbox.push(one, PING);
    turns.inbox.push(two, line("unknown", ms, 20_000));
    turns.inbox.push(three, PING);
  };
  for (const ms of [40, 0.1]) {
    push(ms);
    expect([turns.turn(), turns.turn(), turns.turn()]).toEqual([[one, three], [two], []]);
  }
  push(0.1);
  expect(turns.turn()).toEqual([one, two, three]);
});

test("what long answers take is charged, and they let others go first", () => {
  const turns = new Turns();
  const [polite, ...others] = open(turns, 101) as [Source, ...Source[]];
  for (const other of others) other.answerBytes = 500_000;
  const request = line("document", 0.02);
  // The first comes after as many as were there before it.
  mostBetween(turns, polite, [PING], request, others);
  expect(mostBetween(turns, polite, pingsWith(PING, 1), request, others)).toBeLessThanOrEqual(2);
});

test("a method is expected to take what two of its requests took, not what one took by chance", () => {
  const dear = new DearRequests();
  for (const ms of [0.6, 20, 0.6]) dear.took(PING, ms);
  expect(dear.expectedMs(PING)).toBeCloseTo(0.6);
  dear.took(PING, 20);
  expect(dear.expectedMs(PING)).toBeGreaterThan(15);
  for (let cheap = 0; cheap < 4; cheap += 1) dear.took(PING, 0.1);
  expect(dear.expectedMs(PING)).toBeLessThan(8);
});

test("whose waits end all the time comes after others, as if it had asked for something", () => {
  const turns = new Turns();
  const [busy, other] = open(turns, 2) as [Source, Source];
  for (let ended = 0; ended < 20; ended += 1) turns.endWait(busy, 0.4);
  turns.inbox.push(busy, PING);
  turns.inbox.push(other, PING);
  expect(turns.turn()).toEqual([other, busy]);
});

test("a request that others interrupt has not needed what came before it in its turn", () => {
  const turns = new Turns();
  const sources = open(turns, 60);
  const polite = sources[30] as Source;
  for (const each of sources)
    turns.inbox.push(each, each === polite ? line("ping", 20.1, 60, { held: 20 }) : line("ping", 0.3));
  while (turns.waiting > 0) turns.turn();
  expect(turns.performed.at(-1)).not.toBe(polite);
  expect(polite.lane.tookMs).toBeLessThan(1.5);
});

test("who is in the middle of long lines does not go before one who has had less, and asks for a little more", () => {
  const turns = new Turns();
  const [dear, polite, ...others] = open(turns, 12) as [Source, Source, ...Source[]];
  const push = (source: Source, request: Buffer): void => {
    turns.inbox.push(source, request);
    while (turns.waiting > 0) turns.turn();
  };
  for (let count = 0; count < 2; count += 1) push(polite, line("read", 0.6));
  for (const other of others) turns.inbox.push(other, line("batch", 0.1, 60, { steps: 400 }));
  for (let count = 0; count < 3; count += 1) turns.inbox.push(dear, line("dear", 20));
  while (turns.performed.filter((each) => each === dear).length < 4) turns.turn();
  turns.inbox.push(polite, line("read", 0.6));
  const before = turns.performed.length;
  while (!turns.performed.includes(polite, before)) turns.turn();
  expect(turns.performed.indexOf(polite, before) - before).toBeLessThan(100);
});

test("once requests in steps keep much, no other dear one is begun before they end, and short ones are", () => {
  const turns = new Turns();
  const [known, first, second, polite] = open(turns, 4) as [Source, Source, Source, Source];
  const list = line("list", 2);
  for (let count = 0; count < 2; count += 1) {
    turns.inbox.push(known, list);
    while (turns.waiting > 0) turns.turn();
  }
  turns.inbox.push(first, list);
  expect(turns.turn()).toEqual([first]);
  turns.goOn(first, MAX_HELD_BYTES, 1);
  turns.inbox.push(second, list);
  turns.inbox.push(polite, PING);
  expect(turns.turn()).toEqual([polite]);
  turns.isLastStep = true;
  expect(turns.turn()).toEqual([]);
  // What it kept is free, which asks for a turn.
  expect(turns.inbox.holds(-MAX_HELD_BYTES)).toBe(true);
  expect(turns.turn()).toEqual([second]);
  expect(turns.waiting).toBe(0);
});

test("what others have after a request that took a whole turn begins no dear one while those in steps keep much", () => {
  const turns = new Turns();
  const [known, first, second, polite] = open(turns, 4) as [Source, Source, Source, Source];
  const list = line("list", 2);
  for (let count = 0; count < 2; count += 1) {
    turns.inbox.push(known, list);
    while (turns.waiting > 0) turns.turn();
  }
  turns.inbox.push(first, line("deep", 20));
  expect(turns.turn()).toEqual([first]);
  turns.goOn(first, MAX_HELD_BYTES, 1);
  // The next step takes a whole turn, as the first one did.
  expect(turns.turn()).toEqual([]);
  turns.inbox.push(second, list);
  turns.inbox.push(polite, PING);
  expect(turns.turn()).toEqual([polite]);
});

test("what is kept by requests that nothing goes on with here does not keep dear ones from being begun", () => {
  const turns = new Turns();
  const [known, other] = open(turns, 2) as [Source, Source];
  for (let count = 0; count < 2; count += 1) {
    turns.inbox.push(known, line("list", 2));
    while (turns.waiting > 0) turns.turn();
  }
  turns.inbox.holds(MAX_HELD_BYTES);
  turns.inbox.push(other, line("list", 2));
  expect(turns.turn()).toEqual([other]);
});

test("what it takes to read and to write a long line is charged for its request, and is a part of its turn", () => {
  const turns = new Turns();
  const [long, polite] = open(turns, 2) as [Source, Source];
  const MEBIBYTE = 1024 * 1024;
  for (let count = 0; count < 8; count += 1) turns.inbox.push(long, line("store", 0.2, MEBIBYTE / 4));
  const before = long.lane.usedMs as number;
  // As long as nothing is known of its kind, each has a turn of its own.
  while (turns.waiting > 0) expect(turns.turn().length).toBeLessThanOrEqual(4);
  expect((long.lane.usedMs as number) - before).toBeGreaterThan(8 * 1.2);
  expect(polite.lane.usedMs as number).toBeLessThan(1);
});

test("of long lines like one that took many turns, none is taken up before others have had as much", () => {
  const turns = new Turns();
  const [first, second, third, polite] = open(turns, 4) as [Source, Source, Source, Source];
  for (const source of [first, second, third]) turns.inbox.push(source, line("new", 80, 50_000));
  const took: number[] = [];
  for (let count = 0; count < 10; count += 1) {
    turns.inbox.push(polite, PING);
    const begunMs = turns.nowMs;
    while (!turns.turn().includes(polite));
    took.push(turns.nowMs - begunMs);
  }
  // It waits for the one of which nothing could be known, and then for none.
  expect(took.filter((ms) => ms > 80)).toHaveLength(1);
  expect(Math.max(...took)).toBeLessThan(160);
});

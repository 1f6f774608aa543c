// Whose request is next: a connection that asks for little waits neither for one that asks for much nor for hundreds.
import { expect, test } from "vitest";
import type { LineUnderWay } from "../../daemon/dist/rpc/peer.js";
import { Inbox, Lane, type LineSource } from "../../daemon/dist/socket/inbox.js";
import type { Arrivals } from "../../daemon/dist/turns/turn-loop.js";

const TURN_MS = 5;
const CONNECTIONS = 500;

class Source implements LineSource {
  readonly lane = new Lane(this);
  readonly mayTakeUp = true;
  readonly mayGoOn = true;
  readonly mayTakeUpCancel = true;
  readonly requestsPerTurn = 128;
  readonly answerBytes = 256;

  tookUp(): void {}
}

const PING = line("ping", 0.1);

/** A line of so many steps that each take so many milliseconds. */
function line(method: string, ms: number, bytes = 60, steps = 1): Buffer {
  return Buffer.from(JSON.stringify({ id: 1, method, params: { ms, steps } }).padEnd(bytes));
}

/** An inbox, and turns by a clock that only its lines move. */
class Turns {
  /** Whose lines were performed, and when. */
  readonly performed: Source[] = [];
  nowMs = 0;
  #tookMs = 0;
  readonly inbox: Inbox<Source>;
  readonly #arrivals: Arrivals;

  constructor() {
    this.inbox = new Inbox<Source>((taken, from) => {
      this.performed.push(from);
      const { ms, steps } = JSON.parse(taken.toString()).params;
      this.#tookMs = ms;
      return steps === 1 ? undefined : this.#inSteps(from, ms, steps);
    });
    this.#arrivals = this.inbox.arrivals(() => undefined);
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
    for (const until = this.nowMs + TURN_MS; this.nowMs < until; ) {
      if (this.#arrivals.takeNext([]) === undefined) break;
      this.nowMs += this.#tookMs;
      this.#arrivals.took(this.#tookMs);
    }
    return this.performed.slice(before);
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
      turns.inbox.push(other, line("dear", 20, bytes, steps));
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

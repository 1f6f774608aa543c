// The rules of sequences that need another time, or more cases than a socket is good for.
import type { Mode } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_GRANTED_RANGES, MAX_INTEGER, MAX_NODE_ID, REQUEST_ID_RETENTION_MS } from "@pawl/protocol/limits";
import fc from "fast-check";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { ENDINGS } from "../../daemon/dist/domain/ends.js";
import {
  advance,
  formatId,
  grant,
  next,
  parseId,
  peek,
  reserve,
  state,
} from "../../daemon/dist/domain/sequence/sequence.js";
import { Ends } from "../../daemon/dist/grants/ends.js";
import type { Operation } from "../../daemon/dist/store/statement.js";
import type { Env } from "../../daemon/dist/turns/operation.js";
import { TurnMemory } from "../../daemon/dist/turns/turn-memory.js";
import { InProcess } from "../in-process.js";
import { sized } from "../long-form.js";
import { envOf, type OwnDriver, ownDriver, sequenceEnv } from "./drive.js";

const START = 1_750_000_000_000;
/** Each run has tables of its own, which take long where they are made over a network. */
const TIME_LIMIT_MS = 60_000;
const CENTRALIZED: Mode = { kind: "centralized" };

let driver: OwnDriver;
let now: number;
beforeEach(async () => {
  driver = await ownDriver();
  now = START;
  onTestFinished(async () => void (await driver.close()));
});

/** Performs an operation now, and throws its refusal. */
async function perform<T>(begin: (env: Env) => Operation<T | PawlError>, mode = CENTRALIZED): Promise<T> {
  const outcome = await driver.perform(begin(sequenceEnv(now, mode)));
  if (outcome instanceof PawlError) throw outcome;
  return outcome;
}

const take = (requestId?: string) => perform((env) => next({ type: "FR", requestId }, env));

describe("a requestId", () => {
  test("is kept for 24 hours to the millisecond, and is new after that", async () => {
    expect((await take("r")).seq).toBe(1);
    expect((await take()).seq).toBe(2);
    now = START + REQUEST_ID_RETENTION_MS - 1;
    expect((await take("r")).seq).toBe(1);
    // Asking again does not keep it longer.
    now = START + REQUEST_ID_RETENTION_MS;
    expect((await take("r")).seq).toBe(3);
    now += REQUEST_ID_RETENTION_MS - 1;
    expect((await take("r")).seq).toBe(3);
  });

  test("may be used for something else once it is forgotten", async () => {
    await take("r");
    await expect(
      perform((env) => reserve({ type: "FR", count: 2, requestId: "r" }, env)),
    ).rejects.toMatchObject({
      kind: "conflict",
    });
    now = START + REQUEST_ID_RETENTION_MS;
    expect(await perform((env) => reserve({ type: "FR", count: 2, requestId: "r" }, env))).toMatchObject({
      first: 2,
      last: 3,
    });
  });

  test("is not kept for a request that was refused", async () => {
    await perform((env) => advance({ type: "FR", to: MAX_INTEGER }, env));
    await expect(take("r")).rejects.toMatchObject({ kind: "exhausted" });
    expect((await perform((env) => next({ type: "BUG", requestId: "r" }, env))).seq).toBe(1);
  });

  test("is removed in bounded steps after its time, and not before", async () => {
    const count = async () => (await driver.rows("SELECT count(*) AS n FROM pawl_request"))[0]?.n;
    for (let index = 0; index < 1200; index += 1) await take(`r${index}`);
    now = START + REQUEST_ID_RETENTION_MS - 1;
    const env = (): Env =>
      envOf({
        ...fieldsOf(sequenceEnv(now, CENTRALIZED)),
        retentionNow: now,
        wallMs: now,
        retentionMs: REQUEST_ID_RETENTION_MS,
        turn: new TurnMemory(),
      });
    const ends = new Ends(ENDINGS);
    const due = await driver.perform(ends.expire(env()));
    expect(await count()).toBe(1200);
    expect(due.at).toBeGreaterThanOrEqual(START + REQUEST_ID_RETENTION_MS);
    now = START + REQUEST_ID_RETENTION_MS;
    const left: unknown[] = [];
    while ((await count()) !== 0) {
      await driver.perform(ends.expire(env()));
      left.push(await count());
    }
    expect(left).toEqual([900, 600, 300, 0]);
  });
});

const fieldsOf = (env: Env): Partial<Env> => ({ now: env.now, mode: env.mode, effects: env.effects });

describe("counters", () => {
  test("are exact up to the last number", async () => {
    await perform((env) => advance({ type: "FR", to: MAX_INTEGER - 2 }, env));
    expect((await take()).seq).toBe(MAX_INTEGER - 1);
    expect((await take()).seq).toBe(MAX_INTEGER);
    await expect(take()).rejects.toMatchObject({
      kind: "exhausted",
      details: { last: MAX_INTEGER, left: 0 },
    });
  });

  test("of each node are counted by themselves in one database", async () => {
    const modes: Mode[] = [
      CENTRALIZED,
      ...[1, 2, MAX_NODE_ID, "JM"].map((nodeId): Mode => ({ kind: "distributed", nodeId })),
    ];
    for (const [index, mode] of modes.entries()) {
      await perform((env) => advance({ type: "FR", to: 10 * index }, env), mode);
    }
    const ids = [];
    for (const mode of modes) ids.push((await perform((env) => next({ type: "FR" }, env), mode)).id);
    expect(ids).toEqual(["FR-001", "FR-1-011", "FR-2-021", "FR-4294967295-031", "FR-JM-041"]);
  });

  test("in any order of calls every number is given once and none is left out", async () => {
    const step = fc.oneof(
      fc.record({ take: fc.integer({ min: 1, max: 20 }) }),
      fc.record({ to: fc.nat({ max: 200 }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const fresh = await ownDriver();
        let last = 0;
        for (const each of steps) {
          const env = sequenceEnv(START, CENTRALIZED);
          if ("take" in each) {
            expect(await fresh.perform(reserve({ type: "T", count: each.take }, env))).toMatchObject({
              first: last + 1,
              last: last + each.take,
            });
            last += each.take;
          } else {
            last = Math.max(last, each.to);
            expect(await fresh.perform(advance({ type: "T", to: each.to }, env))).toEqual({
              type: "T",
              seq: last,
            });
          }
          expect(await fresh.perform(peek({ type: "T" }, env))).toMatchObject({ seq: last + 1 });
        }
        await fresh.close();
      }),
      { numRuns: 50, interruptAfterTimeLimit: TIME_LIMIT_MS },
    );
  });
});

describe("grants", () => {
  /** A counter in a few lines: the numbers that it may give still, or from where on it gives all. */
  class Model {
    last = 0;
    left: number[] = [];
    isGranted = false;

    grant(first: number, last: number): number | undefined {
      if (first <= Math.max(this.last, this.left.at(-1) ?? 0, this.#highest)) return undefined;
      this.#highest = last;
      this.isGranted = true;
      for (let seq = first; seq <= last; seq += 1) this.left.push(seq);
      return this.left.length;
    }
    #highest = 0;

    take(count: number): number | undefined {
      const at = this.isGranted
        ? this.left.findIndex((first, index) => this.left[index + count - 1] === first + count - 1)
        : 0;
      if (at < 0) return undefined;
      const first = this.isGranted ? (this.left[at] as number) : this.last + 1;
      this.last = first + count - 1;
      this.left = this.left.slice(at + count);
      return first;
    }

    advance(to: number): number {
      this.last = Math.max(this.last, to);
      this.left = this.left.filter((seq) => seq > to);
      if (this.isGranted && to >= this.#highest) this.isGranted = false;
      return this.last;
    }
  }

  test("in any order of calls numbers come from them alone, each once and upwards", async () => {
    const step = fc.oneof(
      { weight: 3, arbitrary: fc.record({ take: fc.integer({ min: 1, max: 6 }) }) },
      fc.record({ to: fc.nat({ max: 120 }) }),
      fc.record({ first: fc.integer({ min: 1, max: 120 }), count: fc.integer({ min: 1, max: 12 }) }),
      // One that adjoins, or follows closely.
      fc.record({ gap: fc.nat({ max: 2 }), count: fc.integer({ min: 1, max: 12 }) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(step, { maxLength: 4 }), { maxLength: 20 }), async (turns) => {
        const fresh = await ownDriver();
        const model = new Model();
        let highest = 0;
        for (const steps of turns) {
          // All steps of a turn share what it keeps.
          const env = sequenceEnv(START, CENTRALIZED);
          for (const each of steps) {
            if ("take" in each) {
              const taken = await fresh.perform(reserve({ type: "T", count: each.take }, env));
              const first = model.take(each.take);
              if (first === undefined)
                expect(taken).toMatchObject({ kind: "exhausted", details: { left: model.left.length } });
              else expect(taken).toMatchObject({ first, last: model.last });
            } else if ("to" in each) {
              const seq = model.advance(each.to);
              expect(await fresh.perform(advance({ type: "T", to: each.to }, env))).toEqual({
                type: "T",
                seq,
              });
            } else {
              const first = "first" in each ? each.first : Math.max(highest, model.last) + 1 + each.gap;
              const last = first + each.count - 1;
              const left = model.grant(first, last);
              if (left !== undefined) highest = last;
              const granted = await fresh.perform(grant({ type: "T", first, last }, env));
              if (left === undefined) expect(granted).toMatchObject({ kind: "conflict" });
              else expect(granted).toEqual({ type: "T", left });
            }
            const peeked = await fresh.perform(peek({ type: "T" }, env));
            const next = model.isGranted ? model.left[0] : model.last + 1;
            if (next === undefined) expect(peeked).toMatchObject({ kind: "exhausted" });
            else expect(peeked).toMatchObject({ seq: next });
          }
          await fresh.perform(env.turn.writeBack());
          const told = await fresh.perform(state({ limit: 10 }, sequenceEnv(START, CENTRALIZED)));
          expect(told).toMatchObject({
            sequences: model.last === 0 ? {} : { T: model.last },
            granted: model.isGranted ? { T: model.left.length } : {},
          });
        }
        await fresh.close();
      }),
      { numRuns: sized(1000, 100), interruptAfterTimeLimit: TIME_LIMIT_MS },
    );
  });

  test("are exact up to the last number, and their ranges are counted", async () => {
    await perform((env) => grant({ type: "FR", first: MAX_INTEGER - 1, last: MAX_INTEGER }, env));
    expect((await take()).seq).toBe(MAX_INTEGER - 1);
    expect((await take()).seq).toBe(MAX_INTEGER);
    await expect(take()).rejects.toMatchObject({ kind: "exhausted", details: { left: 0, granted: true } });
    for (let range = 1; range <= MAX_GRANTED_RANGES; range += 1) {
      await perform((env) => grant({ type: "A", first: range * 10, last: range * 10 }, env));
    }
    const one = (first: number) => perform((env) => grant({ type: "A", first, last: first }, env));
    await expect(one(20_000)).rejects.toMatchObject({
      kind: "exhausted",
      details: { limit: MAX_GRANTED_RANGES },
    });
    expect(await one(MAX_GRANTED_RANGES * 10 + 1)).toEqual({ type: "A", left: MAX_GRANTED_RANGES + 1 });
  });
});

describe("ids", () => {
  const type = fc.stringMatching(/^[A-Z][A-Z0-9_]{0,31}$/);
  const seq = fc.oneof(fc.integer({ min: 1, max: 1100 }), fc.integer({ min: 1, max: MAX_INTEGER }));
  const mode: fc.Arbitrary<Mode> = fc.oneof(
    fc.constant(CENTRALIZED),
    fc
      .oneof(fc.integer({ min: 1, max: MAX_NODE_ID }), fc.stringMatching(/^[A-Z][A-Z0-9]{0,31}$/))
      .map((nodeId): Mode => ({ kind: "distributed", nodeId })),
  );

  test("an id that was formatted is parsed to the same number", () => {
    fc.assert(
      fc.property(type, seq, mode, fc.nat({ max: 12 }), (ofType, number, of, digits) => {
        const nodeId = of.kind === "distributed" ? of.nodeId : 0;
        const id = formatId(ofType, number, of, digits);
        expect(parseId(id)).toEqual({ type: ofType, nodeId, seq: number });
        expect(parseId(id.toLowerCase())).toEqual({ type: ofType, nodeId, seq: number });
      }),
    );
  });

  test("an id that was parsed is formatted to the same, but for its padding and its case", () => {
    const like = fc.oneof(
      fc.stringMatching(/^[A-Za-z0-9_]{1,4}(-[0-9A-Za-z]{1,11})?-[0-9]{1,17}$/),
      fc.string({ unit: fc.constantFrom("F", "-", "0", "1", "9", "_"), maxLength: 12 }),
    );
    fc.assert(
      fc.property(like, (id) => {
        const parts = parseId(id);
        if (parts === undefined) return;
        const { nodeId } = parts;
        const of: Mode = nodeId === 0 ? CENTRALIZED : { kind: "distributed", nodeId };
        expect(formatId(parts.type, parts.seq, of, 0)).toBe(id.toUpperCase().replace(/-0+(?=[0-9]+$)/, "-"));
      }),
      { numRuns: 2000 },
    );
  });
});

test("calls of one turn count on from each other and see each other's numbers, and all of them are kept", async () => {
  const pawl = new InProcess();
  await pawl.call("sequence.advance", { type: "END", to: MAX_INTEGER - 1 });
  const next = { method: "sequence.next", params: { type: "FR" } };
  const outcomes = await Promise.allSettled([
    pawl.call("sequence.next", { type: "END" }),
    pawl.call("sequence.next", { type: "FR" }),
    pawl.call("sequence.next", { type: "fr" }),
    pawl.call("sequence.reserve", { type: "FR", count: 3 }),
    pawl.call("sequence.peek", { type: "FR" }),
    pawl.call("sequence.state", {}),
    pawl.call("sequence.advance", { type: "FR", to: 4 }),
    pawl.call("sequence.advance", { type: "FR", to: 10 }),
    pawl.call("sequence.next", { type: "FR" }),
    pawl.call("transact", { calls: [next, next, { method: "sequence.next", params: { type: "END" } }] }),
    pawl.call("sequence.next", { type: "FR" }),
    pawl.call("transact", { calls: [next, next] }),
    pawl.call("sequence.next", { type: "END" }),
    pawl.call("sequence.next", { type: "DE" }),
  ]);
  const told = outcomes.map((outcome) =>
    outcome.status === "fulfilled" ? outcome.value : outcome.reason.kind,
  );
  expect(told).toMatchObject([
    { seq: MAX_INTEGER },
    { seq: 1 },
    { seq: 2 },
    { first: 3, last: 5 },
    { seq: 6 },
    { sequences: { END: MAX_INTEGER, FR: 5 } },
    { seq: 5 },
    { seq: 10 },
    { seq: 11 },
    "exhausted",
    { seq: 12 },
    { results: [{ seq: 13 }, { seq: 14 }] },
    "exhausted",
    { seq: 1 },
  ]);
  pawl.crash();
  const after = new InProcess({ path: pawl.path });
  expect((await after.call("sequence.state", {})).sequences).toEqual({ DE: 1, END: MAX_INTEGER, FR: 14 });
});

// Commands that are pulled, against a model that is too simple to be wrong: whatever is done in whatever order, who is
// given what, what each answer is, and how each command stands are what command.md says.
import type { Command, CommandState, Params } from "@pawl/protocol";
import fc from "fast-check";
import { expect, test } from "vitest";
import { AsynchronousInProcess } from "../asynchronous.js";
import { Clocks, START } from "../clocks.js";
import { InProcess } from "../in-process.js";
import { sized } from "../long-form.js";
import { pickFrom, replay, report } from "./histories.js";

const CONNECTIONS = [1, 2, 3];
/** Of one that nothing ends. */
const WATCHING = 9;
const RESTART_GRACE_MS = 5000;
const DEFAULT_ATTEMPTS = 20;
const FOR_EVER = Number.POSITIVE_INFINITY;

type New = Params<"command.create">;
type Retry = NonNullable<New["retry"]>;

interface Delivery {
  readonly leaseId: string;
  readonly attempt: number;
  readonly leaseMs: number;
  readonly graceMs: number;
  readonly receiver: Receiver | undefined;
  readonly executionEnd: number;
  expiresAt: number;
  graceEnd: number;
  /** The one that it ends with; undefined for none. */
  connection: number | undefined;
}

interface ModelCommand {
  readonly commandId: string;
  readonly params: New;
  state: CommandState;
  attempt: number;
  code: string | undefined;
  /** Its place among those that may be leased; undefined while it is not one of these. */
  place: number | undefined;
  delayedUntil: number;
  endsAt: number;
  /** The one that is under way. */
  delivery: Delivery | undefined;
  /** The attempt whose answer counts although its delivery has ended. */
  lateAttempt: number | undefined;
  /** A delivery of it has ended by itself. */
  wasLost: boolean;
  percent: number | undefined;
  checkpoint: number | undefined;
}

/** One that named itself. */
interface Receiver {
  readonly deployment: string;
  readonly incarnation: string;
  readonly connections: Set<number>;
  graceEnd: number;
  isOver: boolean;
}

interface Wanted {
  readonly deployment: string;
  readonly targets: readonly string[] | undefined;
  readonly incarnation: string | undefined;
}

function isFinal(state: CommandState): boolean {
  return state === "SUCCEEDED" || state === "FAILED" || state === "EXPIRED";
}

function endOf({ expiresAt, graceEnd, executionEnd }: Delivery): number {
  return Math.min(expiresAt, graceEnd, executionEnd);
}

function restMs(retry: Retry | undefined, attempt: number): number {
  if (retry === undefined) return 0;
  const { baseMs = 1000, factor = 2, maxMs = 3_600_000 } = retry;
  return Math.min(baseMs * factor ** (attempt - 1), maxMs);
}

/** What the daemon has to do, by the words of the specification. */
class Model {
  now = 0;
  readonly commands: ModelCommand[] = [];
  /** All deliveries that there were. */
  readonly deliveries: { command: ModelCommand; delivery: Delivery }[] = [];
  readonly receivers: Receiver[] = [];
  #places = 0;

  pass(ms: number): void {
    this.now += ms;
    for (const command of this.commands) {
      if (isFinal(command.state) || command.endsAt > this.now) continue;
      // What ended before counts as an attempt, and may have been the last.
      if (command.delivery !== undefined && endOf(command.delivery) < command.endsAt) this.lose(command);
      if (!isFinal(command.state)) this.finish(command, "EXPIRED", "EXPIRED");
    }
    const ended = (at: (delivery: Delivery) => number): ModelCommand[] =>
      this.commands
        .filter(({ delivery }) => delivery !== undefined && at(delivery) <= this.now)
        .sort((a, b) => at(a.delivery as Delivery) - at(b.delivery as Delivery));
    const leaseEnd = ({ expiresAt, graceEnd }: Delivery): number => Math.min(expiresAt, graceEnd);
    const byLease = ended(leaseEnd);
    for (const each of byLease.filter(({ delivery }) => (delivery as Delivery).expiresAt <= this.now))
      this.lose(each);
    for (const each of byLease) if (each.delivery !== undefined) this.lose(each);
    for (const each of ended(({ executionEnd }) => executionEnd)) this.lose(each);
    for (const each of this.receivers) if (each.graceEnd <= this.now) each.graceEnd = FOR_EVER;
    this.endReceivers();
    const delayed = this.commands.filter(({ delayedUntil }) => delayedUntil <= this.now);
    for (const each of delayed.sort((a, b) => a.delayedUntil - b.delayedUntil)) this.makeReady(each);
  }

  makeReady(command: ModelCommand): void {
    command.delayedUntil = FOR_EVER;
    command.place = ++this.#places;
  }

  finish(command: ModelCommand, state: CommandState, code?: string): void {
    Object.assign(command, {
      state,
      code,
      place: undefined,
      delayedUntil: FOR_EVER,
      delivery: undefined,
      lateAttempt: undefined,
    });
  }

  /** A delivery has ended by itself. */
  lose(command: ModelCommand): void {
    const rest = command.wasLost ? restMs(command.params.retry, command.attempt) : 0;
    const { attempt } = command;
    this.giveBack(command, rest);
    if (command.state !== "PENDING") return;
    command.lateAttempt = attempt;
    command.wasLost = true;
  }

  giveBack(command: ModelCommand, delayMs: number): void {
    const { maxAttempts = DEFAULT_ATTEMPTS } = command.params;
    command.delivery = undefined;
    if (maxAttempts > 0 && command.attempt >= maxAttempts)
      return this.finish(command, "FAILED", "ATTEMPTS_EXHAUSTED");
    Object.assign(command, { state: "PENDING", attempt: command.attempt + 1, lateAttempt: undefined });
    if (delayMs === 0) this.makeReady(command);
    else command.delayedUntil = this.now + delayMs;
  }

  receiverOf(deployment: string, incarnation: string | undefined): Receiver | undefined {
    return this.receivers.find((each) => each.deployment === deployment && each.incarnation === incarnation);
  }

  /** Receivers end that have no connection, no delivery and no grace any more, and with them what is for them. */
  endReceivers(): void {
    for (const receiver of this.receivers) {
      const { deployment, incarnation, connections, graceEnd, isOver } = receiver;
      const works = this.commands.some(({ delivery }) => delivery?.receiver === receiver);
      if (isOver || connections.size > 0 || graceEnd < FOR_EVER || works) continue;
      receiver.isOver = true;
      for (const command of this.commands) {
        const { params, state } = command;
        const isMeant = params.deployment === deployment && params.incarnation === incarnation;
        if (isMeant && !isFinal(state)) this.finish(command, "FAILED", "GONE");
      }
    }
  }

  /** Those that a receiver is given, in their order: what is for it alone comes first. */
  next({ deployment, targets, incarnation }: Wanted, max: number): ModelCommand[] {
    const ready = this.commands
      .filter(({ params, place }) => params.deployment === deployment && place !== undefined)
      .filter(
        ({ params: { target = "" } }) => targets === undefined || (target !== "" && targets.includes(target)),
      )
      .sort((a, b) => (a.place as number) - (b.place as number));
    const meant = ready.filter(
      ({ params }) => incarnation !== undefined && params.incarnation === incarnation,
    );
    return [...meant, ...ready.filter(({ params }) => params.incarnation === undefined)].slice(0, max);
  }

  disconnect(connection: number): void {
    for (const command of this.commands) {
      const { delivery } = command;
      if (delivery?.connection !== connection) continue;
      delivery.connection = undefined;
      if (delivery.graceMs > 0) delivery.graceEnd = this.now + delivery.graceMs;
      else this.lose(command);
    }
    for (const { connections } of this.receivers) connections.delete(connection);
    this.endReceivers();
  }

  restart(): void {
    for (const { delivery } of this.commands) {
      if (delivery === undefined || (delivery.connection === undefined && delivery.graceEnd === FOR_EVER))
        continue;
      delivery.connection = undefined;
      delivery.graceEnd = this.now + Math.max(RESTART_GRACE_MS, delivery.graceMs);
    }
    for (const receiver of this.receivers) {
      receiver.connections.clear();
      if (!receiver.isOver) receiver.graceEnd = this.now + RESTART_GRACE_MS;
    }
  }

  renew(delivery: Delivery, leaseMs: number | undefined, connection: number): void {
    delivery.expiresAt = this.now + (leaseMs ?? delivery.leaseMs);
    if (delivery.graceEnd < FOR_EVER) delivery.connection = connection;
    delivery.graceEnd = FOR_EVER;
  }
}

/** The daemon and the model of it. */
class World {
  readonly model = new Model();
  readonly clocks = new Clocks();
  readonly calls: string[] = [];
  pawl: InProcess;
  waits: { command: ModelCommand; answer: Command | undefined; call: Promise<unknown> }[] = [];
  readonly #Daemon: typeof InProcess;

  constructor(Daemon: typeof InProcess, path: string | undefined) {
    this.#Daemon = Daemon;
    this.pawl = this.#recorded(new Daemon({ time: this.clocks, ...(path === undefined ? {} : { path }) }));
  }

  /** The daemon, of which all calls that change something are written down. */
  #recorded(pawl: InProcess): InProcess {
    const call = pawl.call.bind(pawl) as (...given: unknown[]) => Promise<unknown>;
    const recorded = (method: string, params: object, connection?: number): Promise<unknown> => {
      if (method !== "command.list") this.note(`${connection ?? ""} ${method} ${JSON.stringify(params)}`);
      return call(method, params, connection);
    };
    pawl.call = recorded as typeof pawl.call;
    return pawl;
  }

  note(what: string): void {
    this.calls.push(`+${this.model.now} ${what}`);
  }

  restart(): void {
    const { path } = this.pawl;
    this.waits = [];
    this.pawl.close();
    this.note("restart");
    this.pawl = this.#recorded(new this.#Daemon({ time: this.clocks, path }));
    this.model.restart();
  }

  /** Asserts that everything that can be seen is as in the model. */
  async compare(): Promise<void> {
    const { model, pawl } = this;
    model.pass(0);
    // What is for a receiver that has ended does so in steps, which are done before what comes after.
    await pawl.call("command.list", { limit: 1 }, WATCHING);
    const { commands } = await pawl.call("command.list", { limit: 1000 }, WATCHING);
    expect(
      commands.reverse().map(({ commandId, state, attempt, deadline, error, progress, lease }) => ({
        commandId,
        state,
        attempt,
        endsAt: deadline === null ? FOR_EVER : deadline - START,
        code: error?.code,
        percent: progress?.percent,
        remainingMs: lease?.remainingMs,
      })),
    ).toEqual(
      model.commands.map(({ commandId, state, attempt, endsAt, code, percent, delivery }) => ({
        commandId,
        state,
        attempt,
        endsAt,
        code,
        percent,
        remainingMs: delivery && Math.min(endOf(delivery), endsAt) - model.now,
      })),
    );
    for (const wait of this.waits) {
      const isOver = isFinal(wait.command.state);
      if (isOver) await wait.call;
      expect(wait.answer?.state).toBe(isOver ? wait.command.state : undefined);
    }
    this.waits = this.waits.filter(({ command }) => !isFinal(command.state));
  }
}

type Op = (world: World) => Promise<void> | void;

const pick = fc.nat({ max: 1000 });
const deployment = fc.constantFrom("a" as const, "a" as const, "b" as const);
const connection = fc.constantFrom(...CONNECTIONS);
const optional = <T>(...values: T[]) => fc.constantFrom<T | undefined>(undefined, ...values);

/** Without the members that are undefined. */
function given<T extends object>(members: T): T {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as T;
}

/** The same content, when it ends apart. */
function contentOf({ params, maxAttempts, executionMs, retry, incarnation }: New): string {
  return JSON.stringify([params, maxAttempts, executionMs, retry, incarnation]);
}

const create = fc
  .record({
    deployment,
    target: optional("t", "u"),
    command: fc.constant("c"),
    params: fc.constantFrom(1, 2),
    ttlMs: optional(120, 700),
    deadline: optional(250),
    executionMs: optional(80, 160),
    idempotencyKey: optional("k"),
    maxAttempts: optional(0, 1, 2, 3),
    retry: optional<Retry>({ baseMs: 30, factor: 2, maxMs: 100, jitter: false }),
    incarnation: optional("i", "j"),
  })
  .map(
    (drawn): Op =>
      async ({ model, pawl }) => {
        const { ttlMs, deadline: laterMs } = drawn;
        const deadline =
          ttlMs === undefined && laterMs !== undefined ? START + model.now + laterMs : undefined;
        const params = given({ ...drawn, deadline }) as New;
        const { idempotencyKey, target = "", incarnation } = params;
        const known = model.commands.find(
          ({ params: { target: other = "", ...others } }) =>
            idempotencyKey !== undefined &&
            others.idempotencyKey === idempotencyKey &&
            others.deployment === params.deployment &&
            other === target,
        );
        const call = pawl.call("command.create", params);
        if (known !== undefined && contentOf(known.params) !== contentOf(params))
          return await expect(call).rejects.toMatchObject({ kind: "conflict" });
        const { commandId, state, created } = await call;
        if (known !== undefined)
          return expect({ commandId, state, created }).toEqual({
            commandId: known.commandId,
            state: known.state,
            created: false,
          });
        const isGone = model.receiverOf(params.deployment, incarnation)?.isOver === true;
        const command: ModelCommand = {
          commandId,
          params,
          state: "PENDING",
          attempt: 1,
          code: undefined,
          place: undefined,
          delayedUntil: FOR_EVER,
          endsAt: deadline !== undefined ? deadline - START : model.now + (ttlMs ?? FOR_EVER),
          delivery: undefined,
          lateAttempt: undefined,
          wasLost: false,
          percent: undefined,
          checkpoint: undefined,
        };
        model.commands.push(command);
        if (isGone) model.finish(command, "FAILED", "GONE");
        else model.makeReady(command);
        expect({ state, created }).toEqual({ state: command.state, created: true });
      },
  );

const lease = fc
  .record({
    deployment,
    targets: optional<string[]>(["t"], ["t", "u"], ["t", "t"]),
    incarnation: optional("i", "j"),
    max: fc.constantFrom(1, 1, 2, 5),
    leaseMs: fc.constantFrom(100, 100, 300),
    releaseOn: fc.constantFrom("expiry" as const, "disconnect" as const),
    graceMs: optional(60, 6000),
    connection,
  })
  .map(
    ({ connection: by, graceMs: longMs, ...drawn }): Op =>
      async ({ model, pawl }) => {
        const graceMs = drawn.releaseOn === "disconnect" ? longMs : undefined;
        const params = given({ ...drawn, graceMs, owner: "o" });
        const { deployment: name, incarnation, targets, max, leaseMs, releaseOn } = drawn;
        let receiver = model.receiverOf(name, incarnation);
        const call = pawl.call("command.lease", params, by);
        if (receiver?.isOver) return await expect(call).rejects.toMatchObject({ kind: "invalid_state" });
        const { leases } = await call;
        if (incarnation !== undefined && receiver === undefined) {
          receiver = {
            deployment: name,
            incarnation,
            connections: new Set(),
            graceEnd: FOR_EVER,
            isOver: false,
          };
          model.receivers.push(receiver);
        }
        receiver?.connections.add(by);
        if (receiver !== undefined) receiver.graceEnd = FOR_EVER;
        const next = model.next({ deployment: name, targets, incarnation }, max);
        for (const [index, command] of next.entries()) {
          const { executionMs = FOR_EVER } = command.params;
          const delivery: Delivery = {
            leaseId: leases[index]?.leaseId as string,
            attempt: command.attempt,
            leaseMs,
            graceMs: graceMs ?? 0,
            receiver,
            executionEnd: model.now + executionMs,
            expiresAt: model.now + leaseMs,
            graceEnd: FOR_EVER,
            connection: releaseOn === "disconnect" ? by : undefined,
          };
          Object.assign(command, {
            state: "DISPATCHED",
            place: undefined,
            delivery,
            lateAttempt: undefined,
            percent: undefined,
          });
          model.deliveries.push({ command, delivery });
        }
        expect(
          leases.map(({ commandId, attempt, remainingMs, envelope }) => ({
            commandId,
            attempt,
            remainingMs,
            params: envelope.params,
            checkpoint: envelope.checkpoint,
          })),
        ).toEqual(
          next.map(({ commandId, attempt, delivery, endsAt, params, checkpoint }) => ({
            commandId,
            attempt,
            remainingMs: Math.min(endOf(delivery as Delivery), endsAt) - model.now,
            params: params.params,
            checkpoint,
          })),
        );
      },
  );

/** Something that is done with one of the last deliveries, held or not. */
function about<T>(
  drawn: fc.Arbitrary<T>,
  act: (
    given: { command: ModelCommand; delivery: Delivery; isHeld: boolean },
    drawn: T,
    world: World,
  ) => Promise<void>,
): fc.Arbitrary<Op> {
  return fc.tuple(pick, drawn).map(
    ([index, more]): Op =>
      async (world) => {
        const found = pickFrom(world.model.deliveries, index);
        if (found !== undefined)
          await act({ ...found, isHeld: found.command.delivery === found.delivery }, more, world);
      },
  );
}

const renew = about(
  fc.record({
    leaseMs: optional(100, 300),
    percent: optional(10, 20),
    checkpoint: optional(1, 2),
    by: connection,
  }),
  async ({ command, delivery, isHeld }, { leaseMs, percent, checkpoint, by }, { model, pawl }) => {
    const { leaseId } = delivery;
    const tells = percent !== undefined || checkpoint !== undefined;
    const call = tells
      ? pawl.call("command.progress", given({ leaseId, percent, checkpoint }), by)
      : pawl.call("command.renew", given({ leaseId, leaseMs }), by);
    if (!isHeld) return await expect(call).rejects.toMatchObject({ kind: "lease_lost" });
    model.renew(delivery, tells ? undefined : leaseMs, by);
    command.percent = percent ?? command.percent;
    command.checkpoint = checkpoint ?? command.checkpoint;
    const remainingMs = Math.min(endOf(delivery), command.endsAt) - model.now;
    expect(await call).toMatchObject({ remainingMs, cancelling: false });
  },
);

const release = about(optional(0, 60), async ({ command, delivery, isHeld }, delayMs, { model, pawl }) => {
  const call = pawl.call("command.release", given({ leaseId: delivery.leaseId, delayMs }));
  const { state, attempt } = command;
  const isRepeated = state === "PENDING" && attempt === delivery.attempt + 1;
  if (!isHeld && !isRepeated)
    return await expect(call).rejects.toMatchObject({
      kind: isFinal(state) ? "invalid_state" : "lease_lost",
    });
  if (isHeld) model.giveBack(command, delayMs ?? restMs(command.params.retry, attempt));
  else command.lateAttempt = undefined;
  expect(await call).toEqual({ state: command.state, attempt: command.attempt });
});

const respond = about(fc.boolean(), async ({ command, delivery, isHeld }, succeeds, { model, pawl }) => {
  const { commandId, state } = command;
  const response = succeeds
    ? ({ status: "success", response: delivery.attempt } as const)
    : ({ status: "error", code: "NO", message: "no" } as const);
  const call = pawl.call("command.respond", { commandId, leaseId: delivery.leaseId, response });
  if (isFinal(state)) return expect(await call).toEqual({ state, accepted: false });
  if (!isHeld && command.lateAttempt !== delivery.attempt)
    return await expect(call).rejects.toMatchObject({
      kind: state === "DISPATCHED" ? "lease_lost" : "invalid_state",
    });
  model.finish(command, succeeds ? "SUCCEEDED" : "FAILED", succeeds ? undefined : "NO");
  expect(await call).toEqual({ state: command.state, accepted: true });
  expect(await pawl.call("command.response", { commandId })).toEqual({ response });
});

const cancel = pick.map(
  (index): Op =>
    async ({ model, pawl }) => {
      const command = pickFrom(model.commands, index);
      if (command === undefined) return;
      if (!isFinal(command.state)) model.finish(command, "FAILED", "CANCELLED");
      const { state } = await pawl.call("command.cancel", { commandId: command.commandId });
      expect(state).toBe(command.state);
    },
);

const wait = pick.map(
  (index): Op =>
    (world) => {
      const command = pickFrom(world.model.commands, index);
      if (command === undefined) return;
      const params = { commandId: command.commandId, waitMs: 600_000 };
      const wait: World["waits"][number] = { command, answer: undefined, call: Promise.resolve() };
      wait.call = world.pawl.call("command.wait", params, WATCHING).then((answer) => {
        wait.answer = answer;
      });
      wait.call.catch(() => {});
      world.waits.push(wait);
    },
);

const pass = fc.constantFrom(20, 40, 60, 100, 250, 5000).map(
  (ms): Op =>
    (world) => {
      world.note(`pass ${ms}`);
      world.clocks.pass(ms);
      world.model.pass(ms);
    },
);

const disconnect = connection.map(
  (number): Op =>
    (world) => {
      world.note(`disconnect ${number}`);
      world.pawl.disconnect(number);
      world.model.disconnect(number);
    },
);

const restart = fc.constant<Op>((world) => world.restart());

const USUAL = [
  { weight: 7, arbitrary: create },
  { weight: 9, arbitrary: lease },
  { weight: 4, arbitrary: renew },
  { weight: 3, arbitrary: release },
  { weight: 4, arbitrary: respond },
  { weight: 1, arbitrary: cancel },
  { weight: 2, arbitrary: wait },
  { weight: 5, arbitrary: pass },
  { weight: 2, arbitrary: disconnect },
];

test.each([
  ["a store that answers at once", InProcess, USUAL, ":memory:", 60],
  ["restarts", InProcess, [...USUAL, { weight: 2, arbitrary: restart }], undefined, 8],
  [
    "a store that answers later",
    AsynchronousInProcess,
    [...USUAL, { weight: 1, arbitrary: restart }],
    undefined,
    4,
  ],
])("with %s all is as the model says", { timeout: 1_800_000 }, async (_, Daemon, ops, path, runs) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof(...ops), { minLength: 20, maxLength: 60, size: "max" }),
      async (drawn) => await replay(new World(Daemon, path), drawn),
    ),
    { numRuns: sized(40 * runs, runs), asyncReporter: report },
  );
});

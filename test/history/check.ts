// The checker: cuts a history into what concerns one thing each, and has each part searched for an order. What is
// linearizable thing by thing is so as a whole (Herlihy and Wing); what `transact` performs on several things at once
// and was not answered has, beyond that, to have taken effect on all of them or on none.

import { withEvidence } from "./evidence.js";
import type { Operation } from "./history.js";
import { NOTHING, shownOperation } from "./history.js";
import { boardModel } from "./models/board.js";
import type { Connections, Json } from "./models/calls.js";
import { commandModel } from "./models/command.js";
import { deploymentModel } from "./models/deployment.js";
import { leaseModel } from "./models/lease.js";
import { pathModel } from "./models/path.js";
import { queueModel } from "./models/queue.js";
import { scheduleModel } from "./models/schedule.js";
import { sequenceModel } from "./models/sequence.js";
import { withOccurrences } from "./occurrences.js";
import { type Model, Search, TooManyExplanations, type Violation } from "./search.js";

/** Something that must not be, in words. */
export type Finding = string;

/** Operations on one thing that a finding shows. */
const MOST_FOLLOWED = 60;

export class Checker {
  readonly #connections: Connections;
  readonly #searches = new Map<string, Search<unknown>>();
  readonly #objectsOf = new Map<number, string[]>();
  /** What was followed of each thing, for whoever has to understand a finding. */
  readonly #followed = new Map<string, Operation[]>();
  /** How many operations were followed. */
  checked = 0;

  constructor(connections: Connections) {
    this.#connections = connections;
  }

  /** Follows operations that all come after those of before, and returns what must not be. */
  check(recorded: readonly Operation[]): Finding[] {
    this.checked += recorded.length;
    const { operations, findings: besides } = withOccurrences(recorded);
    const findings: Finding[] = [...besides, ...enqueuedOutOfOrder(operations), ...notRefused(operations)];
    this.#objectsOf.clear();
    const outcomes: Map<number, Set<boolean>>[] = [];
    const known = withEvidence(operations, this.#connections);
    for (const [object, parts] of this.#partsOf(known)) {
      const search = this.#searchOf(object);
      try {
        const followed = [...(this.#followed.get(object) ?? []), ...parts].slice(-MOST_FOLLOWED);
        this.#followed.set(object, followed);
        const violation = search.feed(parts);
        if (violation !== undefined) findings.push(shownViolation(violation, followed));
        else outcomes.push(search.settle());
      } catch (error) {
        if (!(error instanceof TooManyExplanations)) throw error;
        findings.push(`${object}: undecided, there are ${error.message} explanations`);
      }
    }
    return [...findings, ...this.#torn(operations, outcomes)];
  }

  /** Things that no more operations are about. */
  forget(isOver: (object: string) => boolean): void {
    for (const object of this.#searches.keys()) {
      if (!isOver(object)) continue;
      this.#searches.delete(object);
      this.#followed.delete(object);
    }
  }

  #searchOf(object: string): Search<unknown> {
    let search = this.#searches.get(object);
    if (search === undefined) {
      search = new Search(
        object,
        this.#modelOf(object),
        ({ id }) => (this.#objectsOf.get(id)?.length ?? 0) > 1,
      );
      this.#searches.set(object, search);
    }
    return search;
  }

  #modelOf(object: string): Model<unknown> {
    const [noun] = object.split(":");
    switch (noun) {
      case "sequence":
        return sequenceModel as Model<unknown>;
      case "queue":
        return queueModel(this.#connections) as Model<unknown>;
      case "lease":
        return leaseModel(this.#connections) as Model<unknown>;
      case "path":
        return pathModel(this.#connections) as Model<unknown>;
      case "command":
        return commandModel(this.#connections) as Model<unknown>;
      case "deployment":
        return deploymentModel as Model<unknown>;
      case "schedule":
        return scheduleModel as Model<unknown>;
      case "item":
        return boardModel as Model<unknown>;
    }
    throw new Error(`no model of ${object}`);
  }

  /** The operations on each thing, with only those of their calls that are about it. */
  #partsOf(operations: readonly Operation[]): Map<string, Operation[]> {
    const parts = new Map<string, Operation[]>();
    const add = (object: string, part: Operation): void => {
      const list = parts.get(object);
      if (list === undefined) parts.set(object, [part]);
      else list.push(part);
    };
    const commands = commandsOf(operations);
    for (const operation of [...operations, ...deploymentsUsed(operations)]) {
      if (operation.calls.some(({ object }) => object === NOTHING)) continue;
      // A refusal of several calls leaves nothing behind, whichever was at fault.
      if (operation.outcome.kind === "refused" && operation.calls.length > 1) continue;
      const leased = leasedCommands(operation, commands);
      if (leased !== undefined) {
        for (const each of leased) add(each.calls[0]?.object as string, each);
        continue;
      }
      const objects = [...new Set(operation.calls.map(({ object }) => object))].filter((name) => name !== "");
      if (!this.#objectsOf.has(operation.id)) this.#objectsOf.set(operation.id, objects);
      for (const object of objects) add(object, objects.length === 1 ? operation : partOf(operation, object));
    }
    return parts;
  }

  /** Several calls of one transaction, some of which have taken effect while others cannot have. */
  #torn(operations: readonly Operation[], outcomes: readonly Map<number, Set<boolean>>[]): Finding[] {
    return operations.flatMap((operation) => {
      const known = outcomes.flatMap((each) => each.get(operation.id) ?? []);
      if (known.length < 2) return [];
      const isPossible = [true, false].some((outcome) => known.every((each) => each.has(outcome)));
      return isPossible ? [] : [`torn: took effect in a part only\n  ${shownOperation(operation)}`];
    });
  }
}

function partOf(operation: Operation, object: string): Operation {
  const { outcome, calls } = operation;
  const isIts = (_: unknown, index: number): boolean => calls[index]?.object === object;
  return {
    ...operation,
    calls: calls.filter(isIts),
    outcome:
      outcome.kind === "answered" || outcome.kind === "seen"
        ? { kind: outcome.kind, results: outcome.results.filter(isIts) }
        : outcome,
  };
}

/** The commands of each deployment, as they were sent. */
function commandsOf(operations: readonly Operation[]): Map<string, Set<string>> {
  const commands = new Map<string, Set<string>>();
  for (const { calls } of operations) {
    for (const { method, object, params } of calls) {
      if (method !== "command.create") continue;
      const deployment = params.deployment as string;
      commands.set(deployment, (commands.get(deployment) ?? new Set()).add(object));
    }
  }
  return commands;
}

/**
 * A lease of commands as one of each; without an answer, as one that each of its deployment may have been in. One that
 * was given fewer than it asked for says of each of the others that it was not to be had.
 */
function leasedCommands(
  operation: Operation,
  commands: ReadonlyMap<string, ReadonlySet<string>>,
): Operation[] | undefined {
  const [call] = operation.calls;
  if (call?.method !== "command.lease") return undefined;
  const { outcome } = operation;
  if (outcome.kind === "refused") return [];
  const all = [...(commands.get(call.params.deployment as string) ?? [])];
  const one = (object: string): Operation => ({ ...operation, calls: [{ ...call, object }] });
  if (outcome.kind !== "answered") return all.map(one);
  const [{ leases }] = outcome.results as [Json];
  const leased = new Map<string, Json>(
    leases.map((lease: Json) => [`command:${lease.envelope.params.label}`, lease]),
  );
  const others = leased.size < ((call.params.max as number | undefined) ?? 1) ? all : [];
  return [...new Set([...leased.keys(), ...others])].map((object) => ({
    ...one(object),
    outcome: { kind: "answered", results: [leased.get(object) ?? null] },
  }));
}

/** What the creation of a command tells of its deployment. */
function deploymentsUsed(operations: readonly Operation[]): Operation[] {
  return operations.flatMap((operation) => {
    const [call] = operation.calls;
    if (call?.method !== "command.create" || operation.outcome.kind !== "answered") return [];
    return [{ ...operation, calls: [{ ...call, object: `deployment:${call.params.deployment}` }] }];
  });
}

/** Operations that were answered although a call of theirs has to be refused. */
function notRefused(operations: readonly Operation[]): Finding[] {
  return operations
    .filter(
      ({ calls, outcome }) => outcome.kind === "answered" && calls.some(({ object }) => object === NOTHING),
    )
    .map((operation) => `not refused\n  ${shownOperation(operation)}`);
}

/** The order of all batches of the database: who was answered before another was sent has the lower enqueueSeq. */
function enqueuedOutOfOrder(operations: readonly Operation[]): Finding[] {
  const enqueued = operations
    .flatMap((operation) => {
      const { outcome, calls } = operation;
      if (outcome.kind !== "answered") return [];
      return outcome.results.flatMap((result, index) => {
        const { batch, created, batches } = (result ?? {}) as Json;
        if (calls[index]?.method === "queue.enqueue")
          return created ? [{ operation, seq: batch.enqueueSeq }] : [];
        if (calls[index]?.method !== "queue.enqueueMany") return [];
        return batches
          .filter((_: Json, at: number) => created[at])
          .map(({ enqueueSeq }: Json) => ({ operation, seq: enqueueSeq }));
      });
    })
    .sort((a, b) => b.seq - a.seq);
  const findings: Finding[] = [];
  let earliest: Operation | undefined;
  let above = Number.POSITIVE_INFINITY;
  for (const { operation, seq } of enqueued) {
    if (seq === above) findings.push(`enqueueSeq ${seq} twice\n  ${shownOperation(operation)}`);
    if (earliest !== undefined && earliest.ended.order < operation.sent.order) {
      findings.push(
        `enqueueSeq ${seq} after a greater one\n  ${shownOperation(earliest)}\n  ${shownOperation(operation)}`,
      );
    }
    if (earliest === undefined || operation.ended.order < earliest.ended.order) earliest = operation;
    above = seq;
  }
  return findings;
}

function shownViolation(
  { object, operation, window, states }: Violation,
  followed: readonly Operation[],
): Finding {
  return [
    `${object}: nothing explains the answer of #${operation.id}. Not all of these can be true:`,
    ...window.map(shownOperation).map((line) => `  ${line}`),
    `  Before it, it could have been in these states: ${states.map((state) => state.slice(0, 2000)).join(" or ")}`,
    `  The last ${followed.length} on it, as they were answered:`,
    ...followed.map(shownOperation).map((line) => `  ${line}`),
  ].join("\n");
}

// What a call is about: the names in its params, and the ids that stand for a name. By these it is known where the call
// is performed, and which rows it uses.
import { METHODS, type MethodName } from "@pawl/protocol";
import type { Operation } from "../store/statement.js";
import { EVERYTHING } from "../turns/operation.js";
import { commandOfLease } from "./command/delivery.js";
import { deploymentOfCommand } from "./command/row.js";
import { readyKey } from "./deployment/deployment.js";
import { namesOfLease } from "./lease/row.js";
import { readRoot } from "./path/pattern.js";
import { rootOfReservation } from "./path/row.js";
import { queueOfClaim } from "./queue/holder.js";
import { queueOfBatch, scopeOf as scopeOfQueue } from "./queue/row.js";

/** The nouns whose things may be kept elsewhere. */
export type NamedNoun = "sequence" | "queue" | "lease" | "path" | "command";

/**
 * A name in the params of a call, of commands that of their deployment; one that ends in a slash may stand for all that
 * begin so.
 */
export interface Named {
  readonly noun: NamedNoun;
  readonly name: string;
  readonly isBeginning?: boolean;
}

/** An id that stands for names, which whoever gave it can find out. */
export type GivenId =
  | { readonly kind: "batch" | "lease" | "reservation" | "command"; readonly id: string }
  | { readonly kind: "claim"; readonly id: string; readonly proof: string };

export interface About {
  readonly names: readonly Named[];
  readonly ids: readonly GivenId[];
  /** Scopes beside those of its names: of what calls about other names may use, too. */
  readonly beside: readonly string[];
  /** Schedules: one is where its queue is, so it is looked for by its name. */
  readonly schedules: readonly string[];
  /** True if it may use rows of names that it does not tell. */
  readonly reaches: boolean;
  /** The methods of its parts that are about what this database alone has, if it has such parts. */
  readonly here: readonly string[];
  /** True for a list of all that is in one place. */
  readonly isList?: boolean;
}

/** A member of params that are perhaps not checked, as those within a `transact`. */
type Loose = Readonly<Record<string, unknown>>;

export const NOTHING: About = { names: [], ids: [], beside: [], schedules: [], reaches: false, here: [] };

const ofType: AboutOf = ({ type, requestId }) => ({
  ...NOTHING,
  names: texts(type).map((name) => ({ noun: "sequence", name: name.toUpperCase() })),
  beside: texts(requestId).map((id) => `request:${id}`),
});

const ofQueue: AboutOf = ({ queue }) => ({ ...NOTHING, names: queues(texts(queue)) });

const ofQueueReaching: AboutOf = (params) => ({ ...ofQueue(params), reaches: true });

const ofClaim: AboutOf = (params) => ({ ...NOTHING, ids: claims([params]) });

const ofBatch: AboutOf = ({ batchId }) => ({ ...NOTHING, ids: batches(texts(batchId)) });

/** Of a batch, or of one that its queue finds. */
const ofBatchReaching: AboutOf = ({ batchId, queue }) => ({
  ...NOTHING,
  names: queues(texts(queue)),
  ids: batches(texts(batchId)),
  reaches: true,
});

const ofLeaseName: AboutOf = ({ name }) => ({ ...NOTHING, names: leases(texts(name)) });

const ofLeaseId: AboutOf = ({ leaseId }) => ({
  ...NOTHING,
  ids: texts(leaseId).map((id) => ({ kind: "lease", id })),
});

const ofRoot: AboutOf = ({ root, reservationId }) => ({
  ...NOTHING,
  names: roots(texts(root)),
  ids: reservations(texts(reservationId)),
});

const ofDeployment: AboutOf = ({ deployment }) => ({
  ...NOTHING,
  names: texts(deployment).map((name) => ({ noun: "command", name })),
});

const ofCommand: AboutOf = ({ commandId }) => ({ ...NOTHING, ids: commands(texts(commandId)) });

const ofDelivery: AboutOf = ({ leaseId }) => ({
  ...NOTHING,
  ids: commands(texts(leaseId).flatMap((id) => commandOfLease(id) ?? [])),
});

const ofSchedule: AboutOf = ({ name }) => {
  const schedules = texts(name);
  return { ...NOTHING, schedules, beside: schedules.map((each) => `schedule:${each}`) };
};

type AboutOf = (params: Loose) => About;

/** What is about all names that begin so, as a list is. */
function allOf(noun: NamedNoun, name = ""): About {
  return { ...NOTHING, names: [{ noun, name, isBeginning: true }], reaches: true, isList: true };
}

/** Of a method that is about no names that may be kept elsewhere, but about what this node or its database has. */
const HERE = undefined;

/** What each method is about. */
const ABOUT: { readonly [N in MethodName]: AboutOf | typeof HERE } = {
  "sequence.next": ofType,
  "sequence.reserve": ofType,
  "sequence.peek": ofType,
  "sequence.state": () => allOf("sequence"),
  "sequence.grant": ofType,
  "sequence.advance": ofType,
  "sequence.format": HERE,
  "sequence.parse": HERE,

  "queue.enqueue": ({ queue, after }) => ({
    ...NOTHING,
    names: queues(texts(queue)),
    ids: batches(texts(after)),
    reaches: after !== undefined,
  }),
  "queue.enqueueMany": ({ batches: given }) => {
    const each = objects(given);
    const awaited = each.flatMap(({ after }) => texts(after));
    return {
      ...NOTHING,
      names: queues(each.flatMap(({ queue }) => texts(queue))),
      ids: batches(awaited),
      reaches: each.some(({ after }) => after !== undefined),
    };
  },
  "queue.claim": ({ queue, queues: several, batchIds, held, under }) => ({
    ...NOTHING,
    names: [
      ...queues(texts(queue)),
      ...texts(several).map(entryOf),
      ...objects(under).flatMap(({ lease }) => objects(lease).flatMap(({ name }) => leases(texts(name)))),
    ],
    ids: [...batches(texts(batchIds)), ...claims(objects(held))],
    reaches: queue === undefined || held !== undefined || under !== undefined,
  }),
  "queue.renew": ofClaim,
  "queue.progress": ofClaim,
  "queue.complete": ofClaim,
  "queue.abandon": ofClaim,
  "queue.get": ofBatch,
  "queue.wait": ofBatch,
  "queue.list": (params) => (params.queue === undefined ? allOf("queue") : ofQueue(params)),
  "queue.stats": (params) => (params.queue === undefined ? allOf("queue") : ofQueue(params)),
  "queue.settings": ofQueue,
  "queue.configure": ofQueue,
  "queue.throttle": ofQueue,
  "queue.explain": ({ queue, batchId }) => ({
    ...NOTHING,
    names: queues(texts(queue)),
    ids: batches(texts(batchId)),
    reaches: batchId !== undefined,
  }),
  "queue.update": ofBatchReaching,
  "queue.cancel": ofBatchReaching,
  "queue.retry": ofBatchReaching,
  "queue.move": ({ to, queue, batchIds }) => ({
    ...NOTHING,
    names: queues([...texts(to), ...texts(queue)]),
    ids: batches(texts(batchIds)),
    reaches: true,
  }),
  "queue.purge": (params) => ({ ...ofQueueReaching(params), ids: batches(texts(params.batchIds)) }),

  "lease.acquire": ({ name, names }) => ({ ...NOTHING, names: leases([...texts(name), ...texts(names)]) }),
  "lease.configure": ofLeaseName,
  "lease.heartbeat": ofLeaseId,
  "lease.release": ofLeaseId,
  "lease.get": ofLeaseName,
  "lease.check": ofLeaseName,
  "lease.break": ofLeaseName,
  "lease.list": ({ prefix }) => allOf("lease", texts(prefix)[0]),

  "path.reserve": ofRoot,
  "path.heartbeat": ofRoot,
  "path.release": ofRoot,
  "path.check": ({ root }) => ({ ...NOTHING, names: roots(texts(root)) }),
  "path.list": ({ root }) => (root === undefined ? allOf("path") : { ...NOTHING, names: roots(texts(root)) }),

  "schedule.set": (params) => ({ ...ofSchedule(params), names: queues(texts(params.queue)) }),
  "schedule.get": ofSchedule,
  "schedule.list": () => allOf("queue"),
  "schedule.run": (params) => ({ ...ofSchedule(params), reaches: true }),
  "schedule.next": ofSchedule,
  "schedule.delete": ofSchedule,

  "deployment.set": ofDeployment,
  "deployment.list": () => allOf("command"),
  "command.create": ofDeployment,
  "command.upload": ofCommand,
  "command.lease": ofDeployment,
  "command.renew": ofDelivery,
  "command.progress": ofDelivery,
  "command.release": ofDelivery,
  "command.respond": ofCommand,
  "command.answer": ofCommand,
  "command.get": ofCommand,
  "command.params": ofCommand,
  "command.response": ofCommand,
  "command.wait": ofCommand,
  "command.list": (params) => (params.deployment === undefined ? allOf("command") : ofDeployment(params)),
  "command.cancel": ofCommand,
  "command.serve": ofDeployment,

  "pipeline.write": HERE,
  "pipeline.read": HERE,
  "pipeline.list": HERE,
  "pipeline.delete": HERE,
  "pipeline.history": HERE,
  "pipeline.identity": HERE,
  "pipeline.heads": HERE,
  "pipeline.changes": HERE,
  "pipeline.apply": HERE,
  "pipeline.watch": HERE,
  "pipeline.rebuild": HERE,
  "pipeline.compact": HERE,
  "pipeline.repair": HERE,
  "pipeline.configure": HERE,
  "pipeline.configuration": HERE,
  "pipeline.ready": HERE,
  "pipeline.claim": HERE,
  "pipeline.finish": HERE,

  "peer.trust": HERE,
  "peer.revoke": HERE,
  "peer.list": HERE,
  "peer.seen": HERE,

  "events.watch": HERE,
  "events.subscribe": HERE,
  "events.unsubscribe": HERE,

  "daemon.graph": HERE,
  "daemon.ping": HERE,
  "daemon.info": HERE,
  "daemon.stats": HERE,
  "daemon.acceptCopy": HERE,
  "daemon.check": HERE,
  "daemon.backup": HERE,
  "rpc.discover": HERE,
  "rpc.cancel": HERE,

  transact: ({ calls, guards }) => {
    const parts = objects(calls).map(({ method, params }) => partOf(method as MethodName, asLoose(params)));
    const held = objects(guards).flatMap(({ lease }) => objects(lease).flatMap(({ name }) => texts(name)));
    const claimed = objects(guards).flatMap(({ claim }) => objects(claim));
    const reserved = objects(guards).flatMap(({ path }) => objects(path));
    return {
      ...NOTHING,
      names: [...parts.flatMap(({ names }) => names), ...leases(held)],
      ids: [
        ...parts.flatMap(({ ids }) => ids),
        ...claims(claimed),
        ...reservations(reserved.flatMap(({ reservationId }) => texts(reservationId))),
      ],
      schedules: parts.flatMap(({ schedules }) => schedules),
      reaches: true,
      here: parts.flatMap(({ here }) => here),
    };
  },
};

const TRANSACTABLE: ReadonlySet<string> = new Set(
  METHODS.filter(({ transactable }) => transactable).map(({ name }) => name),
);

/** Methods that no database is needed for, where they name nothing in it. */
const ANYWHERE: ReadonlySet<string> = new Set<MethodName>([
  "sequence.format",
  "sequence.parse",
  "schedule.next",
]);

/**
 * What a part of a `transact` is about. Of what stands for a value of an earlier call nothing is known yet, and what is
 * no name or id is refused wherever the call is performed.
 */
function partOf(method: MethodName, params: Loose): About {
  // Wherever it is performed, the transaction refuses what can be no part of one.
  if (!TRANSACTABLE.has(method)) return NOTHING;
  const about = aboutOf(method, params);
  if (about !== undefined) return isAboutSome(about) ? about : NOTHING;
  return ANYWHERE.has(method) ? NOTHING : { ...NOTHING, here: [method] };
}

/** True if something is named in it. */
function isAboutSome({ names, ids, schedules }: About): boolean {
  return names.length > 0 || ids.length > 0 || schedules.length > 0;
}

/** Undefined for a method that is about no names that may be kept elsewhere. */
export function aboutOf(method: MethodName, params: Loose): About | undefined {
  return ABOUT[method]?.(params);
}

/** The scope of what uses the rows of a thing. */
export function scopeOf({ noun, name }: Named): string {
  // Where receivers wait for commands, so that those of all daemons are considered.
  if (noun === "command") return readyKey(name);
  return noun === "queue" ? scopeOfQueue(name) : `${noun}:${name}`;
}

/** The scopes of the things that an id stands for; none if there is no such thing. */
export function* scopesOf(given: GivenId): Operation<string[]> {
  switch (given.kind) {
    case "batch":
    case "claim": {
      const queue = yield* given.kind === "batch" ? queueOfBatch(given.id) : queueOfClaim(given.id);
      return queue === undefined ? [] : [scopeOfQueue(queue)];
    }
    case "command": {
      const deployment = yield* deploymentOfCommand(given.id);
      return deployment === undefined ? [] : [scopeOf({ noun: "command", name: deployment })];
    }
    case "reservation": {
      const root = yield* rootOfReservation(given.id);
      return root === undefined ? [] : [scopeOf({ noun: "path", name: root })];
    }
    case "lease":
      return (yield* namesOfLease(given.id)).map((name) => scopeOf({ noun: "lease", name }));
  }
}

/** The scopes of the rows that a call uses which is performed again because this key was woken. */
export function scopesWhenWoken(about: About, scopes: readonly string[], key: string): readonly string[] {
  // A claim of several queues then looks at that queue alone.
  const isPlain = about.ids.length === 0 && about.names.every(({ noun }) => noun === "queue");
  return scopes.includes(EVERYTHING) && isPlain && key.startsWith("queue:") ? [key] : scopes;
}

function entryOf(name: string): Named {
  return name.endsWith("/*")
    ? { noun: "queue", name: name.slice(0, -1), isBeginning: true }
    : { noun: "queue", name };
}

function queues(names: readonly string[]): Named[] {
  return names.map((name) => ({ noun: "queue", name }));
}

function leases(names: readonly string[]): Named[] {
  return names.map((name) => ({ noun: "lease", name }));
}

/** In their one form. What is none is refused by whoever performs the call. */
function roots(given: readonly string[]): Named[] {
  return given
    .map(readRoot)
    .filter((root) => typeof root === "string")
    .map((name) => ({ noun: "path", name }));
}

function reservations(ids: readonly string[]): GivenId[] {
  return ids.map((id) => ({ kind: "reservation", id }));
}

function commands(ids: readonly string[]): GivenId[] {
  return ids.map((id) => ({ kind: "command", id }));
}

function batches(ids: readonly string[]): GivenId[] {
  // Beside ids there are names of batches within their call.
  return ids.filter((id) => id.startsWith("qwb:")).map((id) => ({ kind: "batch", id }));
}

function claims(given: readonly Loose[]): GivenId[] {
  return given.flatMap(({ claimId, leaseToken }) =>
    typeof claimId === "string" && typeof leaseToken === "string"
      ? [{ kind: "claim", id: claimId, proof: leaseToken }]
      : [],
  );
}

/** The texts of a member that is one, or a list of some. */
function texts(given: unknown): string[] {
  if (typeof given === "string") return [given];
  return Array.isArray(given) ? given.filter((each) => typeof each === "string") : [];
}

function objects(given: unknown): Loose[] {
  const all: unknown[] = Array.isArray(given) ? given : [given];
  return all.filter((each): each is Loose => typeof each === "object" && each !== null);
}

function asLoose(params: unknown): Loose {
  return objects(params)[0] ?? {};
}

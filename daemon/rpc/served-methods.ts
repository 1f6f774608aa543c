import { type Method, NOUNS, type NounName } from "@pawl/protocol";
import type { Id } from "@pawl/protocol/envelope";
import type { Texts } from "@pawl/protocol/json-text";
import type { z } from "zod";
import { commandHandlers } from "../domain/command/command.js";
import { daemonHandlers, type OwnReport } from "../domain/daemon.js";
import { deploymentHandlers, type Serving } from "../domain/deployment/deployment.js";
import { eventsHandlers, type Subscriptions } from "../domain/events.js";
import { leaseHandlers } from "../domain/lease/lease.js";
import { pathHandlers } from "../domain/path/path.js";
import { peerHandlers } from "../domain/peer/peer.js";
import { queueHandlers } from "../domain/queue/queue.js";
import { rpcHandlers } from "../domain/rpc.js";
import { scheduleHandlers } from "../domain/schedule/schedule.js";
import { sequenceHandlers } from "../domain/sequence/sequence.js";
import { type Callable, transactHandlers } from "../domain/transact.js";
import { pipelineHandlers } from "../domain/work/work.js";
import type { UploadedPiece } from "../json/uploaded-piece.js";
import type { RemoteLeases } from "../remote/remote-leases.js";
import type { Places } from "../shared/places.js";
import type { Operation } from "../store/statement.js";
import type { AsyncHandlers, Handler, HandlersOf, Sender } from "../turns/handler.js";
import type { Journal } from "../turns/journal.js";
import type { Env, Outcome } from "../turns/operation.js";
import { withoutNulls } from "./null-params.js";
import { describeIssues, noSuchMethod } from "./validation-errors.js";

/** A method with what performs it. */
export interface ServedMethod extends Callable {
  readonly name: string;
  readonly writes: boolean;
  readonly composed: boolean | undefined;
  /** True if it grants something: all that do take `releaseOn` (spec: wire.md, Ownership). */
  grants(): boolean;
  /** Performs it in a turn. */
  perform(params: unknown, env: Env, texts: Texts, piece?: UploadedPiece): Operation<Outcome<unknown>>;
  /** Performs it outside the turns; undefined for what a turn performs. */
  performAsync(params: unknown, sender: Sender, id: Id | undefined): Promise<unknown> | undefined;
}

/** The parts of the daemon that some methods are about, beside the database. */
export interface Surroundings {
  readonly ownReport: OwnReport;
  /** Those that serve deployments of the database of a turn. */
  readonly commandPush: (env: Pick<Env, "idMark">) => Serving & { serve: Handler<"command.serve"> };
  readonly remoteLeases?: RemoteLeases | undefined;
  /** Only where names are kept in databases that other daemons share. */
  readonly places?: Places | undefined;
  /** The journal is undefined in a daemon that only reads. */
  readonly events: { readonly journal: Journal | undefined; readonly subscriptions: Subscriptions };
  readonly async: AsyncHandlers;
}

/** Every method by its name, made from the definitions of the nouns and their handlers. */
export function servedMethods({
  ownReport,
  commandPush,
  remoteLeases,
  places,
  events,
  async,
}: Surroundings): ReadonlyMap<string, ServedMethod> {
  const handlers: { readonly [N in NounName]: HandlersOf<N> } = {
    sequence: sequenceHandlers,
    queue: queueHandlers,
    schedule: scheduleHandlers,
    claim: {},
    deployment: deploymentHandlers(commandPush),
    command: commandHandlers((params, env, ...rest) => commandPush(env).serve(params, env, ...rest)),
    lease: leaseHandlers((key) => remoteLeases?.waiting(key) ?? 0),
    path: pathHandlers,
    pipeline: pipelineHandlers,
    item: {},
    peer: peerHandlers,
    transact: transactHandlers((name) => served.get(name) ?? noSuchMethod(name, [...served.keys()])),
    events: eventsHandlers(events.journal, events.subscriptions),
    event: {},
    daemon: daemonHandlers(ownReport, () => remoteLeases?.everyoneWaiting() ?? []),
    rpc: rpcHandlers,
  };
  const served = new Map<string, ServedMethod>();
  for (const { noun, methods } of NOUNS) {
    const performed = handlers[noun] as Record<string, ServedMethod["perform"]>;
    for (const [verb, method] of Object.entries(methods) as [string, Method][]) {
      const { name, writes, composed, transactable, raw } = method;
      const performAsync = async[name as keyof AsyncHandlers] as ServedMethod["performAsync"] | undefined;
      // Not the whole method: that has its params made, which are made when it is called for the first time.
      served.set(name, {
        name,
        writes,
        composed,
        transactable,
        raw,
        grants: () => "releaseOn" in (method.params as z.ZodObject).shape,
        check: (params, path) => check(method, params, path),
        perform: performed[verb] as ServedMethod["perform"],
        performAsync: performAsync ?? (() => undefined),
        elsewhere: (params, env) => places?.elsewhere(name, params as object, env.idMark),
        asksProvider: (params, env) => remoteLeases?.reaches(name, params, env) ?? asksNobody(),
      });
    }
  }
  return served;
}

function check({ name, params: schema }: Method, params: unknown, path: readonly PropertyKey[]): unknown {
  const checked = schema.safeParse(params);
  if (checked.success) return checked.data;
  // Looked for only here, so that it costs nothing where there is none.
  const given = withoutNulls(schema, params);
  if (given === params) return describeIssues(name, checked.error.issues, params, path);
  const again = schema.safeParse(given);
  return again.success ? again.data : describeIssues(name, again.error.issues, given, path);
}

function* asksNobody(): Operation<boolean> {
  return false;
}

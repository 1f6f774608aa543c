import type { MethodName, Parsed, Result } from "@pawl/protocol";
import type { Texts } from "@pawl/protocol/json-text";
import * as pipeline from "../domain/board/items.js";
import { rebuild } from "../domain/board/rebuild.js";
import * as sync from "../domain/board/sync.js";
import { commandHandlers } from "../domain/command/command.js";
import { discover, type Inside, info, ping } from "../domain/daemon.js";
import { listDeployments, setDeployment } from "../domain/deployment/deployment.js";
import * as lease from "../domain/lease/lease.js";
import * as peer from "../domain/peer/peer.js";
import { queueHandlers } from "../domain/queue/queue.js";
import * as sequence from "../domain/sequence/sequence.js";
import { transact } from "../domain/transact.js";
import type { UploadedPiece } from "../json/uploaded-piece.js";
import type { OutsideLeases } from "../remote/remote-leases.js";
import type { Operation } from "../store/statement.js";
import type { Env, Outcome } from "../turns/operation.js";
import type { Receivers } from "./command-push.js";
import type { Sender } from "./dispatch.js";

/** Methods without an operation: what they do is no business of the database. */
export type OutsideMethod = "daemon.backup";

/** Which operation performs which method. */
export type Handlers = {
  readonly [N in Exclude<MethodName, OutsideMethod>]: (
    params: Parsed<N>,
    env: Env,
    texts: Texts,
    cutOut?: UploadedPiece,
  ) => Operation<Outcome<Result<N>>>;
};

/**
 * What works outside the turns, because it has to wait for something else than this database. It starts when
 * the request is taken up, before the operations of that turn, and answers by a promise, which rejects with a
 * `PawlError`. For a method that has an operation too, undefined leaves the call to that.
 */
export type OutsideHandlers = {
  readonly [N in MethodName]?: OutsideHandler<N, undefined>;
} & { readonly [N in OutsideMethod]: OutsideHandler<N> };

type OutsideHandler<N extends MethodName, Else = never> = (
  params: Parsed<N>,
  sender: Sender,
) => Promise<Result<N>> | Else;

export function handlers(inside: Inside, receivers: Receivers, outside?: OutsideLeases): Handlers {
  const single: Omit<Handlers, "transact"> = {
    "sequence.next": sequence.next,
    "sequence.reserve": sequence.reserve,
    "sequence.peek": sequence.peek,
    "sequence.state": sequence.state,
    "sequence.format": sequence.format,
    "sequence.parse": sequence.parse,
    "sequence.advance": sequence.advance,
    ...queueHandlers,
    "deployment.set": setDeployment,
    "deployment.list": (params, env) => listDeployments(params, env, receivers),
    ...commandHandlers,
    "command.serve": (params, env) => receivers.serve(params, env),
    "lease.acquire": lease.acquire,
    "lease.heartbeat": lease.heartbeat,
    "lease.release": lease.release,
    "lease.get": lease.get,
    "lease.list": (params, env) => lease.list(params, withOutside(env, outside)),
    "lease.check": lease.check,
    "lease.break": lease.breakLease,
    "pipeline.write": pipeline.write,
    "pipeline.read": pipeline.read,
    "pipeline.list": pipeline.list,
    "pipeline.delete": pipeline.remove,
    "pipeline.history": pipeline.history,
    "pipeline.identity": sync.identity,
    "pipeline.heads": sync.heads,
    "pipeline.changes": sync.changes,
    "pipeline.apply": sync.apply,
    "pipeline.watch": sync.watch,
    "pipeline.rebuild": rebuild,
    "peer.trust": peer.trust,
    "peer.revoke": peer.revoke,
    "peer.list": peer.list,
    "daemon.ping": ping,
    "daemon.info": (_params, env) => info(env, inside),
    "daemon.stats": (_params, env) => inside.stats(env),
    "rpc.discover": discover,
  };
  function* reachesOutside(method: string, params: unknown, env: Env): Operation<boolean> {
    return outside === undefined ? false : yield* outside.reaches(method, params, env);
  }
  return {
    ...single,
    transact: (params, env, texts) => transact(params, env, texts, single, reachesOutside),
  };
}

/** Those who wait for leases that are kept outside are not parked here. */
function withOutside(env: Env, outside: OutsideLeases | undefined): Env {
  if (outside === undefined) return env;
  const waiting = (key: string): number | null => {
    const here = env.waiting(key);
    return here === null ? null : here + outside.waiting(key);
  };
  return { ...env, waiting };
}

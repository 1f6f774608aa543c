import * as command from "./command.js";
import * as daemon from "./daemon.js";
import * as lease from "./lease.js";
import type { ParamsOf, ParsedOf, ResultOf } from "./method.js";
import * as pipeline from "./pipeline.js";
import * as queue from "./queue.js";
import * as sequence from "./sequence.js";
import { transact } from "./transact.js";

/** Every method, in the order of the OpenRPC document. This list is the contract. */
export const METHODS = [
  sequence.next,
  sequence.reserve,
  sequence.peek,
  sequence.state,
  sequence.format,
  sequence.parse,
  sequence.advance,
  queue.enqueue,
  queue.enqueueMany,
  queue.claim,
  queue.renew,
  queue.complete,
  queue.abandon,
  queue.get,
  queue.list,
  queue.stats,
  queue.cancel,
  queue.retry,
  queue.explain,
  command.setDeployment,
  command.listDeployments,
  command.create,
  command.upload,
  command.lease,
  command.renew,
  command.release,
  command.respond,
  command.get,
  command.params,
  command.getResponse,
  command.wait,
  command.list,
  command.cancel,
  command.serve,
  lease.acquire,
  lease.heartbeat,
  lease.release,
  lease.get,
  lease.list,
  lease.check,
  lease.breakLease,
  pipeline.write,
  pipeline.read,
  pipeline.list,
  pipeline.delete,
  pipeline.history,
  pipeline.identity,
  pipeline.heads,
  pipeline.changes,
  pipeline.apply,
  pipeline.watch,
  pipeline.rebuild,
  pipeline.trust,
  pipeline.revoke,
  pipeline.peers,
  transact,
  daemon.ping,
  daemon.info,
  daemon.stats,
  daemon.backup,
  daemon.discover,
] as const;

/** What the daemon sends to a connection without being asked. */
export const NOTIFICATIONS = [command.cancelled, lease.expiring, lease.lost, daemon.backupProgress] as const;

/** What the daemon asks of a connection that has offered it: JSON-RPC requests in the other direction. */
export const REQUESTS = [command.execute] as const;

export type NotificationName = (typeof NOTIFICATIONS)[number]["name"];
/** What a notification carries. */
export type NotificationParams<N extends NotificationName> = ParsedOf<
  Extract<(typeof NOTIFICATIONS)[number], { name: N }>
>;

type Definition = (typeof METHODS)[number];

export type MethodName = Definition["name"];
type Named<N extends MethodName> = Extract<Definition, { name: N }>;

/** What a caller sends. */
export type Params<N extends MethodName> = ParamsOf<Named<N>>;
/** What the daemon works on: params with defaults filled in. */
export type Parsed<N extends MethodName> = ParsedOf<Named<N>>;
/** What a caller gets. */
export type Result<N extends MethodName> = ResultOf<Named<N>>;

/**
 * Methods whose second performance changes nothing more than the first, so that a client may send them again
 * when the connection broke before the answer. The answer to a repetition may say that there was nothing left
 * to do (`created: false`, `already_cancelled`). No schemas here: clients import this file at run time.
 */
const REPEATABLE: ReadonlySet<string> = new Set([
  "sequence.peek",
  "sequence.state",
  "sequence.format",
  "sequence.parse",
  "sequence.advance",
  "queue.renew",
  "queue.complete",
  "queue.get",
  "queue.list",
  "queue.stats",
  "queue.explain",
  "queue.cancel",
  "lease.heartbeat",
  "lease.get",
  "lease.list",
  "lease.check",
  "deployment.set",
  "deployment.list",
  "command.renew",
  "command.get",
  "command.params",
  "command.response",
  "command.wait",
  "command.list",
  "command.cancel",
  "pipeline.read",
  "pipeline.list",
  "pipeline.history",
  "pipeline.identity",
  "pipeline.heads",
  "pipeline.changes",
  "pipeline.apply",
  "pipeline.watch",
  "pipeline.rebuild",
  "peer.trust",
  "peer.revoke",
  "peer.list",
  "daemon.ping",
  "daemon.info",
  "daemon.stats",
  "rpc.discover",
]);

/** Methods that become repeatable by a key that the caller chose, and the name of that key. */
const REPEATABLE_WITH_KEY: Readonly<Record<string, string>> = {
  "sequence.next": "requestId",
  "sequence.reserve": "requestId",
  "queue.enqueue": "sourceKey",
  "command.create": "idempotencyKey",
};

/**
 * Whether a request may be sent again when nobody knows whether it took effect. A `transact` never is: a guard
 * that held the first time, or a value that a later call was given, may be another the second time.
 */
export function isRepeatable(method: string, params: Readonly<Record<string, unknown>>): boolean {
  if (REPEATABLE.has(method)) return true;
  if (method === "queue.enqueueMany") {
    const { batches } = params;
    return Array.isArray(batches) && batches.every((batch) => isGiven(batch?.sourceKey));
  }
  const key = Object.hasOwn(REPEATABLE_WITH_KEY, method) ? REPEATABLE_WITH_KEY[method] : undefined;
  return key !== undefined && isGiven(params[key]);
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/**
 * The methods that a page may call. None of them waits, or grants what would end with the connection, which all pages
 * share.
 */
const READS = new Set([
  "command.get",
  "command.list",
  "command.params",
  "command.response",
  "daemon.graph",
  "daemon.info",
  "daemon.stats",
  "deployment.list",
  "lease.get",
  "lease.list",
  "path.list",
  "pipeline.history",
  "pipeline.list",
  "pipeline.read",
  "queue.explain",
  "queue.get",
  "queue.list",
  "queue.settings",
  "queue.stats",
  "schedule.list",
  "sequence.state",
]);

const WRITES = new Set([
  "command.cancel",
  "lease.break",
  "pipeline.write",
  "queue.cancel",
  "queue.configure",
  "queue.purge",
  "queue.retry",
  "queue.update",
  "schedule.delete",
  "schedule.run",
]);

/** Why a page may not call a method, or undefined if it may. */
export function whyNot(method: string, readOnly: boolean): string | undefined {
  if (READS.has(method)) return undefined;
  if (!WRITES.has(method)) return `The page may not call ${JSON.stringify(method)}.`;
  return readOnly
    ? `${method} changes something, and this page only looks: pawl web runs with --read-only, or the socket is for reads.`
    : undefined;
}

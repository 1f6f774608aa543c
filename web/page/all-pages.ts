import type { QueueRow } from "./health.js";
import { call } from "./server.js";

const PAGE_ROWS = 1000;

/** Every queue: a few answers, however many there are. */
export async function allQueues(): Promise<QueueRow[]> {
  const all: QueueRow[] = [];
  for (let after: string | undefined; ; ) {
    const page = await call("queue.stats", { limit: PAGE_ROWS, ...(after === undefined ? {} : { after }) });
    all.push(...page.queues);
    if (page.next === undefined) return all;
    after = page.next;
  }
}

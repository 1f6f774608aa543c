import type { QueueRow } from "./health.js";
import { call } from "./server.js";

/** So many rows a call lists: a few answers, however many there are. */
export const ROWS_PER_CALL = 1000;

interface Page<A> {
  /** Where the rows go on behind it; absent in the last one. */
  readonly next?: A | undefined;
}

/**
 * The rows of a list that comes in pages.
 *
 * @param ask asks for one page, with the params that say where it begins.
 * @param come is given the rows so far while there are more.
 */
export async function allRows<A, P extends Page<A>, R>(
  ask: (place: { after?: A }) => Promise<P>,
  rowsOf: (page: P) => readonly R[],
  come: (rows: readonly R[]) => void = () => {},
): Promise<R[]> {
  return (await rowsOfPages(Number.POSITIVE_INFINITY, ask, rowsOf, come)).rows;
}

/** The rows of the first pages, at most so many of them, and whether there are more. */
export async function rowsOfPages<A, P extends Page<A>, R>(
  most: number,
  ask: (place: { after?: A }) => Promise<P>,
  rowsOf: (page: P) => readonly R[],
  come: (rows: readonly R[]) => void = () => {},
): Promise<{ rows: R[]; more: boolean }> {
  const rows: R[] = [];
  let place: { after?: A } = {};
  for (let pages = 1; ; pages += 1) {
    const page = await ask(place);
    rows.push(...rowsOf(page));
    if (page.next === undefined || pages >= most) return { rows, more: page.next !== undefined };
    place = { after: page.next };
    come(rows);
  }
}

export async function allQueues(): Promise<QueueRow[]> {
  return await allRows(
    (place: { after?: string }) => call("queue.stats", { limit: ROWS_PER_CALL, ...place }),
    ({ queues }) => queues,
  );
}

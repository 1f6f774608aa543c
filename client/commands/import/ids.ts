import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { shorten } from "../../terminal/values.js";
import { type Counter, nodeNamed, Problems } from "./counter.js";

const ID = /^([A-Za-z][A-Za-z0-9_]*)(?:-([A-Za-z0-9]+))?-([0-9]+)$/;

/**
 * Reads one id per line; empty lines and those that begin with # count for nothing.
 *
 * @param source of the stream, for messages.
 */
export async function readIds(input: Readable, source: string): Promise<Counter[]> {
  const problems = new Problems(source);
  // The highest per type and node, so that a file of any length fits.
  const highest = new Map<string, Counter>();
  let number = 0;
  for await (const raw of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    number += 1;
    const line = raw.replace(/^\ufeff/, "").trim();
    if (line === "" || line.startsWith("#")) continue;
    const [, type = "", node, last] = ID.exec(line) ?? [];
    const nodeId = node === undefined ? 0 : nodeNamed(node);
    // Node 0 is what an id without a node has; it is never spelled out.
    const badNode = node !== undefined && nodeId === 0;
    const [counter] = problems.counterOf(
      type,
      last === undefined || badNode || Number(last) === 0 ? undefined : last,
      nodeId,
      `line ${number}`,
      JSON.stringify(shorten(line)),
    );
    if (counter === undefined) continue;
    const key = `${counter.type}-${counter.nodeId}`;
    if ((highest.get(key)?.last ?? -1) < counter.last) highest.set(key, counter);
  }
  problems.refuseIfAny();
  return [...highest.values()];
}

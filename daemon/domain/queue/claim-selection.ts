import type { Boundary, DeliveryPolicy, SlotPolicy } from "@pawl/protocol";

/** What of a batch decides whether it is claimed. */
export interface Candidate {
  readonly availableAt: number;
  /** When the claim that holds it ends; null if none does. */
  readonly heldUntil: number | null;
  readonly deliveryPolicy: DeliveryPolicy;
  readonly slotPolicy: SlotPolicy;
  readonly priority: number;
  /** What it is about; null for nothing. */
  readonly key: string | null;
  /** What it may be joined by; null for nothing, not even by its like. */
  readonly mergeKey: string | null;
  /** What it adds to the reply. */
  readonly bytes: number;
}

export interface Claiming {
  readonly now: number;
  readonly boundary: Boundary;
  readonly maxBatches: number;
  /** Of all batches of a claim together; the first is claimed however large it is. */
  readonly maxBytes: number;
}

/**
 * The batches that a claim takes (spec: queue.md, Order): the head alone, or with those that directly follow it and
 * join it. Those that are scheduled or held are passed over, as if they were not there.
 *
 * @param candidates batches of one queue, the highest priority first, then in enqueueSeq order, from its first on.
 *   More of them change the result only if all of these that are available are taken.
 * @returns none if there is no candidate, or if the head may not be claimed at this boundary.
 */
export function selectBatches<C extends Candidate>(candidates: readonly C[], claiming: Claiming): C[] {
  const { now, boundary, maxBatches, maxBytes } = claiming;
  const selected: C[] = [];
  let bytes = 0;
  for (const next of candidates) {
    if (next.availableAt > now || (next.heldUntil !== null && next.heldUntil > now)) continue;
    bytes += next.bytes;
    const [head] = selected;
    if (head === undefined) {
      if (boundary === "active_turn_checkpoint" && next.deliveryPolicy !== "earliest_safe_boundary") break;
    } else if (selected.length === maxBatches || bytes > maxBytes || !joins(next, head)) break;
    selected.push(next);
    if (!mayBeJoined(next)) break;
  }
  return selected;
}

/** Whether a head can take others with it, so that they have to be looked at. */
export function mayBeJoined({ slotPolicy, mergeKey }: Pick<Candidate, "slotPolicy" | "mergeKey">): boolean {
  return slotPolicy === "join" && mergeKey !== null;
}

/** @param head may be joined. */
function joins(next: Candidate, head: Candidate): boolean {
  return (
    next.slotPolicy === "join" &&
    next.priority === head.priority &&
    next.key === head.key &&
    next.mergeKey === head.mergeKey &&
    next.deliveryPolicy === head.deliveryPolicy
  );
}

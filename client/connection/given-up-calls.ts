/** A call that gives back what another was granted. */
type Undo = readonly [method: string, params: Record<string, unknown>];

/** How to give back what a method has granted, by its result. */
const GIVING_BACK: Readonly<Record<string, (result: never) => Undo[]>> = {
  "queue.claim": ({ claim }: { claim: { claimId: string; leaseToken: string } | null }) =>
    claim === null ? [] : [["queue.abandon", { claimId: claim.claimId, leaseToken: claim.leaseToken }]],
  // Several names have one leaseId.
  "lease.acquire": ({ lease, leases }: { lease?: { leaseId: string }; leases?: { leaseId: string }[] }) => [
    ["lease.release", { leaseId: (lease ?? leases?.[0])?.leaseId }],
  ],
  "pipeline.claim": ({ lease }: { lease?: { leaseId: string } }) =>
    lease === undefined ? [] : [["lease.release", { leaseId: lease.leaseId }]],
  "path.reserve": ({ reservation: { reservationId } }: { reservation: { reservationId: string } }) => [
    ["path.release", { reservationId }],
  ],
  "command.lease": ({ leases }: { leases: { leaseId: string }[] }) =>
    leases.map(({ leaseId }) => ["command.release", { leaseId, delayMs: 0 }]),
};

/** The calls that were given up after they were sent, and whose answer may grant something that nobody waits for. */
export class GivenUpCalls {
  readonly #methods = new Map<number, string>();

  /** Remembers a call that was given up. */
  add({ id, method, line }: { id: number; method: string; line: string }): void {
    if (!Object.hasOwn(GIVING_BACK, method) || isAddition(method, line)) return;
    this.#methods.set(id, method);
  }

  /** The calls that give back what a call was granted, once its answer has come. */
  undo(id: number, result: unknown): readonly Undo[] {
    const method = this.#methods.get(id);
    this.#methods.delete(id);
    if (method === undefined || result === undefined) return [];
    return GIVING_BACK[method]?.(result as never) ?? [];
  }

  /** The connection ended: no answers come any more. */
  clear(): void {
    this.#methods.clear();
  }
}

/** True if a call adds to a reservation that its caller has already, and keeps: no answer says what of it is new. */
function isAddition(method: string, line: string): boolean {
  if (method !== "path.reserve") return false;
  return (JSON.parse(line) as { params: { reservationId?: string } }).params.reservationId !== undefined;
}

// Who holds a lease and who waits for it, as this database or its provider knows of them.
import type { Caller } from "../../turns/operation.js";

export interface Holder {
  readonly owner: string;
  readonly fencingToken: number;
  /** By the clock of whoever granted it: for people, not for judging anything. */
  readonly acquiredAt: number;
  readonly remainingMs: number;
  readonly note: string | null;
  readonly peer: Peer;
}

export interface Inspected {
  readonly holder: Holder | null;
  readonly highest: number;
}

/** A process, as the kernel told of it; null where it did not, and for one of another machine. */
export interface Peer {
  readonly pid: number | null;
  readonly uid: number | null;
  readonly gid: number | null;
}

/** A call that waits for a lease of a provider, and so is not parked in a turn. */
export interface WaitingElsewhere {
  readonly name: string;
  readonly caller: Caller;
  readonly owner: string;
  readonly task: string | null;
  readonly sinceMs: number;
}

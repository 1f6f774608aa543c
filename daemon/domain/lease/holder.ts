// The holder of a lease, as this database or its provider knows of it.
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

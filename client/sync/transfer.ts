import { PawlError } from "@pawl/protocol/errors";
import { MAX_HEADS } from "@pawl/protocol/limits";
import type { PawlClient } from "../connect.js";
import { advance, includes, type LogPosition, lackingOf, logOf, positionOf } from "./logs.js";
import { askedAgain, type BetweenCuts, closedBy } from "./open-logs.js";
import {
  applyTo,
  type Change,
  changesOf,
  cutsOf,
  type Head,
  type Heads,
  maxMessageBytesOf,
  type OpenLog,
  type Rejection,
  settle,
  sharedOf,
} from "./peer-answers.js";

/** The bytes of a request, beside the changes in it. */
const REQUEST_FRAME_BYTES = 1024;
/** The bytes of a request, beside the heads in it. */
const HEADS_FRAME_BYTES = 128;
/** The bytes of a head as JSON in a list, at most. */
const HEAD_BYTES = 240;
/**
 * How many heads one request names for each that is wanted, at most: that one, the head that the receiver has of the
 * same log, another of it that the receiver turns out to have, how far it has come meanwhile, and what it refuses.
 */
const HEADS_PER_WANTED = 5;

/** Changes of one node that another took in, and the logs that it refused, each once. */
export interface Transferred {
  readonly applied: number;
  /** True if the other node has more than before. */
  readonly hasMoved: boolean;
  readonly rejected: readonly Rejection[];
}

const NOTHING: Transferred = { applied: 0, hasMoved: false, rejected: [] };

/**
 * Gives a node what it lacks of another.
 *
 * @param given the heads of `from`.
 * @param had the heads of `to`.
 * @param cuts whether both know cuts; else what was taken away rejects with `unsupported_version`, if it is lacked.
 * Logs that are open at `to` and not at `from` are given again, from before the first cut on.
 * @param onProgress is told after each step how many changes have been given, and of how many, as far as can be told.
 */
export async function transfer(
  from: PawlClient,
  given: Heads,
  to: PawlClient,
  had: Heads,
  cuts: BetweenCuts,
  onProgress: (done: number, total: number) => void,
): Promise<Transferred> {
  const again = await askedAgain(from, cuts);
  const lacksNothing = includes(had, given);
  if (again.length === 0 && lacksNothing) return NOTHING;
  const openLogs = new Set(again.map(logOf));
  const known = [...had.filter((head) => !openLogs.has(logOf(head))), ...again.flatMap(beginningOf)];
  const [giverBytes, receiverBytes] = await Promise.all([maxMessageBytesOf(from), maxMessageBytesOf(to)]);
  const fitting = Math.floor((Math.min(giverBytes, receiverBytes) - HEADS_FRAME_BYTES) / HEAD_BYTES);
  const wantedHeads = Math.max(1, Math.floor(Math.min(MAX_HEADS, fitting) / HEADS_PER_WANTED));
  const total = lackingOf(given, known);
  const work = new Transfer(from, to, cuts.areKnown, receiverBytes - REQUEST_FRAME_BYTES, openLogs, (done) =>
    onProgress(done, Math.max(done, total)),
  );
  try {
    if (given.length <= wantedHeads && known.length <= wantedHeads) await work.give(given, known);
    else await giveInParts(work, given, known, wantedHeads);
    if (again.length + work.cutPlaces.length > 0 && work.rejected.size === 0) {
      const { open } = await cutsOf(to);
      await settle(to, closedBy(open, again, work.cutPlaces, cuts.openThere));
    }
  } catch (error) {
    // A node that only reads can wait for what it may lack until the one that writes its database is synced.
    if (lacksNothing && error instanceof PawlError && error.kind === "read_only") return NOTHING;
    throw error;
  }
  return {
    applied: work.applied,
    hasMoved: work.applied + work.cuts > 0,
    rejected: [...work.rejected.values()],
  };
}

/** The place from which on an open log is given again. */
function beginningOf({ author, incarnation, after }: OpenLog): Head[] {
  return after === null ? [] : [{ author, incarnation, ...after }];
}

/** Gives what leads to some of the heads after the other, when one request cannot name them all. */
async function giveInParts(work: Transfer, given: Heads, known: Heads, wantedHeads: number): Promise<void> {
  const hashes = new Set(known.map(({ hash }) => hash));
  const lacking = given.filter(({ hash }) => !hashes.has(hash));
  const byLog = new Map<string, Head[]>();
  for (const head of known) {
    const log = logOf(head);
    byLog.set(log, [...(byLog.get(log) ?? []), head]);
  }
  for (let index = 0; index < lacking.length; index += wantedHeads) {
    const want = lacking.slice(index, index + wantedHeads);
    const has = [...new Set(want.map(logOf))].flatMap((log) => byLog.get(log) ?? []);
    // Heads that are left out make the giver give what is there already, and nothing worse.
    await work.give(want, has.slice(0, wantedHeads), true);
  }
}

/** Pages of changes on their way from one node to another. */
class Transfer {
  applied = 0;
  /** Cuts that were taken in. */
  cuts = 0;
  /** Where the cuts stand that the receiver was given. */
  readonly cutPlaces: LogPosition[] = [];
  /** The first change that was refused of a log, by log. */
  readonly rejected = new Map<string, Rejection>();
  readonly #from: PawlClient;
  readonly #to: PawlClient;
  readonly #knowCuts: boolean;
  /** The bytes of changes in one request to the receiver, at most. */
  readonly #maxBytes: number;
  readonly #openLogs: ReadonlySet<string>;
  readonly #onProgress: (done: number) => void;
  #done = 0;

  constructor(
    from: PawlClient,
    to: PawlClient,
    knowCuts: boolean,
    maxBytes: number,
    openLogs: ReadonlySet<string>,
    onProgress: (done: number) => void,
  ) {
    this.#from = from;
    this.#to = to;
    this.#knowCuts = knowCuts;
    this.#maxBytes = maxBytes;
    this.#openLogs = openLogs;
    this.#onProgress = onProgress;
  }

  /**
   * Gives the receiver what leads to some heads of the giver.
   *
   * @param known heads of the receiver.
   * @param only whether the giver is to give only that; else it gives all that the receiver lacks.
   */
  async give(given: Heads, known: Heads, only = false): Promise<void> {
    // Where a log goes on at the receiver beyond its end at the giver, the giver does not know the head, and would
    // begin from the start: it is told its own head instead, if the receiver has that too.
    const shared = await sharedOf(this.#to, given);
    const isWhole = (head: Head) => shared.has(head.hash) && !this.#openLogs.has(logOf(head));
    let tips = [...known, ...given.filter(isWhole)];
    const options = {
      ...(only ? { want: [...given] } : {}),
      ...(this.#knowCuts ? { cuts: true as const } : {}),
    };
    const ask = () => changesOf(this.#from, { heads: [...tips], ...options });
    const seen = new SeenChanges();
    let next = ask();
    for (let more = true; more; ) {
      const page = await next;
      more = page.more && page.changes.length > 0;
      const positions = page.changes.map(positionOf);
      if (!seen.addAll(positions) && more) throw nothingNew();
      tips = advance(tips, positions);
      for (const position of positions) if (position?.isCut === true) this.cutPlaces.push(position);
      if (more) {
        // The next page is on its way while this one is taken in. An error of that is reported first.
        next = ask();
        next.catch(() => {});
      }
      const refusedLogs = await this.#apply(page.changes, positions);
      // Nothing more is wanted of these.
      tips = [...tips, ...given.filter((head) => refusedLogs.has(logOf(head)))];
      this.#done += page.changes.length;
      this.#onProgress(this.#done);
    }
  }

  /** Has the receiver take in a page. Resolves with the logs that it refused first here. */
  async #apply(
    changes: readonly Change[],
    positions: readonly (LogPosition | undefined)[],
  ): Promise<Set<string>> {
    const refusedLogs = new Set<string>();
    const wanted = changes.filter((_, index) => {
      const position = positions[index];
      return position === undefined || !this.rejected.has(logOf(position));
    });
    for (const part of parts(wanted, this.#maxBytes)) {
      const { applied, cuts = 0, rejected } = await applyTo(this.#to, part);
      this.applied += applied;
      this.cuts += cuts;
      for (const each of rejected) {
        const log = logOf(each);
        if (this.rejected.has(log)) continue;
        this.rejected.set(log, each);
        refusedLogs.add(log);
      }
    }
    return refusedLogs;
  }
}

/** The changes that a node has given, by a part of their hashes that fits into a number. */
class SeenChanges {
  readonly #hashes = new Set<number>();

  /** Returns whether any of them is new. */
  addAll(positions: readonly (LogPosition | undefined)[]): boolean {
    const before = this.#hashes.size;
    for (const position of positions) {
      if (position !== undefined) this.#hashes.add(Number.parseInt(position.hash.slice(0, 12), 16));
    }
    return this.#hashes.size > before;
  }
}

function nothingNew(): PawlError {
  return new PawlError(
    "internal",
    "The peer gives the same changes again and again; nothing more is to be had of it.",
  );
}

/** Changes in parts that fit into a request of the node that takes them in, which may have a limit of its own. */
function* parts(changes: readonly Change[], maxBytes: number): Generator<Change[]> {
  let part: Change[] = [];
  let bytes = 0;
  for (const change of changes) {
    const more = Buffer.byteLength(JSON.stringify(change)) + 1;
    if (part.length > 0 && bytes + more > maxBytes) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(change);
    bytes += more;
  }
  if (part.length > 0) yield part;
}

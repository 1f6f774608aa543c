import { createHash } from "node:crypto";
import type { Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import type { PawlClient } from "./connect.js";

/** Of a request, beside the changes in it. */
const REQUEST_FRAME_BYTES = 1024;

type Identity = Result<"pipeline.identity">;
type Heads = Identity["heads"];
type Change = Result<"pipeline.changes">["changes"][number];
type Rejection = Result<"pipeline.apply">["rejected"][number];

/** What a node did not take in of another's log: from this change on, nothing. */
export interface Refused extends Rejection {
  /** Which of the two nodes refused it. */
  readonly by: "here" | "peer";
}

/** What a sync did. */
export interface Synced {
  /** Changes that this node took in. */
  readonly pulled: number;
  /** Changes that the peer took in. */
  readonly pushed: number;
  /** The logs that one of them refused, each once. */
  readonly refused: readonly Refused[];
}

export interface SyncOptions {
  /** Called after each step: how many changes have been given of how many, as far as can be told. */
  onProgress?: (progress: { direction: "pull" | "push"; done: number; total: number }) => void;
}

/**
 * Makes two nodes of a board agree: this node takes in what it lacks of the peer, then the peer what it lacks of
 * this node. Nodes that agree already exchange their heads and nothing else. It can be interrupted at any moment,
 * and begun again: what was taken in stays.
 *
 * Rejects with `wrong_board` when they are on different boards, and with `duplicate_key` when they sign with the
 * same key: one was made from a copy of the other, and both would write one log.
 *
 * @example
 * await using here = await connect();
 * await using peer = await connect({ socket: "/run/user/1000/forwarded.sock" });
 * const { pulled, pushed } = await syncBoards(here, peer);
 */
export async function syncBoards(
  here: PawlClient,
  peer: PawlClient,
  options: SyncOptions = {},
): Promise<Synced> {
  const [mine, theirs] = await Promise.all([here.pipeline.identity(), peer.pipeline.identity()]);
  checkPair(mine, theirs);
  const pulled = await transfer(peer, theirs.heads, here, mine.heads, (done, total) =>
    options.onProgress?.({ direction: "pull", done, total }),
  );
  // What came from the peer is now to be had here too, and it may have made this node begin a new log.
  const { heads } = pulled.applied === 0 ? mine : await here.pipeline.heads();
  const pushed = await transfer(here, heads, peer, theirs.heads, (done, total) =>
    options.onProgress?.({ direction: "push", done, total }),
  );
  return {
    pulled: pulled.applied,
    pushed: pushed.applied,
    refused: [
      ...pulled.rejected.map((each) => ({ ...each, by: "here" as const })),
      ...pushed.rejected.map((each) => ({ ...each, by: "peer" as const })),
    ],
  };
}

function checkPair(mine: Identity, theirs: Identity): void {
  if (mine.author === theirs.author) {
    throw new PawlError(
      "duplicate_key",
      `Both nodes sign as ${mine.author}: the peer is this node itself, or one was made from a copy of the other with its identity.key. Give one of them a key of its own.`,
    );
  }
  if (mine.board !== null && theirs.board !== null && mine.board !== theirs.board) {
    throw new PawlError(
      "wrong_board",
      `This node is on board ${mine.board}, and the peer on ${theirs.board}. Boards cannot be joined; a node takes the board of the first peer that it trusts, before it writes.`,
      { board: mine.board, peer: theirs.board },
    );
  }
}

/** Gives a node what it lacks of another. */
async function transfer(
  from: PawlClient,
  given: Heads,
  to: PawlClient,
  known: Heads,
  onProgress: (done: number, total: number) => void,
): Promise<{ applied: number; rejected: Rejection[] }> {
  const rejected = new Map<string, Rejection>();
  let applied = 0;
  if (includes(known, given)) return { applied, rejected: [] };

  const { limits } = await to.daemon.info();
  const maxBytes = (limits.maxMessageBytes as number) - REQUEST_FRAME_BYTES;
  const total = lackingOf(given, known);
  let done = 0;
  // Where a log goes on at the receiver beyond its end at the giver, the giver does not know the head, and would
  // begin from the start: it is told its own head instead, if the receiver has that too.
  const { known: shared = [] } = await to.pipeline.heads({ known: [...given] });
  let tips = [...known, ...given.filter(({ hash }) => shared.includes(hash))];
  let next = from.pipeline.changes({ heads: [...tips] });
  for (let more = true; more; ) {
    const page = await next;
    more = page.more && page.changes.length > 0;
    tips = advance(tips, page.changes);
    // The next ones are on their way while these are taken in.
    if (more) {
      next = from.pipeline.changes({ heads: [...tips] });
      // If applying fails first, that is what is reported.
      next.catch(() => {});
    }
    const wanted = page.changes.filter((change) => !rejected.has(logOf(change)));
    for (const part of parts(wanted, maxBytes)) {
      const result = await to.pipeline.apply({ changes: part });
      applied += result.applied;
      for (const each of result.rejected) {
        const log = `${each.author} ${each.incarnation}`;
        if (rejected.has(log)) continue;
        rejected.set(log, each);
        // Nothing more is wanted of this log.
        tips = [...tips, ...given.filter((head) => `${head.author} ${head.incarnation}` === log)];
      }
    }
    done += page.changes.length;
    onProgress(done, Math.max(done, total));
  }
  return { applied, rejected: [...rejected.values()] };
}

/** Whether a node with `known` lacks nothing of these. */
function includes(known: Heads, given: Heads): boolean {
  const hashes = new Set(known.map(({ hash }) => hash));
  return given.every(({ hash }) => hashes.has(hash));
}

/** How many changes a node with `known` lacks, exactly if no log is forked. */
function lackingOf(given: Heads, known: Heads): number {
  const places = new Map<string, number>();
  for (const { author, incarnation, seq } of known) {
    const log = `${author} ${incarnation}`;
    places.set(log, Math.max(seq, places.get(log) ?? 0));
  }
  const lacks = given.map(({ author, incarnation, seq }) =>
    Math.max(0, seq - (places.get(`${author} ${incarnation}`) ?? 0)),
  );
  return lacks.reduce((sum, each) => sum + each, 0);
}

/** The heads of one who has these and also the changes, which are in the order of their logs. */
function advance(heads: Heads, changes: readonly Change[]): Heads {
  const tips = new Map(heads.map((head) => [head.hash, head]));
  for (const { body } of changes) {
    const { author, incarnation, seq, prev } = JSON.parse(body) as Heads[number] & { prev: string | null };
    if (prev !== null) tips.delete(prev);
    const hash = createHash("sha256").update(body).digest("hex");
    tips.set(hash, { author, incarnation, seq, hash });
  }
  return [...tips.values()];
}

function logOf({ body }: Change): string {
  const { author, incarnation } = JSON.parse(body) as Heads[number];
  return `${author} ${incarnation}`;
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

import { createHash } from "node:crypto";
import type { Result } from "@pawl/protocol";
import { PawlError, shown } from "@pawl/protocol/errors";
import { MAX_CHANGES_PER_CALL, MAX_HEADS } from "@pawl/protocol/limits";
import type { PawlClient } from "../connect.js";

/** Of a request, beside the changes in it. */
const REQUEST_FRAME_BYTES = 1024;
/** Of a request, beside the heads in it. */
const HEADS_FRAME_BYTES = 128;
/** Of a head as JSON in a list, at most. */
const HEAD_BYTES = 240;

type Identity = Result<"pipeline.identity">;
type Heads = Identity["heads"];
type Head = Heads[number];
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
  const [mine, theirs] = await Promise.all([identityOf(here), identityOf(peer)]);
  checkPair(mine, theirs);
  const pulled = await transfer(peer, theirs.heads, here, mine.heads, (done, total) =>
    options.onProgress?.({ direction: "pull", done, total }),
  );
  // What came from the peer is now to be had here too, and it may have made this node begin a new log.
  const heads = pulled.applied === 0 ? mine.heads : await headsOf(here);
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

/** What has become of the changes that were given. */
interface Transferred {
  applied: number;
  readonly rejected: Map<string, Rejection>;
  done: number;
}

/** Gives a node what it lacks of another. */
async function transfer(
  from: PawlClient,
  given: Heads,
  to: PawlClient,
  known: Heads,
  onProgress: (done: number, total: number) => void,
): Promise<{ applied: number; rejected: Rejection[] }> {
  const state: Transferred = { applied: 0, rejected: new Map(), done: 0 };
  if (includes(known, given)) return { applied: 0, rejected: [] };

  const [giverBytes, receiverBytes] = await Promise.all([maxMessageBytesOf(from), maxMessageBytesOf(to)]);
  const total = lackingOf(given, known);
  const report = () => onProgress(state.done, Math.max(state.done, total));
  const fitting = Math.floor((Math.min(giverBytes, receiverBytes) - HEADS_FRAME_BYTES) / HEAD_BYTES);
  // A request names what is wanted, what the receiver has of the same logs, what else of them it turns out to have,
  // how far they have come meanwhile, and what it refuses: five times as many heads as are wanted, at most.
  const wantedHeads = Math.max(1, Math.floor(Math.min(MAX_HEADS, fitting) / 5));
  if (given.length <= wantedHeads && known.length <= wantedHeads) {
    await give(from, given, undefined, to, known, receiverBytes, state, report);
    return { applied: state.applied, rejected: [...state.rejected.values()] };
  }

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
    // Those left out make the giver give what is there already, and nothing worse.
    await give(from, want, want, to, has.slice(0, wantedHeads), receiverBytes, state, report);
  }
  return { applied: state.applied, rejected: [...state.rejected.values()] };
}

/**
 * Gives a node what leads to some heads of another.
 *
 * @param want these heads again if the other is to give only that; else it gives all that the node lacks.
 */
async function give(
  from: PawlClient,
  given: Heads,
  want: Heads | undefined,
  to: PawlClient,
  known: Heads,
  receiverBytes: number,
  state: Transferred,
  report: () => void,
): Promise<void> {
  const { rejected } = state;
  // Where a log goes on at the receiver beyond its end at the giver, the giver does not know the head, and would
  // begin from the start: it is told its own head instead, if the receiver has that too.
  const shared = await sharedOf(to, given);
  let tips = [...known, ...given.filter(({ hash }) => shared.has(hash))];
  const ask = () => changesOf(from, { heads: [...tips], ...(want === undefined ? {} : { want: [...want] }) });
  const seen = new Set<number>();
  let next = ask();
  for (let more = true; more; ) {
    const page = await next;
    more = page.more && page.changes.length > 0;
    const links = page.changes.map(linkOf);
    const before = seen.size;
    for (const link of links) if (link !== undefined) seen.add(Number.parseInt(link.hash.slice(0, 12), 16));
    if (more && seen.size === before) {
      throw new PawlError(
        "internal",
        "The peer gives the same changes again and again; nothing more is to be had of it.",
      );
    }
    tips = advance(tips, links);
    // The next ones are on their way while these are taken in.
    if (more) {
      next = ask();
      // If applying fails first, that is what is reported.
      next.catch(() => {});
    }
    const wanted = page.changes.filter((_, index) => {
      const link = links[index];
      return link === undefined || !rejected.has(logOf(link));
    });
    for (const part of parts(wanted, receiverBytes - REQUEST_FRAME_BYTES)) {
      const result = await applyTo(to, part);
      state.applied += result.applied;
      for (const each of result.rejected) {
        const log = logOf(each);
        if (rejected.has(log)) continue;
        rejected.set(log, each);
        // Nothing more is wanted of this log.
        tips = [...tips, ...given.filter((head) => logOf(head) === log)];
      }
    }
    state.done += page.changes.length;
    report();
  }
}

/*
 * A peer is another machine, perhaps of another version, perhaps not a pawld at all. What is read of its answers
 * here, or shown, is looked at first; the changes themselves are judged by the node that takes them in.
 */

async function identityOf(node: PawlClient): Promise<Identity> {
  const answer = await node.pipeline.identity();
  const { author, board, heads } = (answer ?? {}) as Partial<Identity>;
  const isRight = isHex(author, 64) && (board === null || isHex(board, 32)) && isListOf(heads, isHead);
  return checked("pipeline.identity", answer, isRight);
}

async function headsOf(node: PawlClient): Promise<Heads> {
  const answer = await node.pipeline.heads();
  return checked("pipeline.heads", answer, isListOf(answer?.heads, isHead)).heads;
}

/** The hashes of those heads that a node has, as heads or before them. */
async function sharedOf(node: PawlClient, given: Heads): Promise<Set<string>> {
  const answer = await node.pipeline.heads({ known: [...given] });
  const { known = [] } = answer ?? { known: null };
  return new Set(
    checked(
      "pipeline.heads",
      known,
      isListOf(known, (hash) => isHex(hash, 64)),
    ),
  );
}

async function changesOf(
  node: PawlClient,
  params: { heads: Heads; want?: Heads },
): Promise<Result<"pipeline.changes">> {
  const answer = await node.pipeline.changes(params);
  const { changes, more } = (answer ?? {}) as Partial<typeof answer>;
  const isRight =
    isListOf(changes, isSigned) && changes.length <= MAX_CHANGES_PER_CALL && typeof more === "boolean";
  return checked("pipeline.changes", answer, isRight);
}

async function applyTo(node: PawlClient, changes: Change[]): Promise<Result<"pipeline.apply">> {
  const answer = await node.pipeline.apply({ changes });
  const { applied, rejected } = (answer ?? {}) as Partial<typeof answer>;
  return checked("pipeline.apply", answer, Number.isSafeInteger(applied) && isListOf(rejected, isRejection));
}

async function maxMessageBytesOf(node: PawlClient): Promise<number> {
  const answer = await node.daemon.info();
  const most = answer?.limits?.maxMessageBytes;
  return checked("daemon.info", most as number, Number.isSafeInteger(most));
}

function checked<T>(method: string, answer: T, isRight: boolean): T {
  if (isRight) return answer;
  throw new PawlError(
    "internal",
    `${method} was answered with ${shown(answer)}, which no pawld says. Look what listens on the peer's socket, and which version.`,
  );
}

function isListOf<T>(value: unknown, isElement: (element: unknown) => boolean): value is T[] {
  return Array.isArray(value) && value.every(isElement);
}

function isHex(value: unknown, digits: number): boolean {
  return typeof value === "string" && value.length === digits && /^[0-9a-f]*$/.test(value);
}

function isHead(value: unknown): boolean {
  const { author, incarnation, seq, hash } = (value ?? {}) as Partial<Head>;
  return isHex(author, 64) && isHex(incarnation, 32) && Number.isSafeInteger(seq) && isHex(hash, 64);
}

function isSigned(value: unknown): boolean {
  const { body, signature } = (value ?? {}) as Partial<Change>;
  return typeof body === "string" && typeof signature === "string";
}

function isRejection(value: unknown): boolean {
  const { author, incarnation, seq, kind, retryMs = 0 } = (value ?? {}) as Partial<Rejection>;
  return (
    (author === null || isHex(author, 64)) &&
    (incarnation === null || isHex(incarnation, 32)) &&
    (seq === null || Number.isSafeInteger(seq)) &&
    typeof kind === "string" &&
    /^[a-z_]+$/.test(kind) &&
    Number.isSafeInteger(retryMs)
  );
}

/** Whether a node with `known` lacks nothing of these. */
function includes(known: Heads, given: Heads): boolean {
  const hashes = new Set(known.map(({ hash }) => hash));
  return given.every(({ hash }) => hashes.has(hash));
}

/** How many changes a node with `known` lacks, exactly if no log is forked. */
function lackingOf(given: Heads, known: Heads): number {
  const places = new Map<string, number>();
  for (const head of known) {
    places.set(logOf(head), Math.max(head.seq, places.get(logOf(head)) ?? 0));
  }
  const lacks = given.map((head) => Math.max(0, head.seq - (places.get(logOf(head)) ?? 0)));
  return lacks.reduce((sum, each) => sum + each, 0);
}

/** A change's place in its log. */
interface Link extends Head {
  readonly prev: string | null;
}

/** Where a change says that it stands; undefined if it does not say so, and then it is no change. */
function linkOf({ body }: Change): Link | undefined {
  try {
    const { author, incarnation, seq, prev } = JSON.parse(body) as Link;
    const link = { author, incarnation, seq, prev, hash: createHash("sha256").update(body).digest("hex") };
    return isHead(link) && (prev === null || isHex(prev, 64)) ? link : undefined;
  } catch {
    return undefined;
  }
}

/** The heads of one who has these and also the changes, which are in the order of their logs. */
function advance(heads: Heads, links: readonly (Link | undefined)[]): Heads {
  const tips = new Map(heads.map((head) => [head.hash, head]));
  for (const link of links) {
    if (link === undefined) continue;
    const { prev, ...head } = link;
    if (prev !== null) tips.delete(prev);
    tips.set(head.hash, head);
  }
  return [...tips.values()];
}

function logOf({ author, incarnation }: Pick<Rejection, "author" | "incarnation">): string {
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

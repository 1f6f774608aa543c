// The room of sync: two nodes of a board are made to agree, and a daemon on another machine is reached by ssh. The room
// uses nothing but the methods of the client that `connect()` makes.
import { PawlError } from "@pawl/protocol/errors";
import type { PawlClient } from "../connect.js";
import {
  type Change,
  cutsOf,
  headsOf,
  type Identity,
  identityOf,
  maxMessageBytesOf,
  type Rejection,
  statementsOf,
} from "./peer-answers.js";
import { transfer } from "./transfer.js";

/** The bytes of a request, beside the statement in it. */
const REQUEST_FRAME_BYTES = 256;

/** A log of one node that the other did not take in: from this change on, nothing. */
export interface Refused extends Rejection {
  /** Which of the two nodes refused it. */
  readonly by: "here" | "peer";
}

/** The outcome of a sync. */
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
 * this node. At the end each is told what the other has, in writing, so that both know what they need not keep
 * (pipeline.compact). Nodes that agree already exchange their heads and what they say in writing, and no changes. A
 * sync can be interrupted at any moment, and begun again: changes that were taken in stay.
 *
 * Rejects with `wrong_board` when they are on different boards, and with `duplicate_key` when they sign with the
 * same key: one was made from a copy of the other, and both would write one log. Rejects with `unsupported_version`
 * when one lacks what the other has taken away, and is of a version that cannot be given what is kept.
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
  const [myCuts, theirCuts] = await Promise.all([cutsOf(here), cutsOf(peer)]);
  const cuts = myCuts.areKnown && theirCuts.areKnown;
  const pull = { areKnown: cuts, open: myCuts.open, openThere: theirCuts.open };
  const pulled = await transfer(peer, theirs.heads, here, mine.heads, pull, (done, total) =>
    options.onProgress?.({ direction: "pull", done, total }),
  );
  // The changes of the peer are now to be had here too, and may have made this node begin a new log.
  const heads = pulled.hasMoved ? await headsOf(here) : mine.heads;
  const openHere = pulled.hasMoved ? (await cutsOf(here)).open : myCuts.open;
  const push = { areKnown: cuts, open: theirCuts.open, openThere: openHere };
  const pushed = await transfer(here, heads, peer, theirs.heads, push, (done, total) =>
    options.onProgress?.({ direction: "push", done, total }),
  );
  if (cuts) {
    const [said, answered] = await Promise.all([statementsOf(peer), statementsOf(here)]);
    await Promise.all([tell(here, said), tell(peer, answered)]);
  }
  return {
    pulled: pulled.applied,
    pushed: pushed.applied,
    refused: [
      ...pulled.rejected.map((each) => ({ ...each, by: "here" as const })),
      ...pushed.rejected.map((each) => ({ ...each, by: "peer" as const })),
    ],
  };
}

/** Tells a node what others say that they have, one at a time: some are long. A node that only reads keeps nothing. */
async function tell(node: PawlClient, statements: readonly Change[]): Promise<void> {
  const maxBytes = (await maxMessageBytesOf(node)) - REQUEST_FRAME_BYTES;
  for (const statement of statements) {
    // One that is too long for the node says nothing to it; it waits for this peer until it takes longer lines.
    if (Buffer.byteLength(JSON.stringify(statement)) > maxBytes) continue;
    try {
      await node.peer.seen({ statements: [statement] });
    } catch (error) {
      if (error instanceof PawlError && error.kind === "read_only") return;
      throw error;
    }
  }
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

import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { authorKey } from "../../identity/key.js";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { HandlersOf } from "../../turns/handler.js";
import type { Env } from "../../turns/operation.js";
import { findStandings, hear } from "../board/statement.js";
import { keepNode, loadNode } from "../board/tables.js";

const selectPeer = sql<PeerRow>("SELECT * FROM pawl_peer WHERE author = :author");

const selectPeers = sql<PeerRow>("SELECT * FROM pawl_peer ORDER BY trusted_at, author");

const upsertPeer = sql(`
  INSERT INTO pawl_peer (author, name, trusted_at, revoked_at) VALUES (:author, :name, :now, NULL)
  ON CONFLICT (author) DO UPDATE SET name = excluded.name, trusted_at = excluded.trusted_at, revoked_at = NULL`);

const revokePeer = sql(
  "UPDATE pawl_peer SET revoked_at = :now WHERE author = :author AND revoked_at IS NULL",
);

const adoptBoard = sql("UPDATE pawl_board SET board = :board WHERE id = 1");

interface PeerRow {
  author: string;
  name: string;
  trusted_at: number;
  revoked_at: number | null;
}

/** Which operation performs which method. */
export const peerHandlers: HandlersOf<"peer"> = { trust, revoke, list, seen };

export function* trust(params: Parsed<"peer.trust">, env: Env): Operation<Result<"peer.trust"> | PawlError> {
  const { author, name, board } = params;
  const node = yield* loadNode(env);
  if (author === node.author) {
    return refuse(
      "duplicate_key",
      `The key ${author} is this node's own. Trust the line that the peer prints.`,
    );
  }
  const key = authorKey(author);
  if (key instanceof PawlError) return key;
  const known = yield* one(selectPeer, { author });
  const isTrusted = known !== undefined && known.revoked_at === null;
  if (isTrusted && known.name !== name) {
    return refuse(
      "duplicate_key",
      `The key ${author} is trusted already, as ${shown(known.name)}. Revoke it first to give it another name.`,
      { name: known.name },
    );
  }
  if (board !== undefined && node.board !== null && board !== node.board) {
    return refuse(
      "wrong_board",
      `The peer is on board ${board}, and this node on ${node.board}. A node changes its board only by starting anew.`,
      { board: node.board, peer: board },
    );
  }
  if (!isTrusted) yield* run(upsertPeer, { author, name, now: env.wallMs });
  if (board !== undefined && node.board === null) {
    yield* keepNode(node);
    yield* run(adoptBoard, { board });
  }
  return { author, name };
}

function* revoke(params: Parsed<"peer.revoke">, env: Env): Operation<Result<"peer.revoke">> {
  const revoked = yield* run(revokePeer, { author: params.author, now: env.wallMs });
  return { revoked: revoked > 0 };
}

function* list(): Operation<Result<"peer.list">> {
  const rows = yield* all(selectPeers);
  return {
    peers: rows.map(({ author, name, trusted_at: trustedAt, revoked_at: revokedAt }) => ({
      author,
      name,
      trustedAt,
      ...(revokedAt === null ? {} : { revokedAt }),
    })),
  };
}

export function* seen(params: Parsed<"peer.seen">, env: Env): Operation<Result<"peer.seen">> {
  const { author: self, board } = yield* loadNode(env);
  const standingOf = yield* findStandings(self);
  const result: Result<"peer.seen"> = { seen: 0, rejected: [] };
  for (const statement of params.statements) {
    const heard = yield* hear(statement, self, board, standingOf, env.wallMs);
    if (heard instanceof PawlError) {
      const { author = null } = heard.details as { readonly author?: string };
      result.rejected.push({ author, kind: heard.kind as Result<"peer.seen">["rejected"][number]["kind"] });
    } else if (heard) result.seen += 1;
  }
  return result;
}

import { type PawlError, refuse } from "@pawl/protocol/errors";
import { type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { INCARNATION_BYTES } from "./tables.js";

/** The name shown for this node's former author, whose key was replaced. */
const FORMER_NAME = "formerly this node";

const selectNode = sql<{ author: string; file: string; has_changes: number; log_begun: number }>(`
  SELECT author, file, branch IS NOT NULL AS log_begun,
    EXISTS (SELECT 1 FROM pawl_branch b WHERE b.author = n.author) AS has_changes
  FROM pawl_board n`);

const renameNode = sql(`
  UPDATE pawl_board SET author = :author, incarnation = :incarnation, branch = NULL, file = :file WHERE id = 1`);

const updateFile = sql("UPDATE pawl_board SET file = :file WHERE id = 1");

const removePeer = sql("DELETE FROM pawl_peer WHERE author = :author");

/** Unless that node was itself a peer that was revoked. */
const trustFormer = sql(`
  INSERT INTO pawl_peer (author, name, trusted_at, revoked_at) VALUES (:author, '${FORMER_NAME}', :now, NULL)
  ON CONFLICT (author) DO NOTHING`);

/** As whom the database was used on a board, and whether it holds changes by that; undefined if it was not. */
export function* findAuthor(): Operation<{ author: string; hasChanges: boolean } | undefined> {
  const node = yield* one(selectNode);
  return node && { author: node.author, hasChanges: node.has_changes === 1 };
}

/** The news at a start, of a node that is not the one it was; undefined if it is. */
export type Renamed = { readonly reason: string; readonly from: string; readonly to: string } | undefined;

/**
 * Compares this node with the one that wrote the database: the author has to be the same, unless a change is accepted
 * (`invalid_state`, details {from, to}), and so has the file. A database in another file is a copy. Changes that the
 * original makes after that must not be made again under the same sequence numbers, so the copy goes on under a new
 * incarnation.
 */
export function* recognizeNode(
  given: { author: string; file: string; acceptChange: boolean },
  env: Pick<Env, "wallMs" | "random">,
): Operation<Renamed | PawlError> {
  const { author, file } = given;
  const incarnation = env.random(INCARNATION_BYTES).toString("hex");
  const node = yield* one(selectNode);
  if (node === undefined) return undefined;
  if (node.author !== author) {
    if (node.has_changes === 1 && !given.acceptChange) {
      return refuse(
        "invalid_state",
        `The database was written as ${node.author}, and the identity key is that of ${author}. Put the key of ${node.author} back, or go on as ${author} with --accept-identity-change; peers must then trust that.`,
        { from: node.author, to: author },
      );
    }
    if (node.has_changes === 1) yield* run(trustFormer, { author: node.author, now: env.wallMs });
    yield* run(removePeer, { author });
    yield* run(renameNode, { author, incarnation, file });
    return { reason: "the identity key is another one", from: node.author, to: author };
  }
  if (node.file === file) return undefined;
  if (node.log_begun === 0) {
    yield* run(updateFile, { file });
    return undefined;
  }
  yield* run(renameNode, { author, incarnation, file });
  return { reason: "the database is a copy in another file", from: node.file, to: file };
}

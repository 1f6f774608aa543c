// The changes that this node makes itself.
import { PawlError } from "@pawl/protocol/errors";
import type { Operation } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { type Change, type Op, writeChange } from "./change.js";
import { type LoadedItem, loadNode, type Node, storeChange, type Told } from "./tables.js";

/** Of the random name of a board. */
const BOARD_BYTES = 16;

/** This node's next change, signed and not stored yet. */
export interface Prepared {
  readonly change: Change;
  readonly op: Op;
  readonly node: Node;
}

/** Makes and signs this node's next change. Whatever can be refused about it is refused here. */
export function* prepare(op: Op, env: Env, known?: Node): Operation<Prepared | PawlError> {
  const node = known ?? (yield* loadNode(env));
  const { author, incarnation, head, clock } = node;
  const identity = env.identity?.();
  if (identity?.author !== author) throw new Error("the identity is not that of the database");
  const board = node.board ?? env.random(BOARD_BYTES).toString("hex");
  const log = { author, board, incarnation, head, clock };
  const change = writeChange(log, [op], env.wallMs, identity.privateKey);
  return change instanceof PawlError ? change : { change, op, node };
}

/** Stores a change that was made; nothing may have been written to the board since. Gives the item as it is then. */
export function* store(
  { change, op, node }: Prepared,
  item: LoadedItem | undefined,
  env: Env,
  told?: Told,
): Operation<LoadedItem> {
  const items = new Map([[op.storyId, item]]);
  yield* storeChange(change, undefined, node.head ?? undefined, node, env, items, told);
  return items.get(op.storyId) as LoadedItem;
}

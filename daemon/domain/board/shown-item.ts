import type { Result } from "@pawl/protocol";
import type { Operation } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { findClaim, remainingOf } from "./claims.js";
import { type LoadedItem, showItem } from "./tables.js";

export type ShownItem = NonNullable<Result<"pipeline.read">["item"]>;

/** An item as answers have it; null for one that does not exist. */
export function* shownItem(item: LoadedItem, env: Env): Operation<ShownItem | null> {
  const merged = yield* showItem(item.row);
  if (merged === null) return null;
  const claim = yield* findClaim(item, env);
  return {
    ...merged,
    ...(claim === undefined
      ? {}
      : { claim: { agent: claim.agent, expiresAt: env.wallMs + remainingOf(claim, env), pid: claim.pid } }),
    ready: item.work.ready,
  };
}

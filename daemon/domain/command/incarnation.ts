// An incarnation: one receiver of a deployment, as it named itself. A command may be for it alone. It lives while a
// connection that named it is open, or a delivery to it lasts; once it has ended, no other is taken for it.
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { retain } from "../../grants/ending.js";
import { insert, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";

const selectKnown = sql<{ incarnationId: number; endedAt: number | null; graceEndsAt: number | null }>(`
  SELECT incarnation_id AS "incarnationId", ended_at AS "endedAt", grace_ends_at AS "graceEndsAt"
  FROM pawl_incarnation WHERE deployment = :deployment AND incarnation = :incarnation`);

const insertIncarnation = sql(`
  INSERT INTO pawl_incarnation (deployment, incarnation) VALUES (:deployment, :incarnation)`);

const endGrace = sql(
  "UPDATE pawl_incarnation SET grace_ends_at = NULL WHERE incarnation_id = :incarnationId",
);

const selectConnection = sql<{ connection: number }>(`
  SELECT connection FROM pawl_incarnation_connection
  WHERE connection = :connection AND incarnation_id = :incarnationId`);

const insertConnection = sql(`
  INSERT INTO pawl_incarnation_connection (connection, incarnation_id) VALUES (:connection, :incarnationId)`);

/** A receiver, as it asks for commands. */
export interface Named {
  readonly deployment: string;
  readonly incarnation?: string | undefined;
}

/**
 * A receiver names itself on its connection: it lives at least as long as that. Returns its number, null for a receiver
 * without a name. Refuses with `invalid_state` one that has ended.
 */
export function* nameReceiver(
  { deployment, incarnation }: Named,
  env: Env,
): Operation<number | null | PawlError> {
  if (incarnation === undefined) return null;
  const known = yield* one(selectKnown, { deployment, incarnation });
  if (known !== undefined && known.endedAt !== null) {
    return refuse(
      "invalid_state",
      `The incarnation ${shown(incarnation)} of ${shown(deployment)} has ended: no connection that named it is open, and no delivery to it lasts. A receiver that begins anew names another one.`,
      { from: "ended", to: "live" },
    );
  }
  const { connection } = env.caller;
  const incarnationId =
    known?.incarnationId ?? (yield* insert(insertIncarnation, { deployment, incarnation }));
  if (known !== undefined && known.graceEndsAt !== null) yield* run(endGrace, { incarnationId });
  if ((yield* one(selectConnection, { connection, incarnationId })) === undefined) {
    yield* run(insertConnection, { connection, incarnationId });
  }
  env.effects.bind(connection);
  return incarnationId;
}

/** True if a receiver has named itself so and has ended. */
export function* hasEnded(deployment: string, incarnation: string): Operation<boolean> {
  const known = yield* one(selectKnown, { deployment, incarnation });
  return known !== undefined && known.endedAt !== null;
}

/** Why a command is FAILED whose receiver has ended. */
export function gone(incarnation: string): { code: string; message: string } {
  return { code: "GONE", message: `The receiver that it was for has ended: ${incarnation}.` };
}

const endIncarnation = sql(`
  UPDATE pawl_incarnation SET ended_at = :endedAt, has_commands = 1
  WHERE incarnation_id = :incarnationId AND ended_at IS NULL AND grace_ends_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM pawl_incarnation_connection c WHERE c.incarnation_id = :incarnationId)
    AND NOT EXISTS (SELECT 1 FROM pawl_command d WHERE d.lease_incarnation_id = :incarnationId)`);

/** A connection that named a receiver has closed, or a delivery to it has ended: with the last of these it ends. */
export function* endUnlessAlive(incarnationId: number, env: Env): Operation<void> {
  if ((yield* run(endIncarnation, { incarnationId, endedAt: env.retentionNow })) === 0) return;
  retain(env);
  // The commands that were for it end in steps.
  env.effects.deadline(env.now);
}

// Holders that are ended when they lose what they hold (`onLoss`): it is granted to others once their process has ended
// and its connection has closed. The operations here write down which process that is and that it is to be ended;
// `ending-holders.ts` ends it.
import type { Parsed } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_INTEGER, RESTART_GRACE_MS } from "@pawl/protocol/limits";
import { all, type Operation, one, run, sql, write } from "../store/statement.js";
import { NEVER } from "../turns/alarm.js";
import { type HolderProcess, notKnown } from "../turns/holder-process.js";
import { type Env, Wait } from "../turns/operation.js";
import { dueAt, type Ending } from "./ending.js";
import { endOf } from "./grant.js";

export type OnLoss = NonNullable<Parsed<"lease.acquire">["onLoss"]>;

/** The nouns whose grants know `onLoss`. */
export const HELD_NOUNS = ["lease", "path"] as const;
export type HeldNoun = (typeof HELD_NOUNS)[number];

/** The key under which the daemon waits for holders that it has to end. */
const LOST_KEY = "on-loss";
/** Lost grants that are taken up in one step. */
const ROWS_PER_STEP = 100;

/**
 * The SET of an UPDATE that has a grant be nobody's at `:now`, and still not others'. No end of a grant comes upon it
 * any more: neither by its time, nor with a connection.
 */
export const LOSING = `lost_at = CAST(:now AS BIGINT), expires_at = ${MAX_INTEGER}, grace_ends_at = NULL, connection = 0, release_on = 'expiry'`;

const insertHolder = sql(`
  INSERT INTO pawl_on_loss (grant_id, noun, signal, grace_ms, connection, pid, start_time, pidfd_inode, boot,
    pid_namespace, database_file, is_taken)
  VALUES (:grantId, :noun, :signal, :graceMs, :connection, :pid, :startTime, :pidfdInode, :boot,
    :pidNamespace, :databaseFile, 0)`);

const selectHolder = sql<LostRow>("SELECT * FROM pawl_on_loss WHERE grant_id = :grantId");

const followHolder = sql(
  "UPDATE pawl_on_loss SET connection = :connection WHERE grant_id = :grantId AND pid = :pid",
);

/** Where daemons of several machines share the rows, another process may have the pid. */
const followHolderHere = sql(`
  UPDATE pawl_on_loss SET connection = :connection
  WHERE grant_id = :grantId AND pid = :pid AND boot = :boot AND database_file = :databaseFile`);

const markLost = sql<{ grace_ms: number }>(`
  UPDATE pawl_on_loss SET lost_at = coalesce(lost_at, CAST(:now AS BIGINT)) WHERE grant_id = :grantId
  RETURNING grace_ms`);

const takeLost = sql<LostRow>(`
  UPDATE pawl_on_loss SET is_taken = 1 WHERE grant_id IN
    (SELECT grant_id FROM pawl_on_loss WHERE is_taken = 0 AND lost_at IS NOT NULL ORDER BY lost_at LIMIT :rows)
  RETURNING *`);

/** Those of the connections of one of several daemons, and those that a daemon with the same database has left. */
const takeLostOf = sql<LostRow>(`
  UPDATE pawl_on_loss SET is_taken = 1, connection = CASE WHEN connection = 0 THEN :first ELSE connection END
  WHERE grant_id IN
    (SELECT grant_id FROM pawl_on_loss WHERE is_taken = 0 AND lost_at IS NOT NULL
       AND (connection >= :first AND connection <= :last OR connection = 0 AND database_file = :databaseFile)
     ORDER BY lost_at LIMIT :rows)
  RETURNING *`);

const selectSomeOf = sql<{ some: number }>(
  "SELECT 1 AS some FROM pawl_on_loss WHERE connection >= :first AND connection <= :last LIMIT 1",
);

const deleteHolder = sql("DELETE FROM pawl_on_loss WHERE grant_id = :grantId");

const forgetConnections = sql("UPDATE pawl_on_loss SET connection = 0, is_taken = 0");

/** The next life of that daemon has the same time to end them. */
const forgetConnectionsOf = sql(`
  UPDATE pawl_on_loss SET connection = 0, is_taken = 0,
    lost_at = CASE WHEN lost_at IS NULL THEN NULL ELSE CAST(:now AS BIGINT) END
  WHERE connection >= :first AND connection <= :last`);

/** Lost by processes of a daemon that has gone, and of which nobody else can say whether they have ended. */
const ORPHANED = "connection = 0 AND is_taken = 0 AND lost_at IS NOT NULL";

const earliestOrphan = sql<{ at: number | null }>(
  `SELECT min(lost_at + grace_ms) AS at FROM pawl_on_loss WHERE ${ORPHANED}`,
);

const selectOrphans = sql<LostRow>(`
  SELECT * FROM pawl_on_loss WHERE ${ORPHANED} AND lost_at + grace_ms <= :before ORDER BY lost_at LIMIT :rows`);

/** A row of the table: the holder of a grant, as it is to be ended. */
export interface LostRow {
  grant_id: string;
  noun: HeldNoun;
  signal: OnLoss["signal"];
  grace_ms: number;
  /** That has to have closed; 0 for one of an earlier life of the daemon. */
  connection: number;
  pid: number;
  start_time: number;
  pidfd_inode: string;
  boot: string;
  pid_namespace: string;
  database_file: string;
  /** In elapsed milliseconds; null while the grant is held. */
  lost_at: number | null;
}

/** The columns of a grant that say whether its process is ended when it is lost, and since when it is. */
export interface OnLossColumns {
  /** Null for one whose process is left alone. */
  on_loss: 1 | null;
  /** Null while it is not lost. */
  lost_at: number | null;
}

/** The condition of grants that are not free at `:now`: held ones, and lost ones whose process has not ended. */
export function orBeingLost(isHeld: string): string {
  return `(${isHeld} OR on_loss = 1)`;
}

/** What is left of a grant, in milliseconds; 0 of one that is lost. */
export function remainingOf(
  row: { expires_at: number; grace_ends_at: number | null } & OnLossColumns,
  { now }: Pick<Env, "now">,
): number {
  if (row.lost_at !== null) return 0;
  const remainingMs = endOf(row.expires_at, row.grace_ends_at) - now;
  // Its end may have come, and not been seen to yet.
  return row.on_loss === null ? remainingMs : Math.max(remainingMs, 0);
}

/** True of a grant that is lost, and whose process has not ended. */
export function isBeingEnded(row: Parameters<typeof remainingOf>[0], env: Pick<Env, "now">): boolean {
  return row.on_loss === 1 && remainingOf(row, env) === 0;
}

/** The process of the caller, or the refusal of `onLoss`: it cannot be known for certain, or may not be signalled. */
export function holderOf(env: Env): HolderProcess | PawlError {
  return env.processOf?.(env.caller) ?? notKnown("the daemon knows no process that made this request");
}

/** Writes down that this process is ended when the grant is lost. */
export function* keepOnLoss(
  noun: HeldNoun,
  grantId: string,
  { signal, graceMs }: OnLoss,
  holder: HolderProcess,
  env: Env,
): Operation<void> {
  const { connection } = env.caller;
  yield* run(insertHolder, { grantId, noun, signal, graceMs, connection, ...holder });
}

/** What was asked for when the grant was made; undefined if its process is left alone. */
export function* onLossOf(grantId: string): Operation<OnLoss | undefined> {
  const row = yield* one(selectHolder, { grantId });
  return row && { signal: row.signal, graceMs: row.grace_ms };
}

/** A grant was renewed: a holder that has connected anew does so on another connection. */
export function* follow(grantId: string, env: Env): Operation<void> {
  const { connection, pid } = env.caller;
  if (env.idMark === "") return void (yield* run(followHolder, { grantId, connection, pid }));
  const holder = holderOf(env);
  if (holder instanceof PawlError) return;
  const { boot, databaseFile } = holder;
  yield* run(followHolderHere, { grantId, connection, pid, boot, databaseFile });
}

/**
 * A grant is lost, perhaps already, and its process to be ended. False if no process is known, so that others may have
 * it at once.
 */
export function* beginLoss(grantId: string, env: Env): Operation<boolean> {
  const lost = yield* one(markLost, { grantId, now: env.now });
  if (lost === undefined) return false;
  env.effects.wake(LOST_KEY);
  if (env.idMark !== "") env.effects.deadline(env.now + lost.grace_ms + RESTART_GRACE_MS);
  return true;
}

/** The grant has ended in whatever way: its process is of no concern any more. */
export function* forgetHolder(grantId: string): Operation<void> {
  yield* run(deleteHolder, { grantId });
}

/** Whose holders a daemon ends, where others share the rows: its connections, and the file of its own database. */
export interface OwnHolders {
  readonly first: number;
  readonly last: number;
  readonly databaseFile: string;
}

/** The holders that are to be ended and that nobody has begun to end yet, of all or of a daemon; waits for some. */
export function* takeLostHolders(env: Env, own?: OwnHolders): Operation<readonly LostRow[] | Wait> {
  const rows =
    own === undefined
      ? yield* all(takeLost, { rows: ROWS_PER_STEP })
      : yield* all(takeLostOf, { ...own, rows: ROWS_PER_STEP });
  return rows.length === 0 && env.mayWait ? new Wait(LOST_KEY) : rows;
}

/** After a restart every holder that was being ended is to be ended by this life of the daemon. */
export const lostHolders: Ending = {
  *earliest() {
    return NEVER;
  },

  *expire() {
    return 0;
  },

  *restart() {
    yield* run(forgetConnections);
  },

  *abandon(first, last, env) {
    yield* write(forgetConnectionsOf, { first, last, now: env.now });
    env.effects.wake(LOST_KEY);
  },

  /** Where others share the rows: nobody else ends the processes that are connected here, or were. */
  *latest(own) {
    return own !== undefined && (yield* one(selectSomeOf, own)) !== undefined
      ? [Number.POSITIVE_INFINITY]
      : [];
  },
};

/** Has others be granted what was lost, once its process has ended. */
export type Free = Readonly<Record<HeldNoun, (grantId: string, env: Env) => Operation<void>>>;

/**
 * Where several daemons share the rows: what the processes of one that has gone have lost is free after their grace,
 * unless it comes back meanwhile and ends them.
 */
export function orphanedHolders(free: Free): Ending {
  return {
    *earliest() {
      const { at = null } = (yield* one(earliestOrphan)) ?? {};
      return dueAt(at === null ? null : at + RESTART_GRACE_MS);
    },

    *expire(env, rows) {
      const orphans = yield* all(selectOrphans, { before: env.now - RESTART_GRACE_MS, rows });
      for (const { noun, grant_id: grantId, pid, grace_ms: graceMs } of orphans) {
        env.effects.log(
          "the daemon has gone that could end the process of a lost grant; it is granted to others after its grace",
          { noun, pid, graceMs },
        );
        yield* free[noun](grantId, env);
      }
      return orphans.length;
    },
  };
}

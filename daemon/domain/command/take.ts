// Commands that are ready are taken for a receiver, for as long as its grant lasts.
import type { Envelope } from "@pawl/protocol";
import { MAX_PAGE_BYTES } from "@pawl/protocol/limits";
import { keptJson } from "../../json/raw-json.js";
import { all, each, type Operation, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { deadlineOf, moved } from "./row.js";

/** Commands read at a time, so that no more params than these are in memory beside those that are taken. */
const TAKEN_PER_READ = 8;

interface ReadyRow {
  seq: number;
  commandId: string;
  command: string;
  attempt: number;
  deadline: number | null;
  ttlEndsAt: number | null;
  requestBytes: number;
  uploaded: 0 | 1;
  executionMs: number | null;
  target: string;
  hasMore: 1 | null;
  readyPlace: number;
  params: string | null;
}

/**
 * Those that became ready first come first: one that was given back goes behind those that wait already, so that
 * a command which every receiver fails on does not keep the others from being tried.
 */
const ready = (condition: string): string => `
  SELECT c.seq, c.command_id AS "commandId", c.command, c.attempt, c.deadline, c.ttl_ends_at AS "ttlEndsAt",
    c.request_bytes AS "requestBytes", c.uploaded, c.execution_ms AS "executionMs", c.target,
    c.has_more AS "hasMore", c.ready_place AS "readyPlace", p.params
  FROM pawl_command c LEFT JOIN pawl_command_params p ON p.seq = c.seq
  WHERE c.deployment = :deployment AND c.ready_place IS NOT NULL AND ${condition} AND (c.due_at IS NULL OR c.due_at > :now)
    AND (c.deadline IS NULL OR c.deadline > :wallMs)
  ORDER BY c.ready_place, c.seq LIMIT :rows`;

const OF_TARGET = "AND c.target = :target AND c.target <> ''";
const FOR_ANY = "c.incarnation IS NULL";
const MEANT = "c.incarnation IS NOT NULL AND c.incarnation = :incarnation";

const selectReady = sql<ReadyRow>(ready(FOR_ANY));

const selectReadyOfTarget = sql<ReadyRow>(ready(`${FOR_ANY} ${OF_TARGET}`));

const selectMeant = sql<ReadyRow>(ready(MEANT));

const selectMeantOfTarget = sql<ReadyRow>(ready(`${MEANT} ${OF_TARGET}`));

/** Which commands a receiver takes. */
export interface Wanted {
  readonly deployment: string;
  /** Whose commands alone are taken; undefined for all. */
  readonly targets: readonly string[] | undefined;
  /** The name of the receiver, which has commands that are for it alone first; undefined for none. */
  readonly incarnation?: string | undefined;
  /** True to take no others than those. */
  readonly onlyMeant?: boolean;
}

/** The next commands that are ready for a receiver: those that are for it alone, then others. */
function* readyRows(wanted: Wanted, rows: number, env: Env): Operation<ReadyRow[]> {
  const { incarnation, onlyMeant = false } = wanted;
  const meant = incarnation === undefined ? [] : yield* readyRowsOf(wanted, incarnation, rows, env);
  if (onlyMeant || meant.length === rows) return meant;
  const others = yield* readyRowsOf(wanted, undefined, rows - meant.length, env);
  return meant.length === 0 ? others : [...meant, ...others];
}

/** Those of any target or of the targets that are wanted, in the order in which they became ready. */
function* readyRowsOf(
  { deployment, targets }: Wanted,
  incarnation: string | undefined,
  rows: number,
  { now, wallMs }: Env,
): Operation<ReadyRow[]> {
  const given = { deployment, now, wallMs, rows };
  if (targets === undefined) {
    return incarnation === undefined
      ? yield* all(selectReady, given)
      : yield* all(selectMeant, { ...given, incarnation });
  }
  const found: ReadyRow[] = [];
  for (const target of new Set(targets)) {
    found.push(
      ...(incarnation === undefined
        ? yield* all(selectReadyOfTarget, { ...given, target })
        : yield* all(selectMeantOfTarget, { ...given, target, incarnation })),
    );
  }
  return found.sort((a, b) => a.readyPlace - b.readyPlace || a.seq - b.seq).slice(0, rows);
}

interface MoreRow {
  checkpoint: string | null;
  trace: string | null;
}

const selectHandedOn = sql<MoreRow>("SELECT checkpoint, trace FROM pawl_command_more WHERE seq = :seq");

const forgetProgress = sql(
  "UPDATE pawl_command_more SET progress = NULL WHERE seq = :seq AND progress IS NOT NULL",
);

const setDispatched = sql(`
  UPDATE pawl_command SET state = 'DISPATCHED', dispatched_at = :wallMs, ready_place = NULL, lease_owner = :owner,
    lease_pid = :pid, lease_expires_at = :expiresAt, lease_ms = :leaseMs, lease_connection = :connection,
    holder_connection = :holder, execution_ends_at = :executionEndsAt, late_attempt = NULL, grace_ms = :graceMs,
    lease_incarnation_id = :incarnationId
  WHERE seq = :seq`);

/** The receiver of a delivery, and the time that the delivery lasts. */
export interface Grant {
  readonly owner: string;
  readonly pid: number | null;
  /** Null for a push, which ends with its connection alone. */
  readonly expiresAt: number | null;
  /** How long from now that is. */
  readonly leaseMs: number | null;
  /** Null if it does not end with a connection. */
  readonly connection: number | null;
  /** The connection of its receiver. */
  readonly holder: number;
  /** How long its receiver may take to come back after its connection has closed; null for not at all. */
  readonly graceMs: number | null;
  /** The number of its receiver, if that named itself. */
  readonly incarnationId: number | null;
  /** How long it lasts if the command says nothing of that; null for no limit. */
  readonly executionMs: number | null;
}

/** Takes up to `count` commands that are ready, and no more params and checkpoints than a page holds. */
export function* take(
  wanted: Wanted,
  count: number,
  grantNext: () => Grant,
  env: Env,
): Operation<{ envelope: Envelope; grant: Grant }[]> {
  const taken: { envelope: Envelope; grant: Grant }[] = [];
  const { deployment } = wanted;
  const { now, wallMs } = env;
  let bytes = 0;
  for (;;) {
    const most = Math.min(count - taken.length, TAKEN_PER_READ);
    const rows = yield* readyRows(wanted, most, env);
    const handedOn = yield* handedOnOf(rows);
    for (const row of rows) {
      const more = handedOn.get(row.seq);
      bytes += (row.params?.length ?? 0) + (more?.checkpoint?.length ?? 0);
      if (bytes > MAX_PAGE_BYTES && taken.length > 0) return taken;
      const grant = grantNext();
      const { owner, pid, expiresAt, leaseMs, connection } = grant;
      const executionMs = row.executionMs ?? grant.executionMs;
      const executionEndsAt = executionMs === null ? null : now + executionMs;
      if (executionEndsAt !== null) env.effects.deadline(executionEndsAt);
      yield* write(setDispatched, {
        seq: row.seq,
        wallMs,
        owner,
        pid,
        expiresAt,
        leaseMs,
        connection,
        holder: grant.holder,
        executionEndsAt,
        graceMs: grant.graceMs,
        incarnationId: grant.incarnationId,
      });
      moved("PENDING", "DISPATCHED", env);
      env.effects.tell("command", deployment, "dispatched", row.commandId, { by: owner });
      const envelope = envelopeOf(row, deployment, executionMs, env);
      if (row.hasMore !== null) yield* write(forgetProgress, { seq: row.seq });
      taken.push({ envelope: more === undefined ? envelope : withMore(envelope, more), grant });
    }
    if (rows.length < most || taken.length === count) return taken;
  }
}

function* handedOnOf(rows: readonly ReadyRow[]): Operation<Map<number, MoreRow>> {
  const seqs = rows.flatMap(({ seq, hasMore }) => (hasMore === null ? [] : [seq]));
  const found = yield* each(
    selectHandedOn,
    seqs.map((seq) => ({ seq })),
  );
  return new Map(found.flatMap((more, index) => (more === undefined ? [] : [[seqs[index] as number, more]])));
}

function envelopeOf(row: ReadyRow, deployment: string, executionMs: number | null, env: Env): Envelope {
  return {
    protocol: "arc.v1",
    commandId: row.commandId,
    deployment,
    target: row.target,
    command: row.command,
    attempt: row.attempt,
    deadline: deadlineOf(row, env),
    executionMs,
    params:
      row.uploaded === 1
        ? { $upload: { sizeBytes: row.requestBytes } }
        : row.params === null
          ? null
          : keptJson(row.params, `The command ${row.commandId}`),
  };
}

/** What few commands have, for the next delivery, which begins with no progress. */
function withMore(envelope: Envelope, { checkpoint, trace }: MoreRow): Envelope {
  return {
    ...envelope,
    ...(typeof checkpoint === "string" && {
      checkpoint: keptJson(checkpoint, `The command ${envelope.commandId}`),
    }),
    ...(typeof trace === "string" && { trace: JSON.parse(trace) as NonNullable<Envelope["trace"]> }),
  };
}

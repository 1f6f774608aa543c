// Receivers that serve: ready commands go to their connections.
import type { Envelope } from "@pawl/protocol";
import { all, type Operation, sql } from "../../store/statement.js";
import { type Env, type Outcome, Wait } from "../../turns/operation.js";
import { meantKey, readyKey } from "../deployment/deployment.js";
import { leaseIdOf } from "./delivery.js";
import { LIVE_COLUMNS, type LiveRow, lose } from "./row.js";
import { type Grant, take, type Wanted } from "./take.js";

/** Commands that one operation hands to the connections that serve a deployment. */
const MAX_PUSHED_COMMANDS = 64;

/** A connection that serves a deployment, and how much it may be given. */
export interface Receiver {
  readonly connection: number;
  readonly pid: number | null;
  readonly owner: string;
  /** Requests that it has not answered, also for commands that have ended: it may still be at work on them. */
  readonly unanswered: number;
  readonly room: number;
  /** How long one delivery of a command that says nothing of it may take. */
  readonly executionMs: number;
  /** The targets whose commands it takes; undefined for all. */
  readonly targets: readonly string[] | undefined;
  /** As it named itself, with the number of that name; undefined if it did not. */
  readonly named: { readonly incarnation: string; readonly incarnationId: number } | undefined;
}

/** A command for a connection. */
export interface Push {
  readonly connection: number;
  readonly envelope: Envelope & { readonly leaseId: string };
}

/**
 * Hands commands that are ready to the connections that serve their deployment, each to the one that has the
 * fewest unanswered, the longest unserved first among equals.
 *
 * @param receivers in the order in which they were served last.
 */
export function* push(
  deployment: string,
  receivers: readonly Receiver[],
  env: Env,
): Operation<Outcome<readonly Push[]>> {
  const pushes: Push[] = [];
  if (receivers.every(({ room }) => room === 0)) return [];
  const given = new Map<Receiver, number>();
  for (const receiver of receivers) {
    if (receiver.named === undefined || receiver.room === 0) continue;
    const { targets, named } = receiver;
    const meant = yield* pushTo({ deployment, targets, ...named, onlyMeant: true }, [receiver], env);
    given.set(receiver, meant.length);
    pushes.push(...meant);
  }
  // Those that name their targets first: what is theirs may go to the others too.
  const groups = new Map<string, Receiver[]>();
  for (const receiver of receivers) {
    const name = receiver.targets?.join(" ") ?? ALL_TARGETS;
    const count = given.get(receiver) ?? 0;
    const { room, unanswered } = receiver;
    const group = groups.get(name) ?? [];
    group.push(count === 0 ? receiver : { ...receiver, room: room - count, unanswered: unanswered + count });
    groups.set(name, group);
  }
  for (const [name, group] of [...groups].sort(
    ([a], [b]) => Number(a === ALL_TARGETS) - Number(b === ALL_TARGETS),
  )) {
    const targets = name === ALL_TARGETS ? undefined : group[0]?.targets;
    pushes.push(...(yield* pushTo({ deployment, targets }, group, env)));
  }
  // Not of one sort with those that pull: this one has no room while they have.
  return pushes.length === 0 && env.mayWait
    ? new Wait([readyKey(deployment), meantKey(deployment)], "push")
    : pushes;
}

/** No target has this name. */
const ALL_TARGETS = "*";

/** The same for receivers that take the same. */
function* pushTo(wanted: Wanted, receivers: readonly Receiver[], env: Env): Operation<Push[]> {
  const free = receivers.map((receiver) => ({
    receiver,
    unanswered: receiver.unanswered,
    room: receiver.room,
  }));
  const room = free.reduce((sum, each) => sum + each.room, 0);
  if (room === 0) return [];
  const chosen = (): Grant => {
    let best: (typeof free)[number] | undefined;
    for (const each of free) {
      if (each.room > 0 && (best === undefined || each.unanswered < best.unanswered)) best = each;
    }
    if (best === undefined) throw new Error("more commands were taken than there is room for");
    best.room -= 1;
    best.unanswered += 1;
    const { connection, owner, pid, executionMs, named } = best.receiver;
    env.effects.bind(connection);
    const incarnationId = named?.incarnationId ?? null;
    return {
      owner,
      pid,
      expiresAt: null,
      leaseMs: null,
      connection,
      holder: connection,
      executionMs,
      graceMs: null,
      incarnationId,
    };
  };
  const taken = yield* take(wanted, Math.min(room, MAX_PUSHED_COMMANDS), chosen, env);
  return taken.map(({ envelope, grant }) => ({
    connection: grant.connection as number,
    envelope: { ...envelope, leaseId: leaseIdOf(envelope.commandId, envelope.attempt, env) },
  }));
}

const selectPushes = sql<LiveRow>(`
  SELECT ${LIVE_COLUMNS} FROM pawl_command
  WHERE lease_connection = :connection AND lease_expires_at IS NULL ORDER BY seq LIMIT :rows`);

/** Ends up to so many pushes to a connection whose peer can answer no more; returns how many that were. */
export function* endPushes(connection: number, rows: number, env: Env): Operation<number> {
  const pushes = yield* all(selectPushes, { connection, rows });
  for (const row of pushes) yield* lose(row, env);
  return pushes.length;
}

// Those who hold and wait, as the search for circles tells them apart.
import { all, type Operation, one, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { nameOfProcess } from "../../turns/operation.js";
import type { Need } from "./circle.js";

/** A thing that is held and waited for. */
export type HeldThing =
  | { readonly kind: "lease"; readonly name: string }
  | { readonly kind: "path"; readonly root: string; readonly pattern: string };

/** The thing that a need is about; of a process, that it is a child. */
export type Thing = HeldThing | { readonly kind: "process"; readonly pid: number | null };

export type ThingNeed = Need<Thing>;

/** What is told of an actor. */
export interface Party {
  readonly pid: number | null;
  readonly owner: string;
  readonly task: string | null;
}

/** The columns of a hold that say whose it is. */
export interface HolderColumns extends Party {
  /** When its process began, in clock ticks since the machine did. */
  readonly start_ticks: number | null;
  readonly connection: number;
}

/** What one search has learned: it asks for each thing once. */
export interface Search {
  readonly env: Env;
  /** What was asked for, by a name of it. */
  readonly known: Map<string, unknown>;
  /** What is told of each actor that was met. */
  readonly parties: Map<string, Party>;
  /** How many places of patterns may still be compared; to read a holder takes as long as some of them. */
  readonly work: { left: number };
  /** True once there was no time to look at all. */
  isCut: boolean;
}

/**
 * The name of who holds or waits: a process and its task, or a connection where the kernel tells of no process.
 * Undefined for neither, as of a holder whose connection is gone: nothing that waits is its own.
 */
export function actorOf(
  pid: number | null,
  startTicks: number | null,
  connection: number,
  task: string | null,
): string | undefined {
  const ofTask = task === null ? "" : ` ${task}`;
  if (pid !== null && startTicks !== null) return `${nameOfProcess({ pid, startTicks })}${ofTask}`;
  return connection === 0 ? undefined : `#${connection}${ofTask}`;
}

/** The process of an actor, as those have it among their ancestors that descend from it; a connection is nobody's. */
export function processOfActor(actor: string): string {
  return actor.split(" ", 1)[0] as string;
}

/** The actor of a hold; undefined if nothing that waits can be its own. */
export function holderOf(
  { pid, start_ticks: startTicks, connection, owner, task }: HolderColumns,
  { parties }: Pick<Search, "parties">,
): string | undefined {
  const actor = actorOf(pid, startTicks, connection, task);
  if (actor !== undefined && !parties.has(actor)) parties.set(actor, { pid, owner, task });
  return actor;
}

const AWAITING = "WHERE awaits_children = 1";
const selectSomeLease = sql<{ awaits: number }>(`SELECT 1 AS awaits FROM pawl_lease ${AWAITING} LIMIT 1`);
const selectSomeReservation = sql<{ awaits: number }>(
  `SELECT 1 AS awaits FROM pawl_path_reservation ${AWAITING} LIMIT 1`,
);

const OF_PROCESS = `${AWAITING} AND pid = :pid LIMIT :rows`;
const HOLDER = "pid, start_ticks, connection, owner, task";
const selectLeases = sql<HolderColumns>(`SELECT ${HOLDER} FROM pawl_lease ${OF_PROCESS}`);
const selectReservations = sql<HolderColumns>(`SELECT ${HOLDER} FROM pawl_path_reservation ${OF_PROCESS}`);

/** Holds of one process that are looked at for one that awaits its children. */
const MAX_AWAITING = 64;

/** True if anybody holds something until its child processes have what they wait for. */
export function* someAwaitChildren(): Operation<boolean> {
  return ((yield* one(selectSomeLease)) ?? (yield* one(selectSomeReservation))) !== undefined;
}

/** True if an actor holds something until its child processes have what they wait for. */
export function* awaitsChildren(actor: string, pid: number): Operation<boolean> {
  for (const select of [selectLeases, selectReservations]) {
    for (const row of yield* all(select, { pid, rows: MAX_AWAITING })) {
      if (actorOf(row.pid, row.start_ticks, row.connection, row.task) === actor) return true;
    }
  }
  return false;
}

// How many there are of what is kept, for daemon.stats: counted once, at the start; from then on every change counts.
import { BATCH_STATES, COMMAND_STATES, type CommandState, type Result } from "@pawl/protocol";
import { all, type Operation, one, sql } from "../store/statement.js";
import type { Counter, Env, Gauge } from "../turns/operation.js";
import { countChanges, countForks } from "./board/items.js";

const countCommands = sql<{ state: CommandState; commands: number }>(
  "SELECT state, count(*) AS commands FROM pawl_command GROUP BY state",
);

const countBatches = sql<Record<(typeof BATCH_STATES)[number], number>>(`
  SELECT ${BATCH_STATES.map((state) => `coalesce(sum(${state}), 0) AS ${state}`).join(", ")} FROM pawl_queue`);

const countLeases = sql<{ leases: number }>("SELECT count(*) AS leases FROM pawl_lease");

const countReservations = sql<{ reservations: number }>(
  "SELECT count(*) AS reservations FROM pawl_path_reservation",
);

const countItems = sql<{ items: number }>("SELECT count(*) AS items FROM pawl_item WHERE stage IS NOT NULL");

type Gauges = Readonly<Record<Gauge, number>>;

/** Counts what is there, which takes the longer the more there is. */
function* countAll(): Operation<Map<Gauge, number>> {
  const counts = new Map<Gauge, number>();
  for (const { state, commands } of yield* all(countCommands)) counts.set(`commands${state}`, commands);
  const batches = yield* one(countBatches);
  for (const state of BATCH_STATES) counts.set(`${state}Batches`, batches?.[state] ?? 0);
  counts.set("leases", (yield* one(countLeases))?.leases ?? 0);
  counts.set("reservations", (yield* one(countReservations))?.reservations ?? 0);
  counts.set("items", (yield* one(countItems))?.items ?? 0);
  return counts;
}

/** The gauges of `daemon.stats` begin with what is there when the daemon starts. */
export function* countAtStart(env: Env): Operation<void> {
  for (const [gauge, count] of yield* countAll()) env.effects.count(gauge, count);
}

/** The gauges in a daemon that only reads, and does not see what the one that writes counts. */
export function* countForReader(env: Env): Operation<Gauges> {
  yield* env.turn.writeBack();
  const counts = yield* countAll();
  return new Proxy({} as Gauges, { get: (_, gauge: Gauge) => counts.get(gauge) ?? 0 });
}

/** The gauges as `daemon.stats` shows them. */
export function* shownGauges(gauges: Gauges & Readonly<Partial<Record<Counter, number>>>): Operation<
  Pick<Result<"daemon.stats">, "queues" | "leases" | "paths" | "pipeline"> & {
    states: Record<CommandState, number>;
  }
> {
  return {
    queues: Object.fromEntries(
      BATCH_STATES.map((state) => [state, gauges[`${state}Batches`]]),
    ) as Result<"daemon.stats">["queues"],
    states: Object.fromEntries(COMMAND_STATES.map((state) => [state, gauges[`commands${state}`]])) as Record<
      CommandState,
      number
    >,
    leases: { held: gauges.leases },
    paths: { reserved: gauges.reservations },
    pipeline: { items: gauges.items, changes: yield* countChanges(), forks: yield* countForks() },
  };
}

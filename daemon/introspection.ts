import type { Result } from "@pawl/protocol";
import * as limits from "@pawl/protocol/limits";
import { elapsed } from "./clock.js";
import type { Config } from "./config/config.js";
import type { OwnReport } from "./domain/daemon.js";
import { countForReader, shownGauges } from "./domain/gauges.js";
import type { Places } from "./shared/places.js";
import type { Connections } from "./socket/connections.js";
import { residentBytes } from "./socket/garbage.js";
import type { ServedSockets } from "./socket/served-sockets.js";
import type { OpenDatabase } from "./store/open-database.js";
import type { Operation } from "./store/statement.js";
import type { Caller } from "./turns/operation.js";
import type { Statistics } from "./turns/statistics.js";
import type { Tally } from "./turns/tally.js";
import type { TurnLoop } from "./turns/turn-loop.js";

/** The parts that `introspection` and `statusLine` look at. */
export interface Inspected {
  readonly config: Config;
  readonly databasePath: string;
  readonly database: OpenDatabase;
  readonly loop: TurnLoop;
  readonly connections: Connections;
  readonly sockets: ServedSockets;
  readonly statistics: Statistics;
  readonly tally: Tally;
  readonly logLinesDropped: number;
  /** Only where names are kept in databases that other daemons share. */
  readonly places: Places | undefined;
  readonly heldLog: Result<"daemon.info">["heldLog"];
  readonly configError: Result<"daemon.info">["configError"];
}

/**
 * The daemon's report on itself in `daemon.info` and `daemon.stats`.
 *
 * @param inspect gives what is to be looked at, when it is asked for: the configuration may change.
 */
export function introspection(inspect: () => Inspected): OwnReport {
  const startedAt = inspect().loop.time().wallMs;
  const startedElapsed = elapsed();
  return {
    now: () => inspect().loop.time().wallMs,
    info: (caller) => info(inspect(), startedAt, caller),
    *stats({ queues }, env): Operation<never> {
      const inspected = inspect();
      const gauges = inspected.config.readOnly ? yield* countForReader(env) : inspected.statistics.counters;
      const { states, ...rest } = yield* shownGauges(gauges);
      return {
        uptimeMs: Math.round(elapsed() - startedElapsed),
        // The most that it ever was, where no descriptor is left to find out what it is.
        memoryBytes: residentBytes() ?? process.resourceUsage().maxRSS * 1024,
        ...counted(inspected),
        ...rest,
        commands: { states, ...commandCounts(inspected.statistics) },
        events: inspected.tally.events,
        ...(queues ? { byQueue: inspected.tally.queues } : {}),
        database: inspected.database.sizes(),
        logLinesDropped: inspected.logLinesDropped,
      } as never;
    },
  };
}

function commandCounts({ counters }: Statistics): object {
  return {
    ended: {
      SUCCEEDED: counters.commandsEndedSUCCEEDED,
      FAILED: counters.commandsEndedFAILED,
      EXPIRED: counters.commandsEndedEXPIRED,
    },
    lateAnswers: counters.commandAnswersLate,
  };
}

function info(inspected: Inspected, startedAt: number, caller: Caller): ReturnType<OwnReport["info"]> {
  const { config, databasePath, database, sockets, connections } = inspected;
  return {
    instance: config.instance,
    startedAt,
    clock: database.clock.lastStep,
    heldLog: inspected.heldLog,
    configError: inspected.configError,
    readOnly: config.readOnly,
    canWrite: !config.readOnly && connections.get(caller.connection)?.readOnly !== true,
    database: { path: databasePath, schemaVersion: database.schemaVersion },
    sockets: sockets.paths,
    leaseProviders: config.leaseRules.map(({ pattern, provider: { kind } }) => ({ pattern, kind })),
    shared: inspected.places?.shown() ?? [],
    limits: {
      maxMessageBytes: config.maxMessageBytes,
      maxBatchCalls: limits.MAX_BATCH_CALLS,
      maxInFlightRequests: limits.MAX_IN_FLIGHT_REQUESTS,
      maxUnsentBytes: limits.MAX_UNSENT_BYTES,
      maxTransactCalls: limits.MAX_TRANSACT_CALLS,
      maxWaitMs: limits.MAX_WAIT_MS,
      minLeaseMs: limits.MIN_LEASE_MS,
      maxLeaseMs: limits.MAX_LEASE_MS,
      maxReserveCount: limits.MAX_RESERVE_COUNT,
      inlineMaxBytes: limits.INLINE_MAX_BYTES,
      maxUploadBytes: limits.MAX_UPLOAD_BYTES,
      maxParamsPieceBytes: limits.MAX_PARAMS_PIECE_BYTES,
    },
  };
}

/** The part of `daemon.stats` that no database is asked for. */
function counted({ connections, sockets, loop, statistics, places }: Inspected): object {
  return {
    connections: {
      open: connections.size,
      accepted: connections.accepted,
      waiting: loop.waiting + (places?.waiting ?? 0),
      acceptPauses: sockets.acceptPauses,
      unsentBytes: connections.unsentBytes,
      unreadBytes: connections.unreadBytes,
      waitingBytes: loop.waitingBytes + (places?.waitingBytes ?? 0),
      overloads: connections.overloads,
    },
    requests: Object.fromEntries(statistics.requests),
    errors: Object.fromEntries(
      [...statistics.errors].map(([method, kinds]) => [method, Object.fromEntries(kinds)]),
    ),
    turns: {
      total: statistics.turnsCommitted + statistics.turnsRolledBack,
      committed: statistics.turnsCommitted,
      rolledBack: statistics.turnsRolledBack,
      operations: statistics.operations,
    },
    operationsPerTurn: statistics.operationsPerTurn,
    commitMs: statistics.commitMs,
    commits: statistics.commits,
    sequences: { dispensed: statistics.counters.sequencesDispensed },
  };
}

/**
 * The daemon's present state, in a line for people (`systemctl status`).
 *
 * @param trouble the state of a daemon that cannot write now.
 * @param configError why the configuration was not taken over when it was last read again.
 */
export function statusLine(
  { idleExit, readOnly }: Pick<Config, "idleExit" | "readOnly">,
  { open, trouble, configError }: { open: number; trouble: string | undefined; configError: string | null },
): string {
  if (trouble !== undefined) return trouble;
  const serving = `Serving ${readOnly ? "reads of " : ""}${open} connection${open === 1 ? "" : "s"}`;
  const state = open === 0 && idleExit !== undefined ? `Idle; ends if that lasts ${idleExit} s` : serving;
  return configError === null ? state : `${state}; on its former options: ${configError}`;
}

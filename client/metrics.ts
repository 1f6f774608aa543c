import type { Result } from "@pawl/protocol/types";
import type { PawlClient } from "./connect.js";

/** Queues that are named; all others are summed. */
const MAX_QUEUES = 200;
const OTHER = "other";
/** The states of a batch, in the order in which a batch may come to them. */
export const BATCH_STATES = [
  "ready",
  "scheduled",
  "blocked",
  "claimed",
  "completed",
  "dead",
  "cancelled",
  "expired",
] as const satisfies readonly Result<"queue.get">["batch"]["state"][];

/** The figures of a daemon, as its calls answer them. */
export interface Figures {
  readonly info: Result<"daemon.info">;
  readonly stats: Result<"daemon.stats">;
  readonly queues: readonly QueueStats[];
}

/** Asks a daemon for its figures. */
export async function readFigures(client: PawlClient): Promise<Figures> {
  const [info, stats, queues] = await Promise.all([
    client.daemon.info({}),
    client.daemon.stats({}),
    largestQueues(client),
  ]);
  return { info, stats, queues };
}

/** The figures as OpenMetrics text, for `pawl metrics` and for who serves it to a scraper. */
export function openMetrics(figures: Figures): string {
  return [...lines(figures)].join("");
}

type QueueStats = Result<"queue.stats">["queues"][number];

/** The queues with the most batches, and one for all others if there are more than so many. */
async function largestQueues(client: PawlClient): Promise<QueueStats[]> {
  const all: QueueStats[] = [];
  for (let after: string | undefined; ; ) {
    const page = await client.queue.stats(after === undefined ? {} : { after });
    all.push(...page.queues);
    if (page.next === undefined) break;
    after = page.next;
  }
  if (all.length <= MAX_QUEUES) return all;
  const size = (queue: QueueStats): number => BATCH_STATES.reduce((sum, state) => sum + queue[state], 0);
  all.sort((a, b) => size(b) - size(a) || (a.queue < b.queue ? -1 : 1));
  const named = all.slice(0, MAX_QUEUES).filter(({ queue }) => queue !== OTHER);
  const other = all
    .filter((queue) => !named.includes(queue))
    .reduce((sum, queue) => {
      const both = { ...sum, queue: OTHER, paused: false };
      for (const state of BATCH_STATES) both[state] = sum[state] + queue[state];
      both.oldestReadyMs = Math.max(sum.oldestReadyMs ?? 0, queue.oldestReadyMs ?? 0);
      return both;
    });
  return [...named, { ...other, queue: OTHER }];
}

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number];

/** One family of the OpenMetrics text (RFC draft OpenMetrics 1.0, section 4). */
function* family(
  type: "counter" | "gauge" | "summary",
  name: string,
  help: string,
  samples: Iterable<Sample>,
  unit?: "bytes" | "seconds",
): Generator<string> {
  const full = `pawl_${name}${unit === undefined ? "" : `_${unit}`}`;
  yield `# TYPE ${full} ${type}\n`;
  if (unit !== undefined) yield `# UNIT ${full} ${unit}\n`;
  yield `# HELP ${full} ${help}\n`;
  const suffix = type === "counter" ? "_total" : "";
  for (const [labels, value] of samples) yield `${full}${suffix}${shown(labels)} ${value}\n`;
}

function shown(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escaped(value: string): string {
  return value.replace(/[\\"\n]/g, (character) => (character === "\n" ? "\\n" : `\\${character}`));
}

const one = (value: number): Sample[] => [[{}, value]];
const by = (label: string, values: Readonly<Record<string, number>>): Sample[] =>
  Object.entries(values).map(([name, value]) => [{ [label]: name }, value]);

function* lines({ info: { version, instance, mode }, stats, queues }: Figures): Generator<string> {
  const { connections, turns, commitMs, commands, database, pipeline } = stats;
  const kept = BATCH_STATES.flatMap((state) =>
    queues.map((queue): Sample => [{ queue: queue.queue, state }, queue[state]]),
  );
  const oldest = queues.map(({ queue, oldestReadyMs }): Sample => [{ queue }, (oldestReadyMs ?? 0) / 1000]);
  const errors = Object.entries(stats.errors).flatMap(([method, kinds]) =>
    Object.entries(kinds).map(([kind, count]): Sample => [{ method, kind }, count]),
  );
  // Not of the type info, which a node exporter does not know.
  yield* family("gauge", "build", "What the daemon is; always 1.", [
    [{ version, instance, mode: mode.kind }, 1],
  ]);
  yield* family("gauge", "uptime", "Since the start of the daemon.", one(stats.uptimeMs / 1000), "seconds");
  yield* family("gauge", "memory", "Resident memory of the daemon.", one(stats.memoryBytes), "bytes");
  yield* family("counter", "requests", "Calls by method.", by("method", stats.requests));
  yield* family("counter", "errors", "Refusals and errors by method and kind.", errors);
  yield* family("gauge", "connections", "Connections that are open.", one(connections.open));
  yield* family("counter", "accepted_connections", "Connections accepted.", one(connections.accepted));
  yield* family(
    "counter",
    "overloads",
    "Connections closed while memory ran out.",
    one(connections.overloads),
  );
  yield* family("gauge", "waiting_calls", "Calls that wait for a condition.", one(connections.waiting));
  yield* family("counter", "turns", "Turns that wrote.", one(turns.committed));
  yield* family("counter", "rolled_back_turns", "Turns that were performed again.", one(turns.rolledBack));
  yield* family("counter", "operations", "Calls that turns performed.", one(turns.operations));
  const quantiles = Object.entries({ 0.5: commitMs.p50, 0.99: commitMs.p99, 1: commitMs.max });
  const commits = quantiles.map(([quantile, ms]): Sample => [{ quantile }, ms / 1000]);
  yield* family("summary", "commit", "How long commits took of late.", commits, "seconds");
  yield* family("counter", "sequence_numbers", "Numbers taken.", one(stats.sequences.dispensed));
  yield* family("gauge", "batches", "Batches that are kept, by queue and state.", kept);
  yield* family("gauge", "oldest_ready", "Age of the oldest batch that could be claimed.", oldest, "seconds");
  const paused = queues.map(({ queue, paused }): Sample => [{ queue }, paused ? 1 : 0]);
  yield* family("gauge", "queue_paused", "1 for a queue that is paused.", paused);
  yield* family("gauge", "commands", "Commands that are kept, by state.", by("state", commands.states));
  yield* family("counter", "late_answers", "Answers to commands that had ended.", one(commands.lateAnswers));
  yield* family("gauge", "leases", "Leases that are held.", one(stats.leases.held));
  yield* family("gauge", "board_items", "Items of the board.", one(pipeline.items));
  yield* family("gauge", "board_changes", "Changes of the board that are stored.", one(pipeline.changes));
  yield* family("gauge", "board_forks", "Forks in the logs of the board.", one(pipeline.forks));
  yield* family("gauge", "database", "The file of the database.", one(database.bytes), "bytes");
  yield* family("gauge", "write_ahead_log", "The write-ahead log.", one(database.walBytes), "bytes");
  yield* family(
    "counter",
    "log_lines_dropped",
    "Lines of the log that were lost.",
    one(stats.logLinesDropped),
  );
  yield "# EOF\n";
}

import type { Result } from "@pawl/protocol/types";
import { BATCH_STATES } from "@pawl/protocol/values";
import type { PawlClient } from "./connect.js";

/** Queues that are named; all others are summed. */
const MAX_QUEUES = 200;
const OTHER = "other";

type Stats = Result<"daemon.stats">;
type QueueStats = Result<"queue.stats">["queues"][number];
type QueueCounts = NonNullable<Stats["byQueue"]>[number];
type Histogram = Stats["commits"];

/** The figures of a daemon, as its calls answer them. */
export interface Figures {
  readonly info: Result<"daemon.info">;
  /** With `byQueue`. */
  readonly stats: Stats;
  /** At most 200 queues and, as `other`, the rest of them together. */
  readonly queues: readonly QueueStats[];
}

/** Asks a daemon for its figures. */
export async function readFigures(client: PawlClient): Promise<Figures> {
  const [info, stats] = await Promise.all([client.daemon.info({}), client.daemon.stats({ queues: true })]);
  const counted = new Set((stats.byQueue ?? []).map(({ queue }) => queue));
  const queues = await largestQueues(client, counted);
  return { info, stats, queues };
}

/** The figures as text; a server of it says what it is by `CONTENT_TYPES`. */
export function metricsText(figures: Figures, format: Format): string {
  let text = "";
  for (const family of families(figures)) text += familyText(family, format);
  return format === "openmetrics" ? `${text}# EOF\n` : text;
}

/** `openmetrics` is OpenMetrics 1.0; `prometheus` is the older text, which a node exporter and promtool read. */
export type Format = keyof typeof CONTENT_TYPES;

export const CONTENT_TYPES = {
  openmetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8",
  prometheus: "text/plain; version=0.0.4; charset=utf-8",
} as const;

/**
 * The queues with the most batches, and one for all others if there are more than so many.
 *
 * @param counted the names that the daemon counts by, which come first: a queue has one name in all that is shown.
 */
async function largestQueues(client: PawlClient, counted: ReadonlySet<string | null>): Promise<QueueStats[]> {
  const all: QueueStats[] = [];
  for (let after: string | undefined; ; ) {
    const page = await client.queue.stats(after === undefined ? {} : { after });
    all.push(...page.queues);
    if (page.next === undefined) break;
    after = page.next;
  }
  const size = (queue: QueueStats): number => BATCH_STATES.reduce((sum, state) => sum + queue[state], 0);
  const rank = ({ queue }: QueueStats): number => (counted.has(queue) ? 0 : 1);
  if (all.length > MAX_QUEUES)
    all.sort((a, b) => rank(a) - rank(b) || size(b) - size(a) || (a.queue < b.queue ? -1 : 1));
  const named = all.slice(0, MAX_QUEUES).filter(({ queue }) => queue !== OTHER);
  const rest = all.filter((queue) => !named.includes(queue));
  return rest.length === 0 ? named : [...named, together(rest)];
}

function together(queues: readonly QueueStats[]): QueueStats {
  const sum = { ...(queues[0] as QueueStats), queue: OTHER, ...NO_BATCHES, oldestReadyMs: 0, paused: true };
  for (const queue of queues) {
    for (const state of BATCH_STATES) sum[state] += queue[state];
    sum.oldestReadyMs = Math.max(sum.oldestReadyMs, queue.oldestReadyMs ?? 0);
    sum.paused &&= queue.paused;
  }
  return sum;
}

const NO_BATCHES = Object.fromEntries(BATCH_STATES.map((state) => [state, 0])) as Record<
  (typeof BATCH_STATES)[number],
  number
>;

/** What was counted by queue; all that is not named, and a queue of that name, as `other`. */
function countsByQueue({ byQueue = [] }: Stats): QueueCounts[] {
  const isNamed = ({ queue }: QueueCounts): boolean => queue !== null && queue !== OTHER;
  const rest = byQueue.filter((counts) => !isNamed(counts));
  const [first, ...others] = rest;
  if (first === undefined) return byQueue;
  const other = others.reduce(
    (sum, { events, waitMs, runMs }) => ({
      queue: OTHER,
      events: Object.fromEntries(
        Object.entries(events).map(([kind, times]) => [kind, times + (sum.events[kind] ?? 0)]),
      ),
      waitMs: bothOf(sum.waitMs, waitMs),
      runMs: bothOf(sum.runMs, runMs),
    }),
    { ...first, queue: OTHER },
  );
  return [...byQueue.filter(isNamed), ...(isUsed(other) ? [other] : [])];
}

function bothOf(one: Histogram, other: Histogram): Histogram {
  return {
    bounds: one.bounds,
    counts: one.counts.map((count, bucket) => count + (other.counts[bucket] ?? 0)),
    sum: one.sum + other.sum,
  };
}

function isUsed({ events }: QueueCounts): boolean {
  return Object.values(events).some((times) => times > 0);
}

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number];

interface Family {
  readonly type: "counter" | "gauge" | "histogram";
  readonly name: string;
  readonly help: string;
  readonly unit: "bytes" | "seconds" | undefined;
  /** Lines without the name of the family: what follows that, the labels, the value. */
  readonly samples: Iterable<readonly [suffix: string, labels: Labels, value: number]>;
}

function familyText({ type, name, help, unit, samples }: Family, format: Format): string {
  const full = `pawl_${name}${unit === undefined ? "" : `_${unit}`}`;
  // Only in OpenMetrics a counter has another name than its samples.
  const described = type === "counter" && format === "prometheus" ? `${full}_total` : full;
  let text = `# TYPE ${described} ${type}\n`;
  if (unit !== undefined && format === "openmetrics") text += `# UNIT ${described} ${unit}\n`;
  text += `# HELP ${described} ${help}\n`;
  for (const [suffix, labels, value] of samples) text += `${full}${suffix}${shown(labels)} ${value}\n`;
  return text;
}

function family(
  type: "counter" | "gauge",
  name: string,
  help: string,
  samples: readonly Sample[],
  unit?: "bytes" | "seconds",
): Family {
  const suffix = type === "counter" ? "_total" : "";
  return { type, name, help, unit, samples: samples.map(([labels, value]) => [suffix, labels, value]) };
}

/** A family of durations, which are in seconds here. */
function histograms(name: string, help: string, of: readonly (readonly [Labels, Histogram])[]): Family {
  return { type: "histogram", name, help, unit: "seconds", samples: of.flatMap(histogramSamples) };
}

function histogramSamples([labels, { bounds, counts, sum }]: readonly [Labels, Histogram]) {
  let below = 0;
  const buckets = counts.map((count, bucket) => {
    const bound = bounds[bucket];
    below += count;
    const le = bound === undefined ? "+Inf" : decimal(bound / 1000);
    return ["_bucket", { ...labels, le }, below] as const;
  });
  return [...buckets, ["_count", labels, below] as const, ["_sum", labels, sum / 1000] as const];
}

/** A bound in the canonical form of OpenMetrics, always with a point: 5 and 5.0 would be two series. */
function decimal(value: number): string {
  return Number.isInteger(value) ? `${value}.0` : String(value);
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

function* families({ info: { version, instance, mode }, stats, queues }: Figures): Generator<Family> {
  const { connections, turns, events, commands, database, pipeline } = stats;
  const kept = BATCH_STATES.flatMap((state) =>
    queues.map((queue): Sample => [{ queue: queue.queue, state }, queue[state]]),
  );
  const oldest = queues.map(({ queue, oldestReadyMs }): Sample => [{ queue }, (oldestReadyMs ?? 0) / 1000]);
  const errors = Object.entries(stats.errors).flatMap(([method, kinds]) =>
    Object.entries(kinds).map(([kind, count]): Sample => [{ method, kind }, count]),
  );
  // Not of the type info, which a node exporter does not know.
  yield family("gauge", "build", "What the daemon is; always 1.", [
    [{ version, instance, mode: mode.kind }, 1],
  ]);
  yield family("gauge", "uptime", "Since the start of the daemon.", one(stats.uptimeMs / 1000), "seconds");
  yield family("gauge", "memory", "Resident memory of the daemon.", one(stats.memoryBytes), "bytes");
  yield family("counter", "requests", "Calls by method.", by("method", stats.requests));
  yield family("counter", "errors", "Refusals and errors by method and kind.", errors);
  yield family("gauge", "connections", "Connections that are open.", one(connections.open));
  yield family("counter", "accepted_connections", "Connections accepted.", one(connections.accepted));
  yield family(
    "counter",
    "overloads",
    "Connections closed while memory ran out.",
    one(connections.overloads),
  );
  yield family("gauge", "waiting_calls", "Calls that wait for a condition.", one(connections.waiting));
  yield family("counter", "turns", "Turns that wrote.", one(turns.committed));
  yield family("counter", "rolled_back_turns", "Turns that were performed again.", one(turns.rolledBack));
  yield family("counter", "operations", "Calls that turns performed.", one(turns.operations));
  yield histograms("commit", "How long commits took.", [[{}, stats.commits]]);
  const counts = countsByQueue(stats);
  const batchEvents = counts.flatMap(({ queue, events }) =>
    Object.entries(events).map(([kind, times]): Sample => [{ queue: `${queue}`, kind }, times]),
  );
  const otherEvents = Object.entries(events).flatMap(([noun, kinds]) =>
    noun === "queue" ? [] : Object.entries(kinds).map(([kind, times]): Sample => [{ noun, kind }, times]),
  );
  const durations = (of: "waitMs" | "runMs") =>
    counts
      .filter((each) => each[of].counts.some((count) => count > 0))
      .map((each) => [{ queue: `${each.queue}` }, each[of]] as const);
  yield family("counter", "queue_events", "Effects on batches, by queue and kind.", batchEvents);
  yield histograms("queue_wait", "How long batches were available before their claims.", durations("waitMs"));
  yield histograms("queue_run", "How long batches were worked on.", durations("runMs"));
  yield family("counter", "events", "Effects on all else, by noun and kind.", otherEvents);
  yield family("counter", "sequence_numbers", "Numbers taken.", one(stats.sequences.dispensed));
  yield family("gauge", "batches", "Batches that are kept, by queue and state.", kept);
  yield family("gauge", "oldest_ready", "Age of the oldest batch that could be claimed.", oldest, "seconds");
  const paused = queues.map(({ queue, paused }): Sample => [{ queue }, paused ? 1 : 0]);
  yield family("gauge", "queue_paused", "1 for a queue that is paused.", paused);
  yield family("gauge", "commands", "Commands that are kept, by state.", by("state", commands.states));
  yield family("counter", "ended_commands", "Commands that became final.", by("state", commands.ended));
  yield family("counter", "late_answers", "Answers to commands that had ended.", one(commands.lateAnswers));
  yield family("gauge", "leases", "Leases that are held.", one(stats.leases.held));
  yield family("gauge", "reservations", "Reservations of paths that are held.", one(stats.paths.reserved));
  yield family("gauge", "board_items", "Items of the board.", one(pipeline.items));
  yield family("gauge", "board_changes", "Changes of the board that are stored.", one(pipeline.changes));
  yield family("gauge", "board_forks", "Forks in the logs of the board.", one(pipeline.forks));
  yield family("gauge", "database", "The file of the database.", one(database.bytes), "bytes");
  yield family("gauge", "write_ahead_log", "The write-ahead log.", one(database.walBytes), "bytes");
  yield family(
    "counter",
    "log_lines_dropped",
    "Lines of the log that were lost.",
    one(stats.logLinesDropped),
  );
}

import type { Result } from "@pawl/protocol/types";
import type { Tone } from "./parts.js";
import { to } from "./route.js";
import { count, duration, plural } from "./wording.js";

export type QueueRow = Result<"queue.stats">["queues"][number];

/** Something that is not as it should be. */
export interface Finding {
  readonly tone: Extract<Tone, "bad" | "warn">;
  /** What is wrong. */
  readonly title: string;
  /** Why, or what it means. */
  readonly why: string;
  readonly href: string;
  /** What can be looked at, or done, there. */
  readonly label: string;
}

export interface Reasons {
  readonly error?: string | undefined;
  readonly pause?: string | undefined;
}

export interface Known {
  readonly info: Result<"daemon.info">;
  readonly stats: Result<"daemon.stats">;
  readonly queues: readonly QueueRow[];
  readonly deployments: Result<"deployment.list">["deployments"];
  readonly leases: Result<"lease.list">["leases"];
  /** Of some queues: the last error of their first dead batch, or why they are paused. */
  readonly reasons: ReadonlyMap<string, Reasons>;
}

/** Claimable work that nobody has claimed for so long has no worker. */
const UNTAKEN_MS = 60_000;
/** Others wait behind a lease that was held for so long. */
const LONG_HELD_MS = 10 * 60_000;
const CLOCK_STEP_SHOWN_MS = 60 * 60_000;

/** All that is not well, the worst first; nothing if all is well. */
export function findings(known: Known, now: number): Finding[] {
  const found = [
    ...ofDaemon(known, now),
    ...known.queues.flatMap((row) => [...ofQueue(row, known.reasons.get(row.queue) ?? {})]),
    ...ofOthers(known, now),
  ];
  return found.sort((a, b) => Number(a.tone === "warn") - Number(b.tone === "warn"));
}

function* ofDaemon({ info, stats }: Known, now: number): Generator<Finding> {
  const daemon = { href: to("daemon"), label: "The daemon" } as const;
  const { clock, configError, copied, heldLog, readOnly } = info;
  if (copied !== null) {
    yield {
      tone: "bad",
      title: `The database is a copy of ${copied.from}`,
      why: "If that lives on, both give the same numbers. Once it is gone: pawl status --accept-copy.",
      ...daemon,
    };
  }
  if (stats.pipeline.forks > 0) {
    yield {
      tone: "bad",
      title: `The board has ${plural(stats.pipeline.forks, "fork")}`,
      why: "A log of changes was written by two at once, as after a restored backup.",
      href: to("board"),
      label: "The board",
    };
  }
  if (clock !== null && now - clock.steppedAt < CLOCK_STEP_SHOWN_MS) {
    const way = clock.byMs > 0 ? "forward" : "back";
    yield {
      tone: "warn",
      title: `The clock was set ${way} by ${duration(Math.abs(clock.byMs))}`,
      why: "Durations are not moved by that; times that callers name are.",
      ...daemon,
    };
  }
  if (heldLog !== null) {
    yield {
      tone: "warn",
      title: "The write-ahead log grows",
      why: `${heldLog.pid === null ? "Another program" : `The process ${heldLog.pid}`} reads the database without end.`,
      ...daemon,
    };
  }
  if (configError !== null) {
    yield {
      tone: "warn",
      title: "The configuration was not taken over when it was read again",
      why: configError,
      ...daemon,
    };
  }
  if (stats.connections.overloads > 0) {
    yield {
      tone: "warn",
      title: `${plural(stats.connections.overloads, "connection")} closed while memory ran out`,
      why: "They did not read their answers, or not end their lines.",
      ...daemon,
    };
  }
  if (stats.logLinesDropped > 0) {
    yield {
      tone: "warn",
      title: `${plural(stats.logLinesDropped, "line")} of the log were dropped`,
      why: "Nobody could take them: a full disk, or a reader that has stopped.",
      ...daemon,
    };
  }
  if (readOnly) {
    yield {
      tone: "warn",
      title: "The daemon only reads",
      why: "It was started with --read-only.",
      ...daemon,
    };
  }
}

function* ofQueue(row: QueueRow, { error, pause }: Reasons): Generator<Finding> {
  const { queue, dead, paused, ready, claimed, oldestReadyMs } = row;
  if (dead > 0) {
    yield {
      tone: "bad",
      title: `${plural(dead, "dead batch")} in ${queue}`,
      why: error ?? "Failed as often as it may: nobody gets it until it is retried.",
      href: to("queues", queue, "dead"),
      label: "Look and retry",
    };
  }
  if (paused && ready > 0) {
    yield {
      tone: "warn",
      title: `${queue} is paused`,
      why: `${pause === undefined ? "" : `${pause}: `}${plural(ready, "batch")} ${ready === 1 ? "waits" : "wait"} until it is resumed.`,
      href: to("queues", queue),
      label: "Why, and resume",
    };
  } else if (ready > 0 && claimed === 0 && (oldestReadyMs ?? 0) > UNTAKEN_MS) {
    yield {
      tone: "warn",
      title: `Nobody works on ${queue}`,
      why: `${plural(ready, "batch")} could be claimed, the oldest for ${duration(oldestReadyMs ?? 0)}.`,
      href: to("queues", queue),
      label: "Why",
    };
  }
}

function* ofOthers({ stats, deployments, leases }: Known, now: number): Generator<Finding> {
  for (const { deployment, pending, receivers } of deployments) {
    // Who pulls commands and carries one out does not ask for the next meanwhile.
    if (pending === 0 || receivers !== 0 || stats.commands.states.DISPATCHED > 0) continue;
    yield {
      tone: "warn",
      title: `Nobody serves ${deployment}`,
      why: `${plural(pending, "command")} ${pending === 1 ? "waits" : "wait"} for a receiver.`,
      href: to("commands", deployment),
      label: "Its commands",
    };
  }
  const { FAILED, EXPIRED } = stats.commands.states;
  if (FAILED > 0 || EXPIRED > 0) {
    yield {
      tone: "warn",
      title: `${count(FAILED)} commands failed, ${count(EXPIRED)} expired`,
      why: "Of those that are still kept.",
      href: to("commands"),
      label: "Commands",
    };
  }
  for (const { name, owner, waiters, acquiredAt } of leases) {
    if (!waiters || now - acquiredAt < LONG_HELD_MS) continue;
    yield {
      tone: "warn",
      title: `${plural(waiters, "caller")} ${waiters === 1 ? "waits" : "wait"} for ${name}`,
      why: `${owner} has held it for ${duration(now - acquiredAt)}.`,
      href: to("leases", name),
      label: "Who holds it",
    };
  }
}

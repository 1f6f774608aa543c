import { basename, resolve } from "node:path";
import { DEFAULT_LEASE_MS, MAX_RESULT_BYTES } from "@pawl/protocol/limits";
import type { Result } from "@pawl/protocol/types";
import { BOUNDARIES } from "@pawl/protocol/values";
import type { PawlClient } from "../connect.js";
import { JsonText } from "../connection/json-text.js";
import { CannotRun } from "../process/program.js";
import { failureOf, killAfterMs, type Performed, RunningCommands } from "../process/running-commands.js";
import { command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { clockTime, duration, plural } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { Postpone } from "../work/postpone.js";
import type { Work } from "../work/queue-worker.js";
import { isForGood } from "../work/refusals.js";
import { onlyQueueOf, order } from "./claim.js";
import { obstacleOf } from "./queue.js";

/** How long a running program has to end by itself when pawl is told to end. */
const DEFAULT_GRACE_MS = 10_000;
/** A program whose work is cancelled is killed after this part of the grace, so that it ends before the claim does. */
const STOPPING_FRACTION = 9 / 10;
/** How much of a batch's id is shown on a terminal: enough to tell them apart. */
const SHOWN_ID_LENGTH = "qwb:".length + 12;

const work = command({
  args: "<queue..> -- command",
  patient: () => true,
  summary: "Run a command for each batch of queues",
  options: {
    order,
    jobs: { type: "number", short: "j", describe: "How many claims are worked on at a time", default: "1" },
    "max-batches": { type: "number", describe: "How many that join are claimed together", default: "1" },
    lease: { type: "duration", describe: "How long a claim outlives the last sign of life", default: "30s" },
    "retry-delay": {
      type: "duration",
      describe: "How long a batch rests after it failed",
      default: "as its queue says",
    },
    once: { type: "flag", describe: "End with the first claim; exit code 1 if it failed" },
    drain: { type: "flag", describe: "End when there is nothing to claim" },
    "max-failures": { type: "number", describe: "End, with exit code 1, when so many failed in a row" },
    result: { type: "flag", describe: "Keep the command's standard output as the result" },
    grace: { type: "duration", describe: "What a running command has to end after SIGTERM", default: "10s" },
    owner: {
      type: "text",
      value: "TEXT",
      describe: "Who works, for others to see",
      default: "program and pid",
    },
    boundary: {
      type: "text",
      choices: BOUNDARIES,
      describe: "At active_turn_checkpoint, nothing that was enqueued with --after-commit",
      default: "idle",
    },
  },
  details:
    "For each claim the command is run with the payloads on its standard input, one JSON per line. Exit code 0 completes the claim; anything else abandons it with the last line of standard error as the reason, to be tried again. The claim is renewed while the command runs; when it is lost or cancelled, the command is ended (TERM, then KILL: of a cancelled one before the grace is over), and when pawl is killed, so is the command. SIGTERM ends pawl: what cannot be finished in time is given back and not counted as an attempt. With --result what the command prints is kept as it is if it is JSON, else as text. The command finds PAWL_QUEUE, PAWL_CLAIM_ID, PAWL_LEASE_TOKEN, PAWL_FENCING_TOKEN, PAWL_BATCH_IDS and PAWL_ATTEMPT in its environment, and TRACEPARENT if its batches have a trace.",
  examples: [
    ["pawl work mails -- ./send-mail", "One at a time, until it is told to end"],
    ["pawl work thumbnails --jobs 4 -- sh -c 'jq -r .image | xargs make-thumbnail'", "Four at a time"],
    [
      "pawl work urgent 'build/*' -- ./build",
      "From urgent, and if that is empty from any queue below build/",
    ],
    ["pawl work nightly --drain --max-failures 3 -- ./job", "What is there now, unless all of it fails"],
    ["pawl work builds --retry-delay 1m --lease 5m -- make -f -", "A failed one rests for a minute"],
  ],
  async run(args, { connect, output }) {
    const client = await connect();
    const { queue: queues, "--": program, lease: leaseMs = DEFAULT_LEASE_MS } = args;
    const outcomes = new Outcomes(args["max-failures"], output);
    const running = new RunningCommands(args.grace ?? DEFAULT_GRACE_MS);
    const worker = new Worker(program, leaseMs, client.socketPath, args.result, running, output);
    try {
      await client.work(onlyQueueOf(queues) ?? queues, (given) => worker.perform(given), {
        concurrency: args.jobs ?? 1,
        leaseMs,
        owner: args.owner ?? `${basename(program[0] as string)}:${process.pid}`,
        signal: AbortSignal.any([running.ending, outcomes.tooManyFailures]),
        drain: args.drain,
        once: args.once,
        ...(args.order === undefined ? {} : { order: args.order }),
        onComplete: (given) => {
          outcomes.succeeded();
          worker.report(given, "done");
        },
        onCancel: (given) => worker.report(given, "cancelled", given.signal.reason),
        onFailure: (error, given) => {
          worker.report(given, "failed", error);
          outcomes.failed();
        },
        onError: (error, given) => {
          if (given !== undefined) worker.report(given, "lost", error);
          // A refusal that stays the same is told at the end.
          else if (!isForGood(error)) output.note(`pawl: ${printable(textOf(error))}`);
        },
        ...(args["retry-delay"] === undefined ? {} : { retryDelayMs: args["retry-delay"] }),
        ...(args["max-batches"] === undefined ? {} : { maxBatches: args["max-batches"] }),
        ...(args.boundary === undefined ? {} : { boundary: args.boundary }),
      }).done;
    } finally {
      running.close();
    }
    running.throwIfUnable();
    const isDrained = args.drain && !running.ending.aborted && !outcomes.tooManyFailures.aborted;
    // The work is done, whether or not the daemon is still there to tell of the rest.
    if (isDrained && !args.once && !output.json) await tellLeft(queues, client, output).catch(() => {});
    if (args.once ? outcomes.failuresInARow > 0 : outcomes.tooManyFailures.aborted) return EXIT_FAILED;
    return undefined;
  },
});

/** The work of `--once` failed, or so much of it in a row that no more was taken. */
const EXIT_FAILED = 1;

/** Says of queues in which nothing can be claimed now that there is something left, and why. */
async function tellLeft(queues: readonly string[], client: PawlClient, output: Output): Promise<void> {
  let others = 0;
  let said: string | undefined;
  for (const { queue, ready, scheduled } of await statsOf(queues, client)) {
    const left = ready + scheduled;
    if (left === 0) continue;
    // Undefined for what was enqueued right now, and what is held by others.
    const obstacle = obstacleOf(await client.queue.explain({ queue }));
    if (obstacle === undefined) continue;
    const name = printable(queue);
    const are = `${plural(left, "batch", "batches")} of ${name} ${left === 1 ? "is" : "are"} left`;
    if (said === undefined) said = `${are}: ${printable(obstacle)}. pawl why ${name} says more.`;
    else others += 1;
  }
  if (said === undefined) return;
  const more =
    others === 0 ? "" : ` ${plural(others, "other queue has", "other queues have")} some left, too.`;
  output.note(`${said}${more}`);
}

/** The figures of queues that are named, or that are below a prefix. */
async function statsOf(names: readonly string[], client: PawlClient): Promise<QueueStats[]> {
  const queue = onlyQueueOf(names);
  if (queue !== undefined) return (await client.queue.stats({ queue })).queues;
  const isMeant = (own: string): boolean =>
    names.some((name) => (name.endsWith("/*") ? own.startsWith(name.slice(0, -1)) : own === name));
  const found: QueueStats[] = [];
  for (let after: string | undefined; ; ) {
    const page: Result<"queue.stats"> = await client.queue.stats(after === undefined ? {} : { after });
    found.push(...page.queues.filter((each) => isMeant(each.queue)));
    if (page.next === undefined) return found;
    after = page.next;
  }
}

type QueueStats = Result<"queue.stats">["queues"][number];

/** How the claims that were worked on have ended. */
class Outcomes {
  readonly #maxFailures: number;
  readonly #output: Output;
  readonly #controller = new AbortController();
  failuresInARow = 0;

  constructor(maxFailures: number | undefined, output: Output) {
    this.#maxFailures = maxFailures ?? Number.POSITIVE_INFINITY;
    this.#output = output;
  }

  /** Aborted when as many have failed in a row as may. */
  get tooManyFailures(): AbortSignal {
    return this.#controller.signal;
  }

  succeeded(): void {
    this.failuresInARow = 0;
  }

  failed(): void {
    this.failuresInARow += 1;
    if (this.failuresInARow < this.#maxFailures || this.tooManyFailures.aborted) return;
    this.#output.note(
      `pawl: ${plural(this.failuresInARow, "claim")} failed in a row, so no more is claimed.`,
    );
    this.#controller.abort();
  }
}

/** Has a program do the work of claims, and prints what became of each. */
class Worker {
  readonly #program: readonly string[];
  readonly #leaseMs: number;
  readonly #socketPath: string;
  readonly #keepsResult: boolean;
  readonly #running: RunningCommands;
  readonly #output: Output;
  readonly #startedAt = new WeakMap<Work, number>();

  constructor(
    program: readonly string[],
    leaseMs: number,
    socketPath: string,
    keepsResult: boolean,
    running: RunningCommands,
    output: Output,
  ) {
    this.#program = program;
    this.#leaseMs = leaseMs;
    this.#socketPath = socketPath;
    this.#keepsResult = keepsResult;
    this.#running = running;
    this.#output = output;
  }

  /**
   * Resolves with the result that is to be kept. Rejects with why the program failed, or with `Postpone` when the work
   * is to be given back.
   */
  async perform(given: Work): Promise<unknown> {
    this.#startedAt.set(given, performance.now());
    const performed = await this.#run(given);
    if (performed !== undefined) {
      if (performed.code === 0) return this.#keepsResult ? resultOf(performed.output) : undefined;
      if (given.signal.aborted) throw given.signal.reason;
      if (!this.#running.ending.aborted) throw new Error(failureOf(performed));
    }
    this.report(given, "given back");
    throw new Postpone();
  }

  report(given: Work, outcome: Outcome, error?: unknown): void {
    const message = error === undefined ? undefined : textOf(error);
    const startedAt = this.#startedAt.get(given) as number;
    printOutcome(given, outcome, message, performance.now() - startedAt, this.#output);
  }

  /** A program whose claim is cancelled has most of the grace to end, and less where the claim is lost already. */
  #killAfterMs({ cancelled }: Work): number {
    return cancelled === undefined ? killAfterMs(this.#leaseMs) : cancelled.graceMs * STOPPING_FRACTION;
  }

  /** Undefined when the program cannot be run: no batch is to blame for that, and the next would fare no better. */
  async #run(given: Work): Promise<Performed | undefined> {
    const lines = given.payloadTexts().map((text) => `${text}\n`);
    try {
      return await this.#running.perform(this.#program, {
        env: environmentOf(given, this.#socketPath),
        input: lines.join(""),
        // The output of the program is that of pawl, unless that is to be read by a program.
        stdout: this.#keepsResult ? "pipe" : this.#output.json ? process.stderr.fd : "inherit",
        maxOutputBytes: MAX_RESULT_BYTES,
        lost: given.signal,
        killAfterMs: () => this.#killAfterMs(given),
      });
    } catch (error) {
      if (error instanceof CannotRun) return undefined;
      throw error;
    }
  }
}

/** The variables by which a program knows the work it is run for. */
function environmentOf({ claim, batches }: Work, socketPath: string): Record<string, string> {
  return {
    PAWL_SOCKET: resolve(socketPath),
    PAWL_QUEUE: claim.queue,
    PAWL_CLAIM_ID: claim.claimId,
    PAWL_LEASE_TOKEN: claim.leaseToken,
    PAWL_FENCING_TOKEN: String(claim.fencingToken),
    PAWL_BATCH_IDS: batches.map(({ batchId }) => batchId).join(" "),
    PAWL_ATTEMPT: String(attemptOf(batches)),
    ...traceOf(batches),
  };
}

/** The variables of W3C Trace Context: of the first batch that has a trace. */
function traceOf(batches: Work["batches"]): Record<string, string> {
  const { traceparent, tracestate } = batches.find(({ trace }) => trace !== undefined)?.trace ?? {};
  return {
    ...(traceparent === undefined ? {} : { TRACEPARENT: traceparent }),
    ...(tracestate === undefined ? {} : { TRACESTATE: tracestate }),
  };
}

/** The output of a program as a result: the JSON that it is, or else its text. */
function resultOf(output: Buffer): JsonText {
  if (output.length > MAX_RESULT_BYTES) {
    throw new Error(
      `The output has more than ${MAX_RESULT_BYTES} bytes, which is as much as a result may have.`,
    );
  }
  const text = output.toString("utf8");
  try {
    JSON.parse(text);
    return new JsonText(text);
  } catch {
    return new JsonText(JSON.stringify(text));
  }
}

/** Which attempt this is for the batch that was tried most often. */
function attemptOf(batches: Work["batches"]): number {
  return Math.max(...batches.map(({ attempt }) => attempt)) + 1;
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

type Outcome = "done" | "failed" | "given back" | "cancelled" | "lost";

const OUTCOME_STYLES = {
  done: "green",
  failed: "red",
  "given back": "dim",
  cancelled: "yellow",
  lost: "yellow",
} as const;

/** A line for each claim: on a terminal for people, in JSON for programs. */
function printOutcome(
  given: Work,
  outcome: Outcome,
  error: string | undefined,
  tookMs: number,
  output: Output,
): void {
  if (output.json) output.write(`${JSON.stringify(outcomeObject(given, outcome, error, tookMs))}\n`);
  else if (output.isWatched) output.note(outcomeLine(given, outcome, error, tookMs, output));
}

function outcomeObject(
  { claim, batches }: Work,
  outcome: Outcome,
  error: string | undefined,
  tookMs: number,
): object {
  return {
    outcome: outcome === "given back" ? "postponed" : outcome,
    claimId: claim.claimId,
    batchIds: batches.map(({ batchId }) => batchId),
    attempt: attemptOf(batches),
    tookMs: Math.round(tookMs),
    ...(error === undefined ? {} : { error }),
  };
}

function outcomeLine(
  { batches }: Work,
  outcome: Outcome,
  error: string | undefined,
  tookMs: number,
  { styledNote }: Output,
): string {
  const [first] = batches;
  const others = batches.length === 1 ? "" : ` and ${plural(batches.length - 1, "other")}`;
  const attempt = attemptOf(batches);
  const last = outcome === "failed" && batches.some(({ maxAttempts }) => maxAttempts === attempt);
  return [
    styledNote("dim", clockTime()),
    `${first?.batchId.slice(0, SHOWN_ID_LENGTH)}${others}`,
    styledNote(OUTCOME_STYLES[outcome], outcome.padEnd("given back".length)),
    duration(tookMs),
    ...(error === undefined ? [] : [printable(error)]),
    ...(outcome === "failed" && attempt > 1 ? [`attempt ${attempt}`] : []),
    ...(last ? [styledNote("red", "dead")] : []),
  ].join("  ");
}

export const commands = { work };

import { basename, resolve } from "node:path";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import {
  CannotRun,
  clockTime,
  failureOf,
  killAfterMs,
  type Performed,
  RunningCommands,
} from "../process/child.js";
import { command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { duration, plural } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { Postpone } from "../work/postpone.js";
import type { Work } from "../work/queue-worker.js";
import { isForGood } from "../work/refusals.js";

/** What a running command has to end by itself when pawl is told to end. */
const DEFAULT_GRACE_MS = 10_000;
/** Of a batch's id, on a terminal: enough to tell them apart. */
const SHOWN_ID_LENGTH = "qwb:".length + 12;

const work = command({
  args: "<queue> -- command",
  summary: "Run a command for each batch of a queue",
  options: {
    jobs: { type: "number", short: "j", describe: "How many claims are worked on at a time", default: "1" },
    "max-batches": { type: "number", describe: "How many that join are claimed together", default: "1" },
    lease: { type: "duration", describe: "How long a claim outlives the last sign of life", default: "30s" },
    "retry-delay": { type: "duration", describe: "How long a batch rests after it failed", default: "0" },
    grace: { type: "duration", describe: "What a running command has to end after SIGTERM", default: "10s" },
    owner: {
      type: "text",
      value: "TEXT",
      describe: "Who works, for others to see",
      default: "program and pid",
    },
    boundary: {
      type: "text",
      choices: ["idle", "active_turn_checkpoint"],
      describe: "At a checkpoint, only what may come there is handed out",
      default: "idle",
    },
  },
  details:
    "For each claim the command is run with the payloads on its standard input, one JSON per line. Exit code 0 completes the claim; anything else abandons it with the last line of standard error as the reason, to be tried again. The claim is renewed while the command runs; when it is lost, the command is ended (TERM, then KILL), and when pawl is killed, so is the command. SIGTERM ends pawl: what cannot be finished in time is given back and not counted as an attempt. The command finds PAWL_QUEUE, PAWL_CLAIM_ID, PAWL_LEASE_TOKEN, PAWL_FENCING_TOKEN, PAWL_BATCH_IDS and PAWL_ATTEMPT in its environment.",
  examples: [
    ["pawl work mails -- ./send-mail", "One at a time, until it is told to end"],
    ["pawl work thumbnails --jobs 4 -- sh -c 'jq -r .image | xargs make-thumbnail'", "Four at a time"],
    ["pawl work builds --retry-delay 1m --lease 5m -- make -f -", "A failed one rests for a minute"],
  ],
  async run(args, { connect, output }) {
    const client = await connect();
    const { queue, "--": line, lease: leaseMs = DEFAULT_LEASE_MS, grace = DEFAULT_GRACE_MS } = args;
    const commands = new RunningCommands(grace);
    const startedAt = new WeakMap<Work, number>();
    let unable: CannotRun | undefined;

    const report = (given: Work, outcome: Outcome): void => {
      tell(given, outcome, performance.now() - (startedAt.get(given) as number), output);
    };
    const giveBack = (given: Work): Postpone => {
      report(given, { kind: "given back" });
      return new Postpone();
    };

    const perform = async (given: Work): Promise<void> => {
      startedAt.set(given, performance.now());
      let performed: Performed;
      try {
        performed = await commands.perform(line, {
          env: environmentOf(given, client.socketPath),
          input: given
            .payloadTexts()
            .map((text) => `${text}\n`)
            .join(""),
          // What the command prints is the result, unless what pawl prints is to be read by a program.
          stdout: output.json ? process.stderr.fd : "inherit",
          lost: given.signal,
          killAfterMs: killAfterMs(leaseMs),
        });
      } catch (error) {
        if (!(error instanceof CannotRun)) throw error;
        // No batch is to blame for it, and the next would fare no better.
        unable = error;
        commands.end();
        throw giveBack(given);
      }
      if (performed.code === 0 || given.signal.aborted) return;
      if (commands.ending.aborted) throw giveBack(given);
      throw new Error(failureOf(performed));
    };

    try {
      await client.work(queue, perform, {
        concurrency: args.jobs ?? 1,
        leaseMs,
        owner: args.owner ?? `${basename(line[0] as string)}:${process.pid}`,
        retryDelayMs: args["retry-delay"] ?? 0,
        signal: commands.ending,
        onComplete: (given) => report(given, { kind: "done" }),
        onFailure: (error, given) => report(given, { kind: "failed", error: textOf(error) }),
        onError: (error, given) => {
          if (given !== undefined) report(given, { kind: "lost", error: textOf(error) });
          // What is refused for good is told at the end.
          else if (!isForGood(error)) output.note(`pawl: ${printable(textOf(error))}`);
        },
        ...(args["max-batches"] === undefined ? {} : { maxBatches: args["max-batches"] }),
        ...(args.boundary === undefined ? {} : { boundary: args.boundary }),
      }).done;
    } finally {
      commands.close();
    }
    if (unable !== undefined) throw unable;
    return undefined;
  },
});

/** What a command can know of the work it is run for. */
function environmentOf({ claim, batches }: Work, socketPath: string): Record<string, string> {
  return {
    PAWL_SOCKET: resolve(socketPath),
    PAWL_QUEUE: claim.queue,
    PAWL_CLAIM_ID: claim.claimId,
    PAWL_LEASE_TOKEN: claim.leaseToken,
    PAWL_FENCING_TOKEN: String(claim.fencingToken),
    PAWL_BATCH_IDS: batches.map(({ batchId }) => batchId).join(" "),
    PAWL_ATTEMPT: String(attemptOf(batches)),
  };
}

/** Which attempt this is for the batch that was tried most often. */
function attemptOf(batches: Work["batches"]): number {
  return Math.max(...batches.map(({ attempt }) => attempt)) + 1;
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

interface Outcome {
  readonly kind: "done" | "failed" | "given back" | "lost";
  readonly error?: string;
}

const STYLES = { done: "green", failed: "red", "given back": "dim", lost: "yellow" } as const;

/** A line for each claim: on a terminal for people, in JSON for programs. */
function tell({ claim, batches }: Work, { kind, error }: Outcome, tookMs: number, output: Output): void {
  if (output.json) {
    output.write(
      `${JSON.stringify({
        outcome: kind === "given back" ? "postponed" : kind,
        claimId: claim.claimId,
        batchIds: batches.map(({ batchId }) => batchId),
        attempt: attemptOf(batches),
        tookMs: Math.round(tookMs),
        ...(error === undefined ? {} : { error }),
      })}\n`,
    );
  } else if (output.isWatched) {
    const [first] = batches;
    const others = batches.length === 1 ? "" : ` and ${plural(batches.length - 1, "other")}`;
    const attempt = attemptOf(batches);
    const last = kind === "failed" && batches.some(({ maxAttempts }) => maxAttempts === attempt);
    const parts = [
      output.styledNote("dim", clockTime()),
      `${first?.batchId.slice(0, SHOWN_ID_LENGTH)}${others}`,
      output.styledNote(STYLES[kind], kind.padEnd("given back".length)),
      duration(tookMs),
      ...(error === undefined ? [] : [printable(error)]),
      ...(kind === "failed" && attempt > 1 ? [`attempt ${attempt}`] : []),
      ...(last ? [output.styledNote("red", "dead")] : []),
    ];
    output.note(parts.join("  "));
  }
}

export const commands = { work };

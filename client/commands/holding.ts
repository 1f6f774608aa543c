// Options of the commands that run a program while they hold something for it.
import { basename } from "node:path";
import { DEFAULT_LEASE_MS, DEFAULT_LOSS_GRACE_MS, MAX_GRACE_MS } from "@pawl/protocol/limits";
import type { Params } from "@pawl/protocol/types";
import { LOSS_SIGNALS } from "@pawl/protocol/values";
import type { HoldOptions } from "../grants/hold.js";
import { type Arguments, UsageError } from "../terminal/command.js";
import { milliseconds } from "../terminal/values.js";

/** The highest code that a program can exit with. */
const MAX_EXIT_CODE = 255;

export const HOLD_OPTIONS = {
  wait: { type: "duration", describe: "How long to wait while another holds it", default: "not at all" },
  ttl: {
    type: "duration",
    describe: "How long it is held beyond the last sign of life of this program",
    default: "30s",
  },
  owner: {
    type: "text",
    value: "TEXT",
    describe: "Who holds it, for others to see",
    default: "program and pid",
  },
  note: { type: "text", value: "TEXT", describe: "Why, for others to see" },
  grace: {
    type: "duration",
    describe: "How long it stays held while the connection to the daemon is lost",
    default: "not at all",
  },
  "on-loss": {
    type: "text",
    value: "SIGNAL[:TIME]",
    describe:
      "Has the daemon end pawl and the command when it is lost, by this signal and a kill after TIME (5s), and grant it to nobody before",
  },
  "conflict-exit-code": {
    type: "number",
    short: "E",
    value: "NUMBER",
    describe: "The exit code if it is not to be had, as of flock(1)",
    default: "1",
  },
} as const;

/** The exit code that was asked for. Throws `UsageError` for one that no program can have. */
export function exitCodeOf(given: number | undefined): number | undefined {
  if (given === undefined || given <= MAX_EXIT_CODE) return given;
  throw new UsageError(`--conflict-exit-code takes 0 to ${MAX_EXIT_CODE}, not ${given}.`);
}

/** With what a command says of it whether or not it is given. */
type HeldAs = HoldOptions & { ttlMs: number; waitMs: number; onLoss?: OnLoss };
type OnLoss = { readonly signal: Signal; readonly graceMs: number };
type HoldArguments = Arguments<"-- command", typeof HOLD_OPTIONS>;

/** How a program's grant is held, by the options of its command. Throws `UsageError`. */
export function holdOptionsOf(args: HoldArguments): HeldAs {
  const { wait = 0, ttl = DEFAULT_LEASE_MS, owner, note, grace, "--": program } = args;
  const onLoss = onLossOf(args["on-loss"]);
  return {
    ttlMs: ttl,
    waitMs: wait,
    owner: owner ?? `${basename(program[0] as string)}:${process.pid}`,
    awaitsChildren: true,
    ...(note === undefined ? {} : { note }),
    ...(grace === undefined ? {} : { graceMs: grace }),
    ...(onLoss === undefined ? {} : { onLoss }),
  };
}

type Signal = NonNullable<NonNullable<Params<"lease.acquire">["onLoss"]>["signal"]>;

/** What `--on-loss` asks for, such as `TERM:10s`. Throws `UsageError`. */
function onLossOf(given: string | undefined): OnLoss | undefined {
  if (given === undefined) return undefined;
  const [name = "", time] = given.split(":");
  const signal = `SIG${name.toUpperCase().replace(/^SIG/, "")}` as Signal;
  if (!LOSS_SIGNALS.includes(signal))
    throw new UsageError(
      `--on-loss takes one of ${LOSS_SIGNALS.map((each) => each.slice(3)).join(", ")}, and perhaps a time, as in TERM:10s; not ${JSON.stringify(given)}.`,
    );
  const graceMs = time === undefined ? DEFAULT_LOSS_GRACE_MS : milliseconds("--on-loss", time);
  if (graceMs > MAX_GRACE_MS)
    throw new UsageError(`--on-loss kills after ${MAX_GRACE_MS / 1000}s at most, not ${time}.`);
  return { signal, graceMs };
}

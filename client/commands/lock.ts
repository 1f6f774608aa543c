import { basename, resolve } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import type { PawlClient } from "../connect.js";
import type { HeldLease } from "../grants/with-lease.js";
import { Child } from "../process/child.js";
import { killAfterMs } from "../process/running-commands.js";
import { passSignals, stopTogether } from "../process/signals.js";
import { command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { duration } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { heldFor } from "./lease.js";

/** A wait that is longer than this is explained: the holder is named. */
const TELL_AFTER_MS = 300;

const lock = command({
  args: "<name> -- command",
  patient: () => true,
  summary: "Run a command while holding a lease",
  options: {
    wait: { type: "duration", describe: "How long to wait while another holds it", default: "not at all" },
    ttl: {
      type: "duration",
      describe: "How long the lease outlives the last sign of life of this program",
      default: "30s",
    },
    owner: {
      type: "text",
      value: "TEXT",
      describe: "Who holds it, for others to see",
      default: "program and pid",
    },
    note: { type: "text", value: "TEXT", describe: "Why, for others to see" },
  },
  details:
    "The command finds PAWL_FENCING_TOKEN in its environment, which is greater than that of every earlier holder: send it along with what is written. It is ended (TERM, then KILL) when the lease is lost, and killed when pawl is. pawl exits with its exit code, or with 1 when the lease is held or lost.",
  examples: [
    ["pawl lock deploy -- ./deploy.sh", "One at a time on this machine; exits with 1 if another runs"],
    ["pawl lock deploy --wait 10m -- ./deploy.sh", "In turn, in the order they came"],
    [
      `pawl lock db -- sh -c 'migrate --token "$PAWL_FENCING_TOKEN"'`,
      "A stale holder can be told by its token",
    ],
  ],
  async run(args, { connect, output }) {
    const { name, wait = 0, ttl = DEFAULT_LEASE_MS, note, "--": program } = args;
    const client = await connect();
    const waiting =
      wait === 0 ? undefined : setTimeout(() => void tellWhom(client, name, output), TELL_AFTER_MS);
    const options = {
      ttlMs: ttl,
      waitMs: wait,
      owner: args.owner ?? `${basename(program[0] as string)}:${process.pid}`,
      ...(note === undefined ? {} : { note }),
    };
    try {
      const perform = (lease: HeldLease): Promise<number> => {
        clearTimeout(waiting);
        return runUnder(lease, program, ttl, client.socketPath);
      };
      return await client.withLease(name, perform, options);
    } catch (error) {
      throw error instanceof PawlError && error.kind === "lease_held" ? inWords(name, wait, error) : error;
    } finally {
      clearTimeout(waiting);
    }
  },
});

/** Runs a program while the lease is held, and resolves with its exit code. */
async function runUnder(
  { name, fencingToken, signal: lost }: HeldLease,
  program: readonly string[],
  ttlMs: number,
  socketPath: string,
): Promise<number> {
  // Begun a moment later, when signals are passed on already: until then they would end pawl alone.
  const starting = Promise.resolve().then(() =>
    Child.start(program, {
      stdio: ["inherit", "inherit", "inherit"],
      env: {
        PAWL_SOCKET: resolve(socketPath),
        PAWL_LEASE: name,
        PAWL_FENCING_TOKEN: String(fencingToken),
      },
    }),
  );
  const stopPassing = passSignals(starting);
  const stopStopping = stopTogether(() => [{ starting, lost }]);
  try {
    const child = await starting;
    const onLost = (): void => void child.stop(killAfterMs(ttlMs));
    lost.addEventListener("abort", onLost, { once: true });
    if (lost.aborted) onLost();
    return (await child.ended).code;
  } finally {
    stopPassing();
    stopStopping();
  }
}

/** The refusal with the option of this program that helps. */
function inWords(name: string, waitedMs: number, { details }: PawlError): PawlError {
  const { owner, remainingMs } = details.holder as { owner: string; remainingMs: number };
  const held = `held by ${owner}, for ${duration(remainingMs)} more unless it is renewed`;
  return new PawlError(
    "lease_held",
    waitedMs === 0
      ? `${name} is ${held}. Wait for it with --wait, or see pawl leases.`
      : `${name} is still ${held}, after a wait of ${duration(waitedMs)}. See pawl leases.`,
    details,
  );
}

async function tellWhom(client: PawlClient, name: string, output: Output): Promise<void> {
  const { lease } = await client.lease.get({ name }).catch(() => ({ lease: null }));
  if (lease === null) return;
  const pid = lease.pid === null ? "" : `, pid ${lease.pid}`;
  output.note(
    `Waiting for ${printable(name)}, which ${printable(lease.owner)}${pid} has held for ${heldFor(lease)}.`,
  );
}

export const commands = { lock };

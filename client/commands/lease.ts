import { basename, resolve } from "node:path";
import type { Result } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_LEASE_MS } from "@pawl/protocol/limits";
import type { PawlClient } from "../connect.js";
import { Child } from "../process/child.js";
import { killAfterMs } from "../process/running-commands.js";
import { passSignals, stopTogether } from "../process/signals.js";
import { command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { duration } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";

/** Who has to wait longer than this is told for whom. */
const TELL_AFTER_MS = 300;

const lock = command({
  args: "<name> -- command",
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
  async run({ name, wait = 0, ttl = DEFAULT_LEASE_MS, owner, note, "--": line }, { connect, output }) {
    const client = await connect();
    const waiting =
      wait === 0 ? undefined : setTimeout(() => void tellWhom(client, name, output), TELL_AFTER_MS);
    const options = {
      ttlMs: ttl,
      waitMs: wait,
      owner: owner ?? `${basename(line[0] as string)}:${process.pid}`,
      ...(note === undefined ? {} : { note }),
    };
    try {
      return await client.withLease(
        name,
        async ({ fencingToken, signal }) => {
          clearTimeout(waiting);
          // From before there is a command on, signals are for it: until then they would end pawl alone.
          const starting = Promise.resolve().then(() =>
            Child.start(line, {
              stdio: ["inherit", "inherit", "inherit"],
              env: {
                PAWL_SOCKET: resolve(client.socketPath),
                PAWL_LEASE: name,
                PAWL_FENCING_TOKEN: String(fencingToken),
              },
            }),
          );
          const stopPassing = passSignals(starting);
          const stopStopping = stopTogether(() => [{ starting, lost: signal }]);
          try {
            const child = await starting;
            const onLost = (): void => void child.stop(killAfterMs(ttl));
            signal.addEventListener("abort", onLost, { once: true });
            if (signal.aborted) onLost();
            return (await child.ended).code;
          } finally {
            stopPassing();
            stopStopping();
          }
        },
        options,
      );
    } catch (error) {
      throw error instanceof PawlError && error.kind === "lease_held" ? inWords(name, wait, error) : error;
    } finally {
      clearTimeout(waiting);
    }
  },
});

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

type Holder = Result<"lease.list">["leases"][number];

/** By the daemon's clock alone: it may differ from ours. */
function heldFor({ acquiredAt, expiresAt, remainingMs }: Holder): string {
  return duration(Math.max(0, expiresAt - remainingMs - acquiredAt));
}

const leases = command({
  args: "",
  summary: "List who holds what",
  options: {},
  examples: [
    ["pawl leases", "A table of names, their holders and how long they still have"],
    [`pawl leases --json | jq '.leases[] | select(.waiters > 0)'`, "Those that somebody waits for"],
  ],
  async run(_args, { connect, output }) {
    const client = await connect();
    const held: Holder[] = [];
    let after: string | undefined;
    do {
      const page = await client.lease.list({ ...(after === undefined ? {} : { after }), limit: 1000 });
      held.push(...page.leases);
      after = page.next;
    } while (after !== undefined);
    output.result({ leases: held }, () => {
      if (held.length === 0) {
        output.note("No leases are held.");
        return "";
      }
      return output.table(
        [
          { title: "NAME", flexible: true },
          { title: "OWNER", flexible: true },
          { title: "PID", align: "right" },
          { title: "TOKEN", align: "right" },
          { title: "HELD FOR", align: "right" },
          { title: "ENDS IN", align: "right" },
          { title: "WAITING", align: "right" },
          { title: "NOTE", flexible: true },
        ],
        held.map((each) => [
          each.name,
          each.owner,
          each.pid === null ? "" : String(each.pid),
          String(each.fencingToken),
          heldFor(each),
          duration(each.remainingMs),
          each.waiters === null || each.waiters === 0 ? "" : String(each.waiters),
          each.note ?? "",
        ]),
      );
    });
    return undefined;
  },
});

export const commands = { lock, leases };

import { resolve } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { connectionOf, type PawlClient } from "../connect.js";
import type { HeldLease } from "../grants/with-lease.js";
import { runUnder } from "../process/run-under.js";
import { command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { duration, plural } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { exitCodeOf, HOLD_OPTIONS, holdOptionsOf } from "./holding.js";
import { heldFor } from "./lease.js";

/** A wait that is longer than this is explained: the holder is named. */
const TELL_AFTER_MS = 300;

const lock = command({
  args: "<name..> -- command",
  patient: () => true,
  summary: "Run a command while holding a lease",
  options: {
    shared: { type: "flag", describe: "Together with any number of others that share it, as readers do" },
    slots: {
      type: "number",
      value: "NUMBER",
      describe: "How many of its slots to take, where a name has several (pawl lease set)",
      default: "1",
    },
    ...HOLD_OPTIONS,
  },
  details:
    "Several names are taken all or none. The command finds PAWL_FENCING_TOKEN in its environment, which is greater than that of every earlier holder: send it along with what is written. Of several names PAWL_LEASE and PAWL_FENCING_TOKEN have a line for each, in the order given. PAWL_MEMBER has the members of a pool that are the command's own, a line for each. It is ended (TERM, then KILL) when the lease is lost, and killed when pawl is. With --on-loss the daemon ends pawl, too, also one that is stopped or hangs, and grants the lease to nobody before all of that is gone. pawl exits with its exit code, or with 1 when the lease is held or lost.",
  examples: [
    ["pawl lock deploy -- ./deploy.sh", "One at a time on this machine; exits with 1 if another runs"],
    ["pawl lock deploy --wait 10m -- ./deploy.sh", "In turn, in the order they came"],
    ["pawl lock /srv/data --shared -- ./report.sh", "Beside other readers, never beside a writer"],
    ["pawl lock disk --on-loss TERM:10s -- ./backup.sh", "Nobody else before it has really ended"],
    ["pawl lock /srv/a /srv/b --wait 1m -- ./merge.sh", "Both directories, or neither"],
    [`pawl lock test-port -- sh -c './serve --port "$PAWL_MEMBER"'`, "A port of its own from a pool of them"],
    [
      `pawl lock db -- sh -c 'migrate --token "$PAWL_FENCING_TOKEN"'`,
      "A stale holder can be told by its token",
    ],
  ],
  async run(args, { connect, output }) {
    const { name: names, shared, slots, "--": program } = args;
    const exitCode = exitCodeOf(args["conflict-exit-code"]);
    const options = holdOptionsOf(args);
    const { ttlMs, waitMs, onLoss } = options;
    if (shared && slots !== undefined)
      throw new UsageError("Who shares a name takes no slots of it. Leave --slots out.");
    const client = await connect();
    const waiting =
      waitMs === 0 ? undefined : setTimeout(() => void tellWhom(client, names, output), TELL_AFTER_MS);
    const request = {
      ...(names.length === 1 ? { name: names[0] as string } : { names: [...names] }),
      ...(shared ? { mode: "shared" as const } : {}),
      ...(slots === undefined ? {} : { slots }),
    };
    try {
      const perform = (lease: HeldLease): Promise<number> => {
        clearTimeout(waiting);
        const { names: held, signal } = lease;
        const under = { ttlMs, connection: connectionOf(client), onLoss };
        return runUnder(signal, program, under, {
          PAWL_SOCKET: resolve(client.socketPath),
          PAWL_LEASE: held.map(({ name }) => name).join("\n"),
          PAWL_FENCING_TOKEN: held.map(({ fencingToken }) => fencingToken).join("\n"),
          // Not that of another pawl lock around this one.
          PAWL_MEMBER: held.flatMap(({ members }) => members).join("\n") || undefined,
        });
      };
      return await client.withLease(request, perform, options);
    } catch (error) {
      if (!(error instanceof PawlError)) throw error;
      if (error.kind === "would_deadlock") throw Object.assign(error, { exitCode });
      if (error.kind !== "lease_held") throw error;
      throw Object.assign(inWords(names, waitMs, error), { exitCode });
    } finally {
      clearTimeout(waiting);
    }
  },
});

/** The refusal with the option of this program that helps. */
function inWords(
  names: readonly string[],
  waitedMs: number,
  { details }: Extract<PawlError, { kind: "lease_held" }>,
): PawlError {
  const { holder, holders = [holder], name = names[0] as string } = details;
  const others = holders.length < 2 ? "" : ` and ${plural(holders.length - 1, "other")}`;
  const remaining = `for ${duration(holder.remainingMs)} more unless it is renewed`;
  const held =
    holders.length === 0
      ? "wanted by others who came before"
      : `held by ${holder.owner}${others}, ${remaining}`;
  return new PawlError(
    "lease_held",
    waitedMs === 0
      ? `${name} is ${held}. Wait for it with --wait, or see pawl leases.`
      : `${name} is still ${held}, after a wait of ${duration(waitedMs)}. See pawl leases.`,
    details,
  );
}

/** Says who holds the first of the names that is held. */
async function tellWhom(client: PawlClient, names: readonly string[], output: Output): Promise<void> {
  for (const name of names) {
    const { lease } = await client.lease.get({ name }).catch(() => ({ lease: null }));
    if (lease === null) continue;
    const pid = lease.pid === null ? "" : `, pid ${lease.pid}`;
    output.note(
      `Waiting for ${printable(name)}, which ${printable(lease.owner)}${pid} has held for ${heldFor(lease)}.`,
    );
    return;
  }
}

export const commands = { lock };

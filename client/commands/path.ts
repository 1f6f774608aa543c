import { existsSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import type { Result } from "@pawl/protocol/types";
import { connectionOf } from "../connect.js";
import type { HeldPaths } from "../grants/with-paths.js";
import { runUnder } from "../process/run-under.js";
import { command } from "../terminal/command.js";
import { duration, plural } from "../terminal/quantities.js";
import { isWatching, showListed, WATCH } from "../terminal/watch.js";
import { exitCodeOf, HOLD_OPTIONS, holdOptionsOf } from "./holding.js";
import { saidOfNone } from "./kept-elsewhere.js";
import { heldFor } from "./lease.js";

export const root = {
  type: "text",
  value: "DIR",
  describe: "The tree that the patterns are relative to",
  default: "the git work tree here",
} as const;

const reserve = command({
  args: "<pattern..> -- command",
  patient: () => true,
  summary: "Run a command while paths are reserved for it",
  options: {
    root,
    read: { type: "flag", describe: "Together with any number of others that read, and nobody who writes" },
    ...HOLD_OPTIONS,
  },
  details:
    "Patterns are text: quote them. Within a segment *, ? and [a-z]; ** for any number of segments; a final / for all that is below. Two reservations conflict when some path fits both and one of them writes. Without --root patterns are relative to the directory here, and the root is the git work tree that it is in, or the directory itself. The command finds PAWL_RESERVATION, PAWL_ROOT and PAWL_FENCING_TOKEN in its environment. It is ended (TERM, then KILL) when the reservation is lost, and killed when pawl is. With --on-loss the daemon ends pawl, too, also one that is stopped or hangs, and grants the paths to nobody before all of that is gone. pawl exits with its exit code, or with 1 when the paths are held by others or lost.",
  examples: [
    ["pawl reserve src/cart/ 'test/cart-*.ts' -- ./agent.sh", "All of them or none"],
    [
      "pawl reserve package.json package-lock.json --wait 5m -- npm install",
      "In turn, in the order they came",
    ],
    ["pawl reserve '**' --read -- ./backup.sh", "While nobody writes anything"],
  ],
  async run(args, { connect }) {
    const { pattern: patterns, read, "--": program } = args;
    const exitCode = exitCodeOf(args["conflict-exit-code"]);
    const options = holdOptionsOf(args);
    const { ttlMs, waitMs, onLoss } = options;
    const [tree, place] = placeOf(args.root);
    const request = {
      root: tree,
      patterns: patterns.map((pattern) => (place === "" ? pattern : `${place}/${pattern}`)),
      mode: read ? ("read" as const) : ("write" as const),
    };
    const client = await connect();
    const under = { ttlMs, connection: connectionOf(client), onLoss };
    const perform = ({ reservationId, fencingToken, signal }: HeldPaths): Promise<number> =>
      runUnder(signal, program, under, {
        PAWL_SOCKET: resolve(client.socketPath),
        PAWL_RESERVATION: reservationId,
        PAWL_ROOT: tree,
        PAWL_FENCING_TOKEN: String(fencingToken),
      });
    try {
      return await client.withPaths(request, perform, options);
    } catch (error) {
      if (!(error instanceof PawlError)) throw error;
      if (error.kind === "would_deadlock") throw Object.assign(error, { exitCode });
      if (error.kind !== "lease_held") throw error;
      throw Object.assign(inWords(waitMs, error), { exitCode });
    }
  },
});

/** The root, and the directory in it that patterns are relative to; empty for the root itself. */
export function placeOf(given: string | undefined): [root: string, place: string] {
  if (given !== undefined) return [resolve(given), ""];
  const here = process.cwd();
  for (let tree = here; ; tree = dirname(tree)) {
    if (existsSync(join(tree, ".git"))) return [tree, relative(tree, here)];
    if (dirname(tree) === tree) return [here, ""];
  }
}

/** The refusal with the option of this program that helps. */
function inWords(waitedMs: number, { details }: Extract<PawlError, { kind: "lease_held" }>): PawlError {
  const { holder, holders = [] } = details;
  const [first] = holders;
  const others = holders.length < 2 ? "" : ` and ${plural(holders.length - 1, "other")}`;
  const note = first?.note ? ` (${first.note})` : "";
  const held =
    first === undefined
      ? `wanted by ${holder.owner}, who came before`
      : `held by ${first.owner}${note} as ${first.pattern}${others}, for ${duration(first.remainingMs)} more unless it is renewed`;
  const after = waitedMs === 0 ? "" : `, after a wait of ${duration(waitedMs)}`;
  const help = waitedMs === 0 ? "Wait with --wait, or see" : "See";
  return new PawlError("lease_held", `Some of that is ${held}${after}. ${help} pawl paths.`, details);
}

type Reservation = Result<"path.list">["reservations"][number];

const paths = command({
  args: "",
  patient: isWatching,
  endsBySignal: true,
  summary: "List who has reserved which paths",
  options: {
    root: { type: "text", value: "DIR", describe: "Only of this tree", default: "of all" },
    owner: { type: "text", value: "TEXT", describe: "Only of this owner", default: "of all" },
    ...WATCH,
  },
  examples: [
    ["pawl paths", "A table of reservations, their holders and how long they still have"],
    ["pawl paths --root . --json | jq -r '.reservations[].patterns[]'", "All that is reserved here"],
  ],
  async run(args, { connect, output }) {
    const client = await connect();
    const filter = {
      ...(args.root === undefined ? {} : { root: resolve(args.root) }),
      ...(args.owner === undefined ? {} : { owner: args.owner }),
    };
    const read = async () => {
      const reservations: Reservation[] = [];
      let after: string | undefined;
      do {
        const page = await client.path.list({
          ...filter,
          ...(after === undefined ? {} : { after }),
          limit: 1000,
        });
        reservations.push(...page.reservations);
        after = page.next;
      } while (after !== undefined);
      const none =
        reservations.length === 0
          ? await saidOfNone("No paths are reserved.", "path", { client, output })
          : "";
      return () =>
        output.result({ reservations }, () => {
          if (reservations.length === 0) {
            output.note(none);
            return "";
          }
          return output.table(
            [
              { title: "ROOT", flexible: true },
              { title: "PATTERN", flexible: true },
              { title: "MODE" },
              { title: "OWNER", flexible: true },
              { title: "PID", align: "right" },
              { title: "TOKEN", align: "right" },
              { title: "HELD FOR", align: "right" },
              { title: "ENDS IN", align: "right" },
              { title: "NOTE", flexible: true },
            ],
            reservations.flatMap((each) =>
              each.patterns.map((pattern) => [
                each.root,
                pattern,
                each.mode,
                each.owner,
                each.pid === null ? "" : String(each.pid),
                String(each.fencingToken),
                heldFor(each),
                duration(each.remainingMs),
                each.note ?? "",
              ]),
            ),
          );
        });
    };
    const topic = filter.root === undefined ? "path:*" : `path:${filter.root}`;
    return await showListed(read, [topic], { watch: args.watch, client, output });
  },
});

export const commands = { reserve, paths };

import type { Result } from "@pawl/protocol/types";
import { command, UsageError } from "../terminal/command.js";
import { duration, plural } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";
import { isWatching, showListed, WATCH } from "../terminal/watch.js";
import { saidOfNone } from "./kept-elsewhere.js";

export type Holder = Result<"lease.list">["leases"][number];

/** How long a lease has been held, by the daemon's clock alone, which may differ from ours. */
export function heldFor({
  acquiredAt,
  expiresAt,
  remainingMs,
}: Pick<Holder, "acquiredAt" | "expiresAt" | "remainingMs">): string {
  return duration(Math.max(0, expiresAt - remainingMs - acquiredAt));
}

/** Separates the members of a pool on the command line. */
const COMMA = ",";

const leases = command({
  args: "[prefix]",
  patient: isWatching,
  endsBySignal: true,
  summary: "List who holds what",
  options: WATCH,
  examples: [
    ["pawl leases", "A table of names, their holders and how long they still have"],
    ["pawl leases /srv/", "Only of names that begin so"],
    [`pawl leases --json | jq '.leases[] | select(.waiters > 0)'`, "Those that somebody waits for"],
  ],
  async run({ prefix, watch }, { connect, output }) {
    const client = await connect();
    const of = prefix === undefined ? {} : { prefix };
    const read = async () => {
      const held: Holder[] = [];
      let after: string | undefined;
      do {
        const page = await client.lease.list({
          ...of,
          ...(after === undefined ? {} : { after }),
          limit: 1000,
        });
        held.push(...page.leases);
        after = page.next;
      } while (after !== undefined);
      const none =
        held.length === 0 ? await saidOfNone("No leases are held.", "lease", { client, output }) : "";
      return () =>
        output.result({ leases: held }, () => {
          if (held.length === 0) {
            output.note(none);
            return "";
          }
          const isMore = held.some((each) => heldAs(each) !== "");
          return output.table(
            [
              { title: "NAME", flexible: true },
              { title: "OWNER", flexible: true },
              { title: "PID", align: "right" },
              { title: "TOKEN", align: "right" },
              ...(isMore ? [{ title: "AS" }] : []),
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
              ...(isMore ? [heldAs(each)] : []),
              heldFor(each),
              duration(each.remainingMs),
              each.waiters === null || each.waiters === 0 ? "" : String(each.waiters),
              noteOf(each),
            ]),
          );
        });
    };
    return await showListed(read, [`lease:${prefix ?? ""}*`], { watch, client, output });
  },
});

/** The name of an agent's session, whose note is for programs. */
const OF_SESSION = /^session\//;

/** A note for people; of an agent's session its role, and where it works. */
function noteOf({ name, note }: Pick<Holder, "name" | "note">): string {
  if (note === null || !OF_SESSION.test(name)) return note ?? "";
  try {
    const { role, worktree } = JSON.parse(note) as { role?: unknown; worktree?: unknown };
    return [role, worktree].filter((each) => typeof each === "string" && each !== "").join(" in ");
  } catch {
    return note;
  }
}

/** How a name is held: shared, by which members of a pool, by how many slots; nothing for one alone. */
function heldAs({ mode, slots, members }: Holder): string {
  if (mode === "shared") return mode;
  return members === undefined ? (slots === undefined ? "" : `${slots} slots`) : members.join(COMMA);
}

const lease = command({
  args: "<set|show> <name>",
  summary: "Say how many may hold a lease at a time",
  options: {
    slots: { type: "number", value: "NUMBER", describe: "So many may hold it; 1 is as for every other name" },
    members: {
      type: "text",
      value: "A,B",
      describe: "A pool: one may hold each of these, and is told which",
    },
  },
  details:
    "A holder keeps what it has, also where there are fewer slots afterwards. show prints what a name has, and who holds it.",
  words: { "set|show": ["set", "show"] },
  examples: [
    ["pawl lease set gpu --slots 4", "Four at a time, or one that takes --slots 4"],
    ["pawl lease set test-port --members 4001,4002,4003", "Each holder finds its port in PAWL_MEMBER"],
    ["pawl lease show gpu", "How many slots there are, and how many are free"],
  ],
  async run(args, { connect, output }) {
    const { "set|show": action, name, slots, members } = args;
    const pool = members?.split(COMMA);
    const given = [slots, pool].filter((each) => each !== undefined).length;
    if (action !== "set" && action !== "show") {
      throw new UsageError(`What to do is set or show, not ${JSON.stringify(action)}.`);
    }
    if (action === "set" && given !== 1) {
      throw new UsageError("Give either --slots or --members; each member is a slot.");
    }
    if (action === "show" && given > 0) {
      throw new UsageError("show changes nothing. Use set with these options.");
    }
    const client = await connect();
    if (action === "set") {
      const how = pool === undefined ? { slots: slots as number } : { members: pool };
      const configured = await client.lease.configure({ name, ...how });
      output.result(configured, () => printable(`${has(name, configured.slots)}.`));
      return undefined;
    }
    const found = await client.lease.get({ name });
    output.result(found, () => {
      const holders = found.holders.map(
        (each) => `${each.owner}${asOf(each)} has ${duration(each.remainingMs)} left`,
      );
      return [`${has(name, found.slots)}, ${found.free} free.`, ...holders.map((each) => `${each}.`)].map(
        printable,
      );
    });
    return undefined;
  },
});

function has(name: string, slots: number): string {
  return `${name} has ${plural(slots, "slot")}`;
}

function asOf(holder: Holder): string {
  const as = heldAs(holder);
  return as === "" ? "" : ` (${as})`;
}

export const commands = { leases, lease };

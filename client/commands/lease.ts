import type { Result } from "@pawl/protocol/types";
import { command } from "../terminal/command.js";
import { duration } from "../terminal/quantities.js";

export type Holder = Result<"lease.list">["leases"][number];

/** How long a lease has been held, by the daemon's clock alone, which may differ from ours. */
export function heldFor({ acquiredAt, expiresAt, remainingMs }: Holder): string {
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

export const commands = { leases };

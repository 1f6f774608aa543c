import type { Event } from "@pawl/protocol/types";
import type { Gap } from "../connection/events.js";
import { command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { when } from "../terminal/quantities.js";
import { printable } from "../terminal/text.js";

const events = command({
  args: "[topic..]",
  patient: () => true,
  endsBySignal: true,
  summary: "Follow what happens",
  options: {
    since: { type: "text", value: "CURSOR", describe: "Begin behind this cursor instead of now" },
  },
  details:
    'A topic is queue:NAME, lease:NAME, path:ROOT, command:DEPLOYMENT, schedule:NAME, item:ID, sequence:TYPE or daemon. The name may end in *, and * alone, which is the default, is everything. Where events may be missing, as after a restart of the daemon, a line says so. With --json each event is an object in a line, and a gap is {"kind":"gap"}.',
  examples: [
    ["pawl events", "Everything, as it happens"],
    ["pawl events 'queue:mail' 'lease:deploy/*'", "One queue, and the leases under a name"],
    ["pawl events --json 'queue:*' | jq -r 'select(.kind == \"dead\") | .id'", "Batches that died"],
  ],
  async run({ topic, since }, { connect, output }) {
    const client = await connect();
    const topics = topic.length === 0 ? ["*"] : topic;
    if (output.isWatched && output.isScreen) {
      const what = topic.length === 0 ? "everything" : printable(topic.join(", "));
      output.note(`Following ${what}. Ctrl-C ends it.`);
    }
    for await (const event of client.events(topics, since === undefined ? {} : { since })) {
      if (output.closed) break;
      output.result(event, () => line(event, output));
    }
    return undefined;
  },
});

const GOOD = new Set(["completed", "acquired", "answered", "resumed", "finished"]);
const BAD = new Set(["failed", "dead", "lost", "expired", "broken", "full", "contested"]);

function line(event: Event | Gap, { styled }: Output): string {
  if (!("topic" in event)) return styled("yellow", "events may be missing here");
  const { at, topic, kind, id, by, fencingToken, from, to, reason } = event;
  const shownKind = BAD.has(kind) ? styled("red", kind) : GOOD.has(kind) ? styled("green", kind) : kind;
  const name = topic.slice(topic.indexOf(":") + 1);
  const rest = [
    id === name ? "" : id,
    from === undefined ? "" : `from ${from}`,
    to === undefined ? "" : `to ${to}`,
    by === undefined ? "" : `by ${by}`,
    fencingToken === undefined ? "" : `token ${fencingToken}`,
    reason === undefined ? "" : `(${reason})`,
  ];
  const said = rest.filter((part) => part !== "").map(printable);
  return [styled("dim", when(at)), styled("bold", printable(topic)), shownKind, ...said].join("  ");
}

export const commands = { events };

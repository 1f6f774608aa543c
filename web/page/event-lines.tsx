import { Badge, type Tone } from "./parts.js";
import { to } from "./route.js";
import type { HappenedEvent } from "./server.js";
import { clockTime, exactTime, shortId } from "./wording.js";

const GOOD = new Set(["completed", "acquired", "answered", "resumed", "finished"]);
const BAD = new Set(["failed", "dead", "lost", "expired", "broken", "full", "contested"]);

function toneOf(kind: string): Tone {
  return BAD.has(kind) ? "bad" : GOOD.has(kind) ? "good" : "quiet";
}

/** The section of a page with what has happened to its thing since it is followed. */
export function Happened({ events }: { events: readonly HappenedEvent[] }) {
  return (
    <section>
      <h2>What happened, of late</h2>
      {events.length === 0 ? (
        <p class="faint">Nothing since this page follows.</p>
      ) : (
        <EventLines of={events} />
      )}
    </section>
  );
}

/** Events, one a line, each with the way to what it is about. */
export function EventLines({ of }: { of: readonly HappenedEvent[] }) {
  return (
    <ol class="events">
      {of.map((event) => {
        const { cursor, at, topic, kind, id, by, from, to: next, reason } = event;
        const name = topic.slice(topic.indexOf(":") + 1);
        const rest = [
          from === undefined ? "" : `from ${from}`,
          next === undefined ? "" : `to ${next}`,
          by === undefined ? "" : `by ${by}`,
          reason === undefined ? "" : `(${reason})`,
        ];
        return (
          <li key={cursor}>
            <time dateTime={new Date(at).toISOString()} title={exactTime(at)}>
              {clockTime(at)}
            </time>
            <Badge tone={toneOf(kind)}>{kind}</Badge>
            <a href={hrefOf(event)}>{topic}</a>
            <span class="faint" title={id}>
              {[id === name ? "" : shortId(id), ...rest].filter((part) => part !== "").join("  ")}
            </span>
          </li>
        );
      })}
    </ol>
  );
}

function hrefOf({ topic, id }: HappenedEvent): string {
  const [noun = ""] = topic.split(":", 1);
  const name = topic.slice(noun.length + 1);
  switch (noun) {
    case "queue":
      return id === name ? to("queues", name) : to("batches", id);
    case "lease":
      return to("leases", name);
    case "path":
      return to("paths");
    case "command":
      return id === name ? to("commands", name) : to("command", id);
    case "schedule":
      return to("schedules");
    case "item":
      return to("board", name);
    case "sequence":
      return to("sequences");
    default:
      return to("daemon");
  }
}

import { useState } from "preact/hooks";
import { allRows, ROWS_PER_CALL } from "./all-pages.js";
import { EventLines } from "./event-lines.js";
import { Answer, Badge, CommandLine, Empty, Facts, Filter, Heading, Table, usePages } from "./parts.js";
import { call, events, type HappenedEvent, useAsked, useLive } from "./server.js";
import { bytes, count, duration, exactTime, plural } from "./wording.js";

const ROWS_PER_PAGE = 100;

async function allSequences(): Promise<[type: string, last: number][]> {
  return await allRows(
    (place: { after?: string }) => call("sequence.state", { limit: ROWS_PER_CALL, ...place }),
    ({ sequences }) => Object.entries(sequences),
  );
}

export function Sequences() {
  const asked = useAsked("sequences", ["sequence:"], allSequences);
  return (
    <>
      <Heading title="Sequences" />
      <Answer of={asked}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty title="No number was taken yet">
              <p>The first one:</p>
              <CommandLine>pawl next FR</CommandLine>
            </Empty>
          ) : (
            <SequenceTable rows={rows} />
          )
        }
      </Answer>
    </>
  );
}

function SequenceTable({ rows }: { rows: readonly (readonly [string, number])[] }) {
  const [text, setText] = useState("");
  const fitting = rows.filter(([type]) => type.toLowerCase().includes(text.toLowerCase()));
  const [shown, more] = usePages(fitting, ROWS_PER_PAGE);
  return (
    <>
      <div class="tools">
        <Filter label="Filter by type" value={text} onInput={setText} />
        <span class="faint">{plural(fitting.length, "type")}</span>
      </div>
      <Table
        label="Sequences"
        rows={shown}
        keyOf={([type]) => type}
        columns={[
          { title: "Type", cell: ([type]) => <b class="name">{type}</b> },
          { title: "Last number", right: true, cell: ([, last]) => count(last) },
        ]}
      />
      {more}
    </>
  );
}

export function Events() {
  const all = useLive(events);
  const [text, setText] = useState("");
  const [held, setHeld] = useState<readonly HappenedEvent[]>();
  const wanted = text.toLowerCase();
  const fitting = (held ?? all).filter(({ topic, kind, id, by }) =>
    [topic, kind, id, by ?? ""].some((each) => each.toLowerCase().includes(wanted)),
  );
  return (
    <>
      <Heading title="Events">
        <button
          type="button"
          aria-pressed={held !== undefined}
          onClick={() => setHeld(held === undefined ? all : undefined)}
        >
          {held === undefined ? "Hold" : `Go on (${count(newerThan(all, held))} more)`}
        </button>
      </Heading>
      {all.length === 0 ? (
        <Empty title="Nothing has happened since this page is open">
          <p>Events stand here as they happen, also those of</p>
          <CommandLine>pawl next FR</CommandLine>
        </Empty>
      ) : (
        <>
          <div class="tools">
            <Filter label="Filter by topic, kind or id" value={text} onInput={setText} />
            <span class="faint">The last {count(fitting.length)}, the newest first.</span>
          </div>
          <EventLines of={fitting} />
        </>
      )}
    </>
  );
}

function newerThan(all: readonly HappenedEvent[], held: readonly HappenedEvent[]): number {
  const [newest] = held;
  const place = all.findIndex(({ cursor }) => cursor === newest?.cursor);
  return place < 0 ? all.length : place;
}

export function Daemon() {
  const asked = useAsked("daemon", ["daemon"], async () => {
    const [info, stats] = await Promise.all([call("daemon.info", {}), call("daemon.stats", {})]);
    return { info, stats };
  });
  return (
    <>
      <Heading title="Daemon">
        <button type="button" onClick={asked.again}>
          Look again
        </button>
      </Heading>
      <Answer of={asked}>
        {({ info, stats }) => (
          <>
            <Facts
              of={[
                ["Version", info.version],
                ["Instance", `${info.instance}, pid ${info.pid}`],
                ["Started", exactTime(info.startedAt)],
                ["Up for", duration(stats.uptimeMs)],
                [
                  "Mode",
                  info.mode.kind === "distributed" ? `distributed, node ${info.mode.nodeId}` : "centralized",
                ],
                ["Memory", bytes(stats.memoryBytes)],
                [
                  "Connections",
                  `${count(stats.connections.open)} open, ${plural(stats.connections.waiting, "call")} waiting`,
                ],
                ["Database", `${bytes(stats.database.bytes)}, and ${bytes(stats.database.walBytes)} of log`],
                ["", <span class="mono">{info.database.path}</span>],
                [
                  "Commit",
                  `median ${duration(stats.commitMs.p50)}, p99 ${duration(stats.commitMs.p99)}, most ${duration(stats.commitMs.max)}`,
                ],
                [
                  "Turns",
                  `${count(stats.turns.committed)} committed, ${count(stats.turns.rolledBack)} rolled back`,
                ],
                ...info.sockets.map(
                  ({ path, readOnly }) =>
                    [
                      "Socket",
                      <>
                        <span class="mono">{path}</span>{" "}
                        {readOnly ? <Badge tone="quiet">reads only</Badge> : null}
                      </>,
                    ] as const,
                ),
              ]}
            />
            <section>
              <h2>Calls</h2>
              <Table
                label="Calls by method"
                rows={Object.entries(stats.requests).sort(([, a], [, b]) => b - a)}
                keyOf={([method]) => method}
                columns={[
                  { title: "Method", cell: ([method]) => <span class="mono">{method}</span> },
                  { title: "Calls", right: true, cell: ([, calls]) => count(calls) },
                  {
                    title: "Refused",
                    right: true,
                    cell: ([method]) =>
                      Object.entries(stats.errors[method] ?? {})
                        .map(([kind, number]) => `${count(number)} ${kind}`)
                        .join(", "),
                  },
                ]}
              />
            </section>
          </>
        )}
      </Answer>
    </>
  );
}

import type { Result } from "@pawl/protocol/types";
import { useState } from "preact/hooks";
import { allRows, ROWS_PER_CALL } from "./all-pages.js";
import { Happened } from "./event-lines.js";
import { Graph } from "./graph.js";
import {
  Act,
  Ago,
  Answer,
  ask,
  Badge,
  CommandLine,
  Empty,
  Facts,
  Filter,
  Heading,
  Table,
  usePages,
} from "./parts.js";
import { to } from "./route.js";
import { call, events, useAsked, useLive } from "./server.js";
import { count, plural } from "./wording.js";

type Lease = Result<"lease.list">["leases"][number];
type Reservation = Result<"path.list">["reservations"][number];

const ROWS_PER_PAGE = 100;
/** Callers that are drawn one by one; of more the number says it. */
const MOST_DRAWN = 12;

async function allLeases(): Promise<Lease[]> {
  return await allRows(
    (place: { after?: string }) => call("lease.list", { limit: ROWS_PER_CALL, ...place }),
    ({ leases }) => leases,
  );
}

export function Leases() {
  const asked = useAsked("leases", ["lease:"], allLeases);
  return (
    <>
      <Heading title="Leases" />
      <Answer of={asked}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty title="No lease is held">
              <p>A lease is held while a command runs:</p>
              <CommandLine>pawl lock deploy -- ./deploy.sh</CommandLine>
            </Empty>
          ) : (
            <LeaseTable rows={rows} />
          )
        }
      </Answer>
      <Graph />
    </>
  );
}

function LeaseTable({ rows }: { rows: readonly Lease[] }) {
  const [text, setText] = useState("");
  const wanted = text.toLowerCase();
  const fitting = rows
    .filter(({ name, owner }) => name.toLowerCase().includes(wanted) || owner.toLowerCase().includes(wanted))
    .sort((a, b) => (b.waiters ?? 0) - (a.waiters ?? 0) || (a.name < b.name ? -1 : 1));
  const [shown, more] = usePages(fitting, ROWS_PER_PAGE);
  return (
    <>
      <div class="tools">
        <Filter label="Filter by name or owner" value={text} onInput={setText} />
        <span class="faint">{plural(fitting.length, "holder")}</span>
      </div>
      <Table
        label="Leases"
        rows={shown}
        keyOf={({ name, fencingToken }) => `${name} ${fencingToken}`}
        columns={[
          {
            title: "Name",
            cell: ({ name, mode, slots }) => (
              <>
                <a class="name" href={to("leases", name)}>
                  {name}
                </a>{" "}
                {mode === "shared" ? <Badge tone="quiet">shared</Badge> : null}
                {slots !== undefined && slots > 1 ? (
                  <Badge tone="quiet">{plural(slots, "slot")}</Badge>
                ) : null}
              </>
            ),
          },
          { title: "Held by", cell: ({ owner }) => owner },
          { title: "Waiting", cell: ({ waiters }) => <Waiters number={waiters ?? 0} /> },
          { title: "Since", cell: ({ acquiredAt }) => <Ago at={acquiredAt} /> },
          { title: "Ends", wide: true, cell: ({ expiresAt }) => <Ago at={expiresAt} /> },
          { title: "Note", wide: true, cell: ({ note }) => note },
          { title: "Actions", right: true, cell: (lease) => <Break lease={lease} /> },
        ]}
      />
      {more}
    </>
  );
}

/** Those who wait, as a line of people behind a door. */
function Waiters({ number }: { number: number }) {
  if (number === 0) return <span class="faint">nobody</span>;
  return (
    <span class="waiters">
      <span class="dots" aria-hidden="true">
        {Array.from({ length: Math.min(number, MOST_DRAWN) }, (_, index) => (
          <i key={String(index)} />
        ))}
      </span>{" "}
      {count(number)}
    </span>
  );
}

function Break({ lease: { name, owner, fencingToken, waiters } }: { lease: Lease }) {
  return (
    <Act
      label="Break"
      name={`Break ${name}, held by ${owner}`}
      tone="danger"
      onClick={() =>
        ask({
          title: `Break ${name}, which ${owner} holds?`,
          consequence: `${owner} is told that it is lost, but may go on for a moment: only what checks the token ${fencingToken} refuses it then. ${waiters ? `${plural(waiters, "caller")} ${waiters === 1 ? "waits" : "wait"}, and the first is granted it at once.` : "Nobody waits for it."}`,
          confirm: "Break the lease",
          tone: "danger",
          text: { label: "Reason, which the holder is told", required: true },
          async act(reason) {
            const { broken } = await call("lease.break", { name, fencingToken, reason });
            return broken ? `${name} is broken.` : `${name} had ended by itself.`;
          },
        })
      }
    />
  );
}

export function LeasePage({ name }: { name: string }) {
  const asked = useAsked(`lease ${name}`, [`lease:${name}`], () => call("lease.get", { name }));
  const happened = useLive(events).filter(({ topic }) => topic === `lease:${name}`);
  return (
    <>
      <Heading title={name} above={{ label: "Leases", href: to("leases") }} />
      <Answer of={asked}>
        {({ holders, slots, free }) => (
          <>
            <Facts
              of={[
                ["Slots", count(slots)],
                ["Free", count(free)],
                ["Waiting", <Waiters number={holders[0]?.waiters ?? 0} />],
              ]}
            />
            {holders.length === 0 ? (
              <Empty title="Nobody holds it" />
            ) : (
              <Table
                label="Holders"
                rows={holders}
                keyOf={({ fencingToken }) => String(fencingToken)}
                columns={[
                  { title: "Held by", cell: ({ owner }) => owner },
                  { title: "Token", right: true, cell: ({ fencingToken }) => String(fencingToken) },
                  { title: "Process", right: true, cell: ({ pid }) => pid ?? <span class="faint">–</span> },
                  { title: "Since", cell: ({ acquiredAt }) => <Ago at={acquiredAt} /> },
                  { title: "Ends", cell: ({ expiresAt }) => <Ago at={expiresAt} /> },
                  { title: "Note", cell: ({ note }) => note },
                  { title: "Actions", right: true, cell: (lease) => <Break lease={lease} /> },
                ]}
              />
            )}
            <Happened events={happened} />
          </>
        )}
      </Answer>
    </>
  );
}

async function allReservations(): Promise<Reservation[]> {
  return await allRows(
    (place: { after?: string }) => call("path.list", { limit: ROWS_PER_CALL, ...place }),
    ({ reservations }) => reservations,
  );
}

export function Paths() {
  const asked = useAsked("paths", ["path:"], allReservations);
  return (
    <>
      <Heading title="Paths" />
      <Answer of={asked}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty title="No path is reserved">
              <p>Files are reserved by patterns while a command runs:</p>
              <CommandLine>pawl reserve 'src/cart/' 'test/cart-*.ts' -- ./edit.sh</CommandLine>
            </Empty>
          ) : (
            <PathTable rows={rows} />
          )
        }
      </Answer>
      <Graph />
    </>
  );
}

function PathTable({ rows }: { rows: readonly Reservation[] }) {
  const [text, setText] = useState("");
  const wanted = text.toLowerCase();
  const fitting = rows.filter(({ root, owner, patterns }) =>
    [root, owner, ...patterns].some((each) => each.toLowerCase().includes(wanted)),
  );
  const [shown, more] = usePages(fitting, ROWS_PER_PAGE);
  return (
    <>
      <div class="tools">
        <Filter label="Filter by path or owner" value={text} onInput={setText} />
        <span class="faint">{plural(fitting.length, "reservation")}</span>
      </div>
      <Table
        label="Reservations"
        rows={shown}
        keyOf={({ fencingToken, root }) => `${fencingToken} ${root}`}
        columns={[
          {
            title: "Patterns",
            cell: ({ patterns }) => (
              <ul class="patterns mono">
                {patterns.map((pattern) => (
                  <li key={pattern}>{pattern}</li>
                ))}
              </ul>
            ),
          },
          { title: "Below", cell: ({ root }) => <span class="mono">{root}</span> },
          {
            title: "For",
            cell: ({ mode }) => <Badge tone={mode === "write" ? "busy" : "quiet"}>{mode}</Badge>,
          },
          { title: "Held by", cell: ({ owner, pid }) => (pid === null ? owner : `${owner}, pid ${pid}`) },
          { title: "Since", wide: true, cell: ({ acquiredAt }) => <Ago at={acquiredAt} /> },
          { title: "Ends", cell: ({ expiresAt }) => <Ago at={expiresAt} /> },
          { title: "Note", wide: true, cell: ({ note }) => note },
        ]}
      />
      {more}
      <p class="faint">
        A reservation ends when its holder gives it back, or stops renewing it. Nobody else can take it away.
      </p>
    </>
  );
}

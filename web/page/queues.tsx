import type { Result } from "@pawl/protocol/types";
import { useState } from "preact/hooks";
import { allQueues, rowsOfPages } from "./all-pages.js";
import type { QueueRow } from "./health.js";
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
  Id,
  perform,
  Table,
  toneOf,
  usePages,
} from "./parts.js";
import { to } from "./route.js";
import { call, useAsked } from "./server.js";
import { count, duration, plural, shortId } from "./wording.js";

type Batch = Result<"queue.get">["batch"];
type BatchState = Batch["state"];

const BATCH_STATES = [
  "ready",
  "scheduled",
  "blocked",
  "claimed",
  "dead",
  "completed",
  "cancelled",
  "expired",
] as const satisfies readonly BatchState[];

const QUEUES_PER_PAGE = 100;
const BATCHES_PER_PAGE = 50;

export function Queues() {
  const asked = useAsked("queues", ["queue:"], allQueues);
  return (
    <>
      <Heading title="Queues" />
      <Answer of={asked}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty title="There is no queue yet">
              <p>A queue is there from its first batch on:</p>
              <CommandLine>{'pawl enqueue mail \'{"to":"ada@example.org"}\''}</CommandLine>
            </Empty>
          ) : (
            <QueueTable rows={rows} />
          )
        }
      </Answer>
    </>
  );
}

const ORDERS = {
  "Worst first": (a: QueueRow, b: QueueRow) =>
    b.dead - a.dead ||
    Number(b.paused) - Number(a.paused) ||
    (b.oldestReadyMs ?? 0) - (a.oldestReadyMs ?? 0) ||
    compare(a.queue, b.queue),
  Largest: (a: QueueRow, b: QueueRow) =>
    b.ready + b.scheduled - a.ready - a.scheduled || compare(a.queue, b.queue),
  "By name": (a: QueueRow, b: QueueRow) => compare(a.queue, b.queue),
} as const;

function compare(a: string, b: string): number {
  return a < b ? -1 : 1;
}

function QueueTable({ rows }: { rows: readonly QueueRow[] }) {
  const [text, setText] = useState("");
  const [order, setOrder] = useState<keyof typeof ORDERS>("Worst first");
  const fitting = rows
    .filter(({ queue }) => queue.toLowerCase().includes(text.toLowerCase()))
    .sort(ORDERS[order]);
  const [shown, more] = usePages(fitting, QUEUES_PER_PAGE);
  const number =
    (state: BatchState) =>
    ({ [state]: value, queue }: QueueRow) =>
      value === 0 ? (
        <span class="faint">0</span>
      ) : (
        <a
          class={state === "dead" ? "dead" : ""}
          href={to("queues", queue, state)}
          aria-label={`${value} ${state} in ${queue}`}
        >
          {count(value)}
        </a>
      );
  return (
    <>
      <div class="tools">
        <Filter label="Filter queues" value={text} onInput={setText} />
        <label class="inline">
          Order{" "}
          <select
            value={order}
            onChange={(event) => setOrder(event.currentTarget.value as keyof typeof ORDERS)}
          >
            {Object.keys(ORDERS).map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
        <span class="faint">
          {fitting.length === rows.length
            ? plural(rows.length, "queue")
            : `${count(fitting.length)} of ${plural(rows.length, "queue")}`}
        </span>
      </div>
      <Table
        label="Queues"
        rows={shown}
        keyOf={({ queue }) => queue}
        columns={[
          {
            title: "Queue",
            cell: ({ queue, paused }) => (
              <>
                <a class="name" href={to("queues", queue)}>
                  {queue}
                </a>{" "}
                {paused ? <Badge tone="warn">paused</Badge> : null}
              </>
            ),
          },
          { title: "Ready", right: true, cell: number("ready") },
          { title: "In work", right: true, cell: number("claimed") },
          { title: "Dead", right: true, cell: number("dead") },
          { title: "Scheduled", right: true, wide: true, cell: number("scheduled") },
          { title: "Blocked", right: true, wide: true, cell: number("blocked") },
          { title: "Completed", right: true, wide: true, cell: number("completed") },
          {
            title: "Oldest waits",
            right: true,
            wide: true,
            cell: ({ oldestReadyMs }) =>
              oldestReadyMs === null ? <span class="faint">–</span> : duration(oldestReadyMs),
          },
          {
            title: "Actions",
            right: true,
            cell: (row) => <QueueActions row={row} />,
          },
        ]}
      />
      {fitting.length === 0 ? <Empty title={`No queue has ${JSON.stringify(text)} in its name`} /> : null}
      {more}
    </>
  );
}

function QueueActions({ row: { queue, paused, dead, claimed } }: { row: QueueRow }) {
  return (
    <span class="actions">
      {dead === 0 ? null : (
        <Act label="Retry dead" name={`Retry dead of ${queue}`} onClick={() => askRetry(queue, dead)} />
      )}
      {paused ? (
        <Act label="Resume" name={`Resume ${queue}`} onClick={() => void perform(() => resume(queue))} />
      ) : (
        <Act label="Pause" name={`Pause ${queue}`} onClick={() => askPause(queue, claimed)} />
      )}
    </span>
  );
}

async function resume(queue: string): Promise<string> {
  await call("queue.configure", { queue, paused: false });
  return `${queue} is resumed.`;
}

function askPause(queue: string, claimed: number): void {
  ask({
    title: `Pause ${queue}?`,
    consequence: `Nothing of it is claimed until it is resumed. ${claimed === 0 ? "Nothing is in work now." : `${plural(claimed, "batch")} in work now ${claimed === 1 ? "goes" : "go"} on.`} Batches can still be enqueued.`,
    confirm: "Pause",
    text: { label: "Reason, for those who wonder (may be empty)" },
    async act(reason) {
      await call("queue.configure", { queue, paused: true, ...(reason === "" ? {} : { reason }) });
      return `${queue} is paused.`;
    },
  });
}

function askRetry(queue: string, dead: number): void {
  ask({
    title: `Retry ${plural(dead, "dead batch")} of ${queue}?`,
    consequence:
      "Each can be claimed again at once, with all its attempts. If what made it fail is still there, it fails again.",
    confirm: "Retry",
    async act() {
      let all = 0;
      for (;;) {
        const { retried, more } = await call("queue.retry", { queue });
        all += retried;
        if (!more) return `${plural(all, "batch")} of ${queue} can be claimed again.`;
      }
    },
  });
}

const PURGED: readonly string[] = ["dead", "completed", "cancelled", "expired"];

function askPurge(
  queue: string,
  state: "dead" | "completed" | "cancelled" | "expired",
  number: number,
): void {
  ask({
    title: `Remove ${plural(number, `${state} batch`)} of ${queue} for good?`,
    consequence: `Their payloads and results are gone, and nothing brings them back.`,
    confirm: "Remove",
    tone: "danger",
    async act() {
      let all = 0;
      for (;;) {
        const { purged, more } = await call("queue.purge", { queue, states: [state] });
        all += purged;
        if (!more) return `${plural(all, "batch")} of ${queue} removed.`;
      }
    },
  });
}

interface KnownQueue {
  readonly row: QueueRow;
  readonly settings: Result<"queue.settings">["settings"];
  readonly explained: Result<"queue.explain">;
}

const NO_BATCHES = {
  ready: 0,
  scheduled: 0,
  blocked: 0,
  claimed: 0,
  completed: 0,
  dead: 0,
  cancelled: 0,
  expired: 0,
  paused: false,
  oldestReadyMs: null,
} as const;

async function askQueue(queue: string): Promise<KnownQueue> {
  const [{ queues }, { settings }, explained] = await Promise.all([
    call("queue.stats", { queue }),
    call("queue.settings", { queue }),
    call("queue.explain", { queue }),
  ]);
  return { row: queues[0] ?? { queue, ...NO_BATCHES }, settings, explained };
}

export function Queue({ queue, state }: { queue: string; state: string | undefined }) {
  const asked = useAsked(`queue ${queue}`, [`queue:${queue}`], () => askQueue(queue));
  const row = asked.data?.row;
  const chosen =
    BATCH_STATES.find((each) => each === state) ??
    BATCH_STATES.find((each) => (row?.[each] ?? 0) > 0) ??
    "ready";
  return (
    <>
      <Heading title={queue} above={{ label: "Queues", href: to("queues") }}>
        {row === undefined ? null : <QueueActions row={row} />}
      </Heading>
      <Answer of={asked}>
        {(known) => (
          <>
            <p class={`sentence ${known.explained.claimable ? "" : "warn"}`}>{whyNothing(known)}</p>
            <nav class="tabs" aria-label="States">
              {BATCH_STATES.map((each) => (
                <a
                  key={each}
                  class={known.row[each] > 0 ? toneOf(each) : ""}
                  href={to("queues", queue, each)}
                  aria-current={each === chosen ? "page" : undefined}
                >
                  {each} <b>{count(known.row[each])}</b>
                </a>
              ))}
            </nav>
            <Batches key={chosen} queue={queue} state={chosen} row={known.row} />
            <Settings of={known.settings} />
          </>
        )}
      </Answer>
    </>
  );
}

/** Why the next claim gets something, or nothing. */
function whyNothing({ row, settings, explained }: KnownQueue): string {
  const { reason, until, key } = explained;
  const end = until === null || until === undefined ? "" : ` until ${new Date(until).toLocaleTimeString()}`;
  const said = settings.reason === null ? "" : `: ${settings.reason}`;
  switch (reason) {
    case "ready":
      return "Whoever claims next gets a batch at once.";
    case "paused":
      return `It is paused${end}${said}.`;
    case "throttled":
      return `It is throttled${end}${settings.throttledReason === null ? "" : `: ${settings.throttledReason}`}.`;
    case "full":
      return `As many batches are in work as may be: ${settings.maxClaimed}.`;
    case "rate":
      return `Its rate is used up${end}.`;
    case "key_full":
      return `All that waits has the key ${key ?? ""}, of which as many are in work as may be.`;
    case "strict":
      return "What waits has to wait for an earlier batch of its key.";
    case "scheduled":
      return `The first batch can be claimed later${end}.`;
    case "blocked":
      return "What waits is blocked: it waits for other batches.";
    case "claimed":
      return "All batches are in work.";
    case "empty":
      return row.completed > 0 ? "Nothing waits: all is done." : "Nothing waits.";
    default:
      return `Nothing can be claimed now: ${reason}.`;
  }
}

function Batches({ queue, state, row }: { queue: string; state: BatchState; row: QueueRow }) {
  const [pages, setPages] = useState(1);
  const asked = useAsked(`batches ${queue} ${state} ${pages}`, [`queue:${queue}`], async () => {
    const { rows, more } = await rowsOfPages(
      pages,
      (place: { after?: number }) => call("queue.list", { queue, state, limit: BATCHES_PER_PAGE, ...place }),
      ({ batches }) => batches,
    );
    return { batches: rows, more };
  });
  return (
    <Answer of={asked}>
      {({ batches, more }) => (
        <>
          {PURGED.includes(state) && batches.length > 0 ? (
            <div class="tools">
              <Act
                label={`Remove all ${state}`}
                tone="danger"
                onClick={() => askPurge(queue, state as "dead", row[state])}
              />
            </div>
          ) : null}
          {batches.length === 0 ? (
            <Empty title={`No batch of ${queue} is ${state}`} />
          ) : (
            <Table
              label={`Batches that are ${state}`}
              rows={batches}
              keyOf={({ batchId }) => batchId}
              columns={[
                {
                  title: "Batch",
                  cell: ({ batchId }) => <Id of={batchId} href={to("batches", batchId)} />,
                },
                {
                  title: "Payload",
                  cell: ({ payloads }) => <span class="payload">{glimpse(payloads)}</span>,
                },
                { title: "Enqueued", cell: ({ enqueuedAt }) => <Ago at={enqueuedAt} /> },
                {
                  title: "Attempt",
                  right: true,
                  wide: true,
                  cell: ({ attempt, maxAttempts }) => `${attempt} of ${maxAttempts}`,
                },
                { title: "About it", cell: (batch) => <AboutBatch batch={batch} /> },
                { title: "Actions", right: true, cell: (batch) => <BatchActions batch={batch} /> },
              ]}
            />
          )}
          {more ? (
            <p class="more">
              <button type="button" onClick={() => setPages(pages + 1)}>
                Show {BATCHES_PER_PAGE} more of {count(Math.max(row[state] - batches.length, 0))}
              </button>
            </p>
          ) : null}
        </>
      )}
    </Answer>
  );
}

const GLIMPSE_CHARACTERS = 120;

/** The first payload in short, and how many more there are. */
function glimpse(payloads: readonly unknown[]): string {
  const text = JSON.stringify(payloads[0]) ?? "";
  const short = text.length > GLIMPSE_CHARACTERS ? `${text.slice(0, GLIMPSE_CHARACTERS)}…` : text;
  return payloads.length > 1 ? `${short}  +${payloads.length - 1}` : short;
}

function AboutBatch({ batch: { state, claim, lastError, availableAt, progress, after } }: { batch: Batch }) {
  if (claim !== undefined) {
    return (
      <>
        {claim.owner}
        {progress?.percent === undefined ? null : (
          <progress value={progress.percent} max={100} aria-label="Progress">
            {progress.percent} %
          </progress>
        )}
      </>
    );
  }
  if (state === "scheduled") return <Ago at={availableAt} />;
  if (state === "blocked") return <>waits for {plural(after?.length ?? 0, "batch")}</>;
  if (lastError !== undefined) return <span class="error-text">{lastError}</span>;
  return null;
}

export function BatchActions({ batch }: { batch: Batch }) {
  const { batchId, state, queue } = batch;
  const waits = state === "ready" || state === "scheduled" || state === "blocked";
  return (
    <span class="actions">
      {state === "dead" || state === "cancelled" || state === "expired" ? (
        <Act
          label="Retry"
          name={`Retry ${batchId}`}
          onClick={() =>
            void perform(async () => {
              const { retried } = await call("queue.retry", { batchId });
              return retried === 0
                ? `${shortId(batchId)} is not to be retried any more.`
                : `${shortId(batchId)} can be claimed again.`;
            })
          }
        />
      ) : null}
      {waits ? (
        <Act label="Cancel" name={`Cancel ${batchId}`} onClick={() => askCancel(batchId, queue)} />
      ) : null}
      {state === "claimed" ? (
        <Act label="Stop" name={`Stop ${batchId}`} onClick={() => askStop(batch)} />
      ) : null}
    </span>
  );
}

function askCancel(batchId: string, queue: string): void {
  ask({
    title: `Cancel ${shortId(batchId)}?`,
    consequence: `Nobody gets it from ${queue} any more, and batches that wait for its success are cancelled with it.`,
    confirm: "Cancel the batch",
    tone: "danger",
    text: { label: "Reason (may be empty)" },
    act: async (reason) => {
      const { outcome } = await call("queue.cancel", { batchId, ...(reason === "" ? {} : { reason }) });
      return `${shortId(batchId)} is ${outcome.replace("_", " ")}.`;
    },
  });
}

function askStop({ batchId, claim }: Batch): void {
  ask({
    title: `Stop ${shortId(batchId)}, which is in work?`,
    consequence: `${claim?.owner ?? "Its worker"} is told to stop. What it has done of the work stays done; its result is not taken.`,
    confirm: "Stop the work",
    tone: "danger",
    text: { label: "Reason (may be empty)" },
    act: async (reason) => {
      const { outcome } = await call("queue.cancel", {
        batchId,
        stop: true,
        ...(reason === "" ? {} : { reason }),
      });
      return `${shortId(batchId)} is ${outcome.replace("_", " ")}.`;
    },
  });
}

function Settings({ of }: { of: KnownQueue["settings"] }) {
  const shown = (value: unknown): string => (value === null ? "as it is by default" : String(value));
  return (
    <details class="settings">
      <summary>Settings</summary>
      <Facts
        of={[
          ["Attempts", shown(of.maxAttempts)],
          ["Batches in work at most", of.maxClaimed === null ? "no limit" : count(of.maxClaimed)],
          ["Of one key at most", of.maxClaimedPerKey === null ? "no limit" : count(of.maxClaimedPerKey)],
          ["Order of a key", shown(of.keyOrder)],
          ["Rate", of.rate === null ? "no limit" : JSON.stringify(of.rate)],
          ["Batches that wait at most", of.maxWaiting === null ? "no limit" : count(of.maxWaiting)],
          ["Time to live", of.ttlMs === null ? "no limit" : duration(of.ttlMs)],
        ]}
      />
    </details>
  );
}

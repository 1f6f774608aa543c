import type { Result } from "@pawl/protocol/types";
import type { ComponentChildren } from "preact";
import { Happened } from "./event-lines.js";
import { Act, Ago, Answer, ask, Facts, Heading, Id, Json, State } from "./parts.js";
import { BatchActions } from "./queues.js";
import { to } from "./route.js";
import { call, events, useAsked, useLive } from "./server.js";
import { exactTime, plural, shortId } from "./wording.js";

type Batch = Result<"queue.get">["batch"];

/** One batch, with all that is kept of it. */
export function BatchPage({ batchId }: { batchId: string }) {
  const asked = useAsked(
    `batch ${batchId}`,
    ["queue:"],
    async () => (await call("queue.get", { batchId })).batch,
  );
  const batch = asked.data;
  const queue = batch?.queue;
  return (
    <>
      <Heading
        title={shortId(batchId)}
        above={
          queue === undefined
            ? { label: "Queues", href: to("queues") }
            : { label: queue, href: to("queues", queue) }
        }
      >
        {batch === undefined ? null : (
          <>
            {batch.state === "ready" || batch.state === "scheduled" || batch.state === "blocked" ? (
              <Act
                label="Priority"
                name={`Change the priority of ${batchId}`}
                onClick={() => askPriority(batch)}
              />
            ) : null}
            <BatchActions batch={batch} />
          </>
        )}
      </Heading>
      <Answer of={asked}>{(found) => <Whole batch={found} />}</Answer>
    </>
  );
}

function askPriority({ batchId, priority }: Batch): void {
  ask({
    title: `Another priority for ${shortId(batchId)}?`,
    consequence: `It has ${priority}. Of what can be claimed, the highest number is given first.`,
    confirm: "Change",
    text: { label: "Priority, a whole number", required: true },
    async act(text) {
      await call("queue.update", { batchId, priority: Number(text) });
      return `${shortId(batchId)} has the priority ${text}.`;
    },
  });
}

function Whole({ batch }: { batch: Batch }) {
  const { payloads, result, checkpoint, lastError } = batch;
  const happened = useLive(events).filter(({ id }) => id === batch.batchId);
  return (
    <>
      <Facts of={factsOf(batch)} />
      {lastError === undefined ? null : (
        <section>
          <h2>Last error</h2>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keyboard. */}
          <pre class="json error-text" tabIndex={0}>
            {lastError}
          </pre>
        </section>
      )}
      <section>
        <h2>{plural(payloads.length, "payload")}</h2>
        {payloads.map((payload, index) => (
          <Json key={String(index)} value={payload} />
        ))}
      </section>
      {result === undefined ? null : (
        <section>
          <h2>Result</h2>
          <Json value={result} />
        </section>
      )}
      {checkpoint === undefined ? null : (
        <section>
          <h2>Checkpoint</h2>
          <Json value={checkpoint} />
        </section>
      )}
      <Happened events={happened} />
    </>
  );
}

function factsOf(batch: Batch): [string, ComponentChildren][] {
  const { claim, progress, key, sourceKey, after, when, expiresAt, trace } = batch;
  return [
    ["State", <State of={batch.state} />],
    ["Id", <span class="mono">{batch.batchId}</span>],
    ["Attempt", `${batch.attempt} of ${batch.maxAttempts}`],
    ["Priority", String(batch.priority)],
    ["Enqueued", <Ago at={batch.enqueuedAt} />],
    ["Can be claimed from", exactTime(batch.availableAt)],
    ...maybe(expiresAt, (at) => ["Expires", <Ago at={at} />]),
    ...maybe(claim, ({ owner, fencingToken, expiresAt: end }) => [
      "In work",
      <>
        by {owner}, token {fencingToken}, claim ends <Ago at={end} />
      </>,
    ]),
    ...maybe(progress, ({ percent, note }) => [
      "Progress",
      <>
        {percent === undefined ? null : <progress value={percent} max={100} aria-label="Progress" />}{" "}
        {percent === undefined ? "" : `${percent} % `}
        {note}
      </>,
    ]),
    ...maybe(key, (each) => ["Key", each]),
    ...maybe(sourceKey, (each) => ["Source key", each]),
    ...maybe(after, (parents) => [
      `After the ${when ?? "success"} of`,
      parents.map((parent) => (
        <span key={parent}>
          <Id of={parent} href={to("batches", parent)} />{" "}
        </span>
      )),
    ]),
    ...maybe(trace, ({ traceparent }) => ["Trace", <span class="mono">{traceparent}</span>]),
  ];
}

function maybe<T>(
  value: T | null | undefined,
  fact: (value: T) => [string, ComponentChildren],
): [string, ComponentChildren][] {
  return value === null || value === undefined ? [] : [fact(value)];
}

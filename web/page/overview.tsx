import type { Result } from "@pawl/protocol/types";
import type { ComponentChildren } from "preact";
import { allQueues } from "./all-pages.js";
import { type Finding, findings, type Known, type Reasons } from "./health.js";
import { Answer, CommandLine, Heading, useNow } from "./parts.js";
import { Plot } from "./plot.js";
import { to } from "./route.js";
import { call, link, samples, useAsked, useLive } from "./server.js";
import { count, duration, plural } from "./wording.js";

const SAMPLE_SECONDS = 2;
const MOST_FINDINGS = 8;
const MOST_ROWS = 1000;

async function askKnown(): Promise<Known> {
  const [info, stats, queues, { deployments }, { leases }] = await Promise.all([
    call("daemon.info", {}),
    call("daemon.stats", {}),
    allQueues(),
    call("deployment.list", {}),
    call("lease.list", { limit: MOST_ROWS }),
  ]);
  return { info, stats, queues, deployments, leases, reasons: await reasonsOf(queues) };
}

/** Why batches are dead or a queue is paused, of as many queues as are shown. */
async function reasonsOf(queues: Known["queues"]): Promise<Known["reasons"]> {
  const asked = queues.filter(({ dead, paused, ready }) => dead > 0 || (paused && ready > 0));
  const found = await Promise.all(
    asked.slice(0, MOST_FINDINGS).map(async ({ queue, dead, paused }): Promise<[string, Reasons]> => {
      const [failed, settled] = await Promise.all([
        dead > 0 ? call("queue.list", { queue, state: "dead", limit: 1 }) : undefined,
        paused ? call("queue.settings", { queue }) : undefined,
      ]);
      const pause = settled?.settings.reason ?? undefined;
      return [queue, { error: failed?.batches[0]?.lastError, pause }];
    }),
  );
  return new Map(found);
}

export function Overview() {
  const asked = useAsked("overview", [""], askKnown);
  return (
    <>
      <Heading title="Overview" />
      <Answer of={asked}>{(known) => <Whole known={known} />}</Answer>
      <Plots />
    </>
  );
}

function Whole({ known }: { known: Known }) {
  const now = useNow();
  const { up, server } = useLive(link);
  const found = findings(known, now);
  const { stats } = known;
  return (
    <>
      {up && server ? <Verdict found={found} stats={stats} /> : null}
      <Figures known={known} />
    </>
  );
}

function Verdict({ found, stats }: { found: readonly Finding[]; stats: Result<"daemon.stats"> }) {
  const { ready, scheduled, claimed } = stats.queues;
  if (found.length === 0) {
    return (
      <section class="verdict good" aria-label="State">
        <p class="verdict-title">
          <span class="sign" aria-hidden="true">
            ✓
          </span>{" "}
          All is well
        </p>
        <p>
          Up for {duration(stats.uptimeMs)}. {plural(claimed, "batch")} in work, {count(ready + scheduled)}{" "}
          waiting, none dead.
        </p>
      </section>
    );
  }
  const bad = found.filter(({ tone }) => tone === "bad").length;
  return (
    <section class={`verdict ${bad > 0 ? "bad" : "warn"}`} aria-label="State">
      <p class="verdict-title">
        <span class="sign" aria-hidden="true">
          !
        </span>
        {bad > 0
          ? plural(bad, "thing needs", "things need")
          : plural(found.length, "thing deserves", "things deserve")}{" "}
        {bad > 0 ? "you" : "a look"}
        {bad > 0 && found.length > bad ? `, ${count(found.length - bad)} more to look at` : ""}
      </p>
      <ul class="findings">
        {found.slice(0, MOST_FINDINGS).map(({ tone, title, why, href, label }) => (
          <li key={title} class={tone}>
            <div>
              <strong>{title}</strong>
              <span>{why}</span>
            </div>
            <a class="button" href={href} aria-label={`${label}: ${title}`}>
              {label}
            </a>
          </li>
        ))}
      </ul>
      {found.length > MOST_FINDINGS ? (
        <p>
          and {count(found.length - MOST_FINDINGS)} more: <a href={to("queues")}>all queues</a>
        </p>
      ) : null}
    </section>
  );
}

function Figures({ known: { stats, queues, deployments } }: { known: Known }) {
  const { queues: batches, commands, leases, paths, pipeline, sequences } = stats;
  const open = commands.states.PENDING + commands.states.DISPATCHED + commands.states.PENDING_UPLOAD;
  return (
    <section class="numbers" aria-label="Numbers">
      <Figure label="Waiting" value={batches.ready + batches.scheduled + batches.blocked} href={to("queues")}>
        {plural(queues.length, "queue")}
      </Figure>
      <Figure label="In work" value={batches.claimed} href={to("queues")}>
        claimed batches
      </Figure>
      <Figure label="Dead" value={batches.dead} href={to("queues")} bad={batches.dead > 0}>
        {batches.dead > 0 ? "to be retried or removed" : "no batch has failed for good"}
      </Figure>
      <Figure label="Commands" value={open} href={to("commands")}>
        open, for {plural(deployments.length, "deployment")}
      </Figure>
      <Figure label="Leases" value={leases.held} href={to("leases")}>
        held, and {count(paths.reserved)} paths
      </Figure>
      <Figure label="Board" value={pipeline.items} href={to("board")}>
        {plural(pipeline.changes, "change")}
      </Figure>
      <Figure label="Numbers" value={sequences.dispensed} href={to("sequences")}>
        taken since the start
      </Figure>
      <Figure label="Commit" text={duration(stats.commitMs.p99)} href={to("daemon")}>
        99 of 100 are faster
      </Figure>
    </section>
  );
}

function Figure({
  label,
  value = 0,
  text = count(value),
  href,
  bad = false,
  children,
}: {
  label: string;
  value?: number;
  text?: string;
  href: string;
  bad?: boolean;
  children: ComponentChildren;
}) {
  return (
    <a class={`number ${bad ? "bad" : ""}`} href={href}>
      <span class="number-label">{label}</span>
      <span class="number-value">{text}</span>
      <span class="number-note">{children}</span>
    </a>
  );
}

function Plots() {
  const all = useLive(samples);
  if (all.length === 0) {
    return (
      <section class="plots">
        <p class="faint">Plots begin with the first two seconds that this page is open.</p>
      </section>
    );
  }
  const quiet = all.every(({ enqueued, completed, waiting }) => enqueued + completed + waiting === 0);
  return (
    <section class="plots" aria-label="The last ten minutes">
      <Plot
        title="Batches a second"
        samples={all}
        lines={[
          { label: "enqueued", colour: "plot-blue", value: ({ enqueued }) => enqueued / SAMPLE_SECONDS },
          { label: "completed", colour: "plot-green", value: ({ completed }) => completed / SAMPLE_SECONDS },
          { label: "failed", colour: "plot-red", value: ({ failed }) => failed / SAMPLE_SECONDS },
        ]}
      />
      <Plot
        title="Depth"
        samples={all}
        lines={[
          { label: "waiting", colour: "plot-blue", value: ({ waiting }) => waiting },
          { label: "in work", colour: "plot-green", value: ({ claimed }) => claimed },
        ]}
      />
      {quiet ? (
        <p class="faint">
          Nothing is enqueued. The first batch:{" "}
          <CommandLine>{'pawl enqueue mail \'{"to":"ada@example.org"}\''}</CommandLine>
        </p>
      ) : null}
    </section>
  );
}

import type { Result } from "@pawl/protocol/types";
import { allRows, ROWS_PER_CALL } from "./all-pages.js";
import { Act, Ago, Answer, ask, Badge, CommandLine, Empty, Heading, Table, usePages } from "./parts.js";
import { to } from "./route.js";
import { call, useAsked } from "./server.js";
import { duration, shortId } from "./wording.js";

type Schedule = Result<"schedule.get">["schedule"];

const ROWS_PER_PAGE = 100;

async function allSchedules(): Promise<Schedule[]> {
  return await allRows(
    (place: { after?: string }) => call("schedule.list", { limit: ROWS_PER_CALL, ...place }),
    ({ schedules }) => schedules,
  );
}

export function Schedules() {
  const asked = useAsked("schedules", ["schedule:"], allSchedules);
  return (
    <>
      <Heading title="Schedules" />
      <Answer of={asked}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty title="Nothing is scheduled">
              <p>A batch each night:</p>
              <CommandLine>{`pawl schedule set nightly --cron '0 3 * * *' --queue reports '{"kind":"daily"}'`}</CommandLine>
            </Empty>
          ) : (
            <ScheduleTable rows={rows} />
          )
        }
      </Answer>
    </>
  );
}

function ScheduleTable({ rows }: { rows: readonly Schedule[] }) {
  const [shown, more] = usePages(rows, ROWS_PER_PAGE);
  return (
    <>
      <Table
        label="Schedules"
        rows={shown}
        keyOf={({ name }) => name}
        columns={[
          {
            title: "Schedule",
            cell: ({ name, enabled }) => (
              <>
                <b class="name">{name}</b> {enabled ? null : <Badge tone="warn">off</Badge>}
              </>
            ),
          },
          {
            title: "When",
            cell: ({ cron, everyMs, timeZone }) =>
              cron === null ? (
                `every ${duration(everyMs ?? 0)}`
              ) : (
                <>
                  <span class="mono">{cron}</span> <span class="faint">{timeZone}</span>
                </>
              ),
          },
          { title: "Into", cell: ({ queue }) => <a href={to("queues", queue)}>{queue}</a> },
          {
            title: "Next",
            cell: ({ nextAt }) =>
              nextAt === null ? <Badge tone="quiet">no more</Badge> : <Ago at={nextAt} />,
          },
          {
            title: "Last",
            wide: true,
            cell: ({ lastAt, lastBatchId }) =>
              lastBatchId === null ? (
                <Ago at={lastAt} />
              ) : (
                <a href={to("batches", lastBatchId)}>
                  <Ago at={lastAt} />
                </a>
              ),
          },
          { title: "Actions", right: true, cell: (schedule) => <ScheduleActions schedule={schedule} /> },
        ]}
      />
      {more}
    </>
  );
}

function ScheduleActions({ schedule: { name, queue } }: { schedule: Schedule }) {
  return (
    <span class="actions">
      <Act
        label="Run now"
        name={`Run now: ${name}`}
        onClick={() =>
          ask({
            title: `Run ${name} now?`,
            consequence: `A batch is enqueued into ${queue} at once, beside those of its times.`,
            confirm: "Run now",
            async act() {
              const { batch } = await call("schedule.run", { name });
              return `${shortId(batch.batchId)} is in ${queue}.`;
            },
          })
        }
      />
      <Act
        label="Delete"
        name={`Delete ${name}`}
        tone="danger"
        onClick={() =>
          ask({
            title: `Delete the schedule ${name}?`,
            consequence: `Nothing is enqueued by it any more. Batches that it has enqueued stay in ${queue}.`,
            confirm: "Delete",
            tone: "danger",
            async act() {
              const { deleted } = await call("schedule.delete", { name });
              return deleted ? `${name} is deleted.` : `${name} was deleted before.`;
            },
          })
        }
      />
    </span>
  );
}

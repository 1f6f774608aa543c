import type { Result } from "@pawl/protocol/types";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { rowsOfPages } from "./all-pages.js";
import { Happened } from "./event-lines.js";
import {
  Act,
  Ago,
  Answer,
  ask,
  Badge,
  CommandLine,
  Empty,
  Facts,
  Heading,
  Json,
  State,
  Table,
} from "./parts.js";
import { to } from "./route.js";
import { call, events, useAsked, useLive } from "./server.js";
import { bytes, count, duration } from "./wording.js";

type Command = Result<"command.get">;
type Deployment = Result<"deployment.list">["deployments"][number];

const COMMANDS_PER_PAGE = 50;
const MOST_DEPLOYMENTS = 1000;
/** A longer body is not loaded into the page. */
const MOST_BODY_BYTES = 64 * 1024;

/** Deployments, and commands to them: to all, or to one. */
export function Commands({ deployment }: { deployment: string | undefined }) {
  const topics = [deployment === undefined ? "command:" : `command:${deployment}`];
  const deployments = useAsked("deployments", ["command:"], async () => {
    return (await call("deployment.list", { limit: MOST_DEPLOYMENTS })).deployments;
  });
  const [pages, setPages] = useState(1);
  const commands = useAsked(`commands ${deployment} ${pages}`, topics, async () => {
    const wanted = {
      limit: COMMANDS_PER_PAGE,
      ...(deployment === undefined ? {} : { deployment }),
    };
    const { rows, more } = await rowsOfPages(
      pages,
      (place: { after?: string }) => call("command.list", { ...wanted, ...place }),
      ({ commands }) => commands,
    );
    return { commands: rows, more };
  });
  return (
    <>
      {deployment === undefined ? (
        <Heading title="Commands" />
      ) : (
        <Heading title={deployment} above={{ label: "Commands", href: to("commands") }} />
      )}
      {deployment === undefined ? (
        <section>
          <h2>Deployments</h2>
          <Answer of={deployments}>{(rows) => <Deployments rows={rows} />}</Answer>
        </section>
      ) : null}
      <section>
        <h2>{deployment === undefined ? "All commands" : "Its commands"}</h2>
        <Answer of={commands}>
          {({ commands: rows, more }) => (
            <>
              <CommandTable rows={rows} deployment={deployment ?? "site"} />
              {more ? (
                <p class="more">
                  <button type="button" onClick={() => setPages(pages + 1)}>
                    Show {COMMANDS_PER_PAGE} more
                  </button>
                </p>
              ) : null}
            </>
          )}
        </Answer>
      </section>
    </>
  );
}

function Deployments({ rows }: { rows: readonly Deployment[] }) {
  if (rows.length === 0) {
    return (
      <Empty title="There is no deployment yet">
        <p>A deployment is there once somebody serves it, or sends it a command:</p>
        <CommandLine>pawl serve site -- ./carry-out.sh</CommandLine>
      </Empty>
    );
  }
  return (
    <Table
      label="Deployments"
      rows={rows}
      keyOf={({ deployment }) => deployment}
      columns={[
        {
          title: "Deployment",
          cell: ({ deployment }) => (
            <a class="name" href={to("commands", deployment)}>
              {deployment}
            </a>
          ),
        },
        { title: "Model", cell: ({ model }) => model },
        {
          title: "Project",
          wide: true,
          cell: ({ projectId }) => projectId ?? <span class="faint">none</span>,
        },
        { title: "Pending", right: true, cell: ({ pending }) => count(pending) },
        {
          title: "Receivers",
          right: true,
          cell: ({ receivers, pending }) =>
            receivers === null ? (
              <span class="faint">–</span>
            ) : receivers === 0 && pending > 0 ? (
              <Badge tone="warn">nobody</Badge>
            ) : (
              count(receivers)
            ),
        },
      ]}
    />
  );
}

function CommandTable({ rows, deployment }: { rows: readonly Command[]; deployment: string }) {
  if (rows.length === 0) {
    return (
      <Empty title="There is no command">
        <p>The first one, and its answer:</p>
        <CommandLine>{`pawl send ${deployment} restart '{"service":"web"}' --wait 30s`}</CommandLine>
      </Empty>
    );
  }
  return (
    <Table
      label="Commands"
      rows={rows}
      keyOf={({ commandId }) => commandId}
      columns={[
        {
          title: "Command",
          cell: ({ commandId, command }) => (
            <a class="name" href={to("command", commandId)}>
              {command}
            </a>
          ),
        },
        { title: "State", cell: ({ state }) => <State of={state} /> },
        {
          title: "To",
          cell: ({ deployment: whom, target }) => `${whom}${target === "" ? "" : ` · ${target}`}`,
        },
        { title: "Made", cell: ({ createdAt }) => <Ago at={createdAt} /> },
        {
          title: "Attempt",
          right: true,
          wide: true,
          cell: ({ attempt, maxAttempts }) => `${attempt} of ${maxAttempts}`,
        },
        {
          title: "About it",
          wide: true,
          cell: ({ error, lease, progress }) =>
            error !== null ? (
              <span class="error-text">{error.message}</span>
            ) : (
              (progress?.note ?? lease?.owner ?? null)
            ),
        },
        { title: "Actions", right: true, cell: (command) => <CommandActions command={command} /> },
      ]}
    />
  );
}

function isOpen({ state }: Command): boolean {
  return state === "PENDING" || state === "DISPATCHED" || state === "PENDING_UPLOAD";
}

function CommandActions({ command }: { command: Command }) {
  const { commandId, command: what, deployment, lease } = command;
  if (!isOpen(command)) return null;
  return (
    <Act
      label="Cancel"
      name={`Cancel ${what} ${commandId}`}
      onClick={() =>
        ask({
          title: `Cancel ${what} to ${deployment}?`,
          consequence:
            lease === undefined
              ? "Nobody has it yet, and nobody gets it any more. Whoever waits for its answer is told that it failed."
              : `${lease.owner} carries it out just now and is told to stop; what is done of it stays done. Whoever waits for its answer is told that it failed.`,
          confirm: "Cancel the command",
          tone: "danger",
          text: { label: "Reason (may be empty)" },
          async act(reason) {
            const { state } = await call("command.cancel", {
              commandId,
              ...(reason === "" ? {} : { reason }),
            });
            return `${what} is ${state.toLowerCase()}.`;
          },
        })
      }
    />
  );
}

interface KnownCommand {
  readonly command: Command;
  readonly params: Body;
  readonly response: Body;
}

/** A body as a value, or why it is not shown. */
type Body = { readonly value: unknown } | { readonly none: string };

async function askCommand(commandId: string): Promise<KnownCommand> {
  const command = await call("command.get", { commandId });
  const params = await paramsOf(command);
  return { command, params, response: await responseOf(command) };
}

async function paramsOf({ commandId, requestSizeBytes }: Command): Promise<Body> {
  if (requestSizeBytes > MOST_BODY_BYTES)
    return { none: `${bytes(requestSizeBytes)}: pawl call command.params` };
  if (requestSizeBytes === 0) return { none: "None." };
  try {
    const { chunk } = await call("command.params", { commandId });
    return { value: JSON.parse(textOf(chunk)) };
  } catch (error) {
    return { none: (error as Error).message };
  }
}

async function responseOf({ commandId, responseSizeBytes }: Command): Promise<Body> {
  if (responseSizeBytes === null) return { none: "None yet." };
  if (responseSizeBytes > MOST_BODY_BYTES)
    return { none: `${bytes(responseSizeBytes)}: pawl call command.response` };
  try {
    return { value: (await call("command.response", { commandId })).response };
  } catch (error) {
    return { none: (error as Error).message };
  }
}

function textOf(base64: string): string {
  return new TextDecoder().decode(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)));
}

function BodyOf({ title, body }: { title: string; body: Body }) {
  return (
    <section>
      <h2>{title}</h2>
      {"value" in body ? <Json value={body.value} /> : <p class="faint">{body.none}</p>}
    </section>
  );
}

export function CommandPage({ commandId }: { commandId: string }) {
  const asked = useAsked(`command ${commandId}`, ["command:"], () => askCommand(commandId));
  const command = asked.data?.command;
  const happened = useLive(events).filter(({ id }) => id === commandId);
  return (
    <>
      <Heading
        title={command === undefined ? commandId : command.command}
        above={
          command === undefined
            ? { label: "Commands", href: to("commands") }
            : { label: command.deployment, href: to("commands", command.deployment) }
        }
      >
        {command === undefined ? null : <CommandActions command={command} />}
      </Heading>
      <Answer of={asked}>
        {({ command: found, params, response }) => (
          <>
            <Facts of={factsOf(found)} />
            <BodyOf title="Params" body={params} />
            <BodyOf title="Answer" body={response} />
            <Happened events={happened} />
          </>
        )}
      </Answer>
    </>
  );
}

function factsOf(command: Command): [string, ComponentChildren][] {
  const { lease, error, progress, executionMs, deadline, projectId } = command;
  const facts: [string, ComponentChildren][] = [
    ["State", <State of={command.state} />],
    ["Id", <span class="mono">{command.commandId}</span>],
    ["To", `${command.deployment}${command.target === "" ? "" : ` · ${command.target}`}`],
    ["Attempt", `${command.attempt} of ${command.maxAttempts}`],
    ["Made", <Ago at={command.createdAt} />],
    ["Delivered", <Ago at={command.dispatchedAt} />],
    ["Ended", <Ago at={command.completedAt} />],
  ];
  if (projectId !== null) facts.push(["Project", projectId]);
  if (deadline !== null) facts.push(["Deadline", <Ago at={deadline} />]);
  if (executionMs !== null) facts.push(["May take", duration(executionMs)]);
  if (lease !== undefined) facts.push(["Carried out by", lease.owner]);
  if (progress !== undefined) facts.push(["Progress", `${progress.percent ?? ""} ${progress.note ?? ""}`]);
  if (error !== null)
    facts.push(["Error", <span class="error-text">{`${error.code}: ${error.message}`}</span>]);
  return facts;
}

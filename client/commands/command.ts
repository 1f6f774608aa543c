import type { Result } from "@pawl/protocol/types";
import { COMMAND_STATES } from "@pawl/protocol/values";
import { command } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { duration, whenShort } from "../terminal/quantities.js";
import { isWatching, showListed, WATCH } from "../terminal/watch.js";
import { saidOfNone } from "./kept-elsewhere.js";

type Command = Result<"command.get">;
type State = Command["state"];

const STATE_STYLES: Readonly<Partial<Record<State, "green" | "red" | "yellow">>> = {
  DISPATCHED: "yellow",
  SUCCEEDED: "green",
  FAILED: "red",
  EXPIRED: "red",
};

const list = command({
  args: "[deployment]",
  patient: isWatching,
  endsBySignal: true,
  summary: "List commands and their states",
  options: {
    state: { type: "text", choices: COMMAND_STATES, describe: "Only those in a state" },
    target: { type: "text", value: "TEXT", describe: "Only those of a target" },
    command: { type: "text", value: "NAME", describe: "Only those of a name" },
    since: { type: "duration", describe: "Only those of so long ago or later" },
    limit: { type: "number", describe: "Most commands to list, up to 1,000", default: "100" },
    ...WATCH,
  },
  details: "Newest first.",
  examples: [
    ["pawl commands", "A table of commands with their states"],
    ["pawl commands builder --state PENDING", "What waits for a receiver"],
    ["pawl commands --json | jq -r '.commands[].commandId'", "Only the ids"],
  ],
  async run({ deployment, state, limit, target, command: name, since, watch }, { connect, output }) {
    const client = await connect();
    const read = async () => {
      const found = await client.command.list({
        ...(target === undefined ? {} : { target }),
        ...(name === undefined ? {} : { command: name }),
        ...(since === undefined ? {} : { createdAfter: Math.max(0, Date.now() - since) }),
        ...(deployment === undefined ? {} : { deployment }),
        ...(state === undefined ? {} : { state }),
        ...(limit === undefined ? {} : { limit }),
      });
      const isNone = found.commands.length === 0;
      const none = isNone
        ? await saidOfNone("There are no such commands.", "command", { client, output })
        : "";
      return () => {
        output.result(found, () => (isNone ? "" : commandTable(found.commands, output)));
        if (isNone) output.note(none);
        if (found.next !== undefined) output.note("There are more; --limit lists more of them.");
      };
    };
    return await showListed(read, [`command:${deployment ?? "*"}`], { watch, client, output });
  },
});

function commandTable(found: readonly Command[], output: Output): string {
  return output.table(
    [
      { title: "COMMAND ID" },
      { title: "DEPLOYMENT", flexible: true },
      { title: "COMMAND", flexible: true },
      { title: "STATE" },
      { title: "TRY", align: "right" },
      { title: "CREATED" },
      { title: "TOOK", align: "right" },
      { title: "BY, OR WHY NOT", flexible: true },
    ],
    found.map((each) => {
      const style = STATE_STYLES[each.state];
      return [
        each.commandId,
        each.deployment,
        each.command,
        style === undefined ? each.state : { text: each.state, style },
        String(each.attempt),
        whenShort(each.createdAt),
        each.completedAt === null ? "" : duration(Math.max(0, each.completedAt - each.createdAt)),
        each.lease?.owner ?? (each.error === null ? "" : `${each.error.code}: ${each.error.message}`),
      ];
    }),
  );
}

export const commands = { commands: list };

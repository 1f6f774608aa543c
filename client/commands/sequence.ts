import type { Result } from "@pawl/protocol/types";
import type { PawlClient } from "../connect.js";
import { command, UsageError } from "../terminal/command.js";
import type { Output } from "../terminal/output.js";
import { isWatching, showListed, WATCH } from "../terminal/watch.js";
import { saidOfList } from "./kept-elsewhere.js";

/** Ids printed by one write: a block can have a million. */
const IDS_PER_WRITE = 10_000;

const next = command({
  args: "<type>",
  summary: "Take the next id of a type, such as FR-001",
  options: {
    count: { type: "number", short: "n", value: "COUNT", describe: "Take a block of so many, without gaps" },
    "request-id": {
      type: "text",
      value: "ID",
      describe: "Makes a retry safe: the same ID gets the same answer for 24 hours",
    },
  },
  details: "Nobody else ever gets the same one.",
  examples: [
    ["pawl next FR", "FR-001"],
    ["pawl next FR -n 3", "FR-002, FR-003 and FR-004, one per line"],
    ["pawl next BUG --json", '{"type":"BUG","seq":1,"id":"BUG-001"}'],
    ["pawl next FR --request-id build-118", "May be repeated after a failure: one number is taken, not two"],
  ],
  async run({ type, count, "request-id": requestId }, { connect, output }) {
    const client = await connect();
    const once = requestId === undefined ? {} : { requestId };
    if (count === undefined) {
      const taken = await client.sequence.next({ type, ...once });
      output.result(taken, () => taken.id);
    } else {
      const block = await client.sequence.reserve({ type, count, ...once });
      output.result(block, () => idsOf(block));
    }
    return undefined;
  },
});

/** Every id of a block, spelled as its first one is. */
function* idsOf(block: { first: number; last: number; firstId: string }): Generator<string> {
  const prefix = block.firstId.slice(0, block.firstId.lastIndexOf("-") + 1);
  const digits = block.firstId.length - prefix.length;
  for (let from = block.first; from <= block.last; from += IDS_PER_WRITE) {
    const ids = [];
    for (let seq = from; seq < from + IDS_PER_WRITE && seq <= block.last; seq++) {
      ids.push(prefix + String(seq).padStart(digits, "0"));
    }
    yield ids.join("\n");
  }
}

const peek = command({
  args: "<type>",
  summary: "Show the id that next would take",
  options: {},
  details: "It takes nothing, so another process may get that id first.",
  examples: [["pawl peek FR", "FR-005"]],
  async run({ type }, { connect, output }) {
    const found = await (await connect()).sequence.peek({ type });
    output.result(found, () => found.id);
    return undefined;
  },
});

const state = command({
  args: "",
  patient: isWatching,
  endsBySignal: true,
  summary: "List the last number of every type",
  options: WATCH,
  examples: [
    ["pawl state", "A table of types, their last numbers and ids"],
    ["pawl state --json | jq .sequences.FR", "The last number of FR"],
  ],
  async run({ watch }, { connect, output }) {
    const client = await connect();
    const read = async () => {
      const found = await client.dispenser().state();
      const { idDigits, shared } = output.json ? NOT_ASKED : await client.daemon.info({});
      return () => {
        output.result(found, () => stateTable(found, idDigits, output));
        const elsewhere = saidOfList(shared, "sequence");
        if (elsewhere !== "") output.note(elsewhere);
      };
    };
    return await showListed(read, ["sequence:*"], { watch, client, output });
  },
});

/** What JSON has no need of. */
const NOT_ASKED = { idDigits: 0, shared: [] };

function stateTable(
  { mode, sequences, granted }: Result<"sequence.state">,
  idDigits: number,
  output: Output,
): string {
  const types = [...new Set([...Object.keys(sequences), ...Object.keys(granted)])].sort();
  if (types.length === 0) {
    output.note("No numbers have been taken yet.");
    return "";
  }
  const node = mode.kind === "distributed" ? `${mode.nodeId}-` : "";
  const hasGrants = Object.keys(granted).length > 0;
  return output.table(
    [
      { title: "TYPE" },
      { title: "LAST", align: "right" },
      { title: "LAST ID" },
      ...(hasGrants ? [{ title: "GRANTED, LEFT", align: "right" } as const] : []),
    ],
    types.map((type) => {
      const last = sequences[type];
      return [
        type,
        last === undefined ? "" : String(last),
        last === undefined ? "" : `${type}-${node}${String(last).padStart(idDigits, "0")}`,
        ...(hasGrants ? [String(granted[type] ?? "")] : []),
      ];
    }),
  );
}

const grant = command({
  args: "<type> <first> <last>",
  summary: "Have the numbers of a type come from a block that another node gave",
  options: {},
  details:
    "The other node took the block by `pawl next TYPE -n COUNT` and uses none of it. FIRST and LAST are numbers or ids. From then on the numbers of the type come from such blocks alone: with none left `pawl next` fails until there is another one. `pawl state` shows how many are left.",
  examples: [
    ["pawl grant FR 1001 1100", "A hundred numbers, which another node reserved"],
    ["pawl grant FR FR-1001 FR-1100", "The same, by the ids that it printed"],
  ],
  async run({ type, first, last }, { connect, output }) {
    const client = await connect();
    const range = {
      type,
      first: await numberOf(client, type, first),
      last: await numberOf(client, type, last),
    };
    const granted = await client.sequence.grant(range);
    output.result(granted, () => `${granted.type}: ${granted.left} granted numbers are left`);
    return undefined;
  },
});

/** The number that an argument is, or that an id of the type has. */
async function numberOf(client: PawlClient, type: string, text: string): Promise<number> {
  if (/^[0-9]+$/.test(text)) return Number(text);
  const id = await client.sequence.parse({ id: text });
  if (id.type === type.toUpperCase()) return id.seq;
  throw new UsageError(`${text} is an id of ${id.type}, not of ${type.toUpperCase()}.`);
}

export const commands = { next, peek, state, grant };

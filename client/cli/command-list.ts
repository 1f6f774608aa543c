import type { Command, Options } from "../terminal/command.js";

export interface Entry {
  readonly args: string;
  readonly summary: string;
  load(): Promise<Command>;
}

/** Ties a command to its names here, so that its module is loaded only when it is the one to run. */
function entry<const A extends string, O extends Options>(
  args: A,
  summary: string,
  load: () => Promise<Command<A, O>>,
): Entry {
  return { args, summary, load: load as unknown as () => Promise<Command> };
}

/** Every command, in the order and under the headings of `pawl --help`. */
export const COMMANDS: Readonly<Record<string, Readonly<Record<string, Entry>>>> = {
  "Numbers that never repeat": {
    next: entry("<type>", "Take the next id of a type, such as FR-001", async () => (await sequence()).next),
    peek: entry("<type>", "Show the id that next would take", async () => (await sequence()).peek),
    state: entry("", "List the last number of every type", async () => (await sequence()).state),
    import: entry("", "Raise the counters to what was used elsewhere", async () => (await moving()).imports),
    export: entry("", "Write the counters out as TOML", async () => (await moving()).exports),
  },
  "Work that only one of them holds": {
    enqueue: entry("<queue> [payload..]", "Add work to a queue", async () => (await queue()).enqueue),
    work: entry(
      "<queue> -- command",
      "Run a command for each batch of a queue",
      async () => (await import("../commands/work.js")).work,
    ),
    queues: entry("[queue]", "List the queues and what is in them", async () => (await queue()).queues),
    why: entry("<queue>", "Say why nothing can be claimed, or what can", async () => (await queue()).why),
    dead: entry("<queue>", "List what has failed too often", async () => (await queue()).dead),
    retry: entry("<queue-or-batch>", "Make dead batches ready again", async () => (await queue()).retry),
    claim: entry(
      "<queue>",
      "Take the next batch, for a script of your own",
      async () => (await queue()).claim,
    ),
    renew: entry("<claim> <token>", "Hold a claim for longer", async () => (await queue()).renew),
    complete: entry(
      "<claim> <token>",
      "Say that the work of a claim is done",
      async () => (await queue()).complete,
    ),
    abandon: entry("<claim> <token>", "Give the work of a claim back", async () => (await queue()).abandon),
  },
  "Commands that are delivered until answered": {
    send: entry(
      "<deployment> <command> [params]",
      "Send a command, and perhaps wait for the answer",
      async () => (await commands()).send,
    ),
    answer: entry("<command-id>", "Print the answer to a command", async () => (await commands()).answer),
    serve: entry(
      "<deployment> -- command",
      "Run a program for each command to a deployment",
      async () => (await commands()).serve,
    ),
    commands: entry(
      "[deployment]",
      "List commands and their states",
      async () => (await commands()).commands,
    ),
  },
  "Leases that one at a time holds": {
    lock: entry("<name> -- command", "Run a command while holding a lease", async () => (await lease()).lock),
    leases: entry("", "List who holds what", async () => (await lease()).leases),
    "lease-table": entry(
      "<create> <provider>",
      "Make the DynamoDB table that leases over machines are kept in",
      async () => (await import("../commands/lease-table.js")).leaseTable,
    ),
  },
  "A board that merges across nodes": {
    board: entry("[rebuild]", "Show the items of the board by stage", async () => (await boards()).board),
    item: entry(
      "<set|show|rm> <story>",
      "Make, change, show or delete an item",
      async () => (await boards()).item,
    ),
    sync: entry("<peer>", "Give each other what this node and another lack", async () => (await peer()).sync),
    peers: entry(
      "<self|trust|revoke|list> [peer..]",
      "Say whose changes are accepted",
      async () => (await peer()).peers,
    ),
  },
  "The daemon": {
    status: entry("", "Show what the daemon is and does", async () => (await daemon()).status),
    call: entry("<method> [params]", "Call any method", async () => (await daemon()).call),
    backup: entry("<file>", "Copy the database while it is in use", async () => (await daemon()).backup),
    service: entry(
      "<action>",
      "Have systemd run the daemon: install, status or uninstall",
      async () => (await import("../commands/systemd.js")).systemd,
    ),
    "socket-path": entry("", "Print where the daemon listens", async () => (await daemon()).socketPath),
    completion: entry(
      "[shell]",
      "Print a script that completes commands in your shell",
      async () => (await import("./completion.js")).completion,
    ),
  },
};

const sequence = () => import("../commands/sequence.js");
const moving = () => import("../commands/import.js");
const queue = () => import("../commands/queue.js");
const commands = () => import("../commands/command.js");
const lease = () => import("../commands/lease.js");
const boards = () => import("../commands/board.js");
const peer = () => import("../commands/peers.js");
const daemon = () => import("../commands/daemon.js");

/** What every command takes. */
export const GLOBAL_OPTIONS = {
  socket: {
    type: "text",
    value: "PATH",
    describe: "Socket of the daemon",
    default: "as `pawl socket-path` says",
  },
  instance: {
    type: "text",
    value: "NAME",
    describe: "Which daemon of this user",
    default: "$PAWL_INSTANCE, or default",
  },
  json: { type: "flag", describe: "Results and errors as JSON in one line, for programs" },
  help: { type: "flag", short: "h", describe: "Show help, of a command if one is named" },
  version: { type: "flag", describe: "Show the version" },
} as const satisfies Options;

/** Every command by its name. */
export function entries(): ReadonlyMap<string, Entry> {
  return new Map(Object.values(COMMANDS).flatMap((group) => Object.entries(group)));
}

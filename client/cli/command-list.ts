import type { AnyCommand } from "../terminal/command.js";

/** A command before its file is loaded. */
export interface Entry {
  readonly name: string;
  /** The heading of `pawl --help` that it stands under. */
  readonly heading: string;
  load(): Promise<AnyCommand>;
}

/** A file of `commands/`. Each is about one noun, or one command that is long. */
interface CommandFile {
  readonly commands: Readonly<Record<string, AnyCommand>>;
}

/**
 * The commands of a file, in the order of `pawl --help`. The file has all that a command is; a name stands here
 * too, so that only the file of the command to run is loaded. Neither a name that the file lacks compiles, nor
 * a command of the file that is not named.
 */
function file<M extends CommandFile, const N extends keyof M["commands"] & string>(
  heading: string,
  load: () => Promise<M>,
  names: readonly N[],
  ..._unnamed: Exclude<keyof M["commands"], N> extends never ? [] : [Exclude<keyof M["commands"], N>]
): Entry[] {
  return names.map((name) => ({
    name,
    heading,
    load: async () => (await load()).commands[name] as AnyCommand,
  }));
}

const NUMBERS = "Numbers that never repeat";
const WORK = "Work that only one of them holds";
const DEPLOYMENTS = "Commands that are delivered until answered";
const LEASES = "Leases: held alone, by a few, or shared";
const PATHS = "Files that are reserved by patterns";
const BOARD = "A board that merges across nodes";
const AGENTS = "Coding agents";
const DAEMON = "The daemon";

/** Every command, in the order and under the headings of `pawl --help`. */
export const COMMANDS: readonly Entry[] = [
  ...file(NUMBERS, () => import("../commands/sequence.js"), ["next", "peek", "state", "grant"]),
  ...file(NUMBERS, () => import("../commands/import.js"), ["import", "export"]),
  ...file(WORK, () => import("../commands/enqueue.js"), ["enqueue"]),
  ...file(WORK, () => import("../commands/wait.js"), ["wait"]),
  ...file(WORK, () => import("../commands/work.js"), ["work"]),
  ...file(WORK, () => import("../commands/queue.js"), ["queues", "batches", "dead", "retry"]),
  ...file(WORK, () => import("../commands/queue-settings.js"), ["queue"]),
  ...file(WORK, () => import("../commands/schedule.js"), ["schedule"]),
  ...file(WORK, () => import("../commands/queue-control.js"), ["pause", "resume", "purge", "move", "cancel"]),
  ...file(WORK, () => import("../commands/claim.js"), ["claim", "renew", "complete", "abandon"]),
  ...file(DEPLOYMENTS, () => import("../commands/send.js"), ["send", "answer"]),
  ...file(DEPLOYMENTS, () => import("../commands/serve.js"), ["serve"]),
  ...file(DEPLOYMENTS, () => import("../commands/command.js"), ["commands"]),
  ...file(LEASES, () => import("../commands/lock.js"), ["lock"]),
  ...file(LEASES, () => import("../commands/lease.js"), ["leases", "lease"]),
  ...file(LEASES, () => import("../commands/lease-table.js"), ["lease-table"]),
  ...file(PATHS, () => import("../commands/path.js"), ["reserve", "paths"]),
  ...file(BOARD, () => import("../commands/board.js"), ["board"]),
  ...file(BOARD, () => import("../commands/item.js"), ["item"]),
  ...file(BOARD, () => import("../commands/sync.js"), ["sync"]),
  ...file(BOARD, () => import("../commands/peers.js"), ["peers"]),
  ...file(AGENTS, () => import("../commands/mcp.js"), ["mcp"]),
  ...file(AGENTS, () => import("../commands/hook.js"), ["hook", "guard"]),
  ...file(DAEMON, () => import("../commands/status.js"), ["status"]),
  ...file(DAEMON, () => import("../commands/daemon.js"), ["call", "backup", "check", "socket-path"]),
  ...file(DAEMON, () => import("../commands/graph.js"), ["why", "graph"]),
  ...file(DAEMON, () => import("../commands/events.js"), ["events"]),
  ...file(DAEMON, () => import("../commands/metrics.js"), ["metrics"]),
  ...file(DAEMON, () => import("../commands/web.js"), ["web"]),
  ...file(DAEMON, () => import("../commands/shared.js"), ["shared"]),
  ...file(DAEMON, () => import("../commands/systemd.js"), ["service"]),
  ...file(DAEMON, () => import("../commands/completion.js"), ["completion"]),
];

const BY_NAME: ReadonlyMap<string, Entry> = new Map(COMMANDS.map((entry) => [entry.name, entry]));

/** The command of a name, if there is one. */
export function commandNamed(name: string | undefined): Entry | undefined {
  return name === undefined ? undefined : BY_NAME.get(name);
}

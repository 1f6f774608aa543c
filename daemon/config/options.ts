import { resolve } from "node:path";
import type { Mode } from "@pawl/protocol";
import {
  DEFAULT_MAX_ALL_UNSENT_BYTES,
  DEFAULT_MAX_MESSAGE_BYTES,
  DEFAULT_RETENTION_DAYS,
  MAX_ID_DIGITS,
  MAX_MAX_ALL_UNSENT_BYTES,
  MAX_MAX_MESSAGE_BYTES,
  MIN_MAX_ALL_UNSENT_BYTES,
  MIN_MAX_MESSAGE_BYTES,
} from "@pawl/protocol/limits";
import {
  checkInstance,
  checkSocketPath,
  DEFAULT_INSTANCE,
  type Surroundings,
  socketPath,
  stateDirectory,
} from "@pawl/protocol/paths";
import { LOG_LEVELS, type LogLevel } from "../log/log.js";
import { parseLeaseRule } from "../remote/specification.js";
import { parseSharedRule } from "../shared/specification.js";
import {
  checkedBy,
  fileMode,
  ids,
  listOf,
  node,
  oneOf,
  path,
  type Read,
  text,
  whole,
  yesOrNo,
} from "./values.js";

const MAX_RETENTION_DAYS = 3650;
const MAX_IDLE_EXIT_SECONDS = 365 * 24 * 60 * 60;

/** An option of pawld, with all that its flag, its variable, its key in a config file and its help are made from. */
export interface Option<T> {
  /** Without its dashes: `socket-mode` for `--socket-mode`, `PAWL_SOCKET_MODE` and `socket-mode = "0600"` in a file. */
  readonly flag: string;
  /** How the help calls its value. The flag takes none where this is missing: it is true where it is given. */
  readonly placeholder?: string;
  /** True if the flag may be given several times. A variable separates several values, a file has a list. */
  readonly repeatable?: boolean;
  readonly read: Read<T>;
  /** The value where none is given, or how to find it. */
  readonly default: T | ((around: Surroundings, instance: string) => T);
  /** How the help says the default where that is neither a text nor a number as people write it. */
  readonly defaultText?: string;
  /** True if SIGHUP changes it in a running daemon; otherwise it takes effect at the next start. */
  readonly reloadable: boolean;
  readonly help: string;
}

const socketAt = checkedBy(path, (socket) => checkSocketPath(socket, Buffer.byteLength(socket)));

/** Every option, by its name in `Config`, in the order of the help. */
export const OPTIONS = {
  instance: option({
    flag: "instance",
    placeholder: "NAME",
    read: checkedBy(text, checkInstance),
    default: DEFAULT_INSTANCE,
    reloadable: false,
    help: "Which daemon of this user",
  }),
  socket: option({
    flag: "socket",
    placeholder: "PATH",
    read: socketAt,
    default: (around, instance) => {
      const socket = resolve(socketPath(around, instance));
      checkSocketPath(socket, Buffer.byteLength(socket));
      return socket;
    },
    defaultText: "see `pawl socket-path`",
    reloadable: false,
    help: "Where to listen",
  }),
  socketMode: option({
    flag: "socket-mode",
    placeholder: "MODE",
    read: fileMode,
    default: 0o600,
    defaultText: "0600",
    reloadable: false,
    help: "Who may connect, in octal",
  }),
  socketGroup: option({
    flag: "socket-group",
    placeholder: "NAME",
    read: text,
    default: undefined,
    reloadable: false,
    help: "Group of the socket",
  }),
  readOnlySocket: option({
    flag: "read-only-socket",
    placeholder: "PATH",
    read: socketAt,
    default: undefined,
    defaultText: "none",
    reloadable: false,
    help: "A second socket, which refuses what writes",
  }),
  readOnlySocketMode: option({
    flag: "read-only-socket-mode",
    placeholder: "MODE",
    read: fileMode,
    default: 0o600,
    defaultText: "0600",
    reloadable: false,
    help: "Who may connect there, in octal",
  }),
  readOnly: option({
    flag: "read-only",
    read: yesOrNo,
    default: false,
    reloadable: false,
    help: "Serve reads of the database of another pawld, which goes on writing it; needs a --socket of its own",
  }),
  /** With `allowGids`: whose requests are served; both empty serve everybody who can connect. */
  allowUids: option({
    flag: "allow-uid",
    placeholder: "UID",
    repeatable: true,
    read: ids,
    default: [],
    defaultText: "whoever may connect",
    reloadable: true,
    help: "Serve only this user; may be repeated",
  }),
  allowGids: option({
    flag: "allow-gid",
    placeholder: "GID",
    repeatable: true,
    read: ids,
    default: [],
    reloadable: true,
    help: "Serve also, or only, this group; may be repeated",
  }),
  stateDir: option({
    flag: "state-dir",
    placeholder: "DIR",
    read: path,
    default: (around, instance) => resolve(stateDirectory(around, instance)),
    defaultText: "$XDG_STATE_HOME/pawl/NAME, or /var/lib/pawl/NAME for root",
    reloadable: false,
    help: "Where the database is",
  }),
  mode: option<Mode["kind"] | undefined>({
    flag: "mode",
    placeholder: "centralized|distributed",
    read: oneOf(["centralized", "distributed"]),
    default: undefined,
    defaultText: "as the database was made; centralized for a new one",
    reloadable: false,
    help: "Ids like FR-001, or like FR-7-001 and FR-JM-001, unique across nodes",
  }),
  nodeId: option({
    flag: "node-id",
    placeholder: "ID",
    read: node,
    default: undefined,
    reloadable: false,
    help: "This node's number or name in distributed mode, no other's",
  }),
  idDigits: option({
    flag: "id-digits",
    placeholder: "N",
    read: whole(0, MAX_ID_DIGITS),
    default: undefined,
    defaultText: "as the database has it; 3 for a new one",
    reloadable: false,
    help: "Digits that the numbers in ids have at least, with zeros before them",
  }),
  acceptModeChange: option({
    flag: "accept-mode-change",
    read: yesOrNo,
    default: false,
    reloadable: false,
    help: "Open a database that was made with another mode or node id",
  }),
  acceptIdentityChange: option({
    flag: "accept-identity-change",
    read: yesOrNo,
    default: false,
    reloadable: false,
    help: "Go on under another identity.key than the one the board was written with, or under a new one",
  }),
  acceptRestore: option({
    flag: "accept-restore",
    read: yesOrNo,
    default: false,
    reloadable: false,
    help: "Go on with an older copy of the database, above all that was given; tokens of before are void",
  }),
  acceptNetworkFilesystem: option({
    flag: "accept-network-filesystem",
    read: yesOrNo,
    default: false,
    reloadable: false,
    help: "Open a database on NFS, SMB and the like, where locks may not hold",
  }),
  /** Seconds; undefined never exits for idleness. */
  idleExit: option({
    flag: "idle-exit",
    placeholder: "SECONDS",
    read: whole(1, MAX_IDLE_EXIT_SECONDS),
    default: undefined,
    defaultText: "never",
    reloadable: true,
    help: "Exit after so long without connections, claims and leases",
  }),
  maxMessageBytes: option({
    flag: "max-message-bytes",
    placeholder: "N",
    read: whole(MIN_MAX_MESSAGE_BYTES, MAX_MAX_MESSAGE_BYTES),
    default: DEFAULT_MAX_MESSAGE_BYTES,
    reloadable: true,
    help: "Longest request line",
  }),
  maxUnsentBytes: option({
    flag: "max-unsent-bytes",
    placeholder: "N",
    read: whole(MIN_MAX_ALL_UNSENT_BYTES, MAX_MAX_ALL_UNSENT_BYTES),
    default: DEFAULT_MAX_ALL_UNSENT_BYTES,
    reloadable: true,
    help: "Replies that all clients together may leave unread",
  }),
  leaseRules: option({
    flag: "lease-provider",
    placeholder: "PATTERN=SPEC",
    repeatable: true,
    read: listOf(parseLeaseRule, "PATTERN=SPEC"),
    default: [],
    defaultText: "all in the database",
    reloadable: false,
    help: "Keep leases of these names elsewhere: dynamodb:..., etcd:..., custom:...; may be repeated",
  }),
  sharedRules: option({
    flag: "shared",
    placeholder: "PATTERN=URL",
    repeatable: true,
    read: listOf(parseSharedRule, "PATTERN=URL"),
    default: [],
    defaultText: "all in the database",
    reloadable: false,
    help: "Keep what has these names in PostgreSQL, which daemons share: postgresql://...; may be repeated",
  }),
  retentionDays: option({
    flag: "retention-days",
    placeholder: "N",
    read: whole(1, MAX_RETENTION_DAYS),
    default: DEFAULT_RETENTION_DAYS,
    reloadable: true,
    help: "How long batches and commands are kept after their end",
  }),
  logLevel: option<LogLevel>({
    flag: "log-level",
    placeholder: "LEVEL",
    read: oneOf(LOG_LEVELS),
    default: "info",
    reloadable: true,
    help: LOG_LEVELS.join(", "),
  }),
};

/** Flags that make no sense in the environment or in a file. */
export const ONLY_FLAGS = {
  config: { flag: "config", placeholder: "FILE", help: "TOML file with the options above as keys" },
  leaseTable: {
    flag: "create-lease-table",
    placeholder: "SPEC",
    help: "Make the table of dynamodb:table=..., say so as JSON and end; `pawl lease-table create` does this",
  },
  sharedTables: {
    flag: "create-shared-tables",
    placeholder: "URL",
    help: "Make the tables of shared names, or bring them up to date, say so as JSON and end; `pawl shared create` does this",
  },
  dryRun: { flag: "dry-run", help: "With --create-shared-tables: only say what there is to do" },
  help: { flag: "help", help: "Show this text" },
  version: { flag: "version", help: "Show the version" },
};

export type OptionName = keyof typeof OPTIONS;

/** The values of the options, each with its own type. */
export type Values = {
  readonly [N in OptionName]: (typeof OPTIONS)[N] extends Option<infer T> ? T : never;
};

/** The options of the table as one type, for what treats all alike. */
export const ALL_OPTIONS = Object.entries(OPTIONS) as [OptionName, Option<unknown>][];

/** Has the type of an entry's value follow from its parser and its default. */
function option<T>(each: Option<T>): Option<T> {
  return each;
}

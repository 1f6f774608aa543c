import { existsSync, readFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { Mode } from "@pawl/protocol";
import { PawlError, shown } from "@pawl/protocol/errors";
import {
  DEFAULT_MAX_MESSAGE_BYTES,
  DEFAULT_RETENTION_DAYS,
  MAX_MAX_MESSAGE_BYTES,
  MAX_NODE_ID,
  MIN_MAX_MESSAGE_BYTES,
} from "@pawl/protocol/limits";
import {
  checkInstance,
  checkSocketPath,
  DEFAULT_INSTANCE,
  firstDirectory,
  type Surroundings,
  socketPath,
  stateDirectory,
} from "@pawl/protocol/paths";
import { parse as parseToml } from "smol-toml";
import { VERSION } from "../domain/daemon.js";
import { LOG_LEVELS, type LogLevel } from "../log.js";
import {
  type DynamoDbSpecification,
  type LeaseRule,
  parseLeaseRule,
  parseProvider,
} from "../remote/specification.js";

export interface Config {
  instance: string;
  socket: string;
  socketMode: number;
  socketGroup: string | undefined;
  /** A second socket that serves only reads. */
  readOnlySocket: string | undefined;
  readOnlySocketMode: number;
  /** Whether the database is only read, beside the daemon that writes it. */
  readOnly: boolean;
  /** Whose requests are served; both empty serves everybody who can connect. */
  allowUids: readonly number[];
  allowGids: readonly number[];
  stateDir: string;
  /** Undefined takes the database as it is. */
  mode: Mode | undefined;
  acceptModeChange: boolean;
  /** Where systemd puts what a service is given in secret. */
  credentialsDirectory: string | undefined;
  acceptIdentityChange: boolean;
  /** Seconds; undefined never exits for idleness. */
  idleExit: number | undefined;
  maxMessageBytes: number;
  /** Where leases are kept, by their names; in the database where none fits. */
  leaseRules: readonly LeaseRule[];
  /** How long what has ended is kept: batches, commands with their answers. */
  retentionDays: number;
  logLevel: LogLevel;
}

interface Option {
  type: "string" | "number" | "boolean";
  describe: string;
  /** What the help shows as the value's name. */
  placeholder?: string;
  default?: string;
  /** May be given several times, in the environment with commas, in a file as a list. */
  repeatable?: boolean;
}

/**
 * Every option, by its flag. The environment variable of `--socket-mode` is `PAWL_SOCKET_MODE`, its key in a
 * config file `socket-mode`. Flags win over the environment, which wins over the file.
 */
const OPTIONS = {
  instance: {
    type: "string",
    placeholder: "NAME",
    describe: "Which daemon of this user",
    default: DEFAULT_INSTANCE,
  },
  socket: {
    type: "string",
    placeholder: "PATH",
    describe: "Where to listen",
    default: "see `pawl socket-path`",
  },
  "socket-mode": {
    type: "string",
    placeholder: "MODE",
    describe: "Who may connect, in octal",
    default: "0600",
  },
  "socket-group": { type: "string", placeholder: "NAME", describe: "Group of the socket" },
  "read-only-socket": {
    type: "string",
    placeholder: "PATH",
    describe: "A second socket, which refuses what writes",
    default: "none",
  },
  "read-only-socket-mode": {
    type: "string",
    placeholder: "MODE",
    describe: "Who may connect there, in octal",
    default: "0600",
  },
  "read-only": {
    type: "boolean",
    describe:
      "Serve reads of the database of another pawld, which goes on writing it; needs a --socket of its own",
  },
  "allow-uid": {
    type: "number",
    placeholder: "UID",
    describe: "Serve only this user; may be repeated",
    default: "whoever may connect",
    repeatable: true,
  },
  "allow-gid": {
    type: "number",
    placeholder: "GID",
    describe: "Serve also, or only, this group; may be repeated",
    repeatable: true,
  },
  "state-dir": {
    type: "string",
    placeholder: "DIR",
    describe: "Where the database is",
    default: "$XDG_STATE_HOME/pawl/NAME, or /var/lib/pawl/NAME for root",
  },
  mode: {
    type: "string",
    placeholder: "centralized|distributed",
    describe: "Ids like FR-001, or like FR-7-001, unique across nodes",
    default: "as the database was made; centralized for a new one",
  },
  "node-id": { type: "number", placeholder: "N", describe: "This node's number in distributed mode" },
  "accept-mode-change": {
    type: "boolean",
    describe: "Open a database that was made with another mode or node id",
  },
  "accept-identity-change": {
    type: "boolean",
    describe: "Go on under another identity.key than the one the board was written with, or under a new one",
  },
  "idle-exit": {
    type: "number",
    placeholder: "SECONDS",
    describe: "Exit after so long without connections, claims and leases",
    default: "never",
  },
  "max-message-bytes": {
    type: "number",
    placeholder: "N",
    describe: "Longest request line",
    default: String(DEFAULT_MAX_MESSAGE_BYTES),
  },
  "lease-provider": {
    type: "string",
    placeholder: "PATTERN=SPEC",
    describe: "Keep leases of these names elsewhere: dynamodb:..., etcd:..., custom:...; may be repeated",
    default: "all in the database",
    repeatable: true,
  },
  "retention-days": {
    type: "number",
    placeholder: "N",
    describe: "How long batches and commands are kept after their end",
    default: String(DEFAULT_RETENTION_DAYS),
  },
  "log-level": { type: "string", placeholder: "LEVEL", describe: LOG_LEVELS.join(", "), default: "info" },
} as const satisfies Record<string, Option>;

/** What makes no sense in the environment or in a file. */
const ONLY_FLAGS = {
  config: { type: "string", placeholder: "FILE", describe: "TOML file with the options above as keys" },
  "create-lease-table": {
    type: "string",
    placeholder: "SPEC",
    describe:
      "Make the table of dynamodb:table=..., say so as JSON and end; `pawl lease-table create` does this",
  },
  help: { type: "boolean", describe: "Show this text" },
  version: { type: "boolean", describe: "Show the version" },
} as const satisfies Record<string, Option>;

const MAX_RETENTION_DAYS = 3650;
const MAX_IDLE_EXIT_SECONDS = 365 * 24 * 60 * 60;
const HELP_COLUMN = 36;
/** The largest user or group number; 2^32 - 1 means none. */
const MAX_ID = 2 ** 32 - 2;

type Flag = keyof typeof OPTIONS;
/** A value and where it came from, for messages. */
type Given = Map<Flag, { value: unknown; source: string }>;

/**
 * Reads flags, environment and config file. Anything unknown or out of range is refused with its name and
 * value (`invalid_params`), also where another layer wins over it: it would come to light on the day on which that
 * layer goes. A string is what to print instead of running: the help or the version.
 */
export function readConfig(args: readonly string[], env: NodeJS.ProcessEnv): Config | string {
  const flags = parseFlags(args);
  if (flags.help) return helpText();
  if (flags.version) return `pawld ${VERSION}\n`;
  const inFlags = fromFlags(flags);
  const inEnvironment = fromEnvironment(env);
  const instance = READERS.instance(inFlags) ?? READERS.instance(inEnvironment) ?? DEFAULT_INSTANCE;
  const file = (flags.config as string | undefined) ?? env.PAWL_CONFIG ?? unitConfig(instance, env);
  const layers = [...(file === undefined ? [] : [fromFile(file)]), inEnvironment, inFlags];
  for (const layer of layers) {
    for (const name of layer.keys()) READERS[name](layer);
  }
  return toConfig(new Map(layers.flatMap((layer) => [...layer])), env);
}

/** The table that is to be made instead of running, if one is. Refused with `invalid_params` like the options. */
export function tableToCreate(args: readonly string[]): DynamoDbSpecification | undefined {
  const text = parseFlags(args)["create-lease-table"] as string | undefined;
  if (text === undefined) return undefined;
  const specification = parseProvider(text);
  if (specification.kind === "dynamodb") return specification;
  throw new PawlError("invalid_params", `${shown(text)} needs no table; only dynamodb:table=NAME does.`);
}

/** `node:util`'s parser, because yargs would add 13 MB to a process that runs for years. */
function parseFlags(args: readonly string[]): Record<string, unknown> {
  const options = Object.fromEntries(
    [
      ...(Object.entries(OPTIONS) as [string, Option][]),
      ...(Object.entries(ONLY_FLAGS) as [string, Option][]),
    ].map(
      // Numbers stay text here, so that a value like "abc" arrives as it was typed and can be named.
      ([name, { type, repeatable }]) => [
        name,
        {
          type: type === "boolean" ? ("boolean" as const) : ("string" as const),
          multiple: repeatable ?? false,
        },
      ],
    ),
  );
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new PawlError(
      "invalid_params",
      `${(error as Error).message.replace(/(\.\n.*| To specify.*)/s, "").replace(/\.$/, "")}. See pawld --help.`,
    );
  }
}

/** The text of `pawld --help`. */
export function helpText(): string {
  const options = [
    ...(Object.entries(OPTIONS) as [string, Option][]),
    ...(Object.entries(ONLY_FLAGS) as [string, Option][]),
  ];
  const rows = options.map(([name, option]) => {
    const left = `  --${name}${option.placeholder === undefined ? "" : ` ${option.placeholder}`}`;
    const right = `${option.describe}${option.default === undefined ? "" : ` [${option.default}]`}`;
    return left.length < HELP_COLUMN
      ? `${left.padEnd(HELP_COLUMN)}${right}`
      : `${left}\n${" ".repeat(HELP_COLUMN)}${right}`;
  });
  return `pawld [options]

The pawl daemon: owns the state of this node and serves it as JSON-RPC 2.0 on a Unix socket.

Options, with their defaults in brackets:
${rows.join("\n")}

An option can also be set in the environment (--state-dir as PAWL_STATE_DIR) or in the file of --config
(state-dir = "..."). Flags win over the environment, which wins over the file. Under systemd the file is
$CONFIGURATION_DIRECTORY/NAME.toml of the instance, if it is there. SIGHUP has it read again: allow-uid,
allow-gid, idle-exit, max-message-bytes, retention-days and log-level change at once, the rest at the next start.

Examples:
  pawld                                    serve on the default paths of this user
  pawld --instance ci --idle-exit 600      a second daemon, which ends when nobody uses it
  pawld --lease-provider 'release/*=dynamodb:table=leases'   leases over several machines; see docs/providers
  pawld --mode distributed --node-id 7     ids like FR-7-001, unique across nodes without coordination
`;
}

/** The file of an instance in the directory that a unit of systemd has for it, if there is one. */
function unitConfig(instance: string, env: NodeJS.ProcessEnv): string | undefined {
  const directory = firstDirectory(env.CONFIGURATION_DIRECTORY);
  if (directory === undefined) return undefined;
  const file = join(directory, `${instance}.toml`);
  return existsSync(file) ? file : undefined;
}

function fromFile(file: string): Given {
  const given: Given = new Map();
  let table: Record<string, unknown>;
  try {
    table = parseToml(readFileSync(file, "utf8"));
  } catch (error) {
    throw new PawlError(
      "invalid_params",
      `The config file ${file} cannot be read: ${(error as Error).message}`,
    );
  }
  for (const [key, value] of Object.entries(table)) {
    if (!Object.hasOwn(OPTIONS, key)) {
      throw new PawlError(
        "invalid_params",
        `The config file ${file} has the unknown key ${shown(key)}. See pawld --help.`,
      );
    }
    given.set(key as Flag, { value, source: `${key} in ${file}` });
  }
  return given;
}

function fromEnvironment(env: NodeJS.ProcessEnv): Given {
  const given: Given = new Map();
  for (const name of flagNames()) {
    const variable = `PAWL_${name.toUpperCase().replaceAll("-", "_")}`;
    const value = env[variable];
    if (value !== undefined && value !== "") given.set(name, { value, source: variable });
  }
  return given;
}

function fromFlags(flags: Record<string, unknown>): Given {
  const given: Given = new Map();
  for (const name of flagNames()) {
    if (flags[name] !== undefined) given.set(name, { value: flags[name], source: `--${name}` });
  }
  return given;
}

/** How each option is read; throws when it is given and cannot be that. */
const READERS = {
  instance: (given) => checked(given, "instance", text(given, "instance"), checkInstance),
  socket: (given) => socketAt(given, "socket"),
  "socket-mode": (given) => socketMode(given, "socket-mode"),
  "socket-group": (given) => text(given, "socket-group"),
  "read-only-socket": (given) => socketAt(given, "read-only-socket"),
  "read-only-socket-mode": (given) => socketMode(given, "read-only-socket-mode"),
  "read-only": (given) => truth(given, "read-only"),
  "allow-uid": (given) => numbers(given, "allow-uid"),
  "allow-gid": (given) => numbers(given, "allow-gid"),
  "state-dir": (given) => path(given, "state-dir"),
  mode: (given) => oneOf(given, "mode", ["centralized", "distributed"]),
  "node-id": (given) => whole(given, "node-id", 1, MAX_NODE_ID),
  "accept-mode-change": (given) => truth(given, "accept-mode-change"),
  "accept-identity-change": (given) => truth(given, "accept-identity-change"),
  "idle-exit": (given) => whole(given, "idle-exit", 1, MAX_IDLE_EXIT_SECONDS),
  "max-message-bytes": (given) =>
    whole(given, "max-message-bytes", MIN_MAX_MESSAGE_BYTES, MAX_MAX_MESSAGE_BYTES),
  "lease-provider": (given) => leaseRules(given),
  "retention-days": (given) => whole(given, "retention-days", 1, MAX_RETENTION_DAYS),
  "log-level": (given) => oneOf(given, "log-level", LOG_LEVELS),
} as const satisfies Record<Flag, (given: Given) => unknown>;

function toConfig(given: Given, env: NodeJS.ProcessEnv): Config {
  const around: Surroundings = {
    env,
    uid: process.getuid?.() ?? 0,
    temporaryDirectory: tmpdir(),
    homeDirectory: homedir,
  };
  const instance = READERS.instance(given) ?? DEFAULT_INSTANCE;
  const socket = READERS.socket(given) ?? resolve(socketPath(around, instance));
  checkSocketPath(socket, Buffer.byteLength(socket));
  const readOnlySocket = READERS["read-only-socket"](given);
  if (readOnlySocket === socket) throw bad(given, "read-only-socket", "another path than --socket");
  return {
    instance,
    socket,
    socketMode: READERS["socket-mode"](given),
    socketGroup: READERS["socket-group"](given),
    readOnlySocket,
    readOnlySocketMode: READERS["read-only-socket-mode"](given),
    readOnly: READERS["read-only"](given),
    allowUids: READERS["allow-uid"](given),
    allowGids: READERS["allow-gid"](given),
    stateDir: READERS["state-dir"](given) ?? resolve(stateDirectory(around, instance)),
    mode: mode(given),
    acceptModeChange: READERS["accept-mode-change"](given),
    credentialsDirectory: env.CREDENTIALS_DIRECTORY,
    acceptIdentityChange: READERS["accept-identity-change"](given),
    idleExit: READERS["idle-exit"](given),
    maxMessageBytes: READERS["max-message-bytes"](given) ?? DEFAULT_MAX_MESSAGE_BYTES,
    leaseRules: READERS["lease-provider"](given),
    retentionDays: READERS["retention-days"](given) ?? DEFAULT_RETENTION_DAYS,
    logLevel: READERS["log-level"](given) ?? "info",
  };
}

function mode(given: Given): Mode | undefined {
  const kind = READERS.mode(given);
  const nodeId = READERS["node-id"](given);
  if (kind === "distributed" && nodeId === undefined) {
    throw new PawlError(
      "invalid_params",
      "--mode distributed needs --node-id N, this node's number among all nodes.",
    );
  }
  if (kind !== "distributed" && nodeId !== undefined) {
    throw new PawlError(
      "invalid_params",
      `--node-id ${nodeId} belongs to --mode distributed. Give both or neither.`,
    );
  }
  if (kind === undefined) return undefined;
  return nodeId === undefined ? { kind: "centralized" } : { kind: "distributed", nodeId };
}

/** Several in the environment are separated by spaces: there are commas in them. */
function leaseRules(given: Given): LeaseRule[] {
  const entry = given.get("lease-provider");
  if (entry === undefined) return [];
  const { value, source } = entry;
  const list = typeof value === "string" ? value.split(/\s+/).filter((each) => each !== "") : value;
  if (!Array.isArray(list) || !list.every((each) => typeof each === "string")) {
    throw bad(given, "lease-provider", "a list of texts like PATTERN=SPEC");
  }
  return list.map((each) => {
    try {
      return parseLeaseRule(each);
    } catch (error) {
      throw new PawlError("invalid_params", `${source}: ${(error as Error).message}`);
    }
  });
}

function socketAt(given: Given, name: "socket" | "read-only-socket"): string | undefined {
  return checked(given, name, path(given, name), (socket) =>
    checkSocketPath(socket, Buffer.byteLength(socket)),
  );
}

/** A value that a rule of others accepts; what it refuses is refused with where the value came from. */
function checked(
  given: Given,
  name: Flag,
  value: string | undefined,
  check: (value: string) => void,
): string | undefined {
  if (value === undefined) return undefined;
  try {
    check(value);
  } catch (error) {
    throw new PawlError("invalid_params", `${given.get(name)?.source}: ${(error as Error).message}`);
  }
  return value;
}

function socketMode(given: Given, name: "socket-mode" | "read-only-socket-mode"): number {
  const value = text(given, name);
  if (value === undefined) return 0o600;
  const parsed = /^0?o?[0-7]{3}$/.test(value) ? Number.parseInt(value.replace("o", ""), 8) : undefined;
  if (parsed === undefined) throw bad(given, name, "an octal mode such as 0660");
  return parsed;
}

function text(given: Given, name: Flag): string | undefined {
  const value = given.get(name)?.value;
  if (value === undefined) return undefined;
  if (typeof value !== "string" || value === "") throw bad(given, name, "a text that is not empty");
  return value;
}

function whole(given: Given, name: Flag, min: number, max: number): number | undefined {
  const value = given.get(name)?.value;
  if (value === undefined) return undefined;
  const number = typeof value === "string" && /^[0-9]+$/.test(value) ? Number(value) : value;
  if (!Number.isSafeInteger(number) || (number as number) < min || (number as number) > max) {
    throw bad(given, name, `a whole number from ${min} to ${max}`);
  }
  return number as number;
}

/** User or group numbers, which the kernel keeps in 32 bits. */
function numbers(given: Given, name: Flag): number[] {
  if (!given.has(name)) return [];
  const value = given.get(name)?.value;
  const list = typeof value === "string" ? value.split(",") : Array.isArray(value) ? value : [value];
  // An empty list would let in everybody, which nobody means who writes one.
  if (list.length === 0) throw bad(given, name, `at least one number from 0 to ${MAX_ID}`);
  return list.map((each: unknown) => {
    const number = typeof each === "string" && /^[0-9]+$/.test(each.trim()) ? Number(each) : each;
    if (!Number.isInteger(number) || (number as number) < 0 || (number as number) > MAX_ID) {
      throw bad(given, name, `a number from 0 to ${MAX_ID}`, each);
    }
    return number as number;
  });
}

function path(given: Given, name: Flag): string | undefined {
  const value = text(given, name);
  return value === undefined ? undefined : resolve(value);
}

function truth(given: Given, name: Flag): boolean {
  const value = given.get(name)?.value ?? false;
  if (value === true || value === "true" || value === "1") return true;
  if (value === false || value === "false" || value === "0") return false;
  throw bad(given, name, "true or false");
}

function oneOf<T extends string>(given: Given, name: Flag, values: readonly T[]): T | undefined {
  const value = given.get(name)?.value;
  if (value === undefined) return undefined;
  if (!values.includes(value as T)) throw bad(given, name, `one of ${values.join(", ")}`);
  return value as T;
}

/** `value`: what is wrong, where that is only one of several that were given. */
function bad(given: Given, name: Flag, wanted: string, value = given.get(name)?.value): PawlError {
  const source = given.get(name)?.source;
  return new PawlError("invalid_params", `${source} must be ${wanted}, not ${shown(value)}.`);
}

function flagNames(): Flag[] {
  return Object.keys(OPTIONS) as Flag[];
}

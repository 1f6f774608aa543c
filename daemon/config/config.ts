// This room makes one configuration of flags, environment and config file. `options.ts` is the table of all options:
// their parsers, defaults and help, and which of them a running daemon takes over, follow from it. The room imports
// protocol, and from the rooms beside it only the texts that an option takes.
import { existsSync, lstatSync, readFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Mode } from "@pawl/protocol";
import { PawlError, shortened, shown } from "@pawl/protocol/errors";
import { DEFAULT_INSTANCE, firstDirectory, type Surroundings } from "@pawl/protocol/paths";
import { parse as parseToml } from "smol-toml";
import { VERSION } from "../domain/daemon.js";
import { type DynamoDbSpecification, parseProvider } from "../remote/specification.js";
import { helpText } from "./help.js";
import { ALL_OPTIONS, ONLY_FLAGS, OPTIONS, type OptionName, type Values } from "./options.js";
import { wrong } from "./values.js";

export interface Config extends Omit<Values, "mode" | "nodeId"> {
  /** The mode of ids, of `--mode` and `--node-id`; undefined takes the database as it is. */
  readonly mode: Mode | undefined;
  /** Where systemd puts what a service is given in secret. */
  readonly credentialsDirectory: string | undefined;
}

/** Values by option, with where each came from: `--idle-exit`, `PAWL_IDLE_EXIT`, `idle-exit in /etc/pawld.toml`. */
type Layer = Map<OptionName, { value: unknown; source: string }>;

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
  const instance = (inFlags.get("instance") ?? inEnvironment.get("instance"))?.value ?? DEFAULT_INSTANCE;
  const file = (flags.config as string | undefined) ?? env.PAWL_CONFIG ?? unitConfig(instance as string, env);
  const inFile: Layer = file === undefined ? new Map() : fromFile(file);
  return toConfig(new Map([...inFile, ...inEnvironment, ...inFlags]), env);
}

/** True if SIGHUP changes an option in a running daemon. */
export function isReloadable(name: keyof Config): boolean {
  return name in OPTIONS && OPTIONS[name as OptionName].reloadable;
}

/** The table that is to be made instead of running, if one is. Refused with `invalid_params` like the options. */
export function tableToCreate(args: readonly string[]): DynamoDbSpecification | undefined {
  const text = parseFlags(args)[ONLY_FLAGS.leaseTable.flag] as string | undefined;
  if (text === undefined) return undefined;
  const specification = parseProvider(text);
  if (specification.kind === "dynamodb") return specification;
  throw new PawlError("invalid_params", `${shown(text)} needs no table; only dynamodb:table=NAME does.`);
}

/** The place whose tables are to be made instead of running, if one is. */
export function sharedTablesToCreate(args: readonly string[]): { url: string; dryRun: boolean } | undefined {
  const { [ONLY_FLAGS.sharedTables.flag]: url, [ONLY_FLAGS.dryRun.flag]: dryRun = false } = parseFlags(args);
  return url === undefined ? undefined : { url: url as string, dryRun: dryRun as boolean };
}

/** `node:util`'s parser, because yargs would add 13 MB to a process that runs for years. */
function parseFlags(args: readonly string[]): Record<string, unknown> {
  const options = Object.fromEntries(
    [...Object.values(OPTIONS), ...Object.values(ONLY_FLAGS)].map((option) => {
      const { flag, placeholder, repeatable = false } = option as Partial<typeof OPTIONS.instance>;
      return [
        flag,
        { type: placeholder === undefined ? "boolean" : "string", multiple: repeatable },
      ] as const;
    }),
  );
  const joined = withValuesJoined(
    args,
    (argument) => argument.startsWith("--") && options[argument.slice(2)]?.type === "string",
  );
  try {
    return parseArgs({ args: joined, options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new PawlError(
      "invalid_params",
      `${(error as Error).message.replace(/(\.\n.*| To specify.*)/s, "").replace(/\.$/, "")}. See pawld --help.`,
    );
  }
}

/**
 * The arguments with each value that begins with a dash joined to its flag, `--idle-exit=-1`: no flag has one dash, and
 * the parser takes none for a value. Refuses what begins with two.
 */
function withValuesJoined(args: readonly string[], takesValue: (flag: string) => boolean): string[] {
  const joined: string[] = [];
  for (let index = 0; index < args.length; index++) {
    const [argument = "", value] = args.slice(index, index + 2);
    if (value === undefined || !takesValue(argument)) {
      joined.push(argument);
      continue;
    }
    if (value.startsWith("--")) {
      throw new PawlError(
        "invalid_params",
        `${argument} takes a value, not ${shown(value)}. One that begins with dashes is written ${argument}=${shortened(value)}. See pawld --help.`,
      );
    }
    joined.push(`${argument}=${value}`);
    index++;
  }
  return joined;
}

function fromFlags(flags: Record<string, unknown>): Layer {
  return layerOf(({ flag }) => ({ value: flags[flag], source: `--${flag}` }));
}

function fromEnvironment(env: NodeJS.ProcessEnv): Layer {
  return layerOf(({ flag }) => {
    const variable = `PAWL_${flag.toUpperCase().replaceAll("-", "_")}`;
    // An empty variable is as good as none.
    return { value: env[variable] || undefined, source: variable };
  });
}

function fromFile(file: string): Layer {
  let table: Record<string, unknown>;
  try {
    table = parseToml(readFileSync(file, "utf8"));
  } catch (error) {
    throw new PawlError(
      "invalid_params",
      `The config file ${file} cannot be read: ${(error as Error).message}`,
    );
  }
  const known = new Set<string>(ALL_OPTIONS.map(([, { flag }]) => flag));
  const unknown = Object.keys(table).find((key) => !known.has(key));
  if (unknown !== undefined) {
    throw new PawlError(
      "invalid_params",
      `The config file ${file} has the unknown key ${shown(unknown)}. See pawld --help.`,
    );
  }
  return layerOf(({ flag }) => ({ value: table[flag], source: `${flag} in ${file}` }));
}

/** The file of an instance in the directory that a unit of systemd has for it, if there is one. */
function unitConfig(instance: string, env: NodeJS.ProcessEnv): string | undefined {
  const directory = firstDirectory(env.CONFIGURATION_DIRECTORY);
  if (directory === undefined) return undefined;
  const file = join(directory, `${instance}.toml`);
  return existsSync(file) ? file : undefined;
}

/** Reads what `given` has for each option; an option is left out where that is undefined. */
function layerOf(given: (option: { flag: string }) => { value: unknown; source: string }): Layer {
  const layer: Layer = new Map();
  for (const [name, option] of ALL_OPTIONS) {
    const { value, source } = given(option);
    if (value !== undefined) layer.set(name, { value: option.read(value, source), source });
  }
  return layer;
}

function toConfig(given: Layer, env: NodeJS.ProcessEnv): Config {
  const uid = process.getuid?.() ?? 0;
  const around: Surroundings = {
    env,
    uid,
    temporaryDirectory: tmpdir(),
    isOurs: (directory) => lstatSync(directory, { throwIfNoEntry: false })?.uid === uid,
    homeDirectory: homedir,
  };
  const instance = (given.get("instance")?.value ?? DEFAULT_INSTANCE) as string;
  const values = Object.fromEntries(
    ALL_OPTIONS.map(([name, { default: otherwise }]) => [
      name,
      given.has(name)
        ? given.get(name)?.value
        : typeof otherwise === "function"
          ? otherwise(around, instance)
          : otherwise,
    ]),
  ) as unknown as Values;
  const readOnlySocket = given.get("readOnlySocket");
  if (readOnlySocket?.value === values.socket) {
    throw wrong(readOnlySocket.source, "another path than --socket", readOnlySocket.value);
  }
  const { mode: kind, nodeId, ...rest } = values;
  return { ...rest, mode: modeOf(kind, nodeId), credentialsDirectory: env.CREDENTIALS_DIRECTORY };
}

function modeOf(kind: Values["mode"], nodeId: Values["nodeId"]): Mode | undefined {
  if (kind === "distributed" && nodeId === undefined) {
    throw new PawlError(
      "invalid_params",
      "--mode distributed needs --node-id ID, this node's number or name among all nodes.",
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

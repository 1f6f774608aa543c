import { connectToOneOf, type PawlClient } from "../connect.js";
import { defaultInstance, defaultSocketPaths } from "../connection/socket-path.js";
import type { AnyCommand, Option, Options } from "../terminal/command.js";
import type { Output, Terminal } from "../terminal/output.js";
import { completions } from "../terminal/yargs.js";
import { commandOf, GLOBAL_OPTIONS } from "./command-line.js";
import { COMMANDS, type Entry } from "./command-list.js";

/** Somebody has pressed the tab key and waits. */
const TIMEOUT_MS = 500;
const MAX_NAMES = 200;

/**
 * Prints what could come next on a command line, one a line.
 *
 * @param words the line so far, from the program's name on; the last one is the one being typed.
 */
export async function complete(
  words: readonly string[],
  output: Output,
  env: Terminal["env"],
): Promise<void> {
  const named = commandOf(words.slice(1));
  const found = (await namesFor(words, env)) ?? (await completions(words, ...(await completable(named))));
  output.write(found.map((each) => `${each}\n`).join(""));
}

/** The command on the line with its options, or else all commands. */
async function completable(named: Entry | undefined): Promise<[(Entry & AnyCommand)[], Options]> {
  const entries = named === undefined ? COMMANDS : [named];
  const commands = await Promise.all(entries.map(async (entry) => ({ ...entry, ...(await entry.load()) })));
  const options = named === undefined ? {} : commands[0]?.options;
  return [commands, { ...GLOBAL_OPTIONS, ...options }];
}

/** The words that an argument or the value of an option can be; undefined where yargs completes. */
async function namesFor(
  words: readonly string[],
  env: Terminal["env"],
): Promise<readonly string[] | undefined> {
  const entry = commandOf(words.slice(1, -1));
  if (entry === undefined) return undefined;
  const command = await entry.load();
  const before = words.slice(words.indexOf(entry.name) + 1, -1);
  // After two dashes comes another program's command line.
  if (before.includes("--")) return [];
  const { position, awaiting } = positionOf(before, { ...GLOBAL_OPTIONS, ...command.options });
  if (awaiting !== undefined) return awaiting.choices ?? [];
  if (words.at(-1)?.startsWith("-")) return undefined;
  const shapes = command.args.split(" ");
  // The last argument may take all words that are left.
  const repeated = shapes.slice(0, position + 1).find((shape) => shape.includes(".."));
  const argument = repeated ?? shapes[position] ?? "";
  // <set|show|rm>: one of these words.
  if (argument.includes("|")) return argument.slice(1, -1).split("|");
  const choices = command.words?.[argument.slice(1, -1)];
  if (choices !== undefined) return choices;
  const source = SOURCES[argument];
  return source === undefined ? undefined : await askDaemon(words, source, env);
}

interface LinePosition {
  /** How many arguments stand before. */
  readonly position: number;
  /** The option whose value comes next. */
  readonly awaiting: Option | undefined;
}

function positionOf(before: readonly string[], options: Options): LinePosition {
  let position = 0;
  let awaiting: Option | undefined;
  for (const word of before) {
    if (awaiting !== undefined) {
      awaiting = undefined;
    } else if (word.startsWith("-")) {
      const option = Object.entries(options).find(([long, { short }]) =>
        [`--${long}`, `-${short}`].includes(word),
      )?.[1];
      awaiting = option?.type === "flag" ? undefined : option;
    } else {
      position += 1;
    }
  }
  return { position, awaiting };
}

type Source = (client: PawlClient) => Promise<readonly string[]>;

const queueNames: Source = async (client) => (await client.queue.stats({})).queues.map(({ queue }) => queue);

const deploymentNames: Source = async (client) =>
  (await client.deployment.list({})).deployments.map(({ deployment }) => deployment);

/** The source of the names that an argument can be. */
const SOURCES: Readonly<Record<string, Source>> = {
  "<queue>": queueNames,
  "<queue..>": queueNames,
  "<queue-or-batch..>": queueNames,
  "[queue]": queueNames,
  "<queue-or-batch>": queueNames,
  "[schedule]": async (client) => (await client.schedules.list()).map(({ name }) => name),
  "<deployment>": deploymentNames,
  "[deployment]": deploymentNames,
  "<name>": async (client) => (await client.lease.list({})).leases.map(({ name }) => name),
  "<story>": async (client) =>
    Object.values((await client.pipeline.list({ limit: MAX_NAMES })).stages).flatMap((items) =>
      items.map(({ storyId }) => storyId),
    ),
  "[peer..]": async (client) => (await client.peer.list({})).peers.map(({ name }) => name),
  "<type>": async (client) => Object.keys((await client.sequence.state({})).sequences),
  "<method>": async (client) =>
    ((await client.rpc.discover({})).methods as { name: string }[]).map(({ name }) => name),
};

async function askDaemon(
  words: readonly string[],
  source: Source,
  env: Terminal["env"],
): Promise<readonly string[]> {
  const given = (flag: string): string | undefined => {
    const at = words.indexOf(flag);
    return at < 0 ? undefined : words[at + 1];
  };
  let client: PawlClient | undefined;
  const timer = setTimeout(() => client?.close(), TIMEOUT_MS);
  try {
    const [socket, instance] = [given("--socket"), given("--instance") ?? defaultInstance(env)];
    client = await connectToOneOf(
      socket === undefined ? defaultSocketPaths(instance, env) : [socket],
      instance,
      {},
    );
    return (await source(client)).slice(0, MAX_NAMES);
  } catch {
    // Without a daemon there is nothing to complete.
    return [];
  } finally {
    clearTimeout(timer);
    client?.close();
  }
}

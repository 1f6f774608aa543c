import yargs, { type Argv } from "yargs";
import { SERVICE_ACTIONS } from "../commands/systemd.js";
import { connect, defaultSocketPath, type PawlClient } from "../connect.js";
import { command, type Option, type Options, UsageError } from "../terminal/command.js";
import { entries, GLOBAL_OPTIONS } from "./command-list.js";
import { commandOf } from "./parse.js";

const SHELLS = ["bash", "zsh", "fish"] as const;
/** Somebody has pressed the tab key and waits. */
const TIMEOUT_MS = 500;
const MAX_NAMES = 200;

export const completion = command<"[shell]">()({
  options: {},
  details:
    "Types, queues and other names are completed too, as the daemon has them. SHELL is bash, zsh or fish.",
  examples: [
    ["pawl completion bash >> ~/.bashrc", "For new shells; `source <(pawl completion bash)` for this one"],
    ["pawl completion zsh >> ~/.zshrc", "The same for zsh"],
  ],
  async run({ shell = shellOfUser() }, { output }) {
    if (!(SHELLS as readonly string[]).includes(shell)) {
      throw new UsageError(`SHELL is bash, zsh or fish, not ${JSON.stringify(shell)}.`);
    }
    output.write(scriptFor(shell));
    return undefined;
  },
});

/**
 * The script that yargs makes. It asks the program by the login shell, which may be another than the one that
 * completes; so the script says which one asks.
 */
function scriptFor(shell: string): string {
  setShell(shell);
  let script = "";
  const log = console.log;
  console.log = (text: string) => {
    script += `${text}\n`;
  };
  try {
    yargs().scriptName("pawl").completion("completion").showCompletionScript();
  } finally {
    console.log = log;
  }
  return script
    .replaceAll("pawl --get-yargs-completions", `env ZSH_NAME= SHELL=${shell} pawl --get-yargs-completions`)
    .replace(/completion >> ~\/\.(\w+)/g, `completion ${shell} >> ~/.$1`);
}

function setShell(shell: string): void {
  process.env.SHELL = shell;
  process.env.ZSH_NAME = "";
}

function shellOfUser(): string {
  const name = process.env.SHELL?.split("/").at(-1);
  return (SHELLS as readonly string[]).includes(name ?? "") ? (name as string) : "bash";
}

/**
 * Prints what could come next on a command line.
 *
 * @param words the line so far, from the program's name on; the last one is the one being typed.
 */
export async function complete(words: readonly string[]): Promise<void> {
  const names = await namesFor(words);
  if (names !== undefined) {
    for (const name of names) console.log(name);
    return;
  }
  const command = commandOf(words.slice(1));
  const options = command === undefined ? {} : ((await entries().get(command)?.load())?.options ?? {});
  const found = await parserOf(command, options)
    .completion("completion", false as never)
    .getCompletion([...words]);
  // yargs offers one-letter options with two dashes.
  for (const each of found) if (!/^--\w(:|\t|$)/.test(each)) console.log(each);
}

/** The command that a mistyped one comes closest to, if any comes close. */
export async function closestCommand(word: string): Promise<string | undefined> {
  let said = "";
  await parserOf(undefined, {})
    .recommendCommands()
    .fail((message) => {
      said = message ?? "";
    })
    .parseAsync([word]);
  return /^Did you mean (.*)\?$/.exec(said)?.[1];
}

/** Knows the options of `command` if the line has one, and otherwise all commands. */
function parserOf(command: string | undefined, options: Options): Argv {
  let parser = yargs([]).scriptName("pawl").help(false).version(false).exitProcess(false);
  parser = parser.options(toYargs({ ...GLOBAL_OPTIONS, ...options }));
  for (const [name, { summary }] of entries()) {
    if (command === undefined || command === name) parser = parser.command(name, summary, {}, () => {});
  }
  return parser;
}

function toYargs(options: Options): Parameters<Argv["options"]>[0] {
  return Object.fromEntries(
    Object.entries(options).map(([name, { type, short, describe, choices }]) => [
      name,
      {
        describe,
        type: type === "flag" ? ("boolean" as const) : ("string" as const),
        ...(short === undefined ? {} : { alias: short }),
        ...(choices === undefined ? {} : { choices }),
      },
    ]),
  );
}

/** What an argument or the value of an option can be; undefined for what the parser completes by itself. */
async function namesFor(words: readonly string[]): Promise<readonly string[] | undefined> {
  const current = words.at(-1) ?? "";
  const name = commandOf(words.slice(1, -1));
  const entry = entries().get(name ?? "");
  if (name === undefined || entry === undefined) return undefined;
  const options: Options = { ...GLOBAL_OPTIONS, ...(await entry.load()).options };

  let position = 0;
  let awaiting: Option | undefined;
  for (const word of words.slice(words.indexOf(name) + 1, -1)) {
    // What comes after is another program's command line.
    if (word === "--") return [];
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
  if (awaiting !== undefined) return awaiting.choices ?? [];
  if (current.startsWith("-")) return undefined;
  const argument = entry.args.split(" ")[position] ?? "";
  if (argument === "[shell]") return SHELLS;
  if (argument === "[rebuild]") return ["rebuild"];
  // <set|show|rm>: one of these words.
  if (argument.includes("|")) return argument.slice(1, -1).split("|");
  if (argument === "<action>") return SERVICE_ACTIONS;
  const source = SOURCES[argument];
  return source === undefined ? undefined : await askDaemon(words, source);
}

type Source = (client: PawlClient) => Promise<readonly string[]>;

const queueNames: Source = async (client) => (await client.queue.stats({})).queues.map(({ queue }) => queue);
const deployments: Source = async (client) =>
  (await client.deployment.list({})).deployments.map(({ deployment }) => deployment);

/** Where the names come from that an argument of a command can be. */
const SOURCES: Readonly<Record<string, Source>> = {
  "<queue>": queueNames,
  "[queue]": queueNames,
  "<queue-or-batch>": queueNames,
  "<deployment>": deployments,
  "[deployment]": deployments,
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

async function askDaemon(words: readonly string[], source: Source): Promise<readonly string[]> {
  const given = (flag: string): string | undefined => {
    const at = words.indexOf(flag);
    return at < 0 ? undefined : words[at + 1];
  };
  let client: PawlClient | undefined;
  const timer = setTimeout(() => client?.close(), TIMEOUT_MS);
  try {
    client = await connect({ socket: given("--socket") ?? defaultSocketPath(given("--instance")) });
    return (await source(client)).slice(0, MAX_NAMES);
  } catch {
    // Without a daemon there is nothing to complete.
    return [];
  } finally {
    clearTimeout(timer);
    client?.close();
  }
}

// The room of the program: it reads the command line, loads the one command that is to run, and turns what becomes of
// it into output and an exit code.
import { readFileSync } from "node:fs";
import { connectToOneOf, giveUpCalls, type PawlClient } from "../connect.js";
import { defaultInstance, defaultSocketPaths } from "../connection/socket-path.js";
import { notIgnored } from "../process/inherited.js";
import { type AnyCommand, type Context, UsageError } from "../terminal/command.js";
import { Output, type Terminal } from "../terminal/output.js";
import { commandOf, firstWord, ownPart } from "./command-line.js";
import { COMMANDS } from "./command-list.js";
import { complain } from "./complaint.js";
import { EXIT_DONE, EXIT_USAGE } from "./exit-codes.js";
import { parse } from "./parse.js";

/** The script of `pawl completion` calls the program with this to ask what could come next on the line. */
const COMPLETION_FLAG = "--get-yargs-completions";

/** How long the daemon may take to answer unless the command line or the command says otherwise. */
const TIMEOUT_MS = 30_000;
const NO_LIMIT = 0;
/** How long a signal waits for what the calls were granted to be given back. */
const GIVING_BACK_MS = 2000;

/**
 * Runs one command line and resolves with the exit code; it never rejects. Everything is printed to the streams
 * given. Commands that run another program (`work`, `serve`, `lock`) use the signals of this process, and give it the
 * streams of this process.
 *
 * @param args the command line without the program's name.
 * @param terminal `process`, or the streams and the environment of a test.
 */
export async function run(args: readonly string[], terminal: Terminal): Promise<number> {
  const own = ownPart(args);
  const output = new Output(terminal, own.includes("--json"));
  try {
    const code = await dispatch(args, own, output, terminal);
    if (code === EXIT_DONE) await output.flush();
    return code;
  } catch (error) {
    return await complain(error, output, commandOf(own), own);
  }
}

async function dispatch(
  args: readonly string[],
  own: readonly string[],
  output: Output,
  terminal: Terminal,
): Promise<number> {
  if (args[0] === COMPLETION_FLAG) {
    await (await import("./completion.js")).complete(args.slice(1), output, terminal.env);
    return EXIT_DONE;
  }
  if (own.length === 0) {
    output.complain(await (await import("./help.js")).help(undefined, output));
    return EXIT_USAGE;
  }
  const entry = commandOf(own);
  if (own.includes("--help") || own.includes("-h") || own[0] === "help") {
    if (entry === undefined) await checkWord(own);
    output.write(await (await import("./help.js")).help(entry, output));
    return EXIT_DONE;
  }
  if (own.includes("--version")) {
    output.write(`pawl ${version()}\n`);
    return EXIT_DONE;
  }
  if (entry === undefined) throw await unknownCommand(own);
  return await perform(await entry.load(), args, output, terminal);
}

async function perform(
  command: AnyCommand,
  args: readonly string[],
  output: Output,
  terminal: Terminal,
): Promise<number> {
  const { stdin, env } = terminal;
  const values = parse(args, command);
  const instance = values.instance as string | undefined;
  const socket = values.socket as string | undefined;
  const socketPaths = () => (socket === undefined ? defaultSocketPaths(instance, env) : ([socket] as const));
  const ownMs = command.patient?.(values as never) ? NO_LIMIT : TIMEOUT_MS;
  const timeoutMs = (values.timeout as number | undefined) ?? ownMs;
  let client: PawlClient | undefined;
  const context: Context = {
    output,
    stdin,
    env,
    instance,
    version,
    socketPaths,
    connect: async () => {
      const options = timeoutMs === NO_LIMIT ? {} : { timeoutMs };
      client ??= await connectToOneOf(socketPaths(), instance ?? defaultInstance(env), options);
      return client;
    },
  };
  // Not in a test that runs it in its own process.
  const signals =
    command.endsBySignal && terminal === process ? notIgnored(["SIGINT", "SIGTERM", "SIGHUP"]) : [];
  let ending: Promise<never> | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    ending ??= endBy(signal, async () => {
      if (client !== undefined) await giveUpCalls(client, signal, GIVING_BACK_MS);
    });
  };
  for (const signal of signals) process.on(signal, onSignal);
  try {
    return (await command.run(values as never, context)) ?? EXIT_DONE;
  } catch (error) {
    throw ending === undefined ? error : await ending;
  } finally {
    client?.close();
    for (const signal of signals) process.off(signal, onSignal);
  }
}

/** Ends this process as the signal would have, once `prepare` is done; a second signal does not wait for that. */
async function endBy(signal: NodeJS.Signals, prepare: () => Promise<void>): Promise<never> {
  process.once(signal, () => end(signal));
  await prepare();
  return await end(signal);
}

function end(signal: NodeJS.Signals): Promise<never> {
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
  return new Promise(() => {});
}

/** Help for a word that is no command is a mistake, not the help of the program. */
async function checkWord(args: readonly string[]): Promise<void> {
  const word = firstWord(args.filter((arg) => arg !== "help"));
  if (word !== undefined) throw await unknownCommand([word]);
}

async function unknownCommand(args: readonly string[]): Promise<UsageError> {
  const word = firstWord(args);
  if (word === undefined) return new UsageError("Name a command.");
  const { closest } = await import("../terminal/yargs.js");
  const meant = await closest(
    word,
    COMMANDS.map(({ name }) => name),
  );
  return new UsageError(
    `There is no command ${JSON.stringify(word)}.${meant === undefined ? "" : ` Did you mean ${meant}?`}`,
  );
}

function version(): string {
  return JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;
}

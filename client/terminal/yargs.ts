// The only file that imports yargs, for completion and for the guess what a mistyped command was meant to be. Command
// lines themselves are parsed by Node: yargs takes as long to load as everything else together (45 of 100 ms).
import yargs, { type Argv } from "yargs";
import type { Options } from "./command.js";

/**
 * The script that completes command lines of `pawl` in a shell. yargs has the program asked by the login shell, which
 * may be another than the one that completes; so the script says which one asks.
 */
export function completionScript(shell: string): string {
  if (shell === "fish") return FISH_SCRIPT;
  const { log } = console;
  const { SHELL, ZSH_NAME } = process.env;
  let script = "";
  // yargs chooses the shell by the environment, and prints.
  Object.assign(process.env, { SHELL: shell, ZSH_NAME: "" });
  console.log = (text: string) => {
    script += `${text}\n`;
  };
  try {
    yargs().scriptName("pawl").completion("completion").showCompletionScript();
  } finally {
    console.log = log;
    restore("SHELL", SHELL);
    restore("ZSH_NAME", ZSH_NAME);
  }
  return script
    .replaceAll("pawl --get-yargs-completions", `env ZSH_NAME= SHELL=${shell} pawl --get-yargs-completions`)
    .replace(/completion >> ~\/\.(\w+)/g, `completion ${shell} >> ~/.$1`);
}

/** The script of yargs for fish leaves out the word that is being typed, and completes no files. */
const FISH_SCRIPT = `# pawl completion fish > ~/.config/fish/completions/pawl.fish
function __pawl_complete
    set -l word (commandline -ct)
    set -l found (env ZSH_NAME= SHELL=fish pawl --get-yargs-completions (commandline -opc) "$word")
    if set -q found[1]
        printf '%s\\n' $found
    else
        __fish_complete_path "$word"
    end
end
complete -c pawl -f -a '(__pawl_complete)'
`;

function restore(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}

/** A command, as far as it is completed here. */
export interface Completable {
  readonly name: string;
  readonly summary: string;
}

/**
 * The words that could come next on a line: commands, options, and the values of an option that has a choice of them.
 *
 * @param words the line so far, from the program's name on; the last one is the one being typed.
 */
export async function completions(
  words: readonly string[],
  commands: readonly Completable[],
  options: Options,
): Promise<string[]> {
  const found = await parserOf(commands)
    .options(toYargs(options))
    .completion("completion", false as never)
    .getCompletion([...words]);
  // yargs offers one-letter options with two dashes.
  return found.filter((each) => !/^--\w(:|\t|$)/.test(each));
}

/** The name that a mistyped word comes closest to, if any comes close. */
export async function closest(word: string, names: readonly string[]): Promise<string | undefined> {
  let said = "";
  await parserOf(names.map((name) => ({ name, summary: "" })))
    .recommendCommands()
    .fail((message) => {
      said = message ?? "";
    })
    .parseAsync([word]);
  return /^Did you mean (.*)\?$/.exec(said)?.[1];
}

function parserOf(commands: readonly Completable[]): Argv {
  const parser = yargs([]).scriptName("pawl").help(false).version(false).exitProcess(false);
  return commands.reduce((known, { name, summary }) => known.command(name, summary, {}, () => {}), parser);
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

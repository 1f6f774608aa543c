// What the daemon says of a request, in the words of the command line that made it.
import type { PawlError } from "@pawl/protocol/errors";
import type { MethodName } from "@pawl/protocol/types";
import type { AnyCommand } from "../terminal/command.js";

/** The commands that do what methods do. For any other method `pawl call` is named. */
export const SAME_AS: Readonly<Partial<Record<MethodName, string>>> = {
  "command.get": "why command",
  "lease.configure": "lease set",
  "path.list": "paths",
  "pipeline.configure": "board configure",
  "pipeline.write": "item set",
  "queue.configure": "queue set",
  "queue.explain": "why queue",
  "queue.retry": "retry",
  "schedule.list": "schedule list",
  "sequence.grant": "grant",
};

/** The nouns of the protocol, as its methods begin. */
const METHOD =
  /\b(?:command|daemon|deployment|events|lease|path|peer|pipeline|queue|rpc|schedule|sequence)\.[a-z][A-Za-z]*\b/g;
/** A value as messages show it, which stays as it is. */
const VALUE = /"(?:[^"\\]|\\.)*"/;
/** A name of a param that is none of an ordinary word: `waitMs`. */
const PARAM = /\b[a-z]+(?:[A-Z][a-z]+)+\b/g;

/** Params that are called otherwise at the command line. */
const CALLED: Readonly<Record<string, string>> = { storyId: "item" };
/** Before what is said of params. */
const OF_METHOD = /^[a-z]+\.[A-Za-z]+: /;

/** What `inShellWords` knows of a command. */
type Shape = Pick<AnyCommand, "args" | "options" | "words">;

/**
 * The message of a refusal with the options and arguments of the command in the place of params, and with commands in
 * the place of methods. What comes after `pawl call` is told as it is.
 *
 * @param line the program's own part of the command line.
 */
export function inShellWords(
  error: PawlError,
  name: string,
  command: Shape,
  line: readonly string[],
): string {
  const { kind, message, details } = error;
  if (name === "call") return message;
  const method = kind === "read_only" ? `${details.method} ` : "";
  if (method !== "" && message.startsWith(method)) {
    return `pawl ${asTyped(name, command, line)} ${rest(message.slice(method.length), command)}`;
  }
  return issueOf(error, command) ?? rest(error.message.replace(OF_METHOD, ""), command);
}

/** A command by its name and by the word that says what it is to do, if it has one: `next`, `item rm`. */
function asTyped(name: string, { args, words }: Shape, line: readonly string[]): string {
  const [, first = ""] = /^[<[]([^>\].]+)/.exec(args) ?? [];
  const actions = words?.[first] ?? (first.includes("|") ? first.split("|") : []);
  const action = line.slice(line.indexOf(name) + 1).find((word) => actions.includes(word));
  return action === undefined ? name : `${name} ${action}`;
}

/** What is said of the first param that does not fit, without the method. */
function issueOf({ message, details }: PawlError, command: Shape): string | undefined {
  const { issues } = details as { issues?: readonly { path: string; message: string }[] };
  const said = /^[a-z]+\.[A-Za-z]+: (\/\S+) (.*)$/s.exec(message);
  if (issues === undefined || said === null) return undefined;
  const [, path = "", what = ""] = said;
  const [param = "", ...within] = path
    .slice(1)
    .split("/")
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
  const word = wordOf(param, command);
  // The place in a list is none of the command line; the value is shown.
  const inWord = word === undefined ? within : within.filter((part) => !/^\d+$/.test(part));
  return `${[word ?? param, ...inWord].join("/")} ${rest(what, command)}`;
}

/** Text in which params and methods stand beside values. */
function rest(text: string, command: Shape): string {
  const words = (part: string): string =>
    part
      .replace(METHOD, (method) => `pawl ${SAME_AS[method as MethodName] ?? `call ${method}`}`)
      .replace(PARAM, (param) => wordOf(param, command) ?? param);
  let made = "";
  let left = text;
  for (let value = VALUE.exec(left); value !== null; value = VALUE.exec(left)) {
    made += words(left.slice(0, value.index)) + value[0];
    left = left.slice(value.index + value[0].length);
  }
  return made + words(left);
}

/** The option or the argument that a param is given by: `--wait` for waitMs, TOPIC for topics. */
function wordOf(param: string, { args, options }: Shape): string | undefined {
  const kebab = (CALLED[param] ?? param).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const names = [kebab, kebab.replace(/e?s$/, ""), kebab.replace(/s$/, "")];
  const option = [kebab.replace(/-ms$/, ""), ...names].find((each) => Object.hasOwn(options, each));
  if (option !== undefined) return `--${option}`;
  const shown = [...args.matchAll(/[<[]([^>\].]+)/g)].map(([, word = ""]) => word);
  return [kebab.replace(/-id$/, ""), ...names].find((each) => shown.includes(each))?.toUpperCase();
}

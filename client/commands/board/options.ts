// The options of `pawl board`, and which of them belong to which form of it.
import { type Arguments, type Options, UsageError } from "../../terminal/command.js";

/** Items of a stage that a person sees, unless more are asked for. */
export const SHOWN_ITEMS = 20;

export const BOARD_OPTIONS = {
  stage: { type: "text", value: "STAGE", describe: "Only this stage" },
  agent: { type: "text", value: "NAME", describe: "Only what this agent works on" },
  blocked: { type: "flag", describe: "Only what is blocked" },
  label: { type: "text", value: "LABEL", describe: "Only what has this label" },
  text: {
    type: "text",
    value: "WORDS",
    describe: "Only what has these words, in names, descriptions and notes",
  },
  limit: {
    type: "number",
    short: "n",
    value: "COUNT",
    describe: "Items of a stage to show",
    default: String(SHOWN_ITEMS),
  },
  watch: { type: "flag", short: "w", describe: "Go on: show it again after each change" },
  "dry-run": { type: "flag", describe: "With compact: only say what would be taken away" },
  verify: { type: "flag", describe: "With rebuild: only compare, and change nothing" },
  to: { type: "text", value: "STAGE", describe: "With claim and finish: where the item goes" },
  wait: { type: "duration", describe: "With claim: how long to wait for an item", default: "not at all" },
  lease: { type: "duration", describe: "With claim: how long it lasts unless it is renewed", default: "30s" },
  note: { type: "text", value: "TEXT", describe: "With finish: something to be said about it" },
  work: { type: "text", value: "STAGES", describe: "With configure: the stages that work is taken from" },
  done: { type: "text", value: "STAGES", describe: "With configure: the stages that end it" },
  follow: {
    type: "text",
    value: "STAGE=STAGES",
    describe: "With configure: which may follow which, as a=b,c;b=d; others may follow none",
  },
  "max-retries": {
    type: "number",
    value: "COUNT",
    describe: "With configure: at how many retries an item is blocked; 0 for never",
  },
  default: {
    type: "text",
    value: "NAMES",
    describe: "With configure: what is to be as it was, with commas: stages, follow, max-retries",
  },
} as const satisfies Options;

type OptionName = keyof typeof BOARD_OPTIONS;

/** By action, what may be said with it; `""` is the board alone. */
const FORMS = {
  "": { words: 0, options: ["stage", "agent", "blocked", "label", "text", "limit", "watch"] },
  rebuild: { words: 0, options: ["verify"] },
  compact: { words: 0, options: ["dry-run"] },
  repair: { words: 0, options: [] },
  ready: { words: 0, options: ["stage", "agent", "limit", "label"] },
  claim: { words: 1, options: ["stage", "agent", "label", "to", "wait", "lease"] },
  finish: { words: 2, options: ["agent", "to", "note"] },
  configure: { words: 0, options: ["work", "done", "follow", "max-retries", "default"] },
} as const satisfies Readonly<Record<string, { words: number; options: readonly OptionName[] }>>;

type Form = keyof typeof FORMS;
export type Action = Exclude<Form, "">;

export const ACTIONS = Object.keys(FORMS).filter((form) => form !== "") as Action[];

export type BoardArguments = Arguments<"[action] [item] [token]", typeof BOARD_OPTIONS>;

/** The action of a command line; undefined for the board alone. Refuses options and words that are not of this one. */
export function actionOf(args: BoardArguments): Action | undefined {
  const form = (args.action ?? "") as Form;
  if (!Object.hasOwn(FORMS, form)) {
    throw new UsageError(`${JSON.stringify(args.action)} is nothing that a board does.`);
  }
  const { words: most, options } = FORMS[form];
  const own: readonly OptionName[] = options;
  for (const name of Object.keys(BOARD_OPTIONS) as OptionName[]) {
    if (args[name] === undefined || args[name] === false || own.includes(name)) continue;
    const of = FORM_NAMES.filter((each) => (FORMS[each].options as readonly OptionName[]).includes(name));
    throw new UsageError(
      `--${name} belongs to ${listed(of.map(called))}. ${called(form)} takes ${listed(own.map((each) => `--${each}`))}.`,
    );
  }
  const words = [args.item, args.token].filter((each) => each !== undefined);
  if (words.length > most) throw new UsageError(`${JSON.stringify(words.at(-1))} is one word too many.`);
  return form === "" ? undefined : form;
}

const FORM_NAMES = Object.keys(FORMS) as Form[];

function called(form: Form): string {
  return form === "" ? "`pawl board` alone" : `\`pawl board ${form}\``;
}

function listed(names: readonly string[]): string {
  if (names.length === 0) return "none";
  return names.length === 1 ? `${names[0]}` : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

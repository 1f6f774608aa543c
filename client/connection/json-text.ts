import { randomUUID } from "node:crypto";
import { memberTexts } from "@pawl/protocol/json-text";

/**
 * A JSON value by its text, which goes out byte for byte wherever the value stands in params or answers: JavaScript's
 * numbers hold neither every digit nor `1.0`, and its objects not every order of keys. Line breaks between its tokens
 * become spaces, because a message is one line.
 */
export class JsonText {
  readonly text: string;

  /** @param text must be JSON; nothing is checked here. */
  constructor(text: string) {
    this.text = text.trim().replace(/[\r\n]/g, " ");
  }

  toJSON(): unknown {
    if (collected === undefined) return JSON.parse(this.text);
    collected.push(this.text);
    return PLACEHOLDER;
  }
}

/** Stands for a text until the rest of the line is there. Nobody else knows the word, so no string is taken for it. */
const PLACEHOLDER = randomUUID();
/** The texts of the value that is being made a line; undefined while none is. */
let collected: string[] | undefined;

/** The JSON of a value as `JSON.stringify` makes it, with each `JsonText` in it as it is. */
export function stringify(value: unknown): string {
  const texts: string[] = [];
  collected = texts;
  let json: string;
  try {
    json = JSON.stringify(value);
  } finally {
    collected = undefined;
  }
  if (texts.length === 0) return json;
  const [first, ...rest] = json.split(`"${PLACEHOLDER}"`);
  return first + rest.map((part, index) => texts[index] + part).join("");
}

/** The members of a JSON object, each by its text, but for those whose text `JSON.stringify` would make of them. */
export function membersOf(json: string): Record<string, unknown> {
  const members: Record<string, unknown> = {};
  for (const [name, text] of memberTexts(json)) {
    const value: unknown = JSON.parse(text);
    members[name] = JSON.stringify(value) === text ? value : new JsonText(text);
  }
  return members;
}

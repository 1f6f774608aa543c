import { EACH, textsAt } from "@pawl/protocol/json-text";
import { RawJson } from "./raw-json.js";

/** A name in a path may be as long as a message; what is longer than any real path is cut. */
const MAX_PATH_LENGTH = 160;

/** The JSON Pointer (RFC 6901) of a path, cut if it is longer than any real one. */
export function pointer(path: readonly PropertyKey[]): string {
  const text = path.map((part) => `/${String(part).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
  return text.length <= MAX_PATH_LENGTH ? text : `${text.slice(0, MAX_PATH_LENGTH - 3)}...`;
}

/** The value that a JSON Pointer (RFC 6901) points to, or undefined for none. */
export function resolve(reference: string, root: unknown): unknown {
  if (reference === "") return root;
  if (!reference.startsWith("/") || /~(?![01])/.test(reference)) return undefined;
  let value = root;
  for (const token of reference.slice(1).split("/")) {
    const key = token.replaceAll("~1", "/").replaceAll("~0", "~");
    if (value instanceof RawJson) {
      const text = memberText(value.text, key);
      if (text === undefined) return undefined;
      value = new RawJson(text);
      continue;
    }
    if (typeof value !== "object" || value === null) return undefined;
    if (Array.isArray(value) && !/^(0|[1-9][0-9]*)$/.test(key)) return undefined;
    if (!Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}

/** The value of an element or a member of a JSON text, as a text. */
function memberText(json: string, key: string): string | undefined {
  if (json.startsWith("{")) return textsAt(json, [key])[0];
  return json.startsWith("[") && /^(0|[1-9][0-9]*)$/.test(key)
    ? textsAt(json, [EACH])[Number(key)]
    : undefined;
}

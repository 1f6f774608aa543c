/** A name in a path may be as long as a message; what is longer than any real path is cut. */
const MAX_PATH_LENGTH = 160;

/** The JSON Pointer (RFC 6901) of a path, cut if it is longer than any real one. */
export function pointer(path: readonly PropertyKey[]): string {
  const text = path.map((part) => `/${String(part).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
  return text.length <= MAX_PATH_LENGTH ? text : `${text.slice(0, MAX_PATH_LENGTH - 3)}...`;
}

// Which names are kept in PostgreSQL, as `--shared` says it. Nothing of PostgreSQL is loaded for that.
import { PawlError, shown } from "@pawl/protocol/errors";

/** The nouns that are served as shared, each whole. */
const SHARED_NOUNS = ["sequence", "queue", "lease", "path"] as const;
export type SharedNoun = (typeof SHARED_NOUNS)[number];

/** Nouns of which nothing is served as shared yet. */
const LOCAL_NOUNS = ["schedule", "command", "deployment", "pipeline", "item"];

/** A pattern of names, and the database that has what is called so. */
export interface SharedRule {
  /** Undefined for the names of all nouns that are served as shared. */
  readonly noun: SharedNoun | undefined;
  /** A name, in which `*` stands for any characters, none included. */
  readonly pattern: string;
  readonly url: string;
}

/** Reads `PATTERN=URL`, as `--shared` takes it. Throws `invalid_params` with the part that is wrong. */
export function parseSharedRule(text: string): SharedRule {
  const [, given = "", url] = /^([^=]+)=(postgres(?:ql)?:\/\/.+)$/s.exec(text) ?? [];
  if (url === undefined) {
    throw wrong(`${shown(withoutUrl(text))} is no PATTERN=postgresql://USER@HOST/DATABASE`);
  }
  const [, prefix, rest] = /^([a-z]+):(.*)$/s.exec(given) ?? [];
  if (prefix === undefined || rest === undefined) return { noun: undefined, pattern: given, url };
  if (LOCAL_NOUNS.includes(prefix)) {
    throw wrong(
      `${shown(given)}: names of the noun ${prefix} cannot be shared yet; ${SHARED_NOUNS.join(", ")} can`,
    );
  }
  const noun = SHARED_NOUNS.find((each) => each === prefix);
  // A name may have a colon of its own.
  return noun === undefined ? { noun, pattern: given, url } : { noun, pattern: rest, url };
}

/** The text may have a password, which is not to be shown. */
function withoutUrl(text: string): string {
  return text.replace(/=.*$/s, "=...");
}

function wrong(message: string): PawlError {
  return new PawlError("invalid_params", `${message}.`);
}

// Which names are kept in PostgreSQL, as `--shared` says it. Nothing of PostgreSQL is loaded for that.
import { PawlError, shown } from "@pawl/protocol/errors";

/** The nouns whose names have patterns; those of commands are of their deployments. */
const SHARED_NOUNS = ["sequence", "queue", "lease", "path", "command"] as const;
export type SharedNoun = (typeof SHARED_NOUNS)[number];

/** Nouns that have no patterns of their own, and why. */
const WITHOUT_PATTERNS: Readonly<Record<string, string>> = {
  schedule: "a schedule is kept where its queue is, so name the queue",
  deployment: "a deployment is kept where its commands are, so begin with command:",
  pipeline: "the board is not shared so, but merges",
  item: "the board is not shared so, but merges",
};

/** A pattern of names, and the database that has what is called so. */
export interface SharedRule {
  /** Undefined for the names of all nouns. */
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
  const address = addressOf(url);
  if (address === undefined) throw wrong(`${shown(withoutUrl(text))}: the URL is none of a database`);
  const misread = wrongParameter(address);
  if (misread !== undefined) throw wrong(`${shown(withoutUrl(text))}: ${misread}`);
  const [, prefix, rest] = /^([a-z]+):(.*)$/s.exec(given) ?? [];
  if (prefix === undefined || rest === undefined) return { noun: undefined, pattern: given, url };
  const why = Object.hasOwn(WITHOUT_PATTERNS, prefix) ? WITHOUT_PATTERNS[prefix] : undefined;
  if (why !== undefined) throw wrong(`${shown(given)}: ${why}`);
  const noun = SHARED_NOUNS.find((each) => each === prefix);
  // A name may have a colon of its own.
  if (noun === undefined) return { noun, pattern: given, url };
  if (rest === "") throw wrong(`${shown(withoutUrl(text))} has no pattern behind ${shown(`${noun}:`)}`);
  return { noun, pattern: rest, url };
}

/** Takes the address of a database apart as PostgreSQL's own programs do: without a host it is a socket. */
export function readAddress(url: string): { url: URL; host: string; user: string; database: string } {
  const read = new URL(url.replace(/^(\w+:\/\/[^/?]*@)(?=[/?]|$)/, "$1localhost"));
  const [host, user, database] = [read.host, read.username, read.pathname.slice(1)].map(decodeURIComponent);
  return { url: read, host: host as string, user: user as string, database: database as string };
}

function addressOf(url: string): URL | undefined {
  try {
    return readAddress(url).url;
  } catch {
    return undefined;
  }
}

/** The parameters that a URL may have, and the values of those that take no other. */
const PARAMETERS: Readonly<Record<string, readonly string[] | undefined>> = {
  schema: undefined,
  host: undefined,
  port: undefined,
  user: undefined,
  password: undefined,
  options: undefined,
  sslmode: ["disable", "prefer", "require", "verify-ca", "verify-full", "no-verify"],
  sslrootcert: undefined,
  sslcert: undefined,
  sslkey: undefined,
  sslnegotiation: ["postgres", "direct"],
  ssl: ["true", "1", "0", "no-verify"],
  uselibpqcompat: ["true"],
};

/** What is wrong with the parameters of a URL: whoever connects by it would pass over that in silence. */
export function wrongParameter({ searchParams }: URL): string | undefined {
  const seen = new Set<string>();
  for (const [name, value] of searchParams) {
    // Of a password that is not encoded this may be a part.
    const named = /^\w+$/.test(name) ? `the URL has ${shown(name)}` : "the URL has what is no parameter";
    if (!Object.hasOwn(PARAMETERS, name)) return `${named}; there are ${Object.keys(PARAMETERS).join(", ")}`;
    if (seen.has(name)) return `${named} twice`;
    seen.add(name);
    const values = PARAMETERS[name];
    if (values !== undefined && !values.includes(value))
      return `${shown(name)} is ${shown(value)} in the URL; there are ${values.join(", ")}`;
    if (name === "port" && !isPort(value)) return `${shown(value)} is no port`;
  }
  return undefined;
}

function isPort(text: string): boolean {
  return /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= MAX_PORT;
}

const MAX_PORT = 65_535;

/** The text may have a password, which is not to be shown. */
function withoutUrl(text: string): string {
  return text.replace(/=.*$/s, "=...");
}

function wrong(message: string): PawlError {
  return new PawlError("invalid_params", `${message}.`);
}

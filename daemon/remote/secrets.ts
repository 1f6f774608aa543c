import type { ProviderSpecification } from "./specification.js";

/** A shorter value is no secret, and would be found in every other word. */
const MIN_SECRET_LENGTH = 4;
/** The longest text about an error, and the number of causes that are followed. */
const MAX_TEXT_LENGTH = 1000;
const MAX_CAUSES = 4;
const MAX_FRAMES = 10;
const FRAME = /^\s+at /;

/** The user of a URL, and the leaseIds that the daemon gives to a provider. */
const URL_USER = /(?<=:\/\/)[^/\s@"']+(?=@)/g;
const LEASE_ID = /\blease_x?[0-9a-f]{32}\b/g;

/** The texts that may be logged of a provider and of its errors. */
export interface Loggable {
  /** The provider as it was configured, without values that only a module of somebody's own understands. */
  readonly title: string;
  /** A text without what must not be read in a log: of each secret only its name is left, in brackets. */
  readonly text: (text: string) => string;
  /** The message of an error, its causes included. */
  readonly error: (error: unknown) => string;
  /** The frames of an error's stack, if it has any. */
  readonly stack: (error: unknown) => string | undefined;
}

/**
 * For a provider of one's own every parameter may be a secret, which an exception then quotes. For the others it is
 * what they take from the environment.
 */
export function loggable(specification: ProviderSpecification, env: NodeJS.ProcessEnv): Loggable {
  const secrets = secretsOf(specification, env)
    .flatMap(([name, value]) => [
      [name, value] as const,
      [name, encodeURIComponent(value)] as const,
      [name, JSON.stringify(value).slice(1, -1)] as const,
    ])
    .filter(([, value]) => value.length >= MIN_SECRET_LENGTH)
    // One that is part of another must not leave the rest of that.
    .toSorted(([, a], [, b]) => b.length - a.length);
  const text = (whole: string): string =>
    secrets
      .reduce((rest, [name, value]) => rest.replaceAll(value, `[${name}]`), whole)
      .replaceAll(URL_USER, "[user]")
      .replaceAll(LEASE_ID, "[leaseId]");
  return {
    title: specification.kind === "custom" ? `custom:${specification.module}` : specification.text,
    text,
    error: (error) => {
      try {
        return shortened(text(describe(error)));
      } catch {
        return "something was thrown that cannot even be shown";
      }
    },
    stack: (error) => {
      const stack = error instanceof Error ? error.stack : undefined;
      // Its first lines are the message, which can be as long as a web page.
      const frames = stack?.split("\n").filter((line) => FRAME.test(line));
      return frames === undefined ? undefined : shortened(text(frames.slice(0, MAX_FRAMES).join("\n")));
    },
  };
}

function secretsOf(specification: ProviderSpecification, env: NodeJS.ProcessEnv): [string, string][] {
  if (specification.kind === "custom") return Object.entries(specification.params);
  const [, password] = /^[^:]+:(.*)$/s.exec(env.ETCDCTL_USER ?? "") ?? [];
  return Object.entries({
    "password of ETCDCTL_USER": password,
    ETCDCTL_PASSWORD: env.ETCDCTL_PASSWORD,
    AWS_SECRET_ACCESS_KEY: env.AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN: env.AWS_SESSION_TOKEN,
  }).filter((each): each is [string, string] => each[1] !== undefined);
}

/** A thrown value need not be an error. */
function describe(error: unknown): string {
  const said: string[] = [];
  let next = error;
  while (next instanceof Error && said.length < MAX_CAUSES) {
    const text = next.message || (next as { code?: string }).code || next.name;
    if (text !== said.at(-1)) said.push(text);
    next = next.cause;
  }
  if (said.length > 0) return said.join(": ");
  const { message } = (error ?? {}) as { message?: unknown };
  return typeof message === "string" ? message : `${String(error)} was thrown, which is no error`;
}

function shortened(text: string): string {
  return text.length <= MAX_TEXT_LENGTH ? text : `${text.slice(0, MAX_TEXT_LENGTH - 3)}...`;
}

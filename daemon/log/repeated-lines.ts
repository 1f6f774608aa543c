import type { Logger } from "pino";

const COUNT_MS = 10_000;
/** Different lines that are counted at a time; more of them count together. */
const MAX_COUNTED = 500;

type Level = "info" | "warn" | "error";

interface Counted {
  readonly level: Level;
  readonly message: string;
  readonly key: object;
  readonly details: object;
  /** How many more lines are logged as they are. */
  allowed: number;
  /** How many others there were since they were counted last. */
  times: number;
}

/**
 * Lines that clients can bring about as often as they like. The first of a kind is logged at once, and from then on a
 * count of the others every 10 s, until there were none in such a time.
 */
export class RepeatedLines {
  readonly #log: Logger;
  readonly #counted = new Map<string, Counted>();
  #timer: NodeJS.Timeout | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * Logs or counts a line.
   *
   * @param key says with the message of what kind it is, and stands in both lines.
   * @param details stand in the first line only.
   * @param allowed how many lines of the kind are logged before the others are counted.
   * @returns the details of the line that was logged, or of the first of its kind.
   */
  log<Details extends object>(
    level: Level,
    message: string,
    key: Readonly<Record<string, string>>,
    details: () => Details,
    allowed = 1,
  ): Details {
    if (this.#counted.size >= MAX_COUNTED && !this.#counted.has(nameOf(message, key))) {
      return this.#logOrCount(level, message, {}, details, allowed);
    }
    return this.#logOrCount(level, message, key, details, allowed);
  }

  /** Logs what has been counted, at the end. */
  end(): void {
    clearTimeout(this.#timer);
    this.#tell();
    this.#counted.clear();
  }

  #logOrCount<Details extends object>(
    level: Level,
    message: string,
    key: Readonly<Record<string, string>>,
    details: () => Details,
    allowed: number,
  ): Details {
    const name = nameOf(message, key);
    const counted = this.#counted.get(name);
    if (counted !== undefined && counted.allowed === 0) {
      counted.times += 1;
      return counted.details as Details;
    }
    const shown = details();
    const line: object = { ...key, ...shown };
    this.#log[level](line, message);
    if (counted !== undefined) {
      counted.allowed -= 1;
      return shown;
    }
    this.#counted.set(name, { level, message, key, details: shown, allowed: allowed - 1, times: 0 });
    if (this.#counted.size === 1) this.#tellLater();
    return shown;
  }

  #tellLater(): void {
    this.#timer = setTimeout(() => {
      this.#tell();
      if (this.#counted.size > 0) this.#tellLater();
    }, COUNT_MS);
    this.#timer.unref();
  }

  #tell(): void {
    for (const [name, counted] of this.#counted) {
      const { level, message, key, times } = counted;
      if (times === 0) this.#counted.delete(name);
      else this.#log[level]({ ...key, times }, `${message} again`);
      counted.times = 0;
    }
  }
}

function nameOf(message: string, key: Readonly<Record<string, string>>): string {
  let name = message;
  for (const part in key) name += `\n${key[part]}`;
  return name;
}

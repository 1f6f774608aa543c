/**
 * Thrown by a handler that cannot do the work now: it is given back. A batch's delivery is then not counted as
 * an attempt.
 *
 * @example throw new Postpone({ delayMs: 60_000 });
 */
export class Postpone extends Error {
  override readonly name = "Postpone";
  /** How long nobody gets the work, in milliseconds. */
  readonly delayMs: number;

  constructor({ delayMs = 0 }: { delayMs?: number } = {}) {
    super(`The work is postponed by ${delayMs} ms.`);
    this.delayMs = delayMs;
  }
}

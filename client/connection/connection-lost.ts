/**
 * The connection ended, or there is none. Calls that can be repeated without harm have been, for as long as
 * `reconnectMs`; the others are rejected with this.
 *
 * @example
 * try {
 *   await client.queue.abandon({ claimId, leaseToken });
 * } catch (error) {
 *   if (error instanceof ConnectionLost && !error.mayHaveTakenEffect) return again();
 *   throw error;
 * }
 */
export class ConnectionLost extends Error {
  override readonly name = "ConnectionLost";
  /** The method whose answer was lost, or undefined when it is about no call. */
  readonly method: string | undefined;
  /** True if the request may have been performed. When false, it certainly was not. */
  readonly mayHaveTakenEffect: boolean;

  constructor(
    message: string,
    method?: string,
    options: ErrorOptions & { mayHaveTakenEffect?: boolean } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.method = method;
    this.mayHaveTakenEffect = options.mayHaveTakenEffect ?? false;
  }
}

import type { Id } from "@pawl/protocol/envelope";
import type { PawlError } from "@pawl/protocol/errors";
import type { Operation } from "../store/statement.js";
import type { Call } from "../turns/call.js";
import type { Caller, Env, Outcome } from "../turns/operation.js";

/**
 * Performs an operation in a turn. Resolves after the commit; rejects with the operation's refusal, or at once with the
 * reason of `signal`, and then nothing is performed any more.
 *
 * @param id of the request whose wait it is, if rpc.cancel may end it.
 */
export function inTurn<T>(
  loop: { submit(call: Call): void; withdraw(call: Call): void },
  caller: Caller,
  start: (env: Env) => Operation<Outcome<T | PawlError>>,
  { waitMs = 0, signal, id }: { waitMs?: number; signal?: AbortSignal; id?: Id | undefined } = {},
): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      loop.withdraw(call);
      reject(signal?.reason);
    };
    const call: Call = {
      caller,
      id,
      start: (env) => (signal?.aborted ? nothing() : start(env)),
      waitMs,
      closed: false,
      settle: (outcome) => {
        signal?.removeEventListener("abort", onAbort);
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome as T);
      },
    };
    if (signal?.aborted) return reject(signal.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    loop.submit(call);
  });
}

function* nothing(): Operation<never> {
  return undefined as never;
}

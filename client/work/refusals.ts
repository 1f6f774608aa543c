import { type ErrorKind, PawlError } from "@pawl/protocol/errors";

/** Refusals that stay the same however often one asks. */
const FOR_GOOD: ReadonlySet<ErrorKind> = new Set([
  "invalid_request",
  "invalid_params",
  "method_not_found",
  "read_only",
  "forbidden",
  "exhausted",
  // Of a receiver that has ended.
  "invalid_state",
]);

/** True if asking again is of no use. */
export function isForGood(error: unknown): error is PawlError {
  return error instanceof PawlError && FOR_GOOD.has(error.kind);
}

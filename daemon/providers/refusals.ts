import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_INTEGER } from "@pawl/protocol/limits";

const MAX_REASON_LENGTH = 300;

/** A provider that could not be asked, or did not answer: what it may have done is not known. */
export function unavailable(provider: string, error: unknown): PawlError {
  const { name, message } = error as Error;
  const aborted = name === "AbortError" || name === "TimeoutError";
  const text = aborted ? "it did not answer in time" : reasonOf(name, message);
  return refuse(
    "provider_unavailable",
    `The lease provider ${provider} cannot be used now: ${text}. Nothing is known to have been granted, renewed or released; try again.`,
    { provider, reason: text },
  );
}

/** A name whose next fencing token would be no integer that JSON can carry. */
export function exhausted(name: string): PawlError {
  return refuse(
    "exhausted",
    `The fencing tokens of ${shown(name)} have come to their end at ${MAX_INTEGER}. Use another name.`,
    { name, highest: MAX_INTEGER },
  );
}

function reasonOf(name: string, message: string | undefined): string {
  const text = (message === undefined || message === "" ? name : message).replace(/\.$/, "");
  return text.length <= MAX_REASON_LENGTH ? text : `${text.slice(0, MAX_REASON_LENGTH - 3)}...`;
}

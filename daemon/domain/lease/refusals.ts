// Refusals of leases that providers keep, and of names whose tokens are used up.
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_INTEGER } from "@pawl/protocol/limits";

/** Which kind of provider a `text` is of: all that clients are told of it. */
export function kindOf(text: string): string {
  return text.split(":", 1)[0] as string;
}

/** A lease of a provider that the daemon was configured with in an earlier life, or for other names. */
export function notConfigured(provider: string): PawlError {
  return refuse(
    "provider_unavailable",
    `The lease is kept by a lease provider (${provider}) that this daemon is not configured with any more. It ends by its ttl; to renew or release it, start the daemon with the --lease-provider that it was granted by.`,
    { provider, reason: "not_configured" },
  );
}

/** A provider took so long to answer that the holder would have to give the lease up at once. */
export function tooLate(provider: string, ttlMs: number): PawlError {
  return refuse(
    "provider_unavailable",
    `The lease provider ${provider} took longer to answer than a lease of ${shown(ttlMs)} ms lasts. Ask again, or for a longer ttlMs.`,
    { provider, reason: "too_late" },
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

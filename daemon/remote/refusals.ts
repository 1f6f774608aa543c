import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_INTEGER } from "@pawl/protocol/limits";

/**
 * Why a provider could not be used, as far as clients are told. What it said itself stays in the daemon's log: it
 * may name files, addresses and whatever else is in its parameters.
 */
const REASONS = {
  timeout: "it did not answer in time",
  unreachable: "it cannot be reached",
  untrusted: "its certificate, or ours, is not trusted",
  denied: "it does not accept the daemon's credentials",
  overloaded: "it takes no more requests for now",
  no_table: "its table is not there; whoever runs the daemon makes it with pawl lease-table create",
  contended: "too many ask for the same name at the same time",
  bad_answer: "it gave an answer that cannot be",
  failed: "it failed",
} as const;

export type Reason = keyof typeof REASONS;

/** A failure of which clients may know the reason. Its message is for the log. */
export class Failure extends Error {
  readonly reason: Reason;

  constructor(reason: Reason, message: string) {
    super(message);
    this.reason = reason;
  }
}

/**
 * A provider that could not be asked, or did not answer: what it may have done is not known. `provider` is its kind,
 * never its parameters. The error is kept as the cause, for the log.
 */
export function unavailable(provider: string, error: unknown, reason = reasonOf(error)): PawlError {
  return new PawlError(
    "provider_unavailable",
    `The lease provider ${provider} cannot be used now: ${REASONS[reason]}. Nothing is known to have been granted, renewed or released; try again. The daemon's log says more.`,
    { provider, reason },
    { cause: error },
  );
}

/** A lease of a provider that the daemon was configured with in an earlier life, or for other names. */
export function notConfigured(provider: string): PawlError {
  return refuse(
    "provider_unavailable",
    `The lease is kept by a lease provider (${provider}) that this daemon is not configured with any more. It ends by its ttl; to renew or release it, start the daemon with the --lease-provider that it was granted by.`,
    { provider, reason: "not_configured" },
  );
}

/** It took so long to be asked that its holder would have to give the lease up at once. */
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

/** By what Node, TLS and the AWS SDK call what happened to them. */
const KNOWN: readonly (readonly [Reason, RegExp])[] = [
  ["timeout", /^(AbortError|TimeoutError|ETIMEDOUT|ERR_SOCKET_CONNECTION_TIMEOUT)$/],
  [
    "unreachable",
    /^(ECONNREFUSED|ECONNRESET|ECONNABORTED|EPIPE|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)$/,
  ],
  ["untrusted", /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|^ERR_TLS_|^ERR_SSL_/],
  [
    "denied",
    /^(CredentialsProviderError|AccessDeniedException|UnrecognizedClientException|InvalidSignatureException|ExpiredTokenException|MissingAuthenticationTokenException|IncompleteSignatureException)$/,
  ],
  [
    "overloaded",
    /^(ThrottlingException|ThrottledException|ProvisionedThroughputExceededException|RequestLimitExceeded|InternalServerError|ServiceUnavailable|ServiceUnavailableException)$/,
  ],
];

function reasonOf(error: unknown): Reason {
  if (error instanceof Failure) return error.reason;
  if (typeof error !== "object" || error === null) return "failed";
  const { code, name, kind } = error as { code?: unknown; name?: unknown; kind?: unknown };
  for (const known of [code, name].filter((each) => typeof each === "string")) {
    const [reason] = KNOWN.find(([, names]) => names.test(known)) ?? [];
    if (reason !== undefined) return reason;
  }
  // A module of somebody's own says so of what it could not reach.
  return kind === "provider_unavailable" ? "unreachable" : "failed";
}

import { PawlError } from "@pawl/protocol/errors";

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

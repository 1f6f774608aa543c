/**
 * The one table of errors (spec: wire.md, Errors). `kind` is what programs match on, `code` what JSON-RPC
 * carries, `retryable` whether the same request may succeed later without anything being changed in it.
 */
export const ERRORS = {
  parse_error: { code: -32700, retryable: false, when: "the line is not JSON" },
  invalid_request: { code: -32600, retryable: false, when: "not a JSON-RPC 2.0 request" },
  method_not_found: { code: -32601, retryable: false, when: "no such method; details name the closest one" },
  invalid_params: { code: -32602, retryable: false, when: "the params do not fit; details.issues says where" },
  internal: { code: -32603, retryable: false, when: "a defect; details.reference is in the log too" },
  unavailable: {
    code: -32000,
    retryable: true,
    when: "storage cannot take writes now, or the daemon is stopping",
  },
  read_only: { code: -32001, retryable: false, when: "a writing method on a read-only socket or daemon" },
  message_too_large: { code: -32002, retryable: false, when: "the line is longer than --max-message-bytes" },
  forbidden: { code: -32003, retryable: false, when: "the peer's user may not call this" },
  not_found: { code: -32010, retryable: false, when: "details.what says which thing does not exist" },
  conflict: {
    code: -32011,
    retryable: false,
    when: "a key was reused with different content; details name both",
  },
  lease_held: { code: -32012, retryable: true, when: "details.holder says who holds the lease and how long" },
  claim_lost: {
    code: -32013,
    retryable: false,
    when: "the claim expired, was superseded, or its token is wrong",
  },
  lease_lost: { code: -32014, retryable: false, when: "the lease expired, was superseded, or its id is wrong" },
  invalid_state: {
    code: -32015,
    retryable: false,
    when: "a transition that the state table forbids; details {from, to}",
  },
  exhausted: { code: -32016, retryable: false, when: "a counter or a bounded thing is full" },
  provider_unavailable: {
    code: -32017,
    retryable: true,
    when: "an external lease provider could not be reached; not the same as lease_lost",
  },
} as const;

export type ErrorKind = keyof typeof ERRORS;

export type ErrorDetails = Record<string, unknown>;

/** What travels in `error.data`: the kind, whether a retry may help, and details that depend on the kind. */
export type ErrorData = { kind: ErrorKind; retryable: boolean } & ErrorDetails;

/**
 * A refusal, in the daemon as in the client. `message` is a sentence that names the offending value and
 * says what to do; nothing in it or in `details` comes from a stack trace, SQL or a file path.
 */
export class PawlError extends Error {
  override readonly name = "PawlError";
  readonly kind: ErrorKind;
  readonly code: number;
  readonly retryable: boolean;
  readonly details: ErrorDetails;

  constructor(kind: ErrorKind, message: string, details: ErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.code = ERRORS[kind].code;
    this.retryable = ERRORS[kind].retryable;
    this.details = details;
  }

  /** `error.data` of the JSON-RPC error object. */
  get data(): ErrorData {
    return { kind: this.kind, retryable: this.retryable, ...this.details };
  }
}

/**
 * A refusal as a value: made once per expected outcome, so it skips the stack trace, which costs several
 * microseconds and says nothing about a request that was refused by the rules.
 */
export function refuse(kind: ErrorKind, message: string, details: ErrorDetails = {}): PawlError {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return new PawlError(kind, message, details);
  } finally {
    Error.stackTraceLimit = limit;
  }
}

/** A value as an error message shows it: JSON, cut to 80 characters. */
export function shown(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? String(value);
  } catch {
    // A value nested too deeply for the stack; JSON.parse reads such values without recursion.
    return "a deeply nested value";
  }
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}

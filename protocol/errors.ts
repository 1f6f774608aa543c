import type { ErrorDataTypes } from "./types.js";

/**
 * The one table of errors (spec: wire.md, Errors). `kind` is what programs match on, `code` what JSON-RPC
 * carries, `retryable` whether the same request may succeed later without anything being changed in it. The schemas of
 * the details of each kind are in `error-details.ts`, because clients load this file and no schemas.
 */
export const ERRORS = {
  parse_error: { code: -32700, retryable: false, when: "the line is not JSON" },
  invalid_request: { code: -32600, retryable: false, when: "not a JSON-RPC 2.0 request" },
  method_not_found: {
    code: -32601,
    retryable: false,
    when: "no such method; details name the closest one, if one is close",
  },
  invalid_params: {
    code: -32602,
    retryable: false,
    when: "the params do not fit; details.issues says where",
  },
  internal: {
    code: -32603,
    retryable: false,
    when: "a defect, or a stored row that is damaged; details.reference is in the log too",
  },
  unavailable: {
    code: -32000,
    retryable: true,
    when: "storage cannot take writes now, or the daemon is stopping",
  },
  read_only: { code: -32001, retryable: false, when: "a writing method on a read-only socket or daemon" },
  message_too_large: { code: -32002, retryable: false, when: "the line is longer than --max-message-bytes" },
  forbidden: { code: -32003, retryable: false, when: "the peer's user may not call this" },
  cancelled: { code: -32004, retryable: false, when: "a wait was ended by `rpc.cancel`" },
  not_found: { code: -32010, retryable: false, when: "details.what says which thing does not exist" },
  conflict: {
    code: -32011,
    retryable: false,
    when: "a key was reused with different content, details name both; or an `if` does not hold, details.item is what there is",
  },
  lease_held: { code: -32012, retryable: true, when: "details.holder says who holds the lease and how long" },
  claim_lost: {
    code: -32013,
    retryable: false,
    when: "the claim expired, was superseded, or its token is wrong",
  },
  lease_lost: {
    code: -32014,
    retryable: false,
    when: "the lease expired, was superseded, or its id is wrong",
  },
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
  would_deadlock: {
    code: -32018,
    retryable: false,
    when: "to wait would close a circle of waits; details.cycle says who waits for what",
  },
  // The board's changes and keys (spec: pipeline.md, Errors).
  too_large: {
    code: -32020,
    retryable: false,
    when: "a change, a field of it or its number of ops is too large",
  },
  not_json: { code: -32021, retryable: false, when: "the body of a change is not JSON" },
  not_canonical: { code: -32022, retryable: false, when: "a body is not its own RFC 8785 canonical form" },
  bad_value: {
    code: -32023,
    retryable: false,
    when: "a value without one canonical form: -0, an unsafe integer, a lone surrogate",
  },
  bad_shape: { code: -32024, retryable: false, when: "a body or an op lacks a part, or has one too many" },
  unsupported_version: { code: -32025, retryable: false, when: "a change of a version not known here" },
  wrong_board: { code: -32026, retryable: false, when: "the change or the peer belongs to another board" },
  unknown_author: { code: -32027, retryable: false, when: "the author of the change is not trusted here" },
  revoked_author: { code: -32028, retryable: false, when: "the author was trusted here and no longer is" },
  bad_signature: { code: -32029, retryable: false, when: "the signature is not the author's over this body" },
  missing_prev: { code: -32030, retryable: false, when: "the change before this one has not arrived" },
  bad_chain: { code: -32031, retryable: false, when: "`prev` is not the change before this one in its log" },
  clock_not_monotonic: {
    code: -32032,
    retryable: false,
    when: "a change is not later than the one before it in its log",
  },
  clock_ahead: {
    code: -32033,
    retryable: true,
    when: "a change is too far ahead of this node's clock; details.retryMs says when to offer it again",
  },
  bad_story_id: { code: -32034, retryable: false, when: "an op names an item by what cannot be a storyId" },
  bad_generation: {
    code: -32035,
    retryable: false,
    when: "an op's generation is no positive integer, or a delete sets fields",
  },
  bad_field: {
    code: -32036,
    retryable: false,
    when: "an op gives a field a name or a value that it cannot have",
  },
  weak_key: {
    code: -32037,
    retryable: false,
    when: "a public key of small order, or not in its one encoding",
  },
  duplicate_key: { code: -32038, retryable: false, when: "the key is trusted already, as another peer" },
  key_mode: { code: -32039, retryable: false, when: "the identity key can be read or written by others" },
  key_unreadable: {
    code: -32040,
    retryable: false,
    when: "the identity key is missing, corrupt or not a PKCS #8 Ed25519 key",
  },
  log_corrupt: { code: -32041, retryable: false, when: "a stored change no longer parses or hashes right" },
} as const;

export type ErrorKind = keyof typeof ERRORS;

export type ErrorDetails = Record<string, unknown>;

/** The details of a kind, as the schemas have them; a daemon of a later version may say more. */
export type DetailsOf<K extends ErrorKind> = K extends keyof ErrorDataTypes
  ? Omit<ErrorDataTypes[K], "kind" | "retryable"> & ErrorDetails
  : ErrorDetails;

/** The `error.data` of a refusal: the kind, whether a retry may help, and details that depend on the kind. */
export type ErrorData = { kind: ErrorKind; retryable: boolean } & ErrorDetails;

/**
 * A refusal, in the daemon as in the client. `message` is a sentence that names the offending value and
 * says what to do; nothing in it or in `details` comes from a stack trace, SQL or a file path.
 */
class Refusal<K extends ErrorKind> extends Error {
  override readonly name = "PawlError";
  /** Tells by which kind `details` is typed: `if (error.kind === "lease_held") error.details.holder.owner`. */
  readonly kind: K;
  readonly code: number;
  readonly retryable: boolean;
  readonly details: DetailsOf<K>;

  /** @param details with `retryable` where that is not as it is for the kind. */
  constructor(kind: K, message: string, details: ErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.code = ERRORS[kind].code;
    const { retryable = ERRORS[kind].retryable, ...rest } = details;
    this.retryable = retryable as boolean;
    this.details = rest as DetailsOf<K>;
  }

  /** `error.data` of the JSON-RPC error object. */
  get data(): ErrorData {
    return { kind: this.kind, retryable: this.retryable, ...this.details };
  }
}

/** A refusal of any kind. */
export type PawlError = { [K in ErrorKind]: Refusal<K> }[ErrorKind];
export const PawlError = Refusal as unknown as {
  new <K extends ErrorKind>(
    kind: K,
    message: string,
    details?: ErrorDetails,
    options?: ErrorOptions,
  ): { [Each in K]: Refusal<Each> }[K];
  /** As every class has it; said here, so that `instanceof` narrows to one of the kinds. */
  [Symbol.hasInstance](value: unknown): value is PawlError;
  readonly prototype: PawlError;
};

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
  return shortened(beginningOf(value, MAX_SHOWN_LENGTH + 1));
}

/** The JSON of a value, or so much of it as an error message shows. */
export function shortened(text: string): string {
  return text.length <= MAX_SHOWN_LENGTH ? text : `${text.slice(0, MAX_SHOWN_LENGTH - 3)}...`;
}

const MAX_SHOWN_LENGTH = 80;

/**
 * The JSON of a value, or at least so many characters of it: all of a long one would take as long to be written as to
 * be read, and one can be nested too deeply for that.
 */
function beginningOf(value: unknown, length: number): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, length));
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value !== "object" || value === null || "toJSON" in value) {
    return JSON.stringify(value) ?? String(value);
  }
  const isArray = Array.isArray(value);
  let text = isArray ? "[" : "{";
  for (const name of isArray ? value.keys() : Object.keys(value)) {
    const member = (value as Record<PropertyKey, unknown>)[name];
    if (member === undefined && !isArray) continue;
    if (text.length > 1) text += ",";
    if (!isArray) text += `${beginningOf(name, length)}:`;
    if (text.length >= length) return text;
    text += beginningOf(member ?? null, length - text.length);
    if (text.length >= length) return text;
  }
  return text + (isArray ? "]" : "}");
}

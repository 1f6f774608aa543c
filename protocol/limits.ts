/** Every limit of the wire, in one place. The unit is the last word of the name. */

/** Version of the protocol, as `daemon.info` reports it. */
export const PROTOCOL = "pawl/1";

/** The largest integer that JSON readers in every language agree on: 2^53 - 1. */
export const MAX_INTEGER = Number.MAX_SAFE_INTEGER;

/** Longest request line, without its line end; `--max-message-bytes` changes it. */
export const DEFAULT_MAX_MESSAGE_BYTES = 1024 * 1024;
export const MIN_MAX_MESSAGE_BYTES = 1024;
export const MAX_MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/**
 * Longest reply line that a client accepts. Replies carry at most `MAX_PAGE_BYTES` of stored data each, but
 * one stored item may be as large as the longest request, and a batch gathers many replies in a line.
 */
export const MAX_REPLY_BYTES = 256 * 1024 * 1024;

/** A list stops before its rows exceed this and says where to go on (`next`). */
export const MAX_PAGE_BYTES = 1024 * 1024;

/** The daemon stops reading a connection at so many unanswered requests ... */
export const MAX_IN_FLIGHT_REQUESTS = 1024;
/** ... or so many bytes of requests not yet taken up ... */
export const MAX_UNREAD_BYTES = 8 * 1024 * 1024;
/** ... or of replies that the peer has not yet read. */
export const MAX_UNSENT_BYTES = 8 * 1024 * 1024;

/** Calls in one JSON-RPC batch: no more than may be in flight. */
export const MAX_BATCH_CALLS = MAX_IN_FLIGHT_REQUESTS;

/** Calls and guards in one `transact`. */
export const MAX_TRANSACT_CALLS = 64;
export const MAX_TRANSACT_GUARDS = 64;

/** Longest wait of one call. A caller that wants to wait longer asks again. */
export const MAX_WAIT_MS = 3_600_000;

export const MIN_LEASE_MS = 100;
export const MAX_LEASE_MS = 86_400_000;
export const DEFAULT_LEASE_MS = 30_000;

export const MAX_NAME_LENGTH = 128;
export const MAX_TYPE_LENGTH = 32;
export const MAX_REQUEST_ID_LENGTH = 128;
export const MAX_RESERVE_COUNT = 1_000_000;
export const MAX_NODE_ID = 2 ** 32 - 1;
/** Numbers in ids are padded with zeros to this width. */
export const ID_DIGITS = 3;
/** How long a `requestId` is remembered. */
export const REQUEST_ID_RETENTION_MS = 24 * 60 * 60 * 1000;

/** `sockaddr_un.sun_path` holds 108 bytes with the final NUL (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

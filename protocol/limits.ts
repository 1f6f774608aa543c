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
export const MAX_UNREAD_BYTES = 1024 * 1024;
/** ... or of replies that the peer has not yet read, or of those, of requests and of what waits together. */
export const MAX_UNSENT_BYTES = 8 * 1024 * 1024;

/**
 * Replies of all connections that are not yet read: then nothing more is taken up of those that have the most;
 * `--max-unsent-bytes` changes it.
 */
export const DEFAULT_MAX_ALL_UNSENT_BYTES = 128 * 1024 * 1024;
export const MIN_MAX_ALL_UNSENT_BYTES = MAX_UNSENT_BYTES;
export const MAX_MAX_ALL_UNSENT_BYTES = 64 * 1024 * 1024 * 1024;
/** Requests of all connections that are not yet taken up, unfinished lines among them. */
export const MAX_ALL_UNREAD_BYTES = 64 * 1024 * 1024;

/**
 * Requests of one connection that wait for their conditions: less than may be in flight, so that a cancel gets through.
 */
export const MAX_WAITS_PER_CONNECTION = 512;
/** The bytes of those together, with their requests: less than stops the reading of a connection. */
export const MAX_CONNECTION_WAITS_BYTES = MAX_UNSENT_BYTES - DEFAULT_MAX_MESSAGE_BYTES;
/** The bytes of all that wait, together. */
export const MAX_WAITS_BYTES = 128 * 1024 * 1024;
/** The characters of a request's id. */
export const MAX_ID_LENGTH = 1024;
/** Arrays and objects in one another on a line: found before anything is built from it. */
export const MAX_LINE_NESTING_LEVELS = 600;
/**
 * Arrays, objects and members in the params of one request, beside those in values that are kept as they are sent, such
 * as payloads: twice as many as anything that is taken can have.
 */
export const MAX_PARAMS_PARTS = 65_536;

/** Calls in one JSON-RPC batch: no more than may be in flight. */
export const MAX_BATCH_CALLS = MAX_IN_FLIGHT_REQUESTS;
/** Answers in one batch, which are all held until the last is there; beyond this no more calls of it are performed. */
export const MAX_BATCH_ANSWER_BYTES = 32 * 1024 * 1024;

/** Queues that are counted by name since the start of a daemon; the others are counted together. */
export const MAX_NAMED_QUEUES = 200;

/** Topics of one call that follows events, and subscriptions of one connection. */
export const MAX_EVENT_TOPICS = 64;
export const MAX_SUBSCRIPTIONS = 64;

/** Calls and guards in one `transact`. */
export const MAX_TRANSACT_CALLS = 64;
export const MAX_TRANSACT_GUARDS = 64;
/** Batches, changes and items that the calls of one `transact` name or look at in all: some 20 ms of work. */
export const MAX_TRANSACT_NAMED = 1000;
/** What the `$result` references of one `transact` put in together, in characters of JSON: as much as could be sent. */
export const MAX_TRANSACT_REFERRED_LENGTH = DEFAULT_MAX_MESSAGE_BYTES;
/** The characters of results that are looked through for that; each member or element counts as 128 more. */
export const MAX_TRANSACT_LOOKED_LENGTH = 8 * 1024 * 1024;
/**
 * How much the results of a `transact` may hold, in characters of JSON, when one more of its calls is performed.
 * A few hundred bytes that list full pages would otherwise be answered with 64 MiB.
 */
export const MAX_TRANSACT_RESULTS_LENGTH = 4 * 1024 * 1024;

/** Longest wait of one call. A caller that wants to wait longer asks again. */
export const MAX_WAIT_MS = 3_600_000;

export const MIN_LEASE_MS = 100;
export const MAX_LEASE_MS = 86_400_000;
export const DEFAULT_LEASE_MS = 30_000;

export const MAX_NAME_LENGTH = 128;
/** Of what a lease is for. */
export const MAX_LEASE_NAME_LENGTH = 160;
/** Names that one lease holds together. */
export const MAX_LEASE_NAMES = 64;
/** How many may hold a name at a time, and the members of a pool: their slots are added up at each request. */
export const MAX_LEASE_SLOTS = 4096;
/** Of the label of one member. */
export const MAX_LEASE_MEMBER_LENGTH = 128;
/** Members of pools that one lease of several names is given: as many as the longest pool has. */
export const MAX_JOINT_MEMBERS = MAX_LEASE_SLOTS;
/** Holders that one `lease.get` shows, and that a refusal names. */
export const MAX_SHOWN_HOLDERS = 256;
export const MAX_NAMED_HOLDERS = 16;
/** Holders of each kind, and calls that wait, that one `daemon.graph` looks at. */
export const MAX_GRAPH_ROWS = 500;
/** Waits that one search for a circle of waits looks at; those beyond count as if they ended by themselves. */
export const MAX_CIRCLE_WAITS = 256;
/** How long a holder whose connection has closed may take to come back. */
export const MAX_GRACE_MS = 600_000;
/** How long a process that has lost a grant has to end by itself, unless it asks for another time (`onLoss`). */
export const DEFAULT_LOSS_GRACE_MS = 5_000;
/** Of the note of a lease, and of the reason for breaking one. */
export const MAX_NOTE_LENGTH = 1024;
export const MAX_TYPE_LENGTH = 32;
export const MAX_REQUEST_ID_LENGTH = 128;
export const MAX_RESERVE_COUNT = 1_000_000;
/** Types in one `sequence.state`. */
export const MAX_STATE_TYPES = 10_000;
/** Ranges of one type that were granted and of which no number has been taken; those that adjoin are one. */
export const MAX_GRANTED_RANGES = 1000;
export const MAX_NODE_ID = 2 ** 32 - 1;
/** Of a node id that is a name. */
export const MAX_NODE_NAME_LENGTH = 32;
/** Numbers in ids are padded with zeros to this width; `--id-digits` changes it. */
export const DEFAULT_ID_DIGITS = 3;
export const MAX_ID_DIGITS = 12;
/** How long what has ended is kept: batches, commands with their answers; `--retention-days` changes it. */
export const DEFAULT_RETENTION_DAYS = 7;
/** How long a `requestId` is remembered. */
export const REQUEST_ID_RETENTION_MS = 24 * 60 * 60 * 1000;

/** Payloads in a batch, batches in one `enqueueMany` and in one claim. */
export const MAX_BATCH_PAYLOADS = 1000;
export const MAX_ENQUEUED_BATCHES = 1000;
export const MAX_CLAIMED_BATCHES = 1000;
/**
 * How much longer than the payloads that were sent the batches that were there already may be in the answer to one
 * `enqueueMany`, in characters of JSON. A few bytes that name a long one by its sourceKey would otherwise be answered
 * with all of it, each time.
 */
export const MAX_KNOWN_BATCHES_LENGTH = 16 * 1024 * 1024;
/** Queues, or beginnings of names of queues, that one claim looks into. */
export const MAX_CLAIM_QUEUES = 64;
/** Claims that a claim names as those of its caller. */
export const MAX_CLAIM_HELD = 64;
/** Batches that one claim names. */
export const MAX_CLAIM_NAMED_BATCHES = 100;
/** Levels of arrays and objects in a payload, in params and in an answer: fewer than any JSON reader gives up at. */
export const MAX_PAYLOAD_NESTING_LEVELS = 512;
export const MAX_SOURCE_KEY_LENGTH = 512;
export const DEFAULT_BATCH_ATTEMPTS = 20;
export const MAX_BATCH_ATTEMPTS = 1_000_000;
export const MAX_BATCH_DELAY_MS = 10 * 365 * 24 * 60 * 60 * 1000;
/** Batches that one `queue.purge` removes, and one `queue.move` moves; and those that either names. */
export const MAX_PURGED_BATCHES = 10_000;
export const MAX_MOVED_BATCHES = 10_000;
export const MAX_NAMED_BATCHES = 1000;
/** Priorities of batches, higher first. */
export const MIN_PRIORITY = -100;
export const MAX_PRIORITY = 100;
/** Claims of a queue, and of a key, that may be held at a time. */
export const MAX_MAX_CLAIMED = 1_000_000;
/** Batches of a queue that may wait. */
export const MAX_MAX_WAITING = 1_000_000_000;
/** Batches that the bucket of a rate holds, and in how many milliseconds it refills. */
export const MAX_RATE_COUNT = 1_000_000;
export const MAX_RATE_PER_MS = 365 * 24 * 60 * 60 * 1000;
/** Of the reason for pausing or throttling a queue, and for cancelling a batch. */
export const MAX_REASON_LENGTH = 1024;
/** How a batch rests after a delivery that ended with an error, unless it or its queue says otherwise. */
export const DEFAULT_RETRY_BASE_MS = 1000;
export const DEFAULT_RETRY_FACTOR = 2;
export const MAX_RETRY_FACTOR = 1000;
export const DEFAULT_RETRY_MAX_MS = 3_600_000;
/** Of the error that a delivery ended with. */
export const MAX_LAST_ERROR_LENGTH = 16_384;
/** How long the holder of a claim has to stop when a batch of it is cancelled, unless that is said. */
export const DEFAULT_STOP_MS = 30_000;
/** The JSON of a result, and of a checkpoint. */
export const MAX_RESULT_BYTES = 150_000;
/** Batches that one waits for; and that those of one `queue.enqueueMany` wait for together. */
export const MAX_AFTER_BATCHES = 1000;
export const MAX_AFTER_BATCHES_PER_CALL = 10_000;
/** Results of the batches that those of a claim have waited for, as far as they are in it. */
export const MAX_PARENT_RESULTS_BYTES = 256 * 1024;
/** The W3C's `tracestate`. */
export const MAX_TRACE_STATE_LENGTH = 512;
/** Dead batches that one `queue.retry` of a whole queue brings back. */
export const MAX_RETRIED_BATCHES = 10_000;

/** Between two occurrences of a schedule with `everyMs`. */
export const MIN_EVERY_MS = 1000;
export const MAX_EVERY_MS = 10 * 365 * 24 * 60 * 60 * 1000;
/** How far back occurrences that were missed are made up for. */
export const DEFAULT_MISSED_WINDOW_MS = 24 * 60 * 60 * 1000;
export const MAX_MISSED_WINDOW_MS = 10 * 365 * 24 * 60 * 60 * 1000;
/** Missed occurrences of one schedule that are made up for at once. */
export const MAX_MISSED_OCCURRENCES = 1000;
export const MAX_CRON_LENGTH = 256;
export const MAX_TIME_ZONE_LENGTH = 64;
/** Times that one `schedule.next` gives. */
export const MAX_NEXT_TIMES = 100;

/** Params of a command that travel in the request that creates it and in the envelope; larger ones are uploaded. */
export const INLINE_MAX_BYTES = 150_000;
/** Params of a command that are uploaded. */
export const MAX_UPLOAD_BYTES = 1024 * 1024 * 1024;
/** An upload that has not ended by then ends as EXPIRED. */
export const MAX_UPLOAD_MS = 24 * 60 * 60 * 1000;
/** Params that one `command.params` returns; as base64 they are a third longer. */
export const MAX_PARAMS_PIECE_BYTES = 512 * 1024;
/** Commands in one `command.lease`, and unanswered on one connection that serves a deployment. */
export const MAX_LEASED_COMMANDS = 100;
export const MAX_SERVED_COMMANDS = 100;
/** Targets that one receiver names. */
export const MAX_TARGETS = 64;
/** Deployments that one connection serves. */
export const MAX_SERVED_DEPLOYMENTS = 1000;
export const MAX_COMMAND_ATTEMPTS = 1_000_000;
export const DEFAULT_COMMAND_ATTEMPTS = 20;
/** How long one delivery of a command may take; if nobody says, one that is pushed. */
export const MAX_EXECUTION_MS = 365 * 24 * 60 * 60 * 1000;
export const DEFAULT_PUSH_EXECUTION_MS = 900_000;
export const MAX_COMMAND_TTL_MS = 10 * 365 * 24 * 60 * 60 * 1000;
export const MAX_COMMAND_DELAY_MS = 30 * 24 * 60 * 60 * 1000;
/** Of an error that answers a command. */
export const MAX_ANSWER_CODE_LENGTH = 128;
/** How much of an answer's message is kept with the command itself; all of it is kept with the answer. */
export const MAX_SHOWN_MESSAGE_LENGTH = 1024;

/**
 * Limits of what may stand in a change of the board (spec: pipeline.md, Errors). All nodes must agree on them:
 * what one takes in, every other must be able to.
 */

/** The body of a change, in UTF-8. */
export const MAX_CHANGE_BODY_BYTES = 64 * 1024;
/** Items that one change touches: an op each. */
export const MAX_CHANGE_OPS = 256;
/** The value of one field, as canonical JSON in UTF-8. */
export const MAX_FIELD_BYTES = 4 * 1024;
/** The value of one of the fields that users name themselves, as canonical JSON, and the text of a note, in UTF-8. */
export const MAX_OWN_FIELD_BYTES = 16 * 1024;
/** The name of a field, known or not, in UTF-8. */
export const MAX_FIELD_NAME_BYTES = 256;
/** A label, in UTF-8. */
export const MAX_LABEL_BYTES = 200;
export const MAX_STORY_ID_LENGTH = 128;
export const MAX_STAGE_LENGTH = 64;
export const MAX_RANK_LENGTH = 256;
/** Odd, and so alive: an item that has come to this can no longer be deleted. */
export const MAX_GENERATION = Number.MAX_SAFE_INTEGER;
/**
 * One increment. A counter is a set value, exact by itself, and a sum of increments: so small, these stay
 * exact, and so independent of their order, up to nine thousand million of them.
 */
export const MAX_INCREMENT = 1_000_000;
/** The counter of a hybrid clock. A tick past it goes to the next millisecond. */
export const MAX_CLOCK_COUNTER = 2 ** 32 - 1;
/** A received change further ahead of the local wall clock than this is refused for now. */
export const MAX_CLOCK_AHEAD_MS = 60_000;

/** Elements of `dependsOn` that one write can name; with the longest ids they still fit into one change. */
export const MAX_DEPENDENCIES_PER_WRITE = 256;
/** Elements of `labels` that one write can name. */
export const MAX_LABELS_PER_WRITE = 256;
/** Fields of the user's own that an item has, as far as one node makes them; merged, it may come to have more. */
export const MAX_OWN_FIELDS = 64;
/** Notes in one answer. */
export const MAX_NOTES_PER_READ = 100;
/** Stages that one node says something of, and those that may follow one. */
export const MAX_BOARD_STAGES = 64;
/** At how many retries an item is blocked. */
export const DEFAULT_BOARD_RETRIES = 5;
export const MAX_BOARD_RETRIES = 1_000_000;
/** Labels that items are asked for by. */
export const MAX_WANTED_LABELS = 64;
/** Heads in one request: more logs than most boards have authors and incarnations. Of more, a peer asks in parts. */
export const MAX_HEADS = 4096;
/** Heads that a node says it has in one statement, those of the longest logs: compaction waits for the others. */
export const MAX_SAID_HEADS = 256;
/** Statements in one `peer.seen`. */
export const MAX_STATEMENTS_PER_CALL = 64;
/** Nobody waits with compaction for a peer that was not heard of for so long: 90 days. */
export const MAX_SILENCE_MS = 90 * 86_400_000;
/** Changes in one `pipeline.changes` and `pipeline.apply` ... */
export const MAX_CHANGES_PER_CALL = 64;
/** ... and their length together as JSON: as much as a request may have, but for what is around them. */
export const MAX_CHANGES_BYTES = DEFAULT_MAX_MESSAGE_BYTES - 1024;

/** Segments of a path, and of a pattern of paths. */
export const MAX_PATH_SEGMENTS = 128;
/** Of one name in a path (NAME_MAX). */
export const MAX_FILE_NAME_LENGTH = 255;
/** Of a pattern of paths. What two can be compared in depends on these limits: at most some 5 ms. */
export const MAX_PATTERN_LENGTH = 512;
/** Patterns that one `path.reserve` names, and as many files. */
export const MAX_RESERVED_PATTERNS = 64;
/** Patterns of one reservation, with all that was added to it. */
export const MAX_RESERVATION_PATTERNS = 1024;
/** Reservations of one root. */
export const MAX_ROOT_RESERVATIONS = 4096;
/** Places of patterns that one call compares, some 5 ms of work; reading a pattern counts as 100 of them. */
export const MAX_COMPARED_PLACES = 800_000;
/** Holders that a refusal or a `path.check` names. */
export const MAX_PATH_HOLDERS = 1000;

/** Rows and entries of indexes that one `daemon.check` looks at, in steps of some milliseconds. */
export const MAX_CHECKED_ROWS = 100_000;
export const DEFAULT_CHECKED_ROWS = 20_000;

/** The time after a restart in which a grant that ends with its connection can be renewed on another. */
export const RESTART_GRACE_MS = 5000;

/** Longest path of a file that a caller names (PATH_MAX, with the final NUL). */
export const MAX_PATH_LENGTH = 4095;
/** `sockaddr_un.sun_path` holds 108 bytes with the final NUL (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** The longest delay of `setTimeout`, which fires at once for longer ones. A later moment is looked at again then. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

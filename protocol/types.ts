// Made from the nouns by `npm run openrpc`, not by hand.

/** A peer that is not known to have all that is here. */
export type AwaitedPeer = {
  /** A node's Ed25519 public key. */
  author: string;
  /** Its name on this node. */
  name: string;
  /** When it last said what it has, in milliseconds since the Unix epoch; absent if it never did. */
  saidAt?: number | undefined;
};

/** `error.data` of the kind bad_chain: `prev` is not the change before this one in its log. */
export type BadChainData = {
  /** The kind of the error, for programs to match on. */
  kind: "bad_chain";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind bad_field: an op gives a field a name or a value that it cannot have. */
export type BadFieldData = {
  /** The kind of the error, for programs to match on. */
  kind: "bad_field";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind bad_generation: an op's generation is no positive integer, or a delete sets fields. */
export type BadGenerationData = {
  /** The kind of the error, for programs to match on. */
  kind: "bad_generation";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind bad_shape: a body or an op lacks a part, or has one too many. */
export type BadShapeData = {
  /** The kind of the error, for programs to match on. */
  kind: "bad_shape";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind bad_signature: the signature is not the author's over this body. */
export type BadSignatureData = {
  /** The kind of the error, for programs to match on. */
  kind: "bad_signature";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind bad_story_id: an op names an item by what cannot be a storyId. */
export type BadStoryIdData = {
  /** The kind of the error, for programs to match on. */
  kind: "bad_story_id";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/**
 * `error.data` of the kind bad_value: a value without one canonical form: -0, an unsafe integer, a lone surrogate.
 */
export type BadValueData = {
  /** The kind of the error, for programs to match on. */
  kind: "bad_value";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Work of a queue: payloads that are claimed, completed and retried together. */
export type Batch = {
  /** qwb: and a hex SHA-256. */
  batchId: string;
  /** A queue exists by being used. */
  queue: string;
  /** Strictly increasing over the database. */
  enqueueSeq: number;
  /** JSON values, kept byte for byte. */
  payloads: unknown[];
  /** Higher is claimed first; those of one priority in the order they were added. */
  priority: number;
  /** Its subject; null for none. */
  key: string | null;
  /** The key that it was enqueued with; null without one. */
  sourceKey: string | null;
  /** At which boundary it is handed out. */
  deliveryPolicy: "earliest_safe_boundary" | "after_current_turn_commit";
  /** Whether it is claimed alone. */
  slotPolicy: "exclusive" | "join";
  /** With which others it may be claimed together. */
  mergeKey: "never" | "payload_default" | MergeGroup;
  /** Where the batch stands. */
  state: "ready" | "scheduled" | "blocked" | "claimed" | "completed" | "dead" | "cancelled" | "expired";
  /** Deliveries that ended without success and count. */
  attempt: number;
  /** After so many counted attempts it is dead; 0 for no limit. */
  maxAttempts: number;
  /** Of its own; null where that of the queue counts. */
  retry: Retry | null;
  /** When it was added, in milliseconds since the Unix epoch. */
  enqueuedAt: number;
  /** Since when, or when, it can be claimed, if nobody holds it. */
  availableAt: number;
  /** When it expires unless it is claimed: of one with a ttl that is ready or scheduled. */
  expiresAt?: number | undefined;
  /** Milliseconds until then. */
  remainingMs?: number | undefined;
  /** The batches that it waits for, or waited for. */
  after?: string[] | undefined;
  /** What has to become of those. */
  when?: "success" | "failure" | "finished" | undefined;
  trace?: Trace | undefined;
  claim?: BatchHolder | undefined;
  progress?: Progress | undefined;
  /** From where another could go on: any JSON of up to 150000 bytes, kept byte for byte. */
  checkpoint?: unknown | undefined;
  /** What came of the work: any JSON of up to 150000 bytes, kept byte for byte. */
  result?: unknown | undefined;
  /** Why the last counted delivery ended. */
  lastError?: string | undefined;
};

/** Who holds a batch now. */
export type BatchHolder = {
  /** A label for people. It proves nothing; the leaseToken does. */
  owner: string;
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** Greater than that of every earlier claim in the queue. */
  fencingToken: number;
  /** When the claim ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
};

/** `error.data` of the kind cancelled: a wait was ended by `rpc.cancel`. */
export type CancelledData = {
  /** The kind of the error, for programs to match on. */
  kind: "cancelled";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Ids such as FR-001, unique within one database. */
export type CentralizedMode = {
  /** Which mode it is. */
  kind: "centralized";
};

/** One of those who would wait for each other for ever. */
export type CircleStep = {
  /** Its process, as the kernel told; null if it did not. */
  pid: number | null;
  /** A label for people: of what it waits for, or holds. */
  owner: string;
  /** What it holds and waits under, if it said so. */
  task?: string | undefined;
  waitsFor: CircleThing;
};

/** The thing that it waits for, and that the next one has; of the last one, the first. */
export type CircleThing = {
  /** A lease, paths, or a child process, which is the next one itself. */
  kind: "lease" | "path" | "process";
  /** Of a lease: its name. */
  name?: string | undefined;
  /** Of paths: the root. */
  root?: string | undefined;
  /** Of paths: the pattern by which the next one has them. */
  pattern?: string | undefined;
  /** Of a child process: its number. */
  pid?: number | null | undefined;
};

/** Batches that one owner works on, until the claim ends. */
export type Claim = {
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** Secret. Whoever has it can renew, complete and abandon. */
  leaseToken: string;
  /** Greater than that of every earlier claim in the queue. */
  fencingToken: number;
  /** A queue exists by being used. */
  queue: string;
  /** A label for people. It proves nothing; the leaseToken does. */
  owner: string;
  /** When it was granted, in milliseconds since the Unix epoch. */
  claimedAt: number;
  /** When the claim ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
  /** The work, in order. */
  batches: Batch[];
  /**
   * The batches that these have waited for, by their batchIds, with their results: of 262144 bytes in all. Instead
   * of one that has no room there stands `{"$result": {"sizeBytes": n}}`; queue.get has it.
   */
  parents?: Record<string, Parent> | undefined;
};

/** Params of claim.cancelling. */
export type ClaimCancellingParams = {
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** A queue exists by being used. */
  queue: string;
  /** The batches of the claim that are cancelled. */
  batchIds: string[];
  /** Why, in the words of whoever cancels; null without any. */
  reason: string | null;
  /** How many milliseconds are left until the claim is lost. */
  graceMs: number;
};

/** A claim, neither expired, nor ended, nor taken over. */
export type ClaimGuard = {
  /** The claim. */
  claimId: string;
  /** Its secret. */
  leaseToken: string;
};

/** Who has it. */
export type ClaimHolder = {
  /** A label for people. It proves nothing; the leaseToken does. */
  owner: string;
  /** The holder's process, as the kernel told; null if it did not. */
  pid: number | null;
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** Greater than that of every earlier claim in the queue. */
  fencingToken: number;
  /** When the claim ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
};

/** `error.data` of the kind claim_lost: the claim expired, was superseded, or its token is wrong. */
export type ClaimLostData = {
  /** The kind of the error, for programs to match on. */
  kind: "claim_lost";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The claim. */
  claimId?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Params of claim.lost. */
export type ClaimLostParams = {
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** A queue exists by being used. */
  queue: string;
  /** The batches of the claim. */
  batchIds: string[];
  /**
   * How it ended. `expired`: it was not renewed in time, or could not be: the daemon is cut off from the database
   * or the provider that keeps it, and others may be granted it soon.
   */
  cause: "cancelled" | "expired" | "disconnected" | "lease_ended";
  /** Why, in the words of whoever cancels; null without any. */
  reason: string | null;
};

/** What a claim lives as long as. */
export type ClaimUnder = {
  lease: LeaseGrant;
};

/**
 * `error.data` of the kind clock_ahead: a change is too far ahead of this node's clock; details.retryMs says when
 * to offer it again.
 */
export type ClockAheadData = {
  /** The kind of the error, for programs to match on. */
  kind: "clock_ahead";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** When to offer the change again, in milliseconds from now. */
  retryMs?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind clock_not_monotonic: a change is not later than the one before it in its log. */
export type ClockNotMonotonicData = {
  /** The kind of the error, for programs to match on. */
  kind: "clock_not_monotonic";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** A time at which the wall clock was set. */
export type ClockStep = {
  /** When, in milliseconds since the Unix epoch. */
  steppedAt: number;
  /** By how many milliseconds; negative for backwards. */
  byMs: number;
};

/** A command as the registry has it, without its params and its answer. */
export type Command = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
  /** A resource within the deployment; empty for none. */
  target: string;
  /** The one receiver that it is for, if it is. */
  incarnation?: string | undefined;
  /** The thing to be done, in the words of the receiver. */
  command: string;
  /** The project that its deployment belongs to; null for none. */
  projectId: string | null;
  /** How the deployment says it takes commands. */
  deploymentModel: "pull" | "push";
  /** Where the command stands. */
  state: "PENDING_UPLOAD" | "PENDING" | "DISPATCHED" | "SUCCEEDED" | "FAILED" | "EXPIRED";
  /** 1 at first; goes up each time a delivery ends without an answer. */
  attempt: number;
  /** Deliveries without an answer after which it is FAILED; 0 for no limit. */
  maxAttempts: number;
  /** When it becomes EXPIRED unless it is answered, in milliseconds since the Unix epoch; null for never. */
  deadline: number | null;
  /** How long one delivery may take; null if the command says nothing. */
  executionMs: number | null;
  /** When it was sent, in milliseconds since the Unix epoch. */
  createdAt: number;
  /** When it was last handed to a receiver. */
  dispatchedAt: number | null;
  /** When it became final, in milliseconds since the Unix epoch; null until then. */
  completedAt: number | null;
  /** Bytes of its params as JSON text, in UTF-8. */
  requestSizeBytes: number;
  /** Bytes of its answer as JSON text, in UTF-8; null without one. */
  responseSizeBytes: number | null;
  /**
   * Why it is FAILED or EXPIRED: the beginning of the message, and the details of its receiver, which a list leaves
   * out. command.response has the whole.
   */
  error: CommandFailure | null;
  progress?: Progress | undefined;
  trace?: Trace | undefined;
  lease?: CommandHolder | undefined;
};

/** Params of command.answer. */
export type CommandAnswerParams = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** Secret. Whoever has it can answer, renew and release. */
  leaseId: string;
  /** Where the piece begins, in bytes. */
  offset: number;
  /** The piece, as base64. */
  chunk: string;
  /** Bytes of the whole answer as JSON text, in UTF-8. */
  sizeBytes: number;
  /** True of the last piece. */
  final?: boolean | undefined;
};

/** Result of command.answer. */
export type CommandAnswerResult = {
  /** Bytes that are there; where the next piece begins. */
  receivedBytes: number;
  /** Where the command stands. */
  state: "PENDING_UPLOAD" | "PENDING" | "DISPATCHED" | "SUCCEEDED" | "FAILED" | "EXPIRED";
  /** Of the last piece, and for a command that is final already: as command.respond says it. */
  accepted?: boolean | undefined;
};

/** Params of command.cancel. */
export type CommandCancelParams = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** Told to the receiver. */
  reason?: string | undefined;
};

/** Result of command.cancel. */
export type CommandCancelResult = {
  /** Where the command stands. */
  state: "PENDING_UPLOAD" | "PENDING" | "DISPATCHED" | "SUCCEEDED" | "FAILED" | "EXPIRED";
};

/** Params of command.cancelled. */
export type CommandCancelledParams = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /**
   * In the words of whoever cancelled it; EXPIRED for a deadline that has passed; EXECUTION_TIME for a delivery
   * that took longer than it may, or whose daemon was cut off from the database of shared names, and may be
   * answered late.
   */
  reason: string | null;
};

/** Params of command.create. */
export type CommandCreateParams = {
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
  /** The thing to be done, in the words of the receiver. */
  command: string;
  /** A resource within the deployment; empty for none. */
  target?: string | undefined;
  /** Any JSON value up to `inlineMaxBytes` as JSON; null if not given. */
  params?: unknown | undefined;
  /** When it becomes EXPIRED unless it is answered. */
  deadline?: number | undefined;
  /** The deadline, counted from now. Not both. */
  ttlMs?: number | undefined;
  /** Makes a retry safe: the same deployment, target, command and key is the same command. */
  idempotencyKey?: string | undefined;
  /** How long one delivery may take: past it the delivery ends as if its lease had, whatever is renewed. */
  executionMs?: number | undefined;
  /** After so many deliveries without an answer it is FAILED, 0 for no limit; 20 if not given. */
  maxAttempts?: number | undefined;
  /**
   * Between two deliveries the command rests for `baseMs * factor^(n - 1)`, at most `maxMs`, n being the number of
   * the one that ended unanswered. The first that ends by itself, by its time or with its connection, lets it not
   * rest. If not given, it never rests.
   */
  retry?: RetryInput | undefined;
  /**
   * The one receiver that it is for: the one that names itself so. When that has ended the command is FAILED with
   * GONE; one that was never seen is waited for.
   */
  incarnation?: string | undefined;
  trace?: TraceInput | undefined;
  upload?: UploadAnnouncement | undefined;
};

/** Result of command.create. */
export type CommandCreateResult = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** Where the command stands. */
  state: "PENDING_UPLOAD" | "PENDING" | "DISPATCHED" | "SUCCEEDED" | "FAILED" | "EXPIRED";
  /** How the deployment says it takes commands. */
  deploymentModel: "pull" | "push";
  /** The project that its deployment belongs to; null for none. */
  projectId: string | null;
  /** False if the idempotencyKey was there with this content. */
  created: boolean;
  /** Bytes of JSON that params and answers may have without being sent in pieces. */
  inlineMaxBytes: number;
  /** The next step: command.wait for it, or command.upload its params. */
  next: "wait" | "upload";
};

/** How many commands of this node's own database are in which state. */
export type CommandDepths = {
  /** Commands in this state. */
  PENDING_UPLOAD: number;
  /** Commands in this state. */
  PENDING: number;
  /** Commands in this state. */
  DISPATCHED: number;
  /** Commands in this state. */
  SUCCEEDED: number;
  /** Commands in this state. */
  FAILED: number;
  /** Commands in this state. */
  EXPIRED: number;
};

/** Params of command.execute. */
export type CommandExecuteParams = {
  /** Secret. Whoever has it can answer, renew and release. */
  leaseId: string;
  /** The kind of the envelope. */
  protocol: "arc.v1";
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
  /** A resource within the deployment; empty for none. */
  target: string;
  /** The thing to be done, in the words of the receiver. */
  command: string;
  /** 1 at first; goes up each time a delivery ends without an answer. */
  attempt: number;
  /** When the command becomes EXPIRED, in milliseconds since the Unix epoch; null for never. */
  deadline: number | null;
  /** How long this delivery lasts at most, whatever is renewed; null for no limit. */
  executionMs: number | null;
  /**
   * Any JSON value. Parameters that were uploaded and are larger than `inlineMaxBytes` are {$upload: {sizeBytes}},
   * to be read with command.params.
   */
  params: unknown;
  /** From where another could go on: any JSON of up to 150000 bytes, kept byte for byte. */
  checkpoint?: unknown | undefined;
  trace?: Trace | undefined;
};

/** Why a command failed. */
export type CommandFailure = {
  /** The kind of the error, for programs to match on. */
  code: string;
  /** A sentence for people. */
  message: string;
  /** Any JSON value of its receiver. */
  details?: unknown | undefined;
};

/** Params of command.get. */
export type CommandGetParams = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
};

/** The holder of a command, while it is DISPATCHED. */
export type CommandHolder = {
  /** A label for people. It proves nothing; the leaseId does. */
  owner: string;
  /** The receiver's process, as the kernel told. */
  pid: number | null;
  /** When it ends unless it is renewed; of a push, which cannot be renewed, at the latest. */
  expiresAt: number | null;
  /** Milliseconds until then. */
  remainingMs: number | null;
};

/** A delivery: a command that one receiver carries out. */
export type CommandLease = {
  /** Secret. Whoever has it can answer, renew and release. */
  leaseId: string;
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  leaseExpiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** 1 at first; goes up each time a delivery ends without an answer. */
  attempt: number;
  envelope: Envelope;
};

/** Params of command.lease. */
export type CommandLeaseParams = {
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
  /** A label for people. It proves nothing; the leaseId does. */
  owner: string;
  /**
   * The receiver, by a name that no other ever has: it is given the commands that are for it alone, and those for
   * any. It lives while a connection that named it is open or a delivery to it lasts, and after a restart of the
   * daemon for 5 s; one that has ended is refused with `invalid_state`.
   */
  incarnation?: string | undefined;
  /** The targets whose commands are taken; those of all if not given. */
  targets?: string[] | undefined;
  /** Most commands to take. */
  max?: number | undefined;
  /** How many milliseconds the grant lasts unless it is renewed. */
  leaseMs?: number | undefined;
  /** How many milliseconds to wait for the condition to come true; 0 answers at once. */
  waitMs?: number | undefined;
  /** `disconnect` also ends the grant the moment the connection closes. */
  releaseOn?: "expiry" | "disconnect" | undefined;
  /**
   * With `releaseOn: disconnect`, how many milliseconds a holder whose connection has closed has to come back:
   * renewed on another one, the grant is bound to that. It never outlives its own end.
   */
  graceMs?: number | undefined;
};

/** Result of command.lease. */
export type CommandLeaseResult = {
  /** Empty if there was nothing to take. */
  leases: CommandLease[];
};

/** Params of command.list. */
export type CommandListParams = {
  /** Only those that were sent to it. */
  deployment?: string | undefined;
  /** Only those of this target. */
  target?: string | undefined;
  /** Only those of this name. */
  command?: string | undefined;
  /** Only those in this state. */
  state?: "PENDING_UPLOAD" | "PENDING" | "DISPATCHED" | "SUCCEEDED" | "FAILED" | "EXPIRED" | undefined;
  /** Only those of deployments of this project. */
  projectId?: string | undefined;
  /** Only those created at this time or later. */
  createdAfter?: number | undefined;
  /** Only those created before this time. */
  createdBefore?: number | undefined;
  /** Most rows to return. */
  limit?: number | undefined;
  /** `next` of the page before: the last id on it. */
  after?: string | undefined;
};

/** Result of command.list. */
export type CommandListResult = {
  /** Newest first. */
  commands: Command[];
  /** There are more: ask again with it as `after`. */
  next?: string | undefined;
};

/** How many commands this daemon made final since the start, by their state then; of shared deployments, too. */
export type CommandOutcomes = {
  /** Answered with success. */
  SUCCEEDED: number;
  /** Answered with a failure, cancelled, or out of attempts. */
  FAILED: number;
  /** Not answered in time. */
  EXPIRED: number;
};

/** Params of command.params. */
export type CommandParamsParams = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** Where the piece begins, in bytes. */
  offset?: number | undefined;
  /** Most bytes of the piece. */
  length?: number | undefined;
};

/** Result of command.params. */
export type CommandParamsResult = {
  /** At most `length` bytes of the text from `offset` on. It may hold fewer; at the end it is empty. */
  chunk: string;
  /** Where the piece begins, in bytes. */
  offset: number;
  /** Bytes of the JSON text, in UTF-8. */
  sizeBytes: number;
};

/** Params of command.progress. */
export type CommandProgressParams = {
  /** Secret. Whoever has it can answer, renew and release. */
  leaseId: string;
  /** How much is done, from 0 to 100. */
  percent?: number | undefined;
  /** What is being done, for people. */
  note?: string | undefined;
  /** From where another could go on: any JSON of up to 150000 bytes, kept byte for byte. */
  checkpoint?: unknown | undefined;
};

/** Result of command.progress. */
export type CommandProgressResult = {
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  leaseExpiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
  /** True if it is to be stopped: always false, since a cancel ends it. */
  cancelling: boolean;
};

/** The command was not carried out, or failed. */
export type CommandRefusal = {
  /** True if the command succeeded. */
  status: "error";
  /** The kind of the error, for programs to match on. */
  code: string;
  /** A sentence for people. */
  message: string;
  /** Any JSON value. */
  details?: unknown | undefined;
};

/** The command was not carried out, or failed. */
export type CommandRefusalInput = {
  /** True if the command succeeded. */
  status: "error";
  /** The kind of the error, for programs to match on. */
  code: string;
  /** A sentence for people. */
  message: string;
  /** Any JSON value. */
  details?: unknown | undefined;
};

/** Params of command.release. */
export type CommandReleaseParams = {
  /** Secret. Whoever has it can answer, renew and release. */
  leaseId: string;
  /** How long nobody gets it. If not given, as `retry` of the command says, else not at all. */
  delayMs?: number | undefined;
};

/** Result of command.release. */
export type CommandReleaseResult = {
  /** Where the command stands. */
  state: "PENDING_UPLOAD" | "PENDING" | "DISPATCHED" | "SUCCEEDED" | "FAILED" | "EXPIRED";
  /** 1 at first; goes up each time a delivery ends without an answer. */
  attempt: number;
};

/** Params of command.renew. */
export type CommandRenewParams = {
  /** Secret. Whoever has it can answer, renew and release. */
  leaseId: string;
  /** How long from now on; as long as it was leased for if it is not given. */
  leaseMs?: number | undefined;
};

/** Result of command.renew. */
export type CommandRenewResult = {
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  leaseExpiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
  /** True if it is to be stopped: always false, since a cancel ends it. */
  cancelling: boolean;
};

/** Params of command.respond. */
export type CommandRespondParams = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** Secret. Whoever has it can answer, renew and release. */
  leaseId: string;
  response: CommandResponseInput;
};

/** Result of command.respond. */
export type CommandRespondResult = {
  /** Where the command stands. */
  state: "PENDING_UPLOAD" | "PENDING" | "DISPATCHED" | "SUCCEEDED" | "FAILED" | "EXPIRED";
  /** False if the command was final already. */
  accepted: boolean;
};

/** The answer to a command. */
export type CommandResponse = CommandSuccess | CommandRefusal;

/** The answer to a command. */
export type CommandResponseInput = CommandSuccessInput | CommandRefusalInput;

/** Params of command.response. */
export type CommandResponseParams = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** With it, or `length`, a piece is read. */
  offset?: number | undefined;
  /** Most bytes of the piece. */
  length?: number | undefined;
};

/** Result of command.response. */
export type CommandResponseResult = {
  /** The answer, how long it is if it is large, or null. */
  response: CommandResponse | LargeText | null;
  /**
   * If a piece was asked for: at most `length` bytes of the text of `response` from `offset` on. It may hold fewer;
   * at the end it is empty.
   */
  chunk?: string | undefined;
  /** Where the piece begins, in bytes. */
  offset?: number | undefined;
  /** Bytes of the JSON text, in UTF-8. */
  sizeBytes?: number | undefined;
};

/** Params of command.serve. */
export type CommandServeParams = {
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
  /** A label for people. It proves nothing; the leaseId does. */
  owner: string;
  /**
   * The receiver, by a name that no other ever has: it is given the commands that are for it alone, and those for
   * any. It lives while a connection that named it is open or a delivery to it lasts, and after a restart of the
   * daemon for 5 s; one that has ended is refused with `invalid_state`.
   */
  incarnation?: string | undefined;
  /** The targets whose commands are taken; those of all if not given. */
  targets?: string[] | undefined;
  /**
   * How many it may have at a time. One that was cancelled or has expired counts no more once command.cancelled is
   * sent, whether or not it is answered.
   */
  max?: number | undefined;
  /** How long one delivery of a command that says nothing of it may take. */
  executionMs?: number | undefined;
};

/** Result of command.serve. */
export type CommandServeResult = {
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
};

/** Commands that are kept. */
export type CommandStats = {
  states: CommandDepths;
  ended: CommandOutcomes;
  /** Answers to commands that were final already. */
  lateAnswers: number;
};

/** The command was carried out. */
export type CommandSuccess = {
  /** True if the command succeeded. */
  status: "success";
  /** The answer: any JSON value, null if not given. */
  response?: unknown | undefined;
};

/** The command was carried out. */
export type CommandSuccessInput = {
  /** True if the command succeeded. */
  status: "success";
  /** The answer: any JSON value, null if not given. */
  response?: unknown | undefined;
};

/** Params of command.upload. */
export type CommandUploadParams = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** Where the piece begins, in bytes. */
  offset: number;
  /** The piece, as base64. */
  chunk: string;
  /** True of the last piece. */
  final?: boolean | undefined;
};

/** Result of command.upload. */
export type CommandUploadResult = {
  /** Bytes that are there; where the next piece begins. */
  receivedBytes: number;
  /** Where the command stands. */
  state: "PENDING_UPLOAD" | "PENDING" | "DISPATCHED" | "SUCCEEDED" | "FAILED" | "EXPIRED";
};

/** Params of command.wait. */
export type CommandWaitParams = {
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** How many milliseconds to wait for the condition to come true; 0 answers at once. */
  waitMs?: number | undefined;
};

/**
 * `error.data` of the kind conflict: a key was reused with different content, details name both; or an `if` does
 * not hold, details.item is what there is.
 */
export type ConflictData = {
  /** The kind of the error, for programs to match on. */
  kind: "conflict";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The queue of the batch. */
  queue?: string | undefined;
  /** The key that was used before. */
  sourceKey?: string | undefined;
  /** The key that was used before. */
  requestId?: string | undefined;
  /** The key that was used before. */
  idempotencyKey?: string | undefined;
  /** The file that is there. */
  path?: string | undefined;
  /** The type that has such numbers already. */
  type?: string | undefined;
  /** The highest number of the type that was dispensed or granted. */
  highest?: number | undefined;
  /** The content that the key stands for. */
  first?: unknown | undefined;
  /** The content of this request. */
  now?: unknown | undefined;
  /** The item as it is, of whose write `if` did not hold; null for none. */
  item?: unknown | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** A holder of a lease, or of paths, that stands in the way. */
export type ConflictingHolder = {
  /** A label for people. */
  owner: string;
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
  /** Of paths: the first of its patterns that does. */
  pattern?: string | undefined;
  /** Of paths: `write` or `read`. */
  mode?: string | undefined;
  /** Of paths: the holder's note; null for none. */
  note?: string | null | undefined;
  /** Of paths: the holder's process, as the kernel told; null if it did not. */
  pid?: number | null | undefined;
};

/** The connections of the daemon. */
export type ConnectionStats = {
  /** Open now. */
  open: number;
  /** Accepted since the start. */
  accepted: number;
  /** Requests that wait now. */
  waiting: number;
  /** How often new connections had to wait, because few descriptors were left. */
  acceptPauses: number;
  /** Replies that clients have not read, of all connections. */
  unsentBytes: number;
  /** Requests that are not yet taken up, and room for long lines under way, of all connections. */
  unreadBytes: number;
  /** Requests that wait for their conditions, of all connections. */
  waitingBytes: number;
  /** Connections that were closed because all together held too much and they did not go on. */
  overloads: number;
};

/** Says that the database was copied from one that may live on. */
export type CopiedDatabase = {
  /** The last time that the copy has kept: the first may have given numbers afterwards. */
  since: number;
  /** The host of the first, and the path of its database there. */
  from: string;
};

/** The holder of a lease, and for how long. */
export type CurrentHolder = {
  /** A label for people. */
  owner: string;
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
};

/** A log of which changes were taken away: up to this one, what is kept are those on which something rests. */
export type Cut = {
  /** A node's Ed25519 public key. */
  author: string;
  /** Random; an author's log begins anew under another. */
  incarnation: string;
  cut: CutPlace;
};

/** The last change of a log that was taken away. */
export type CutPlace = {
  /** Place in a log, from 1 without gaps. */
  seq: number;
  /** SHA-256 of a change's body. */
  hash: string;
};

/** The last change of a log that was taken away. */
export type CutPlaceInput = {
  /** Place in a log, from 1 without gaps. */
  seq: number;
  /** SHA-256 of a change's body. */
  hash: string;
};

/** Params of daemon.acceptCopy. */
export type DaemonAcceptCopyParams = {};

/** Result of daemon.acceptCopy. */
export type DaemonAcceptCopyResult = {
  /** The copy that was accepted; null if the database is none. */
  accepted: CopiedDatabase | null;
};

/** Params of daemon.backup. */
export type DaemonBackupParams = {
  /** An absolute path where no file is yet, in a directory that the daemon may write to. */
  path: string;
};

/** Params of daemon.backupProgress. */
export type DaemonBackupProgressParams = {
  /** Pages that are copied. */
  pages: number;
  /** Pages that there are. */
  totalPages: number;
};

/** Result of daemon.backup. */
export type DaemonBackupResult = {
  /** The size of the copy. */
  bytes: number;
  /** Its pages. */
  pages: number;
};

/** Params of daemon.check. */
export type DaemonCheckParams = {
  /**
   * Rows, entries of indexes and changes after which the call is answered. The batches of one queue are counted
   * within one call.
   */
  limit?: number | undefined;
  /** `next` of the call before. */
  after?: string | undefined;
};

/** Result of daemon.check. */
export type DaemonCheckResult = {
  /** In the order in which they were found. */
  problems: Problem[];
  /** Rows, entries and changes that this call looked at. */
  checked: number;
  /** Where to go on; none when all was looked at. */
  next?: string | undefined;
};

/** Params of daemon.graph. */
export type DaemonGraphParams = {
  /** Only what has to do with this process. */
  pid?: number | undefined;
};

/** Result of daemon.graph. */
export type DaemonGraphResult = {
  /** Processes and things; each is at an end of an edge. */
  nodes: GraphNode[];
  /** Who holds and who waits for what. */
  edges: GraphEdge[];
  /** True if there was more than is looked at. */
  more?: boolean | undefined;
  /**
   * The databases of shared names that could not be asked, as `daemon.info` shows them: what is held and waited for
   * there is missing.
   */
  away?: string[] | undefined;
};

/** Params of daemon.info. */
export type DaemonInfoParams = {};

/** Result of daemon.info. */
export type DaemonInfoResult = {
  /** Always pawld. */
  name: "pawld";
  /** The version of the daemon, as 0.1.0. */
  version: string;
  /** The version of the protocol, as pawl/1. */
  protocol: string;
  /** Its process. */
  pid: number;
  /** Its name among the daemons of the machine. */
  instance: string;
  /** When it started, in milliseconds since the Unix epoch. */
  startedAt: number;
  mode: Mode;
  /** The number or the name of this node; 0 in centralized mode. */
  nodeId: number | string;
  /** Digits that the numbers in ids have at least. */
  idDigits: number;
  /** True if it only reads (--read-only). */
  readOnly: boolean;
  /** True if this connection may call methods that write: not by a socket for reads. */
  canWrite: boolean;
  database: DatabaseInfo;
  /** Where it listens. */
  sockets: SocketInfo[];
  /** Limits that callers can meet, by name. */
  limits: Record<string, number>;
  /** The last time that the wall clock was set by more than a second, and by how much; null for none. */
  clock: ClockStep | null;
  /** The first that fits a name counts; all other leases are in the database. */
  leaseProviders: LeaseProviderInfo[];
  /** The first that fits a name counts; all other names are this node's own. */
  shared: SharedNames[];
  /**
   * Set while another program keeps the write-ahead log from being moved into the database, and it is longer than
   * it ever is otherwise. Everything goes on meanwhile.
   */
  heldLog: HeldLog | null;
  /**
   * Why the configuration was not taken over when SIGHUP had it read again last; the former one stays. Null if it
   * was, or was not read again.
   */
  configError: string | null;
  /**
   * Set when the database is a copy of one on another machine, or of one that is still in its place on this one,
   * until `daemon.acceptCopy`: both may give the same numbers.
   */
  copied: CopiedDatabase | null;
};

/** Params of daemon.ping. */
export type DaemonPingParams = {};

/** Result of daemon.ping. */
export type DaemonPingResult = {
  /** Its wall clock, in milliseconds since the Unix epoch. */
  now: number;
};

/** Params of daemon.stats. */
export type DaemonStatsParams = {
  /** Whether to answer `byQueue`, too. */
  queues?: boolean | undefined;
};

/** Result of daemon.stats. */
export type DaemonStatsResult = {
  /** Milliseconds since the start. */
  uptimeMs: number;
  /** Resident memory of the process. */
  memoryBytes: number;
  connections: ConnectionStats;
  /** Calls by method. */
  requests: Record<string, number>;
  /** Errors by method, then by kind; lines that name no method count under `-`. */
  errors: Record<string, Record<string, number>>;
  turns: TurnStats;
  /** Calls that a turn performed, of late. */
  operationsPerTurn: Distribution;
  /** How long commits took, of late, in milliseconds. */
  commitMs: DurationDistribution;
  /** How long commits took. */
  commits: Histogram;
  /** What `events.watch` tells of, counted whether or not somebody follows. */
  events: EffectCounts;
  /** The first 200 queues to which something happened since the start, then all others together. With `queues`. */
  byQueue?: QueueCounts[] | undefined;
  sequences: SequenceStats;
  /**
   * Batches by state, of all queues in this node's own database: those of shared queues are counted by
   * `queue.stats`.
   */
  queues: QueueDepths;
  commands: CommandStats;
  leases: LeaseStats;
  paths: PathStats;
  pipeline: PipelineStats;
  database: DatabaseStats;
  /** Lines of the log that could not be written: its disk is full, or its reader has stopped or gone. */
  logLinesDropped: number;
};

/** The database of the daemon. */
export type DatabaseInfo = {
  /** Its file. */
  path: string;
  /** The number of its last migration. */
  schemaVersion: number;
};

/** The files of the database. */
export type DatabaseStats = {
  /** The database's own file. */
  bytes: number;
  /** Its write-ahead log. */
  walBytes: number;
};

/** Dependencies to add and to remove; others stay. */
export type DependencyChange = {
  /** Items that it depends on from now on. */
  add?: string[] | undefined;
  /** Items that it depends on no more. */
  remove?: string[] | undefined;
};

/** A receiver, and what waits for it. */
export type Deployment = {
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
  /** How the deployment says it takes commands. */
  model: "pull" | "push";
  /** The project that it belongs to; null for none. */
  projectId: string | null;
  /**
   * Connections that serve it, and leases that wait for a command of it; null from a daemon that only reads
   * (--read-only).
   */
  receivers: number | null;
  /** Commands that are PENDING; within a `transact`, of a page no more than 16,384. */
  pending: number;
};

/** Params of deployment.list. */
export type DeploymentListParams = {
  /** The project that the deployment belongs to. */
  projectId?: string | undefined;
  /** `next` of the page before. */
  after?: string | undefined;
  /** Most rows to return. */
  limit?: number | undefined;
};

/** Result of deployment.list. */
export type DeploymentListResult = {
  /** By name. */
  deployments: Deployment[];
  /** There are more: ask again with it as `after`. */
  next?: string | undefined;
};

/** Params of deployment.set. */
export type DeploymentSetParams = {
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
  /** How the deployment says it takes commands. */
  model?: "pull" | "push" | undefined;
  /** The project that the deployment belongs to. */
  projectId?: string | undefined;
};

/** Result of deployment.set. */
export type DeploymentSetResult = {
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
  /** How the deployment says it takes commands. */
  model: "pull" | "push";
  /** The project that it belongs to; null for none. */
  projectId: string | null;
};

/** Where the tables and the log disagree. */
export type Difference = {
  /** SHA-256 of a change's body. */
  changeId?: string | undefined;
  /** Names an item on all nodes. */
  storyId?: string | undefined;
  /** The value of the table and that of the log. */
  what: string;
};

/** Ids such as FR-7-001 or FR-JM-001, unique over all nodes without their knowing of each other. */
export type DistributedMode = {
  /** Which mode it is. */
  kind: "distributed";
  /** The number or the name of this node, no other's. */
  nodeId: number | string;
};

/** How a number is distributed. */
export type Distribution = {
  /** Half of them are below it. */
  p50: number;
  /** 99 % of them are below it. */
  p99: number;
  /** The greatest. */
  max: number;
};

/** `error.data` of the kind duplicate_key: the key is trusted already, as another peer. */
export type DuplicateKeyData = {
  /** The kind of the error, for programs to match on. */
  kind: "duplicate_key";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The peer that has the key. */
  name?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** How a duration is distributed, in milliseconds with decimals. */
export type DurationDistribution = {
  /** Half of them are below it. */
  p50: number;
  /** 99 % of them are below it. */
  p99: number;
  /** The greatest. */
  max: number;
};

/** How often each effect was committed since the start, by noun and kind. */
export type EffectCounts = {
  /** By kind, as `completed` of the noun queue or `broken` of lease. */
  queue: Record<string, number>;
  /** By kind, as `completed` of the noun queue or `broken` of lease. */
  lease: Record<string, number>;
  /** By kind, as `completed` of the noun queue or `broken` of lease. */
  path: Record<string, number>;
  /** By kind, as `completed` of the noun queue or `broken` of lease. */
  command: Record<string, number>;
  /** By kind, as `completed` of the noun queue or `broken` of lease. */
  schedule: Record<string, number>;
  /** By kind, as `completed` of the noun queue or `broken` of lease. */
  item: Record<string, number>;
  /** By kind, as `completed` of the noun queue or `broken` of lease. */
  sequence: Record<string, number>;
  /** By kind, as `completed` of the noun queue or `broken` of lease. */
  daemon: Record<string, number>;
};

/** A command as its receiver gets it. */
export type Envelope = {
  /** The kind of the envelope. */
  protocol: "arc.v1";
  /** cmd_ and a UUID of version 7, so that ids sort by time. */
  commandId: string;
  /** The receiver: a worker process, a service, an agent. */
  deployment: string;
  /** A resource within the deployment; empty for none. */
  target: string;
  /** The thing to be done, in the words of the receiver. */
  command: string;
  /** 1 at first; goes up each time a delivery ends without an answer. */
  attempt: number;
  /** When the command becomes EXPIRED, in milliseconds since the Unix epoch; null for never. */
  deadline: number | null;
  /** How long this delivery lasts at most, whatever is renewed; null for no limit. */
  executionMs: number | null;
  /**
   * Any JSON value. Parameters that were uploaded and are larger than `inlineMaxBytes` are {$upload: {sizeBytes}},
   * to be read with command.params.
   */
  params: unknown;
  /** From where another could go on: any JSON of up to 150000 bytes, kept byte for byte. */
  checkpoint?: unknown | undefined;
  trace?: Trace | undefined;
};

/** One effect on one thing. It holds labels and ids, never payloads or secrets. */
export type Event = {
  /** A place in the order of events, in one life of the daemon. */
  cursor: string;
  /** When it was committed, in milliseconds since the Unix epoch. */
  at: number;
  /** The thing that it is about, as `queue:mail`. */
  topic: string;
  /** What happened, as `enqueued`. New kinds may be added. */
  kind: string;
  /** The batch, the command, the lease, the id: never a secret. */
  id: string;
  /** The owner who did it, where there is one. */
  by?: string | undefined;
  /** The token of a grant. */
  fencingToken?: number | undefined;
  /** The state, queue, stage or number before. */
  from?: string | undefined;
  /** The state, queue, stage or number after. */
  to?: string | undefined;
  /** Why, in the words of whoever did it or of the daemon. */
  reason?: string | undefined;
};

/** Params of event. */
export type EventParams = {
  /** The subscription, within its connection. */
  subscriptionId: string;
  /** A place in the order of events, in one life of the daemon. */
  cursor: string;
  /** When it was committed, in milliseconds since the Unix epoch. */
  at: number;
  /** The thing that it is about, as `queue:mail`. */
  topic: string;
  /** What happened, as `enqueued`. New kinds may be added. */
  kind: string;
  /** The batch, the command, the lease, the id: never a secret. */
  id: string;
  /** The owner who did it, where there is one. */
  by?: string | undefined;
  /** The token of a grant. */
  fencingToken?: number | undefined;
  /** The state, queue, stage or number before. */
  from?: string | undefined;
  /** The state, queue, stage or number after. */
  to?: string | undefined;
  /** Why, in the words of whoever did it or of the daemon. */
  reason?: string | undefined;
};

/** Params of events.subscribe. */
export type EventsSubscribeParams = {
  /**
   * `queue:NAME`, `lease:NAME`, `path:ROOT`, `command:DEPLOYMENT`, `schedule:NAME`, `item:ID`, `sequence:TYPE` or
   * `daemon`. The name may end in `*`; `*` alone is everything.
   */
  topics: string[];
  /** The cursor behind which to begin; without it, only what happens from now on. */
  since?: string | undefined;
};

/** Result of events.subscribe. */
export type EventsSubscribeResult = {
  /** The subscription, within its connection. */
  subscriptionId: string;
  /** A place in the order of events, in one life of the daemon. */
  cursor: string;
  /**
   * True if events that the topics fit may be missing: list what is followed again, then go on from the new cursor.
   */
  gap: boolean;
};

/** Params of events.unsubscribe. */
export type EventsUnsubscribeParams = {
  /** The subscription, within its connection. */
  subscriptionId: string;
};

/** Result of events.unsubscribe. */
export type EventsUnsubscribeResult = {
  /** False if there was no such subscription. */
  unsubscribed: boolean;
};

/** Params of events.watch. */
export type EventsWatchParams = {
  /**
   * `queue:NAME`, `lease:NAME`, `path:ROOT`, `command:DEPLOYMENT`, `schedule:NAME`, `item:ID`, `sequence:TYPE` or
   * `daemon`. The name may end in `*`; `*` alone is everything.
   */
  topics: string[];
  /** The cursor behind which to begin; without it, only what happens from now on. */
  since?: string | undefined;
  /** How many milliseconds to wait for the condition to come true; 0 answers at once. */
  waitMs?: number | undefined;
  /** Most rows to return. */
  limit?: number | undefined;
};

/** Result of events.watch. */
export type EventsWatchResult = {
  /** The oldest first. */
  events: Event[];
  /** The cursor to go on from. */
  cursor: string;
  /**
   * True if events that the topics fit may be missing: list what is followed again, then go on from the new cursor.
   */
  gap: boolean;
};

/** `error.data` of the kind exhausted: a counter or a bounded thing is full. */
export type ExhaustedData = {
  /** The kind of the error, for programs to match on. */
  kind: "exhausted";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The queue that has no room. */
  queue?: string | undefined;
  /** How many of its batches wait. */
  waiting?: number | undefined;
  /** How many of them may. */
  maxWaiting?: number | undefined;
  /** The batch that takes no more payloads. */
  batchId?: string | undefined;
  /** How many payloads it has. */
  payloads?: number | undefined;
  /** How many it may have. */
  most?: number | undefined;
  /** How many bytes they may have. */
  mostBytes?: number | undefined;
  /** How many there may be. */
  limit?: number | undefined;
  /** How many bytes there may be. */
  limitBytes?: number | undefined;
  /** The name whose tokens are used up. */
  name?: string | undefined;
  /** The highest token of the name. */
  highest?: number | undefined;
  /** The type whose numbers are used up. */
  type?: string | undefined;
  /** The last number of the type. */
  last?: number | undefined;
  /** How many numbers of the type are left. */
  left?: number | undefined;
  /** True if these come from grants alone. */
  granted?: boolean | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind forbidden: the peer's user may not call this. */
export type ForbiddenData = {
  /** The kind of the error, for programs to match on. */
  kind: "forbidden";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The user of the caller. */
  uid?: number | null | undefined;
  /** The group of the caller. */
  gid?: number | null | undefined;
  /** The file that may not be written. */
  path?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** A process that holds something, or waits for it, or for a child process. */
export type GraphEdge = {
  /** The process. */
  from: string;
  /** The thing, or the child process that it waits for. */
  to: string;
  /** The one or the other. */
  what: "holds" | "waits";
  /**
   * For how many milliseconds; null where that is not known: of a claim that an earlier version has made, and of a
   * child that waits behind more calls than are looked at.
   */
  sinceMs: number | null;
};

/** A process, or a thing that processes hold and wait for. */
export type GraphNode = {
  /** Names the node in this answer; of no use elsewhere. */
  id: string;
  /** `key`: of the batches of a queue. `path`: a pattern below a root. */
  kind: "process" | "lease" | "queue" | "key" | "command" | "path";
  /** Of a lease, a queue, the key of batches, or a command, which is named by its id. */
  name?: string | undefined;
  /** Of a key: its queue. */
  queue?: string | undefined;
  /** Of a path: the root of its pattern. */
  root?: string | undefined;
  /** Of a path. */
  pattern?: string | undefined;
  /** Of a process, as the kernel told; null if it did not. */
  pid?: number | null | undefined;
  /** Of a process: a label for people, if it gave one. */
  owner?: string | undefined;
  /** Of a process: what it holds and waits under; each task of a process is a node. */
  task?: string | undefined;
  /**
   * Of a process that holds shared names by another daemon: the number of that among those that share them; null if
   * it has gone, or nobody knows which it was.
   */
  daemon?: number | null | undefined;
  /** Of such a process: the host of that daemon, on which its `pid` is, as long as it is there. */
  host?: string | undefined;
};

/** A change, and with it all before it in its log. */
export type Head = {
  /** A node's Ed25519 public key. */
  author: string;
  /** Random; an author's log begins anew under another. */
  incarnation: string;
  /** Place in a log, from 1 without gaps. */
  seq: number;
  /** SHA-256 of a change's body. */
  hash: string;
};

/** A change, and with it all before it in its log. */
export type HeadInput = {
  /** A node's Ed25519 public key. */
  author: string;
  /** Random; an author's log begins anew under another. */
  incarnation: string;
  /** Place in a log, from 1 without gaps. */
  seq: number;
  /** SHA-256 of a change's body. */
  hash: string;
};

/** A claim of the caller, with the proof of it. */
export type HeldClaim = {
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** Secret. Whoever has it can renew, complete and abandon. */
  leaseToken: string;
};

/** Says that the write-ahead log of the database grows, since somebody reads without end. */
export type HeldLog = {
  /** Who reads; null where the kernel does not tell. */
  pid: number | null;
  /** The length of the log. */
  walBytes: number;
};

/** How often something lasted how long, since the start of the daemon; the bounds stay. */
export type Histogram = {
  /** Upper bounds in milliseconds, in order. */
  bounds: number[];
  /** For each bound those up to it that are above the bound before; behind them, those above the last bound. */
  counts: number[];
  /** All of them together, in milliseconds. */
  sum: number;
};

/**
 * `error.data` of the kind internal: a defect, or a stored row that is damaged; details.reference is in the log
 * too.
 */
export type InternalData = {
  /** The kind of the error, for programs to match on. */
  kind: "internal";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** Finds the line in the daemon's log. */
  reference: string;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind invalid_params: the params do not fit; details.issues says where. */
export type InvalidParamsData = {
  /** The kind of the error, for programs to match on. */
  kind: "invalid_params";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** Each param that does not fit. */
  issues: Issue[];
  /** Bytes that are there; where the next piece begins. */
  receivedBytes?: number | undefined;
  /** Bytes of the whole text. */
  sizeBytes?: number | undefined;
  /** Batches, changes and items that a transact names. */
  named?: number | undefined;
  /** How many it may name. */
  most?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind invalid_request: not a JSON-RPC 2.0 request. */
export type InvalidRequestData = {
  /** The kind of the error, for programs to match on. */
  kind: "invalid_request";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The id of an answer that answers no request. */
  answered?: unknown | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind invalid_state: a transition that the state table forbids; details {from, to}. */
export type InvalidStateData = {
  /** The kind of the error, for programs to match on. */
  kind: "invalid_state";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The state of this moment. */
  from: unknown;
  /** The state that cannot follow it. */
  to: unknown;
  /** Of an item: the stages that may follow. */
  allowed?: string[] | undefined;
  /** The batch. */
  batchId?: string | undefined;
  /** The command. */
  commandId?: string | undefined;
  /** Where the command stands. */
  state?: string | undefined;
  /** Bytes that are there; where the next piece begins. */
  receivedBytes?: number | undefined;
  /** Bytes of the whole text. */
  sizeBytes?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** A param that does not fit. */
export type Issue = {
  /** Where it is in the params: a JSON Pointer (RFC 6901). */
  path: string;
  /** The fault, and what fits. */
  message: string;
};

/** An item of the board. */
export type Item = {
  /** Names an item on all nodes. */
  storyId: string;
  /** Free text; by convention 1_backlog, 2_current, 3_qa, 4_merge, 5_done. */
  stage: string;
  /** A title for people. */
  name: string | null;
  /** Information about who works on it, not a lock. */
  agent: string | null;
  /** How often it was tried. */
  retryCount: number;
  /** True if somebody says that it cannot go on. */
  blocked: boolean;
  /** The items that it depends on, sorted. */
  dependsOn: string[];
  /** Its labels, sorted. */
  labels: string[];
  /**
   * Fields of the user's own, by name; by convention description, priority (0 to 4, 0 first), type, assignee and
   * parent.
   */
  fields: Record<string, unknown>;
  /** How many notes it has; pipeline.read gives them. */
  notes: number;
  /** Orders items within a stage, by its characters' codes; ties by storyId. */
  rank: string;
  /** When it last changed, in milliseconds since the Unix epoch. */
  updatedAt: number;
  /** The public key of the node that changed it last. */
  updatedBy: string;
  /** Absent if nobody has claimed it on this node. */
  claim?: ItemClaim | undefined;
  /**
   * True if it can be claimed: in a stage that work is taken from, not blocked, its lease held by nobody, and all
   * that it depends on in a stage that ends work.
   */
  ready: boolean;
};

/** The effect of one change on an item. */
export type ItemChange = {
  /** SHA-256 of a change's body. */
  changeId: string;
  /** A node's Ed25519 public key. */
  author: string;
  /** The author's name here; null for this node itself. */
  name: string | null;
  /** When, in milliseconds since the Unix epoch. */
  at: number;
  /** Fields set; dependsOn and labels as {add, remove}, notes as those added. */
  set: Record<string, unknown>;
  /** Increments by field. */
  delta: Record<string, number>;
  /** True if it deleted the item. */
  deleted?: true | undefined;
};

/** Who works on an item, by a claim that was made on this node. */
export type ItemClaim = {
  /** Who claimed it. */
  agent: string;
  /** When the claim ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** The process that claimed it, as the kernel told; null if it did not. */
  pid: number | null;
};

/** What an item has to be for a write to be made. */
export type ItemCondition = {
  /** Its stage; null if it must not exist. */
  stage?: string | null | undefined;
  /** Who works on it; null for nobody. */
  agent?: string | null | undefined;
  /** When it last changed, as an answer said. */
  updatedAt?: number | undefined;
};

/** Params of item.contested. */
export type ItemContestedParams = {
  /** Names an item on all nodes. */
  storyId: string;
  /** The token of the lease `item/<storyId>`, greater than that of every earlier one. */
  fencingToken: number;
  /** Whom the other node gives it to. */
  otherAgent: string;
  /** The public key of that node. */
  author: string;
  /** The agent that the board shows from now on. */
  agent: string | null;
};

/** A note of an item. */
export type ItemNote = {
  /** When it was written, in milliseconds since the Unix epoch. */
  at: number;
  /** The public key of the node that wrote it. */
  author: string;
  /** Who says it. */
  agent: string | null;
  /** Free text. */
  text: string;
};

/** `error.data` of the kind key_mode: the identity key can be read or written by others. */
export type KeyModeData = {
  /** The kind of the error, for programs to match on. */
  kind: "key_mode";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind key_unreadable: the identity key is missing, corrupt or not a PKCS #8 Ed25519 key. */
export type KeyUnreadableData = {
  /** The kind of the error, for programs to match on. */
  kind: "key_unreadable";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author whose key is missing. */
  author?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Labels to add and to remove; others stay. */
export type LabelChange = {
  /** Labels that it has from now on. */
  add?: string[] | undefined;
  /** Labels that it has no more. */
  remove?: string[] | undefined;
};

/** Stands for a JSON text that is read in pieces. */
export type LargeText = {
  $upload: TextSize;
};

/** A lease as its holder has it. */
export type Lease = {
  /** What the lease is for: a database, a branch, a directory. */
  name: string;
  /** Secret and random. Whoever has it can renew and release the lease. */
  leaseId: string;
  /** Greater than that of every earlier holder of the name, for ever. */
  fencingToken: number;
  /** A label for people. It proves nothing; the leaseId does. */
  owner: string;
  /** `shared`: together with any number of others that are `shared`, and no exclusive holder. */
  mode: "exclusive" | "shared";
  /** How many of the name's slots it takes; 1 of one that is shared. */
  slots: number;
  /** The members of the name's pool that are its own: as many as it has slots. */
  members?: string[] | undefined;
  /** When it was granted, in milliseconds since the Unix epoch. */
  acquiredAt: number;
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
};

/** Params of lease.acquire. */
export type LeaseAcquireParams = {
  /** A label for people. It proves nothing; the leaseId does. */
  owner: string;
  /** What the lease is for: a database, a branch, a directory. */
  name?: string | undefined;
  /**
   * In the place of `name`: all of them or none, under one leaseId. Of those that are pools it is given at most
   * 4096 members together.
   */
  names?: string[] | undefined;
  /**
   * A label of what it is held for: what one process holds and waits for under it belongs together, where circles
   * of waits are looked for.
   */
  task?: string | undefined;
  /** The holder waits for its child processes, and so for what they wait for. */
  awaitsChildren?: boolean | undefined;
  /** `shared`: together with any number of others that are `shared`, and no exclusive holder. */
  mode?: "exclusive" | "shared" | undefined;
  /**
   * How many slots it takes of each name, of which a name has one unless `lease.configure` says otherwise; 1 if not
   * given. Not with `shared`.
   */
  slots?: number | undefined;
  /** How many milliseconds the grant lasts unless it is renewed. */
  ttlMs?: number | undefined;
  /** How many milliseconds to wait for the condition to come true; 0 answers at once. */
  waitMs?: number | undefined;
  /** `disconnect` also ends the grant the moment the connection closes. */
  releaseOn?: "expiry" | "disconnect" | undefined;
  /**
   * With `releaseOn: disconnect`, how many milliseconds a holder whose connection has closed has to come back:
   * renewed on another one, the grant is bound to that. It never outlives its own end.
   */
  graceMs?: number | undefined;
  /** Shown to others by lease.get. */
  note?: string | undefined;
  /**
   * Has the daemon end the process that opened the connection when the lease is lost (expired, broken or cut off,
   * not released): it is sent the signal, killed later, and nobody else is granted the name before it has ended and
   * the connection has closed. `forbidden` where the daemon may not signal it, `invalid_params` where it is not
   * known for certain.
   */
  onLoss?: OnLoss | undefined;
};

/** Result of lease.acquire. */
export type LeaseAcquireResult = OneLease | SeveralLeases;

/** Params of lease.break. */
export type LeaseBreakParams = {
  /** What the lease is for: a database, a branch, a directory. */
  name: string;
  /** Logged, and told to the holder. */
  reason: string;
  /** Only the holder with this token. */
  fencingToken?: number | undefined;
};

/** Result of lease.break. */
export type LeaseBreakResult = {
  /** False if nobody held it. */
  broken: boolean;
  /** In a transaction, which does one step: whether there are holders left. */
  more?: boolean | undefined;
};

/** Params of lease.check. */
export type LeaseCheckParams = {
  /** What the lease is for: a database, a branch, a directory. */
  name: string;
  /** Greater than that of every earlier holder of the name, for ever. */
  fencingToken: number;
};

/** Result of lease.check. */
export type LeaseCheckResult = {
  /**
   * Whether it is held now. A name that is held by one at a time has no current token below `highest`; of a shared
   * or counted one several are current.
   */
  current: boolean;
  /**
   * The highest token ever granted for the name, as far as this daemon has seen; it never falls. 0 before the
   * first.
   */
  highest: number;
};

/** Params of lease.configure. */
export type LeaseConfigureParams = {
  /** What the lease is for: a database, a branch, a directory. */
  name: string;
  /** How many may hold it; they have no members then. */
  slots?: number | undefined;
  /** Ports, devices, accounts: a slot for each, and each holder is given its own. */
  members?: string[] | undefined;
};

/** Result of lease.configure. */
export type LeaseConfigureResult = {
  /** What the lease is for: a database, a branch, a directory. */
  name: string;
  /** How many may hold it at a time. */
  slots: number;
  /** The pool, if it is one. */
  members?: string[] | undefined;
};

/** Params of lease.expiring. */
export type LeaseExpiringParams = {
  /** What the lease is for: a database, a branch, a directory. */
  name: string;
  /** Secret and random. Whoever has it can renew and release the lease. */
  leaseId: string;
  /** Greater than that of every earlier holder of the name, for ever. */
  fencingToken: number;
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
};

/** Params of lease.get. */
export type LeaseGetParams = {
  /** What the lease is for: a database, a branch, a directory. */
  name: string;
};

/** Result of lease.get. */
export type LeaseGetResult = {
  /** The earliest holder; null if nobody holds it. */
  lease: LeaseHolder | null;
  /** All holders, the earliest first; of more than 256 the first so many. */
  holders: LeaseHolder[];
  /** How many may hold it at a time. */
  slots: number;
  /** How many slots are not taken; 0 while it is shared. */
  free: number;
};

/** A grant of a lease, by its name and fencing token. */
export type LeaseGrant = {
  /** The name of the lease. */
  name: string;
  /** That of the grant. */
  fencingToken: number;
};

/** A lease, held and with this token. */
export type LeaseGuard = {
  /** The name that the lease is for. */
  name: string;
  /** The token that it was granted with. */
  fencingToken: number;
};

/** Params of lease.heartbeat. */
export type LeaseHeartbeatParams = {
  /** Secret and random. Whoever has it can renew and release the lease. */
  leaseId: string;
  /** How long the lease lasts from now on; what it was acquired for, if not given. */
  ttlMs?: number | undefined;
  /** Shown to others by lease.get. */
  note?: string | undefined;
};

/** Result of lease.heartbeat. */
export type LeaseHeartbeatResult = {
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
};

/** `error.data` of the kind lease_held: details.holder says who holds the lease and how long. */
export type LeaseHeldData = {
  /** The kind of the error, for programs to match on. */
  kind: "lease_held";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The first of the holders. */
  holder: CurrentHolder;
  /** The holders, the earliest first, up to 16, of paths up to 1000; none where others come first. */
  holders: ConflictingHolder[];
  /** Which of several names is held. */
  name?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** A holder as others may know it: never the leaseId. */
export type LeaseHolder = {
  /** What the lease is for: a database, a branch, a directory. */
  name: string;
  /** A label for people. It proves nothing; the leaseId does. */
  owner: string;
  /** Greater than that of every earlier holder of the name, for ever. */
  fencingToken: number;
  /** `shared`: together with any number of others that are `shared`, and no exclusive holder. */
  mode: "exclusive" | "shared";
  /** How many of the name's slots it takes, if more than one. */
  slots?: number | undefined;
  /** The members of the name's pool that are its own: as many as it has slots. */
  members?: string[] | undefined;
  /** When it was granted, in milliseconds since the Unix epoch. */
  acquiredAt: number;
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
  /**
   * True of a lease that is lost, while nobody is granted it because this holder's process has not ended
   * (`onLoss`).
   */
  ending?: boolean | undefined;
  /** How many wait for the name; null from a daemon that only reads (--read-only). */
  waiters: number | null;
  /** What the holder says of it; null for nothing. */
  note: string | null;
  /** The holder's process, as the kernel told; null if it did not. */
  pid: number | null;
  /** The holder's user, as the kernel told; null if it did not. */
  uid: number | null;
};

/** Params of lease.list. */
export type LeaseListParams = {
  /** Only names that begin so. */
  prefix?: string | undefined;
  /** `next` of the page before. */
  after?: string | undefined;
  /** Most rows to return. */
  limit?: number | undefined;
};

/** Result of lease.list. */
export type LeaseListResult = {
  /** By name, and of one name the earliest holder first. */
  leases: LeaseHolder[];
  /** There are more: ask again with it as `after`. */
  next?: string | undefined;
};

/** `error.data` of the kind lease_lost: the lease expired, was superseded, or its id is wrong. */
export type LeaseLostData = {
  /** The kind of the error, for programs to match on. */
  kind: "lease_lost";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** Why, as a word for programs. */
  reason?: string | undefined;
  /** The name that the lease is for. */
  name?: string | undefined;
  /** The token that does not hold. */
  fencingToken?: number | undefined;
  /** The highest token granted for the name. */
  highest?: number | undefined;
  /** The command that was leased. */
  commandId?: string | undefined;
  /** Where the command stands. */
  state?: string | undefined;
  /** The number of its present delivery. */
  attempt?: number | undefined;
  /** The words of whoever cancelled the command. */
  message?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Params of lease.lost. */
export type LeaseLostParams = {
  /** What the lease is for: a database, a branch, a directory. */
  name: string;
  /** Secret and random. Whoever has it can renew and release the lease. */
  leaseId: string;
  /** Greater than that of every earlier holder of the name, for ever. */
  fencingToken: number;
  /**
   * How it ended. `expired`: it was not renewed in time, or could not be: the daemon is cut off from the database
   * or the provider that keeps it, and others may be granted it soon.
   */
  cause: "expired" | "broken";
  /** Why it was broken, in the words of whoever did. */
  reason: string | null;
};

/** The names whose leases are kept elsewhere. */
export type LeaseProviderInfo = {
  /** Names, in which `*` stands for any characters. */
  pattern: string;
  /** Where their leases are kept; local for the database. */
  kind: "local" | "dynamodb" | "etcd" | "custom";
};

/** Params of lease.release. */
export type LeaseReleaseParams = {
  /** Secret and random. Whoever has it can renew and release the lease. */
  leaseId: string;
};

/** Result of lease.release. */
export type LeaseReleaseResult = {
  /** False if it was already gone. */
  released: boolean;
};

/** Leases of this moment in this node's own database; shared ones are listed by `lease.list`. */
export type LeaseStats = {
  /** Leases that are held. */
  held: number;
};

/** `error.data` of the kind log_corrupt: a stored change no longer parses or hashes right. */
export type LogCorruptData = {
  /** The kind of the error, for programs to match on. */
  kind: "log_corrupt";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The damaged change. */
  changeId?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** A group of a name that the caller chose. */
export type MergeGroup = {
  /** Its name. */
  group: string;
};

/** A group of a name that the caller chose. */
export type MergeGroupInput = {
  /** Its name. */
  group: string;
};

/** `error.data` of the kind message_too_large: the line is longer than --max-message-bytes. */
export type MessageTooLargeData = {
  /** The kind of the error, for programs to match on. */
  kind: "message_too_large";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind method_not_found: no such method; details name the closest one, if one is close. */
export type MethodNotFoundData = {
  /** The kind of the error, for programs to match on. */
  kind: "method_not_found";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** A method whose name is close. */
  closest?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind missing_prev: the change before this one has not arrived. */
export type MissingPrevData = {
  /** The kind of the error, for programs to match on. */
  kind: "missing_prev";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Who the numbers are unique among: this database, or all nodes. */
export type Mode = CentralizedMode | DistributedMode;

/** A batch to be added with others. */
export type NewBatchOfMany = {
  /** A queue exists by being used. */
  queue: string;
  /** JSON values, kept byte for byte. */
  payloads: unknown[];
  /** Higher is claimed first; those of one priority in the order they were added. */
  priority?: number | undefined;
  /**
   * Its subject: a customer, a file, a branch. A queue can be configured to have few claims of a key at a time, and
   * to keep their order.
   */
  key?: string | undefined;
  /**
   * Makes a retry safe: the same queue and key with the same content is the same batch, also after it ended.
   * Content is the payloads and the policies by their meaning, priority and key, and ttlMs, maxAttempts and retry
   * as given: not given equals not given, whatever the queue has set meanwhile.
   */
  sourceKey?: string | undefined;
  /**
   * With other content under the same sourceKey: `refuse` it with `conflict`, or `return` the batch that is there.
   * Otherwise a batch that has ended does not count, and of one that waits: `replace` puts the new content in its
   * place, and its delay begins anew; `keepTime` leaves its time; `append` adds the payloads. Of one that is
   * claimed these make a follower, which waits for its end; `rerun` always does. There is never more than one
   * follower; it takes over what comes.
   */
  onExisting?: "refuse" | "return" | "replace" | "keepTime" | "append" | "rerun" | undefined;
  /** `replace` begins the delay anew no longer than so long after the first. */
  maxDelayMs?: number | undefined;
  /** The sourceKey is forgotten when the batch has ended. */
  uniqueFor?: "unfinished" | undefined;
  /** `after_current_turn_commit` is claimed at the boundary `idle` only. */
  deliveryPolicy?: "earliest_safe_boundary" | "after_current_turn_commit" | undefined;
  /** `join` may be claimed together with those that follow it. */
  slotPolicy?: "exclusive" | "join" | undefined;
  /** `never` joins with nothing, not even itself. */
  mergeKey?: "never" | "payload_default" | MergeGroupInput | undefined;
  /** Not before so long from now. */
  delayMs?: number | undefined;
  /** Not before then; the past is now. */
  availableAt?: number | undefined;
  /** It expires when it has been available for so long and nobody has claimed it. */
  ttlMs?: number | undefined;
  /**
   * After so many counted attempts it is dead, 0 for no limit; if not given, as the queue is configured, else 20.
   */
  maxAttempts?: number | undefined;
  /**
   * A delivery that ended with an error makes the batch rest for `baseMs * factor^(n - 1)`, at most `maxMs`, n
   * being its counted attempts of any kind. The first end by expiry or disconnect lets it not rest at all. If not
   * given, as the queue is configured by then, else 1000 ms, 2, 3600000 ms, with jitter.
   */
  retry?: RetryInput | undefined;
  /**
   * Batches whose ends it waits for, by their batchIds; of one `queue.enqueueMany` also by their `ref`. It is
   * `blocked` until all have ended; then its delay and its ttl begin.
   */
  after?: string[] | undefined;
  /**
   * What has to become of these: `success` (default) of all, `failure` of at least one, or only `finished`. Where
   * that cannot come true any more it is cancelled, and so are those that wait for it.
   */
  when?: "success" | "failure" | "finished" | undefined;
  trace?: TraceInput | undefined;
  /** A name within this call, for `after` of its other batches. */
  ref?: string | undefined;
};

/** A note, and who says it. */
export type NewNote = {
  /** Free text, at most 16384 bytes of UTF-8; longer is `too_large`. */
  text: string;
  /** Who says it; without it, or with null, the agent of the item. */
  agent?: string | null | undefined;
};

/** `error.data` of the kind not_canonical: a body is not its own RFC 8785 canonical form. */
export type NotCanonicalData = {
  /** The kind of the error, for programs to match on. */
  kind: "not_canonical";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind not_found: details.what says which thing does not exist. */
export type NotFoundData = {
  /** The kind of the error, for programs to match on. */
  kind: "not_found";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The kind of thing that does not exist. */
  what: string;
  /** The batch. */
  batchId?: string | undefined;
  /** The queue that has no such sourceKey. */
  queue?: string | undefined;
  /** The schedule. */
  schedule?: string | undefined;
  /** The key that no batch there has. */
  sourceKey?: string | undefined;
  /** The command. */
  commandId?: string | undefined;
  /** Where the command stands. */
  state?: string | undefined;
  /** Bytes that are there; where the next piece begins. */
  receivedBytes?: number | undefined;
  /** Bytes of the whole text. */
  sizeBytes?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind not_json: the body of a change is not JSON. */
export type NotJsonData = {
  /** The kind of the error, for programs to match on. */
  kind: "not_json";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** A number of a type, and the id made of it. */
export type NumberedId = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** A number of a sequence, from 1. */
  seq: number;
  /** FR-001, or FR-7-001 or FR-JM-001 with a node id. */
  id: string;
};

/** How the process that opened the connection is ended when the grant is lost. */
export type OnLoss = {
  /** What it is sent first, and then SIGCONT, lest a stopped process never see it. */
  signal?: "SIGTERM" | "SIGINT" | "SIGHUP" | "SIGQUIT" | "SIGABRT" | "SIGUSR1" | "SIGUSR2" | "SIGKILL" | undefined;
  /** After so many milliseconds it is killed (SIGKILL), if it has not ended by then. */
  graceMs?: number | undefined;
};

/** The answer to a request with `name`. */
export type OneLease = {
  lease: Lease;
};

/** A log of which another node gave cuts, and perhaps not yet all that replaced what they stand for. */
export type OpenLog = {
  /** A node's Ed25519 public key. */
  author: string;
  /** Random; an author's log begins anew under another. */
  incarnation: string;
  /** Null if that is the first of the log. */
  after: OpenPlace | null;
  cut: CutPlace;
};

/** A log of which another node gave cuts, and perhaps not yet all that replaced what they stand for. */
export type OpenLogInput = {
  /** A node's Ed25519 public key. */
  author: string;
  /** Random; an author's log begins anew under another. */
  incarnation: string;
  /** Null if that is the first of the log. */
  after: OpenPlaceInput | null;
  cut: CutPlaceInput;
};

/** The change before the first of what was taken away. */
export type OpenPlace = {
  /** Place in a log, from 1 without gaps. */
  seq: number;
  /** SHA-256 of a change's body. */
  hash: string;
};

/** The change before the first of what was taken away. */
export type OpenPlaceInput = {
  /** Place in a log, from 1 without gaps. */
  seq: number;
  /** SHA-256 of a change's body. */
  hash: string;
};

/** A batch that a claimed one has waited for. */
export type Parent = {
  /** Where the batch stands. */
  state: "ready" | "scheduled" | "blocked" | "claimed" | "completed" | "dead" | "cancelled" | "expired";
  /** What came of the work: any JSON of up to 150000 bytes, kept byte for byte. */
  result?: unknown | undefined;
};

/** `error.data` of the kind parse_error: the line is not JSON. */
export type ParseErrorData = {
  /** The kind of the error, for programs to match on. */
  kind: "parse_error";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Params of path.check. */
export type PathCheckParams = {
  /**
   * An absolute directory, such as the top of a git work tree. It is text: nothing looks at the file system, and
   * different roots never conflict.
   */
  root: string;
  /** A path, relative to the root. */
  path: string;
  /** One's own reservation. */
  reservationId?: string | undefined;
  /** All reservations of this owner are one's own. */
  owner?: string | undefined;
};

/** Result of path.check. */
export type PathCheckResult = {
  /** True if no reservation of others stands in the way. */
  allowed: boolean;
  /** The earliest first; of more than 1000 so many. */
  holders: PathHolder[];
};

/** A reservation of paths, held and with this token. */
export type PathGuard = {
  /** Its secret. */
  reservationId: string;
  /** The token that it was granted with last. */
  fencingToken: number;
};

/** Params of path.heartbeat. */
export type PathHeartbeatParams = {
  /** Secret and random. Whoever has it can renew, add to and release the reservation. */
  reservationId: string;
  /** How long it lasts from now on; what it was reserved for, if not given. */
  ttlMs?: number | undefined;
  /** In the place of the note that it has. */
  note?: string | undefined;
};

/** Result of path.heartbeat. */
export type PathHeartbeatResult = {
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
};

/** A reservation of somebody else that the path fits. */
export type PathHolder = {
  /** A label for people. It proves nothing; the reservationId does. */
  owner: string;
  /** The pattern that the path fits. */
  pattern: string;
  /** `read`: together with any number of others that read, and nobody who writes. */
  mode: "write" | "read";
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** What the holder says of it; null for nothing. */
  note: string | null;
  /** The holder's process, as the kernel told; null if it did not. */
  pid: number | null;
};

/** Params of path.list. */
export type PathListParams = {
  /** Only of this root. */
  root?: string | undefined;
  /** Only of this owner. */
  owner?: string | undefined;
  /** `next` of the page before. */
  after?: string | undefined;
  /** Most rows to return. */
  limit?: number | undefined;
};

/** Result of path.list. */
export type PathListResult = {
  /** The earliest first. */
  reservations: ReservationHolder[];
  /** There are more: ask again with it as `after`. */
  next?: string | undefined;
};

/** Params of path.lost. */
export type PathLostParams = {
  /** Secret and random. Whoever has it can renew, add to and release the reservation. */
  reservationId: string;
  /**
   * An absolute directory, such as the top of a git work tree. It is text: nothing looks at the file system, and
   * different roots never conflict.
   */
  root: string;
  /** Greater than that of every earlier grant below the root, for ever. */
  fencingToken: number;
  /**
   * How it ended. `expired`: it was not renewed in time, or could not be: the daemon is cut off from the database
   * or the provider that keeps it, and others may be granted it soon.
   */
  cause: "expired";
};

/** Params of path.release. */
export type PathReleaseParams = {
  /** Secret and random. Whoever has it can renew, add to and release the reservation. */
  reservationId: string;
  /** The patterns to give back, as `path.reserve` answered them; all, if not given. */
  patterns?: string[] | undefined;
};

/** Result of path.release. */
export type PathReleaseResult = {
  /** False if nothing of that was held any more. */
  released: boolean;
  /** What is left of it; without any it has ended. */
  patterns: string[];
};

/** Params of path.reserve. */
export type PathReserveParams = {
  /**
   * An absolute directory, such as the top of a git work tree. It is text: nothing looks at the file system, and
   * different roots never conflict.
   */
  root: string;
  /** A label for people. It proves nothing; the reservationId does. */
  owner: string;
  /** Relative to the root, such as `src/*.ts`, `docs/` and `**\/package.json`. */
  patterns?: string[] | undefined;
  /** Literal paths, in which no character has a meaning of its own. */
  files?: string[] | undefined;
  /** One's own reservation, to add to; its root, owner and mode stay what they are. */
  reservationId?: string | undefined;
  /** `write` if not given. `read`: together with any number of others that read, and nobody who writes. */
  mode?: "write" | "read" | undefined;
  /**
   * How many milliseconds it lasts unless it is renewed; 30000 if not given, and what it was reserved for where
   * paths are added.
   */
  ttlMs?: number | undefined;
  /** How many milliseconds to wait for the condition to come true; 0 answers at once. */
  waitMs?: number | undefined;
  /** `expiry` if not given. `disconnect` also ends it the moment the connection closes. */
  releaseOn?: "expiry" | "disconnect" | undefined;
  /**
   * With `releaseOn: disconnect`, how many milliseconds a holder whose connection has closed has to come back:
   * renewed on another one, the reservation is bound to that. 0 if not given. It never outlives its own end.
   */
  graceMs?: number | undefined;
  /** Shown to others. */
  note?: string | undefined;
  /**
   * Has the daemon end the process that opened the connection when the reservation is lost (expired, broken or cut
   * off, not released): it is sent the signal, killed later, and nobody else is granted the paths before it has
   * ended and the connection has closed. `forbidden` where the daemon may not signal it, `invalid_params` where it
   * is not known for certain.
   */
  onLoss?: OnLoss | undefined;
  /**
   * A label of what it is held for: what one process holds and waits for under it belongs together, where circles
   * of waits are looked for.
   */
  task?: string | undefined;
  /** The holder waits for its child processes, and so for what they wait for. */
  awaitsChildren?: boolean | undefined;
};

/** Result of path.reserve. */
export type PathReserveResult = {
  reservation: Reservation;
};

/** Reservations of paths of this moment in this node's own database; shared ones are listed by `path.list`. */
export type PathStats = {
  /** Reservations that are held. */
  reserved: number;
};

/** Why a queue is paused, and by whom. */
export type Pause = {
  /** In the words of whoever paused it. */
  reason: string | null;
  by: Pauser;
};

/** The process that paused a queue, and its user. */
export type Pauser = {
  /** The process, as the kernel told; null if it did not. */
  pid: number | null;
  /** Its user, as the kernel told; null if it did not. */
  uid: number | null;
};

/** An author whose changes are or were accepted. */
export type Peer = {
  /** A node's Ed25519 public key. */
  author: string;
  /** A name for people, on this node. */
  name: string;
  /** Since when, in milliseconds since the Unix epoch. */
  trustedAt: number;
  /** Until when, in milliseconds since the Unix epoch; absent while it is. */
  revokedAt?: number | undefined;
};

/** Params of peer.list. */
export type PeerListParams = {};

/** Result of peer.list. */
export type PeerListResult = {
  /** One for each key, those that were revoked included. */
  peers: Peer[];
};

/** Params of peer.revoke. */
export type PeerRevokeParams = {
  /** A node's Ed25519 public key. */
  author: string;
};

/** Result of peer.revoke. */
export type PeerRevokeResult = {
  /** False if it was not trusted. */
  revoked: boolean;
};

/** Params of peer.seen. */
export type PeerSeenParams = {
  /** Of trusted peers; this node's own are passed over. */
  statements: StatementInput[];
};

/** Result of peer.seen. */
export type PeerSeenResult = {
  /** How many said something new. */
  seen: number;
  /** Those that are not kept. */
  rejected: RejectedStatement[];
};

/** Params of peer.trust. */
export type PeerTrustParams = {
  /** A node's Ed25519 public key. */
  author: string;
  /** A name for people, on this node. */
  name: string;
  /** The peer's board, if it has one yet. */
  board?: string | undefined;
};

/** Result of peer.trust. */
export type PeerTrustResult = {
  /** A node's Ed25519 public key. */
  author: string;
  /** A name for people, on this node. */
  name: string;
};

/** Params of pipeline.apply. */
export type PipelineApplyParams = {
  /** As pipeline.changes of the other node gave them. */
  changes: SignedChangeInput[];
  /**
   * Of `open` of pipeline.heads, as it is now: logs of which a peer that has `cut`, and for which this log is not
   * open, has given all that it has, from `after` on.
   */
  settled?: OpenLogInput[] | undefined;
};

/** Result of pipeline.apply. */
export type PipelineApplyResult = {
  /** Changes that were taken in. */
  applied: number;
  /** Cuts that were taken in, each in place of up to 64 changes; absent if none was. */
  cuts?: number | undefined;
  /** Changes that were here already. */
  duplicate: number;
  /** The first of each log that was refused. */
  rejected: RejectedChange[];
  /** Within transact: the changes that follow those counted here were not looked at. */
  more?: true | undefined;
};

/** Params of pipeline.changes. */
export type PipelineChangesParams = {
  /** Changes that the caller has. */
  heads: HeadInput[];
  /**
   * Only what leads to these changes, and these: to ask in parts where there are more heads than one call takes.
   */
  want?: HeadInput[] | undefined;
  /** Most changes to return. */
  limit?: number | undefined;
  /**
   * The caller takes cuts, too. Without it, what was taken away is `unsupported_version` if the caller lacks it.
   */
  cuts?: boolean | undefined;
};

/** Result of pipeline.changes. */
export type PipelineChangesResult = {
  /** In sequence order, for pipeline.apply of the other node. */
  changes: SignedChange[];
  /** True if there are more. */
  more: boolean;
};

/** Params of pipeline.claim. */
export type PipelineClaimParams = {
  /** Who works on it from now on: the item's agent. */
  agent: string;
  /** Names an item on all nodes. */
  storyId?: string | undefined;
  /** Only items in one of them; without it, all stages that work is taken from. */
  stages?: string[] | undefined;
  /** Only items that have all of them. */
  labels?: string[] | undefined;
  /** Where it goes; without it, it stays where it is. */
  toStage?: string | undefined;
  /** How many milliseconds the grant lasts unless it is renewed. */
  ttlMs?: number | undefined;
  /** How many milliseconds to wait for the condition to come true; 0 answers at once. */
  waitMs?: number | undefined;
  /** `disconnect` also ends the grant the moment the connection closes. */
  releaseOn?: "expiry" | "disconnect" | undefined;
  /**
   * With `releaseOn: disconnect`, how many milliseconds a holder whose connection has closed has to come back:
   * renewed on another one, the grant is bound to that. It never outlives its own end.
   */
  graceMs?: number | undefined;
};

/** Result of pipeline.claim. */
export type PipelineClaimResult = {
  /** As it is claimed; null if there was nothing to claim. */
  item: Item | null;
  /** Its lease; absent without an item. */
  lease?: Lease | undefined;
  /** Why there is no item, in words. */
  reason?: string | undefined;
};

/** Params of pipeline.compact. */
export type PipelineCompactParams = {
  /** Only says what would be taken away. */
  dryRun?: boolean | undefined;
};

/** Result of pipeline.compact. */
export type PipelineCompactResult = {
  /** Taken away, or with dryRun what would be. */
  changes: number;
  /** Of their bodies and signatures. */
  bytes: number;
  /** Changes that something rests on, without the last of each log, which always stays. */
  kept: number;
  /** Changes that nothing rests on, and that some peer is not known to have. */
  unknown: number;
  /** Peers heard of within 90 days that lack something, as far as is known. */
  waitsFor: AwaitedPeer[];
};

/** Params of pipeline.configuration. */
export type PipelineConfigurationParams = {};

/** Result of pipeline.configuration. */
export type PipelineConfigurationResult = {
  /** The stages that work is taken from, and those that end it. */
  stages: StageRule[];
  /** By stage, those that may follow it; null if any may. */
  transitions: Record<string, string[]> | null;
  /** At how many retries an item is blocked when its claim ends unfinished; 0 for never. */
  maxRetries: number;
};

/** Params of pipeline.configure. */
export type PipelineConfigureParams = {
  /** All stages that work is taken from or that end it; null for the default. */
  stages?: StageRuleInput[] | null | undefined;
  /** By stage, those that may follow it, of 64 stages at most; null for any. */
  transitions?: Record<string, string[]> | null | undefined;
  /** At how many retries an item is blocked when its claim ends unfinished; 0 for never, null for the default. */
  maxRetries?: number | null | undefined;
};

/** Result of pipeline.configure. */
export type PipelineConfigureResult = {
  /** The stages that work is taken from, and those that end it. */
  stages: StageRule[];
  /** By stage, those that may follow it; null if any may. */
  transitions: Record<string, string[]> | null;
  /** At how many retries an item is blocked when its claim ends unfinished; 0 for never. */
  maxRetries: number;
};

/** Params of pipeline.delete. */
export type PipelineDeleteParams = {
  /** Names an item on all nodes. */
  storyId: string;
  /**
   * Of an item that is claimed: the token of the claim, without which its stage, its agent and its deletion are
   * refused with `lease_held`. Nothing is written if the claim has ended (`lease_lost`).
   */
  claim?: UnderClaim | undefined;
};

/** Result of pipeline.delete. */
export type PipelineDeleteResult = {
  /** False if there was none of this name. */
  deleted: boolean;
  /** SHA-256 of a change's body. */
  changeId?: string | undefined;
};

/** Params of pipeline.finish. */
export type PipelineFinishParams = {
  /** Names an item on all nodes. */
  storyId: string;
  /** The token of the lease `item/<storyId>`, greater than that of every earlier one. */
  fencingToken: number;
  /** Where it goes. */
  toStage: string;
  /** Something to be said about it, added to its notes for good; by its agent, unless it says another. */
  note?: string | NewNote | undefined;
  /** Who it is given to; without it, the agent stays who it was. */
  agent?: string | null | undefined;
};

/** Result of pipeline.finish. */
export type PipelineFinishResult = {
  item: Item;
};

/** Params of pipeline.heads. */
export type PipelineHeadsParams = {
  /**
   * Changes, such as a peer's heads, of which to say whether they are stored here: to ask the peer for what comes
   * after them, where its logs end before those here.
   */
  known?: HeadInput[] | undefined;
  /** Says it in writing, too: see `statements`. */
  sign?: boolean | undefined;
};

/** Result of pipeline.heads. */
export type PipelineHeadsResult = {
  /** Absent from a node of a version that knows no compaction, which cannot be given what was cut. */
  cuts?: Cut[] | undefined;
  /** The last change of every log; several of one where it is forked. */
  heads: Head[];
  /** The given ones that are stored here; absent if none were given. */
  known?: string[] | undefined;
  /**
   * Logs of which to ask a peer again for what follows `after`, as if no more of them were here: a sync ended
   * before all had come that stands for what was taken away. Absent if there are none.
   */
  open?: OpenLog[] | undefined;
  /**
   * With `sign`, for peer.seen of another node: what this node has, signed by it, and the last that its trusted
   * peers have said to it.
   */
  statements?: Statement[] | undefined;
};

/** Params of pipeline.history. */
export type PipelineHistoryParams = {
  /** Names an item on all nodes. */
  storyId: string;
  /** Most rows to return. */
  limit?: number | undefined;
  /** `next` of the page before. */
  after?: string | undefined;
};

/** Result of pipeline.history. */
export type PipelineHistoryResult = {
  /** Newest first. */
  changes: ItemChange[];
  /** There are more: ask again with it as `after`. */
  next?: string | undefined;
};

/** Params of pipeline.identity. */
export type PipelineIdentityParams = {};

/** Result of pipeline.identity. */
export type PipelineIdentityResult = {
  /** A node's Ed25519 public key. */
  author: string;
  /** Null until the first change or the first trusted peer. */
  board: string | null;
  /** Random; an author's log begins anew under another. */
  incarnation: string;
  /** The last change of every log; several of one where it is forked. */
  heads: Head[];
};

/** Params of pipeline.list. */
export type PipelineListParams = {
  /**
   * Only the first so many of each stage, fewer where they are long, and in `counts` how many it has: what a person
   * looks at. Not with `stage` and `text`, and not within transact.
   */
  perStage?: number | undefined;
  /** Only items in it. */
  stage?: string | undefined;
  /** Only items that it works on; null for those of nobody. */
  agent?: string | null | undefined;
  /** Only items that are blocked, or are not. */
  blocked?: boolean | undefined;
  /** Only items that have this label. */
  label?: string | undefined;
  /**
   * Only items with all of these words, or words that begin so, in the name and the field `description` or in one
   * of the notes. Not within transact.
   */
  text?: string | undefined;
  /** Most rows to return. */
  limit?: number | undefined;
  /** `next` of the page before. */
  after?: string | undefined;
};

/** Result of pipeline.list. */
export type PipelineListResult = {
  /** Items in rank order, by stage. */
  stages: Record<string, Item[]>;
  /** With `perStage`: how many items fit, by stage. */
  counts?: Record<string, number> | undefined;
  /** There are more: ask again with it as `after`. */
  next?: string | undefined;
};

/** Params of pipeline.read. */
export type PipelineReadParams = {
  /** Names an item on all nodes. */
  storyId: string;
  /** How many of its last notes to give; without it, none. */
  notes?: number | undefined;
  /** `before` of the answer with the notes after these. */
  before?: string | undefined;
};

/** Result of pipeline.read. */
export type PipelineReadResult = {
  /** Null if there is none of this name. */
  item: Item | null;
  /** The last of its notes, in their order; absent unless asked for. */
  notes?: ItemNote[] | undefined;
  /** There are notes before these: ask again with it as `before`. */
  before?: string | undefined;
  /** The ids that it depends on and that do not exist; absent if none. */
  missing?: string[] | undefined;
  /** The shortest way from it along dependsOn back to it, without it; absent if none. */
  cycle?: string[] | undefined;
  /** Why it is not ready, in words; absent if it is. */
  reason?: string | undefined;
};

/** Params of pipeline.ready. */
export type PipelineReadyParams = {
  /** Only items in one of them; without it, all stages that work is taken from. */
  stages?: string[] | undefined;
  /** Only items that have all of them. */
  labels?: string[] | undefined;
  /** Only items of this agent; null for those of nobody. */
  agent?: string | null | undefined;
  /** Most rows to return. */
  limit?: number | undefined;
};

/** Result of pipeline.ready. */
export type PipelineReadyResult = {
  /** The first to be worked on first. */
  items: Item[];
};

/** Params of pipeline.rebuild. */
export type PipelineRebuildParams = {
  /** Changes nothing. */
  verify?: boolean | undefined;
  /** Most changes or items of this step. */
  limit?: number | undefined;
  /** `next` of the step before. */
  after?: string | undefined;
};

/** Result of pipeline.rebuild. */
export type PipelineRebuildResult = {
  /** Replayed in this step. */
  changes: number;
  /** Compared in this step. */
  items: number;
  /** Empty if they agree. */
  differences: Difference[];
  /** There are more steps: ask again with it as `after`. */
  next?: string | undefined;
};

/** Params of pipeline.repair. */
export type PipelineRepairParams = {};

/** Result of pipeline.repair. */
export type PipelineRepairResult = {
  /** How many were given again. */
  changes: number;
  /** Under which this node goes on. */
  incarnation: string;
  /**
   * How far the latest change here is still ahead of the time, in milliseconds: one of another node, or one that a
   * peer has. Absent if none is.
   */
  aheadMs?: number | undefined;
};

/** The board of this node. */
export type PipelineStats = {
  /** Items that are there. */
  items: number;
  /** Changes that are stored. */
  changes: number;
  /** Changes that stand where another stands: both are kept. */
  forks: number;
};

/** Params of pipeline.watch. */
export type PipelineWatchParams = {
  /** `revision` of the answer before. */
  since?: number | undefined;
  /** How many milliseconds to wait for the condition to come true; 0 answers at once. */
  waitMs?: number | undefined;
};

/** Result of pipeline.watch. */
export type PipelineWatchResult = {
  /** Grows with every change that is stored here. */
  revision: number;
};

/** Params of pipeline.write. */
export type PipelineWriteParams = {
  /** Names an item on all nodes. */
  storyId: string;
  /** Free text; by convention 1_backlog, 2_current, 3_qa, 4_merge, 5_done. */
  stage?: string | undefined;
  /** A title for people. */
  name?: string | null | undefined;
  /** Information about who works on it, not a lock. */
  agent?: string | null | undefined;
  /** How often it was tried. */
  retryCount?: number | undefined;
  /** Adds to the count; concurrent increments on several nodes all count. */
  retryCountDelta?: number | undefined;
  /** True if somebody says that it cannot go on. */
  blocked?: boolean | undefined;
  /** Cycles and items that do not exist are reported when read, never refused. */
  dependsOn?: string[] | DependencyChange | undefined;
  /** A set; what several nodes add and remove is merged label by label. */
  labels?: string[] | LabelChange | undefined;
  /**
   * Fields of the user's own to set, by name: any JSON of at most 16384 bytes, or null to take one away. An item
   * has at most 64; each is merged by itself.
   */
  fields?: Record<string, unknown> | undefined;
  /** Something to be said about it, added to its notes for good; by its agent, unless it says another. */
  note?: string | NewNote | undefined;
  /** Orders items within a stage, by its characters' codes; ties by storyId. */
  rank?: string | undefined;
  if?: ItemCondition | undefined;
  /**
   * Of an item that is claimed: the token of the claim, without which its stage, its agent and its deletion are
   * refused with `lease_held`. Nothing is written if the claim has ended (`lease_lost`).
   */
  claim?: UnderClaim | undefined;
};

/** Result of pipeline.write. */
export type PipelineWriteResult = {
  item: Item;
  /** SHA-256 of a change's body. */
  changeId: string;
};

/** Something in the database that is not as it has to be. */
export type Problem = {
  /**
   * `structure`: a table or an index cannot be read; `index`: it disagrees with its table; `value`: no JSON, or not
   * of its type; `reference`: a row that another belongs to is missing; `count`: a count is not that of the rows;
   * `log`: a change of the board is damaged, or an item is not what the changes say.
   */
  what: "structure" | "index" | "value" | "reference" | "count" | "log";
  /** A row by its table and key, an index, a queue, a change. */
  where: string;
  /** The fault, and what to do. */
  message: string;
};

/** How far the work has come, as its holder said. */
export type Progress = {
  /** How much is done, from 0 to 100. */
  percent?: number | undefined;
  /** What is being done, for people. */
  note?: string | undefined;
};

/**
 * `error.data` of the kind provider_unavailable: an external lease provider could not be reached; not the same as
 * lease_lost.
 */
export type ProviderUnavailableData = {
  /** The kind of the error, for programs to match on. */
  kind: "provider_unavailable";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The kind of the provider. */
  provider: string;
  /** Why, as a word for programs. */
  reason?: string | undefined;
  /** The table of the provider. */
  table?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Params of queue.abandon. */
export type QueueAbandonParams = {
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** Secret. Whoever has it can renew, complete and abandon. */
  leaseToken: string;
  /** Not to be claimed again before so long from now. If not given, with an error as `retry` says, else at once. */
  delayMs?: number | undefined;
  /** Why it failed; the delivery then counts as an attempt. */
  error?: string | undefined;
  /** No further attempt is of use: its batches are dead at once. */
  dead?: boolean | undefined;
};

/** Result of queue.abandon. */
export type QueueAbandonResult = {
  /** Batches that can be claimed again. */
  released: number;
  /** Batches that are dead: no attempts are left, or of use. */
  dead: number;
};

/** Params of queue.cancel. */
export type QueueCancelParams = {
  /** This batch. */
  batchId?: string | undefined;
  /** The queue of the sourceKey. */
  queue?: string | undefined;
  /** Of that queue; where a follower waits, that is cancelled first. */
  sourceKey?: string | undefined;
  /** Stop the work on a claimed batch; otherwise it is left alone. */
  stop?: boolean | undefined;
  /** How long its holder has to end, in milliseconds; 30000 if not given. A later cancel can only shorten it. */
  graceMs?: number | undefined;
  /** Why, in the words of whoever did it. */
  reason?: string | undefined;
};

/** Result of queue.cancel. */
export type QueueCancelResult = {
  /** `cancelled`; `cancelling` while its holder is to stop; or why it stays as it is. */
  outcome: "cancelled" | "cancelling" | "already_claimed" | "already_completed" | "already_cancelled" | "already_dead" | "already_expired";
};

/** Params of queue.claim. */
export type QueueClaimParams = {
  /** A label for people. It proves nothing; the leaseToken does. */
  owner: string;
  /** Of this queue; never a prefix. */
  queue?: string | undefined;
  /**
   * Of one of these: names, or `prefix/*` for all queues whose names begin with `prefix/`. A queue that is empty,
   * paused or full is as if it were not there.
   */
  queues?: string[] | undefined;
  /**
   * Of several queues: `listed` (default) takes from the first entry that has something to claim, and within a
   * prefix as `oldest` does over all: what has the highest priority, then what was enqueued first.
   */
  order?: "listed" | "oldest" | undefined;
  /**
   * Of these batches of one queue, those that may be claimed now, in the order given, whatever their slotPolicy and
   * place. With waitMs it waits until one may be, and is null at once when all have ended.
   */
  batchIds?: string[] | undefined;
  /**
   * Claims that the caller has: their batches are passed over. Where the first would be a batch of one that ran out
   * and that nobody has touched since, the answer is that claim again, and the attempt that was counted for its end
   * is taken back.
   */
  held?: HeldClaim[] | undefined;
  /**
   * Whether this connection, or the one that renews the claim last, is told when the claim is lost (`claim.lost`).
   */
  notify?: boolean | undefined;
  /** At `active_turn_checkpoint` only what is `earliest_safe_boundary` is handed out. */
  boundary?: "idle" | "active_turn_checkpoint" | undefined;
  /** Most batches of a group that may be claimed together; 1 if not given, of `batchIds` all. */
  maxBatches?: number | undefined;
  /** How many milliseconds the claim lasts unless it is renewed; 30000 if not given. */
  leaseMs?: number | undefined;
  /**
   * The claim lives exactly as long as this lease, and is not renewed by itself. If the lease is released, it ends
   * without counting as an attempt, and otherwise as by expiry; it cannot be completed afterwards. Beside it
   * leaseMs, releaseOn and graceMs are left out.
   */
  under?: ClaimUnder | undefined;
  /** How many milliseconds to wait for the condition to come true; 0 answers at once. */
  waitMs?: number | undefined;
  /** `disconnect` also ends the grant the moment the connection closes; `expiry` if not given. */
  releaseOn?: "expiry" | "disconnect" | undefined;
  /** How many milliseconds its holder may take to come back after its connection has closed, with `disconnect`. */
  graceMs?: number | undefined;
};

/** Result of queue.claim. */
export type QueueClaimResult = {
  /** Null if there was nothing to claim. */
  claim: Claim | null;
};

/** Params of queue.complete. */
export type QueueCompleteParams = {
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** Secret. Whoever has it can renew, complete and abandon. */
  leaseToken: string;
  /** What came of the work: any JSON of up to 150000 bytes, kept byte for byte. */
  result?: unknown | undefined;
  /** The result of each batch of the claim that has one, by its batchId. */
  results?: Record<string, unknown> | undefined;
};

/** Result of queue.complete. */
export type QueueCompleteResult = {
  /** Batches that are done by it. */
  completed: number;
};

/** Params of queue.configure. */
export type QueueConfigureParams = {
  /** A queue exists by being used. */
  queue: string;
  /** How batches that have no `retry` of their own rest after a delivery without success. */
  retry?: RetryInput | null | undefined;
  /** Of batches that are enqueued without `maxAttempts` from now on; 0 for no limit. */
  maxAttempts?: number | null | undefined;
  /** Of batches that are enqueued without `ttlMs` from now on. */
  ttlMs?: number | null | undefined;
  /** Claims that may be held at a time, over all workers. */
  maxClaimed?: number | null | undefined;
  /** The same of each key. Batches whose key is full are passed over. */
  maxClaimedPerKey?: number | null | undefined;
  /**
   * `strict`: a batch waits for every earlier one of its key to be finished, also for those that rest, are
   * scheduled or dead.
   */
  keyOrder?: "free" | "strict" | null | undefined;
  /**
   * How many batches may be claimed in which time, over all workers: a bucket that holds `count`, is full at first
   * and refills evenly.
   */
  rate?: RateInput | null | undefined;
  /**
   * Batches that may be ready, scheduled and blocked together. More are refused with `exhausted` when they are
   * enqueued; what comes back, or is moved there, is let in beyond it.
   */
  maxWaiting?: number | null | undefined;
  /** While it is paused nothing is claimed; what is claimed goes on. */
  paused?: boolean | null | undefined;
  /** Until then; null for no end. */
  pausedUntilAt?: number | null | undefined;
  /** Why it is paused, for people. */
  reason?: string | null | undefined;
};

/** Result of queue.configure. */
export type QueueConfigureResult = {
  settings: QueueSettings;
};

/** Effects on the batches of a queue since the start of the daemon. */
export type QueueCounts = {
  /** Null for all queues that are not named. */
  queue: string | null;
  /** Effects by kind. */
  events: Record<string, number>;
  /** How long batches were available before they were claimed. */
  waitMs: Histogram;
  /**
   * How long batches were claimed that their workers completed or abandoned; one that was lost counts once it is
   * completed late.
   */
  runMs: Histogram;
};

/** How many batches are in which state. */
export type QueueDepths = {
  /** Batches that can be claimed. */
  ready: number;
  /** Batches that can be claimed later. */
  scheduled: number;
  /** Batches that wait for other batches. */
  blocked: number;
  /** Batches that somebody works on. */
  claimed: number;
  /** Batches that are done; kept until their retention ends. */
  completed: number;
  /** Batches without attempts left, which only queue.retry brings back. */
  dead: number;
  /** Batches that were taken back; kept until their retention ends. */
  cancelled: number;
  /** Batches whose ttl passed before anybody claimed them; kept until their retention ends. */
  expired: number;
};

/** Params of queue.enqueueMany. */
export type QueueEnqueueManyParams = {
  /** The batches, in the order in which they are added. */
  batches: NewBatchOfMany[];
};

/** Result of queue.enqueueMany. */
export type QueueEnqueueManyResult = {
  /** In the order of the params. */
  batches: Batch[];
  /** Whether each was made. */
  created: boolean[];
  /** What became of each. */
  outcomes: ("created" | "existing" | "replaced" | "kept" | "appended" | "follower")[];
};

/** Params of queue.enqueue. */
export type QueueEnqueueParams = {
  /** A queue exists by being used. */
  queue: string;
  /** JSON values, kept byte for byte. */
  payloads: unknown[];
  /** Higher is claimed first; those of one priority in the order they were added. */
  priority?: number | undefined;
  /**
   * Its subject: a customer, a file, a branch. A queue can be configured to have few claims of a key at a time, and
   * to keep their order.
   */
  key?: string | undefined;
  /**
   * Makes a retry safe: the same queue and key with the same content is the same batch, also after it ended.
   * Content is the payloads and the policies by their meaning, priority and key, and ttlMs, maxAttempts and retry
   * as given: not given equals not given, whatever the queue has set meanwhile.
   */
  sourceKey?: string | undefined;
  /**
   * With other content under the same sourceKey: `refuse` it with `conflict`, or `return` the batch that is there.
   * Otherwise a batch that has ended does not count, and of one that waits: `replace` puts the new content in its
   * place, and its delay begins anew; `keepTime` leaves its time; `append` adds the payloads. Of one that is
   * claimed these make a follower, which waits for its end; `rerun` always does. There is never more than one
   * follower; it takes over what comes.
   */
  onExisting?: "refuse" | "return" | "replace" | "keepTime" | "append" | "rerun" | undefined;
  /** `replace` begins the delay anew no longer than so long after the first. */
  maxDelayMs?: number | undefined;
  /** The sourceKey is forgotten when the batch has ended. */
  uniqueFor?: "unfinished" | undefined;
  /** `after_current_turn_commit` is claimed at the boundary `idle` only. */
  deliveryPolicy?: "earliest_safe_boundary" | "after_current_turn_commit" | undefined;
  /** `join` may be claimed together with those that follow it. */
  slotPolicy?: "exclusive" | "join" | undefined;
  /** `never` joins with nothing, not even itself. */
  mergeKey?: "never" | "payload_default" | MergeGroupInput | undefined;
  /** Not before so long from now. */
  delayMs?: number | undefined;
  /** Not before then; the past is now. */
  availableAt?: number | undefined;
  /** It expires when it has been available for so long and nobody has claimed it. */
  ttlMs?: number | undefined;
  /**
   * After so many counted attempts it is dead, 0 for no limit; if not given, as the queue is configured, else 20.
   */
  maxAttempts?: number | undefined;
  /**
   * A delivery that ended with an error makes the batch rest for `baseMs * factor^(n - 1)`, at most `maxMs`, n
   * being its counted attempts of any kind. The first end by expiry or disconnect lets it not rest at all. If not
   * given, as the queue is configured by then, else 1000 ms, 2, 3600000 ms, with jitter.
   */
  retry?: RetryInput | undefined;
  /**
   * Batches whose ends it waits for, by their batchIds; of one `queue.enqueueMany` also by their `ref`. It is
   * `blocked` until all have ended; then its delay and its ttl begin.
   */
  after?: string[] | undefined;
  /**
   * What has to become of these: `success` (default) of all, `failure` of at least one, or only `finished`. Where
   * that cannot come true any more it is cancelled, and so are those that wait for it.
   */
  when?: "success" | "failure" | "finished" | undefined;
  trace?: TraceInput | undefined;
  /** How long to wait for room in a queue with `maxWaiting`, in the order of arrival. */
  waitMs?: number | undefined;
};

/** Result of queue.enqueue. */
export type QueueEnqueueResult = {
  batch: Batch;
  /** Whether a batch was made. */
  created: boolean;
  /** What became of it; `batch` is the one that has what was sent. */
  outcome: "created" | "existing" | "replaced" | "kept" | "appended" | "follower";
};

/** Params of queue.explain. */
export type QueueExplainParams = {
  /** A queue exists by being used. */
  queue?: string | undefined;
  /** qwb: and a hex SHA-256. */
  batchId?: string | undefined;
};

/** Result of queue.explain. */
export type QueueExplainResult = {
  /** A queue exists by being used. */
  queue: string;
  /** At the boundary `idle`. */
  claimable: boolean;
  /** Why it can or cannot be claimed. */
  reason: "ready" | "boundary" | "claimed" | "scheduled" | "resting" | "blocked" | "paused" | "throttled" | "full" | "rate" | "key_full" | "strict" | "final" | "empty";
  /** The head, or the batch that was asked about. */
  batchId?: string | undefined;
  /** Where that batch stands. */
  state?: "ready" | "scheduled" | "blocked" | "claimed" | "completed" | "dead" | "cancelled" | "expired" | undefined;
  /** At which boundary it is handed out. */
  deliveryPolicy?: "earliest_safe_boundary" | "after_current_turn_commit" | undefined;
  /** When it can be claimed, in milliseconds since the Unix epoch. */
  availableAt?: number | undefined;
  /** When a queue that is paused, throttled or over its rate opens; null for no such time. */
  until?: number | null | undefined;
  pause?: Pause | undefined;
  throttle?: Throttle | undefined;
  /** The key that is full, or whose order is strict. */
  key?: string | undefined;
  /** How many are held, of a queue or a key that is full. */
  claims?: number | undefined;
  /** How many may be. */
  most?: number | undefined;
  /** The earlier batch of its key that is not finished. */
  behind?: string | undefined;
  /** Where that batch stands. */
  behindState?: "ready" | "scheduled" | "blocked" | "claimed" | "completed" | "dead" | "cancelled" | "expired" | undefined;
  /** Batches that it waits for and that are not final, the first hundred. */
  waitsFor?: string[] | undefined;
  holder?: ClaimHolder | undefined;
  /** Batches that only queue.retry brings back. */
  dead: number;
  /** Claims that wait for the queue, at this daemon; null from a daemon that only reads. */
  waiting: number | null;
  /** The server and the database that keep the queue, where several daemons share it; left out for this node. */
  keptIn?: string | undefined;
};

/** Params of queue.get. */
export type QueueGetParams = {
  /** qwb: and a hex SHA-256. */
  batchId: string;
};

/** Result of queue.get. */
export type QueueGetResult = {
  batch: Batch;
};

/** Params of queue.list. */
export type QueueListParams = {
  /** A queue exists by being used. */
  queue: string;
  /** Only those in this state. */
  state?: "ready" | "scheduled" | "blocked" | "claimed" | "completed" | "dead" | "cancelled" | "expired" | undefined;
  /** Those of one key alone. */
  key?: string | undefined;
  /** Most rows to return. */
  limit?: number | undefined;
  /** `next` of the page before. */
  after?: number | undefined;
};

/** Result of queue.list. */
export type QueueListResult = {
  /** In the order they were added. */
  batches: Batch[];
  /** There are more: ask again with it as `after`. */
  next?: number | undefined;
};

/** Params of queue.move. */
export type QueueMoveParams = {
  /** Fencing tokens there go on above those of the queue they come from. */
  to: string;
  /** These batches. */
  batchIds?: string[] | undefined;
  /** Batches of this queue. */
  queue?: string | undefined;
  /** Which of that queue. */
  state?: "ready" | "scheduled" | "blocked" | "dead" | "cancelled" | "expired" | undefined;
};

/** Result of queue.move. */
export type QueueMoveResult = {
  /** Batches that are there now. */
  moved: number;
  /** Batches that stay where they are. */
  kept: number;
  /** There are more than one call moves: call again. */
  more: boolean;
};

/** Params of queue.progress. */
export type QueueProgressParams = {
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** Secret. Whoever has it can renew, complete and abandon. */
  leaseToken: string;
  /** How much is done, from 0 to 100. */
  percent?: number | undefined;
  /** What is being done, for people. */
  note?: string | undefined;
  /** From where another could go on: any JSON of up to 150000 bytes, kept byte for byte. */
  checkpoint?: unknown | undefined;
  /** How long it lasts from now on; what it was claimed for if not given. */
  leaseMs?: number | undefined;
};

/** Result of queue.progress. */
export type QueueProgressResult = {
  /** When the claim ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
  /** Whether the work is to be stopped: somebody cancels it, and the claim ends soon. */
  cancelling: boolean;
};

/** Params of queue.purge. */
export type QueuePurgeParams = {
  /** Batches of this queue. */
  queue?: string | undefined;
  /** In any of these states. */
  states?: ("ready" | "scheduled" | "blocked" | "completed" | "dead" | "cancelled" | "expired")[] | undefined;
  /** Only what ended so long ago, or was enqueued so long ago and has not ended. */
  olderThanMs?: number | undefined;
  /** Only say how many. */
  dryRun?: boolean | undefined;
  /** These batches. */
  batchIds?: string[] | undefined;
};

/** Result of queue.purge. */
export type QueuePurgeResult = {
  /** Batches that are gone, or would be. */
  purged: number;
  /** There are more than one call removes: call again. */
  more: boolean;
};

/** Params of queue.renew. */
export type QueueRenewParams = {
  /** qwc:<enqueueSeq of the first batch>:<fencingToken>. */
  claimId: string;
  /** Secret. Whoever has it can renew, complete and abandon. */
  leaseToken: string;
  /** How long it lasts from now on; what it was claimed for if not given. */
  leaseMs?: number | undefined;
};

/** Result of queue.renew. */
export type QueueRenewResult = {
  /** When the claim ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
  /** Whether the work is to be stopped: somebody cancels it, and the claim ends soon. */
  cancelling: boolean;
};

/** Params of queue.retry. */
export type QueueRetryParams = {
  /** qwb: and a hex SHA-256. */
  batchId?: string | undefined;
  /** A queue exists by being used. */
  queue?: string | undefined;
};

/** Result of queue.retry. */
export type QueueRetryResult = {
  /** Batches that are ready again. */
  retried: number;
  /** There are more than one call brings back: call again. */
  more: boolean;
};

/** Every setting of a queue, null where there is none. */
export type QueueSettings = {
  /** How batches without a `retry` of their own rest. */
  retry: Retry | null;
  /** Of batches that are enqueued without `maxAttempts`. */
  maxAttempts: number | null;
  /** Of batches that are enqueued without `ttlMs`. */
  ttlMs: number | null;
  /** Claims that may be held at a time, over all workers. */
  maxClaimed: number | null;
  /** The same of each key. */
  maxClaimedPerKey: number | null;
  /** Whether a batch waits for earlier ones of its key. */
  keyOrder: "free" | "strict" | null;
  /**
   * How many batches may be claimed in which time, over all workers: a bucket that holds `count`, is full at first
   * and refills evenly.
   */
  rate: Rate | null;
  /** Batches that may be ready, scheduled and blocked together. */
  maxWaiting: number | null;
  /** Whether nothing of it is claimed. */
  paused: boolean;
  /** Null if it is paused until that is taken back. */
  pausedUntilAt: number | null;
  /** Why it is paused. */
  reason: string | null;
  /** The process that paused a queue, and its user. */
  pausedBy: Pauser | null;
  /** Until when workers said that nothing is to be claimed, in milliseconds since the Unix epoch. */
  throttledUntilAt: number | null;
  /** Why they said so. */
  throttledReason: string | null;
};

/** Params of queue.settings. */
export type QueueSettingsParams = {
  /** A queue exists by being used. */
  queue: string;
};

/** Result of queue.settings. */
export type QueueSettingsResult = {
  settings: QueueSettings;
};

/** How many batches of a queue are in which state. */
export type QueueStats = {
  /** A queue exists by being used. */
  queue: string;
  /** Batches that can be claimed. */
  ready: number;
  /** Batches that can be claimed later. */
  scheduled: number;
  /** Batches that wait for other batches. */
  blocked: number;
  /** Batches that somebody works on. */
  claimed: number;
  /** Batches that are done; kept until their retention ends. */
  completed: number;
  /** Batches without attempts left, which only queue.retry brings back. */
  dead: number;
  /** Batches that were taken back; kept until their retention ends. */
  cancelled: number;
  /** Batches whose ttl passed before anybody claimed them; kept until their retention ends. */
  expired: number;
  /** Whether nothing of it is claimed. */
  paused: boolean;
  /** How long the first that is ready has been so, in milliseconds; null if none is. */
  oldestReadyMs: number | null;
};

/** Params of queue.stats. */
export type QueueStatsParams = {
  /** A queue exists by being used. */
  queue?: string | undefined;
  /** Most queues to return. */
  limit?: number | undefined;
  /** `next` of the page before. */
  after?: string | undefined;
};

/** Result of queue.stats. */
export type QueueStatsResult = {
  /** By name. */
  queues: QueueStats[];
  /** There are more: ask again with it as `after`. */
  next?: string | undefined;
};

/** Params of queue.throttle. */
export type QueueThrottleParams = {
  /** A queue exists by being used. */
  queue: string;
  /** Until then; null ends it. */
  untilAt?: number | null | undefined;
  /** For so long from now. */
  delayMs?: number | undefined;
  /** Why, in the words of whoever did it. */
  reason?: string | undefined;
};

/** Result of queue.throttle. */
export type QueueThrottleResult = {
  settings: QueueSettings;
};

/** Params of queue.update. */
export type QueueUpdateParams = {
  /** qwb: and a hex SHA-256. */
  batchId: string;
  /** Higher is claimed first; those of one priority in the order they were added. */
  priority?: number | undefined;
  /** Not before then; the past is now. */
  availableAt?: number | undefined;
};

/** Result of queue.update. */
export type QueueUpdateResult = {
  batch: Batch;
};

/** Params of queue.wait. */
export type QueueWaitParams = {
  /** qwb: and a hex SHA-256. */
  batchId: string;
  /** How many milliseconds to wait for the condition to come true; 0 answers at once. */
  waitMs?: number | undefined;
};

/** Result of queue.wait. */
export type QueueWaitResult = {
  batch: Batch;
};

/**
 * How many batches may be claimed in which time, over all workers: a bucket that holds `count`, is full at first
 * and refills evenly.
 */
export type Rate = {
  /** How many batches. */
  count: number;
  /** In how many milliseconds. */
  perMs: number;
};

/**
 * How many batches may be claimed in which time, over all workers: a bucket that holds `count`, is full at first
 * and refills evenly.
 */
export type RateInput = {
  /** How many batches. */
  count: number;
  /** In how many milliseconds. */
  perMs: number;
};

/** `error.data` of the kind read_only: a writing method on a read-only socket or daemon. */
export type ReadOnlyData = {
  /** The kind of the error, for programs to match on. */
  kind: "read_only";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The method that writes. */
  method: string;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** A change that was not taken in, and why. */
export type RejectedChange = {
  /** Null, as are the others, if the body does not say it. */
  author: string | null;
  /** Of the log. */
  incarnation: string | null;
  /** The place in the log. */
  seq: number | null;
  /** Why, as a kind of error. */
  kind: "too_large" | "not_json" | "not_canonical" | "bad_value" | "bad_shape" | "unsupported_version" | "wrong_board" | "unknown_author" | "revoked_author" | "bad_signature" | "missing_prev" | "bad_chain" | "clock_not_monotonic" | "clock_ahead" | "bad_story_id" | "bad_generation" | "bad_field";
  /** With clock_ahead: when to offer it again, in milliseconds from now. */
  retryMs?: number | undefined;
};

/** A statement that was not kept, and why. */
export type RejectedStatement = {
  /** Null if the body does not say it. */
  author: string | null;
  /** Why, as a kind of error. */
  kind: "not_json" | "not_canonical" | "bad_shape" | "unsupported_version" | "wrong_board" | "unknown_author" | "revoked_author" | "bad_signature" | "clock_ahead" | "weak_key";
};

/** A reservation as its holder has it. */
export type Reservation = {
  /** Secret and random. Whoever has it can renew, add to and release the reservation. */
  reservationId: string;
  /** In its one form: without `.` and double slashes. */
  root: string;
  /** All that it has, in their one form. */
  patterns: string[];
  /** `read`: together with any number of others that read, and nobody who writes. */
  mode: "write" | "read";
  /** Greater than that of every earlier grant below the root, for ever. */
  fencingToken: number;
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
};

/** A reservation as others may know it: never the reservationId. */
export type ReservationHolder = {
  /**
   * An absolute directory, such as the top of a git work tree. It is text: nothing looks at the file system, and
   * different roots never conflict.
   */
  root: string;
  /** In the order in which they were given. */
  patterns: string[];
  /** `read`: together with any number of others that read, and nobody who writes. */
  mode: "write" | "read";
  /** A label for people. It proves nothing; the reservationId does. */
  owner: string;
  /** Greater than that of every earlier grant below the root, for ever. */
  fencingToken: number;
  /** When it was granted, in milliseconds since the Unix epoch. */
  acquiredAt: number;
  /** When it ends unless it is renewed, in milliseconds since the Unix epoch. */
  expiresAt: number;
  /** Milliseconds until then. */
  remainingMs: number;
  /** What the holder says of it; null for nothing. */
  note: string | null;
  /** The holder's process, as the kernel told; null if it did not. */
  pid: number | null;
  /** The holder's user, as the kernel told; null if it did not. */
  uid: number | null;
  /**
   * True of a reservation that is lost, while nobody is granted it because this holder's process has not ended
   * (`onLoss`).
   */
  ending?: boolean | undefined;
};

/**
 * How long a batch or a command rests after a delivery that ended without success: `baseMs * factor^(n - 1)`, at
 * most `maxMs`.
 */
export type Retry = {
  /** The rest after the first, in milliseconds. */
  baseMs: number;
  /** How many times longer each rest is than the one before. */
  factor: number;
  /** The longest rest, in milliseconds. */
  maxMs: number;
  /** Whether it rests for a random time, from half of the rest to all of it. */
  jitter: boolean;
};

/**
 * How long a batch or a command rests after a delivery that ended without success: `baseMs * factor^(n - 1)`, at
 * most `maxMs`.
 */
export type RetryInput = {
  /** The rest after the first, in milliseconds. */
  baseMs?: number | undefined;
  /** How many times longer each rest is than the one before. */
  factor?: number | undefined;
  /** The longest rest, in milliseconds. */
  maxMs?: number | undefined;
  /** Whether it rests for a random time, from half of the rest to all of it. */
  jitter?: boolean | undefined;
};

/** `error.data` of the kind revoked_author: the author was trusted here and no longer is. */
export type RevokedAuthorData = {
  /** The kind of the error, for programs to match on. */
  kind: "revoked_author";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Params of rpc.cancel. */
export type RpcCancelParams = {
  /** The id of the requests, as they were sent. */
  id: string | number | null;
};

/** Result of rpc.cancel. */
export type RpcCancelResult = {
  /** False if no request with this id waited. */
  cancelled: boolean;
};

/** Params of rpc.discover. */
export type RpcDiscoverParams = {};

/** Result of rpc.discover. */
export type RpcDiscoverResult = Record<string, unknown>;

/** A schedule: what was set, when it comes next and what it enqueued last. */
export type Schedule = {
  /** The schedule. Setting it again changes it. */
  name: string;
  /** Its cron expression; null with `everyMs`. */
  cron: string | null;
  /** Milliseconds between two occurrences; null with `cron`. */
  everyMs: number | null;
  /** By whose clock the cron expression is meant: a name of the IANA time zone database. */
  timeZone: string;
  /** The queue that its occurrences are enqueued in. */
  queue: string;
  /** JSON values, kept byte for byte. */
  payloads: unknown[];
  /** Higher is claimed first; those of one priority in the order they were added. */
  priority: number;
  /** The subject of its batches; null for none. */
  key: string | null;
  /** Of its batches; null for that of the queue. */
  maxAttempts: number | null;
  /**
   * While the last occurrence is unfinished: `skip` enqueues nothing; `one` enqueues another if the last is
   * claimed, which waits for its end; `all` enqueues each.
   */
  overlap: "skip" | "one" | "all";
  /**
   * Which of the occurrences that came while there was no daemon are made up for, as far as `overlap` allows:
   * `none`, the `last`, or `all`, at most the last 1000.
   */
  missed: "none" | "last" | "all";
  /** Missed occurrences longer ago than so many milliseconds are not made up for. */
  missedWindowMs: number;
  /** Whether it has occurrences. */
  enabled: boolean;
  /** From then on it has no occurrences; null for no end. */
  endAt: number | null;
  /** When it comes next, in milliseconds since the Unix epoch; null for never. */
  nextAt: number | null;
  /** The time of the last occurrence that was enqueued; null for none. */
  lastAt: number | null;
  /** The batch of that occurrence; null for none. */
  lastBatchId: string | null;
};

/** Params of schedule.delete. */
export type ScheduleDeleteParams = {
  /** The schedule. Setting it again changes it. */
  name: string;
};

/** Result of schedule.delete. */
export type ScheduleDeleteResult = {
  /** False if there was none of that name. */
  deleted: boolean;
};

/** Params of schedule.get. */
export type ScheduleGetParams = {
  /** The schedule. Setting it again changes it. */
  name: string;
};

/** Result of schedule.get. */
export type ScheduleGetResult = {
  schedule: Schedule;
};

/** Params of schedule.list. */
export type ScheduleListParams = {
  /** Most rows to return. */
  limit?: number | undefined;
  /** `next` of the page before. */
  after?: string | undefined;
};

/** Result of schedule.list. */
export type ScheduleListResult = {
  /** By name. */
  schedules: Schedule[];
  /** There are more: ask again with it as `after`. */
  next?: string | undefined;
};

/** Params of schedule.next. */
export type ScheduleNextParams = {
  /** The schedule; otherwise `cron`. */
  name?: string | undefined;
  /**
   * Minute, hour, day of the month, month and day of the week, perhaps with the second before them; or `@hourly`,
   * `@daily`, `@weekly`, `@monthly`, `@yearly`. A time that the clock leaves out, as in the night in which summer
   * time begins, is later by as much as is left out. A time that comes twice runs the first time, but where the
   * second, minute or hour has `*` or a step, both times.
   */
  cron?: string | undefined;
  /** With `cron`: by whose clock it is meant; UTC if not given. */
  timeZone?: string | undefined;
  /** How many times to give. */
  count?: number | undefined;
};

/** Result of schedule.next. */
export type ScheduleNextResult = {
  /**
   * Milliseconds since the Unix epoch, the soonest first: fewer than asked for where it ends, none of a disabled
   * schedule.
   */
  times: number[];
};

/** Params of schedule.run. */
export type ScheduleRunParams = {
  /** The schedule. Setting it again changes it. */
  name: string;
};

/** Result of schedule.run. */
export type ScheduleRunResult = {
  batch: Batch;
};

/** Params of schedule.set. */
export type ScheduleSetParams = {
  /** The schedule. Setting it again changes it. */
  name: string;
  /** The queue that its occurrences are enqueued in. */
  queue: string;
  /** JSON values, kept byte for byte. */
  payloads: unknown[];
  /**
   * Minute, hour, day of the month, month and day of the week, perhaps with the second before them; or `@hourly`,
   * `@daily`, `@weekly`, `@monthly`, `@yearly`. A time that the clock leaves out, as in the night in which summer
   * time begins, is later by as much as is left out. A time that comes twice runs the first time, but where the
   * second, minute or hour has `*` or a step, both times.
   */
  cron?: string | undefined;
  /** Milliseconds between two occurrences. The first one comes so long after `set`. */
  everyMs?: number | undefined;
  /** By whose clock the cron expression is meant: a name of the IANA time zone database. */
  timeZone?: string | undefined;
  /** Higher is claimed first; those of one priority in the order they were added. */
  priority?: number | undefined;
  /**
   * Its subject: a customer, a file, a branch. A queue can be configured to have few claims of a key at a time, and
   * to keep their order.
   */
  key?: string | undefined;
  /** Of each batch: after so many counted attempts it is dead, 0 for no limit. */
  maxAttempts?: number | undefined;
  /**
   * While the last occurrence is unfinished: `skip` enqueues nothing; `one` enqueues another if the last is
   * claimed, which waits for its end; `all` enqueues each.
   */
  overlap?: "skip" | "one" | "all" | undefined;
  /**
   * Which of the occurrences that came while there was no daemon are made up for, as far as `overlap` allows:
   * `none`, the `last`, or `all`, at most the last 1000.
   */
  missed?: "none" | "last" | "all" | undefined;
  /** Missed occurrences longer ago than so many milliseconds are not made up for. */
  missedWindowMs?: number | undefined;
  /** Whether it has occurrences; a disabled one is kept for later. */
  enabled?: boolean | undefined;
  /** From then on it has no occurrences, in milliseconds since the Unix epoch. */
  endAt?: number | undefined;
};

/** Result of schedule.set. */
export type ScheduleSetResult = {
  schedule: Schedule;
};

/** Params of sequence.advance. */
export type SequenceAdvanceParams = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** The next number is above it. */
  to: number;
};

/** Result of sequence.advance. */
export type SequenceAdvanceResult = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** The last number dispensed; 0 before the first. */
  seq: number;
};

/** Params of sequence.format. */
export type SequenceFormatParams = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** A number of a sequence, from 1. */
  seq: number;
};

/** Result of sequence.format. */
export type SequenceFormatResult = {
  /** FR-001, or FR-7-001 or FR-JM-001 with a node id. */
  id: string;
};

/** Params of sequence.grant. */
export type SequenceGrantParams = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** The first number of the range. */
  first: number;
  /** The last number of the range. */
  last: number;
};

/** Result of sequence.grant. */
export type SequenceGrantResult = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** Numbers of all grants of the type that are left. */
  left: number;
};

/** Params of sequence.next. */
export type SequenceNextParams = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** Makes a retry safe: the same id and params return the same number for 24 hours. */
  requestId?: string | undefined;
};

/** Params of sequence.parse. */
export type SequenceParseParams = {
  /** FR-001, or FR-7-001 or FR-JM-001 with a node id. */
  id: string;
};

/** Result of sequence.parse. */
export type SequenceParseResult = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** The number or the name of the node; 0 for a centralized id. */
  nodeId: number | string;
  /** A number of a sequence, from 1. */
  seq: number;
};

/** Params of sequence.peek. */
export type SequencePeekParams = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
};

/** Params of sequence.reserve. */
export type SequenceReserveParams = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** How many numbers. */
  count: number;
  /** Makes a retry safe: the same id and params return the same number for 24 hours. */
  requestId?: string | undefined;
};

/** Result of sequence.reserve. */
export type SequenceReserveResult = {
  /** The label of a counter, such as FR. Upper and lower case are one. */
  type: string;
  /** The first number of the block. */
  first: number;
  /** The last number of the block. */
  last: number;
  /** The id of `first`. */
  firstId: string;
  /** The id of `last`. */
  lastId: string;
};

/** Params of sequence.state. */
export type SequenceStateParams = {
  /** Most types to return. */
  limit?: number | undefined;
  /** `next` of the page before. */
  after?: string | undefined;
};

/** Result of sequence.state. */
export type SequenceStateResult = {
  mode: Mode;
  /** The last number dispensed, by type. */
  sequences: Record<string, number>;
  /** Of types that have grants: how many of those numbers are left. */
  granted: Record<string, number>;
  /** There are more types: ask again after this one. */
  next?: string | undefined;
};

/** Numbers since the start. */
export type SequenceStats = {
  /** Numbers that were taken here, of shared names, too. */
  dispensed: number;
};

/** The answer to a request with `names`. */
export type SeveralLeases = {
  /** In the order of the names, all with one leaseId. */
  leases: Lease[];
};

/** Names that are kept in PostgreSQL, which several daemons share. */
export type SharedNames = {
  /** Names, in which `*` stands for any characters. */
  pattern: string;
  /** The noun whose names it is about; null for each that can be shared. */
  noun: "sequence" | "queue" | "lease" | "path" | "command" | null;
  /** The server and the database, without credentials. */
  place: string;
  /** False while the database cannot be reached. */
  connected: boolean;
};

/**
 * A change as its author signed it; or, in place of changes that were taken away, a cut that the node which gives
 * it has signed.
 */
export type SignedChange = {
  /** RFC 8785 canonical JSON. */
  body: string;
  /** Ed25519, 128 lower-case hexadecimal digits. */
  signature: string;
};

/**
 * A change as its author signed it; or, in place of changes that were taken away, a cut that the node which gives
 * it has signed.
 */
export type SignedChangeInput = {
  /** RFC 8785 canonical JSON. */
  body: string;
  /** Ed25519, 128 lower-case hexadecimal digits. */
  signature: string;
};

/** A socket that the daemon serves. */
export type SocketInfo = {
  /** Where it is. */
  path: string;
  /** True if it refuses methods that write. */
  readOnly: boolean;
};

/** The part of a stage in work. */
export type StageRule = {
  /** Free text; by convention 1_backlog, 2_current, 3_qa, 4_merge, 5_done. */
  stage: string;
  /** True if an item in it is done, for those that depend on it. */
  done?: boolean | undefined;
  /** True if work is taken from it. */
  ready?: boolean | undefined;
};

/** The part of a stage in work. */
export type StageRuleInput = {
  /** Free text; by convention 1_backlog, 2_current, 3_qa, 4_merge, 5_done. */
  stage: string;
  /** True if an item in it is done, for those that depend on it. */
  done?: boolean | undefined;
  /** True if work is taken from it. */
  ready?: boolean | undefined;
};

/** What one node has of the board, in its own words: other nodes know it by that, whoever passes it on. */
export type Statement = {
  /**
   * RFC 8785 canonical JSON of {at, author, board, heads, v: 1}: author has these changes, and all before them, at
   * the time `at` of its own clock.
   */
  body: string;
  /** Ed25519 by author over `pawl-board-heads-v1`, a NUL and the body: 128 lower-case hexadecimal digits. */
  signature: string;
};

/** What one node has of the board, in its own words: other nodes know it by that, whoever passes it on. */
export type StatementInput = {
  /**
   * RFC 8785 canonical JSON of {at, author, board, heads, v: 1}: author has these changes, and all before them, at
   * the time `at` of its own clock.
   */
  body: string;
  /** Ed25519 by author over `pawl-board-heads-v1`, a NUL and the body: 128 lower-case hexadecimal digits. */
  signature: string;
};

/** How long a text is. */
export type TextSize = {
  /** Bytes of the JSON text, in UTF-8. */
  sizeBytes: number;
};

/** Why workers said that nothing is to be claimed. */
export type Throttle = {
  /** In the words of the last of them. */
  reason: string | null;
};

/** `error.data` of the kind too_large: a change, a field of it or its number of ops is too large. */
export type TooLargeData = {
  /** The kind of the error, for programs to match on. */
  kind: "too_large";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** The trace that the work belongs to (W3C Trace Context), handed on with the claim and no part of the content. */
export type Trace = {
  /** Version, trace id, id of the parent and flags, in lower-case hexadecimal. */
  traceparent: string;
  /** What vendors add, as it came. */
  tracestate?: string | undefined;
};

/** The trace that the work belongs to (W3C Trace Context), handed on with the claim and no part of the content. */
export type TraceInput = {
  /** Version, trace id, id of the parent and flags, in lower-case hexadecimal. */
  traceparent: string;
  /** What vendors add, as it came. */
  tracestate?: string | undefined;
};

/** One call of a transaction. */
export type TransactCall = {
  /** Any method with `x-transactable`. */
  method: string;
  /**
   * Its params. `{"$result": "/0/id"}`, anywhere in them, stands for a value of an earlier call: a JSON Pointer
   * (RFC 6901) into `results`.
   */
  params?: Record<string, unknown> | undefined;
};

/** A grant that has to be held for the transaction to be performed: one of the three. */
export type TransactGuard = {
  lease?: LeaseGuard | undefined;
  claim?: ClaimGuard | undefined;
  path?: PathGuard | undefined;
};

/** Params of transact. */
export type TransactParams = {
  /** Performed in this order. */
  calls: TransactCall[];
  /** Checked first, in the same transaction. */
  guards?: TransactGuard[] | undefined;
  /**
   * Perform all, answer what would have been answered, and undo it. Each secret that is granted (leaseToken,
   * leaseId, reservationId) is then the text `dry-run`, also where `$result` refers to it.
   */
  dryRun?: boolean | undefined;
};

/** Result of transact. */
export type TransactResult = {
  /** The result of each call, in their order. */
  results: unknown[];
};

/** Turns since the start: each is one transaction for all that had arrived. */
export type TurnStats = {
  /** All turns. */
  total: number;
  /** Turns that wrote. */
  committed: number;
  /** Turns that failed and were performed call by call. */
  rolledBack: number;
  /** Calls that turns performed. */
  operations: number;
};

/** `error.data` of the kind unavailable: storage cannot take writes now, or the daemon is stopping. */
export type UnavailableData = {
  /** The kind of the error, for programs to match on. */
  kind: "unavailable";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** Why, as a word for programs. */
  reason?: string | undefined;
  /** The process that has locked the database; null where that is not known. */
  pid?: number | null | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** The claim of an item, by the token of its lease. */
export type UnderClaim = {
  /** The token of the lease `item/<storyId>`, greater than that of every earlier one. */
  fencingToken: number;
};

/** `error.data` of the kind unknown_author: the author of the change is not trusted here. */
export type UnknownAuthorData = {
  /** The kind of the error, for programs to match on. */
  kind: "unknown_author";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind unsupported_version: a change of a version not known here. */
export type UnsupportedVersionData = {
  /** The kind of the error, for programs to match on. */
  kind: "unsupported_version";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** Announces params that come by command.upload. */
export type UploadAnnouncement = {
  /** Bytes of their JSON text, in UTF-8. */
  sizeBytes: number;
};

/** `error.data` of the kind weak_key: a public key of small order, or not in its one encoding. */
export type WeakKeyData = {
  /** The kind of the error, for programs to match on. */
  kind: "weak_key";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/**
 * `error.data` of the kind would_deadlock: to wait would close a circle of waits; details.cycle says who waits for
 * what.
 */
export type WouldDeadlockData = {
  /** The kind of the error, for programs to match on. */
  kind: "would_deadlock";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The circle: first the caller, then whom it would wait for, and so on back to it. */
  cycle: CircleStep[];
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** `error.data` of the kind wrong_board: the change or the peer belongs to another board. */
export type WrongBoardData = {
  /** The kind of the error, for programs to match on. */
  kind: "wrong_board";
  /** True if the same request may succeed later without anything being changed in it. */
  retryable: boolean;
  /** The author of the change. */
  author?: string | undefined;
  /** The incarnation of its log. */
  incarnation?: string | undefined;
  /** Its place in its log. */
  seq?: number | undefined;
  /** The board of this node. */
  board?: string | null | undefined;
  /** The board of the peer. */
  peer?: string | undefined;
  /** Which of several calls or batches was refused, from 0. */
  index?: number | undefined;
  /** Which guard of a transact does not hold, from 0. */
  guard?: number | undefined;
};

/** The params and the result of each method. */
export interface CallTypes {
  "sequence.next": { params: SequenceNextParams; result: NumberedId };
  "sequence.reserve": { params: SequenceReserveParams; result: SequenceReserveResult };
  "sequence.peek": { params: SequencePeekParams; result: NumberedId };
  "sequence.state": { params: SequenceStateParams; result: SequenceStateResult };
  "sequence.format": { params: SequenceFormatParams; result: SequenceFormatResult };
  "sequence.parse": { params: SequenceParseParams; result: SequenceParseResult };
  "sequence.grant": { params: SequenceGrantParams; result: SequenceGrantResult };
  "sequence.advance": { params: SequenceAdvanceParams; result: SequenceAdvanceResult };
  "queue.enqueue": { params: QueueEnqueueParams; result: QueueEnqueueResult };
  "queue.enqueueMany": { params: QueueEnqueueManyParams; result: QueueEnqueueManyResult };
  "queue.claim": { params: QueueClaimParams; result: QueueClaimResult };
  "queue.renew": { params: QueueRenewParams; result: QueueRenewResult };
  "queue.progress": { params: QueueProgressParams; result: QueueProgressResult };
  "queue.complete": { params: QueueCompleteParams; result: QueueCompleteResult };
  "queue.abandon": { params: QueueAbandonParams; result: QueueAbandonResult };
  "queue.get": { params: QueueGetParams; result: QueueGetResult };
  "queue.wait": { params: QueueWaitParams; result: QueueWaitResult };
  "queue.list": { params: QueueListParams; result: QueueListResult };
  "queue.stats": { params: QueueStatsParams; result: QueueStatsResult };
  "queue.update": { params: QueueUpdateParams; result: QueueUpdateResult };
  "queue.cancel": { params: QueueCancelParams; result: QueueCancelResult };
  "queue.move": { params: QueueMoveParams; result: QueueMoveResult };
  "queue.purge": { params: QueuePurgeParams; result: QueuePurgeResult };
  "queue.retry": { params: QueueRetryParams; result: QueueRetryResult };
  "queue.configure": { params: QueueConfigureParams; result: QueueConfigureResult };
  "queue.settings": { params: QueueSettingsParams; result: QueueSettingsResult };
  "queue.throttle": { params: QueueThrottleParams; result: QueueThrottleResult };
  "queue.explain": { params: QueueExplainParams; result: QueueExplainResult };
  "schedule.set": { params: ScheduleSetParams; result: ScheduleSetResult };
  "schedule.get": { params: ScheduleGetParams; result: ScheduleGetResult };
  "schedule.list": { params: ScheduleListParams; result: ScheduleListResult };
  "schedule.run": { params: ScheduleRunParams; result: ScheduleRunResult };
  "schedule.next": { params: ScheduleNextParams; result: ScheduleNextResult };
  "schedule.delete": { params: ScheduleDeleteParams; result: ScheduleDeleteResult };
  "deployment.set": { params: DeploymentSetParams; result: DeploymentSetResult };
  "deployment.list": { params: DeploymentListParams; result: DeploymentListResult };
  "command.create": { params: CommandCreateParams; result: CommandCreateResult };
  "command.upload": { params: CommandUploadParams; result: CommandUploadResult };
  "command.lease": { params: CommandLeaseParams; result: CommandLeaseResult };
  "command.renew": { params: CommandRenewParams; result: CommandRenewResult };
  "command.progress": { params: CommandProgressParams; result: CommandProgressResult };
  "command.release": { params: CommandReleaseParams; result: CommandReleaseResult };
  "command.respond": { params: CommandRespondParams; result: CommandRespondResult };
  "command.answer": { params: CommandAnswerParams; result: CommandAnswerResult };
  "command.get": { params: CommandGetParams; result: Command };
  "command.params": { params: CommandParamsParams; result: CommandParamsResult };
  "command.response": { params: CommandResponseParams; result: CommandResponseResult };
  "command.wait": { params: CommandWaitParams; result: Command };
  "command.list": { params: CommandListParams; result: CommandListResult };
  "command.cancel": { params: CommandCancelParams; result: CommandCancelResult };
  "command.serve": { params: CommandServeParams; result: CommandServeResult };
  "lease.acquire": { params: LeaseAcquireParams; result: LeaseAcquireResult };
  "lease.configure": { params: LeaseConfigureParams; result: LeaseConfigureResult };
  "lease.heartbeat": { params: LeaseHeartbeatParams; result: LeaseHeartbeatResult };
  "lease.release": { params: LeaseReleaseParams; result: LeaseReleaseResult };
  "lease.get": { params: LeaseGetParams; result: LeaseGetResult };
  "lease.list": { params: LeaseListParams; result: LeaseListResult };
  "lease.check": { params: LeaseCheckParams; result: LeaseCheckResult };
  "lease.break": { params: LeaseBreakParams; result: LeaseBreakResult };
  "path.reserve": { params: PathReserveParams; result: PathReserveResult };
  "path.heartbeat": { params: PathHeartbeatParams; result: PathHeartbeatResult };
  "path.release": { params: PathReleaseParams; result: PathReleaseResult };
  "path.check": { params: PathCheckParams; result: PathCheckResult };
  "path.list": { params: PathListParams; result: PathListResult };
  "pipeline.write": { params: PipelineWriteParams; result: PipelineWriteResult };
  "pipeline.read": { params: PipelineReadParams; result: PipelineReadResult };
  "pipeline.list": { params: PipelineListParams; result: PipelineListResult };
  "pipeline.delete": { params: PipelineDeleteParams; result: PipelineDeleteResult };
  "pipeline.history": { params: PipelineHistoryParams; result: PipelineHistoryResult };
  "pipeline.identity": { params: PipelineIdentityParams; result: PipelineIdentityResult };
  "pipeline.heads": { params: PipelineHeadsParams; result: PipelineHeadsResult };
  "pipeline.changes": { params: PipelineChangesParams; result: PipelineChangesResult };
  "pipeline.apply": { params: PipelineApplyParams; result: PipelineApplyResult };
  "pipeline.watch": { params: PipelineWatchParams; result: PipelineWatchResult };
  "pipeline.rebuild": { params: PipelineRebuildParams; result: PipelineRebuildResult };
  "pipeline.compact": { params: PipelineCompactParams; result: PipelineCompactResult };
  "pipeline.repair": { params: PipelineRepairParams; result: PipelineRepairResult };
  "pipeline.configure": { params: PipelineConfigureParams; result: PipelineConfigureResult };
  "pipeline.configuration": { params: PipelineConfigurationParams; result: PipelineConfigurationResult };
  "pipeline.ready": { params: PipelineReadyParams; result: PipelineReadyResult };
  "pipeline.claim": { params: PipelineClaimParams; result: PipelineClaimResult };
  "pipeline.finish": { params: PipelineFinishParams; result: PipelineFinishResult };
  "peer.trust": { params: PeerTrustParams; result: PeerTrustResult };
  "peer.revoke": { params: PeerRevokeParams; result: PeerRevokeResult };
  "peer.list": { params: PeerListParams; result: PeerListResult };
  "peer.seen": { params: PeerSeenParams; result: PeerSeenResult };
  "transact": { params: TransactParams; result: TransactResult };
  "events.watch": { params: EventsWatchParams; result: EventsWatchResult };
  "events.subscribe": { params: EventsSubscribeParams; result: EventsSubscribeResult };
  "events.unsubscribe": { params: EventsUnsubscribeParams; result: EventsUnsubscribeResult };
  "daemon.graph": { params: DaemonGraphParams; result: DaemonGraphResult };
  "daemon.ping": { params: DaemonPingParams; result: DaemonPingResult };
  "daemon.info": { params: DaemonInfoParams; result: DaemonInfoResult };
  "daemon.stats": { params: DaemonStatsParams; result: DaemonStatsResult };
  "daemon.acceptCopy": { params: DaemonAcceptCopyParams; result: DaemonAcceptCopyResult };
  "daemon.check": { params: DaemonCheckParams; result: DaemonCheckResult };
  "daemon.backup": { params: DaemonBackupParams; result: DaemonBackupResult };
  "rpc.discover": { params: RpcDiscoverParams; result: RpcDiscoverResult };
  "rpc.cancel": { params: RpcCancelParams; result: RpcCancelResult };
}

/** The params of each notification. */
export interface NotificationTypes {
  "claim.cancelling": ClaimCancellingParams;
  "claim.lost": ClaimLostParams;
  "command.cancelled": CommandCancelledParams;
  "lease.expiring": LeaseExpiringParams;
  "lease.lost": LeaseLostParams;
  "path.lost": PathLostParams;
  "item.contested": ItemContestedParams;
  "event": EventParams;
  "daemon.backupProgress": DaemonBackupProgressParams;
}

/** `error.data` by kind. */
export interface ErrorDataTypes {
  /** The line is not JSON. */
  parse_error: ParseErrorData;
  /** Not a JSON-RPC 2.0 request. */
  invalid_request: InvalidRequestData;
  /** No such method; details name the closest one, if one is close. */
  method_not_found: MethodNotFoundData;
  /** The params do not fit; details.issues says where. */
  invalid_params: InvalidParamsData;
  /** A defect, or a stored row that is damaged; details.reference is in the log too. */
  internal: InternalData;
  /** Storage cannot take writes now, or the daemon is stopping. */
  unavailable: UnavailableData;
  /** A writing method on a read-only socket or daemon. */
  read_only: ReadOnlyData;
  /** The line is longer than --max-message-bytes. */
  message_too_large: MessageTooLargeData;
  /** The peer's user may not call this. */
  forbidden: ForbiddenData;
  /** A wait was ended by `rpc.cancel`. */
  cancelled: CancelledData;
  /** Details.what says which thing does not exist. */
  not_found: NotFoundData;
  /**
   * A key was reused with different content, details name both; or an `if` does not hold, details.item is what
   * there is.
   */
  conflict: ConflictData;
  /** Details.holder says who holds the lease and how long. */
  lease_held: LeaseHeldData;
  /** The claim expired, was superseded, or its token is wrong. */
  claim_lost: ClaimLostData;
  /** The lease expired, was superseded, or its id is wrong. */
  lease_lost: LeaseLostData;
  /** A transition that the state table forbids; details {from, to}. */
  invalid_state: InvalidStateData;
  /** A counter or a bounded thing is full. */
  exhausted: ExhaustedData;
  /** An external lease provider could not be reached; not the same as lease_lost. */
  provider_unavailable: ProviderUnavailableData;
  /** To wait would close a circle of waits; details.cycle says who waits for what. */
  would_deadlock: WouldDeadlockData;
  /** A change, a field of it or its number of ops is too large. */
  too_large: TooLargeData;
  /** The body of a change is not JSON. */
  not_json: NotJsonData;
  /** A body is not its own RFC 8785 canonical form. */
  not_canonical: NotCanonicalData;
  /** A value without one canonical form: -0, an unsafe integer, a lone surrogate. */
  bad_value: BadValueData;
  /** A body or an op lacks a part, or has one too many. */
  bad_shape: BadShapeData;
  /** A change of a version not known here. */
  unsupported_version: UnsupportedVersionData;
  /** The change or the peer belongs to another board. */
  wrong_board: WrongBoardData;
  /** The author of the change is not trusted here. */
  unknown_author: UnknownAuthorData;
  /** The author was trusted here and no longer is. */
  revoked_author: RevokedAuthorData;
  /** The signature is not the author's over this body. */
  bad_signature: BadSignatureData;
  /** The change before this one has not arrived. */
  missing_prev: MissingPrevData;
  /** `prev` is not the change before this one in its log. */
  bad_chain: BadChainData;
  /** A change is not later than the one before it in its log. */
  clock_not_monotonic: ClockNotMonotonicData;
  /** A change is too far ahead of this node's clock; details.retryMs says when to offer it again. */
  clock_ahead: ClockAheadData;
  /** An op names an item by what cannot be a storyId. */
  bad_story_id: BadStoryIdData;
  /** An op's generation is no positive integer, or a delete sets fields. */
  bad_generation: BadGenerationData;
  /** An op gives a field a name or a value that it cannot have. */
  bad_field: BadFieldData;
  /** A public key of small order, or not in its one encoding. */
  weak_key: WeakKeyData;
  /** The key is trusted already, as another peer. */
  duplicate_key: DuplicateKeyData;
  /** The identity key can be read or written by others. */
  key_mode: KeyModeData;
  /** The identity key is missing, corrupt or not a PKCS #8 Ed25519 key. */
  key_unreadable: KeyUnreadableData;
  /** A stored change no longer parses or hashes right. */
  log_corrupt: LogCorruptData;
}

/** Numbers per type that only go up, and ids made of them: no two callers ever get the same one. */
export interface SequenceMethods<Options> {
  /**
   * Take the next number of a type. Of a type that has grants (sequence.grant) the number comes from these, in
   * order; with none left it is `exhausted`.
   */
  next(params: SequenceNextParams, options?: Options): Promise<NumberedId>;
  /**
   * Take a contiguous block of numbers, for a caller that goes offline. Of a type that has grants, the block comes
   * from the first range that has so many left; smaller rests before it are left out for good.
   */
  reserve(params: SequenceReserveParams, options?: Options): Promise<SequenceReserveResult>;
  /** See what next would return, without taking it. */
  peek(params: SequencePeekParams, options?: Options): Promise<NumberedId>;
  /**
   * The mode and the last number dispensed per type. A page may be short of `limit`, with `next`, within a
   * `transact`.
   */
  state(params?: SequenceStateParams, options?: Options): Promise<SequenceStateResult>;
  /** The id of a number. */
  format(params: SequenceFormatParams, options?: Options): Promise<SequenceFormatResult>;
  /** The parts of an id. The number may be padded with any number of zeros. */
  parse(params: SequenceParseParams, options?: Options): Promise<SequenceParseResult>;
  /**
   * Have the numbers of a type come from a range that another node gave. The other node took the range by
   * sequence.reserve, and gives none of it itself. Once a type has grants, its numbers come from them alone, in
   * order. With none left `sequence.next` is `exhausted`, until the next grant, or until sequence.advance lets the
   * counter go on above all of them. A range that begins at or below a number that was dispensed or granted here is
   * `conflict`.
   */
  grant(params: SequenceGrantParams, options?: Options): Promise<SequenceGrantResult>;
  /**
   * Raise a counter so that the next number is above a given one; never lowers it. Of a type that has grants, the
   * numbers up to `to` are left out. Where `to` is at or above the last that was granted, the counter goes on by
   * itself from there.
   */
  advance(params: SequenceAdvanceParams, options?: Options): Promise<SequenceAdvanceResult>;
}

/** Batches of work, each claimed by one owner at a time under a lease with a fencing token. */
export interface QueueMethods<Options> {
  /** Add a batch of work. */
  enqueue(params: QueueEnqueueParams, options?: Options): Promise<QueueEnqueueResult>;
  /** Add many batches in one transaction: all of them or none. */
  enqueueMany(params: QueueEnqueueManyParams, options?: Options): Promise<QueueEnqueueManyResult>;
  /** Take the next batch, or the next group of batches, to work on it under a lease. */
  claim(params: QueueClaimParams, options?: Options): Promise<QueueClaimResult>;
  /** Hold a claim for longer. */
  renew(params: QueueRenewParams, options?: Options): Promise<QueueRenewResult>;
  /**
   * Say how far the work of a claim has come, and hold it for longer. Each batch of the claim shows what was given;
   * what was not given stays as it was. The next holder is given the checkpoint, and begins with no progress.
   */
  progress(params: QueueProgressParams, options?: Options): Promise<QueueProgressResult>;
  /**
   * The work is done; doing it twice answers the same. Succeeds also after the claim has expired, as long as nobody
   * else has claimed or cancelled any of its batches.
   */
  complete(params: QueueCompleteParams, options?: Options): Promise<QueueCompleteResult>;
  /** Give the work back, as failed if with an error. */
  abandon(params: QueueAbandonParams, options?: Options): Promise<QueueAbandonResult>;
  /** One batch. */
  get(params: QueueGetParams, options?: Options): Promise<QueueGetResult>;
  /** Wait for the end of a batch. A batch that is not final when the wait ends is answered as it is. */
  wait(params: QueueWaitParams, options?: Options): Promise<QueueWaitResult>;
  /** The batches of a queue, in the order they were added. */
  list(params: QueueListParams, options?: Options): Promise<QueueListResult>;
  /** How many batches are in which state, of one queue or of all by their names. */
  stats(params?: QueueStatsParams, options?: Options): Promise<QueueStatsResult>;
  /** Change the priority or the time of a batch that waits. */
  update(params: QueueUpdateParams, options?: Options): Promise<QueueUpdateResult>;
  /**
   * Take a batch back; with `stop`, also from whoever works on it. With `stop`, the holder of a claimed batch is
   * told by `claim.cancelling` and by each renewal, and has `graceMs` to end: a completion until then counts,
   * anything else cancels the batch. The other batches of the claim are ready again. Of several cancels of one
   * claim, `claim.cancelling` and `claim.lost` have the first reason that was given, and each batch its own.
   */
  cancel(params?: QueueCancelParams, options?: Options): Promise<QueueCancelResult>;
  /**
   * Move batches that nobody holds to another queue; each keeps its batchId and its enqueueSeq. What is claimed or
   * completed stays, and so does a batch whose sourceKey is in use there, that has a follower, or that is one.
   * `maxWaiting` of the other queue refuses none.
   */
  move(params: QueueMoveParams, options?: Options): Promise<QueueMoveResult>;
  /** Remove batches that nobody holds, for good. A batch that others wait for stays. */
  purge(params?: QueuePurgeParams, options?: Options): Promise<QueuePurgeResult>;
  /** Bring batches back that ended without success, with a fresh attempt count: one, or a queue's dead ones. */
  retry(params?: QueueRetryParams, options?: Options): Promise<QueueRetryResult>;
  /** Change the settings of a queue; only what is given changes, null takes a setting back. */
  configure(params: QueueConfigureParams, options?: Options): Promise<QueueConfigureResult>;
  /** Every setting of a queue, null where there is none. */
  settings(params: QueueSettingsParams, options?: Options): Promise<QueueSettingsResult>;
  /**
   * Say that what the work needs has had enough: nothing of a queue is claimed for a while. For a worker that was
   * told to come again later, as by HTTP 429 and its `Retry-After`. Of several ends the later one holds.
   */
  throttle(params: QueueThrottleParams, options?: Options): Promise<QueueThrottleResult>;
  /**
   * Why the head of a queue, or a batch, can or cannot be claimed now, and what would change it. The head is the
   * first batch that a claim would take; if there is none, the first that waits for something. `ready`: it can be
   * claimed. `boundary`: it can be claimed at `idle`, not at an `active_turn_checkpoint`. `claimed`: a `holder` has
   * it. `scheduled`: it can be claimed from `availableAt` on. `resting`: so it can, having been tried before.
   * `blocked`: it waits for the batches `waitsFor`. `paused`, `throttled`, `rate`: nothing of the queue is claimed
   * until `until`, or until somebody resumes it. `full`: the queue has as many claims as it may. `key_full`: its
   * `key` has. `strict`: the earlier batch `behind` of its key is not finished. `final`: it has ended. `empty`:
   * nothing is there.
   */
  explain(params?: QueueExplainParams, options?: Options): Promise<QueueExplainResult>;
}

/**
 * Batches that are enqueued at times: by a cron expression or every so often, each occurrence once. They are
 * claimed as all others.
 */
export interface ScheduleMethods<Options> {
  /**
   * Make a schedule, or change it. Each occurrence is a batch with the sourceKey `schedule:<name>@<time>`. A
   * definition that is the same as before changes nothing; a changed one counts from now: what was to come by the
   * one before does not, and `everyMs` begins anew.
   */
  set(params: ScheduleSetParams, options?: Options): Promise<ScheduleSetResult>;
  /** Show a schedule. */
  get(params: ScheduleGetParams, options?: Options): Promise<ScheduleGetResult>;
  /** The schedules by name. */
  list(params?: ScheduleListParams, options?: Options): Promise<ScheduleListResult>;
  /**
   * Enqueue a batch of a schedule now, besides its occurrences. Also of a schedule that is disabled. The batch has
   * no sourceKey, counts for no `overlap`, and changes nothing of the schedule.
   */
  run(params: ScheduleRunParams, options?: Options): Promise<ScheduleRunResult>;
  /** When a schedule comes next, or would by a cron expression. */
  next(params?: ScheduleNextParams, options?: Options): Promise<ScheduleNextResult>;
  /** Remove a schedule; what it has enqueued stays. */
  delete(params: ScheduleDeleteParams, options?: Options): Promise<ScheduleDeleteResult>;
}

/** Receivers of commands: worker processes, services, agents. */
export interface DeploymentMethods<Options> {
  /**
   * Say how a deployment takes commands and what it belongs to. Replaces what was said before, for commands created
   * from then on. A deployment needs no such call: it exists by being used, as `pull` and without a project. The
   * model is what senders are told; either way of receiving works with either.
   */
  set(params: DeploymentSetParams, options?: Options): Promise<DeploymentSetResult>;
  /** The deployments by name, who receives for them and what waits for them. */
  list(params?: DeploymentListParams, options?: Options): Promise<DeploymentListResult>;
}

/** Commands that are sent to deployments and delivered until they are answered. */
export interface CommandMethods<Options> {
  /**
   * Send a command to a deployment, whose receivers need not be there. With an idempotencyKey, the first command
   * with the same deployment, target, command and key is returned if its content (params, or the size announced for
   * them, maxAttempts, executionMs, retry and incarnation, as they were given) is the same; otherwise `first` and
   * `now` of the `conflict` have what differs, null where it was not given, and of params the size. A deadline that
   * has passed gives a command that is EXPIRED.
   */
  create(params: CommandCreateParams, options?: Options): Promise<CommandCreateResult>;
  /**
   * Add a piece to the params of a command, in order. `offset` is where the piece begins: `receivedBytes` of the
   * answer before, and of a refusal's details. A piece that is refused leaves nothing behind. The last one has
   * `final`, and then the params are complete and the command is PENDING; that same piece again, from a sender who
   * lost the answer, changes nothing and is answered with the state by now. An upload that does not end within a
   * day is EXPIRED.
   */
  upload(params: CommandUploadParams, options?: Options): Promise<CommandUploadResult>;
  /**
   * Take commands of a deployment to carry out, or wait for one. One that names its incarnation is given those that
   * are for it alone first. An answer has no more params and checkpoints than some MiB, and so perhaps fewer
   * commands than `max`.
   */
  lease(params: CommandLeaseParams, options?: Options): Promise<CommandLeaseResult>;
  /**
   * Keep a command for longer. No lease outlives the deadline of its command, nor its `executionMs`; then that is
   * what is reported. With `lease_lost`, stop: details say what became of the command ({commandId, state, reason}),
   * and for a cancelled one the words of whoever cancelled it.
   */
  renew(params: CommandRenewParams, options?: Options): Promise<CommandRenewResult>;
  /**
   * Say how far a command has come, and keep it for longer. The command shows what was given; what was not given
   * stays as it was. The next delivery is given the checkpoint, and begins with no progress. A push is not
   * prolonged: what remains of it is answered.
   */
  progress(params: CommandProgressParams, options?: Options): Promise<CommandProgressResult>;
  /** Give a command back unanswered, for another delivery. */
  release(params: CommandReleaseParams, options?: Options): Promise<CommandReleaseResult>;
  /**
   * Answer a command; the first answer with the live lease wins. `accepted: false` for a command that is final
   * already. An answer whose delivery has ended otherwise than by command.release is accepted as long as no other
   * came after it. `lease_lost` when another delivery is under way, `invalid_state` when none is that could be
   * answered.
   */
  respond(params: CommandRespondParams, options?: Options): Promise<CommandRespondResult>;
  /**
   * Add a piece to an answer that is too long for a line, in order; the last one is the answer. The bytes are the
   * JSON text of `response` as command.respond takes it, `sizeBytes` of them. `offset` is where the piece begins:
   * `receivedBytes` of the answer before, and of a refusal's details. A piece that is refused leaves nothing
   * behind; the last one, again, is answered alike. Pieces belong to a delivery: another one begins anew. The
   * JSON-RPC response to a command.execute that was answered so is ignored.
   */
  answer(params: CommandAnswerParams, options?: Options): Promise<CommandAnswerResult>;
  /** A command, without its params and its answer. */
  get(params: CommandGetParams, options?: Options): Promise<Command>;
  /** The params of a command, in pieces of their JSON text. */
  params(params: CommandParamsParams, options?: Options): Promise<CommandParamsResult>;
  /**
   * The answer to a command; null until it is final. A command that became final without an answer has an error in
   * its place: CANCELLED, ATTEMPTS_EXHAUSTED, GONE or EXPIRED. A large answer that came in pieces is {$upload:
   * {sizeBytes}}: read its JSON text with `offset` and `length`.
   */
  response(params: CommandResponseParams, options?: Options): Promise<CommandResponseResult>;
  /** A command once it is final, or as it is when the wait ends. */
  wait(params: CommandWaitParams, options?: Options): Promise<Command>;
  /**
   * Commands, newest first. A page looks at up to 1,000 commands, and may be short of `limit`, or empty, with
   * `next`.
   */
  list(params?: CommandListParams, options?: Options): Promise<CommandListResult>;
  /** End a command as FAILED with the code CANCELLED, and tell its receiver; a final one stays as it is. */
  cancel(params: CommandCancelParams, options?: Options): Promise<CommandCancelResult>;
  /**
   * Have the commands of a deployment sent to this connection as requests. From then on the daemon sends
   * `command.execute` requests on this connection; the JSON-RPC response to each is the answer to the command.
   * Again for the same deployment changes owner and max; with max 0 nothing more is sent. It ends with the
   * connection. Past `executionMs` a delivery ends, and the connection is told by command.cancelled; until it has
   * answered that counts against max.
   */
  serve(params: CommandServeParams, options?: Options): Promise<CommandServeResult>;
}

/** Names that one holder has at a time, or a few, or many that share them, with tokens that only go up. */
export interface LeaseMethods<Options> {
  /**
   * Take the lease of a name, or of several names together, or wait for it. Whoever waits is served in the order of
   * arrival: nobody is granted a name that an earlier one waits for, unless both would share it, and nobody waits
   * for more than that.
   */
  acquire(params: SeveralNames, options?: Options): Promise<SeveralLeases>;
  /**
   * Take the lease of a name, or of several names together, or wait for it. Whoever waits is served in the order of
   * arrival: nobody is granted a name that an earlier one waits for, unless both would share it, and nobody waits
   * for more than that.
   */
  acquire(params: LeaseAcquireParams, options?: Options): Promise<OneLease>;
  /**
   * Say how many may hold a name at a time, or what it is a pool of. A name that nothing was said of has one slot.
   * Fewer slots than are held take nothing back. Without `slots` and `members` nothing changes, and the answer is
   * what the name has.
   */
  configure(params: LeaseConfigureParams, options?: Options): Promise<LeaseConfigureResult>;
  /** Keep a lease for its ttl from now on. */
  heartbeat(params: LeaseHeartbeatParams, options?: Options): Promise<LeaseHeartbeatResult>;
  /** Give a lease back; false if it was already gone. */
  release(params: LeaseReleaseParams, options?: Options): Promise<LeaseReleaseResult>;
  /** Who holds a name, until when, and how many wait for it. */
  get(params: LeaseGetParams, options?: Options): Promise<LeaseGetResult>;
  /** The leases that are held, by name: a row for each holder. */
  list(params?: LeaseListParams, options?: Options): Promise<LeaseListResult>;
  /** Whether a fencing token is a current holder's: what a resource asks before it accepts a write. */
  check(params: LeaseCheckParams, options?: Options): Promise<LeaseCheckResult>;
  /**
   * End a lease by force; the next holder's token is higher all the same. Ends all holders of the name, and of a
   * lease of several names all names.
   */
  break(params: LeaseBreakParams, options?: Options): Promise<LeaseBreakResult>;
}

/** Files that are reserved by patterns, for those who edit one tree at a time. */
export interface PathMethods<Options> {
  /**
   * Reserve paths by patterns: all of them or none, or wait for them. Two reservations of one root conflict when
   * some path fits a pattern of each and one of them writes: the intersection of the patterns decides, never a
   * comparison of their text. Whoever waits is served in the order of arrival: nobody is granted what an earlier
   * one waits for, and nobody waits for more than that. Files are literal paths. With `reservationId` the paths are
   * added to a reservation of one's own, which has a new token then, and lasts as if it was renewed.
   */
  reserve(params: PathReserveParams, options?: Options): Promise<PathReserveResult>;
  /** Keep a reservation for its ttl from now on. */
  heartbeat(params: PathHeartbeatParams, options?: Options): Promise<PathHeartbeatResult>;
  /** Give a reservation back, or some of its patterns. */
  release(params: PathReleaseParams, options?: Options): Promise<PathReleaseResult>;
  /** Whether a path may be written: what an editor or a hook asks before it does. */
  check(params: PathCheckParams, options?: Options): Promise<PathCheckResult>;
  /** The reservations that are held, the earliest first. */
  list(params?: PathListParams, options?: Options): Promise<PathListResult>;
}

/** A board of items that move through stages, kept on every node and merged without a coordinator. */
export interface PipelineMethods<Options> {
  /**
   * Create or change an item; only the given fields change. A `stage` is required when the item does not exist. A
   * new item without a `rank` is put last in its stage. With an `if` that does not hold nothing is written: the
   * refusal `conflict` has the item as it is.
   */
  write(params: PipelineWriteParams, options?: Options): Promise<PipelineWriteResult>;
  /** One item, or null. */
  read(params: PipelineReadParams, options?: Options): Promise<PipelineReadResult>;
  /**
   * Items by stage, in rank order. A page looks at no more than 1,000 items for those that fit `agent`, `blocked`
   * and `label`: it may have few, or none, and a `next`. The first search by `text` makes an index of the words on
   * the board, which each change keeps from then on.
   */
  list(params?: PipelineListParams, options?: Options): Promise<PipelineListResult>;
  /** Delete an item; beats writes that other nodes make at the same time. */
  delete(params: PipelineDeleteParams, options?: Options): Promise<PipelineDeleteResult>;
  /** What was done to an item, newest first. */
  history(params: PipelineHistoryParams, options?: Options): Promise<PipelineHistoryResult>;
  /**
   * Who this node is on the board. The key is made when it is first needed, as here. A daemon that only reads may
   * find none yet.
   */
  identity(params?: PipelineIdentityParams, options?: Options): Promise<PipelineIdentityResult>;
  /** The last change of every log that this node has; several of one log where it is forked. */
  heads(params?: PipelineHeadsParams, options?: Options): Promise<PipelineHeadsResult>;
  /**
   * What the given heads lack, in sequence order. A head says that the caller has this change and all before it in
   * its log. Any change may be given, not only the last of a log, and several of one log; those not known here are
   * passed over.
   */
  changes(params: PipelineChangesParams, options?: Options): Promise<PipelineChangesResult>;
  /** Take in changes of other nodes; a rejected one stops its own log only. */
  apply(params: PipelineApplyParams, options?: Options): Promise<PipelineApplyResult>;
  /**
   * Wait for the board to change. Answers at once if `since` is left out, or is not the revision of this moment.
   */
  watch(params?: PipelineWatchParams, options?: Options): Promise<PipelineWatchResult>;
  /**
   * Compare the tables of the board with its log, and put right what differs unless it is only to verify. In steps:
   * first through the changes, whose hashes, signatures and places are checked, then through the items. Ask again
   * with `next` until there is none.
   */
  rebuild(params?: PipelineRebuildParams, options?: Options): Promise<PipelineRebuildResult>;
  /**
   * Take away changes on which nothing of the board rests any more. Those that others have replaced in all that
   * they said, and that every trusted peer is known to have (peer.seen) that was heard of within 90 days. Their
   * places stay in their logs, by hash and time. The board is the same afterwards, and the history of its items
   * shorter. Works in steps between other calls.
   */
  compact(params?: PipelineCompactParams, options?: Options): Promise<PipelineCompactResult>;
  /**
   * Give this node's latest changes again that lie ahead of the time, after its clock was wrong. Other nodes refuse
   * changes that are more than 60 s ahead, and all that this node writes is later still. Those that no trusted peer
   * is known to have are taken back and given again, in their order, under a new incarnation with the time as it
   * is. The items stay what they are. All in one turn: some 0.2 ms for each change.
   */
  repair(params?: PipelineRepairParams, options?: Options): Promise<PipelineRepairResult>;
  /**
   * Say of stages which work is taken from, which end it, and which may follow which. Kept on this node; others
   * need not agree, and what they write is always taken. Only what is given changes: each is replaced whole, and
   * `null` gives it back what it is by default (work is taken from 1_backlog and ends in 5_done, any stage may
   * follow any, 5 retries). With `transitions`, a stage that is not listed has none that may follow it, and a local
   * write that goes elsewhere is refused with `invalid_state`.
   */
  configure(params?: PipelineConfigureParams, options?: Options): Promise<PipelineConfigureResult>;
  /** What this node says of stages. */
  configuration(params?: PipelineConfigurationParams, options?: Options): Promise<PipelineConfigurationResult>;
  /**
   * What can be worked on now, in the order in which it should be. By the field `priority` (0 first, items without
   * one last), then by rank, then by storyId.
   */
  ready(params?: PipelineReadyParams, options?: Options): Promise<PipelineReadyResult>;
  /**
   * Take an item to work on: the one that is named, or the first that is ready; or wait for it. In one transaction
   * the lease `item/<storyId>` is granted, to be renewed with lease.heartbeat, and `agent` and `stage` are written.
   * A claim that ends without pipeline.finish, because its time or its connection ended or its lease was broken, is
   * taken back at once: nobody works on the item, it is in its former stage, and `retryCount` is one more, at
   * `maxRetries` of which it is blocked; after lease.release it is not counted. What others wrote meanwhile stays.
   */
  claim(params: PipelineClaimParams, options?: Options): Promise<PipelineClaimResult>;
  /** Say that the work of a claim is done: the item goes on, and the claim ends. */
  finish(params: PipelineFinishParams, options?: Options): Promise<PipelineFinishResult>;
}

/** The other nodes whose changes of the board are accepted. */
export interface PeerMethods<Options> {
  /**
   * Accept the changes of an author. A node that has no changes and no board yet adopts the board of the first peer
   * that it trusts.
   */
  trust(params: PeerTrustParams, options?: Options): Promise<PeerTrustResult>;
  /** Accept no more changes of an author; those accepted stay. */
  revoke(params: PeerRevokeParams, options?: Options): Promise<PeerRevokeResult>;
  /** The authors whose changes are or were accepted. */
  list(params?: PeerListParams, options?: Options): Promise<PeerListResult>;
  /**
   * Keep what other nodes say that they have of the board. As pipeline.heads of another node gives it; whoever
   * syncs two nodes passes it on. A statement counts by its signature alone, and the last of each peer is kept. By
   * it pipeline.compact knows what a peer has, and pipeline.repair what nobody has.
   */
  seen(params: PeerSeenParams, options?: Options): Promise<PeerSeenResult>;
}

/** Effects as they happen, for those who follow and must not ask in a loop. */
export interface EventsMethods<Options> {
  /**
   * The events behind a cursor, or the next ones. In the order of commits; one for each effect, none for what was
   * refused or undone. They are kept in memory, the last 16,384 or 8 MiB of each noun, from the first call of this
   * noun on. A cursor that is older, or of an earlier life of the daemon, is answered with `gap: true`. With
   * `waitMs` it waits for the first event that the topics fit. A daemon that only reads refuses this with
   * `read_only`.
   */
  watch(params: EventsWatchParams, options?: Options): Promise<EventsWatchResult>;
  /**
   * Be told of events by notifications `event`, until the connection closes. A subscriber that does not read is
   * told nothing more until it does. Where events have gone meanwhile, one of the kind `gap` comes in their place.
   */
  subscribe(params: EventsSubscribeParams, options?: Options): Promise<EventsSubscribeResult>;
  /** End a subscription of this connection. */
  unsubscribe(params: EventsUnsubscribeParams, options?: Options): Promise<EventsUnsubscribeResult>;
}

/** The daemon itself: whether it serves, what it is, how much it does. */
export interface DaemonMethods<Options> {
  /**
   * Who waits for whom: what processes hold and wait for. Of holders and of those who wait up to 500 of each kind
   * are looked at, and then `more` says so, as it does where those who wait need, or holders have reserved, more
   * than some thousand things in all, of which each shows the first then, and where the answer would be longer than
   * some 1048576 bytes. With `pid` only what has to do with that process: all that it waits for, be it by others,
   * and all who wait for it so. A daemon that only reads knows nobody who waits, and names that a provider keeps
   * have holders here, but nobody who waits. Names that daemons share have their holders at all of these, and those
   * who wait at this one; where their database cannot be reached the rest is answered, and `away` says so.
   */
  graph(params?: DaemonGraphParams, options?: Options): Promise<DaemonGraphResult>;
  /** Ask whether the daemon serves, and for its clock. */
  ping(params?: DaemonPingParams, options?: Options): Promise<DaemonPingResult>;
  /** What this daemon is: version, identity, paths and limits. */
  info(params?: DaemonInfoParams, options?: Options): Promise<DaemonInfoResult>;
  /**
   * Counters since the start, and gauges of this moment. Counters begin at 0 with each start of the daemon, and
   * only go up. A monitoring system that reads them now and then knows what was counted over any time, restarts
   * included. Counters have what this daemon did, be it with names of its own or shared ones, so that those of all
   * daemons can be added. Gauges of what there is have what is in this node's own database: what several daemons
   * share would count once for each.
   */
  stats(params?: DaemonStatsParams, options?: Options): Promise<DaemonStatsResult>;
  /**
   * Say that the database which this one was copied from is gone. `daemon.info` and the log tell of the copy no
   * more. Numbers that the first gave after the copy was made may be given again: raise the counters before, with
   * `sequence.advance`, if it gave any.
   */
  acceptCopy(params?: DaemonAcceptCopyParams, options?: Options): Promise<DaemonAcceptCopyResult>;
  /**
   * Look whether the database is sound. Every row and every entry of an index is read; values have to be of their
   * types, JSON where they are JSON, and names of other rows those of rows; counts have to be those of their rows;
   * the log of the board is replayed, with its hashes and signatures. A call looks at a part of this, in steps
   * beside the calls of others; ask again with `next` until there is none. Nothing is changed. Pages that are free
   * are not looked at.
   */
  check(params?: DaemonCheckParams, options?: Options): Promise<DaemonCheckResult>;
  /**
   * Copy the database to a new file while it is in use. For the user of the daemon and root only. Other calls go on
   * meanwhile; the caller is told how far it is by `daemon.backupProgress`. Closing the connection gives it up. The
   * copy is one moment of the database. The key that signs changes of the board (`identity.key`) is not in it.
   */
  backup(params: DaemonBackupParams, options?: Options): Promise<DaemonBackupResult>;
}

/** The contract itself. */
export interface RpcMethods<Options> {
  /** The OpenRPC document of every method. */
  discover(params?: RpcDiscoverParams, options?: Options): Promise<RpcDiscoverResult>;
  /**
   * End all requests of this connection with an id that still wait, also within a batch. They are answered with
   * `cancelled`, and have been granted nothing. It acts in its place in the order of the requests: one that has
   * been answered by then, or is granted something in the same turn before it, keeps that. A request that is done
   * in steps does not wait, and goes on. The notification `$/cancelRequest` with the same params does the same.
   */
  cancel(params: RpcCancelParams, options?: Options): Promise<RpcCancelResult>;
}

/** Every method that has a noun, by it. */
export interface Methods<Options> {
  /** Numbers per type that only go up, and ids made of them: no two callers ever get the same one. */
  readonly sequence: SequenceMethods<Options>;
  /** Batches of work, each claimed by one owner at a time under a lease with a fencing token. */
  readonly queue: QueueMethods<Options>;
  /**
   * Batches that are enqueued at times: by a cron expression or every so often, each occurrence once. They are
   * claimed as all others.
   */
  readonly schedule: ScheduleMethods<Options>;
  /** Receivers of commands: worker processes, services, agents. */
  readonly deployment: DeploymentMethods<Options>;
  /** Commands that are sent to deployments and delivered until they are answered. */
  readonly command: CommandMethods<Options>;
  /** Names that one holder has at a time, or a few, or many that share them, with tokens that only go up. */
  readonly lease: LeaseMethods<Options>;
  /** Files that are reserved by patterns, for those who edit one tree at a time. */
  readonly path: PathMethods<Options>;
  /** A board of items that move through stages, kept on every node and merged without a coordinator. */
  readonly pipeline: PipelineMethods<Options>;
  /** The other nodes whose changes of the board are accepted. */
  readonly peer: PeerMethods<Options>;
  /** Effects as they happen, for those who follow and must not ask in a loop. */
  readonly events: EventsMethods<Options>;
  /** The daemon itself: whether it serves, what it is, how much it does. */
  readonly daemon: DaemonMethods<Options>;
  /** The contract itself. */
  readonly rpc: RpcMethods<Options>;
}

export type MethodName = keyof CallTypes;
/** The params as a caller sends them. */
export type Params<N extends MethodName> = CallTypes[N]["params"];
/** The result that a caller gets. */
export type Result<N extends MethodName> = CallTypes[N]["result"];
/** What `lease.acquire` takes for several names. */
export type SeveralNames = Params<"lease.acquire"> & { names: string[] };
export type NotificationName = keyof NotificationTypes;
/** The params of a notification. */
export type NotificationParams<N extends NotificationName> = NotificationTypes[N];

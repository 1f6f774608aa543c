import { z } from "zod";
import type { ErrorKind } from "./errors.js";
import { MAX_NAMED_HOLDERS, MAX_PATH_HOLDERS } from "./limits.js";
import { instant, integer, json, named } from "./schemas.js";

// The details of each kind of error: the second half of the table in `errors.ts`, apart from it because clients load
// that one and no schemas. Tests hold every refusal that a daemon gives them against it.

const issues = z
  .array(
    named(
      "Issue",
      "A param that does not fit.",
      z.strictObject({
        path: z.string().meta({ description: "Where it is in the params: a JSON Pointer (RFC 6901)." }),
        message: z.string().meta({ description: "The fault, and what fits." }),
      }),
    ),
  )
  .meta({ description: "Each param that does not fit." });
const said = (description: string) => z.string().optional().meta({ description });
const number = (description: string) => integer.optional().meta({ description });
const reason = said("Why, as a word for programs.");

/** Of a piece of a long text that does not follow those before it. */
const progress = {
  receivedBytes: number("Bytes that are there; where the next piece begins."),
  sizeBytes: number("Bytes of the whole text."),
};
/** The place of a change of the board, as far as its body says it. */
const change = {
  author: said("The author of the change."),
  incarnation: said("The incarnation of its log."),
  seq: number("Its place in its log."),
};

const currentHolder = named(
  "CurrentHolder",
  "The holder of a lease, and for how long.",
  z.strictObject({
    owner: z.string().meta({ description: "A label for people." }),
    expiresAt: instant.meta({
      description: "When it ends unless it is renewed, in milliseconds since the Unix epoch.",
    }),
    remainingMs: integer.meta({ description: "Milliseconds until then." }),
  }),
);

const conflictingHolder = named(
  "ConflictingHolder",
  "A holder of a lease, or of paths, that stands in the way.",
  z.strictObject({
    ...currentHolder.shape,
    pattern: said("Of paths: the first of its patterns that does."),
    mode: said("Of paths: `write` or `read`."),
    note: z
      .string()
      .nullable()
      .optional()
      .meta({ description: "Of paths: the holder's note; null for none." }),
    pid: integer.nullable().optional().meta({
      description: "Of paths: the holder's process, as the kernel told; null if it did not.",
    }),
  }),
);

const waitingProcess = named(
  "CircleStep",
  "One of those who would wait for each other for ever.",
  z.strictObject({
    pid: integer.nullable().meta({ description: "Its process, as the kernel told; null if it did not." }),
    owner: z.string().meta({ description: "A label for people: of what it waits for, or holds." }),
    task: said("What it holds and waits under, if it said so."),
    waitsFor: named(
      "CircleThing",
      "The thing that it waits for, and that the next one has; of the last one, the first.",
      z.strictObject({
        kind: z.enum(["lease", "path", "process"]).meta({
          description: "A lease, paths, or a child process, which is the next one itself.",
        }),
        name: said("Of a lease: its name."),
        root: said("Of paths: the root."),
        pattern: said("Of paths: the pattern by which the next one has them."),
        pid: integer.nullable().optional().meta({ description: "Of a child process: its number." }),
      }),
    ),
  }),
);

/** Of any kind, if the call was part of something larger. */
const place = {
  index: number("Which of several calls or batches was refused, from 0."),
  guard: number("Which guard of a transact does not hold, from 0."),
};

const details = <S extends z.ZodRawShape>(shape: S) => z.strictObject({ ...shape, ...place });

export const ERROR_DETAILS = {
  parse_error: details({}),
  invalid_request: details({
    answered: json.optional().meta({ description: "The id of an answer that answers no request." }),
  }),
  method_not_found: details({ closest: said("A method whose name is close.") }),
  invalid_params: details({
    issues,
    ...progress,
    named: number("Batches, changes and items that a transact names."),
    most: number("How many it may name."),
  }),
  internal: details({ reference: z.string().meta({ description: "Finds the line in the daemon's log." }) }),
  unavailable: details({
    reason,
    pid: integer
      .nullable()
      .optional()
      .meta({ description: "The process that has locked the database; null where that is not known." }),
  }),
  read_only: details({ method: z.string().meta({ description: "The method that writes." }) }),
  message_too_large: details({}),
  forbidden: details({
    uid: integer.nullable().optional().meta({ description: "The user of the caller." }),
    gid: integer.nullable().optional().meta({ description: "The group of the caller." }),
    path: said("The file that may not be written."),
  }),
  cancelled: details({}),
  not_found: details({
    what: z.string().meta({ description: "The kind of thing that does not exist." }),
    batchId: said("The batch."),
    queue: said("The queue that has no such sourceKey."),
    schedule: said("The schedule."),
    sourceKey: said("The key that no batch there has."),
    commandId: said("The command."),
    state: said("Where the command stands."),
    ...progress,
  }),
  conflict: details({
    queue: said("The queue of the batch."),
    sourceKey: said("The key that was used before."),
    requestId: said("The key that was used before."),
    idempotencyKey: said("The key that was used before."),
    path: said("The file that is there."),
    first: json.optional().meta({ description: "The content that the key stands for." }),
    now: json.optional().meta({ description: "The content of this request." }),
  }),
  lease_held: details({
    holder: currentHolder.meta({ description: "The first of the holders." }),
    holders: z
      .array(conflictingHolder)
      .max(MAX_PATH_HOLDERS)
      .meta({
        description: `The holders, the earliest first, up to ${MAX_NAMED_HOLDERS}, of paths up to ${MAX_PATH_HOLDERS}; none where others come first.`,
      }),
    name: said("Which of several names is held."),
  }),
  claim_lost: details({ claimId: said("The claim.") }),
  lease_lost: details({
    reason,
    name: said("The name that the lease is for."),
    fencingToken: number("The token that does not hold."),
    highest: number("The highest token granted for the name."),
    commandId: said("The command that was leased."),
    state: said("Where the command stands."),
    attempt: number("The number of its present delivery."),
    message: said("The words of whoever cancelled the command."),
  }),
  invalid_state: details({
    from: json.meta({ description: "The state of this moment." }),
    to: json.meta({ description: "The state that cannot follow it." }),
    batchId: said("The batch."),
    commandId: said("The command."),
    state: said("Where the command stands."),
    ...progress,
  }),
  exhausted: details({
    queue: said("The queue that has no room."),
    waiting: number("How many of its batches wait."),
    maxWaiting: number("How many of them may."),
    batchId: said("The batch that takes no more payloads."),
    payloads: number("How many payloads it has."),
    most: number("How many it may have."),
    mostBytes: number("How many bytes they may have."),
    limit: number("How many there may be."),
    limitBytes: number("How many bytes there may be."),
    name: said("The name whose tokens are used up."),
    highest: number("The highest token of the name."),
    type: said("The type whose numbers are used up."),
    last: number("The last number of the type."),
    left: number("How many numbers of the type are left."),
  }),
  provider_unavailable: details({
    provider: z.string().meta({ description: "The kind of the provider." }),
    reason,
    table: said("The table of the provider."),
  }),
  would_deadlock: details({
    cycle: z.array(waitingProcess).min(2).meta({
      description: "The circle: first the caller, then whom it would wait for, and so on back to it.",
    }),
  }),
  too_large: details(change),
  not_json: details(change),
  not_canonical: details(change),
  bad_value: details(change),
  bad_shape: details(change),
  unsupported_version: details(change),
  wrong_board: details({
    ...change,
    board: z.string().nullable().optional().meta({ description: "The board of this node." }),
    peer: said("The board of the peer."),
  }),
  unknown_author: details(change),
  revoked_author: details(change),
  bad_signature: details(change),
  missing_prev: details(change),
  bad_chain: details(change),
  clock_not_monotonic: details(change),
  clock_ahead: details({
    ...change,
    retryMs: number("When to offer the change again, in milliseconds from now."),
  }),
  bad_story_id: details(change),
  bad_generation: details(change),
  bad_field: details(change),
  weak_key: details({}),
  duplicate_key: details({ name: said("The peer that has the key.") }),
  key_mode: details({}),
  key_unreadable: details({ author: said("The author whose key is missing.") }),
  log_corrupt: details({ changeId: said("The damaged change.") }),
} satisfies Record<ErrorKind, z.ZodObject>;

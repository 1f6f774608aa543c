import { z } from "zod";
import { deployment, model, name, projectId } from "./deployment.js";
import {
  DEFAULT_COMMAND_ATTEMPTS,
  DEFAULT_PUSH_EXECUTION_MS,
  MAX_ANSWER_CODE_LENGTH,
  MAX_COMMAND_ATTEMPTS,
  MAX_COMMAND_DELAY_MS,
  MAX_COMMAND_TTL_MS,
  MAX_EXECUTION_MS,
  MAX_LEASED_COMMANDS,
  MAX_NAME_LENGTH,
  MAX_NOTE_LENGTH,
  MAX_PARAMS_PIECE_BYTES,
  MAX_SERVED_COMMANDS,
  MAX_TARGETS,
  MAX_UPLOAD_BYTES,
} from "./limits.js";
import { method, notification, noun } from "./method.js";
import { checkpoint, note, percent, progress, trace } from "./queue.js";
import {
  duration,
  graceMs,
  instant,
  integer,
  json,
  label,
  leaseMs,
  limit,
  named,
  releaseOn,
  retry,
  text,
  waitMs,
} from "./schemas.js";
import { COMMAND_STATES } from "./values.js";

/** The kind of the envelope. */
const ENVELOPE_PROTOCOL = "arc.v1";

const state = z.enum(COMMAND_STATES).meta({ description: "Where the command stands." });
const commandId = label.meta({ description: "cmd_ and a UUID of version 7, so that ids sort by time." });
const leaseId = label.meta({ description: "Secret. Whoever has it can answer, renew and release." });
const owner = label.meta({ description: "A label for people. It proves nothing; the leaseId does." });
const attempt = integer.min(1).meta({
  description: "1 at first; goes up each time a delivery ends without an answer.",
});
const sizeBytes = integer.meta({ description: "Bytes of the JSON text, in UTF-8." });
const executionMs = z.int().min(1).max(MAX_EXECUTION_MS);
const base64 = z.string().meta({ description: "Base64.", contentEncoding: "base64" });
const commandName = name.meta({ description: "The thing to be done, in the words of the receiver." });
const target = z
  .string()
  .max(MAX_NAME_LENGTH)
  .regex(/^[A-Za-z0-9._/-]*$/, "must be letters, digits, or any of . _ / -")
  .meta({ description: "A resource within the deployment; empty for none." });
const targets = z
  .array(name)
  .min(1)
  .max(MAX_TARGETS)
  .optional()
  .meta({ description: "The targets whose commands are taken; those of all if not given." });
const incarnation = label.meta({
  description: "One receiver, by a name that no other ever has, as a UUID.",
});
const receiverIncarnation = incarnation.optional().meta({
  description:
    "The receiver, by a name that no other ever has: it is given the commands that are for it alone, and those for any. It lives while a connection that named it is open or a delivery to it lasts, and after a restart of the daemon for 5 s; one that has ended is refused with `invalid_state`.",
});
const inMilliseconds = "in milliseconds since the Unix epoch";
const leaseExpiresAt = instant.meta({ description: `When it ends unless it is renewed, ${inMilliseconds}.` });
const remainingMs = duration.meta({ description: "Milliseconds until then." });

const renewed = z.strictObject({
  leaseExpiresAt,
  remainingMs,
  cancelling: z
    .boolean()
    .meta({ description: "True if it is to be stopped: always false, since a cancel ends it." }),
});

const command = named(
  "Command",
  "A command as the registry has it, without its params and its answer.",
  z.strictObject({
    commandId,
    deployment,
    target,
    incarnation: incarnation.optional().meta({ description: "The one receiver that it is for, if it is." }),
    command: commandName,
    projectId: projectId
      .nullable()
      .meta({ description: "The project that its deployment belongs to; null for none." }),
    deploymentModel: model,
    state,
    attempt,
    maxAttempts: integer.meta({
      description: "Deliveries without an answer after which it is FAILED; 0 for no limit.",
    }),
    deadline: instant.nullable().meta({
      description: `When it becomes EXPIRED unless it is answered, ${inMilliseconds}; null for never.`,
    }),
    executionMs: duration.nullable().meta({
      description: "How long one delivery may take; null if the command says nothing.",
    }),
    createdAt: instant.meta({ description: `When it was sent, ${inMilliseconds}.` }),
    dispatchedAt: instant.nullable().meta({ description: "When it was last handed to a receiver." }),
    completedAt: instant
      .nullable()
      .meta({ description: `When it became final, ${inMilliseconds}; null until then.` }),
    requestSizeBytes: sizeBytes.meta({ description: "Bytes of its params as JSON text, in UTF-8." }),
    responseSizeBytes: sizeBytes
      .nullable()
      .meta({ description: "Bytes of its answer as JSON text, in UTF-8; null without one." }),
    error: named(
      "CommandFailure",
      "Why a command failed.",
      z.strictObject({
        code: z.string().meta({ description: "The kind of the error, for programs to match on." }),
        message: z.string().meta({ description: "A sentence for people." }),
        details: json.optional().meta({ description: "Any JSON value of its receiver." }),
      }),
    )
      .nullable()
      .meta({
        description:
          "Why it is FAILED or EXPIRED: the beginning of the message, and the details of its receiver, which a list leaves out. command.response has the whole.",
      }),
    progress: progress.optional(),
    trace: trace.optional(),
    lease: named(
      "CommandHolder",
      "The holder of a command, while it is DISPATCHED.",
      z.strictObject({
        owner,
        pid: integer.nullable().meta({ description: "The receiver's process, as the kernel told." }),
        expiresAt: instant.nullable().meta({
          description:
            "When it ends unless it is renewed; of a push, which cannot be renewed, at the latest.",
        }),
        remainingMs: duration.nullable().meta({ description: "Milliseconds until then." }),
      }),
    ).optional(),
  }),
);
export type Command = z.infer<typeof command>;

/** The envelope, as a receiver gets it. */
const envelopeOf = z.strictObject({
  protocol: z.literal(ENVELOPE_PROTOCOL).meta({ description: "The kind of the envelope." }),
  commandId,
  deployment,
  target,
  command: commandName,
  attempt,
  deadline: instant
    .nullable()
    .meta({ description: `When the command becomes EXPIRED, ${inMilliseconds}; null for never.` }),
  executionMs: duration.nullable().meta({
    description: "How long this delivery lasts at most, whatever is renewed; null for no limit.",
  }),
  params: json.meta({
    description:
      "Any JSON value. Parameters that were uploaded and are larger than `inlineMaxBytes` are {$upload: {sizeBytes}}, to be read with command.params.",
  }),
  checkpoint: checkpoint.optional(),
  trace: trace.optional(),
});
const envelope = named("Envelope", "A command as its receiver gets it.", envelopeOf);
export type Envelope = z.infer<typeof envelope>;

const status = { description: "True if the command succeeded." };
const response = named(
  "CommandResponse",
  "The answer to a command.",
  z.discriminatedUnion("status", [
    named(
      "CommandSuccess",
      "The command was carried out.",
      z.strictObject({
        status: z.literal("success").meta(status),
        response: json.optional().meta({ description: "The answer: any JSON value, null if not given." }),
      }),
    ),
    named(
      "CommandRefusal",
      "The command was not carried out, or failed.",
      z.strictObject({
        status: z.literal("error").meta(status),
        code: text
          .min(1)
          .max(MAX_ANSWER_CODE_LENGTH)
          .meta({ description: "The kind of the error, for programs to match on." }),
        message: z.string().meta({ description: "A sentence for people." }),
        details: json.optional().meta({ description: "Any JSON value." }),
      }),
    ),
  ]),
);
/** An answer, or an error: `{status: "success", response}` or `{status: "error", code, message, details?}`. */
export type CommandResponse = z.infer<typeof response>;

/** Stands for a text that is read in pieces. */
const largeText = named(
  "LargeText",
  "Stands for a JSON text that is read in pieces.",
  z.strictObject({
    $upload: named("TextSize", "How long a text is.", z.strictObject({ sizeBytes })),
  }),
);

// The example of each method is a step of one story, in the order of the methods.
const BUILD_ID = "cmd_01977a6e-5c00-7000-8000-000000000000";
const LARGE_ID = "cmd_01977a6e-5c01-7000-8000-000000000000";
const TEST_ID = "cmd_01977a6e-5c02-7000-8000-000000000000";
const BUILD_LEASE_ID = `cml:${BUILD_ID}:1:secret`;
const build: z.output<typeof command> = {
  commandId: BUILD_ID,
  deployment: "builder",
  target: "",
  command: "build",
  projectId: null,
  deploymentModel: "pull",
  state: "SUCCEEDED",
  attempt: 1,
  maxAttempts: 20,
  deadline: null,
  executionMs: null,
  createdAt: 1_750_000_000_000,
  dispatchedAt: 1_750_000_001_000,
  completedAt: 1_750_000_009_000,
  requestSizeBytes: 14,
  responseSizeBytes: 1,
  error: null,
  progress: { percent: 50, note: "linking" },
};
const buildEnvelope: z.output<typeof envelope> = {
  protocol: ENVELOPE_PROTOCOL,
  commandId: BUILD_ID,
  deployment: "builder",
  target: "",
  command: "build",
  attempt: 1,
  deadline: null,
  executionMs: null,
  params: { ref: "main" },
};

export const COMMAND = noun("command", {
  description: "Commands that are sent to deployments and delivered until they are answered.",
  methods: {
    create: method({
      summary: "Send a command to a deployment, whose receivers need not be there",
      description:
        "With an idempotencyKey, the first command with the same deployment, target, command and key is returned if its content (params, or the size announced for them, maxAttempts, executionMs, retry and incarnation, as they were given) is the same; otherwise `first` and `now` of the `conflict` have what differs, null where it was not given, and of params the size. A deadline that has passed gives a command that is EXPIRED.",
      params: z.strictObject({
        deployment,
        command: commandName,
        target: target.default(""),
        params: json.optional().meta({
          description: "Any JSON value up to `inlineMaxBytes` as JSON; null if not given.",
        }),
        deadline: instant.optional().meta({ description: "When it becomes EXPIRED unless it is answered." }),
        ttlMs: z.int().min(1).max(MAX_COMMAND_TTL_MS).optional().meta({
          description: "The deadline, counted from now. Not both.",
        }),
        idempotencyKey: label.optional().meta({
          description:
            "Makes a retry safe: the same deployment, target, command and key is the same command.",
        }),
        executionMs: executionMs.optional().meta({
          description:
            "How long one delivery may take: past it the delivery ends as if its lease had, whatever is renewed.",
        }),
        maxAttempts: z
          .int()
          .min(0)
          .max(MAX_COMMAND_ATTEMPTS)
          .optional()
          .meta({
            description: `After so many deliveries without an answer it is FAILED, 0 for no limit; ${DEFAULT_COMMAND_ATTEMPTS} if not given.`,
          }),
        retry: retry.optional().meta({
          description:
            "Between two deliveries the command rests for `baseMs * factor^(n - 1)`, at most `maxMs`, n being the number of the one that ended unanswered. The first that ends by itself, by its time or with its connection, lets it not rest. If not given, it never rests.",
        }),
        incarnation: incarnation.optional().meta({
          description:
            "The one receiver that it is for: the one that names itself so. When that has ended the command is FAILED with GONE; one that was never seen is waited for.",
        }),
        trace: trace.optional(),
        upload: named(
          "UploadAnnouncement",
          "Announces params that come by command.upload.",
          z.strictObject({
            sizeBytes: z
              .int()
              .min(1)
              .max(MAX_UPLOAD_BYTES)
              .meta({ description: "Bytes of their JSON text, in UTF-8." }),
          }),
        ).optional(),
      }),
      result: z.strictObject({
        commandId,
        state,
        deploymentModel: model,
        projectId: projectId
          .nullable()
          .meta({ description: "The project that its deployment belongs to; null for none." }),
        created: z
          .boolean()
          .meta({ description: "False if the idempotencyKey was there with this content." }),
        inlineMaxBytes: integer.meta({
          description: "Bytes of JSON that params and answers may have without being sent in pieces.",
        }),
        next: z.enum(["wait", "upload"]).meta({
          description: "The next step: command.wait for it, or command.upload its params.",
        }),
      }),
      writes: true,
      repeatable: { withKey: "idempotencyKey" },
      transactable: true,
      raw: [["params"]],
      errors: ["conflict"],
      examples: [
        {
          name: "A build",
          params: { deployment: "builder", command: "build", params: { ref: "main" } },
          result: {
            commandId: BUILD_ID,
            state: "PENDING",
            deploymentModel: "pull",
            projectId: null,
            created: true,
            inlineMaxBytes: 150_000,
            next: "wait",
          },
        },
        {
          name: "One whose params come in pieces",
          params: { deployment: "builder", command: "import", upload: { sizeBytes: 9 } },
          result: {
            commandId: LARGE_ID,
            state: "PENDING_UPLOAD",
            deploymentModel: "pull",
            projectId: null,
            created: true,
            inlineMaxBytes: 150_000,
            next: "upload",
          },
        },
      ],
    }),

    upload: method({
      summary: "Add a piece to the params of a command, in order",
      description:
        "`offset` is where the piece begins: `receivedBytes` of the answer before, and of a refusal's details. A piece that is refused leaves nothing behind. The last one has `final`, and then the params are complete and the command is PENDING; that same piece again, from a sender who lost the answer, changes nothing and is answered with the state by now. An upload that does not end within a day is EXPIRED.",
      params: z.strictObject({
        commandId,
        offset: integer.meta({ description: "Where the piece begins, in bytes." }),
        chunk: base64.meta({ description: "The piece, as base64." }),
        final: z.boolean().default(false).meta({ description: "True of the last piece." }),
      }),
      result: z.strictObject({
        receivedBytes: integer.meta({ description: "Bytes that are there; where the next piece begins." }),
        state,
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found", "invalid_state"],
      examples: [
        {
          name: "The only piece of a short one",
          params: { commandId: LARGE_ID, offset: 0, chunk: "eyJhIjoxMjN9", final: true },
          result: { receivedBytes: 9, state: "PENDING" },
        },
      ],
    }),

    lease: method({
      summary: "Take commands of a deployment to carry out, or wait for one",
      description:
        "One that names its incarnation is given those that are for it alone first. An answer has no more params and checkpoints than some MiB, and so perhaps fewer commands than `max`.",
      params: z
        .strictObject({
          deployment,
          owner,
          incarnation: receiverIncarnation,
          targets,
          max: z
            .int()
            .min(1)
            .max(MAX_LEASED_COMMANDS)
            .default(1)
            .meta({ description: "Most commands to take." }),
          leaseMs,
          waitMs,
          releaseOn,
          graceMs,
        })
        .refine(({ releaseOn: ends, graceMs: grace }) => grace === 0 || ends === "disconnect", {
          error: "is for a lease that ends with its connection: give releaseOn: disconnect with it",
          path: ["graceMs"],
        }),
      result: z.strictObject({
        leases: z
          .array(
            named(
              "CommandLease",
              "A delivery: a command that one receiver carries out.",
              z.strictObject({ leaseId, leaseExpiresAt, remainingMs, commandId, attempt, envelope }),
            ),
          )
          .meta({ description: "Empty if there was nothing to take." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["invalid_state"],
      examples: [
        {
          name: "The build",
          params: { deployment: "builder", owner: "builder-1", leaseMs: 30_000 },
          result: {
            leases: [
              {
                leaseId: BUILD_LEASE_ID,
                leaseExpiresAt: 1_750_000_031_000,
                remainingMs: 30_000,
                commandId: BUILD_ID,
                attempt: 1,
                envelope: buildEnvelope,
              },
            ],
          },
        },
      ],
    }),

    renew: method({
      summary: "Keep a command for longer",
      description:
        "No lease outlives the deadline of its command, nor its `executionMs`; then that is what is reported. With `lease_lost`, stop: details say what became of the command ({commandId, state, reason}), and for a cancelled one the words of whoever cancelled it.",
      params: z.strictObject({
        leaseId,
        leaseMs: leaseMs
          .unwrap()
          .optional()
          .meta({ description: "How long from now on; as long as it was leased for if it is not given." }),
      }),
      result: renewed,
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["lease_lost"],
      examples: [
        {
          name: "A minute more",
          params: { leaseId: BUILD_LEASE_ID, leaseMs: 60_000 },
          result: { leaseExpiresAt: 1_750_000_068_000, remainingMs: 60_000, cancelling: false },
        },
      ],
    }),

    progress: method({
      summary: "Say how far a command has come, and keep it for longer",
      description:
        "The command shows what was given; what was not given stays as it was. The next delivery is given the checkpoint, and begins with no progress. A push is not prolonged: what remains of it is answered.",
      params: z.strictObject({
        leaseId,
        percent: percent.optional(),
        note: note.optional(),
        checkpoint: checkpoint.optional(),
      }),
      result: renewed,
      raw: [["checkpoint"]],
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["lease_lost"],
      examples: [
        {
          name: "Half of it is done",
          params: { leaseId: BUILD_LEASE_ID, percent: 50, note: "linking", checkpoint: { object: 17 } },
          result: { leaseExpiresAt: 1_750_000_038_000, remainingMs: 30_000, cancelling: false },
        },
      ],
    }),

    release: method({
      summary: "Give a command back unanswered, for another delivery",
      params: z.strictObject({
        leaseId,
        delayMs: z.int().min(0).max(MAX_COMMAND_DELAY_MS).optional().meta({
          description:
            "How long nobody gets it. If not given, as `retry` of the command says, else not at all.",
        }),
      }),
      result: z.strictObject({ state, attempt }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["lease_lost", "invalid_state"],
      examples: [
        {
          name: "The import, which comes later",
          params: { leaseId: `cml:${LARGE_ID}:1:secret`, delayMs: 60_000 },
          result: { state: "PENDING", attempt: 2 },
        },
      ],
    }),

    respond: method({
      summary: "Answer a command; the first answer with the live lease wins",
      description:
        "`accepted: false` for a command that is final already. An answer whose delivery has ended otherwise than by command.release is accepted as long as no other came after it. `lease_lost` when another delivery is under way, `invalid_state` when none is that could be answered.",
      params: z.strictObject({ commandId, leaseId, response }),
      result: z.strictObject({
        state,
        accepted: z.boolean().meta({ description: "False if the command was final already." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      raw: [["response"]],
      errors: ["not_found", "lease_lost", "invalid_state"],
      examples: [
        {
          name: "The build is done",
          params: {
            commandId: BUILD_ID,
            leaseId: BUILD_LEASE_ID,
            response: { status: "success", response: 1 },
          },
          result: { state: "SUCCEEDED", accepted: true },
        },
      ],
    }),

    answer: method({
      summary: "Add a piece to an answer that is too long for a line, in order; the last one is the answer",
      description:
        "The bytes are the JSON text of `response` as command.respond takes it, `sizeBytes` of them. `offset` is where the piece begins: `receivedBytes` of the answer before, and of a refusal's details. A piece that is refused leaves nothing behind; the last one, again, is answered alike. Pieces belong to a delivery: another one begins anew. The JSON-RPC response to a command.execute that was answered so is ignored.",
      params: z.strictObject({
        commandId,
        leaseId,
        offset: integer.meta({ description: "Where the piece begins, in bytes." }),
        chunk: base64.meta({ description: "The piece, as base64." }),
        sizeBytes: sizeBytes
          .min(1)
          .max(MAX_UPLOAD_BYTES)
          .meta({ description: "Bytes of the whole answer as JSON text, in UTF-8." }),
        final: z.boolean().default(false).meta({ description: "True of the last piece." }),
      }),
      result: z.strictObject({
        receivedBytes: integer.meta({ description: "Bytes that are there; where the next piece begins." }),
        state,
        accepted: z.boolean().optional().meta({
          description:
            "Of the last piece, and for a command that is final already: as command.respond says it.",
        }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found", "lease_lost", "invalid_state"],
      examples: [
        {
          name: "The only piece of a short one",
          params: {
            commandId: TEST_ID,
            leaseId: `cml:${TEST_ID}:1:secret`,
            offset: 0,
            chunk: "eyJzdGF0dXMiOiJzdWNjZXNzIiwicmVzcG9uc2UiOjF9",
            final: true,
            sizeBytes: 33,
          },
          result: { receivedBytes: 33, state: "SUCCEEDED", accepted: true },
        },
      ],
    }),

    get: method({
      summary: "A command, without its params and its answer",
      params: z.strictObject({ commandId }),
      result: command,
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [{ name: "A build that is done", params: { commandId: BUILD_ID }, result: build }],
    }),

    params: method({
      summary: "The params of a command, in pieces of their JSON text",
      params: z.strictObject({
        commandId,
        offset: integer.default(0).meta({ description: "Where the piece begins, in bytes." }),
        length: z
          .int()
          .min(1)
          .max(MAX_PARAMS_PIECE_BYTES)
          .default(MAX_PARAMS_PIECE_BYTES)
          .meta({ description: "Most bytes of the piece." }),
      }),
      result: z.strictObject({
        chunk: base64.meta({
          description:
            "At most `length` bytes of the text from `offset` on. It may hold fewer; at the end it is empty.",
        }),
        offset: integer.meta({ description: "Where the piece begins, in bytes." }),
        sizeBytes,
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [
        {
          name: "All of short ones",
          params: { commandId: BUILD_ID },
          result: { chunk: "eyJyZWYiOiJtYWluIn0=", offset: 0, sizeBytes: 14 },
        },
      ],
    }),

    response: method({
      summary: "The answer to a command; null until it is final",
      description:
        "A command that became final without an answer has an error in its place: CANCELLED, ATTEMPTS_EXHAUSTED, GONE or EXPIRED. A large answer that came in pieces is {$upload: {sizeBytes}}: read its JSON text with `offset` and `length`.",
      params: z.strictObject({
        commandId,
        offset: integer.optional().meta({ description: "With it, or `length`, a piece is read." }),
        length: z
          .int()
          .min(1)
          .max(MAX_PARAMS_PIECE_BYTES)
          .optional()
          .meta({ description: "Most bytes of the piece." }),
      }),
      result: z.strictObject({
        response: z
          .union([response, largeText])
          .nullable()
          .meta({ description: "The answer, how long it is if it is large, or null." }),
        chunk: base64.optional().meta({
          description:
            "If a piece was asked for: at most `length` bytes of the text of `response` from `offset` on. It may hold fewer; at the end it is empty.",
        }),
        offset: integer.optional().meta({ description: "Where the piece begins, in bytes." }),
        sizeBytes: sizeBytes.optional(),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [
        {
          name: "Of a build",
          params: { commandId: BUILD_ID },
          result: { response: { status: "success", response: 1 } },
        },
      ],
    }),

    wait: method({
      summary: "A command once it is final, or as it is when the wait ends",
      params: z.strictObject({ commandId, waitMs }),
      result: command,
      writes: false,
      repeatable: true,
      transactable: false,
      errors: ["not_found"],
      examples: [
        { name: "For up to a minute", params: { commandId: BUILD_ID, waitMs: 60_000 }, result: build },
      ],
    }),

    list: method({
      summary: "Commands, newest first",
      description:
        "A page looks at up to 1,000 commands, and may be short of `limit`, or empty, with `next`.",
      params: z.strictObject({
        deployment: deployment.optional().meta({ description: "Only those that were sent to it." }),
        target: target.optional().meta({ description: "Only those of this target." }),
        command: commandName.optional().meta({ description: "Only those of this name." }),
        state: state.optional().meta({ description: "Only those in this state." }),
        projectId: projectId.optional().meta({ description: "Only those of deployments of this project." }),
        createdAfter: instant.optional().meta({ description: "Only those created at this time or later." }),
        createdBefore: instant.optional().meta({ description: "Only those created before this time." }),
        limit,
        after: commandId.optional().meta({ description: "`next` of the page before: the last id on it." }),
      }),
      result: z.strictObject({
        commands: z.array(command).meta({ description: "Newest first." }),
        next: commandId.optional().meta({ description: "There are more: ask again with it as `after`." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "Those that succeeded",
          params: { deployment: "builder", state: "SUCCEEDED" },
          result: { commands: [build] },
        },
      ],
    }),

    cancel: method({
      summary:
        "End a command as FAILED with the code CANCELLED, and tell its receiver; a final one stays as it is",
      params: z.strictObject({
        commandId,
        reason: text.min(1).max(MAX_NOTE_LENGTH).optional().meta({ description: "Told to the receiver." }),
      }),
      result: z.strictObject({ state }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
      examples: [
        {
          name: "An import that nobody needs",
          params: { commandId: LARGE_ID, reason: "sent by mistake" },
          result: { state: "FAILED" },
        },
      ],
    }),

    serve: method({
      summary: "Have the commands of a deployment sent to this connection as requests",
      description:
        "From then on the daemon sends `command.execute` requests on this connection; the JSON-RPC response to each is the answer to the command. Again for the same deployment changes owner and max; with max 0 nothing more is sent. It ends with the connection. Past `executionMs` a delivery ends, and the connection is told by command.cancelled; until it has answered that counts against max.",
      params: z.strictObject({
        deployment,
        owner,
        incarnation: receiverIncarnation,
        targets,
        max: z.int().min(0).max(MAX_SERVED_COMMANDS).default(1).meta({
          description:
            "How many it may have at a time. One that was cancelled or has expired counts no more once command.cancelled is sent, whether or not it is answered.",
        }),
        executionMs: executionMs.default(DEFAULT_PUSH_EXECUTION_MS).meta({
          description: "How long one delivery of a command that says nothing of it may take.",
        }),
      }),
      result: z.strictObject({ deployment }),
      writes: true,
      repeatable: false,
      transactable: false,
      errors: ["exhausted", "invalid_state"],
      examples: [
        {
          name: "Two at a time, each for up to an hour",
          params: { deployment: "builder", owner: "builder-1", max: 2, executionMs: 3_600_000 },
          result: { deployment: "builder" },
        },
      ],
    }),
  },
  requests: {
    /** A request of the daemon to a connection that serves; `result` or `error` of the response is the answer. */
    execute: method({
      summary: "Carry out a command",
      description:
        "`result` makes the command SUCCEEDED with it. `error` makes it FAILED: its code is `data.code` if that is a string, with `data.details`; else the number, with `data`.",
      params: z.strictObject({ leaseId, ...envelopeOf.shape }),
      result: json,
      writes: true,
      repeatable: false,
      transactable: false,
      errors: [],
      examples: [
        {
          name: "A build",
          params: { ...buildEnvelope, leaseId: BUILD_LEASE_ID },
          result: 1,
        },
      ],
    }),
  },
  notifications: {
    /** Sent when a command ended while this connection had it by push; it then has room for another. */
    cancelled: notification({
      summary: "A command that this connection carries out has been cancelled or has expired: stop",
      params: z.strictObject({
        commandId,
        reason: z.string().nullable().meta({
          description:
            "In the words of whoever cancelled it; EXPIRED for a deadline that has passed; EXECUTION_TIME for a delivery that took longer than it may, or whose daemon was cut off from the database of shared names, and may be answered late.",
        }),
      }),
      example: {
        name: "By hand",
        params: { commandId: BUILD_ID, reason: "sent by mistake" },
      },
    }),
  },
});

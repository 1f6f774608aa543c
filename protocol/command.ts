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
  MAX_NOTE_LENGTH,
  MAX_PARAMS_PIECE_BYTES,
  MAX_SERVED_COMMANDS,
  MAX_UPLOAD_BYTES,
} from "./limits.js";
import { method, notification, noun } from "./method.js";
import {
  duration,
  instant,
  integer,
  json,
  label,
  leaseMs,
  limit,
  releaseOn,
  text,
  waitMs,
} from "./schemas.js";

/** The states of a command, in the order in which it can come through them; the last three are final. */
export const COMMAND_STATES = [
  "PENDING_UPLOAD",
  "PENDING",
  "DISPATCHED",
  "SUCCEEDED",
  "FAILED",
  "EXPIRED",
] as const;
export type CommandState = (typeof COMMAND_STATES)[number];

/** The kind of the envelope. */
const ENVELOPE_PROTOCOL = "arc.v1";

const state = z.enum(COMMAND_STATES);
const commandId = label.meta({ description: "cmd_ and a UUID of version 7, so that ids sort by time." });
const leaseId = label.meta({ description: "Secret. Whoever has it can answer, renew and release." });
const owner = label.meta({ description: "A label for people. It proves nothing; the leaseId does." });
const attempt = integer.min(1).meta({
  description: "1 at first; goes up each time a delivery ends without an answer.",
});
const sizeBytes = integer.meta({ description: "Bytes of the JSON text, in UTF-8." });
const executionMs = z.int().min(1).max(MAX_EXECUTION_MS);
const base64 = z.string().meta({ description: "Base64.", contentEncoding: "base64" });

const command = z.strictObject({
  commandId,
  deployment,
  command: name,
  projectId: projectId.nullable(),
  deploymentModel: model,
  state,
  attempt,
  maxAttempts: integer.meta({ description: "0 for no limit." }),
  deadline: instant.nullable(),
  executionMs: duration.nullable().meta({
    description: "How long one delivery may take; null if the command says nothing.",
  }),
  createdAt: instant,
  dispatchedAt: instant.nullable().meta({ description: "When it was last handed to a receiver." }),
  completedAt: instant.nullable(),
  requestSizeBytes: sizeBytes,
  responseSizeBytes: sizeBytes.nullable(),
  error: z.strictObject({ code: z.string(), message: z.string(), details: json.optional() }).nullable().meta({
    description:
      "Why it is FAILED or EXPIRED: the beginning of the message, and the details of its receiver, which a list leaves out. command.response has the whole.",
  }),
  lease: z
    .strictObject({
      owner,
      pid: integer.nullable().meta({ description: "The receiver's process, as the kernel told." }),
      expiresAt: instant.nullable().meta({
        description: "When it ends unless it is renewed; of a push, which cannot be renewed, at the latest.",
      }),
      remainingMs: duration.nullable(),
    })
    .optional()
    .meta({ description: "Who has it, while it is DISPATCHED." }),
});
export type Command = z.infer<typeof command>;

/** The envelope, as a receiver gets it. */
const envelope = z.strictObject({
  protocol: z.literal(ENVELOPE_PROTOCOL),
  commandId,
  deployment,
  command: name,
  attempt,
  deadline: instant.nullable(),
  executionMs: duration.nullable().meta({
    description: "How long this delivery lasts at most, whatever is renewed; null for no limit.",
  }),
  params: json.meta({
    description:
      "Any JSON value. Parameters that were uploaded and are larger than `inlineMaxBytes` are {$upload: {sizeBytes}}, to be read with command.params.",
  }),
});
export type Envelope = z.infer<typeof envelope>;

const response = z.discriminatedUnion("status", [
  z.strictObject({ status: z.literal("success"), response: json.optional() }),
  z.strictObject({
    status: z.literal("error"),
    code: text.min(1).max(MAX_ANSWER_CODE_LENGTH).meta({ description: "What programs match on." }),
    message: z.string(),
    details: json.optional(),
  }),
]);
/** An answer, or an error: `{status: "success", response}` or `{status: "error", code, message, details?}`. */
export type CommandResponse = z.infer<typeof response>;

/** Stands for a text that is read in pieces. */
const largeText = z.strictObject({ $upload: z.strictObject({ sizeBytes }) });

export const COMMAND = noun("command", {
  methods: {
    create: method({
      summary: "Send a command to a deployment, whose receivers need not be there",
      description:
        "With an idempotencyKey, the first command with the same deployment, command and key is returned if its content (params, or the size announced for them, maxAttempts and executionMs, as they were given) is the same. A deadline that has passed gives a command that is EXPIRED.",
      params: z.strictObject({
        deployment,
        command: name,
        params: json.optional().meta({
          description: "Any JSON value up to `inlineMaxBytes` as JSON; null if not given.",
        }),
        deadline: instant.optional().meta({ description: "When it becomes EXPIRED unless it is answered." }),
        ttlMs: z.int().min(1).max(MAX_COMMAND_TTL_MS).optional().meta({
          description: "The deadline, counted from now. Not both.",
        }),
        idempotencyKey: label.optional(),
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
        upload: z
          .strictObject({ sizeBytes: z.int().min(1).max(MAX_UPLOAD_BYTES) })
          .optional()
          .meta({ description: "Announces params that come by command.upload." }),
      }),
      result: z.strictObject({
        commandId,
        state,
        deploymentModel: model,
        projectId: projectId.nullable(),
        created: z.boolean(),
        inlineMaxBytes: integer,
        next: z.enum(["wait", "upload"]).meta({
          description: "What to do now: command.wait for it, or command.upload its params.",
        }),
      }),
      writes: true,
      repeatable: { withKey: "idempotencyKey" },
      transactable: true,
      raw: ["params"],
      errors: ["conflict"],
    }),

    upload: method({
      summary: "Add a piece to the params of a command, in order",
      description:
        "`offset` is where the piece begins: `receivedBytes` of the answer before, and of a refusal's details. A piece that is refused leaves nothing behind. The last one has `final`, and then the params are complete and the command is PENDING; that same piece again, from a sender who lost the answer, changes nothing and is answered with the state by now. An upload that does not end within a day is EXPIRED.",
      params: z.strictObject({
        commandId,
        offset: integer,
        chunk: base64,
        final: z.boolean().default(false),
      }),
      result: z.strictObject({ receivedBytes: integer, state }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["not_found", "invalid_state"],
    }),

    lease: method({
      summary: "Take commands of a deployment to carry out, or wait for one",
      params: z.strictObject({
        deployment,
        owner,
        max: z.int().min(1).max(MAX_LEASED_COMMANDS).default(1),
        leaseMs,
        waitMs,
        releaseOn,
      }),
      result: z.strictObject({
        leases: z.array(
          z.strictObject({
            leaseId,
            leaseExpiresAt: instant,
            remainingMs: duration,
            commandId,
            attempt,
            envelope,
          }),
        ),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: [],
    }),

    renew: method({
      summary: "Keep a command for longer",
      description:
        "No lease outlives the deadline of its command, nor its `executionMs`; then that is what is reported. With `lease_lost`, stop: details say what became of the command ({commandId, state, reason}), and for a cancelled one the words of whoever cancelled it.",
      params: z.strictObject({ leaseId, leaseMs }),
      result: z.strictObject({ leaseExpiresAt: instant, remainingMs: duration }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["lease_lost"],
    }),

    release: method({
      summary: "Give a command back unanswered, for another delivery",
      params: z.strictObject({
        leaseId,
        delayMs: z.int().min(0).max(MAX_COMMAND_DELAY_MS).default(0).meta({
          description: "How long nobody gets it.",
        }),
      }),
      result: z.strictObject({ state, attempt }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["lease_lost", "invalid_state"],
    }),

    respond: method({
      summary: "Answer a command; the first answer with the live lease wins",
      description:
        "`accepted: false` for a command that is final already. An answer whose delivery has ended otherwise than by command.release is accepted as long as no other came after it. `lease_lost` when another delivery is under way, `invalid_state` when none is that could be answered.",
      params: z.strictObject({ commandId, leaseId, response }),
      result: z.strictObject({ state, accepted: z.boolean() }),
      writes: true,
      repeatable: false,
      transactable: true,
      raw: ["response"],
      errors: ["not_found", "lease_lost", "invalid_state"],
    }),

    answer: method({
      summary: "Add a piece to an answer that is too long for a line, in order; the last one is the answer",
      description:
        "The bytes are the JSON text of `response` as command.respond takes it, `sizeBytes` of them. `offset` is where the piece begins: `receivedBytes` of the answer before, and of a refusal's details. A piece that is refused leaves nothing behind; the last one, again, is answered alike. Pieces belong to a delivery: another one begins anew. The JSON-RPC response to a command.execute that was answered so is ignored.",
      params: z.strictObject({
        commandId,
        leaseId,
        offset: integer,
        chunk: base64,
        sizeBytes: sizeBytes.min(1).max(MAX_UPLOAD_BYTES),
        final: z.boolean().default(false),
      }),
      result: z.strictObject({
        receivedBytes: integer,
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
            commandId: "cmd_01977a6e-5c00-7000-8000-000000000000",
            leaseId: "cml:cmd_01977a6e-5c00-7000-8000-000000000000:1:secret",
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
    }),

    params: method({
      summary: "The params of a command, in pieces of their JSON text",
      params: z.strictObject({
        commandId,
        offset: integer.default(0),
        length: z.int().min(1).max(MAX_PARAMS_PIECE_BYTES).default(MAX_PARAMS_PIECE_BYTES),
      }),
      result: z.strictObject({
        chunk: base64.meta({
          description:
            "At most `length` bytes of the text from `offset` on. It may hold fewer; at the end it is empty.",
        }),
        offset: integer,
        sizeBytes,
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
    }),

    response: method({
      summary: "The answer to a command; null until it is final",
      description:
        "A command that became final without an answer has an error in its place: CANCELLED, ATTEMPTS_EXHAUSTED or EXPIRED. A large answer that came in pieces is {$upload: {sizeBytes}}: read its JSON text with `offset` and `length`.",
      params: z.strictObject({
        commandId,
        offset: integer.optional().meta({ description: "With it, or `length`, a piece is read." }),
        length: z.int().min(1).max(MAX_PARAMS_PIECE_BYTES).optional(),
      }),
      result: z.strictObject({
        response: z.union([response, largeText]).nullable(),
        chunk: base64.optional().meta({
          description:
            "If a piece was asked for: at most `length` bytes of the text of `response` from `offset` on. It may hold fewer; at the end it is empty.",
        }),
        offset: integer.optional(),
        sizeBytes: sizeBytes.optional(),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
    }),

    wait: method({
      summary: "A command once it is final, or as it is when the wait ends",
      params: z.strictObject({ commandId, waitMs }),
      result: command,
      writes: false,
      repeatable: true,
      transactable: false,
      errors: ["not_found"],
    }),

    list: method({
      summary: "Commands, newest first",
      params: z.strictObject({
        deployment: deployment.optional(),
        state: state.optional(),
        projectId: projectId.optional(),
        limit,
        after: commandId.optional().meta({ description: "`next` of the page before: the last id on it." }),
      }),
      result: z.strictObject({ commands: z.array(command), next: commandId.optional() }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
    }),

    cancel: method({
      summary:
        "End a command as FAILED with the code CANCELLED, and tell its receiver; a final one stays as it is",
      params: z.strictObject({ commandId, reason: text.min(1).max(MAX_NOTE_LENGTH).optional() }),
      result: z.strictObject({ state }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["not_found"],
    }),

    serve: method({
      summary: "Have the commands of a deployment sent to this connection as requests",
      description:
        "From then on the daemon sends `command.execute` requests on this connection; the JSON-RPC response to each is the answer to the command. Again for the same deployment changes owner and max; with max 0 nothing more is sent. It ends with the connection. Past `executionMs` a delivery ends, and the connection is told by command.cancelled; until it has answered that counts against max.",
      params: z.strictObject({
        deployment,
        owner,
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
      errors: ["exhausted"],
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
      params: envelope.extend({ leaseId }),
      result: json,
      writes: true,
      repeatable: false,
      transactable: false,
      errors: [],
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
            "In the words of whoever cancelled it; EXPIRED for a deadline that has passed; EXECUTION_TIME for a delivery that took longer than it may, and may be answered late.",
        }),
      }),
    }),
  },
});

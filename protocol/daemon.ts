import { z } from "zod";
import { COMMAND_STATES } from "./command.js";
import { MAX_PATH_LENGTH } from "./limits.js";
import { method, notification, noun } from "./method.js";
import { queueDepths } from "./queue.js";
import { duration, instant, integer, text } from "./schemas.js";
import { mode } from "./sequence.js";

const count = integer;
/** Milliseconds with decimals. */
const milliseconds = z.number().min(0);

const copied = z
  .strictObject({
    since: instant.meta({
      description: "The last time that the copy has kept: the first may have given numbers afterwards.",
    }),
    from: z.string().meta({ description: "The host of the first, and the path of its database there." }),
  })
  .nullable();

export const DAEMON = noun("daemon", {
  methods: {
    ping: method({
      summary: "Whether the daemon serves, and its clock",
      params: z.strictObject({}),
      result: z.strictObject({ now: instant }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
    }),

    info: method({
      summary: "What this daemon is: version, identity, paths and limits",
      params: z.strictObject({}),
      result: z.strictObject({
        name: z.literal("pawld"),
        version: z.string(),
        protocol: z.string(),
        pid: integer,
        instance: z.string(),
        startedAt: instant,
        mode,
        nodeId: integer.meta({ description: "0 in centralized mode." }),
        readOnly: z.boolean(),
        database: z.strictObject({ path: z.string(), schemaVersion: integer }),
        sockets: z.array(z.strictObject({ path: z.string(), readOnly: z.boolean() })),
        limits: z.record(z.string(), integer),
        clock: z.strictObject({ steppedAt: instant, byMs: z.int() }).nullable().meta({
          description:
            "The last time that the wall clock was set by more than a second, and by how much; null for none.",
        }),
        copied: copied.meta({
          description:
            "Set when the database is a copy of one on another machine, or of one that is still in its place on this one, until `daemon.acceptCopy`: both may give the same numbers.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
    }),

    stats: method({
      summary: "Counters since the start, and gauges of this moment",
      params: z.strictObject({}),
      result: z.strictObject({
        uptimeMs: duration,
        memoryBytes: integer,
        connections: z.strictObject({
          open: count,
          accepted: count,
          waiting: count,
          acceptPauses: count.meta({
            description: "How often new connections had to wait, because few descriptors were left.",
          }),
          unsentBytes: count.meta({ description: "Replies that clients have not read, of all connections." }),
          unreadBytes: count.meta({
            description:
              "Requests that are not yet taken up, and room for long lines under way, of all connections.",
          }),
          waitingBytes: count.meta({
            description: "Requests that wait for their conditions, of all connections.",
          }),
          overloads: count.meta({
            description:
              "Connections that were closed because all together held too much and they did not go on.",
          }),
        }),
        requests: z.record(z.string(), count).meta({ description: "Calls by method." }),
        errors: z.record(z.string(), z.record(z.string(), count)).meta({
          description: "Errors by method, then by kind; lines that name no method count under `-`.",
        }),
        turns: z.strictObject({ total: count, committed: count, rolledBack: count, operations: count }),
        operationsPerTurn: z.strictObject({ p50: z.number(), p99: z.number(), max: z.number() }),
        commitMs: z.strictObject({ p50: milliseconds, p99: milliseconds, max: milliseconds }),
        sequences: z.strictObject({ dispensed: count }),
        queues: queueDepths.meta({ description: "Batches of all queues by state." }),
        commands: z.strictObject({
          states: z.record(z.enum(COMMAND_STATES), count),
          lateAnswers: count.meta({ description: "Answers to commands that were final already." }),
        }),
        leases: z.strictObject({ held: count }),
        pipeline: z.strictObject({
          items: count,
          changes: count,
          forks: count.meta({ description: "Changes that stand where another stands: both are kept." }),
        }),
        database: z.strictObject({ bytes: integer, walBytes: integer }),
        logLinesDropped: count.meta({
          description:
            "Lines of the log that could not be written: its disk is full, or its reader has stopped or gone.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
    }),

    acceptCopy: method({
      summary: "Say that the database which this one was copied from is gone",
      description:
        "`daemon.info` and the log tell of the copy no more. Numbers that the first gave after the copy was made may be given again: raise the counters before, with `sequence.advance`, if it gave any.",
      params: z.strictObject({}),
      result: z.strictObject({
        accepted: copied.meta({ description: "The copy that was accepted; null if the database is none." }),
      }),
      writes: true,
      repeatable: true,
      transactable: false,
      errors: [],
      examples: [
        {
          name: "A machine was replaced by another one, with its database",
          params: {},
          result: {
            accepted: { since: 1_763_740_800_000, from: "build-1:/var/lib/pawl/default/pawl.db" },
          },
        },
      ],
    }),

    backup: method({
      summary: "Copy the database to a new file while it is in use",
      description:
        "For the user of the daemon and root only. Other calls go on meanwhile; the caller is told how far it is by `daemon.backupProgress`. Closing the connection gives it up. The copy is one moment of the database. The key that signs changes of the board (`identity.key`) is not in it.",
      params: z.strictObject({
        path: text.min(1).max(MAX_PATH_LENGTH).meta({
          description: "An absolute path where no file is yet, in a directory that the daemon may write to.",
        }),
      }),
      result: z.strictObject({ bytes: integer, pages: integer }),
      // The daemon writes a file then: no caller that may only read should bring that about.
      writes: true,
      repeatable: false,
      transactable: false,
      errors: ["not_found", "conflict"],
      examples: [
        {
          name: "A backup",
          params: { path: "/var/backups/pawl-2026-11-21.db" },
          result: { bytes: 1_257_472, pages: 307 },
        },
      ],
    }),
  },
  notifications: {
    backupProgress: notification({
      summary: "How far the backup is that this connection asked for",
      params: z.strictObject({ pages: integer, totalPages: integer }),
    }),
  },
});

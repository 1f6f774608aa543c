import { z } from "zod";
import { EVENT_KINDS, type EventNoun } from "./events.js";
import {
  DEFAULT_CHECKED_ROWS,
  MAX_CHECKED_ROWS,
  MAX_GRAPH_ROWS,
  MAX_NAMED_QUEUES,
  MAX_PAGE_BYTES,
  MAX_PATH_LENGTH,
} from "./limits.js";
import { method, notification, noun } from "./method.js";
import { queueDepths } from "./queue.js";
import { duration, instant, integer, named, text } from "./schemas.js";
import { mode, nodeId } from "./sequence.js";
import { COMMAND_STATES } from "./values.js";

const NOUNS = Object.keys(EVENT_KINDS) as [EventNoun, ...EventNoun[]];

/** A place in a table or an index, with the values that it is ordered by. */
const MAX_CHECK_CURSOR_LENGTH = 16_384;

const count = integer;
/** Milliseconds with decimals. */
const milliseconds = z.number().min(0);
const histogram = named(
  "Histogram",
  "How often something lasted how long, since the start of the daemon; the bounds stay.",
  z.strictObject({
    bounds: z.array(milliseconds).meta({ description: "Upper bounds in milliseconds, in order." }),
    counts: z.array(integer).meta({
      description:
        "For each bound those up to it that are above the bound before; behind them, those above the last bound.",
    }),
    sum: milliseconds.meta({ description: "All of them together, in milliseconds." }),
  }),
);

const kindCounts = z.record(z.string(), integer);

const half = { description: "Half of them are below it." };
const nearlyAll = { description: "99 % of them are below it." };
const greatest = { description: "The greatest." };

const copied = named(
  "CopiedDatabase",
  "Says that the database was copied from one that may live on.",
  z.strictObject({
    since: instant.meta({
      description: "The last time that the copy has kept: the first may have given numbers afterwards.",
    }),
    from: z.string().meta({ description: "The host of the first, and the path of its database there." }),
  }),
).nullable();

const graphNodeId = z.string().meta({ description: "Names the node in this answer; of no use elsewhere." });
const graphNode = named(
  "GraphNode",
  "A process, or a thing that processes hold and wait for.",
  z.strictObject({
    id: graphNodeId,
    kind: z.enum(["process", "lease", "queue", "key", "command", "path"]).meta({
      description: "`key`: of the batches of a queue. `path`: a pattern below a root.",
    }),
    name: z.string().optional().meta({
      description: "Of a lease, a queue, the key of batches, or a command, which is named by its id.",
    }),
    queue: z.string().optional().meta({ description: "Of a key: its queue." }),
    root: z.string().optional().meta({ description: "Of a path: the root of its pattern." }),
    pattern: z.string().optional().meta({ description: "Of a path." }),
    pid: integer
      .nullable()
      .optional()
      .meta({ description: "Of a process, as the kernel told; null if it did not." }),
    owner: z.string().optional().meta({ description: "Of a process: a label for people, if it gave one." }),
    task: z.string().optional().meta({
      description: "Of a process: what it holds and waits under; each task of a process is a node.",
    }),
    daemon: integer.nullable().optional().meta({
      description:
        "Of a process that holds shared names by another daemon: the number of that among those that share them; null if it has gone, or nobody knows which it was.",
    }),
    host: z.string().optional().meta({
      description:
        "Of such a process: the host of that daemon, on which its `pid` is, as long as it is there.",
    }),
  }),
);
const graphEdge = named(
  "GraphEdge",
  "A process that holds something, or waits for it, or for a child process.",
  z.strictObject({
    from: graphNodeId.meta({ description: "The process." }),
    to: graphNodeId.meta({ description: "The thing, or the child process that it waits for." }),
    what: z.enum(["holds", "waits"]).meta({ description: "The one or the other." }),
    sinceMs: duration.nullable().meta({
      description:
        "For how many milliseconds; null where that is not known: of a claim that an earlier version has made, and of a child that waits behind more calls than are looked at.",
    }),
  }),
);

export const DAEMON = noun("daemon", {
  description: "The daemon itself: whether it serves, what it is, how much it does.",
  methods: {
    graph: method({
      summary: "Who waits for whom: what processes hold and wait for",
      description: `Of holders and of those who wait up to ${MAX_GRAPH_ROWS} of each kind are looked at, and then \`more\` says so, as it does where those who wait need, or holders have reserved, more than some thousand things in all, of which each shows the first then, and where the answer would be longer than some ${MAX_PAGE_BYTES} bytes. With \`pid\` only what has to do with that process: all that it waits for, be it by others, and all who wait for it so. A daemon that only reads knows nobody who waits, and names that a provider keeps have holders here, but nobody who waits. Names that daemons share have their holders at all of these, and those who wait at this one; where their database cannot be reached the rest is answered, and \`away\` says so.`,
      params: z.strictObject({
        pid: integer.min(1).optional().meta({ description: "Only what has to do with this process." }),
      }),
      result: z.strictObject({
        nodes: z
          .array(graphNode)
          .meta({ description: "Processes and things; each is at an end of an edge." }),
        edges: z.array(graphEdge).meta({ description: "Who holds and who waits for what." }),
        more: z.boolean().optional().meta({ description: "True if there was more than is looked at." }),
        away: z.array(z.string()).optional().meta({
          description:
            "The databases of shared names that could not be asked, as `daemon.info` shows them: what is held and waited for there is missing.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
      examples: [
        {
          name: "A deployment that another one waits for",
          params: {},
          result: {
            nodes: [
              { id: "lease:production", kind: "lease", name: "production" },
              { id: "process:4711.98006", kind: "process", pid: 4711, owner: "deploy-17" },
              { id: "process:4712.98113", kind: "process", pid: 4712, owner: "deploy-18" },
            ],
            edges: [
              { from: "process:4711.98006", to: "lease:production", what: "holds", sinceMs: 61_000 },
              { from: "process:4712.98113", to: "lease:production", what: "waits", sinceMs: 2_500 },
            ],
          },
        },
      ],
    }),

    ping: method({
      summary: "Ask whether the daemon serves, and for its clock",
      params: z.strictObject({}),
      result: z.strictObject({
        now: instant.meta({ description: "Its wall clock, in milliseconds since the Unix epoch." }),
      }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
      examples: [{ name: "It serves", params: {}, result: { now: 1_750_000_000_000 } }],
    }),

    info: method({
      summary: "What this daemon is: version, identity, paths and limits",
      params: z.strictObject({}),
      result: z.strictObject({
        name: z.literal("pawld").meta({ description: "Always pawld." }),
        version: z.string().meta({ description: "The version of the daemon, as 0.1.0." }),
        protocol: z.string().meta({ description: "The version of the protocol, as pawl/1." }),
        pid: integer.meta({ description: "Its process." }),
        instance: z.string().meta({ description: "Its name among the daemons of the machine." }),
        startedAt: instant.meta({ description: "When it started, in milliseconds since the Unix epoch." }),
        mode,
        nodeId: nodeId.meta({ description: "The number or the name of this node; 0 in centralized mode." }),
        idDigits: integer.meta({ description: "Digits that the numbers in ids have at least." }),
        readOnly: z.boolean().meta({ description: "True if it only reads (--read-only)." }),
        canWrite: z.boolean().meta({
          description: "True if this connection may call methods that write: not by a socket for reads.",
        }),
        database: named(
          "DatabaseInfo",
          "The database of the daemon.",
          z.strictObject({
            path: z.string().meta({ description: "Its file." }),
            schemaVersion: integer.meta({ description: "The number of its last migration." }),
          }),
        ),
        sockets: z
          .array(
            named(
              "SocketInfo",
              "A socket that the daemon serves.",
              z.strictObject({
                path: z.string().meta({ description: "Where it is." }),
                readOnly: z.boolean().meta({ description: "True if it refuses methods that write." }),
              }),
            ),
          )
          .meta({ description: "Where it listens." }),
        limits: z.record(z.string(), integer).meta({ description: "Limits that callers can meet, by name." }),
        clock: named(
          "ClockStep",
          "A time at which the wall clock was set.",
          z.strictObject({
            steppedAt: instant.meta({ description: "When, in milliseconds since the Unix epoch." }),
            byMs: z.int().meta({ description: "By how many milliseconds; negative for backwards." }),
          }),
        )
          .nullable()
          .meta({
            description:
              "The last time that the wall clock was set by more than a second, and by how much; null for none.",
          }),
        leaseProviders: z
          .array(
            named(
              "LeaseProviderInfo",
              "The names whose leases are kept elsewhere.",
              z.strictObject({
                pattern: z.string().meta({ description: "Names, in which `*` stands for any characters." }),
                kind: z
                  .enum(["local", "dynamodb", "etcd", "custom"])
                  .meta({ description: "Where their leases are kept; local for the database." }),
              }),
            ),
          )
          .meta({ description: "The first that fits a name counts; all other leases are in the database." }),
        shared: z
          .array(
            named(
              "SharedNames",
              "Names that are kept in PostgreSQL, which several daemons share.",
              z.strictObject({
                pattern: z.string().meta({ description: "Names, in which `*` stands for any characters." }),
                noun: z.enum(["sequence", "queue", "lease", "path", "command"]).nullable().meta({
                  description: "The noun whose names it is about; null for each that can be shared.",
                }),
                place: z.string().meta({ description: "The server and the database, without credentials." }),
                connected: z.boolean().meta({ description: "False while the database cannot be reached." }),
              }),
            ),
          )
          .meta({ description: "The first that fits a name counts; all other names are this node's own." }),
        heldLog: named(
          "HeldLog",
          "Says that the write-ahead log of the database grows, since somebody reads without end.",
          z.strictObject({
            pid: integer.nullable().meta({ description: "Who reads; null where the kernel does not tell." }),
            walBytes: integer.meta({ description: "The length of the log." }),
          }),
        )
          .nullable()
          .meta({
            description:
              "Set while another program keeps the write-ahead log from being moved into the database, and it is longer than it ever is otherwise. Everything goes on meanwhile.",
          }),
        configError: z.string().nullable().meta({
          description:
            "Why the configuration was not taken over when SIGHUP had it read again last; the former one stays. Null if it was, or was not read again.",
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
      examples: [
        {
          name: "A daemon of a user",
          params: {},
          result: {
            name: "pawld",
            version: "0.1.0",
            protocol: "pawl/1",
            pid: 4711,
            instance: "default",
            startedAt: 1_750_000_000_000,
            mode: { kind: "centralized" },
            nodeId: 0,
            idDigits: 3,
            readOnly: false,
            canWrite: true,
            database: { path: "/home/me/.local/state/pawl/default/pawl.db", schemaVersion: 12 },
            sockets: [{ path: "/run/user/1000/pawl/default.sock", readOnly: false }],
            limits: { maxMessageBytes: 1_048_576 },
            clock: null,
            leaseProviders: [{ pattern: "release/*", kind: "dynamodb" }],
            shared: [],
            heldLog: null,
            configError: null,
            copied: null,
          },
        },
      ],
    }),

    stats: method({
      summary: "Counters since the start, and gauges of this moment",
      description:
        "Counters begin at 0 with each start of the daemon, and only go up. A monitoring system that reads them now and then knows what was counted over any time, restarts included. Counters have what this daemon did, be it with names of its own or shared ones, so that those of all daemons can be added. Gauges of what there is have what is in this node's own database: what several daemons share would count once for each.",
      params: z.strictObject({
        queues: z.boolean().default(false).meta({ description: "Whether to answer `byQueue`, too." }),
      }),
      result: z.strictObject({
        uptimeMs: duration.meta({ description: "Milliseconds since the start." }),
        memoryBytes: integer.meta({ description: "Resident memory of the process." }),
        connections: named(
          "ConnectionStats",
          "The connections of the daemon.",
          z.strictObject({
            open: count.meta({ description: "Open now." }),
            accepted: count.meta({ description: "Accepted since the start." }),
            waiting: count.meta({ description: "Requests that wait now." }),
            acceptPauses: count.meta({
              description: "How often new connections had to wait, because few descriptors were left.",
            }),
            unsentBytes: count.meta({
              description: "Replies that clients have not read, of all connections.",
            }),
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
        ),
        requests: z.record(z.string(), count).meta({ description: "Calls by method." }),
        errors: z.record(z.string(), z.record(z.string(), count)).meta({
          description: "Errors by method, then by kind; lines that name no method count under `-`.",
        }),
        turns: named(
          "TurnStats",
          "Turns since the start: each is one transaction for all that had arrived.",
          z.strictObject({
            total: count.meta({ description: "All turns." }),
            committed: count.meta({ description: "Turns that wrote." }),
            rolledBack: count.meta({ description: "Turns that failed and were performed call by call." }),
            operations: count.meta({ description: "Calls that turns performed." }),
          }),
        ),
        operationsPerTurn: named(
          "Distribution",
          "How a number is distributed.",
          z.strictObject({
            p50: z.number().meta(half),
            p99: z.number().meta(nearlyAll),
            max: z.number().meta(greatest),
          }),
        ).meta({ description: "Calls that a turn performed, of late." }),
        commitMs: named(
          "DurationDistribution",
          "How a duration is distributed, in milliseconds with decimals.",
          z.strictObject({
            p50: milliseconds.meta(half),
            p99: milliseconds.meta(nearlyAll),
            max: milliseconds.meta(greatest),
          }),
        ).meta({ description: "How long commits took, of late, in milliseconds." }),
        commits: histogram.meta({ description: "How long commits took." }),
        events: named(
          "EffectCounts",
          "How often each effect was committed since the start, by noun and kind.",
          z.record(
            z.enum(NOUNS),
            kindCounts.meta({
              description: "By kind, as `completed` of the noun queue or `broken` of lease.",
            }),
          ),
        ).meta({ description: "What `events.watch` tells of, counted whether or not somebody follows." }),
        byQueue: z
          .array(
            named(
              "QueueCounts",
              "Effects on the batches of a queue since the start of the daemon.",
              z.strictObject({
                queue: z.string().nullable().meta({ description: "Null for all queues that are not named." }),
                events: kindCounts.meta({ description: "Effects by kind." }),
                waitMs: histogram.meta({
                  description: "How long batches were available before they were claimed.",
                }),
                runMs: histogram.meta({
                  description:
                    "How long batches were claimed that their workers completed or abandoned; one that was lost counts once it is completed late.",
                }),
              }),
            ),
          )
          .optional()
          .meta({
            description: `The first ${MAX_NAMED_QUEUES} queues to which something happened since the start, then all others together. With \`queues\`.`,
          }),
        sequences: named(
          "SequenceStats",
          "Numbers since the start.",
          z.strictObject({
            dispensed: count.meta({ description: "Numbers that were taken here, of shared names, too." }),
          }),
        ),
        queues: queueDepths.meta({
          description:
            "Batches by state, of all queues in this node's own database: those of shared queues are counted by `queue.stats`.",
        }),
        commands: named(
          "CommandStats",
          "Commands that are kept.",
          z.strictObject({
            states: named(
              "CommandDepths",
              "How many commands of this node's own database are in which state.",
              z.record(z.enum(COMMAND_STATES), count.meta({ description: "Commands in this state." })),
            ),
            ended: named(
              "CommandOutcomes",
              "How many commands this daemon made final since the start, by their state then; of shared deployments, too.",
              z.strictObject({
                SUCCEEDED: count.meta({ description: "Answered with success." }),
                FAILED: count.meta({
                  description: "Answered with a failure, cancelled, or out of attempts.",
                }),
                EXPIRED: count.meta({ description: "Not answered in time." }),
              }),
            ),
            lateAnswers: count.meta({ description: "Answers to commands that were final already." }),
          }),
        ),
        leases: named(
          "LeaseStats",
          "Leases of this moment in this node's own database; shared ones are listed by `lease.list`.",
          z.strictObject({ held: count.meta({ description: "Leases that are held." }) }),
        ),
        paths: named(
          "PathStats",
          "Reservations of paths of this moment in this node's own database; shared ones are listed by `path.list`.",
          z.strictObject({ reserved: count.meta({ description: "Reservations that are held." }) }),
        ),
        pipeline: named(
          "PipelineStats",
          "The board of this node.",
          z.strictObject({
            items: count.meta({ description: "Items that are there." }),
            changes: count.meta({ description: "Changes that are stored." }),
            forks: count.meta({ description: "Changes that stand where another stands: both are kept." }),
          }),
        ),
        database: named(
          "DatabaseStats",
          "The files of the database.",
          z.strictObject({
            bytes: integer.meta({ description: "The database's own file." }),
            walBytes: integer.meta({ description: "Its write-ahead log." }),
          }),
        ),
        logLinesDropped: count.meta({
          description:
            "Lines of the log that could not be written: its disk is full, or its reader has stopped or gone.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
      examples: [
        {
          name: "After a minute",
          params: {},
          result: {
            uptimeMs: 60_000,
            memoryBytes: 70_254_592,
            connections: {
              open: 1,
              accepted: 3,
              waiting: 0,
              acceptPauses: 0,
              unsentBytes: 0,
              unreadBytes: 0,
              waitingBytes: 0,
              overloads: 0,
            },
            requests: { "sequence.next": 2, "daemon.stats": 1 },
            errors: { "sequence.next": { invalid_params: 1 } },
            turns: { total: 3, committed: 1, rolledBack: 0, operations: 3 },
            operationsPerTurn: { p50: 1, p99: 1, max: 1 },
            commitMs: { p50: 0.31, p99: 0.31, max: 0.31 },
            commits: {
              bounds: [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 1_000],
              counts: [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
              sum: 0.31,
            },
            events: {
              ...(Object.fromEntries(
                NOUNS.map((noun) => [noun, Object.fromEntries(EVENT_KINDS[noun].map((kind) => [kind, 0]))]),
              ) as Record<EventNoun, Record<string, number>>),
              sequence: { dispensed: 1, reserved: 0, advanced: 0, granted: 0 },
            },
            sequences: { dispensed: 1 },
            queues: {
              ready: 0,
              scheduled: 0,
              blocked: 0,
              claimed: 0,
              completed: 1,
              dead: 0,
              cancelled: 0,
              expired: 0,
            },
            commands: {
              states: { PENDING_UPLOAD: 0, PENDING: 0, DISPATCHED: 0, SUCCEEDED: 1, FAILED: 0, EXPIRED: 0 },
              ended: { SUCCEEDED: 1, FAILED: 0, EXPIRED: 0 },
              lateAnswers: 0,
            },
            leases: { held: 1 },
            paths: { reserved: 1 },
            pipeline: { items: 1, changes: 1, forks: 0 },
            database: { bytes: 331_776, walBytes: 16_512_992 },
            logLinesDropped: 0,
          },
        },
      ],
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

    check: method({
      summary: "Look whether the database is sound",
      description:
        "Every row and every entry of an index is read; values have to be of their types, JSON where they are JSON, and names of other rows those of rows; counts have to be those of their rows; the log of the board is replayed, with its hashes and signatures. A call looks at a part of this, in steps beside the calls of others; ask again with `next` until there is none. Nothing is changed. Pages that are free are not looked at.",
      params: z.strictObject({
        limit: z.int().min(1).max(MAX_CHECKED_ROWS).default(DEFAULT_CHECKED_ROWS).meta({
          description:
            "Rows, entries of indexes and changes after which the call is answered. The batches of one queue are counted within one call.",
        }),
        after: z.string().min(1).max(MAX_CHECK_CURSOR_LENGTH).optional().meta({
          description: "`next` of the call before.",
        }),
      }),
      result: z.strictObject({
        problems: z
          .array(
            named(
              "Problem",
              "Something in the database that is not as it has to be.",
              z.strictObject({
                what: z.enum(["structure", "index", "value", "reference", "count", "log"]).meta({
                  description:
                    "`structure`: a table or an index cannot be read; `index`: it disagrees with its table; `value`: no JSON, or not of its type; `reference`: a row that another belongs to is missing; `count`: a count is not that of the rows; `log`: a change of the board is damaged, or an item is not what the changes say.",
                }),
                where: z
                  .string()
                  .meta({ description: "A row by its table and key, an index, a queue, a change." }),
                message: z.string().meta({ description: "The fault, and what to do." }),
              }),
            ),
          )
          .meta({ description: "In the order in which they were found." }),
        checked: integer.meta({ description: "Rows, entries and changes that this call looked at." }),
        next: z.string().optional().meta({ description: "Where to go on; none when all was looked at." }),
      }),
      writes: false,
      repeatable: true,
      transactable: false,
      errors: [],
      examples: [
        {
          name: "A queue whose count is wrong",
          params: {},
          result: {
            problems: [
              {
                what: "count",
                where: "queue mail",
                message: "has 3 ready batches, and 4 are counted. Restore the database from a backup.",
              },
            ],
            checked: 812,
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
      result: z.strictObject({
        bytes: integer.meta({ description: "The size of the copy." }),
        pages: integer.meta({ description: "Its pages." }),
      }),
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
      params: z.strictObject({
        pages: integer.meta({ description: "Pages that are copied." }),
        totalPages: integer.meta({ description: "Pages that there are." }),
      }),
      example: { name: "Half of it", params: { pages: 150, totalPages: 307 } },
    }),
  },
});

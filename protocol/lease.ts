import { z } from "zod";
import {
  MAX_JOINT_MEMBERS,
  MAX_LEASE_MEMBER_LENGTH,
  MAX_LEASE_MS,
  MAX_LEASE_NAME_LENGTH,
  MAX_LEASE_NAMES,
  MAX_LEASE_SLOTS,
  MAX_NOTE_LENGTH,
  MAX_SHOWN_HOLDERS,
  MIN_LEASE_MS,
} from "./limits.js";
import { method, notification, noun } from "./method.js";
import {
  awaitsChildren,
  duration,
  EXPIRED,
  graceMs,
  instant,
  integer,
  label,
  leaseMs,
  leaseName,
  limit,
  named,
  onLoss,
  releaseOn,
  task,
  text,
  waitMs,
} from "./schemas.js";
import { LEASE_MODES } from "./values.js";

const name = leaseName.meta({ description: "What the lease is for: a database, a branch, a directory." });
const owner = label.meta({ description: "A label for people. It proves nothing; the leaseId does." });
const leaseId = label.meta({
  description: "Secret and random. Whoever has it can renew and release the lease.",
});
const mode = z.enum(LEASE_MODES).meta({
  description: "`shared`: together with any number of others that are `shared`, and no exclusive holder.",
});
const slots = z.int().min(1).max(MAX_LEASE_SLOTS);
const members = z
  .array(text.min(1).max(MAX_LEASE_MEMBER_LENGTH))
  .min(1)
  .max(MAX_LEASE_SLOTS)
  .refine(areDifferent, { error: "must not hold the same member twice" });
const fencingToken = integer.min(1).meta({
  description: "Greater than that of every earlier holder of the name, for ever.",
});
const note = text.max(MAX_NOTE_LENGTH).meta({ description: "Shown to others by lease.get." });
const itsMembers = members.optional().meta({
  description: "The members of the name's pool that are its own: as many as it has slots.",
});

/** Holds a name, and a token of it. */
const cursor = text.min(1).max(2 * MAX_LEASE_NAME_LENGTH);

const acquiredAt = instant.meta({
  description: "When it was granted, in milliseconds since the Unix epoch.",
});
const expiresAt = instant.meta({
  description: "When it ends unless it is renewed, in milliseconds since the Unix epoch.",
});
const remainingMs = duration.meta({ description: "Milliseconds until then." });

const holder = named(
  "LeaseHolder",
  "A holder as others may know it: never the leaseId.",
  z.strictObject({
    name,
    owner,
    fencingToken,
    mode,
    slots: slots.optional().meta({ description: "How many of the name's slots it takes, if more than one." }),
    members: itsMembers,
    acquiredAt,
    expiresAt,
    remainingMs,
    ending: z.boolean().optional().meta({
      description:
        "True of a lease that is lost, while nobody is granted it because this holder's process has not ended (`onLoss`).",
    }),
    waiters: integer.nullable().meta({
      description: "How many wait for the name; null from a daemon that only reads (--read-only).",
    }),
    note: note.nullable().meta({ description: "What the holder says of it; null for nothing." }),
    pid: integer
      .nullable()
      .meta({ description: "The holder's process, as the kernel told; null if it did not." }),
    uid: integer
      .nullable()
      .meta({ description: "The holder's user, as the kernel told; null if it did not." }),
  }),
);

// The example of each method is a step of one story, in the order of the methods.
const LEASE_ID = "ls_0Q7yVvJmR3uXcT5bKz8wNg";
const DIRECTORIES_ID = "ls_5bKz8wNgR3uXcT0Q7yVvJm";
const heldByDeploy: z.output<typeof holder> = {
  name: "production",
  owner: "deploy-17",
  fencingToken: 1,
  mode: "exclusive",
  acquiredAt: 1_750_000_000_000,
  expiresAt: 1_750_000_030_000,
  remainingMs: 30_000,
  waiters: 0,
  note: "release 4.2",
  pid: 4711,
  uid: 1000,
};

export const lease = named(
  "Lease",
  "A lease as its holder has it.",
  z.strictObject({
    name,
    leaseId,
    fencingToken,
    owner,
    mode,
    slots: slots.meta({ description: "How many of the name's slots it takes; 1 of one that is shared." }),
    members: itsMembers,
    acquiredAt,
    expiresAt,
    remainingMs,
  }),
);

export const LEASE = noun("lease", {
  description:
    "Names that one holder has at a time, or a few, or many that share them, with tokens that only go up.",
  methods: {
    acquire: method({
      summary: "Take the lease of a name, or of several names together, or wait for it",
      description:
        "Whoever waits is served in the order of arrival: nobody is granted a name that an earlier one waits for, unless both would share it, and nobody waits for more than that.",
      params: z
        .strictObject({
          owner,
          name: name.optional(),
          names: z
            .array(name)
            .min(1)
            .max(MAX_LEASE_NAMES)
            .optional()
            .meta({
              description: `In the place of \`name\`: all of them or none, under one leaseId. Of those that are pools it is given at most ${MAX_JOINT_MEMBERS} members together.`,
            }),
          task: task.optional(),
          awaitsChildren: awaitsChildren.optional(),
          mode: mode.default("exclusive"),
          slots: slots.optional().meta({
            description:
              "How many slots it takes of each name, of which a name has one unless `lease.configure` says otherwise; 1 if not given. Not with `shared`.",
          }),
          ttlMs: leaseMs,
          waitMs,
          releaseOn,
          graceMs,
          note: note.optional(),
          onLoss: onLoss.optional().meta({
            description:
              "Has the daemon end the process that opened the connection when the lease is lost (expired, broken or cut off, not released): it is sent the signal, killed later, and nobody else is granted the name before it has ended and the connection has closed. `forbidden` where the daemon may not signal it, `invalid_params` where it is not known for certain.",
          }),
        })
        .refine(({ name: one, names }) => (one === undefined) !== (names === undefined), {
          error: "must have either `name` or `names`",
        })
        .refine(({ names }) => names === undefined || areDifferent(names), {
          error: "must not hold the same name twice",
          path: ["names"],
        })
        .refine(({ mode: how, slots: many }) => how === "exclusive" || many === undefined, {
          error: "is for exclusive leases: who shares a name takes no slot",
          path: ["slots"],
        })
        .refine(({ releaseOn: ends, graceMs: grace }) => grace === 0 || ends === "disconnect", {
          error: "is for grants with `releaseOn: disconnect`, and this one ends by its time alone",
          path: ["graceMs"],
        }),
      result: z.union([
        named("OneLease", "The answer to a request with `name`.", z.strictObject({ lease })),
        named(
          "SeveralLeases",
          "The answer to a request with `names`.",
          z.strictObject({
            leases: z.array(lease).meta({ description: "In the order of the names, all with one leaseId." }),
          }),
        ),
      ]),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["lease_held", "would_deadlock", "exhausted", "provider_unavailable"],
      examples: [
        {
          name: "A deployment that nothing else may disturb",
          params: { name: "production", owner: "deploy-17", ttlMs: 30_000, note: "release 4.2" },
          result: {
            lease: {
              name: "production",
              leaseId: LEASE_ID,
              fencingToken: 1,
              owner: "deploy-17",
              mode: "exclusive",
              slots: 1,
              acquiredAt: 1_750_000_000_000,
              expiresAt: 1_750_000_030_000,
              remainingMs: 30_000,
            },
          },
        },
        {
          name: "Two directories, both or none, read together with others",
          params: { names: ["/srv/a", "/srv/b"], owner: "backup", mode: "shared" },
          result: {
            leases: ["/srv/a", "/srv/b"].map((each) => ({
              name: each,
              leaseId: DIRECTORIES_ID,
              fencingToken: 1,
              owner: "backup",
              mode: "shared" as const,
              slots: 1,
              acquiredAt: 1_750_000_000_000,
              expiresAt: 1_750_000_030_000,
              remainingMs: 30_000,
            })),
          },
        },
      ],
    }),

    configure: method({
      summary: "Say how many may hold a name at a time, or what it is a pool of",
      description:
        "A name that nothing was said of has one slot. Fewer slots than are held take nothing back. Without `slots` and `members` nothing changes, and the answer is what the name has.",
      params: z
        .strictObject({
          name,
          slots: slots.optional().meta({ description: "How many may hold it; they have no members then." }),
          members: members.optional().meta({
            description: "Ports, devices, accounts: a slot for each, and each holder is given its own.",
          }),
        })
        .refine(({ slots: many, members: all }) => many === undefined || all === undefined, {
          error: "must have either `slots` or `members`, since each member is a slot",
        }),
      result: z.strictObject({
        name,
        slots: slots.meta({ description: "How many may hold it at a time." }),
        members: members.optional().meta({ description: "The pool, if it is one." }),
      }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "Three ports, each for one",
          params: { name: "test-port", members: ["4001", "4002", "4003"] },
          result: { name: "test-port", slots: 3, members: ["4001", "4002", "4003"] },
        },
      ],
    }),

    heartbeat: method({
      summary: "Keep a lease for its ttl from now on",
      params: z.strictObject({
        leaseId,
        ttlMs: z.int().min(MIN_LEASE_MS).max(MAX_LEASE_MS).optional().meta({
          description: "How long the lease lasts from now on; what it was acquired for, if not given.",
        }),
        note: note.optional(),
      }),
      result: z.strictObject({ expiresAt, remainingMs }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["lease_lost", "provider_unavailable"],
      examples: [
        {
          name: "For 30 s from now on",
          params: { leaseId: LEASE_ID },
          result: { expiresAt: 1_750_000_040_000, remainingMs: 30_000 },
        },
      ],
    }),

    release: method({
      summary: "Give a lease back; false if it was already gone",
      params: z.strictObject({ leaseId }),
      result: z.strictObject({
        released: z.boolean().meta({ description: "False if it was already gone." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["provider_unavailable"],
      examples: [
        {
          name: "The deployment is over",
          params: { leaseId: DIRECTORIES_ID },
          result: { released: true },
        },
      ],
    }),

    get: method({
      summary: "Who holds a name, until when, and how many wait for it",
      params: z.strictObject({ name }),
      result: z.strictObject({
        lease: holder.nullable().meta({ description: "The earliest holder; null if nobody holds it." }),
        holders: z.array(holder).meta({
          description: `All holders, the earliest first; of more than ${MAX_SHOWN_HOLDERS} the first so many.`,
        }),
        slots: slots.meta({ description: "How many may hold it at a time." }),
        free: integer.meta({ description: "How many slots are not taken; 0 while it is shared." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["provider_unavailable"],
      examples: [
        {
          name: "A name that is held",
          params: { name: "production" },
          result: { lease: heldByDeploy, holders: [heldByDeploy], slots: 1, free: 0 },
        },
        {
          name: "One that is free",
          params: { name: "staging" },
          result: { lease: null, holders: [], slots: 1, free: 1 },
        },
      ],
    }),

    list: method({
      summary: "The leases that are held, by name: a row for each holder",
      params: z.strictObject({
        prefix: name.optional().meta({ description: "Only names that begin so." }),
        after: cursor.optional().meta({ description: "`next` of the page before." }),
        limit,
      }),
      result: z.strictObject({
        leases: z.array(holder).meta({ description: "By name, and of one name the earliest holder first." }),
        next: cursor.optional().meta({ description: "There are more: ask again with it as `after`." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [{ name: "One is held", params: { prefix: "prod" }, result: { leases: [heldByDeploy] } }],
    }),

    check: method({
      summary:
        "Whether a fencing token is a current holder's: what a resource asks before it accepts a write",
      params: z.strictObject({ name, fencingToken }),
      result: z.strictObject({
        current: z.boolean().meta({
          description:
            "Whether it is held now. A name that is held by one at a time has no current token below `highest`; of a shared or counted one several are current.",
        }),
        highest: integer.meta({
          description:
            "The highest token ever granted for the name, as far as this daemon has seen; it never falls. 0 before the first.",
        }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["provider_unavailable"],
      examples: [
        {
          name: "The current holder's",
          params: { name: "production", fencingToken: 1 },
          result: { current: true, highest: 1 },
        },
      ],
    }),

    break: method({
      summary: "End a lease by force; the next holder's token is higher all the same",
      description: "Ends all holders of the name, and of a lease of several names all names.",
      params: z.strictObject({
        name,
        reason: note.min(1).meta({ description: "Logged, and told to the holder." }),
        fencingToken: fencingToken.optional().meta({ description: "Only the holder with this token." }),
      }),
      result: z.strictObject({
        broken: z.boolean().meta({ description: "False if nobody held it." }),
        more: z.boolean().optional().meta({
          description: "In a transaction, which does one step: whether there are holders left.",
        }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["provider_unavailable"],
      examples: [
        {
          name: "A deployment that hangs",
          params: { name: "production", reason: "hangs since noon" },
          result: { broken: true },
        },
      ],
    }),
  },
  notifications: {
    /** Sent when a third of the ttl is left. */
    expiring: notification({
      summary: "A lease of this connection is about to end unless it is renewed",
      params: z.strictObject({ name, leaseId, fencingToken, expiresAt, remainingMs }),
      example: {
        name: "A third of 30 s is left",
        params: {
          name: "production",
          leaseId: LEASE_ID,
          fencingToken: 1,
          expiresAt: 1_750_000_030_000,
          remainingMs: 10_000,
        },
      },
    }),

    lost: notification({
      summary: "A lease of this connection has ended without being released: stop writing",
      params: z.strictObject({
        name,
        leaseId,
        fencingToken,
        cause: z.enum(["expired", "broken"]).meta({ description: `How it ended. ${EXPIRED}` }),
        reason: note.nullable().meta({ description: "Why it was broken, in the words of whoever did." }),
      }),
      example: {
        name: "Broken by hand",
        params: {
          name: "production",
          leaseId: LEASE_ID,
          fencingToken: 1,
          cause: "broken",
          reason: "hangs since noon",
        },
      },
    }),
  },
});

function areDifferent(labels: readonly string[]): boolean {
  return new Set(labels).size === labels.length;
}

import { z } from "zod";
import { MAX_LEASE_MS, MAX_NOTE_LENGTH, MIN_LEASE_MS } from "./limits.js";
import { method, notification, noun } from "./method.js";
import {
  duration,
  instant,
  integer,
  label,
  leaseMs,
  limit,
  named,
  releaseOn,
  text,
  waitMs,
} from "./schemas.js";

const name = label.meta({ description: "What the lease is for: a database, a branch, a directory." });
const owner = label.meta({ description: "A label for people. It proves nothing; the leaseId does." });
const leaseId = label.meta({
  description: "Secret and random. Whoever has it can renew and release the lease.",
});
const fencingToken = integer.min(1).meta({
  description: "Greater than that of every earlier holder of the name, for ever.",
});
const note = text.max(MAX_NOTE_LENGTH).meta({ description: "Shown to others by lease.get." });

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
    acquiredAt,
    expiresAt,
    remainingMs,
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
const heldByDeploy: z.output<typeof holder> = {
  name: "production",
  owner: "deploy-17",
  fencingToken: 1,
  acquiredAt: 1_750_000_000_000,
  expiresAt: 1_750_000_030_000,
  remainingMs: 30_000,
  waiters: 0,
  note: "release 4.2",
  pid: 4711,
  uid: 1000,
};

export const LEASE = noun("lease", {
  description: "Names that one holder has at a time, with tokens that only go up.",
  methods: {
    acquire: method({
      summary: "Take the lease of a name, or wait for it",
      params: z.strictObject({
        name,
        owner,
        ttlMs: leaseMs,
        waitMs,
        releaseOn,
        note: note.optional(),
      }),
      result: z.strictObject({
        lease: named(
          "Lease",
          "A lease as its holder has it.",
          z.strictObject({ name, leaseId, fencingToken, owner, acquiredAt, expiresAt, remainingMs }),
        ),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["lease_held", "exhausted", "provider_unavailable"],
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
              acquiredAt: 1_750_000_000_000,
              expiresAt: 1_750_000_030_000,
              remainingMs: 30_000,
            },
          },
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
          params: { leaseId: "ls_5bKz8wNgR3uXcT0Q7yVvJm" },
          result: { released: true },
        },
      ],
    }),

    get: method({
      summary: "Who holds a name, until when, and how many wait for it",
      params: z.strictObject({ name }),
      result: z.strictObject({ lease: holder.nullable().meta({ description: "Null if nobody holds it." }) }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["provider_unavailable"],
      examples: [
        { name: "A name that is held", params: { name: "production" }, result: { lease: heldByDeploy } },
        { name: "One that is free", params: { name: "staging" }, result: { lease: null } },
      ],
    }),

    list: method({
      summary: "The leases that are held, by name",
      params: z.strictObject({
        after: label.optional().meta({ description: "`next` of the page before." }),
        limit,
      }),
      result: z.strictObject({
        leases: z.array(holder).meta({ description: "By name." }),
        next: label.optional().meta({ description: "There are more: ask again with it as `after`." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [{ name: "One is held", params: {}, result: { leases: [heldByDeploy] } }],
    }),

    check: method({
      summary:
        "Whether a fencing token is the current holder's: what a resource asks before it accepts a write",
      params: z.strictObject({ name, fencingToken }),
      result: z.strictObject({
        current: z.boolean().meta({ description: "Never true of a token below `highest`." }),
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
      params: z.strictObject({
        name,
        reason: note.min(1).meta({ description: "Logged, and told to the holder." }),
      }),
      result: z.strictObject({ broken: z.boolean().meta({ description: "False if nobody held it." }) }),
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
        cause: z.enum(["expired", "broken"]).meta({ description: "How it ended." }),
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

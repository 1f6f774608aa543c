import { z } from "zod";
import { MAX_LEASE_MS, MAX_NOTE_LENGTH, MIN_LEASE_MS } from "./limits.js";
import { method, notification, noun } from "./method.js";
import { duration, instant, integer, label, leaseMs, limit, releaseOn, text, waitMs } from "./schemas.js";

const name = label.meta({ description: "What the lease is for: a database, a branch, a directory." });
const owner = label.meta({ description: "A label for people. It proves nothing; the leaseId does." });
const leaseId = label.meta({
  description: "Secret and random. Whoever has it can renew and release the lease.",
});
const fencingToken = integer.min(1).meta({
  description: "Greater than that of every earlier holder of the name, for ever.",
});
const note = text.max(MAX_NOTE_LENGTH).meta({ description: "Shown to others by lease.get." });

/** A holder as others may know it: never the leaseId. */
const holder = z.strictObject({
  name,
  owner,
  fencingToken,
  acquiredAt: instant,
  expiresAt: instant,
  remainingMs: duration,
  waiters: integer.nullable().meta({
    description: "How many wait for the name; null from a daemon that only reads (--read-only).",
  }),
  note: note.nullable(),
  pid: integer
    .nullable()
    .meta({ description: "The holder's process, as the kernel told; null if it did not." }),
  uid: integer.nullable(),
});

export const LEASE = noun("lease", {
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
        lease: z.strictObject({
          name,
          leaseId,
          fencingToken,
          owner,
          acquiredAt: instant,
          expiresAt: instant,
          remainingMs: duration,
        }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["lease_held", "exhausted", "provider_unavailable"],
    }),

    heartbeat: method({
      summary: "Keep a lease for its ttl from now on",
      params: z.strictObject({
        leaseId,
        ttlMs: z.int().min(MIN_LEASE_MS).max(MAX_LEASE_MS).optional().meta({
          description: "How long the lease lasts from now on; what it was acquired for, if not given.",
        }),
      }),
      result: z.strictObject({ expiresAt: instant, remainingMs: duration }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["lease_lost", "provider_unavailable"],
    }),

    release: method({
      summary: "Give a lease back; false if it was already gone",
      params: z.strictObject({ leaseId }),
      result: z.strictObject({ released: z.boolean() }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["provider_unavailable"],
    }),

    get: method({
      summary: "Who holds a name, until when, and how many wait for it",
      params: z.strictObject({ name }),
      result: z.strictObject({ lease: holder.nullable() }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["provider_unavailable"],
    }),

    list: method({
      summary: "The leases that are held, by name",
      params: z.strictObject({
        after: label.optional().meta({ description: "`next` of the page before." }),
        limit,
      }),
      result: z.strictObject({ leases: z.array(holder), next: label.optional() }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
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
    }),

    break: method({
      summary: "End a lease by force; the next holder's token is higher all the same",
      params: z.strictObject({
        name,
        reason: note.min(1).meta({ description: "Logged, and told to the holder." }),
      }),
      result: z.strictObject({ broken: z.boolean() }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["provider_unavailable"],
    }),
  },
  notifications: {
    /** Sent when a third of the ttl is left. */
    expiring: notification({
      summary: "A lease of this connection is about to end unless it is renewed",
      params: z.strictObject({ name, leaseId, fencingToken, expiresAt: instant, remainingMs: duration }),
    }),

    lost: notification({
      summary: "A lease of this connection has ended without being released: stop writing",
      params: z.strictObject({
        name,
        leaseId,
        fencingToken,
        cause: z.enum(["expired", "broken"]),
        reason: note.nullable().meta({ description: "Why it was broken, in the words of whoever did." }),
      }),
    }),
  },
});

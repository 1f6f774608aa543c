import { z } from "zod";
import {
  DEFAULT_LEASE_MS,
  MAX_GRACE_MS,
  MAX_LEASE_MS,
  MAX_NOTE_LENGTH,
  MAX_PATH_HOLDERS,
  MAX_PATH_LENGTH,
  MAX_RESERVED_PATTERNS,
  MIN_LEASE_MS,
} from "./limits.js";
import { method, notification, noun } from "./method.js";
import {
  awaitsChildren,
  duration,
  EXPIRED,
  instant,
  integer,
  label,
  limit,
  named,
  onLoss,
  task,
  text,
  waitMs,
} from "./schemas.js";

const root = text.min(1).max(MAX_PATH_LENGTH).meta({
  description:
    "An absolute directory, such as the top of a git work tree. It is text: nothing looks at the file system, and different roots never conflict.",
});
/** Also a long path, as the pattern that fits it alone. */
const pattern = text
  .min(1)
  .max(3 * MAX_PATH_LENGTH)
  .meta({
    description:
      "Relative to the root. Within a segment `?`, `*` and `[a-z]`; `**` for any number of segments; a final `/` for all that is below. No `..`, backslash, brace or negation. A path of `files` is shown as the pattern that it alone fits.",
  });
const path = text.min(1).max(MAX_PATH_LENGTH).meta({ description: "A path, relative to the root." });
const reservationId = label.meta({
  description: "Secret and random. Whoever has it can renew, add to and release the reservation.",
});
const owner = label.meta({ description: "A label for people. It proves nothing; the reservationId does." });
const MODES = ["write", "read"] as const;
const mode = z.enum(MODES).meta({
  description: "`read`: together with any number of others that read, and nobody who writes.",
});
const fencingToken = integer.min(1).meta({
  description: "Greater than that of every earlier grant below the root, for ever.",
});
const note = text.max(MAX_NOTE_LENGTH).meta({ description: "Shown to others." });
const expiresAt = instant.meta({
  description: "When it ends unless it is renewed, in milliseconds since the Unix epoch.",
});
const remainingMs = duration.meta({ description: "Milliseconds until then." });
const patterns = z.array(pattern);
const pid = integer
  .nullable()
  .meta({ description: "The holder's process, as the kernel told; null if it did not." });
const uid = integer
  .nullable()
  .meta({ description: "The holder's user, as the kernel told; null if it did not." });
const ttlMs = z.int().min(MIN_LEASE_MS).max(MAX_LEASE_MS).optional();
const cursor = z.string().regex(/^[0-9]{1,16}$/);

// The example of each method is a step of one story, in the order of the methods.
const RESERVATION_ID = "path_0Q7yVvJmR3uXcT5bKz8wNg";
const ends = { expiresAt: 1_750_000_030_000, remainingMs: 30_000 };

export const PATH = noun("path", {
  description: "Files that are reserved by patterns, for those who edit one tree at a time.",
  methods: {
    reserve: method({
      summary: "Reserve paths by patterns: all of them or none, or wait for them",
      description:
        "Two reservations of one root conflict when some path fits a pattern of each and one of them writes: the intersection of the patterns decides, never a comparison of their text. Whoever waits is served in the order of arrival: nobody is granted what an earlier one waits for, and nobody waits for more than that. Files are literal paths. With `reservationId` the paths are added to a reservation of one's own, which has a new token then, and lasts as if it was renewed.",
      params: z
        .strictObject({
          root,
          owner,
          patterns: patterns.max(MAX_RESERVED_PATTERNS).optional().meta({
            description: "Relative to the root, such as `src/*.ts`, `docs/` and `**/package.json`.",
          }),
          files: z.array(path).max(MAX_RESERVED_PATTERNS).optional().meta({
            description: "Literal paths, in which no character has a meaning of its own.",
          }),
          reservationId: reservationId.optional().meta({
            description: "One's own reservation, to add to; its root, owner and mode stay what they are.",
          }),
          mode: mode.optional().meta({
            description:
              "`write` if not given. `read`: together with any number of others that read, and nobody who writes.",
          }),
          ttlMs: ttlMs.meta({
            description: `How many milliseconds it lasts unless it is renewed; ${DEFAULT_LEASE_MS} if not given, and what it was reserved for where paths are added.`,
          }),
          waitMs,
          releaseOn: z.enum(["expiry", "disconnect"]).optional().meta({
            description: "`expiry` if not given. `disconnect` also ends it the moment the connection closes.",
          }),
          graceMs: z.int().min(0).max(MAX_GRACE_MS).optional().meta({
            description:
              "With `releaseOn: disconnect`, how many milliseconds a holder whose connection has closed has to come back: renewed on another one, the reservation is bound to that. 0 if not given. It never outlives its own end.",
          }),
          note: note.optional(),
          onLoss: onLoss.optional().meta({
            description:
              "Has the daemon end the process that opened the connection when the reservation is lost (expired, broken or cut off, not released): it is sent the signal, killed later, and nobody else is granted the paths before it has ended and the connection has closed. `forbidden` where the daemon may not signal it, `invalid_params` where it is not known for certain.",
          }),
          task: task.optional(),
          awaitsChildren: awaitsChildren.optional(),
        })
        .refine(({ patterns: some = [], files = [] }) => some.length + files.length > 0, {
          error: "must have `patterns` or `files`",
        })
        .refine(
          ({ releaseOn, graceMs = 0, reservationId: own }) =>
            graceMs === 0 || releaseOn === "disconnect" || own !== undefined,
          {
            error: "is for reservations with `releaseOn: disconnect`, and this one ends by its time alone",
            path: ["graceMs"],
          },
        ),
      result: z.strictObject({
        reservation: named(
          "Reservation",
          "A reservation as its holder has it.",
          z.strictObject({
            reservationId,
            root: root.meta({ description: "In its one form: without `.` and double slashes." }),
            patterns: patterns.meta({ description: "All that it has, in their one form." }),
            mode,
            fencingToken,
            expiresAt,
            remainingMs,
          }),
        ),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: ["lease_held", "lease_lost", "would_deadlock", "exhausted"],
      examples: [
        {
          name: "Everything below a directory, and one file with brackets in its name",
          params: {
            root: "/home/ada/shop",
            patterns: ["src/cart/", "test/cart-*.ts"],
            files: ["app/[id]/page.tsx"],
            owner: "agent-1",
            note: "the cart's totals",
          },
          result: {
            reservation: {
              reservationId: RESERVATION_ID,
              root: "/home/ada/shop",
              patterns: ["src/cart/", "test/cart-*.ts", "app/[[]id]/page.tsx"],
              mode: "write",
              fencingToken: 1,
              ...ends,
            },
          },
        },
        {
          name: "One more, for the same",
          params: {
            root: "/home/ada/shop",
            patterns: ["src/*.css"],
            reservationId: RESERVATION_ID,
            owner: "agent-1",
          },
          result: {
            reservation: {
              reservationId: RESERVATION_ID,
              root: "/home/ada/shop",
              patterns: ["src/cart/", "test/cart-*.ts", "app/[[]id]/page.tsx", "src/*.css"],
              mode: "write",
              fencingToken: 2,
              ...ends,
            },
          },
        },
      ],
    }),

    heartbeat: method({
      summary: "Keep a reservation for its ttl from now on",
      params: z.strictObject({
        reservationId,
        ttlMs: ttlMs.meta({
          description: "How long it lasts from now on; what it was reserved for, if not given.",
        }),
        note: note.optional().meta({ description: "In the place of the note that it has." }),
      }),
      result: z.strictObject({ expiresAt, remainingMs }),
      writes: true,
      repeatable: true,
      transactable: true,
      errors: ["lease_lost"],
      examples: [
        {
          name: "For a minute from now on",
          params: { reservationId: RESERVATION_ID, ttlMs: 60_000 },
          result: { expiresAt: 1_750_000_070_000, remainingMs: 60_000 },
        },
      ],
    }),

    release: method({
      summary: "Give a reservation back, or some of its patterns",
      params: z.strictObject({
        reservationId,
        patterns: patterns.max(MAX_RESERVED_PATTERNS).optional().meta({
          description: "The patterns to give back, as `path.reserve` answered them; all, if not given.",
        }),
      }),
      result: z.strictObject({
        released: z.boolean().meta({ description: "False if nothing of that was held any more." }),
        patterns: patterns.meta({ description: "What is left of it; without any it has ended." }),
      }),
      writes: true,
      repeatable: false,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "Others may write the style sheets again",
          params: { reservationId: RESERVATION_ID, patterns: ["src/*.css"] },
          result: { released: true, patterns: ["src/cart/", "test/cart-*.ts", "app/[[]id]/page.tsx"] },
        },
      ],
    }),

    check: method({
      summary: "Whether a path may be written: what an editor or a hook asks before it does",
      params: z
        .strictObject({
          root,
          path,
          reservationId: reservationId.optional().meta({ description: "One's own reservation." }),
          owner: owner.optional().meta({ description: "All reservations of this owner are one's own." }),
        })
        .refine(({ reservationId: id, owner: who }) => id === undefined || who === undefined, {
          error: "must have `reservationId` or `owner`, not both",
        }),
      result: z.strictObject({
        allowed: z.boolean().meta({ description: "True if no reservation of others stands in the way." }),
        holders: z
          .array(
            named(
              "PathHolder",
              "A reservation of somebody else that the path fits.",
              z.strictObject({
                owner,
                pattern: pattern.meta({ description: "The pattern that the path fits." }),
                mode,
                expiresAt,
                note: note.nullable().meta({ description: "What the holder says of it; null for nothing." }),
                pid,
              }),
            ),
          )
          .meta({ description: `The earliest first; of more than ${MAX_PATH_HOLDERS} so many.` }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: ["exhausted"],
      examples: [
        {
          name: "Somebody else works there",
          params: { root: "/home/ada/shop", path: "src/cart/total.ts", owner: "agent-2" },
          result: {
            allowed: false,
            holders: [
              {
                owner: "agent-1",
                pattern: "src/cart/",
                mode: "write",
                expiresAt: 1_750_000_070_000,
                note: "the cart's totals",
                pid: 4711,
              },
            ],
          },
        },
        {
          name: "One's own",
          params: { root: "/home/ada/shop", path: "src/cart/total.ts", reservationId: RESERVATION_ID },
          result: { allowed: true, holders: [] },
        },
      ],
    }),

    list: method({
      summary: "The reservations that are held, the earliest first",
      params: z.strictObject({
        root: root.optional().meta({ description: "Only of this root." }),
        owner: owner.optional().meta({ description: "Only of this owner." }),
        after: cursor.optional().meta({ description: "`next` of the page before." }),
        limit,
      }),
      result: z.strictObject({
        reservations: z
          .array(
            named(
              "ReservationHolder",
              "A reservation as others may know it: never the reservationId.",
              z.strictObject({
                root,
                patterns: patterns.meta({ description: "In the order in which they were given." }),
                mode,
                owner,
                fencingToken,
                acquiredAt: instant.meta({
                  description: "When it was granted, in milliseconds since the Unix epoch.",
                }),
                expiresAt,
                remainingMs,
                note: note.nullable().meta({ description: "What the holder says of it; null for nothing." }),
                pid,
                uid,
                ending: z.boolean().optional().meta({
                  description:
                    "True of a reservation that is lost, while nobody is granted it because this holder's process has not ended (`onLoss`).",
                }),
              }),
            ),
          )
          .meta({ description: "The earliest first." }),
        next: cursor.optional().meta({ description: "There are more: ask again with it as `after`." }),
      }),
      writes: false,
      repeatable: true,
      transactable: true,
      errors: [],
      examples: [
        {
          name: "Of one tree",
          params: { root: "/home/ada/shop" },
          result: {
            reservations: [
              {
                root: "/home/ada/shop",
                patterns: ["src/cart/", "test/cart-*.ts", "app/[[]id]/page.tsx"],
                mode: "write",
                owner: "agent-1",
                fencingToken: 2,
                acquiredAt: 1_750_000_000_000,
                expiresAt: 1_750_000_070_000,
                remainingMs: 60_000,
                note: "the cart's totals",
                pid: 4711,
                uid: 1000,
              },
            ],
          },
        },
      ],
    }),
  },
  notifications: {
    lost: notification({
      summary: "A reservation of this connection has ended without being released: stop writing",
      params: z.strictObject({
        reservationId,
        root,
        fencingToken,
        cause: z.enum(["expired"]).meta({ description: `How it ended. ${EXPIRED}` }),
      }),
      example: {
        name: "Nobody renewed it",
        params: { reservationId: RESERVATION_ID, root: "/home/ada/shop", fencingToken: 2, cause: "expired" },
      },
    }),
  },
});

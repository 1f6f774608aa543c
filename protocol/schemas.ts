import { z } from "zod";
import {
  DEFAULT_LEASE_MS,
  DEFAULT_LOSS_GRACE_MS,
  DEFAULT_RETRY_BASE_MS,
  DEFAULT_RETRY_FACTOR,
  DEFAULT_RETRY_MAX_MS,
  MAX_BATCH_DELAY_MS,
  MAX_GRACE_MS,
  MAX_INTEGER,
  MAX_LEASE_MS,
  MAX_LEASE_NAME_LENGTH,
  MAX_NAME_LENGTH,
  MAX_RETRY_FACTOR,
  MAX_WAIT_MS,
  MIN_LEASE_MS,
} from "./limits.js";
import { LOSS_SIGNALS } from "./values.js";

// Schemas that several nouns share.

/**
 * An object that has a name in the documents: one schema under `components.schemas`, one type in every language.
 * `name` is unique, in upper camel case. Params that use it are closed, results open.
 */
export function named<S extends z.ZodType>(name: string, description: string, schema: S): S {
  return schema.meta({ id: name, title: name, description });
}

export const integer = z.int().min(0).max(MAX_INTEGER);
export const instant = integer.meta({ description: "Milliseconds since the Unix epoch." });
export const duration = integer.meta({ description: "Milliseconds." });
const NOT_KEPT_AS_IT_IS = /[\0\p{Surrogate}]/u;
/**
 * Text that stays what it is in a database: no NUL, no lone surrogates, which would fold into one another. The rule is
 * checked and not published, because the languages of clients have no pattern in common that says it.
 */
export const text = z
  .string()
  .refine((value) => !NOT_KEPT_AS_IT_IS.test(value), { error: "must not hold NUL or lone surrogates" });
/** Any label of 1 to 128 characters, such as a queue or an owner. */
export const label = text.min(1).max(MAX_NAME_LENGTH);
/** What a lease is for. */
export const leaseName = text.min(1).max(MAX_LEASE_NAME_LENGTH);
/** Any JSON value, taken as it comes. */
export const json = z.unknown().meta({ description: "Any JSON value." });

/** The one name that `z.record` drops without a word. */
const DROPPED_NAME = "__proto__";

/**
 * An object by names of the caller's own, as a param: of so many names at most, which is found before any of them is
 * looked at. It refuses the name that could not be kept.
 */
export function byName<K extends z.core.$ZodRecordKey, V extends z.ZodType>(
  names: K,
  values: V,
  { max, of }: { max: number; of: string },
) {
  const record = z.record(names, values).meta({ maxProperties: max });
  const checked = z.preprocess((given, context) => {
    if (typeof given !== "object" || given === null) return given;
    if (Object.keys(given).length > max) {
      // What follows a fault here is not checked.
      context.addIssue({ code: "custom", message: `must hold at most ${max} ${of}` });
    } else if (Object.hasOwn(given, DROPPED_NAME)) {
      const issues = [{ code: "custom" as const, message: "must be another one", path: [] }];
      context.addIssue({ code: "invalid_key", origin: "record", path: [DROPPED_NAME], issues });
    }
    return given;
  }, record);
  // What is checked before could be anything; what is to be given is what the record takes.
  return checked as unknown as z.ZodType<z.output<typeof record>, z.input<typeof record>>;
}

export const waitMs = z.int().min(0).max(MAX_WAIT_MS).default(0).meta({
  description: "How many milliseconds to wait for the condition to come true; 0 answers at once.",
});
export const leaseMs = z.int().min(MIN_LEASE_MS).max(MAX_LEASE_MS).default(DEFAULT_LEASE_MS).meta({
  description: "How many milliseconds the grant lasts unless it is renewed.",
});
export const releaseOn = z.enum(["expiry", "disconnect"]).default("expiry").meta({
  description: "`disconnect` also ends the grant the moment the connection closes.",
});
export const task = label.meta({
  description:
    "A label of what it is held for: what one process holds and waits for under it belongs together, where circles of waits are looked for.",
});
export const awaitsChildren = z.boolean().meta({
  description: "The holder waits for its child processes, and so for what they wait for.",
});
export const graceMs = z.int().min(0).max(MAX_GRACE_MS).default(0).meta({
  description:
    "With `releaseOn: disconnect`, how many milliseconds a holder whose connection has closed has to come back: renewed on another one, the grant is bound to that. It never outlives its own end.",
});
/** What the cause `expired` of a grant that is lost says. */
export const EXPIRED =
  "`expired`: it was not renewed in time, or could not be: the daemon is cut off from the database or the provider that keeps it, and others may be granted it soon.";
export const onLoss = named(
  "OnLoss",
  "How the process that opened the connection is ended when the grant is lost.",
  z.strictObject({
    signal: z.enum(LOSS_SIGNALS).default("SIGTERM").meta({
      description: "What it is sent first, and then SIGCONT, lest a stopped process never see it.",
    }),
    graceMs: z.int().min(0).max(MAX_GRACE_MS).default(DEFAULT_LOSS_GRACE_MS).meta({
      description: "After so many milliseconds it is killed (SIGKILL), if it has not ended by then.",
    }),
  }),
);
export const limit = z.int().min(1).max(1000).default(100).meta({ description: "Most rows to return." });

const rest = integer.max(MAX_BATCH_DELAY_MS);
export const retry = named(
  "Retry",
  "How long a batch or a command rests after a delivery that ended without success: `baseMs * factor^(n - 1)`, at most `maxMs`.",
  z.strictObject({
    baseMs: rest
      .default(DEFAULT_RETRY_BASE_MS)
      .meta({ description: "The rest after the first, in milliseconds." }),
    factor: z
      .number()
      .min(1)
      .max(MAX_RETRY_FACTOR)
      .default(DEFAULT_RETRY_FACTOR)
      .meta({ description: "How many times longer each rest is than the one before." }),
    maxMs: rest.default(DEFAULT_RETRY_MAX_MS).meta({ description: "The longest rest, in milliseconds." }),
    jitter: z.boolean().default(true).meta({
      description: "Whether it rests for a random time, from half of the rest to all of it.",
    }),
  }),
);
/** How long a batch or a command rests after deliveries that ended without success. */
export type Retry = z.output<typeof retry>;

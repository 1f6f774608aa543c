import { z } from "zod";
import { duration, instant, integer, method } from "./method.js";
import { mode } from "./sequence.js";

const count = integer;
/** Milliseconds with decimals. */
const milliseconds = z.number().min(0);

export const ping = method({
  name: "daemon.ping",
  summary: "Whether the daemon serves, and its clock",
  params: z.strictObject({}),
  result: z.strictObject({ now: instant }),
  writes: false,
  transactable: false,
  errors: [],
});

export const info = method({
  name: "daemon.info",
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
  }),
  writes: false,
  transactable: false,
  errors: [],
});

export const stats = method({
  name: "daemon.stats",
  summary: "Counters since the start, and gauges of this moment",
  params: z.strictObject({}),
  result: z.strictObject({
    uptimeMs: duration,
    memoryBytes: integer,
    connections: z.strictObject({ open: count, accepted: count, waiting: count }),
    requests: z.record(z.string(), count).meta({ description: "Calls by method." }),
    errors: z.record(z.string(), z.record(z.string(), count)).meta({
      description: "Errors by method, then by kind; lines that name no method count under `-`.",
    }),
    turns: z.strictObject({ total: count, committed: count, rolledBack: count, operations: count }),
    operationsPerTurn: z.strictObject({ p50: z.number(), p99: z.number(), max: z.number() }),
    commitMs: z.strictObject({ p50: milliseconds, p99: milliseconds, max: milliseconds }),
    sequences: z.strictObject({ dispensed: count }),
    database: z.strictObject({ bytes: integer, walBytes: integer }),
  }),
  writes: false,
  transactable: false,
  errors: [],
});

export const discover = method({
  name: "rpc.discover",
  summary: "The OpenRPC document of every method",
  params: z.strictObject({}),
  result: z.record(z.string(), z.unknown()),
  writes: false,
  transactable: false,
  errors: [],
});

// The rules are written once, for stores that answer at once and for stores that are asked over a network:
// a driver that awaits between all steps has to come to the same results and the same rows.
// Not over shared names: it is about both databases.
import { createHash } from "node:crypto";
import type { MethodName, Params } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import { MAX_INTEGER } from "@pawl/protocol/limits";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { TimeSource } from "../../daemon/dist/clock.js";
import { AsynchronousInProcess } from "../asynchronous.js";
import { madeForTests } from "../daemon.js";
import { contentOf, InProcess, type InProcessOptions } from "../in-process.js";
import { sized } from "../long-form.js";
import { HAS_POSTGRESQL, PostgreSql } from "../postgresql.js";

/** Over PostgreSQL, for each way in which it is asked. */
const RUNS = sized(300, 1);
const RUNS_MS = sized(300_000, 10_000);
/** What has failed is made smaller afterwards. */
const TIME_LIMIT_MS = 2 * RUNS_MS + 120_000;

/** Random numbers that are the same for both drivers, since they decide how long batches rest. */
function drawn(): (bytes: number) => Buffer {
  let times = 0;
  return (bytes) => {
    times += 1;
    return createHash("shake256", { outputLength: bytes }).update(`${times}`).digest();
  };
}

const START = 1_750_000_000_000;
const CONNECTIONS = [1, 2];

/** The grants of earlier answers, by the ids that later calls name them by. */
interface Granted {
  batches: string[];
  claims: { claimId: string; leaseToken: string }[];
  leases: string[];
  tokens: { name: string; fencingToken: number }[];
  commands: string[];
  deliveries: { commandId: string; leaseId: string }[];
  reservations: { reservationId: string; owner: string; fencingToken: number }[];
}

type Call = { [N in MethodName]: { method: N; params: Params<N> } }[MethodName];
/** A call, once it is known what there is; time that passes; or a connection that ends. */
type Event = ((granted: Granted) => Call | undefined) | { passMs: number } | { disconnect: number };

const pick = fc.nat({ max: 5 });
const type = fc.constantFrom("FR", "fr", "BUG");
const queue = fc.constantFrom("a", "b");
const name = fc.constantFrom("x", "y");
const deployment = fc.constantFrom("here", "there");
const ms = fc.constantFrom(1000, 60_000);
const releaseOn = fc.constantFrom("expiry" as const, "disconnect" as const);
const optional = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.option(value, { nil: undefined });

/** A call whose params need nothing of before. */
function of<N extends MethodName>(method: N, params: fc.Arbitrary<Params<N>>): fc.Arbitrary<Event> {
  return params.map((given) => () => ({ method, params: JSON.parse(JSON.stringify(given)) }) as Call);
}

/** A call about something that was granted before; none if nothing was. */
function about<K extends keyof Granted, N extends MethodName>(
  kind: K,
  method: N,
  paramsOf: (granted: Granted[K][number]) => Params<N>,
): fc.Arbitrary<Event> {
  return pick.map((index) => (granted) => {
    const all = granted[kind];
    const one = all.at(-1 - (index % Math.max(all.length, 1))) as Granted[K][number] | undefined;
    return one === undefined ? undefined : ({ method, params: paramsOf(one) } as Call);
  });
}

const sequences = fc.oneof(
  of("sequence.next", fc.record({ type, requestId: optional(fc.constantFrom("r", "s")) }) as never),
  of("sequence.reserve", fc.record({ type, count: fc.integer({ min: 1, max: 5 }) })),
  of("sequence.advance", fc.record({ type, to: fc.constantFrom(7, 1_000_000, MAX_INTEGER - 1) })),
  of("sequence.peek", fc.record({ type })),
  of("sequence.format", fc.record({ type, seq: fc.constantFrom(1, 1_000_000) })),
  of("sequence.parse", fc.record({ id: fc.constantFrom("FR-001", "FR-7-00012") })),
  of("sequence.state", fc.constant({})),
);

const enqueued = fc.record({
  queue,
  payloads: fc.constantFrom<unknown[]>([1], [2, "two"]),
  sourceKey: optional(fc.constantFrom("k", "l")),
  slotPolicy: fc.constantFrom("join", "exclusive"),
  mergeKey: fc.constantFrom("payload_default", "never"),
  maxAttempts: fc.constantFrom(1, 2, 20),
  delayMs: fc.constantFrom(0, 0, 2000),
}) as fc.Arbitrary<Params<"queue.enqueue">>;

const queues = fc.oneof(
  of("queue.enqueue", enqueued),
  of(
    "queue.enqueueMany",
    fc.record({ batches: fc.array(enqueued, { minLength: 1, maxLength: 3 }) }) as never,
  ),
  of(
    "queue.claim",
    fc.record({ queue, owner: name, leaseMs: ms, maxBatches: fc.constantFrom(1, 3), releaseOn }),
  ),
  of(
    "queue.claim",
    fc.record({ queue, owner: name, leaseMs: ms, maxBatches: fc.constantFrom(1, 3), releaseOn }),
  ),
  about("claims", "queue.complete", (claim) => claim),
  about("claims", "queue.renew", (claim) => ({ ...claim, leaseMs: 5000 })),
  about("claims", "queue.abandon", (claim) => ({ ...claim, error: "no luck" })),
  about("batches", "queue.cancel", (batchId) => ({ batchId })),
  about("batches", "queue.retry", (batchId) => ({ batchId })),
  about("batches", "queue.get", (batchId) => ({ batchId })),
  of("queue.list", fc.record({ queue })),
  of("queue.stats", fc.constant({})),
  of("queue.explain", fc.record({ queue })),
);

/** Disabled ones: what comes by itself is the turn loop's, and not driven with awaits (see schedule.test.ts). */
const schedules = fc.oneof(
  of(
    "schedule.set",
    fc.record({
      name,
      cron: fc.constantFrom("* * * * *", "@hourly"),
      queue,
      payloads: fc.constantFrom([3], [4]),
      enabled: fc.constant(false),
    }),
  ),
  of("schedule.get", fc.record({ name })),
  of("schedule.list", fc.constant({})),
  of("schedule.run", fc.record({ name })),
  of("schedule.next", fc.record({ cron: fc.constant("30 2 * * *"), count: fc.constantFrom(1, 30) })),
  of("schedule.delete", fc.record({ name })),
);

const leases = fc.oneof(
  of("lease.acquire", fc.record({ name, owner: name, ttlMs: ms, releaseOn })),
  about("leases", "lease.heartbeat", (leaseId) => ({ leaseId })),
  about("leases", "lease.release", (leaseId) => ({ leaseId })),
  about("tokens", "lease.check", (token) => token),
  of("lease.get", fc.record({ name })),
  of("lease.list", fc.constant({})),
  of("lease.break", fc.record({ name, reason: fc.constant("gone") })),
);

const root = fc.constantFrom("/a", "/b");
const pattern = fc.constantFrom("src/", "src/a*", "src/*.ts", "**/index.ts", "docs/**", "b");
const mode = fc.constantFrom("write", "write", "read");
const patterns = fc.array(pattern, { minLength: 1, maxLength: 3 });
const reserved = fc.record({ root, patterns, owner: name, mode, ttlMs: ms, releaseOn });

const paths = fc.oneof(
  of("path.reserve", reserved as never),
  about("reservations", "path.reserve", ({ reservationId, owner }) => ({
    root: "/a",
    patterns: ["more/", "src/"],
    owner,
    reservationId,
  })),
  about("reservations", "path.heartbeat", ({ reservationId }) => ({ reservationId })),
  about("reservations", "path.release", ({ reservationId }) => ({ reservationId })),
  about("reservations", "path.release", ({ reservationId }) => ({ reservationId, patterns: ["src/"] })),
  of(
    "path.check",
    fc.record({ root, path: fc.constantFrom("src/a.ts", "docs", "b"), owner: optional(name) }) as never,
  ),
  of("path.list", fc.record({ root: optional(root), owner: optional(name) }) as never),
);

const commands = fc.oneof(
  of("deployment.set", fc.record({ deployment, model: fc.constantFrom("pull", "pull", "push") })),
  of(
    "command.create",
    fc.record({
      deployment,
      command: name,
      params: fc.constantFrom<unknown>(1, { a: [] }),
      idempotencyKey: optional(fc.constantFrom("k", "l")),
      maxAttempts: fc.constantFrom(1, 3),
      ttlMs: optional(fc.constantFrom(3000, 90_000)),
    }) as never,
  ),
  of(
    "command.lease",
    fc.record({ deployment, owner: name, max: fc.constantFrom(1, 2), leaseMs: ms, releaseOn }),
  ),
  of(
    "command.lease",
    fc.record({ deployment, owner: name, max: fc.constantFrom(1, 2), leaseMs: ms, releaseOn }),
  ),
  about("deliveries", "command.respond", (delivery) => ({
    ...delivery,
    response: { status: "success" as const, response: { done: true } },
  })),
  about("deliveries", "command.renew", ({ leaseId }) => ({ leaseId })),
  about("deliveries", "command.release", ({ leaseId }) => ({ leaseId, delayMs: 1500 })),
  about("commands", "command.cancel", (commandId) => ({ commandId, reason: "not wanted" })),
  about("commands", "command.get", (commandId) => ({ commandId })),
  about("commands", "command.response", (commandId) => ({ commandId })),
  of("command.list", fc.constant({})),
  of("deployment.list", fc.constant({})),
);

const items = fc.oneof(
  of(
    "pipeline.write",
    fc.record({
      storyId: name,
      stage: fc.constantFrom("backlog", "done"),
      retryCountDelta: fc.constant(1),
    }) as never,
  ),
  of("pipeline.delete", fc.record({ storyId: name })),
  of("pipeline.list", fc.constant({})),
);

const together = fc
  .tuple(
    fc.array(
      fc.oneof(
        fc.record({ method: fc.constant("sequence.next"), params: fc.record({ type }) }),
        fc.record({ method: fc.constant("queue.enqueue"), params: enqueued }),
      ),
      { minLength: 1, maxLength: 3 },
    ),
    pick,
  )
  .map(
    ([calls, index]): Event =>
      (granted) => {
        const token = granted.tokens[index];
        const claim = granted.claims[index];
        const path = granted.reservations[index];
        return {
          method: "transact",
          params: JSON.parse(
            JSON.stringify({
              calls: claim === undefined ? calls : [...calls, { method: "queue.complete", params: claim }],
              guards: [
                ...(token === undefined ? [] : [{ lease: token }]),
                ...(path === undefined || index > 1 ? [] : [{ path: { ...path, owner: undefined } }]),
              ],
            }),
          ),
        };
      },
  );

const passing = fc.constantFrom(0, 1, 999, 2000, 61_000, 86_400_000).map((passMs): Event => ({ passMs }));
const ending = fc.constantFrom(...CONNECTIONS).map((disconnect): Event => ({ disconnect }));

const event = fc.oneof(
  { weight: 2, arbitrary: sequences },
  { weight: 6, arbitrary: queues },
  { weight: 2, arbitrary: schedules },
  { weight: 4, arbitrary: leases },
  { weight: 4, arbitrary: paths },
  { weight: 5, arbitrary: commands },
  { weight: 1, arbitrary: items },
  { weight: 2, arbitrary: together },
  { weight: 2, arbitrary: passing },
  { weight: 1, arbitrary: ending },
);

/** Everything that came of the calls: answers, notifications, and the rows that they left. */
async function outcomeOf(
  start: (options: InProcessOptions) => InProcess,
  events: readonly Event[],
  connections: readonly number[],
): Promise<string[]> {
  let passed = 0;
  const monotonic = (): number => passed;
  const time = { wall: () => START + passed, monotonic, boottime: monotonic, boot: "boot" } as TimeSource;
  const pawl = start({ time, random: drawn() });
  const granted: Granted = {
    batches: [],
    claims: [],
    leases: [],
    tokens: [],
    commands: [],
    deliveries: [],
    reservations: [],
  };
  const seen: unknown[] = [];
  for (const [index, each] of events.entries()) {
    if ("passMs" in each) {
      passed += each.passMs;
    } else if ("disconnect" in each) {
      pawl.disconnect(each.disconnect);
    } else {
      const call = each(granted);
      if (call === undefined) continue;
      const answer: unknown = await pawl
        .call(call.method, call.params as never, connections[index % connections.length])
        .catch((error: unknown) => error);
      if (!(answer instanceof Error)) note(granted, call, answer as never);
      seen.push([
        call.method,
        answer instanceof PawlError
          ? { kind: answer.kind, message: answer.message, details: answer.details }
          : answer instanceof Error
            ? `${answer.stack}`
            : answer,
      ]);
    }
  }
  await pawl.call("sequence.state", {});
  pawl.close();
  return [...seen, pawl.notified, ...rowsOfOperations(contentOf(pawl.path))].map(numbered());
}

/** Without the index of words, which is SQLite's own, and what opening a file writes. */
function rowsOfOperations(content: Record<string, unknown[]>): [string, unknown[]][] {
  return (Object.entries(content) as [string, Record<string, unknown>[]][])
    .filter(([table]) => !table.startsWith("pawl_text_index"))
    .map(([table, rows]) => {
      if (table === "pawl_meta") return [table, rows.filter(({ key }) => /_floor$/.test(key as string))];
      // Of level 0 it is a key that was given, of the others one of the file.
      if (table === "pawl_batch_level") return [table, rows.map(({ next: _, ...row }) => row)];
      if (!table.startsWith("pawl_command")) return [table, rows];
      return [table, rows.map(({ seq, ...row }) => ({ command_seq: seq, ...row }))];
    });
}

/** Keeps what an answer granted. */
function note(granted: Granted, { method, params }: Call, answer: Record<string, never>): void {
  const { batch, batches, claim, lease, leases, commandId, reservation } = answer as {
    batch?: { batchId: string };
    batches?: { batchId: string }[];
    claim?: { claimId: string; leaseToken: string } | null;
    lease?: { name: string; leaseId: string; fencingToken: number };
    leases?: { commandId: string; leaseId: string }[];
    commandId?: string;
    reservation?: { reservationId: string; fencingToken: number };
  };
  if (method === "queue.enqueue") granted.batches.push((batch as { batchId: string }).batchId);
  if (method === "queue.enqueueMany") granted.batches.push(...(batches ?? []).map(({ batchId }) => batchId));
  if (claim) granted.claims.push({ claimId: claim.claimId, leaseToken: claim.leaseToken });
  if (method === "lease.acquire" && lease !== undefined) {
    granted.leases.push(lease.leaseId);
    granted.tokens.push({ name: lease.name, fencingToken: lease.fencingToken });
  }
  if (reservation !== undefined)
    granted.reservations.push({ ...reservation, owner: (params as { owner: string }).owner });
  if (method === "command.create") granted.commands.push(commandId as string);
  if (method === "command.lease")
    granted.deliveries.push(
      ...(leases ?? []).map((each) => ({ commandId: each.commandId, leaseId: each.leaseId })),
    );
}

/** Columns that are different in each database. */
const OF_THE_FILE = new Set(["batch_key", "file"]);

/**
 * Keys that a database gives, by what they are of. PostgreSQL leaves some out, for rows that were there already and for
 * what was undone.
 */
const GIVEN_KEYS = new Map(
  Object.entries({
    batch: [
      "enqueueSeq",
      "enqueue_seq",
      "claim_seq",
      "last_seq",
      "after_seq",
      "told_seq",
      "follower_seq",
      "follows_seq",
      "offer_seq",
      "cancel_cause",
    ],
    command: ["command_seq"],
    queue: ["queue_id"],
    reservation: ["number"],
    root: ["root_id"],
    schedule: ["schedule_id"],
    incarnation: ["incarnation_id", "lease_incarnation_id"],
    change: ["n"],
  }).flatMap(([of, columns]) => columns.map((column) => [column, of] as const)),
);

/** Puts numbers in the place of what is random or given, in the order in which it is met. */
function numbered(): (value: unknown) => string {
  const met = new Map<string, string>();
  const keys = new Map<string, string>();
  const shown = (key: string, each: unknown): unknown => {
    if (OF_THE_FILE.has(key)) return undefined;
    // The numbers of changes: by field, that which set it, and the last ones.
    if (key === "set_by" || key === "recent") return numbersOfChanges(JSON.parse(each as string));
    const of = GIVEN_KEYS.get(key);
    if (of === undefined || each === null) return each;
    return keyOf(of, each);
  };
  const numbersOfChanges = (numbers: Readonly<Record<string, number>>): unknown =>
    Object.entries(numbers).map(([field, n]) => [field, keyOf("change", n)]);
  const keyOf = (of: string, each: unknown): string => {
    const given = `${of} ${each}`;
    const key = keys.get(given) ?? `${of} ${keys.size}`;
    keys.set(given, key);
    return key;
  };
  return (value) =>
    JSON.stringify(value, shown)
      .replaceAll(/qwc:(\d+):/g, (_, seq) => `qwc:${keyOf("batch", seq)}:`)
      .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{22}|[0-9a-f]{24,}|[\w+/-]{40,}=?/g, (random) => {
        const number = met.get(random) ?? `#${met.size}`;
        met.set(random, number);
        return number;
      });
}

test("all operations come to the same, driven with awaits between their steps", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(event, { minLength: 30, maxLength: 80, size: "max" }),
      fc.array(fc.constantFrom(...CONNECTIONS), { minLength: 1 }),
      async (events, connections) => {
        const expected = await outcomeOf(inSqlite, events, connections);
        const awaiting = (options: InProcessOptions) => new AsynchronousInProcess(options);
        expect(await outcomeOf(awaiting, events, connections)).toEqual(expected);
      },
    ),
    { numRuns: 15 },
  );
});

function inSqlite(options: InProcessOptions): InProcess {
  return new InProcess({ ...options, postgresql: null });
}

describe.skipIf(!HAS_POSTGRESQL)("over PostgreSQL", () => {
  const postgres = madeForTests((atEnd) => PostgreSql.start(atEnd));

  // Rows come in another order from one plan than from another, and nothing may rest on that.
  test.each([
    ["", "as it is"],
    ["-c enable_indexscan=off -c enable_indexonlyscan=off", "with rows as they lie there"],
    ["-c enable_seqscan=off -c enable_sort=off -c enable_hashagg=off", "with rows as indexes have them"],
  ])(
    "all operations come to the same as over SQLite: %s %s",
    async (options) => {
      const url = `${postgres().url()}&options=${encodeURIComponent(options)}`;
      const inPostgreSql = (given: InProcessOptions) => new InProcess({ ...given, postgresql: url });
      await fc.assert(
        fc.asyncProperty(
          fc.array(event, { minLength: 30, maxLength: 80, size: "max" }),
          fc.array(fc.constantFrom(...CONNECTIONS), { minLength: 1 }),
          async (events, connections) => {
            const expected = await outcomeOf(inSqlite, events, connections);
            expect(await outcomeOf(inPostgreSql, events, connections)).toEqual(expected);
          },
        ),
        { numRuns: RUNS, interruptAfterTimeLimit: RUNS_MS },
      );
    },
    TIME_LIMIT_MS,
  );
});

import { randomUUID } from "node:crypto";
import {
  type AttributeValue,
  CreateTableCommand,
  DescribeTableCommand,
  DynamoDBClient,
  GetItemCommand,
  UpdateItemCommand,
} from "@aws-sdk/client-dynamodb";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_INTEGER } from "@pawl/protocol/limits";
import type { Holder } from "../domain/lease/holder.js";
import { exhausted } from "../domain/lease/refusals.js";
import { digestOf } from "./lease-id.js";
import type { Acquired, LeaseProvider, ProviderClocks } from "./provider.js";
import { Failure, unavailable } from "./refusals.js";
import type { DynamoDbSpecification } from "./specification.js";

/** A request that nobody else limits is given up after so long. */
const REQUEST_MS = 5000;
const CONNECT_MS = 2000;
/** How often a name that is held is looked at, as a part of its ttl, within bounds: DynamoDB tells nobody. */
const LOOK_FRACTION = 1 / 10;
const MIN_LOOK_MS = 50;
const MAX_LOOK_MS = 1000;
/** An attempt gives way so often to others that write between its read and its write. */
const TRIES = 5;
/** Names whose records are remembered as seen; a forgotten one is only watched from the beginning. */
const MAX_WATCHED = 10_000;
/** The longest wait for a table that is being made, and the pause between two looks. */
const TABLE_MS = 120_000;
const TABLE_LOOK_MS = 500;

/**
 * A record of the table. It is kept for ever, because the token is in it.
 *
 * Held: it has a `holder`. Each renewal writes a new `version`. A daemon that has seen one version for a full `ttlMs`
 * by its own monotonic clock may take the name: the holder has stopped before, because its ttl began before that
 * version was written. Wall clocks are never compared (this is the scheme of Amazon's DynamoDB lock
 * client: https://aws.amazon.com/blogs/database/building-distributed-locks-with-the-dynamodb-lock-client/).
 * Free: it has none.
 */
interface LeaseRecord {
  readonly token: number;
  /** New with each write. Every write that goes by what was read has it as its condition. */
  readonly version: string;
  /** The digest of the leaseId: others can read the table. */
  readonly holder: string | undefined;
  readonly owner: string;
  readonly note: string | null;
  readonly ttlMs: number;
  readonly acquiredAt: number;
}

/**
 * Leases in a DynamoDB table. Costs: acquire one read, and one write if the name is free; heartbeat and release
 * one write; get one read. Reads are strongly consistent. Credentials and region come from where the SDK always
 * looks. Refuses with `invalid_params` when there is no region, without which no request can be made.
 */
export async function dynamoDbProvider(
  specification: DynamoDbSpecification,
  { elapsed, now }: ProviderClocks,
): Promise<LeaseProvider> {
  const { kind, text, table } = specification;
  const client = clientOf(specification);
  await checkRegion(client, specification);
  /** The leases held through this object, with their ends by its clock. */
  const own = new Map<string, number>();
  /** The version last seen of each name held by others, and since when. */
  const watched = new Map<string, { version: string; since: number }>();

  async function read(name: string, signal: AbortSignal | undefined): Promise<LeaseRecord | undefined> {
    const input = { TableName: table, Key: { name: { S: name } }, ConsistentRead: true };
    const { Item } = await ask(() => client.send(new GetItemCommand(input), limited(signal)));
    const found = Item === undefined ? undefined : recordOf(Item);
    watch(name, found);
    return found;
  }

  /** Begins to watch a version when it is first seen: after the answer, so no earlier than it was written. */
  function watch(name: string, found: LeaseRecord | undefined): void {
    const seen = watched.get(name);
    if (found?.holder === undefined) watched.delete(name);
    else if (seen?.version !== found.version) {
      watched.delete(name);
      watched.set(name, { version: found.version, since: elapsed() });
      if (watched.size > MAX_WATCHED) watched.delete(watched.keys().next().value as string);
    }
  }

  /** The time that may remain of the lease of a record that was just read. */
  function remainingOf(name: string, { version, ttlMs }: LeaseRecord): number {
    const seen = watched.get(name);
    return seen?.version === version ? Math.ceil(seen.since + ttlMs - elapsed()) : ttlMs;
  }

  function heldBy(name: string, found: LeaseRecord | undefined): Holder | null {
    if (found?.holder === undefined) return null;
    const remainingMs = remainingOf(name, found);
    return remainingMs > 0 ? holderOf(found, remainingMs) : null;
  }

  /**
   * Writes some attributes, with a new version, on a condition; false if that does not hold. An attribute that
   * is undefined is removed.
   */
  async function write(
    name: string,
    attributes: Readonly<Record<string, string | number | undefined>>,
    condition: string,
    values: Readonly<Record<string, AttributeValue>>,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const all = Object.entries({ ...attributes, version: randomUUID() });
    const sets = all.filter(([, value]) => value !== undefined) as [string, string | number][];
    const removes = all.filter(([, value]) => value === undefined);
    const sent = new UpdateItemCommand({
      TableName: table,
      Key: { name: { S: name } },
      UpdateExpression: [
        `SET ${sets.map(([key]) => `#${key} = :${key}`).join(", ")}`,
        ...(removes.length === 0 ? [] : [`REMOVE ${removes.map(([key]) => `#${key}`).join(", ")}`]),
      ].join(" "),
      ConditionExpression: condition,
      // All of them by other names: some are words of the language.
      ExpressionAttributeNames: Object.fromEntries(
        [...all.map(([key]) => key), ...(condition.match(/(?<=#)\w+/g) ?? [])].map((key) => [`#${key}`, key]),
      ),
      ExpressionAttributeValues: {
        ...Object.fromEntries(
          sets.map(([key, value]) => [
            `:${key}`,
            typeof value === "number" ? { N: String(value) } : { S: value },
          ]),
        ),
        ...values,
      },
    });
    try {
      await ask(() => client.send(sent, limited(signal)));
      return true;
    } catch (error) {
      if ((error as Error).name === "ConditionalCheckFailedException") return false;
      throw error;
    }
  }

  async function ask<T>(send: () => Promise<T>): Promise<T> {
    try {
      return await send();
    } catch (error) {
      const { name } = error as Error;
      if (name === "ConditionalCheckFailedException") throw error;
      if (name === "ResourceNotFoundException") {
        const hint = `there is no table ${shown(table)}; make it with: pawl lease-table create ${text}`;
        throw unavailable(kind, new Failure("no_table", hint));
      }
      throw unavailable(kind, error);
    }
  }

  /** Renews what this leaseId holds; undefined if it holds nothing. */
  async function renew(name: string, leaseId: string, ttlMs: number, signal: AbortSignal | undefined) {
    const asked = elapsed();
    const values = { ":digest": { S: digestOf(leaseId) } };
    if (!(await write(name, { ttlMs }, "#holder = :digest", values, signal))) {
      own.delete(leaseId);
      return undefined;
    }
    own.set(leaseId, asked + ttlMs);
    return { remainingMs: ttlMs - (elapsed() - asked) };
  }

  /** True if a lease that was held through this object has ended by its ttl. */
  function hasEnded(leaseId: string): boolean {
    return (own.get(leaseId) ?? Number.POSITIVE_INFINITY) <= elapsed();
  }

  return {
    async acquire({ name, leaseId, owner, ttlMs, note, tokenAbove }, signal): Promise<Acquired> {
      const digest = digestOf(leaseId);
      for (let tries = 0; tries < TRIES; tries += 1) {
        const found = await read(name, signal);
        if (found?.holder === digest) {
          // An earlier attempt took it, and its answer was lost.
          const renewed = await renew(name, leaseId, ttlMs, signal);
          if (renewed === undefined) continue;
          return { granted: true, fencingToken: found.token, ...renewed };
        }
        if (found?.holder !== undefined) {
          const remainingMs = remainingOf(name, found);
          if (remainingMs > 0) {
            const lookMs = Math.min(Math.max(found.ttlMs * LOOK_FRACTION, MIN_LOOK_MS), MAX_LOOK_MS);
            const retryMs = Math.min(remainingMs, lookMs);
            return { granted: false, holder: holderOf(found, remainingMs), retryMs };
          }
        }
        const highest = Math.max(found?.token ?? 0, tokenAbove);
        if (highest >= MAX_INTEGER) throw exhausted(name);

        const fencingToken = highest + 1;
        const asked = elapsed();
        const attributes = {
          token: fencingToken,
          holder: digest,
          owner,
          note: note ?? undefined,
          ttlMs,
          acquiredAt: now(),
        };
        const [condition, values] =
          found === undefined
            ? ["attribute_not_exists(#version)", {}]
            : ["#version = :seen", { ":seen": { S: found.version } }];
        if (await write(name, attributes, condition, values, signal)) {
          watched.delete(name);
          own.set(leaseId, asked + ttlMs);
          return { granted: true, fencingToken, remainingMs: ttlMs - (elapsed() - asked) };
        }
      }
      throw unavailable(kind, new Failure("contended", `too many ask for ${shown(name)} at the same time`));
    },

    async heartbeat({ name, leaseId, ttlMs }, signal) {
      if (hasEnded(leaseId)) return null;
      return (await renew(name, leaseId, ttlMs, signal)) ?? null;
    },

    async release({ name, leaseId }, signal) {
      const inTime = !hasEnded(leaseId);
      const values = { ":digest": { S: digestOf(leaseId) } };
      const released = await write(name, FREE, "#holder = :digest", values, signal);
      own.delete(leaseId);
      return released && inTime;
    },

    async get(name, signal) {
      return heldBy(name, await read(name, signal));
    },

    async inspect(name, signal) {
      const found = await read(name, signal);
      return { holder: heldBy(name, found), highest: found?.token ?? 0 };
    },

    async break(name, signal) {
      for (let tries = 0; tries < TRIES; tries += 1) {
        const found = await read(name, signal);
        if (found?.holder === undefined || remainingOf(name, found) <= 0) return false;
        const values = { ":seen": { S: found.version } };
        if (await write(name, FREE, "#version = :seen", values, signal)) return true;
      }
      throw unavailable(kind, new Failure("contended", `${shown(name)} was renewed again and again`));
    },

    async close() {
      client.destroy();
    },
  };
}

/** The attributes of a record that nobody holds: all but the token. */
const FREE = {
  holder: undefined,
  owner: undefined,
  note: undefined,
  ttlMs: undefined,
  acquiredAt: undefined,
};

/**
 * Makes the table, and waits until it can be used. False if it was there already. Refuses with
 * `provider_unavailable`, with `invalid_params` when there is no region, and with `conflict` when there is a table of
 * that name which is not for leases. The caller gave all the parameters, so the message says everything.
 */
export async function createDynamoDbTable(
  specification: DynamoDbSpecification,
  pause: (ms: number) => Promise<void>,
): Promise<boolean> {
  const { kind, table } = specification;
  const client = clientOf(specification);
  try {
    await checkRegion(client, specification);
    const created = await client
      .send(
        new CreateTableCommand({
          TableName: table,
          AttributeDefinitions: [{ AttributeName: "name", AttributeType: "S" }],
          KeySchema: [{ AttributeName: "name", KeyType: "HASH" }],
          BillingMode: "PAY_PER_REQUEST",
        }),
        limited(undefined),
      )
      .then(
        () => true,
        (error: Error) => {
          if (error.name === "ResourceInUseException") return false;
          throw error;
        },
      );
    for (let waitedMs = 0; waitedMs < TABLE_MS; waitedMs += TABLE_LOOK_MS) {
      const described = await client.send(new DescribeTableCommand({ TableName: table }), limited(undefined));
      const { TableStatus, KeySchema = [] } = described.Table ?? {};
      const keys = KeySchema.map(({ AttributeName, KeyType }) => `${AttributeName} (${KeyType})`).join(", ");
      if (keys !== "name (HASH)") {
        throw refuse(
          "conflict",
          `The table ${shown(table)} is there, with the key ${keys}, and leases need name (HASH). Name another table.`,
          { table, key: keys },
        );
      }
      if (TableStatus === "ACTIVE") return created;
      await pause(TABLE_LOOK_MS);
    }
    throw new Error(`the table ${shown(table)} is still being made; try again in a while`);
  } catch (error) {
    if (error instanceof PawlError) throw error;
    const { name, message } = error as Error;
    const { reason } = unavailable(kind, error).details;
    throw new PawlError(
      "provider_unavailable",
      `The table ${shown(table)} could not be made: ${(message || name).replace(/\.$/, "")}. Run this again when that is mended; it goes on from what is there.`,
      { provider: kind, reason, table },
      { cause: error },
    );
  } finally {
    client.destroy();
  }
}

function clientOf({ endpoint, region }: DynamoDbSpecification): DynamoDBClient {
  return new DynamoDBClient({
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(region === undefined ? {} : { region }),
    // The caller repeats a request that failed; it knows for how long that makes sense.
    maxAttempts: 1,
    requestHandler: {
      connectionTimeout: CONNECT_MS,
      requestTimeout: REQUEST_MS,
      throwOnRequestTimeout: true,
    },
  });
}

/** The SDK would say so only at the first request, each time. */
async function checkRegion(
  client: DynamoDBClient,
  { text, table, region }: DynamoDbSpecification,
): Promise<void> {
  try {
    await client.config.region();
  } catch (error) {
    throw new PawlError(
      "invalid_params",
      region === undefined
        ? `The lease provider ${text} has no region that can be used (${(error as Error).message}). Give it: dynamodb:table=${table},region=eu-central-1, or set AWS_REGION.`
        : `The lease provider ${text} has a region that cannot be used: ${(error as Error).message}.`,
      {},
      { cause: error },
    );
  }
}

function limited(signal: AbortSignal | undefined): { abortSignal: AbortSignal } {
  return { abortSignal: signal ?? AbortSignal.timeout(REQUEST_MS) };
}

function recordOf(item: Record<string, AttributeValue>): LeaseRecord {
  return {
    token: Number(item.token?.N),
    version: item.version?.S ?? "",
    holder: item.holder?.S,
    owner: item.owner?.S ?? "",
    note: item.note?.S ?? null,
    ttlMs: Number(item.ttlMs?.N ?? 0),
    acquiredAt: Number(item.acquiredAt?.N ?? 0),
  };
}

function holderOf({ owner, token, acquiredAt, note }: LeaseRecord, remainingMs: number): Holder {
  // The process is of another machine, whose numbers mean nothing here.
  const peer = { pid: null, uid: null, gid: null };
  return { owner, fencingToken: token, acquiredAt, remainingMs, note, peer };
}

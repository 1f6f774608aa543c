import { pathToFileURL } from "node:url";
import { PawlError } from "@pawl/protocol/errors";
import type { CreateLeaseProvider, LeaseProvider, ProviderClocks } from "./provider.js";
import type { DynamoDbSpecification, ProviderSpecification } from "./specification.js";

/**
 * Makes a provider outside, and loads what it stands on: nothing of that is loaded for those that are not
 * configured. Refuses with `unavailable` when that is not installed or cannot be loaded.
 */
export async function loadProvider(
  specification: Exclude<ProviderSpecification, { kind: "local" }>,
  clocks: ProviderClocks,
): Promise<LeaseProvider> {
  switch (specification.kind) {
    case "dynamodb": {
      const { dynamoDbProvider } = await loadDynamoDb();
      return dynamoDbProvider(specification, clocks);
    }
    case "etcd": {
      const { etcdProvider } = await import("./etcd.js");
      try {
        return etcdProvider(specification, clocks);
      } catch (error) {
        throw cannotLoad(specification, error);
      }
    }
    case "custom": {
      const { module, params } = specification;
      try {
        const loaded = (await import(pathToFileURL(module).href)) as Record<string, unknown>;
        const create = loaded.createLeaseProvider as CreateLeaseProvider | undefined;
        if (typeof create !== "function") throw new Error("it exports no function createLeaseProvider");
        return complete(await create({ ...clocks, params }));
      } catch (error) {
        throw cannotLoad(specification, error);
      }
    }
  }
}

/** Makes the table of a `dynamodb` provider; false if it was there. Refuses as `createDynamoDbTable` does. */
export async function createTable(
  specification: DynamoDbSpecification,
  pause: (ms: number) => Promise<void>,
): Promise<boolean> {
  const { createDynamoDbTable } = await loadDynamoDb();
  return await createDynamoDbTable(specification, pause);
}

/** The AWS SDK is an optional peer dependency: 18 MB that those without DynamoDB do without. */
async function loadDynamoDb(): Promise<typeof import("./dynamodb.js")> {
  try {
    return await import("./dynamodb.js");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new PawlError(
      "unavailable",
      "The lease provider dynamodb needs the AWS SDK, which is not installed. Install it beside pawld: npm install @aws-sdk/client-dynamodb",
      {},
      { cause: error },
    );
  }
}

/** What a provider has to have; the rest is optional. */
const REQUIRED = ["acquire", "heartbeat", "release", "get"] as const;

function complete(provider: LeaseProvider): LeaseProvider {
  const lacking = REQUIRED.filter((name) => typeof provider?.[name] !== "function");
  if (lacking.length > 0) throw new Error(`what createLeaseProvider gave has no ${lacking.join(", ")}`);
  return provider;
}

function cannotLoad({ text }: ProviderSpecification, error: unknown): PawlError {
  const { message } = error as Error;
  return new PawlError(
    "unavailable",
    `The lease provider ${text} cannot be used: ${message}`,
    {},
    {
      cause: error,
    },
  );
}

import { pathToFileURL } from "node:url";
import { PawlError } from "@pawl/protocol/errors";
import { elapsed, wallTime } from "../clock.js";
import { withCheckedAnswers } from "./checked-answers.js";
import type { ConfiguredProvider, ProviderRule } from "./configured-provider.js";
import type { CreateLeaseProvider, LeaseProvider, ProviderClocks } from "./provider.js";
import { loggable } from "./secrets.js";
import type {
  CustomSpecification,
  DynamoDbSpecification,
  LeaseRule,
  ProviderSpecification,
} from "./specification.js";

/** The providers that rules name, each loaded once. Refuses like `loadProvider`. */
export async function loadProviders(rules: readonly LeaseRule[]): Promise<ProviderRule[]> {
  const providers = new Map<string, ConfiguredProvider>();
  const loaded: ProviderRule[] = [];
  for (const { pattern, provider: specification } of rules) {
    const { text } = specification;
    if (specification.kind !== "local" && !providers.has(text)) {
      const clocks = { elapsed, now: wallTime };
      providers.set(text, {
        text,
        kind: specification.kind,
        loggable: loggable(specification, process.env),
        provider: await loadProvider(specification, clocks),
      });
    }
    loaded.push({ pattern, configured: providers.get(text) });
  }
  return loaded;
}

/** A module of somebody's own is given so long until it has made its provider: it may have to connect first. */
const CREATE_MS = 10_000;

/**
 * Makes a provider, and loads what it stands on: nothing of that is loaded for those that are not
 * configured. Its answers are checked. Refuses with `unavailable` when that is not installed or cannot be loaded,
 * and with `invalid_params` when its configuration cannot work.
 */
export async function loadProvider(
  specification: Exclude<ProviderSpecification, { kind: "local" }>,
  clocks: ProviderClocks,
): Promise<LeaseProvider> {
  return withCheckedAnswers(await makeProvider(specification, clocks));
}

async function makeProvider(
  specification: Exclude<ProviderSpecification, { kind: "local" }>,
  clocks: ProviderClocks,
): Promise<LeaseProvider> {
  switch (specification.kind) {
    case "dynamodb": {
      const { dynamoDbProvider } = await loadDynamoDb();
      return await dynamoDbProvider(specification, clocks);
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
      try {
        return await createCustom(specification, clocks);
      } catch (error) {
        throw cannotLoad(specification, error);
      }
    }
  }
}

async function createCustom(
  { module, params }: CustomSpecification,
  clocks: ProviderClocks,
): Promise<LeaseProvider> {
  let waitsFor = "loading the module";
  const making = (async () => {
    const loaded = (await import(pathToFileURL(module).href)) as Record<string, unknown>;
    const create = loaded.createLeaseProvider as CreateLeaseProvider | undefined;
    if (typeof create !== "function") throw new Error("it exports no function createLeaseProvider");
    waitsFor = "the promise of createLeaseProvider";
    return complete(await create({ ...clocks, params }));
  })();
  // The timer keeps the process alive meanwhile: without it, Node would end as if there were nothing to wait for.
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`${waitsFor} was not settled within ${CREATE_MS} ms`)),
      CREATE_MS,
    );
  });
  return await Promise.race([making, late]).finally(() => clearTimeout(timer));
}

/** Makes the table of a `dynamodb` provider; false if it was there. Refuses as `createDynamoDbTable` does. */
export async function createTable(
  specification: DynamoDbSpecification,
  pause: (ms: number) => Promise<void>,
): Promise<boolean> {
  const { createDynamoDbTable } = await loadDynamoDb();
  return await createDynamoDbTable(specification, pause);
}

/** What Node says of a package that is not there: where it is imported, and where it is required, as in the bundle. */
const NOT_FOUND = ["ERR_MODULE_NOT_FOUND", "MODULE_NOT_FOUND"];

/** The AWS SDK is an optional peer dependency: 18 MB that those without DynamoDB do without. */
async function loadDynamoDb(): Promise<typeof import("./dynamodb.js")> {
  try {
    return await import("./dynamodb.js");
  } catch (error) {
    if (!NOT_FOUND.includes(`${(error as NodeJS.ErrnoException).code}`)) throw error;
    throw new PawlError(
      "unavailable",
      "The lease provider dynamodb needs the AWS SDK, which is not installed. Install it beside pawld: npm install @aws-sdk/client-dynamodb",
      {},
      { cause: error },
    );
  }
}

/** The methods that a provider has to have; the rest is optional. */
const REQUIRED = ["acquire", "heartbeat", "release", "get"] as const;
const OPTIONAL = ["inspect", "break", "watch", "close"] as const;

function complete(provider: LeaseProvider): LeaseProvider {
  const lacking = REQUIRED.filter((name) => typeof provider?.[name] !== "function");
  if (lacking.length > 0) throw new Error(`what createLeaseProvider gave has no ${lacking.join(", ")}`);
  const wrong = OPTIONAL.filter((name) => !["function", "undefined"].includes(typeof provider[name]));
  if (wrong.length > 0)
    throw new Error(`what createLeaseProvider gave has ${wrong.join(", ")}, but not as functions`);
  return provider;
}

/** The message goes to standard error, which others may read: it holds no more secrets than the log. */
function cannotLoad(specification: ProviderSpecification, error: unknown): PawlError {
  const { title, error: said } = loggable(specification, process.env);
  return new PawlError(
    "unavailable",
    `The lease provider ${title} cannot be used: ${said(error).replace(/\.$/, "")}.`,
    {},
    { cause: error },
  );
}

// The examples of the document are true: a new daemon is asked them one after the other, as the document has them.
import { METHODS, type Method } from "@pawl/protocol";
import { expect, test } from "vitest";
import { sharedDaemon } from "./daemon.js";

const daemon = sharedDaemon();

/** Examples whose answer depends on the machine, or that need more than one daemon: only their schemas are checked. */
const ONLY_BY_SCHEMA = new Set([
  "daemon.ping",
  "daemon.info",
  "daemon.stats",
  "daemon.backup",
  "daemon.check",
  "daemon.graph",
  "daemon.acceptCopy",
  "rpc.discover",
]);

interface Call {
  readonly method: string;
  readonly params: object;
  /** The part of the answer that later examples name. */
  readonly result?: unknown;
}

/** Calls that are made before the examples of a method, beyond the examples that stand before it. */
const BEFORE: Readonly<Record<string, readonly Call[]>> = {
  "queue.abandon": [
    {
      method: "queue.claim",
      params: { queue: "mails", owner: "worker-1" },
      result: { claim: { claimId: "qwc:2:1", leaseToken: "Hc2bVgkR5tYp8wQnJ1xLsA" } },
    },
  ],
  "command.release": [
    {
      method: "command.lease",
      params: { deployment: "builder", owner: "builder-1" },
      result: { leases: [{ leaseId: "cml:cmd_01977a6e-5c01-7000-8000-000000000000:1:secret" }] },
    },
  ],
  "command.answer": [
    {
      method: "command.create",
      params: { deployment: "tester", command: "test" },
      result: { commandId: "cmd_01977a6e-5c02-7000-8000-000000000000" },
    },
    {
      method: "command.lease",
      params: { deployment: "tester", owner: "tester-1" },
      result: { leases: [{ leaseId: "cml:cmd_01977a6e-5c02-7000-8000-000000000000:1:secret" }] },
    },
  ],
  "lease.release": [
    {
      method: "lease.acquire",
      params: { name: "staging", owner: "deploy-16" },
      result: { lease: { leaseId: "ls_5bKz8wNgR3uXcT0Q7yVvJm" } },
    },
  ],
};

/** Members that each daemon makes anew. The rest of an answer has to be what the example says. */
const MADE_ANEW =
  /^(batchId|claimId|leaseToken|leaseId|reservationId|commandId|changeId|cursor|incarnation|board|author|updatedBy|hash|body|signature)$/;
const DEPENDS_ON_TIME = /At$|^(at|now|remainingMs|times|uptimeMs)$/;
const DEPENDS_ON_MACHINE = /^(pid|uid)$/;

/** Words of the examples, and what this daemon made in their place. */
const learned = new Map<string, string>();

/** A value with what this daemon made in place of what the examples have. */
function asLearned(value: unknown): unknown {
  if (typeof value === "string") return learned.get(value) ?? value;
  if (Array.isArray(value)) return value.map(asLearned);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, asLearned(each)]));
}

/** Keeps what an answer has in place of what the example has. */
function learn(example: unknown, answer: unknown, key = ""): void {
  if (typeof example === "string" && typeof answer === "string") {
    if (MADE_ANEW.test(key)) learned.set(example, answer);
  } else if (
    typeof example === "object" &&
    example !== null &&
    typeof answer === "object" &&
    answer !== null
  ) {
    for (const [name, each] of Object.entries(example)) {
      learn(each, (answer as Record<string, unknown>)[name], Array.isArray(example) ? key : name);
    }
  }
}

/** A value without what is another one each time, but with the names of its members. */
function lasting(value: unknown, key = ""): unknown {
  if (typeof value === "number" && (DEPENDS_ON_TIME.test(key) || DEPENDS_ON_MACHINE.test(key))) return key;
  if (Array.isArray(value)) return value.map((each) => lasting(each, key));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, lasting(each, name)]));
}

test("each example is what a new daemon answers", async () => {
  const client = await daemon().place.connect();
  // RawClient holds each answer against the schema of its method.
  const ask = (method: string, params: unknown) =>
    client.call(method as "daemon.ping", asLearned(params) as Record<string, never>).catch((error) => {
      throw new Error(`The example of ${method} was refused: ${error.message}`);
    });
  for (const { name, examples } of METHODS as readonly Method[]) {
    for (const { method, params, result } of BEFORE[name] ?? []) learn(result, await ask(method, params));
    if (ONLY_BY_SCHEMA.has(name)) continue;
    for (const { params, result, name: title } of examples) {
      const answer = await ask(name, params);
      learn(result, answer);
      expect([name, title, lasting(answer)]).toEqual([name, title, lasting(asLearned(result))]);
    }
  }
  // A name that no method has would never be looked at.
  const names: readonly string[] = METHODS.map(({ name }) => name);
  expect([...ONLY_BY_SCHEMA, ...Object.keys(BEFORE)].filter((name) => !names.includes(name))).toEqual([]);
});

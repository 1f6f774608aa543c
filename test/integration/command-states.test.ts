// Every cell of the state table at the socket, permitted and forbidden (spec: command.md, States): from each
// state, everything that a caller or the passing of time can try.
import type { Command, CommandState } from "@pawl/protocol";
import { beforeAll, describe, expect, test } from "vitest";
import { answerTo, create, ended, get, type Leased, newDeployment, respond, take } from "../commands.js";
import { sharedDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { expectRefusal } from "../refusal.js";

/** Far enough for a command to be brought into any state before it, also on a slow machine. */
const TTL_MS = 1500;
const SIZE_BYTES = 6;

const daemon = sharedDaemon();
let client: RawClient;
/** The lease of a delivery of some other command, for those that never had one. */
let foreign: Leased;

beforeAll(async () => {
  client = await daemon().place.connect();
  const deployment = newDeployment();
  await create(client, deployment);
  foreign = await take(client, deployment);
});

/** A command in some state, and the lease of its last delivery if there was one. */
interface Subject {
  commandId: string;
  deployment: string;
  leaseId: string;
}

/** Makes a command and brings it into a state. It has a deadline, if only one that is to pass in that state. */
async function reach(state: CommandState, ttlMs: number | undefined): Promise<Subject> {
  const deployment = newDeployment();
  const ttl = ttlMs === undefined ? {} : { ttlMs };
  if (state === "PENDING_UPLOAD") {
    const commandId = await create(client, deployment, { ...ttl, upload: { sizeBytes: SIZE_BYTES } });
    return { commandId, deployment, leaseId: foreign.leaseId };
  }
  const commandId = await create(client, deployment, state === "EXPIRED" ? { ttlMs: 100 } : ttl);
  const leased = await take(client, deployment);
  if (state === "PENDING") await client.call("command.release", { leaseId: leased.leaseId });
  if (state === "SUCCEEDED") await respond(client, leased);
  if (state === "FAILED") await respond(client, leased, { status: "error", code: "NO", message: "No." });
  if (state === "EXPIRED") {
    await ended(client, commandId);
    // Until its end is written it shows the time of asking.
    const seen: unknown[] = [];
    const isSeenAgain = async (): Promise<boolean> => {
      seen.push((await get(client, commandId)).completedAt);
      return seen.at(-1) === seen.at(-2);
    };
    await expect.poll(isSeenAgain).toBe(true);
  }
  expect((await get(client, commandId)).state).toBe(state);
  return { commandId, deployment, leaseId: leased.leaseId };
}

type Try = (subject: Subject) => Promise<unknown>;

const upload =
  (final: boolean): Try =>
  ({ commandId }) =>
    client.call("command.upload", {
      commandId,
      offset: 0,
      chunk: Buffer.from(final ? "[1, 2]" : "[1,").toString("base64"),
      final,
    });

/** All ways in which a command can be made to change, and the state that each is after. */
const WAYS: Record<string, { to: CommandState; attempt: Try }> = {
  "a piece of an upload": { to: "PENDING_UPLOAD", attempt: upload(false) },
  "the last piece of an upload": { to: "PENDING", attempt: upload(true) },
  "a release": { to: "PENDING", attempt: ({ leaseId }) => client.call("command.release", { leaseId }) },
  "a lease": {
    to: "DISPATCHED",
    attempt: ({ deployment }) => client.call("command.lease", { deployment, owner: "test" }),
  },
  "a success": { to: "SUCCEEDED", attempt: (subject) => respond(client, subject) },
  "an error": {
    to: "FAILED",
    attempt: (subject) => respond(client, subject, { status: "error", code: "NO", message: "No." }),
  },
  "being cancelled": {
    to: "FAILED",
    attempt: ({ commandId }) => client.call("command.cancel", { commandId }),
  },
};

/** The outcome of each try in each state: the state after it, or the refusal of a transition. */
const REFUSED = "invalid_state";
const UNCHANGED = "unchanged";
/** None of its own to give back, so that of another: refused before any state counts. */
const FOREIGN = "foreign";

const OUTCOMES: Record<string, Record<CommandState, string>> = {
  "a piece of an upload": {
    PENDING_UPLOAD: "PENDING_UPLOAD",
    PENDING: REFUSED,
    DISPATCHED: REFUSED,
    SUCCEEDED: REFUSED,
    FAILED: REFUSED,
    EXPIRED: REFUSED,
  },
  "the last piece of an upload": {
    PENDING_UPLOAD: "PENDING",
    PENDING: REFUSED,
    DISPATCHED: REFUSED,
    SUCCEEDED: REFUSED,
    FAILED: REFUSED,
    EXPIRED: REFUSED,
  },
  "a release": {
    PENDING_UPLOAD: FOREIGN,
    PENDING: UNCHANGED,
    DISPATCHED: "PENDING",
    SUCCEEDED: REFUSED,
    FAILED: REFUSED,
    EXPIRED: REFUSED,
  },
  "a lease": {
    PENDING_UPLOAD: UNCHANGED,
    PENDING: "DISPATCHED",
    DISPATCHED: UNCHANGED,
    SUCCEEDED: UNCHANGED,
    FAILED: UNCHANGED,
    EXPIRED: UNCHANGED,
  },
  "a success": {
    PENDING_UPLOAD: REFUSED,
    PENDING: REFUSED,
    DISPATCHED: "SUCCEEDED",
    SUCCEEDED: UNCHANGED,
    FAILED: UNCHANGED,
    EXPIRED: UNCHANGED,
  },
  "an error": {
    PENDING_UPLOAD: REFUSED,
    PENDING: REFUSED,
    DISPATCHED: "FAILED",
    SUCCEEDED: UNCHANGED,
    FAILED: UNCHANGED,
    EXPIRED: UNCHANGED,
  },
  "being cancelled": {
    PENDING_UPLOAD: "FAILED",
    PENDING: "FAILED",
    DISPATCHED: "FAILED",
    SUCCEEDED: UNCHANGED,
    FAILED: UNCHANGED,
    EXPIRED: UNCHANGED,
  },
};

/** A command without what passes by itself. */
function lasting(command: Command): unknown {
  const { lease, ...rest } = command;
  return { ...rest, owner: lease?.owner, expiresAt: lease?.expiresAt };
}

const cells = Object.entries(OUTCOMES).flatMap(([way, outcomes]) =>
  Object.entries(outcomes).map(([from, outcome]) => [from as CommandState, way, outcome] as const),
);

describe("moves that callers try", () => {
  test.each(cells)("%s, %s: %s", async (from, way, outcome) => {
    const subject = await reach(from, undefined);
    const { commandId } = subject;
    const before = await get(client, commandId);
    const answerBefore = await answerTo(client, commandId);
    const { to, attempt } = WAYS[way] as { to: CommandState; attempt: Try };
    if (outcome === REFUSED) {
      // An upload adds a piece, whether or not it is the last.
      const wanted = way.includes("upload") ? "PENDING_UPLOAD" : to;
      const error = await attempt(subject).then(
        (result) => Promise.reject(new Error(`not refused: ${JSON.stringify(result)}`)),
        (refused) => refused.error,
      );
      expect(expectRefusal(error, "invalid_state").data).toMatchObject({ commandId, from, to: wanted });
    } else if (outcome === FOREIGN) {
      const other = await get(client, foreign.commandId);
      expectRefusal(
        await client.refusal("command.release", { leaseId: `${foreign.leaseId}x` }),
        "lease_lost",
      );
      expect(lasting(await get(client, foreign.commandId))).toEqual(lasting(other));
    } else {
      const result = (await attempt(subject)) as {
        state?: CommandState;
        leases?: unknown[];
        accepted?: boolean;
      };
      const expected = outcome === UNCHANGED ? from : outcome;
      if (result.leases !== undefined) expect(result.leases).toHaveLength(outcome === UNCHANGED ? 0 : 1);
      else expect(result.state).toBe(expected);
      if (result.accepted !== undefined) expect(result.accepted).toBe(outcome !== UNCHANGED);
      expect((await get(client, commandId)).state).toBe(expected);
      if (outcome !== UNCHANGED) return;
    }
    expect(lasting(await get(client, commandId))).toEqual(lasting(before));
    expect(await answerTo(client, commandId)).toEqual(answerBefore);
  });
});

describe("a deadline that passes", () => {
  const FINAL: readonly CommandState[] = ["SUCCEEDED", "FAILED", "EXPIRED"];
  const states: readonly CommandState[] = ["PENDING_UPLOAD", "PENDING", "DISPATCHED", ...FINAL];

  test.each(states)("%s", async (from) => {
    const { commandId } = await reach(from, TTL_MS);
    const before = await get(client, commandId);
    const answerBefore = await answerTo(client, commandId);
    // One that is made later to end after the same time tells that it has passed.
    const marker = await create(client, newDeployment(), { ttlMs: TTL_MS });
    expect((await ended(client, marker)).state).toBe("EXPIRED");
    const after = await get(client, commandId);
    if (FINAL.includes(from)) {
      expect(after).toEqual(before);
      expect(await answerTo(client, commandId)).toEqual(answerBefore);
      return;
    }
    expect(after).toMatchObject({ state: "EXPIRED", attempt: before.attempt, error: { code: "EXPIRED" } });
    expect(after.completedAt).toBeGreaterThanOrEqual(after.deadline as number);
    expect(await answerTo(client, commandId)).toMatchObject({ status: "error", code: "EXPIRED" });
  });
});

test("a command that is not there is not_found, whatever is tried", async () => {
  const commandId = "cmd_00000000-0000-7000-8000-000000000000";
  const response = { status: "success", response: 1 };
  for (const [method, params] of [
    ["command.get", {}],
    ["command.wait", { waitMs: 60_000 }],
    ["command.response", {}],
    ["command.params", {}],
    ["command.cancel", {}],
    ["command.upload", { offset: 0, chunk: "" }],
    ["command.respond", { leaseId: foreign.leaseId, response }],
  ] as const) {
    const error = await client.refusal(method, { commandId, ...params });
    expect(expectRefusal(error, "not_found").data).toMatchObject({ what: "command", commandId });
  }
});

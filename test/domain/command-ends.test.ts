// Commands whose deliveries have ended while so much else has that it is not all written down yet.
import { expect, test } from "vitest";
import { type Push, push, type Receiver } from "../../daemon/dist/domain/command/push.js";
import { Wait } from "../../daemon/dist/turns/operation.js";
import { Clocks } from "../clocks.js";
import { InProcess } from "../in-process.js";

const LEASE_MS = 1000;
/** More than one turn writes down. */
const COMMANDS = 1000;
const PER_LEASE = 100;

/** Commands whose deliveries have ended, and the leases of those that end last, and so are written down last. */
async function manyEnded() {
  const time = new Clocks();
  const pawl = new InProcess({ time });
  for (let index = 0; index < COMMANDS; index += 1)
    await pawl.call("command.create", { deployment: "d", command: "c", maxAttempts: 5 });
  const leases = [];
  for (let leased = 0; leased < COMMANDS; leased += PER_LEASE) {
    const params = { deployment: "d", owner: "o", max: PER_LEASE, leaseMs: LEASE_MS };
    leases.push(...(await pawl.call("command.lease", params)).leases);
  }
  time.pass(LEASE_MS);
  return { pawl, lastLeases: leases.slice(-5) };
}

test.each([
  ["answer", "SUCCEEDED"],
  ["cancel", "FAILED"],
] as const)("a delivery that was seen as ended stays counted after a late %s", async (how, state) => {
  const { pawl, lastLeases } = await manyEnded();
  for (const { commandId, leaseId } of lastLeases) {
    expect(await pawl.call("command.get", { commandId })).toMatchObject({ state: "PENDING", attempt: 2 });
    if (how === "cancel") await pawl.call("command.cancel", { commandId });
    else
      await pawl.call("command.respond", {
        commandId,
        leaseId,
        response: { status: "success", response: 1 },
      });
    expect(await pawl.call("command.get", { commandId })).toMatchObject({ state, attempt: 2 });
  }
});

test("a delivery that was seen as ended and is given back then counts no answer", async () => {
  const { pawl, lastLeases } = await manyEnded();
  for (const { commandId, leaseId } of lastLeases) {
    expect(await pawl.call("command.release", { leaseId })).toEqual({ state: "PENDING", attempt: 2 });
    const response = { status: "success", response: 1 } as const;
    await expect(pawl.call("command.respond", { commandId, leaseId, response })).rejects.toMatchObject({
      kind: "invalid_state",
    });
    expect(await pawl.call("command.get", { commandId })).toMatchObject({ state: "PENDING", attempt: 2 });
  }
});

/** A connection that serves the deployment. */
function receiver(connection: number, given: Partial<Receiver> = {}): Receiver {
  const ofAny = { targets: undefined, named: undefined, executionMs: 900_000 };
  return { connection, pid: null, owner: "o", unanswered: 0, room: 10, ...ofAny, ...given };
}

/** Which connection each command is handed to. */
function pushed(pawl: InProcess, receivers: readonly Receiver[]): Push[] {
  let handed: readonly Push[] = [];
  pawl.loop.performNow(function* (env) {
    const outcome = yield* push("d", receivers, env);
    if (Array.isArray(outcome)) handed = outcome as readonly Push[];
    else expect(outcome).toBeInstanceOf(Wait);
  });
  return [...handed];
}

test.each([0, 1])(
  "whoever has by push what is over is told also when the command is, too, %i ms later",
  async (by) => {
    const time = new Clocks();
    const pawl = new InProcess({ time });
    const given = { deployment: "d", command: "c", executionMs: 1000, ttlMs: 1000 + by };
    const { commandId } = await pawl.call("command.create", given);
    expect(pushed(pawl, [receiver(7)])).toMatchObject([{ connection: 7 }]);
    time.pass(2000);
    expect(await pawl.call("command.get", { commandId })).toMatchObject({
      state: "EXPIRED",
      attempt: 1 + by,
    });
    const told = pawl.notified.filter(({ method }) => method === "command.cancelled");
    const reason = by === 0 ? "EXPIRED" : "EXECUTION_TIME";
    expect(told).toEqual([{ connection: 7, method: "command.cancelled", params: { commandId, reason } }]);
  },
);

test("what is handed to a receiver alone counts when the others are handed out", async () => {
  const pawl = new InProcess({ time: new Clocks() });
  const named = { incarnation: "i", incarnationId: 1 };
  for (const meant of [true, true, false])
    await pawl.call("command.create", {
      deployment: "d",
      command: "c",
      ...(meant ? { incarnation: "i" } : {}),
    });
  const pushes = pushed(pawl, [receiver(1, { named }), receiver(2, { unanswered: 1 })]);
  expect(pushes.map(({ connection }) => connection)).toEqual([1, 1, 2]);
});

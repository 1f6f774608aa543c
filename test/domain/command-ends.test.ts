// Commands whose deliveries have ended while so much else has that it is not all written down yet.
import { expect, test } from "vitest";
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

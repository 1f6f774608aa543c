// Takes leases again and again by the client library: of one name or several, alone, shared, or of some slots.
// Appends to a log that it shares with others (lease-log.ts), one JSON a line: `ask` before it asks, `queued` once the
// daemon has taken that up, `granted` when it has just been told that it holds them, `begin` once a renewal says so,
// `end`, while it is still certain that it does, before it gives them back, `late` if it cannot be, and `released`
// after that. Half of its leases have onLoss: then it is ended by the daemon when it loses one. It outlives its
// daemon, and ends when it is killed.
//
//   node leases.js SOCKET LOG OWNER TTL_MS NAMES        where NAMES is JSON: {name: slots}
import { openSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "../../client/dist/bundle/index.js";

const [socket, logPath, owner, ttlMs, names] = process.argv.slice(2);
const SLOTS = JSON.parse(names);
const log = openSync(logPath, "a");
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const write = (line) => writeSync(log, `${JSON.stringify({ ...line, at: now() })}\n`);
const HOLD_MS = 10;
const AGAIN_MS = 5;
const LOSS_GRACE_MS = 100;
/** A process that was stopped for longer than this part of the ttl may not write any more. */
const CERTAIN_PART = 0.5;

const chance = (part) => Math.random() < part;

function request() {
  const all = Object.keys(SLOTS).sort(() => Math.random() - 0.5);
  const some = all.slice(0, chance(0.6) ? 1 : chance(0.7) ? 2 : 3);
  if (chance(0.3)) return { names: some, mode: "shared" };
  const most = Math.min(...some.map((name) => SLOTS[name]));
  return { names: some, slots: 1 + Math.floor(Math.random() * most) };
}

for (let count = 0; ; count += 1) {
  let client;
  try {
    client = await connect({ socket });
    for (; ; count += 1) await hold(client, `${owner}/${count}`);
  } catch (error) {
    // Lost, refused, or without a daemon: there will be another.
    write({
      word: "refused",
      id: `${owner}/${count}`,
      kind: error.kind ?? error.name,
      message: error.message,
    });
    await sleep(AGAIN_MS);
  } finally {
    client?.close();
  }
}

async function hold(client, id) {
  const { names: asked, ...how } = request();
  const onLoss = chance(0.5) ? { onLoss: { graceMs: LOSS_GRACE_MS } } : {};
  const perform = async (lease) => {
    const { leaseId, names: held } = lease;
    write({ word: "granted", id });
    const sent = performance.now();
    await client.lease.heartbeat({ leaseId });
    const isCertain = () => performance.now() - sent < ttlMs * CERTAIN_PART && !lease.signal.aborted;
    if (!isCertain()) return;
    write({ word: "begin", id, ...how, ...onLoss, held });
    await sleep(Math.random() * HOLD_MS);
    write({ word: isCertain() ? "end" : "late", id });
  };
  const options = { ttlMs: Number(ttlMs), waitMs: 30_000, owner, ...onLoss };
  write({ word: "ask", id, names: asked, ...how });
  const done = client.withLease({ names: asked, ...how }, perform, options);
  // Sent after the request, and answered once that is granted or waits.
  setImmediate(() => client.call("daemon.ping", {}).then(() => write({ word: "queued", id }), Boolean));
  await done;
  write({ word: "released", id });
  await sleep(Math.random() * AGAIN_MS);
}

// Takes the lease of a name again and again by the client library, and appends to a log that it shares with others,
// one write per line: `begin` with the token and how long it means to hold, and then `end` before it gives it back,
// or `told` in the moment in which it learns that it lost it. It outlives its daemon, and ends when it is killed.
//
//   node lease.js SOCKET NAME LOG OWNER TTL_MS LONG_SHARE
import { openSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "../../client/dist/index.js";

const [socket, name, logPath, owner, ttlMs, longShare] = process.argv.slice(2);
const log = openSync(logPath, "a");
const write = (...words) => writeSync(log, `${words.join(" ")}\n`);
const SHORT_MS = 20;
const AGAIN_MS = 20;

for (;;) {
  let client;
  try {
    client = await connect({ socket });
    for (;;) await hold(client);
  } catch (error) {
    // Refused, or without a daemon: there will be another.
    write("refused", owner, error.kind ?? error.name);
    await sleep(AGAIN_MS);
  } finally {
    client?.close();
  }
}

async function hold(client) {
  await client.withLease(
    name,
    async ({ fencingToken, signal }) => {
      const long = Math.random() < Number(longShare);
      write("begin", owner, fencingToken, long ? "long" : "short");
      let told = false;
      signal.addEventListener("abort", () => {
        told = true;
        write("told", owner, fencingToken);
      });
      if (signal.aborted) return write("told", owner, fencingToken);
      await sleep(long ? 2 * Number(ttlMs) : Math.random() * SHORT_MS, undefined, { signal }).catch(() => {});
      if (!told) write("end", owner, fencingToken);
    },
    { ttlMs: Number(ttlMs), waitMs: 10_000, owner },
  );
  await sleep(Math.random() * AGAIN_MS);
}

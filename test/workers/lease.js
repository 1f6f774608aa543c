// Takes the lease of a name again and again by the client library, and appends to a log that it shares with others,
// one write per line: `begin` with the token, and then `end` before it gives it back, or `told` in the moment in which
// it learns that it lost it. It holds it for a moment, or as long as there is the file LOG.hold. It outlives its
// daemon, and ends when it is killed.
//
//   node lease.js SOCKET NAME LOG OWNER TTL_MS
import { existsSync, openSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "../../client/dist/bundle/index.js";

const [socket, name, logPath, owner, ttlMs] = process.argv.slice(2);
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
      write("begin", owner, fencingToken);
      let over = false;
      // Once it has stopped, losing it while giving it back says nothing new.
      const stop = (word) => {
        if (!over) write(word, owner, fencingToken);
        over = true;
      };
      signal.addEventListener("abort", () => stop("told"));
      if (signal.aborted) return stop("told");
      await sleep(Math.random() * SHORT_MS);
      while (existsSync(`${logPath}.hold`) && !signal.aborted) await sleep(SHORT_MS);
      stop("end");
    },
    { ttlMs: Number(ttlMs), waitMs: 10_000, owner },
  );
  await sleep(Math.random() * AGAIN_MS);
}

// A worker over the raw socket: claims one batch after the other, pretends to work on it, and completes it. To a
// log that it shares with others it appends, one write per line, what it does with which batch under which token:
// `begin` and `end` of the work, `done` once the daemon has confirmed the completion, `lost` if it was refused.
// The worker connects again whenever the daemon goes away, and ends when it is killed.
//
//   node queue.js SOCKET QUEUE LOG LEASE_MS MOST_WORK_MS
import { openSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { callerOf } from "./caller.js";

const [path, queue, logPath, leaseMs, mostWorkMs] = process.argv.slice(2);
const log = openSync(logPath, "a");
const write = (...words) => writeSync(log, `${words.join(" ")}\n`);
const call = callerOf(path);

for (;;) {
  // The lease is counted from before it is asked for, so that it never ends sooner than it is thought to.
  const askedAt = performance.now();
  const reply = await call("queue.claim", {
    queue,
    owner: `worker ${process.pid}`,
    leaseMs: Number(leaseMs),
    waitMs: 1000,
    releaseOn: "disconnect",
  });
  const claim = reply?.result?.claim;
  if (!claim) continue;
  const what = [claim.batches[0].enqueueSeq, claim.fencingToken];
  // A worker that was stopped for so long must not touch anything any more.
  const isHeld = () => performance.now() - askedAt < Number(leaseMs) / 2;
  if (!isHeld()) continue;
  write("begin", ...what);
  await sleep(Math.random() * Number(mostWorkMs));
  write(isHeld() ? "end" : "late", ...what);
  const proof = { claimId: claim.claimId, leaseToken: claim.leaseToken };
  let answer;
  // Completing twice answers the same, so it is asked until it is known.
  while (answer === undefined) answer = await call("queue.complete", proof);
  if (answer.error === undefined) write("done", ...what);
  else if (answer.error.data.kind === "claim_lost") write("lost", ...what);
  else throw new Error(answer.error.message);
}

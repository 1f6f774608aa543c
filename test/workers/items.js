// A worker over the raw socket: claims one item of the board after the other, pretends to work on it, and finishes it.
// To a log that it shares with others it appends, one write per line, what it does with which item under which token:
// `begin` and `end` of the work, `done` once the daemon has confirmed that it is finished, `lost` if it was refused.
// The worker connects again whenever the daemon goes away, and ends when it is killed.
//
//   node items.js SOCKET LOG TTL_MS MOST_WORK_MS
import { openSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { callerOf } from "./caller.js";

const [path, logPath, ttlMs, mostWorkMs] = process.argv.slice(2);
const log = openSync(logPath, "a");
const write = (...words) => writeSync(log, `${words.join(" ")}\n`);
const call = callerOf(path);

for (;;) {
  // The lease is counted from before it is asked for, so that it never ends sooner than it is thought to.
  const askedAt = performance.now();
  const reply = await call("pipeline.claim", {
    agent: `worker ${process.pid}`,
    toStage: "2_current",
    ttlMs: Number(ttlMs),
    waitMs: 1000,
    releaseOn: "disconnect",
  });
  if (!reply?.result?.item) continue;
  const { item, lease } = reply.result;
  const { fencingToken } = lease;
  const isHeld = () => performance.now() - askedAt < Number(ttlMs) / 2;
  if (!isHeld()) continue;
  const what = [item.storyId, fencingToken];
  write("begin", ...what);
  await sleep(Math.random() * Number(mostWorkMs));
  // One that is late leaves the item to the end of its claim.
  if (!isHeld()) {
    write("late", ...what);
    continue;
  }
  write("end", ...what);
  let answer;
  // Finishing twice is refused, also if it was done the first time.
  while (answer === undefined) {
    answer = await call("pipeline.finish", { storyId: item.storyId, fencingToken, toStage: "5_done" });
  }
  if (answer.error === undefined) write("done", ...what);
  else if (answer.error.data.kind === "lease_lost") write("lost", ...what);
  else throw new Error(answer.error.message);
}

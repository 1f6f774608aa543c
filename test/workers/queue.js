// A worker over the raw socket: claims one batch after the other, pretends to work on it, and completes it. To a
// log that it shares with others it appends, one write per line, what it does with which batch under which token:
// `begin` and `end` of the work, `done` once the daemon has confirmed the completion, `lost` if it was refused.
// The worker connects again whenever the daemon goes away, and ends when it is killed.
//
//   node queue.js SOCKET QUEUE LOG LEASE_MS MOST_WORK_MS
import { openSync, writeSync } from "node:fs";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const [path, queue, logPath, leaseMs, mostWorkMs] = process.argv.slice(2);
const log = openSync(logPath, "a");
const write = (...words) => writeSync(log, `${words.join(" ")}\n`);
const RECONNECT_MS = 20;

let connection;
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

/** The reply; undefined if the daemon went away before it came, or is about to. */
async function call(method, params) {
  connection ??= await open();
  const reply = await connection.ask({ jsonrpc: "2.0", id: 1, method, params });
  if (reply === undefined) connection = undefined;
  return reply?.error?.data.kind === "unavailable" ? undefined : reply;
}

async function open() {
  for (;;) {
    const socket = connect(path);
    const isOpen = await new Promise((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    if (isOpen) return converse(socket);
    await sleep(RECONNECT_MS);
  }
}

function converse(socket) {
  let partial = "";
  let answer = () => {};
  socket.setEncoding("utf8");
  socket.on("data", (chunk) => {
    partial += chunk;
    if (!partial.endsWith("\n")) return;
    const line = partial;
    partial = "";
    answer(JSON.parse(line));
  });
  socket.on("error", () => {});
  socket.on("close", () => answer(undefined));
  return {
    ask: (request) =>
      new Promise((resolve) => {
        if (socket.closed || socket.destroyed) return resolve(undefined);
        answer = resolve;
        socket.write(`${JSON.stringify(request)}\n`);
      }),
  };
}

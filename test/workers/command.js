// A receiver over the raw socket: takes commands of a deployment, pretends to carry them out, and answers. To a log
// that it shares with others it appends, one write per line, what becomes of which delivery of which command:
// `begin` when it has it, `answer` before it answers, and by pull also what the daemon said to that: `accepted`,
// `late` or `lost`. Some it is slow with, or hangs in until the time of the delivery is over. It names itself by its
// pid (`named`), and by another name once that has ended. It connects again whenever the daemon goes away, and ends
// when it is killed.
//
//   node command.js SOCKET DEPLOYMENT LOG pull|push LEASE_MS MOST_WORK_MS
import { openSync, writeSync } from "node:fs";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const [path, deployment, logPath, way, leaseMs, mostWorkMs] = process.argv.slice(2);
const log = openSync(logPath, "a");
const write = (...words) => writeSync(log, `${words.join(" ")}\n`);
const RECONNECT_MS = 20;
const AT_A_TIME = 3;
const ERROR_SHARE = 0.1;
const EXPIRY_SHARE = 0.2;
const RELEASE_SHARE = 0.02;
const HANG_SHARE = 0.02;
/** Until before the end of a delivery, or after it. */
const SLOW_SHARE = 0.03;
const SLOW_FACTOR = 1.5;
const owner = `${way} ${process.pid}`;

let names = 1;
let isNamed = false;
let nextId = 1;
let answers = new Map();
let socket;
let opening;

if (way === "push") await serve();
else await Promise.all(Array.from({ length: AT_A_TIME }, pull));

async function pull() {
  for (;;) {
    const reply = await call("command.lease", {
      deployment,
      owner,
      incarnation: `${process.pid}.${names}`,
      max: 1 + Math.floor(Math.random() * AT_A_TIME),
      leaseMs: Number(leaseMs),
      waitMs: 1000,
      ...(Math.random() < EXPIRY_SHARE
        ? {}
        : { releaseOn: "disconnect", graceMs: Math.random() < 0.5 ? 0 : 500 }),
    });
    if (reply?.error !== undefined) takeOtherName(reply.error);
    if (reply?.result !== undefined) tellName();
    for (const { leaseId, envelope } of reply?.result?.leases ?? []) {
      const { commandId, attempt, executionMs } = envelope;
      write("begin", commandId, attempt, process.pid);
      if (Math.random() < HANG_SHARE) {
        // Whatever it is renewed for, it ends.
        await call("command.renew", { leaseId, leaseMs: 86_400_000 });
        await sleep(executionMs);
        continue;
      }
      await sleep(workMs(executionMs));
      if (Math.random() < RELEASE_SHARE) {
        await call("command.release", { leaseId });
        continue;
      }
      const response = answerTo(commandId, attempt);
      let answered;
      // Answering twice is answered, so it is done until something is known of it.
      while (answered === undefined)
        answered = await call("command.respond", { commandId, leaseId, response });
      const { result, error } = answered;
      const isLost = ["lease_lost", "invalid_state"].includes(error?.data.kind);
      if (error !== undefined && !isLost) throw new Error(error.message);
      write(isLost ? "lost" : result.accepted ? "accepted" : "late", commandId, attempt, process.pid);
    }
  }
}

async function serve() {
  for (;;) {
    const incarnation = `${process.pid}.${names}`;
    const served = await call("command.serve", { deployment, owner, incarnation, max: AT_A_TIME });
    if (served?.error !== undefined) takeOtherName(served.error);
    if (served?.result === undefined) continue;
    tellName();
    await new Promise((resolve) => socket.once("close", resolve));
  }
}

/** A request of the daemon, answered on the connection on which it came. */
async function execute({ id, params: { commandId, attempt, executionMs } }, from) {
  write("begin", commandId, attempt, process.pid);
  if (Math.random() < HANG_SHARE) return;
  await sleep(workMs(executionMs));
  const { status, response, ...error } = answerTo(commandId, attempt);
  const answer =
    status === "success" ? { result: response } : { error: { code: 1, message: "No.", data: error } };
  from.write(`${JSON.stringify({ jsonrpc: "2.0", id, ...answer })}\n`);
}

/** Commands may be for the receiver of this name from now on. */
function tellName() {
  if (!isNamed) write("named", "-", "-", process.pid);
  isNamed = true;
}

/** The receiver of this name was away for too long. */
function takeOtherName({ message, data }) {
  if (data.kind !== "invalid_state") throw new Error(message);
  names += 1;
}

function workMs(executionMs) {
  const isSlow = Math.random() < SLOW_SHARE;
  return Math.random() * (isSlow ? executionMs * SLOW_FACTOR : Number(mostWorkMs));
}

function answerTo(commandId, attempt) {
  write("answer", commandId, attempt, process.pid);
  const what = { attempt, pid: process.pid };
  return Math.random() < ERROR_SHARE
    ? { status: "error", code: "NO", message: "No.", details: what }
    : { status: "success", response: what };
}

/** The reply; undefined if the daemon went away before it came, or is about to. */
async function call(method, params) {
  while (socket === undefined || socket.destroyed) await open();
  const id = nextId++;
  const reply = await new Promise((resolve) => {
    answers.set(id, resolve);
    socket.write(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`);
  });
  return reply?.error?.data.kind === "unavailable" ? undefined : reply;
}

/** Several may ask for it at once. */
async function open() {
  opening ??= connectOnce().finally(() => {
    opening = undefined;
  });
  await opening;
}

async function connectOnce() {
  const opened = connect(path);
  const isOpen = await new Promise((resolve) => {
    opened.once("connect", () => resolve(true));
    opened.once("error", () => resolve(false));
  });
  if (!isOpen) return sleep(RECONNECT_MS);
  const pending = new Map();
  answers = pending;
  socket = opened;
  let partial = "";
  opened.setEncoding("utf8");
  opened.on("data", (chunk) => {
    const lines = (partial + chunk).split("\n");
    partial = lines.pop();
    for (const line of lines) {
      const message = JSON.parse(line);
      if (message.method === "command.execute") void execute(message, opened);
      else if (message.method === undefined) pending.get(message.id)?.(message);
      pending.delete(message.id);
    }
  });
  opened.on("error", () => {});
  opened.on("close", () => {
    for (const resolve of pending.values()) resolve(undefined);
    pending.clear();
  });
}

// One call at a time over the raw socket, by a worker that connects again whenever the daemon goes away.
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const RECONNECT_MS = 20;

/**
 * Makes the function that calls a method of the daemon on a socket.
 *
 * @param {string} path
 * @returns {(method: string, params: object) => Promise<any>} resolves with the reply; with undefined if the daemon
 *   went away before it came, or is about to.
 */
export function callerOf(path) {
  let connection;
  return async (method, params) => {
    connection ??= await open(path);
    const reply = await connection.ask({ jsonrpc: "2.0", id: 1, method, params });
    if (reply === undefined) connection = undefined;
    return reply?.error?.data.kind === "unavailable" ? undefined : reply;
  };
}

async function open(path) {
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
    const lines = (partial + chunk).split("\n");
    partial = lines.pop();
    for (const line of lines) {
      const message = JSON.parse(line);
      // What is left is what the daemon tells of leases.
      if (message.method === undefined) answer(message);
    }
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

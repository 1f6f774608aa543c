// @ts-check
/** A server on node:net that counts and stores nothing: what there is to be had from one Node process. */
import path from "node:path";
import { fileURLToPath } from "node:url";
import { protocol } from "./pawl.js";
import { startServer } from "./program.js";

const SERVER = fileURLToPath(new URL("echo-server.js", import.meta.url));

/** @type {import("./program.js").Peer} */
export const echo = {
  name: "Node, no store",
  durability: "none",
  missing: () => undefined,
  version: () => process.version,
  start(directory) {
    const socket = path.join(directory, "echo.sock");
    return startServer({
      command: process.execPath,
      args: [SERVER, socket],
      socket,
      protocol,
      probe: '{"jsonrpc":"2.0","id":0,"method":"ping","params":{"type":"PROBE"}}\n',
    });
  },
};

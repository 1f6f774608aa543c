import { once } from "node:events";
import { readFileSync, rmSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { connect, isIPv6 } from "node:net";

/** Where the page is served: a Unix socket, or a host and a port. */
export type Address = { readonly path: string } | { readonly host: string; readonly port: number };

/** What cannot be served as asked: the message names the value and says what to do. */
export class CannotServe extends Error {
  override readonly name: string = "CannotServe";
}

/** Connections that may be open at once; further ones are closed as they come. */
const MOST_CONNECTIONS = 256;
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 15_000;
const KEEP_ALIVE_MS = 5000;
const MOST_HEADER_BYTES = 16 * 1024;
const MOST_PORT = 65_535;

/** `127.0.0.1:7295`, `[::1]:7295`, `7295`, or the path of a Unix socket, which has a slash. */
export function addressOf(listen: string): Address {
  if (listen.includes("/")) return { path: listen };
  const [, bracketed, plain, port] = /^(?:(?:\[([^\]]+)\]|([^:[\]]+)):)?([0-9]{1,5})$/.exec(listen) ?? [];
  if (port === undefined || Number(port) > MOST_PORT) {
    throw new CannotServe(
      `--listen is HOST:PORT, as 127.0.0.1:7295, or the path of a Unix socket, not ${JSON.stringify(listen)}.`,
    );
  }
  return { host: bracketed ?? plain ?? "127.0.0.1", port: Number(port) };
}

/** True if only processes of this machine can connect. */
export function isLocal(address: Address): boolean {
  if ("path" in address) return true;
  return (
    address.host === "localhost" || address.host === "::1" || /^127(\.[0-9]{1,3}){3}$/.test(address.host)
  );
}

/** A host as it is written before a port. */
export function writtenHost(host: string): string {
  return isIPv6(host) ? `[${host}]` : host;
}

/** Makes the server, with bounds on what a client can have it keep. */
export function boundedServer(tls: { cert: string; key: string } | undefined): Server {
  const bounds = {
    maxHeaderSize: MOST_HEADER_BYTES,
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: HEADERS_TIMEOUT_MS / 2,
    keepAliveTimeout: KEEP_ALIVE_MS,
  };
  const server =
    tls === undefined
      ? createServer(bounds)
      : createTlsServer({ ...bounds, cert: readFileSync(tls.cert), key: readFileSync(tls.key) });
  server.maxConnections = MOST_CONNECTIONS;
  return server;
}

/** Listens, and resolves with the address: with the port that was chosen where 0 was asked for. */
export async function listenOn(server: Server, address: Address): Promise<Address> {
  if ("path" in address) await removeStale(address.path);
  // A socket is made at once, and is its owner's from then on.
  const umask = process.umask(0o177);
  server.listen("path" in address ? { path: address.path } : address);
  process.umask(umask);
  try {
    await once(server, "listening");
  } catch (error) {
    throw new CannotServe(
      `Cannot listen on ${shownAddress(address)}: ${(error as Error).message}. See --listen.`,
    );
  }
  const bound = server.address();
  if ("path" in address || bound === null || typeof bound === "string") return address;
  return { host: address.host, port: bound.port };
}

export function shownAddress(address: Address): string {
  return "path" in address ? address.path : `${writtenHost(address.host)}:${address.port}`;
}

/** A socket that nobody answers on is left of one who was killed. */
async function removeStale(path: string): Promise<void> {
  if (!statSync(path, { throwIfNoEntry: false })?.isSocket()) return;
  const answered = await new Promise<boolean>((resolve) => {
    const socket = connect(path, () => resolve(true)).on("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
  if (!answered) rmSync(path);
}

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { readAssets } from "./server/assets.js";
import { type DaemonClient, DaemonLink } from "./server/daemon-link.js";
import { Followers } from "./server/followers.js";
import { Guard } from "./server/guard.js";
import {
  type Address,
  addressOf,
  boundedServer,
  CannotServe,
  isLocal,
  listenOn,
  shownAddress,
  writtenHost,
} from "./server/listen.js";
import { Routes } from "./server/routes.js";

export { CannotServe, type DaemonClient };

export interface WebOptions<C extends DaemonClient> {
  /** Connects to the daemon; called again after `close`, and whenever a connection was lost. */
  connect(): Promise<C>;
  /** The OpenMetrics text. */
  metrics(client: C): Promise<string>;
  /** `HOST:PORT`, or the path of a Unix socket; `127.0.0.1:7295` by default. Port 0 takes one that is free. */
  listen?: string | undefined;
  /** Refuses whatever changes something. Then everybody on this machine may look, unless there is a `tokenFile`. */
  readOnly?: boolean;
  /** Keeps the token in this file, so that the address stays the same; made if it is not there. */
  tokenFile?: string | undefined;
  /** One more value of `Host`, by which a proxy reaches the page. */
  allowHost?: string | undefined;
  /** Files of the certificate and its key. */
  tls?: { readonly cert: string; readonly key: string } | undefined;
}

export interface WebServer {
  /** The address to open, with its token; of a Unix socket its path. */
  readonly url: string;
  /** What whoever started it should know: that others can listen in, say. */
  readonly warning: string | undefined;
  /** Ends all connections. */
  close(): Promise<void>;
}

const DEFAULT_LISTEN = "127.0.0.1:7295";
const TOKEN_BYTES = 32;
const TOKEN = /^[\w-]{32,128}$/;

/** Serves the page. Rejects with `CannotServe` if the options are wrong, or the address is taken. */
export async function serveWeb<C extends DaemonClient>(options: WebOptions<C>): Promise<WebServer> {
  const { readOnly = false, tls } = options;
  const wanted = addressOf(options.listen ?? DEFAULT_LISTEN);
  const token = tokenFor(options, wanted);
  const assets = readAssets();
  const server = boundedServer(tls);
  const address = await listenOn(server, wanted);
  const scheme = tls === undefined ? "http" : "https";
  const guard = new Guard({
    hosts: hostsOf(address, options.allowHost),
    scheme,
    token,
    cookie: cookieFor(address),
  });
  const followers = new Followers((open) => (open === 0 ? link.unfollow() : link.follow()));
  const link: DaemonLink<C> = new DaemonLink(options.connect, followers, readOnly);
  const metrics = () => link.use((client) => options.metrics(client));
  const routes = new Routes({ guard, link, followers, assets, readOnly, metrics });
  server.on("request", (request, response) => void routes.answer(request, response));
  server.on("clientError", (_error, socket) => socket.destroy());
  return {
    url: urlOf(address, scheme, token),
    warning: isLocal(address) || tls !== undefined ? undefined : warningFor(address),
    async close() {
      followers.close();
      link.close();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Opens an address in the user's browser, and does not wait for it. */
export function openInBrowser(url: string): void {
  const program = process.platform === "darwin" ? "open" : "xdg-open";
  spawn(program, [url], { stdio: "ignore", detached: true })
    .on("error", () => {})
    .unref();
}

/** Beyond this machine there is always a token, also for who only looks. */
function tokenFor(
  { readOnly, tokenFile }: Pick<WebOptions<DaemonClient>, "readOnly" | "tokenFile">,
  address: Address,
): string | undefined {
  if (tokenFile !== undefined) return keptToken(tokenFile);
  return readOnly && isLocal(address) ? undefined : newToken();
}

function newToken(): string {
  return randomBytes(TOKEN_BYTES).toString("base64url");
}

function keptToken(path: string): string {
  if (!existsSync(path)) {
    const token = newToken();
    writeFileSync(path, `${token}\n`, { mode: 0o600, flag: "wx" });
    return token;
  }
  const token = readFileSync(path, "utf8").trim();
  if (!TOKEN.test(token)) {
    throw new CannotServe(
      `${path} holds no token: 32 to 128 letters, digits, - and _. Remove it, and a new one is made.`,
    );
  }
  return token;
}

/** Values of `Host` by which a browser reaches an address. */
function hostsOf(address: Address, allowed: string | undefined): ReadonlySet<string> {
  const more = allowed === undefined ? [] : [allowed.toLowerCase()];
  if ("path" in address) return new Set(["localhost", ...more]);
  const names = isLocal(address) ? ["127.0.0.1", "localhost", "[::1]"] : [];
  const hosts = [writtenHost(address.host), ...names];
  return new Set([...hosts.map((host) => `${host}:${address.port}`.toLowerCase()), ...more]);
}

/** Browsers send cookies of one port to all others of a host. */
function cookieFor(address: Address): string {
  return "path" in address ? "pawl-web" : `pawl-web-${address.port}`;
}

function urlOf(address: Address, scheme: string, token: string | undefined): string {
  const query = token === undefined ? "" : `/?token=${token}`;
  return "path" in address
    ? `${address.path}${query}`
    : `${scheme}://${shownAddress(address)}${query || "/"}`;
}

function warningFor(address: Address): string {
  return `${shownAddress(address)} can be reached from other machines, and what travels is not encrypted: whoever sees it can do all that you can. Give --tls-cert and --tls-key, or listen on 127.0.0.1 and come by ssh -L.`;
}

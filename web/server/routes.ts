import type { IncomingMessage, ServerResponse } from "node:http";
import type { Asset } from "./assets.js";
import { type DaemonLink, isLost } from "./daemon-link.js";
import { type Followers, message } from "./followers.js";
import type { Guard } from "./guard.js";
import { whyNot } from "./methods.js";

export interface RouteParts {
  readonly guard: Guard;
  readonly link: DaemonLink;
  readonly followers: Followers;
  readonly assets: ReadonlyMap<string, Asset>;
  readonly readOnly: boolean;
  /** The OpenMetrics text of the daemon. */
  metrics(): Promise<string>;
}

const MOST_BODY_BYTES = 256 * 1024;
const MOST_CALLS = 64;
/** Of answers that their readers have not taken, all together. */
const MOST_UNREAD_BYTES = 16 * 1024 * 1024;
/** An answer has to be taken in so long. */
const ANSWER_TIMEOUT_MS = 30_000;

const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
};

const JSON_TYPE = "application/json; charset=utf-8";
const TEXT_TYPE = "text/plain; charset=utf-8";
const HTML_TYPE = "text/html; charset=utf-8";
const METRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/** Answers requests. Whatever a request says, it is answered or closed, and nothing that it says becomes HTML. */
export class Routes {
  readonly #parts: RouteParts;
  #calls = 0;
  #unreadBytes = 0;
  #metrics: Promise<string> | undefined;

  constructor(parts: RouteParts) {
    this.#parts = parts;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.setHeader(name, value);
    response.setHeader("Cache-Control", "no-store");
    try {
      await this.#route(request, response);
    } catch (error) {
      if (response.headersSent) response.destroy();
      else this.#error(response, 500, "internal", (error as Error).message);
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { guard, assets } = this.#parts;
    const [path = "", query = ""] = (request.url ?? "").split("?", 2);
    const site = guard.checkSite(request);
    if (site !== undefined) return this.#error(response, site.status, "forbidden", site.message);
    const wanted = path === "/call" ? ["POST"] : ["GET", "HEAD"];
    if (!wanted.includes(request.method ?? "")) {
      response.setHeader("Allow", wanted.join(", "));
      return this.#error(response, 405, "method_not_allowed", `${path} takes ${wanted.join(" and ")}.`);
    }
    if (path === "/healthz") return await this.#health(response);
    const asset = assets.get(path);
    // What everybody has who has the package is no secret.
    if (asset !== undefined && path !== "/") return this.#asset(request, response, asset);
    const token = new URLSearchParams(query).get("token");
    if (path === "/" && token !== null && guard.isToken(token)) return this.#welcome(response);
    const refusal = guard.checkToken(request);
    if (refusal !== undefined) {
      if (path === "/") return this.#end(response, refusal.status, HTML_TYPE, LOCKED);
      return this.#error(response, refusal.status, "forbidden", refusal.message);
    }
    if (asset !== undefined) return this.#asset(request, response, asset);
    if (path === "/call") return await this.#call(request, response);
    if (path === "/events") return this.#events(request, response);
    if (path === "/metrics") return await this.#showMetrics(response);
    return this.#error(response, 404, "not_found", "There is nothing here. The page is at /.");
  }

  /** Gives the browser the token as a cookie. The page is then asked for by itself, and so with the cookie. */
  #welcome(response: ServerResponse): void {
    response.setHeader("Set-Cookie", this.#parts.guard.setCookie);
    this.#end(response, 200, HTML_TYPE, WELCOME);
  }

  #asset(request: IncomingMessage, response: ServerResponse, { type, plain, gzipped }: Asset): void {
    const zipped = /\bgzip\b/.test(request.headers["accept-encoding"] ?? "");
    response.setHeader("Vary", "Accept-Encoding");
    response.setHeader("Cache-Control", "no-cache");
    if (zipped) response.setHeader("Content-Encoding", "gzip");
    this.#end(response, 200, type, zipped ? gzipped : plain);
  }

  async #health(response: ServerResponse): Promise<void> {
    try {
      await this.#parts.link.call("daemon.ping", {});
    } catch {
      return this.#end(response, 503, TEXT_TYPE, "no daemon\n");
    }
    this.#end(response, 200, TEXT_TYPE, "ok\n");
  }

  async #showMetrics(response: ServerResponse): Promise<void> {
    // Whoever asks meanwhile gets the same.
    this.#metrics ??= this.#parts.metrics().finally(() => {
      this.#metrics = undefined;
    });
    let text: string;
    try {
      text = await this.#metrics;
    } catch (error) {
      return this.#end(response, 503, TEXT_TYPE, `${(error as Error).message}\n`);
    }
    this.#end(response, 200, METRICS_TYPE, text);
  }

  #events(request: IncomingMessage, response: ServerResponse): void {
    const { followers, link } = this.#parts;
    if (followers.full) {
      return this.#error(response, 503, "exhausted", "Too many pages are open. Close one.");
    }
    request.socket.setNoDelay(true);
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" });
    response.write(message("state", link.state));
    response.write(message("history", { samples: link.history.samples, events: link.recent }));
    followers.add(response);
  }

  async #call(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { link } = this.#parts;
    if (!/^application\/json\b/.test(request.headers["content-type"] ?? "")) {
      return this.#error(response, 415, "invalid_request", "A call is application/json.");
    }
    if (this.#calls >= MOST_CALLS || this.#unreadBytes > MOST_UNREAD_BYTES) {
      return this.#error(response, 503, "exhausted", "Too much is being asked at once. Try again.");
    }
    this.#calls += 1;
    try {
      const body = await bodyOf(request);
      if (body === undefined) {
        response.setHeader("Connection", "close");
        return this.#error(response, 413, "invalid_request", `A call is at most ${MOST_BODY_BYTES} bytes.`);
      }
      const call = callIn(body);
      if (call === undefined) {
        return this.#error(response, 400, "invalid_request", "A call has a method and params.");
      }
      const refused = whyNot(call.method, this.#parts.readOnly);
      if (refused !== undefined) return this.#error(response, 403, "forbidden", refused);
      this.#end(response, 200, JSON_TYPE, await link.call(call.method, call.params));
    } catch (error) {
      const { kind = "internal", message } = error as Error & { kind?: string };
      if (isLost(error)) this.#error(response, 503, "unavailable", message);
      else this.#error(response, kind === "internal" ? 502 : 409, kind, message);
    } finally {
      this.#calls -= 1;
    }
  }

  #error(response: ServerResponse, status: number, kind: string, said: string): void {
    this.#end(response, status, JSON_TYPE, JSON.stringify({ error: { kind, message: said } }));
  }

  #end(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
    const bytes = typeof body === "string" ? Buffer.byteLength(body) : body.length;
    this.#unreadBytes += bytes;
    const tooLong = setTimeout(() => response.destroy(), ANSWER_TIMEOUT_MS);
    response.once("close", () => {
      clearTimeout(tooLong);
      this.#unreadBytes -= bytes;
    });
    response.statusCode = status;
    response.setHeader("Content-Type", type);
    response.setHeader("Content-Length", bytes);
    response.end(body);
  }
}

/** The body of a request, or undefined if it is too long. */
async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MOST_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function callIn(body: string): { method: string; params: Record<string, unknown> } | undefined {
  try {
    const { method, params = {} } = JSON.parse(body);
    const isCall = typeof method === "string" && typeof params === "object" && params !== null;
    return isCall && !Array.isArray(params) ? { method, params } : undefined;
  } catch {
    return undefined;
  }
}

function document(head: string, body: string): string {
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>pawl</title><meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/page.css">${head}</head><body><main class="locked">${body}</main></body></html>`;
}

const WELCOME = document('<meta http-equiv="refresh" content="0;url=/">', "<p>One moment.</p>");
const LOCKED = document(
  "",
  "<h1>pawl</h1><p>This page needs its token. Open the address that <code>pawl web</code> has printed: it ends in <code>?token=…</code> and is new after each start, unless <code>--token-file</code> keeps it.</p>",
);

import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";

export interface GuardOptions {
  /** Values of `Host` by which the page is reached, in lower case. */
  readonly hosts: ReadonlySet<string>;
  readonly scheme: "http" | "https";
  /** What a request has to know, or undefined where everybody may look. */
  readonly token: string | undefined;
  readonly cookie: string;
}

/** An answer in place of what was asked for. */
export interface Refusal {
  readonly status: number;
  readonly message: string;
}

/**
 * Decides who is let in. A page of another site can have a browser send requests here, and by DNS rebinding even read
 * the answers: its requests have another `Host` or `Origin`, and no cookie.
 */
export class Guard {
  readonly #options: GuardOptions;
  readonly #token: Buffer | undefined;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#token = options.token === undefined ? undefined : digest(options.token);
  }

  /** Refuses a request that another site may have caused. */
  checkSite(request: IncomingMessage): Refusal | undefined {
    const { headers, method } = request;
    const host = headers.host?.toLowerCase();
    if (host === undefined || !this.#options.hosts.has(host)) {
      return { status: 421, message: "The Host of this request is not one of this page; see --allow-host." };
    }
    const { origin } = headers;
    if (origin !== undefined && origin.toLowerCase() !== `${this.#options.scheme}://${host}`) {
      return { status: 403, message: "The Origin of this request is another site." };
    }
    const isRead = method === "GET" || method === "HEAD";
    if (!isRead && origin === undefined) return { status: 403, message: "This request needs an Origin." };
    const site = headers["sec-fetch-site"];
    const foreign = site !== undefined && site !== "same-origin" && site !== "none";
    // Who follows a link comes from another site, and may.
    if (foreign && !(isRead && headers["sec-fetch-mode"] === "navigate")) {
      return { status: 403, message: "This request was made by a page of another site." };
    }
    return undefined;
  }

  /** Refuses a request that does not know the token. */
  checkToken(request: IncomingMessage): Refusal | undefined {
    if (this.#token === undefined) return undefined;
    const [, bearer] = /^Bearer (.+)$/i.exec(request.headers.authorization ?? "") ?? [];
    const given = bearer ?? cookieOf(request, this.#options.cookie);
    if (given !== undefined && this.isToken(given)) return undefined;
    return { status: 401, message: "Open the address that pawl web has printed: it has the token." };
  }

  isToken(given: string): boolean {
    return this.#token !== undefined && timingSafeEqual(digest(given), this.#token);
  }

  /** The header by which a browser keeps the token, out of the reach of scripts and of other sites. */
  get setCookie(): string {
    const { cookie, token, scheme } = this.#options;
    return `${cookie}=${token}; Path=/; HttpOnly; SameSite=Strict${scheme === "https" ? "; Secure" : ""}`;
  }
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function cookieOf({ headers }: IncomingMessage, name: string): string | undefined {
  const pairs = (headers.cookie ?? "").split(";").map((pair) => pair.trim());
  return pairs.find((pair) => pair.startsWith(`${name}=`))?.slice(name.length + 1);
}

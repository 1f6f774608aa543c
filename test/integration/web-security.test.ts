// Who is let in by `pawl web`, and what those who are not can bring about: by hand, without a browser.
import { once } from "node:events";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, request, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { Followers } from "../../web/dist/server/followers.js";
import { privateDirectory, sharedDaemon, startDaemon } from "../daemon.js";
import { type Served, serve } from "../web-page.js";
import { pawl, startPawl } from "./cli-program.js";

const daemon = sharedDaemon();
const CONNECTIONS = 1000;
/** As many as the server keeps open. */
const MOST_CONNECTIONS = 256;

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

/** One request as it is written here: no header is added but Host, if none is given. */
function ask(
  { origin }: Pick<Served, "origin">,
  path: string,
  {
    method = "GET",
    headers = {},
    body,
  }: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(origin);
    request({ hostname, port, path, method, headers, agent: false }, async (response) => {
      const parts: Buffer[] = [];
      for await (const part of response) parts.push(part);
      resolve({
        status: response.statusCode as number,
        headers: response.headers,
        body: Buffer.concat(parts).toString(),
      });
    })
      .on("error", reject)
      .end(body);
  });
}

/** The headers of a call that the page itself makes. */
function asThePage({ origin, cookie }: Served): Record<string, string> {
  return {
    "Content-Type": "application/json",
    Origin: origin,
    Cookie: cookie,
    "Sec-Fetch-Site": "same-origin",
  };
}

function call(served: Served, method: string, params: object, headers = asThePage(served)): Promise<Answer> {
  return ask(served, "/call", { method: "POST", headers, body: JSON.stringify({ method, params }) });
}

const PRIVATE = ["/", "/events", "/metrics"];

describe("the token", () => {
  test("without it, or with another, there is nothing: not even a look", async () => {
    const served = await serve(daemon().place.socket);
    const wrong = [
      {},
      { Cookie: `${served.cookie}x` },
      { Cookie: `pawl-web-1=${served.token}` },
      { Authorization: "Bearer " },
      { Authorization: `Bearer ${served.token?.slice(1)}` },
    ];
    for (const headers of wrong) {
      for (const path of [...PRIVATE, "/?token=", `/?token=${served.token}x`]) {
        expect([path, (await ask(served, path, { headers })).status]).toEqual([path, 401]);
      }
      const { Cookie: _, ...page } = asThePage(served);
      expect((await call(served, "daemon.info", {}, { ...page, ...headers })).status).toBe(401);
    }
    // The address that is printed is no token for anything but the page.
    expect((await ask(served, `/metrics?token=${served.token}`)).status).toBe(401);
  });

  test("of the printed address becomes a cookie that scripts and other sites do not get", async () => {
    const served = await serve(daemon().place.socket);
    const welcome = await ask(served, `/?token=${served.token}`);
    expect(welcome.status).toBe(200);
    expect(welcome.headers["set-cookie"]).toEqual([`${served.cookie}; Path=/; HttpOnly; SameSite=Strict`]);
    expect(welcome.body).toContain('http-equiv="refresh" content="0;url=/"');
    expect(welcome.body).not.toContain(served.token);
    const page = await ask(served, "/", { headers: { Cookie: `other=1; ${served.cookie}` } });
    expect(page).toMatchObject({ status: 200, headers: { "content-type": "text/html; charset=utf-8" } });
    const bearer = { Authorization: `Bearer ${served.token}` };
    expect((await ask(served, "/metrics", { headers: bearer })).body).toMatch(/# EOF\n$/);
  });

  test("is new after each start, unless a file keeps it, which nobody else reads", async () => {
    const file = join(privateDirectory(), "token");
    const tokens = await Promise.all([1, 2].map(async () => (await serve(daemon().place.socket)).token));
    expect(new Set(tokens).size).toBe(2);
    const first = await serve(daemon().place.socket, { tokenFile: file });
    const second = await serve(daemon().place.socket, { tokenFile: file, readOnly: true });
    expect(second.token).toBe(first.token);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(file, "utf8").trim()).toBe(first.token);
    writeFileSync(file, "short\n");
    await expect(serve(daemon().place.socket, { tokenFile: file })).rejects.toThrow(/holds no token/);
  });
});

describe("other sites", () => {
  test("a foreign Host is refused, also by a name that leads here (DNS rebinding)", async () => {
    const served = await serve(daemon().place.socket, { allowHost: "pawl.example.org" });
    const { port } = new URL(served.origin);
    for (const host of [
      "evil.example",
      `evil.example:${port}`,
      "127.0.0.1",
      `127.0.0.1.evil.example:${port}`,
    ]) {
      for (const path of [...PRIVATE, "/healthz", "/page.js"]) {
        const { status } = await ask(served, path, { headers: { Host: host, Cookie: served.cookie } });
        expect([host, path, status]).toEqual([host, path, 421]);
      }
    }
    for (const host of [served.host, `LOCALHOST:${port}`, `[::1]:${port}`, "pawl.example.org"]) {
      const { status } = await ask(served, "/", { headers: { Host: host, Cookie: served.cookie } });
      expect([host, status]).toEqual([host, 200]);
    }
  });

  test("a foreign Origin is refused, and a call without one", async () => {
    const served = await serve(daemon().place.socket);
    const page = asThePage(served);
    for (const origin of [
      "http://evil.example",
      "null",
      served.origin.replace("http", "https"),
      `${served.origin}0`,
    ]) {
      expect((await call(served, "daemon.info", {}, { ...page, Origin: origin })).status).toBe(403);
      const { status } = await ask(served, "/events", { headers: { Cookie: served.cookie, Origin: origin } });
      expect(status).toBe(403);
    }
    const { Origin: _, ...without } = page;
    expect((await call(served, "daemon.info", {}, without)).status).toBe(403);
    expect((await call(served, "daemon.info", {})).status).toBe(200);
  });

  test("a form of another site, and of another port of this host, brings nothing about", async () => {
    const served = await serve(daemon().place.socket);
    const page = asThePage(served);
    const body = JSON.stringify({ method: "queue.purge", params: { queue: "mail" } });
    const form = { ...page, "Content-Type": "text/plain" };
    expect((await ask(served, "/call", { method: "POST", headers: form, body })).status).toBe(415);
    for (const site of ["cross-site", "same-site"]) {
      const { status } = await call(served, "daemon.info", {}, { ...page, "Sec-Fetch-Site": site });
      expect([site, status]).toEqual([site, 403]);
      const image = { Cookie: served.cookie, "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors" };
      expect((await ask(served, "/metrics", { headers: image })).status).toBe(403);
    }
    // Who follows a link may come in.
    const link = { Cookie: served.cookie, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate" };
    expect((await ask(served, "/", { headers: link })).status).toBe(200);
  });

  test("every answer forbids scripts, frames and sniffing, and gives no site leave to read it", async () => {
    const served = await serve(daemon().place.socket);
    for (const path of ["/", "/page.js", "/page.css", "/icon.svg", "/healthz", "/metrics", "/nowhere"]) {
      const { headers } = await ask(served, path, { headers: { Cookie: served.cookie } });
      const policy = headers["content-security-policy"] as string;
      expect(policy).toContain("default-src 'none'");
      expect(policy).toContain("frame-ancestors 'none'");
      expect(policy).toContain("form-action 'none'");
      expect(policy).not.toMatch(/unsafe|\*|https?:/);
      expect(headers).toMatchObject({
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
      });
      expect(headers).not.toHaveProperty("access-control-allow-origin");
    }
    // None of its own files needs more: no script and no style within the HTML, and no address elsewhere.
    for (const path of ["/", `/?token=${served.token}`]) {
      const { body } = await ask(served, path, { headers: { Cookie: served.cookie } });
      expect(body).not.toMatch(/<script(?![^>]*\bsrc="\/)|<style|\sstyle=|\son\w+=|(?:src|href)="(?!\/)/);
    }
  });
});

describe("requests", () => {
  test("no path leads out of the files of the page", async () => {
    const served = await serve(daemon().place.socket);
    const paths = [
      "/../package.json",
      "/..%2fpackage.json",
      "/%2e%2e/%2e%2e/etc/passwd",
      "/page.js/../../index.js",
      "//etc/passwd",
      "/licenses.txt",
      "/index.html",
      "/page.js%00.css",
      "/PAGE.JS",
      "http://127.0.0.1/",
      "/\\..\\index.js",
    ];
    for (const path of paths) {
      const { status, body } = await ask(served, path, { headers: { Cookie: served.cookie } });
      expect([path, status]).toEqual([path, 404]);
      expect(body).not.toContain(path);
    }
    expect((await ask(served, "/call", { headers: { Cookie: served.cookie } })).status).toBe(405);
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) {
      expect((await ask(served, "/metrics", { method, headers: asThePage(served) })).status).toBe(405);
    }
  });

  test("only methods of the page can be called: none that waits, holds, or ends the daemon", async () => {
    const served = await serve(daemon().place.socket);
    const others = [
      "queue.claim",
      "queue.enqueue",
      "lease.acquire",
      "events.watch",
      "transact",
      "daemon.backup",
    ];
    for (const method of [...others, "constructor", "__proto__", "rpc.cancel", ""]) {
      const { status, body } = await call(served, method, {});
      expect([method, status, JSON.parse(body).error.kind]).toEqual([method, 403, "forbidden"]);
    }
    for (const body of [
      "",
      "null",
      "[]",
      "{}",
      '{"method":1}',
      '{"method":"daemon.info","params":[]}',
      "{",
    ]) {
      const { status } = await ask(served, "/call", { method: "POST", headers: asThePage(served), body });
      expect([body, status]).toEqual([body, 400]);
    }
    const long = JSON.stringify({ method: "queue.get", params: { batchId: "x".repeat(300_000) } });
    expect(
      (await ask(served, "/call", { method: "POST", headers: asThePage(served), body: long })).status,
    ).toBe(413);
    // The daemon's own refusals come through, with their kinds.
    const refused = await call(served, "queue.get", { batchId: "qwb:none" });
    expect([refused.status, JSON.parse(refused.body).error.kind]).toEqual([409, "not_found"]);
  });

  test("a page that only looks has no token, and changes nothing", async () => {
    const served = await serve(daemon().place.socket, { readOnly: true });
    expect(served.token).toBeUndefined();
    const { Cookie: _, ...page } = asThePage(served);
    expect((await call(served, "daemon.info", {}, page)).status).toBe(200);
    const writes = {
      "queue.retry": { queue: "mail" },
      "queue.cancel": { batchId: "x" },
      "queue.configure": { queue: "mail", paused: true },
      "queue.purge": { queue: "mail", states: ["dead"] },
      "queue.update": { batchId: "x", priority: 1 },
      "lease.break": { name: "a", reason: "b" },
      "pipeline.write": { storyId: "FR-1", stage: "1_backlog" },
      "command.cancel": { commandId: "x" },
      "schedule.set": { name: "a", queue: "b", payloads: [1], everyMs: 60_000 },
      "schedule.run": { name: "a" },
      "schedule.delete": { name: "a" },
    };
    for (const [method, params] of Object.entries(writes)) {
      const { status, body } = await call(served, method, params, page);
      expect([method, status, JSON.parse(body).error.kind]).toEqual([method, 403, "forbidden"]);
    }
    // A foreign site does not get to look either.
    expect((await ask(served, "/metrics", { headers: { Host: "evil.example" } })).status).toBe(421);
    expect((await call(served, "daemon.info", {}, { ...page, Origin: "http://evil.example" })).status).toBe(
      403,
    );
  });

  test("beyond this machine there is a warning, and a token also for who only looks", async () => {
    const served = await serve(daemon().place.socket, { readOnly: true, listen: "0.0.0.0:0" });
    expect(served.server.warning).toMatch(/not encrypted/);
    expect(served.token).toMatch(/^[\w-]{43}$/);
    const { port } = new URL(served.origin);
    const here = { origin: `http://127.0.0.1:${port}` };
    expect((await ask(here, "/", { headers: { Host: `0.0.0.0:${port}` } })).status).toBe(401);
    expect((await ask(here, "/")).status).toBe(421);
  });
});

describe("many and slow", () => {
  /** Connects, and sends a text. */
  async function connected({ origin }: Pick<Served, "origin">, text: string): Promise<Socket> {
    const socket = connect(Number(new URL(origin).port), "127.0.0.1");
    socket.on("error", () => {});
    onTestFinished(() => void socket.destroy());
    await once(socket, "connect");
    socket.write(text);
    return socket;
  }

  test("of 1,000 connections that send half a request 256 are kept, and others are served after them", async () => {
    const served = await serve(daemon().place.socket, { readOnly: true });
    const sockets = await Promise.all(
      Array.from({ length: CONNECTIONS }, () => connected(served, "GET / HTTP/1.1\r\nHost: a")),
    );
    let closed = 0;
    await new Promise<void>((resolve) => {
      for (const socket of sockets) {
        socket.resume();
        const count = (): void => {
          closed += 1;
          if (closed === CONNECTIONS - MOST_CONNECTIONS) resolve();
        };
        if (socket.destroyed) count();
        else socket.once("close", count);
      }
    });
    expect(sockets.filter(({ destroyed }) => !destroyed)).toHaveLength(MOST_CONNECTIONS);
    for (const socket of sockets) socket.destroy();
    for (;;) {
      const answer = await ask(served, "/healthz").catch(() => undefined);
      if (answer?.status === 200) break;
    }
  });

  test("who follows and does not read has little kept for it, and hears that it missed something", async () => {
    const followers = new Followers(() => {});
    const responses: ServerResponse[] = [];
    const server = createServer((_request, response) => {
      responses.push(response);
      followers.add(response);
      response.write(":\n\n");
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => {
      followers.close();
      server.closeAllConnections();
      server.close();
    });
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const slow = await connected({ origin }, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    await once(slow, "data");
    slow.pause();
    const quick = await connected({ origin }, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let quickBytes = 0;
    quick.on("data", (chunk) => {
      quickBytes += chunk.length;
    });
    while (responses.length < 2) await once(server, "request");
    // More than the kernel keeps for a connection.
    const rounds = 400;
    const text = "x".repeat(50_000);
    for (let round = 0; round < rounds; round += 1) {
      const before = quickBytes;
      followers.send("change", { topics: [text], events: [] });
      while (quickBytes < before + text.length) await once(quick, "data");
    }
    expect(quickBytes).toBeGreaterThan(rounds * text.length);
    expect(responses[0]?.writableLength).toBeGreaterThan(0);
    expect(responses[0]?.writableLength).toBeLessThan(200_000);
    let heard = "";
    slow.setEncoding("utf8").on("data", (chunk) => {
      heard += chunk;
    });
    slow.resume();
    const missed = 'data: {"topics":null,"events":[]}\n\n';
    while (!heard.includes(missed)) await once(slow, "data");
    expect(heard.length).toBeLessThan(quickBytes);
  });

  test("64 pages follow at once, and the next one is told why not", async () => {
    const served = await serve(daemon().place.socket, { readOnly: true });
    const follow = `GET /events HTTP/1.1\r\nHost: ${served.host}\r\n\r\n`;
    const sockets = await Promise.all(Array.from({ length: 64 }, () => connected(served, follow)));
    await Promise.all(sockets.map((socket) => once(socket, "data")));
    const refused = await ask(served, "/events");
    expect([refused.status, JSON.parse(refused.body).error.kind]).toEqual([503, "exhausted"]);
  });
});

describe("the program", () => {
  test("prints the address, serves /metrics and /healthz, and says so without a daemon", async () => {
    const { place } = await startDaemon();
    const running = startPawl(["web", "--listen", "127.0.0.1:0", "--json", "--socket", place.socket]);
    await running.printed(/\n/);
    const { url, readOnly } = JSON.parse(running.stdout);
    expect(readOnly).toBe(false);
    const { origin, searchParams } = new URL(url);
    const headers = { Authorization: `Bearer ${searchParams.get("token")}` };
    expect(await ask({ origin }, "/healthz")).toMatchObject({ status: 200, body: "ok\n" });
    const served = await ask({ origin }, "/metrics", { headers });
    expect(served.headers["content-type"]).toBe("application/openmetrics-text; version=1.0.0; charset=utf-8");
    const families = (text: string): string[] => [...text.matchAll(/^# TYPE .*$/gm)].map(([line]) => line);
    const { stdout } = await pawl(["metrics"], { socket: place.socket });
    expect(families(served.body)).toEqual(families(stdout));
    expect(families(stdout).length).toBeGreaterThan(10);
    expect((await running.end("SIGTERM")).code).toBe("SIGTERM");
  });

  test("serves before there is a daemon, and after it", async () => {
    const { place, stop } = await startDaemon().then((started) => ({
      place: started.place,
      stop: async () => {
        started.child.kill("SIGKILL");
        await started.exited;
      },
    }));
    await stop();
    const served = await serve(place.socket, { readOnly: true });
    expect(await ask(served, "/healthz")).toMatchObject({ status: 503, body: "no daemon\n" });
    expect((await ask(served, "/metrics")).status).toBe(503);
    const { Cookie: _, ...page } = asThePage(served);
    const refused = await call(served, "daemon.info", {}, page);
    expect([refused.status, JSON.parse(refused.body).error.kind]).toEqual([503, "unavailable"]);
    await place.start();
    expect((await ask(served, "/healthz")).status).toBe(200);
    expect((await ask(served, "/metrics")).status).toBe(200);
  });

  test("listens on a Unix socket of its owner, in place of one that was left", async () => {
    const path = join(privateDirectory(), "web.sock");
    const options = ["web", "--read-only", "--listen", path, "--socket", daemon().place.socket];
    const killed = startPawl(options);
    await killed.printed(/\n/);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await killed.end("SIGKILL");
    expect(existsSync(path)).toBe(true);
    const running = startPawl(options);
    await running.printed(/\n/);
    expect(running.stdout).toBe(`${path}\n`);
    const status = await new Promise((resolve, reject) => {
      request({ socketPath: path, path: "/healthz", headers: { Host: "localhost" } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on("error", reject)
        .end();
    });
    expect(status).toBe(200);
    await running.end("SIGTERM");
  });

  test("refuses what cannot be: an address that is taken or none, half of TLS, a token file that holds none", async () => {
    const served = await serve(daemon().place.socket);
    for (const [args, said] of [
      [["--listen", served.host], /Cannot listen on 127.0.0.1:\d+: .*EADDRINUSE.*See --listen/],
      [["--listen", "127.0.0.1:70000"], /--listen is HOST:PORT, .*not "127.0.0.1:70000"/],
      [["--listen", "a b"], /--listen is HOST:PORT/],
      [["--tls-cert", "c.pem"], /--tls-cert and --tls-key belong together/],
      [["--token-file", join(import.meta.dirname, "web-security.test.ts")], /holds no token/],
    ] as const) {
      const { code, stderr } = await pawl(["web", ...args], { socket: daemon().place.socket });
      expect(stderr).toMatch(said);
      expect(code).toBe(2);
    }
  });
});

// The page of `pawl web` in a real browser, with a real daemon: as somebody sees it, clicks on it and types.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { Agent, request as ask } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Page, Request } from "playwright-core";
import { describe, expect, onTestFinished, test } from "vitest";
import { PAWL, type Place, startDaemon } from "../daemon.js";
import type { RawClient } from "../raw-client.js";
import { until } from "../until.js";
import { type Seeded, seed } from "../web-data.js";
import { open, serve, sharedBrowser, whyNoBrowser } from "../web-page.js";

const MOST_COMPRESSED_BYTES = 150_000;
const MOST_MEMORY_BYTES = 90_000_000;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const why = whyNoBrowser();
if (why !== undefined) console.warn(`tests of the page in a browser are skipped: ${why}`);
const browser = sharedBrowser();

/** A new daemon with something of everything, and the page of it. */
async function seeded(): Promise<{ place: Place; client: RawClient; data: Seeded }> {
  const { place } = await startDaemon();
  const client = await place.connect();
  onTestFinished(() => client.destroy());
  return { place, client, data: await seed(client) };
}

/** What axe-core finds, a line each. The page forbids scripts, so this goes past its policy by the debugger. */
async function violations(page: Page, rules?: readonly string[]): Promise<string[]> {
  if (!(await page.evaluate("'axe' in globalThis"))) await page.evaluate(AXE);
  return await page.evaluate(async (runOnly) => {
    const { axe } = globalThis as unknown as {
      axe: { run(options: object): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> };
    };
    const resultTypes = ["violations"];
    const found = await axe.run(runOnly === undefined ? { resultTypes } : { resultTypes, runOnly });
    return found.violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
  }, rules);
}

/** True if nothing of the page is beside its window. */
function fits(page: Page): Promise<boolean> {
  return page.evaluate("document.documentElement.scrollWidth <= innerWidth");
}

describe.runIf(why === undefined)("in a browser", () => {
  test("each page shows what there is, is accessible in light and dark, and fits 375 pixels", async () => {
    const { place, data } = await seeded();
    const served = await serve(place.socket);
    const pages: [path: string, shows: string][] = [
      ["#/", "1 dead batch in mail"],
      ["#/queues", "search-index"],
      ["#/queues/mail/dead", "SMTP 550: no such mailbox"],
      [`#/batches/${data.dead}`, '"subject": "Welcome"'],
      ["#/schedules", "monthly-report"],
      ["#/commands", "rotate-keys"],
      [`#/command/${data.command}`, '"keep": 2'],
      ["#/leases", "ci-412"],
      ["#/leases/deploy%2Fshop", "release 3.8.0"],
      ["#/paths", "test/cart-*.ts"],
      ["#/board", "Sign in with a passkey"],
      ["#/board/FR-006", "Faster first page"],
      ["#/sequences", "INV"],
      ["#/events", "Nothing has happened"],
      ["#/daemon", "queue.enqueueMany"],
    ];
    const page = await open(browser(), served);
    for (const [path, shows] of pages) {
      await page.goto(`${served.origin}/${path}`);
      await page.getByText(shows).first().waitFor();
      expect([path, await violations(page)]).toEqual([path, []]);
      // Of a page that is dark nothing else differs.
      await page.emulateMedia({ colorScheme: "dark" });
      expect([path, "dark", await violations(page, ["color-contrast"])]).toEqual([path, "dark", []]);
      await page.setViewportSize({ width: 375, height: 700 });
      expect([path, "dark", await fits(page)]).toEqual([path, "dark", true]);
      await page.emulateMedia({ colorScheme: "light" });
      expect([path, await fits(page)]).toEqual([path, true]);
      await page.setViewportSize({ width: 1280, height: 800 });
    }
  });

  test("an empty daemon is told how to get the first of each", async () => {
    const { place } = await startDaemon();
    const page = await open(browser(), await serve(place.socket));
    await page.getByText("All is well").waitFor();
    for (const [name, first] of [
      ["Queues", "pawl enqueue mail"],
      ["Schedules", "pawl schedule set"],
      ["Commands", "pawl serve site"],
      ["Leases", "pawl lock deploy"],
      ["Paths", "pawl reserve"],
      ["Board", "pawl item set"],
      ["Sequences", "pawl next FR"],
      ["Events", "pawl next FR"],
    ] as const) {
      await page.getByRole("link", { name, exact: true }).click();
      await page.getByText(first).waitFor();
      expect([name, await violations(page)]).toEqual([name, []]);
    }
  });

  test("what changes is there without a reload, and what can be done about it is done", async () => {
    const { place, client, data } = await seeded();
    const served = await serve(place.socket);
    const page = await open(browser(), served, { path: "#/queues/mail/dead" });
    const answered = page.getByRole("dialog");

    // Retry: one by its row, and the number is another at once.
    await page.getByRole("button", { name: `Retry ${data.dead}` }).click();
    await page.getByText("No batch of mail is dead").waitFor();
    expect((await client.call("queue.get", { batchId: data.dead })).batch.state).toBe("ready");

    // Cancel asks, and says what becomes of it.
    await page.goto(`${served.origin}/#/batches/${data.dead}`);
    await page.getByRole("button", { name: `Cancel ${data.dead}` }).click();
    await answered.getByText("Nobody gets it from mail any more").waitFor();
    expect(await violations(page)).toEqual([]);
    await answered.getByRole("button", { name: "Keep as it is" }).click();
    await answered.waitFor({ state: "hidden" });
    expect((await client.call("queue.get", { batchId: data.dead })).batch.state).toBe("ready");
    await page.getByRole("button", { name: `Cancel ${data.dead}` }).click();
    await answered.getByLabel("Reason").fill("a typo in the address");
    await answered.getByRole("button", { name: "Cancel the batch" }).click();
    await page.locator(".facts").getByText("cancelled").waitFor();
    await page.locator(".events").getByText("cancelled", { exact: true }).waitFor();

    // Pause, and what others do is seen too.
    await page.goto(`${served.origin}/#/queues`);
    await page.getByRole("button", { name: "Pause thumbnails" }).click();
    await answered.getByText("1 batch in work now goes on").waitFor();
    await answered.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Resume thumbnails" }).waitFor();
    expect((await client.call("queue.settings", { queue: "thumbnails" })).settings.paused).toBe(true);
    await client.call("queue.configure", { queue: "thumbnails", paused: false });
    await page.getByRole("button", { name: "Pause thumbnails" }).waitFor();
    await client.call("queue.enqueue", { queue: "brand-new", payloads: [1] });
    await page.getByRole("link", { name: "brand-new", exact: true }).waitFor();

    // A lease is broken only with a reason, and the next one has it.
    await page.goto(`${served.origin}/#/leases`);
    await page.getByRole("button", { name: "Break deploy/shop, held by ci-412" }).click();
    await answered.getByText("2 callers wait, and the first is granted it at once").waitFor();
    await answered.getByRole("button", { name: "Break the lease" }).click();
    expect(await answered.isVisible()).toBe(true);
    await answered.getByLabel("Reason").fill("ci-412 is stuck");
    await answered.getByRole("button", { name: "Break the lease" }).click();
    await page.getByRole("button", { name: "Break deploy/shop, held by ci-413" }).waitFor();

    // Who waits for whom: two processes, of which one holds what the other wants.
    const other = await place.connect();
    onTestFinished(() => other.destroy());
    await other.call("lease.acquire", { name: "release", owner: "ci-500", ttlMs: 600_000 });
    const wait = { name: "gpu/0", owner: "ci-500", task: "ci-500", ttlMs: 600_000, waitMs: 600_000 };
    other.send({ jsonrpc: "2.0", id: "wait", method: "lease.acquire", params: wait });
    await other.call("sequence.next", { type: "FR" });
    await page.reload();
    const picture = page.locator(".graph");
    await picture.locator("li li").getByText("ci-500").first().waitFor();
    await picture.getByText("gpu/0").first().waitFor();
    expect(await violations(page)).toEqual([]);

    // A command that nobody has yet, a schedule.
    await page.goto(`${served.origin}/#/command/${data.command}`);
    await page.getByRole("button", { name: "Cancel rotate-keys" }).click();
    await answered.getByRole("button", { name: "Cancel the command" }).click();
    await page.locator(".facts").getByText("failed").waitFor();
    await page.goto(`${served.origin}/#/schedules`);
    await page.getByRole("button", { name: "Run now: clean-up" }).click();
    await answered.getByRole("button", { name: "Run now" }).click();
    await page.getByText("is in clean-up").waitFor();
    expect((await client.call("queue.stats", { queue: "clean-up" })).queues[0]?.ready).toBe(1);
  });

  test("an item is dragged to another stage, and one that another moves goes there by itself", async () => {
    const { place, client } = await seeded();
    const page = await open(browser(), await serve(place.socket), { path: "#/board" });
    const column = (stage: string) => page.locator(`[data-stage="${stage}"]`);
    await page.locator("#card-FR-001").dragTo(column("3_qa"));
    await column("3_qa").getByText("Export orders as CSV").waitFor();
    await page.getByText("FR-001 is in qa").waitFor();
    expect((await client.call("pipeline.read", { storyId: "FR-001" })).item?.stage).toBe("3_qa");
    await client.call("pipeline.write", { storyId: "FR-002", stage: "5_done" });
    await column("5_done").getByText("Remember the last search").waitFor();
  });

  test("by keyboard alone: to a page, through a question, and a card to the next stage", async () => {
    const { place, client } = await seeded();
    const page = await open(browser(), await serve(place.socket));
    const focused = (): Promise<string> =>
      page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent");
    const tabTo = async (name: string): Promise<void> => {
      for (let presses = 0; presses < 80; presses += 1) {
        if ((await focused()).trim() === name) return;
        await page.keyboard.press("Tab");
      }
      throw new Error(`Tab does not come to ${name}`);
    };
    await page.getByText("1 dead batch in mail").waitFor();
    await page.locator("body").press("Tab");
    await tabTo("Queues");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Queues" }).waitFor();
    expect(await focused()).toBe("Queues");
    await page.getByRole("link", { name: "mail", exact: true }).waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("thumb");
    await tabTo("Pause thumbnails");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.type("a reason");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Resume thumbnails" }).waitFor();
    expect((await client.call("queue.settings", { queue: "thumbnails" })).settings.reason).toBe("a reason");
    // Escape keeps things as they are.
    await page.getByRole("searchbox").fill("mail");
    await tabTo("Pause mail");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    expect((await client.call("queue.settings", { queue: "mail" })).settings.paused).toBe(false);
    // A card moves, and keeps the focus.
    await page.evaluate('location.hash = "#/board"');
    await page.locator("#card-FR-004").focus();
    await page.keyboard.press("ArrowRight");
    await page.locator('[data-stage="3_qa"] #card-FR-004').waitFor();
    await page.locator("#card-FR-004:focus").waitFor();
    expect((await client.call("pipeline.read", { storyId: "FR-004" })).item?.stage).toBe("3_qa");
  });

  test("a page that only looks offers nothing that it could not do", async () => {
    const { place } = await seeded();
    const served = await serve(place.socket, { readOnly: true });
    const page = await open(browser(), served, { path: "#/queues" });
    await page.getByRole("link", { name: "mail", exact: true }).waitFor();
    await page.getByText("looks only").waitFor();
    for (const path of ["queues", "queues/mail/dead", "leases", "commands", "schedules"]) {
      await page.goto(`${served.origin}/#/${path}`);
      await page.locator("tbody tr").first().waitFor();
      expect([path, await page.locator("main button").count()]).toEqual([path, 0]);
    }
    await page.goto(`${served.origin}/#/board`);
    await page.locator("#card-FR-001").waitFor();
    expect(await page.locator("#card-FR-001").getAttribute("draggable")).not.toBe("true");
  });

  test("a daemon that is killed is missed at once, and what it did since is there when it is back", async () => {
    const { place, daemon } = await startDaemon().then((started) => ({
      place: started.place,
      daemon: started,
    }));
    const page = await open(browser(), await serve(place.socket), { path: "#/queues" });
    await page.getByText("There is no queue yet").waitFor();
    daemon.child.kill("SIGKILL");
    await page.getByRole("alert").getByText("There is no daemon").waitFor();
    await page.getByText("not connected").waitFor();
    expect(await violations(page)).toEqual([]);
    await place.start();
    const client = await place.connect();
    await client.call("queue.enqueue", { queue: "mail", payloads: [1] });
    await page.getByRole("link", { name: "mail", exact: true }).waitFor();
    await page.getByRole("alert").getByText("There is no daemon").waitFor({ state: "detached" });
    // And it follows again.
    await client.call("queue.enqueue", { queue: "letters", payloads: [1] });
    await page.getByRole("link", { name: "letters", exact: true }).waitFor();
    await client.destroy();
  });

  test("the server that is gone and back is told apart from the daemon, and followed again", async () => {
    const { place } = await startDaemon();
    const first = await serve(place.socket, { readOnly: true });
    const page = await open(browser(), first, { path: "#/sequences" });
    await page.getByText("No number was taken yet").waitFor();
    await first.server.close();
    await page.getByRole("alert").getByText("pawl web does not answer").waitFor();
    await place.next();
    await serve(place.socket, { readOnly: true, listen: first.host });
    await page.getByText("FR", { exact: true }).waitFor();
    await page.getByRole("alert").getByText("pawl web does not answer").waitFor({ state: "detached" });
  });

  test("names in every script, and with markup in them, are text wherever they are shown", async () => {
    const { place } = await startDaemon();
    const client = await place.connect();
    onTestFinished(() => client.destroy());
    const markup = '<img src=x onerror="document.title=1">';
    const names = [
      "größe",
      "очередь",
      "队列",
      "قائمة الانتظار",
      "תור",
      "คิว",
      "🐝🚚",
      "a/b%2Fc?d#e&f",
      markup,
      "<script>document.title=2</script>",
    ];
    for (const name of names) {
      const payload = { [name]: name, "</script>": "<b>bold</b>" };
      await client.call("queue.enqueue", { queue: name, payloads: [payload], key: name, sourceKey: name });
      await client.call("lease.acquire", { name, owner: name, ttlMs: 600_000, note: name });
    }
    const { claim } = await client.call("queue.claim", { queue: markup, owner: markup, leaseMs: 600_000 });
    const held = { claimId: claim?.claimId as string, leaseToken: claim?.leaseToken as string };
    await client.call("queue.progress", { ...held, percent: 5, note: markup });
    await client.call("queue.abandon", { ...held, error: markup, dead: true });
    await client.call("queue.configure", { queue: markup, paused: true, reason: markup });
    await client.call("path.reserve", {
      root: `/${markup}`,
      owner: markup,
      patterns: ["a<b>c"],
      note: markup,
      ttlMs: 600_000,
    });
    await client.call("schedule.set", {
      name: markup,
      queue: markup,
      payloads: [markup],
      everyMs: 3_600_000,
    });
    await client.call("deployment.set", { deployment: "site", model: "pull" });
    const { commandId } = await client.call("command.create", {
      deployment: "site",
      command: "show",
      params: markup,
    });
    const { leases } = await client.call("command.lease", { deployment: "site", owner: markup });
    const answer = { status: "error", code: "BROKEN", message: markup } as const;
    await client.call("command.respond", {
      commandId,
      leaseId: leases[0]?.leaseId as string,
      response: answer,
    });
    await client.call("pipeline.write", { storyId: "FR-001", stage: markup, name: markup, agent: markup });
    const served = await serve(place.socket);
    const page = await open(browser(), served, { path: "#/queues" });
    for (const name of names) {
      await page.goto(`${served.origin}/#/queues`);
      await page.getByRole("link", { name, exact: true }).click();
      await page.getByRole("heading", { name, exact: true }).waitFor();
    }
    const batchId = claim?.batches[0]?.batchId as string;
    for (const [path, shows] of [
      ["queues", markup],
      [`queues/${encodeURIComponent(markup)}/dead`, markup],
      [`batches/${batchId}`, "<b>bold</b>"],
      ["leases", markup],
      [`leases/${encodeURIComponent(markup)}`, markup],
      ["paths", "a<b>c"],
      ["schedules", markup],
      ["commands", markup],
      [`command/${commandId}`, markup],
      ["board", markup],
      ["board/FR-001", markup],
      ["", markup],
    ] as const) {
      await page.goto(`${served.origin}/#/${path}`);
      await page.locator("main").getByText(shows).first().waitFor();
      expect([path, await page.locator("main img, main b:text('bold'), main script").count()]).toEqual([
        path,
        0,
      ]);
      expect(await page.title()).toMatch(/ · pawl$/);
    }
    await page.goto(`${served.origin}/#/events`);
    await client.call("queue.enqueue", { queue: markup, payloads: [1] });
    await page.locator(".events").getByText(`queue:${markup}`).first().waitFor();
    // A question, and what is said afterwards.
    await page.goto(`${served.origin}/#/queues`);
    await page.getByRole("button", { name: `Resume ${markup}` }).click();
    await page.getByText(`${markup} is resumed.`).waitFor();
    expect(await page.locator("main img, .said img").count()).toBe(0);
  });

  test("1,000 queues and 5,000 items: what is wanted is found, and little of it is in the document", async () => {
    const { place } = await startDaemon();
    const client = await place.connect();
    onTestFinished(() => client.destroy());
    const queues = Array.from({ length: 1000 }, (_, n) => ({ queue: `queue-${n}`, payloads: [n] }));
    for (let from = 0; from < queues.length; from += 250) {
      await client.call("queue.enqueueMany", { batches: queues.slice(from, from + 250) });
    }
    const transacts = Array.from({ length: 100 }, (_, n) => {
      const items = Array.from({ length: 50 }, (_, place) => n * 50 + place);
      const calls = items.map((item) => ({
        method: "pipeline.write" as const,
        params: {
          storyId: `FR-${item}`,
          stage: item % 4 === 0 ? "2_current" : "1_backlog",
          name: `Item ${item}`,
        },
      }));
      return client.call("transact", { calls });
    });
    await Promise.all(transacts);
    const served = await serve(place.socket);
    const page = await open(browser(), served, { path: "#/queues" });
    await page.getByText("1,000 queues").waitFor();
    expect(await page.locator("tbody tr").count()).toBe(100);
    await page.getByRole("searchbox").fill("queue-999");
    await page.getByRole("link", { name: "queue-999", exact: true }).waitFor();
    expect(await page.locator("tbody tr").count()).toBe(1);
    await page.goto(`${served.origin}/#/board`);
    await page.getByText("5,000 items").waitFor();
    expect(await page.locator(".card").count()).toBe(60);
    await page.getByRole("searchbox").fill("Item 4999");
    await page.locator("#card-FR-4999").waitFor();
    await client.call("pipeline.write", { storyId: "FR-4999", stage: "5_done" });
    await page.locator('[data-stage="5_done"] #card-FR-4999').waitFor();
  });

  test("ten pages of a busy daemon leave pawl web below 90 MB, and nothing is asked of any other host", async () => {
    const { place, data } = await seeded();
    const running = spawn(
      process.execPath,
      [PAWL, "web", "--listen", "127.0.0.1:0", "--socket", place.socket],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    onTestFinished(() => void running.kill("SIGKILL"));
    const [line] = await once(running.stdout, "data");
    const url = String(line).trim();
    const { origin } = new URL(url);
    // One is drawn by the browser. Whatever it asks for is asked nine times more, which is the same to pawl web, and
    // takes less than a browser does to draw nine more.
    const hosts = new Set<string>();
    const told = new Set<number>();
    const agents = Array.from({ length: 9 }, () => new Agent({ keepAlive: true }));
    onTestFinished(() => {
      for (const agent of agents) agent.destroy();
    });
    const asked = async (request: Request): Promise<void> => {
      hosts.add(new URL(request.url()).origin);
      const options = { method: request.method(), headers: await request.allHeaders() };
      for (const [index, agent] of agents.entries()) {
        const again = ask(request.url(), { ...options, agent }, (response) => {
          response.setEncoding("utf8").on("data", (text: string) => {
            if (text.includes("event: change\n")) told.add(index);
          });
        });
        // What follows does so until the end.
        again.on("error", () => {});
        again.end(request.postDataBuffer() ?? undefined);
      }
    };
    const page = await open(
      browser(),
      { url },
      {
        // Of what it asks for right before it is closed nobody can say any more what that was.
        asked: (request) => void asked(request).catch(() => {}),
      },
    );
    await data.busy(1000);
    await page.locator(".plot").first().waitFor();
    await until(() => told.size === agents.length);
    const status = readFileSync(`/proc/${running.pid}/status`, "utf8");
    const resident = Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
    expect(resident).toBeGreaterThan(10_000_000);
    expect(resident).toBeLessThan(MOST_MEMORY_BYTES);
    expect([...hosts]).toEqual([origin]);
  });
});

describe.runIf(why === undefined)("the pictures of docs/web.md", () => {
  test("are of what a node with something of everything shows (npm run pictures writes them)", async () => {
    const { place, data } = await seeded();
    const served = await serve(place.socket);
    const pictures = process.env.PAWL_PICTURES;
    const light = await open(browser(), served, { height: 860 });
    const dark = await open(browser(), served, { colorScheme: "dark", height: 860 });
    // What the others show is looked at above.
    const others = async () => {
      const phone = await open(browser(), served, { width: 375, height: 760 });
      return [
        ["overview-dark", dark, "", "1 dead batch in mail"],
        ["phone", phone, "", "1 dead batch in mail"],
        ["queue", light, "queues/mail/dead", "SMTP 550: no such mailbox"],
        ["batch", light, `batches/${data.dead}`, '"subject": "Welcome"'],
        ["leases", light, "leases", "ci-412"],
        ["board", light, "board", "Sign in with a passkey"],
      ] as const;
    };
    const taken = [
      ["overview", light, "", "1 dead batch in mail"],
      ...(pictures === undefined ? [] : await others()),
      ["events", dark, "events", "queue:thumbnails"],
    ] as const;
    await data.busy(pictures === undefined ? 500 : 40_000);
    for (const [name, page, path, shows] of taken) {
      await page.goto(`${served.origin}/#/${path}`);
      await page.getByText(shows).first().waitFor();
      if (path === "") await page.locator(".plot canvas").first().waitFor();
      const picture = await page.screenshot();
      expect(picture.length).toBeGreaterThan(10_000);
      if (pictures !== undefined) writeFileSync(join(pictures, `${name}.png`), picture);
    }
  });
});

test("what the browser loads is small", () => {
  const directory = new URL("../../web/dist/assets/", import.meta.url);
  const sizes = ["index.html", "page.js", "page.css", "icon.svg"].map(
    (name) => gzipSync(readFileSync(new URL(name, directory))).length,
  );
  expect(sizes.reduce((sum, size) => sum + size)).toBeLessThan(MOST_COMPRESSED_BYTES);
});

// The page of `pawl web`, served from the process of the test for a real daemon, and a real browser to look at it.
import { accessSync, constants } from "node:fs";
import { type Browser, chromium, type Page, type Request } from "playwright-core";
import { afterAll, beforeAll, onTestFinished } from "vitest";
import { connect } from "../client/dist/index.js";
import { metricsText, readFigures } from "../client/dist/metrics.js";
import { serveWeb, type WebServer } from "../web/dist/index.js";
import type { AtEnd } from "./daemon.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/**
 * What Playwright has disabled, which is said anew because the last of these flags counts, and what opens below the
 * address of a window: Chromium loads that for each window, which takes more of the processor than our whole page.
 */
const DISABLED_FEATURES = [
  "AvoidUnnecessaryBeforeUnloadCheckSync",
  "DestroyProfileOnBrowserClose",
  "HttpsUpgrades",
  "HttpsFirstBalancedModeAutoEnable",
  "LensOverlay",
  "MediaRouter",
  "PaintHolding",
  "ThirdPartyStoragePartitioning",
  "AvoidCorsURLLoaderRestartOnRedirect",
  "OptimizationHints",
  "NetworkTimeServiceQuerying",
  "AimEnabled",
  "PreconnectToSearch",
  "WebUIOmniboxPopup",
  "WebUIOmniboxAimPopup",
  "WebUIOmniboxFullPopup",
];

/** Why there is no browser here, or undefined if there is one. */
export function whyNoBrowser(): string | undefined {
  try {
    accessSync(CHROMIUM, constants.X_OK);
    return undefined;
  } catch {
    return `there is no ${CHROMIUM}; apt install chromium, or name another by CHROMIUM`;
  }
}

export interface ServeOptions {
  readOnly?: boolean;
  listen?: string;
  allowHost?: string;
  tokenFile?: string;
  atEnd?: AtEnd;
}

export interface Served {
  readonly server: WebServer;
  /** With its token, if there is one. */
  readonly url: string;
  /** Without. */
  readonly origin: string;
  readonly host: string;
  readonly token: string | undefined;
  readonly cookie: string;
}

/** Serves the page for the daemon on a socket, on a free port, until the test ends. */
export async function serve(socket: string, options: ServeOptions = {}): Promise<Served> {
  const { atEnd = onTestFinished, listen = "127.0.0.1:0", ...rest } = options;
  const server = await serveWeb({
    connect: () => connect({ socket, reconnectMs: 0, timeoutMs: 10_000 }),
    metrics: async (client) => metricsText(await readFigures(client), "openmetrics"),
    listen,
    ...rest,
  });
  atEnd(() => server.close());
  const { url } = server;
  const { origin, host, port, searchParams } = new URL(url);
  const token = searchParams.get("token") ?? undefined;
  return { server, url, origin, host, token, cookie: `pawl-web-${port}=${token}` };
}

/** A browser for all tests of a file. */
export function sharedBrowser(): () => Browser {
  let browser: Browser | undefined;
  beforeAll(async () => {
    if (whyNoBrowser() !== undefined) return;
    // Debian's wrapper adds flags of its own; the sandbox needs rights that containers do not give.
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-gpu-compositing",
        `--disable-features=${DISABLED_FEATURES.join()}`,
      ],
    });
  });
  afterAll(async () => await browser?.close());
  return () => browser as Browser;
}

export interface OpenOptions {
  width?: number;
  height?: number;
  colorScheme?: "light" | "dark";
  path?: string;
  /** Told of each request of the page. */
  asked?: (request: Request) => void;
}

/** Opens the page as a person would who clicks on the printed address, and fails the test at any error in it. */
export async function open(
  browser: Browser,
  { url }: Pick<Served, "url">,
  { width = 1280, height = 800, colorScheme = "light", path = "", asked }: OpenOptions = {},
): Promise<Page> {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme,
    reducedMotion: "reduce",
  });
  onTestFinished(async () => await context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  if (asked !== undefined) page.on("request", asked);
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (line) => {
    // A connection that is refused while the server is gone is reported by the browser itself.
    if (line.type() === "error" && !/Failed to load resource|net::ERR/.test(line.text()))
      errors.push(line.text());
  });
  onTestFinished(() => {
    if (errors.length > 0) throw new Error(`The page reported: ${errors.join("\n")}`);
  });
  await page.goto(url);
  await page.waitForSelector("main h1");
  if (path !== "") await page.goto(new URL(`/${path}`, url).href);
  return page;
}

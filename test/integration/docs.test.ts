// The documentation, as a reader takes it: each link leads somewhere, and each shell block that says `run` is run, in
// the order of its page, in one bash with a daemon of its own. Where a block of `text` follows a block that is run, it
// is what the block prints; `…` in it stands for anything. What is only a call of `pawl` is run in the process of the
// test (`pawl-launcher.ts`): pages are about what it does, and there are two hundred of them.
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { NAMES_ARE_SHARED, PAWL, PAWLD, privateDirectory, startDaemon } from "../daemon.js";
import { makeLauncher } from "./pawl-launcher.js";

const ROOT = join(import.meta.dirname, "../..");
/** A line that no page prints, between what one block prints and what the next one does. */
const END_OF_BLOCK = "---- end of block ----";

const pages = [
  "README.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  ...markdownIn("docs"),
  ...["clients", "test/bench"].flatMap(markdownIn),
].filter((page) => existsSync(join(ROOT, page)));

function markdownIn(directory: string): string[] {
  if (!existsSync(join(ROOT, directory))) return [];
  return readdirSync(join(ROOT, directory), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md") && !name.includes("node_modules"))
    .map((name) => join(directory, name));
}

interface Block {
  language: string;
  runs: boolean;
  text: string;
}

function blocksOf(page: string): Block[] {
  const text = readFileSync(join(ROOT, page), "utf8");
  return [...text.matchAll(/^```(\S*)([^\n]*)\n([\s\S]*?)^```$/gm)].map(([, language, rest, body]) => ({
    language: language ?? "",
    runs: language === "sh" && rest?.trim() === "run",
    text: body ?? "",
  }));
}

describe.concurrent("links", () => {
  test.each(pages)("%s", (page) => {
    const text = readFileSync(join(ROOT, page), "utf8").replace(/^```[\s\S]*?^```$/gm, "");
    const broken: string[] = [];
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (target === undefined || /^[a-z]+:/.test(target)) continue;
      const [path, anchor] = target.split("#");
      const file = path === "" ? join(ROOT, page) : join(ROOT, dirname(page), path as string);
      if (!existsSync(file)) broken.push(target);
      else if (anchor !== undefined && file.endsWith(".md") && !anchorsOf(file).includes(anchor))
        broken.push(target);
    }
    expect(broken).toEqual([]);
  });
});

test("the picture of a terminal shows what pawl prints", () => {
  const file = join(privateDirectory(), "terminal.svg");
  execFileSync(process.execPath, [join(ROOT, "docs/terminal.js"), file], { stdio: "pipe" });
  const alike = (svg: string): string => svg.replaceAll(/[0-9-]{10} [0-9:]{8}|[0-9a-f]{64}/g, "…");
  // When this fails: node docs/terminal.js
  expect(alike(readFileSync(join(ROOT, "docs/terminal.svg"), "utf8"))).toBe(
    alike(readFileSync(file, "utf8")),
  );
});

test("the TypeScript worker of the page on the library compiles by the tsconfig beside it, and works", async () => {
  const folder = privateDirectory();
  const blocks = blocksOf("docs/javascript.md");
  const block = (wanted: string) => blocks.find(({ language }) => language === wanted)?.text ?? "";
  for (const [file, text] of [
    ["worker.ts", block("ts")],
    ["tsconfig.json", block("json")],
    ["package.json", JSON.stringify({ type: "module" })],
  ] as const)
    writeFileSync(join(folder, file), text);
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
  const { place } = await startDaemon();
  const env = { ...process.env, PAWL_SOCKET: place.socket };
  const script = join(folder, "try.sh");
  const steps = [
    `node_modules/.bin/tsc`,
    `batch=$("${process.execPath}" "${PAWL}" enqueue mail '{"to":"ada","text":"hello"}')`,
    `"${process.execPath}" dist/worker.js --drain`,
    `"${process.execPath}" "${PAWL}" wait "$batch"`,
  ];
  writeFileSync(script, steps.join("\n"));
  const { code, stdout, stderr } = await bash(script, env, folder);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(patternOf('to ada, with token 1: hello\n{"sentAt":["…"]}\n'));
});

/** As GitHub makes them of headings. */
function anchorsOf(file: string): string[] {
  const text = readFileSync(file, "utf8").replace(/^```[\s\S]*?^```$/gm, "");
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    (heading as string)
      .toLowerCase()
      .replace(/[^\p{Letter}\p{Number}\- _]/gu, "")
      .replaceAll(" ", "-"),
  );
}

describe("commands", () => {
  // A transaction of it is about the board, too, which each node has for itself.
  const ofOneNode = "docs/transactions.md";
  const withCommands = pages.filter(
    (page) => blocksOf(page).some(({ runs }) => runs) && !(NAMES_ARE_SHARED && page === ofOneNode),
  );
  test.each(withCommands)("%s", async (page) => {
    const home = privateDirectory();
    for (const name of ["bin", "run", "work"]) mkdirSync(join(home, name), { mode: 0o700 });
    await makeLauncher(join(home, "bin/pawl"), onTestFinished);
    symlinkSync(PAWLD, join(home, "bin/pawld"));
    const { place } = await startDaemon();
    const env = {
      PAWL_SOCKET: place.socket,
      HOME: home,
      XDG_RUNTIME_DIR: join(home, "run"),
      PATH: `${join(home, "bin")}:${dirname(process.execPath)}:${process.env.PATH}`,
      LANG: "C.UTF-8",
      TZ: "UTC",
    };
    const blocks = blocksOf(page);
    const run = blocks.filter(({ runs }) => runs);
    const script = join(home, "page.sh");
    writeFileSync(script, run.map(({ text }) => `${text}\nprintf '\\n%s\\n' '${END_OF_BLOCK}'\n`).join(""));
    const { code, stdout, stderr } = await bash(script, env, join(home, "work"));
    const printed = stdout.split(`\n${END_OF_BLOCK}\n`);
    if (code !== 0) {
      throw new Error(`${page} ends with ${code} in\n${run[printed.length - 1]?.text}\n${stdout}\n${stderr}`);
    }
    blocks.forEach((block, at) => {
      const shown = blocks[at + 1];
      if (!block.runs || shown?.language !== "text") return;
      expect(printed[run.indexOf(block)]?.trim()).toMatch(patternOf(shown.text.trim()));
    });
  });
});

function patternOf(text: string): RegExp {
  const literal = text.split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${literal.join("[\\s\\S]*?")}$`);
}

function bash(
  script: string,
  env: NodeJS.ProcessEnv,
  cwd: string,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn("bash", ["-euo", "pipefail", script], { env, cwd, stdio: ["ignore", "pipe", "pipe"] });
  const [stdout, stderr] = [child.stdout, child.stderr].map((stream) => {
    const texts: string[] = [];
    stream.setEncoding("utf8").on("data", (text: string) => texts.push(text));
    return texts;
  }) as [string[], string[]];
  return new Promise((resolve) =>
    child.on("close", (code) => resolve({ code, stdout: stdout.join(""), stderr: stderr.join("") })),
  );
}

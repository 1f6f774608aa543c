// The man pages are what the programs say themselves.
// Not over shared names: it starts no daemon.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { PAWL, PAWLD } from "../daemon.js";

const REPOSITORY = join(import.meta.dirname, "../..");
const hasMan = spawnSync("man", ["--version"]).status === 0;
if (!hasMan) console.warn("man is not installed: what it makes of the pages is not tested");

const PAGES = [
  { file: "client/man/pawl.1", program: PAWL },
  { file: "daemon/man/pawld.8", program: PAWLD },
];

test("the pages are current", () => {
  const { status, stderr } = spawnSync(process.execPath, ["man/write.js", "--check"], {
    cwd: REPOSITORY,
    encoding: "utf8",
  });
  expect([stderr, status]).toEqual(["", 0]);
});

test.runIf(hasMan).each(PAGES)(
  "$file is understood by man without a warning, and says it all",
  ({ file, program }) => {
    const man = (...args: string[]) =>
      spawnSync("man", ["--local-file", "--encoding=UTF-8", ...args, join(REPOSITORY, file)], {
        encoding: "utf8",
        env: { ...process.env, LC_ALL: "C.UTF-8", MANWIDTH: "1000", MANPAGER: "cat", GROFF_NO_SGR: "1" },
      });
    const checked = man("--warnings");
    expect([checked.status, checked.stderr]).toEqual([0, ""]);
    const words = (text: string): string[] => text.split(/\s+/);
    const shown = new Set(words(checked.stdout));
    const { stdout: help } = spawnSync(process.execPath, [program, "--help"], { encoding: "utf8" });
    expect(words(help).length).toBeGreaterThan(200);
    expect(
      words(help).filter((word) => !shown.has(word) && !/^(Usage|Options|Examples):?$/.test(word)),
    ).toEqual([]);
  },
);

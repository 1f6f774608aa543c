// What the client library loads at run time: no schemas and nothing native, so that it is small and starts fast.
import { readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const REPOSITORY = join(import.meta.dirname, "../..");
/** `import x from "y"`, `export * from "y"`, `import "y"` and `import("y")` in compiled code. */
const IMPORT =
  /^(?:import|export)\s+(?:[\w$*{},\s]+\sfrom\s+)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/gm;

/** Every module that loading `entry` loads: files of this repository as paths, others by their names. */
function loadedBy(entry: string): Set<string> {
  const loaded = new Set<string>();
  const files = [entry];
  for (let file = files.pop(); file !== undefined; file = files.pop()) {
    if (loaded.has(relative(REPOSITORY, file))) continue;
    loaded.add(relative(REPOSITORY, file));
    for (const [, fixed, lazy] of readFileSync(file, "utf8").matchAll(IMPORT)) {
      const name = (fixed ?? lazy) as string;
      if (name.startsWith(".")) files.push(join(dirname(file), name));
      else if (name.startsWith("@pawl/")) files.push(fileURLToPath(import.meta.resolve(name)));
      else loaded.add(name);
    }
  }
  return loaded;
}

test("the library loads itself, what the protocol has without schemas, and what comes with Node", () => {
  const loaded = [...loadedBy(join(REPOSITORY, "client/dist/index.js"))];
  expect(loaded).toContain("client/dist/connection/line-socket.js");
  expect(loaded).toContain("protocol/dist/repeatable.js");
  expect(
    loaded.filter(
      (name) =>
        !name.startsWith("node:") &&
        !name.startsWith("client/dist/") &&
        !/^protocol\/dist\/(errors|framing|json-text|limits|envelope|paths|repeatable|repeatable-methods)\.js$/.test(
          name,
        ),
    ),
  ).toEqual([]);
});

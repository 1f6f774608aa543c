// @ts-check
// pack-within.js DIST: puts what the files of a built package import of this one beside them, and has them import that.
// A package that is packed so needs no other tarball: pnpm, Yarn and Bun look for what a tarball depends on in the
// registry only.
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const PROTOCOL = fileURLToPath(new URL(".", import.meta.url));
/** @type {Record<string, string | { default: string }>} */
const ENTRIES = JSON.parse(readFileSync(path.join(PROTOCOL, "package.json"), "utf8")).exports;

const dist = path.resolve(process.argv[2] ?? "dist");
const within = path.join(dist, "protocol");
/** @type {Set<string>} */
const copied = new Set();

for (const name of readdirSync(dist, { recursive: true, encoding: "utf8" })) {
  if (!/\.(js|d\.ts)$/.test(name)) continue;
  const file = path.join(dist, name);
  const text = readFileSync(file, "utf8");
  const changed = text.replace(/"@pawl\/protocol(\/[\w.-]+)?"/g, (_, entry = "") => {
    const found = ENTRIES[`.${entry}`];
    if (found === undefined)
      throw new Error(`${file} imports @pawl/protocol${entry}, which it does not export`);
    const source = (typeof found === "string" ? found : found.default).replace("./dist/", "");
    copy(source);
    const relative = path.relative(path.dirname(file), path.join(within, source));
    return JSON.stringify(relative.startsWith(".") ? relative : `./${relative}`);
  });
  if (changed !== text) writeFileSync(file, changed);
}

/**
 * Copies a module with its types, and those that it imports.
 * @param {string} source
 */
function copy(source) {
  if (copied.has(source)) return;
  copied.add(source);
  mkdirSync(within, { recursive: true });
  if (source.endsWith(".json"))
    return copyFileSync(path.join(PROTOCOL, source), path.join(within, path.basename(source)));
  for (const name of [source, source.replace(/js$/, "d.ts")]) {
    const text = readFileSync(path.join(PROTOCOL, "dist", name), "utf8").replace(
      /\n\/\/# sourceMappingURL=.*/,
      "",
    );
    writeFileSync(path.join(within, name), text);
    for (const [, imported] of text.matchAll(/from "\.\/([\w-]+\.js)"/g))
      copy(/** @type {string} */ (imported));
  }
}

import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Small modules in great number, which take half of the start when Node has to find and read each of them. */
const BUNDLED = {
  "@pawl/protocol": undefined,
  zod: "LICENSE",
  "json-rpc-2.0": "LICENSE",
  leven: "license",
  croner: "LICENSE",
};

/**
 * pawld in one file, beside the modules that it is made of: it is ready in 0.6 of the time. Two folders deep,
 * like all modules here that look for files by their own path.
 */
export default {
  input: { pawld: join(import.meta.dirname, "dist/main.js") },
  platform: "node",
  external: (id) =>
    /^[^./]/.test(id) && !Object.keys(BUNDLED).some((name) => id === name || id.startsWith(`${name}/`)),
  output: {
    dir: join(import.meta.dirname, "dist/bundle"),
    format: "esm",
    banner: licenses(),
    cleanDir: true,
  },
};

/** Their authors ask for no more than that these texts go with the code. */
function licenses() {
  const texts = Object.entries(BUNDLED).flatMap(([name, file]) => {
    if (file === undefined) return [];
    return [`${name}\n\n${readFileSync(join(import.meta.dirname, "../node_modules", name, file), "utf8")}`];
  });
  return `/*\nThis file holds code of:\n\n${texts.join("\n\n")}*/`;
}

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { leanSchemas, MAKES_SCHEMAS } from "./lean-schemas.js";

/** Small modules in great number, which take half of the start when Node has to find and read each of them. */
const BUNDLED = {
  "@pawl/protocol": undefined,
  zod: "LICENSE",
  "json-rpc-2.0": "LICENSE",
  leven: "license",
  croner: "LICENSE",
};

/**
 * Node keeps the text of a module as long as it runs, in two bytes for each character if a single one of them is not of
 * Latin-1. So none is, and comments are left out; names and lines stay as they are, for traces of errors.
 */
const READABLE = {
  compress: false,
  mangle: false,
  codegen: { asciiOnly: true, removeWhitespace: false, legalComments: "none" },
};

/**
 * pawld in one file, beside the modules that it is made of: it is ready in 0.6 of the time. Two folders deep,
 * like all modules here that look for files by their own path.
 */
export default {
  input: { pawld: join(import.meta.dirname, "dist/main.js") },
  platform: "node",
  plugins: [leanSchemas()],
  // Schemas that only results have are left out, too: nothing else is done by making one.
  treeshake: { manualPureFunctions: [MAKES_SCHEMAS] },
  external: (id) =>
    /^[^./]/.test(id) && !Object.keys(BUNDLED).some((name) => id === name || id.startsWith(`${name}/`)),
  output: {
    dir: join(import.meta.dirname, "dist/bundle"),
    format: "esm",
    banner: licenses(),
    comments: false,
    minify: READABLE,
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

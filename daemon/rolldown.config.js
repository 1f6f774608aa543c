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
  "smol-toml": "LICENSE",
  // What loads the native part of SQLite, which is not bundled.
  "better-sqlite3": "LICENSE",
  // And what it writes the log with.
  pino: "LICENSE",
  "@pinojs/redact": "LICENSE",
  "atomic-sleep": "LICENSE",
  "on-exit-leak-free": "LICENSE",
  "pino-std-serializers": "LICENSE",
  "process-warning": "LICENSE",
  "quick-format-unescaped": "LICENSE",
  "safe-stable-stringify": "LICENSE",
  "sonic-boom": "LICENSE",
  "thread-stream": "LICENSE",
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

/** Modules that are loaded only where they are configured. */
const LAZY = /\/daemon\/dist\/(shared\/(?!specification)|remote\/(dynamodb|etcd))/;

/** The native part of better-sqlite3. */
const SQLITE = "better-sqlite3/build/Release/better_sqlite3.node";

/** Scripts whose values are functions of these, so that they can be compiled before they are needed: see bin/compiled.js. */
const BEGIN = "(function (exports, require, module, __filename, __dirname, importModule) {";
const END = "})";

/**
 * pawld in one file, beside the modules that it is made of: it is ready in 0.6 of the time. What is loaded only where it is
 * configured is in files of its own. Two folders deep, like all modules here that look for files by their own path.
 */
export default {
  input: { pawld: join(import.meta.dirname, "dist/main.js") },
  platform: "node",
  plugins: [leanSchemas(), importsByFunction(), nativePartByPath()],
  // Schemas that only results have are left out, too: nothing else is done by making one.
  treeshake: { manualPureFunctions: [MAKES_SCHEMAS] },
  external: (id) =>
    id === SQLITE ||
    (/^[^./]/.test(id) && !Object.keys(BUNDLED).some((name) => id === name || id.startsWith(`${name}/`))),
  output: {
    dir: join(import.meta.dirname, "dist/bundle"),
    format: "cjs",
    entryFileNames: "[name].cjs",
    chunkFileNames: "[name]-[hash].cjs",
    banner: ({ name }) => (name === "core" ? `${licenses()}\n${BEGIN}` : BEGIN),
    footer: END,
    // One file for what every daemon loads: what names of another file it uses is looked up each time, and takes memory.
    codeSplitting: { groups: [{ name: "core", test: (id) => !LAZY.test(id) }] },
    comments: false,
    minify: READABLE,
    cleanDir: true,
  },
};

/** A script has no `import()` of its own; it is given one. */
function importsByFunction() {
  return {
    name: "imports-by-function",
    generateBundle(_, files) {
      for (const file of Object.values(files))
        file.code = file.code.replaceAll(/\bimport\(/g, "importModule(");
    },
  };
}

/** better-sqlite3 has its native part looked for beside the file that asks for it, which is not where the bundle is. */
function nativePartByPath() {
  const asks = "require('bindings')('better_sqlite3.node')";
  return {
    name: "native-part-by-path",
    transform(code, id) {
      if (!id.endsWith("/better-sqlite3/lib/database.js")) return null;
      if (!code.includes(asks)) throw new Error(`${id} no longer says ${asks}`);
      return code.replace(asks, `require('${SQLITE}')`);
    },
  };
}

/** Their authors ask for no more than that these texts go with the code. */
function licenses() {
  const texts = Object.entries(BUNDLED).flatMap(([name, file]) => {
    if (file === undefined) return [];
    return [`${name}\n\n${readFileSync(join(import.meta.dirname, "../node_modules", name, file), "utf8")}`];
  });
  return `/*\nThis file holds code of:\n\n${texts.join("\n\n")}*/`;
}

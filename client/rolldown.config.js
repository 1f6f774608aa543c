import { join } from "node:path";

const compiled = (name) => join(import.meta.dirname, "dist", name);

/**
 * The library and what `pawl` runs, in few files: finding and reading sixty modules is a quarter of a command, and two
 * thirds of loading the library. What is loaded for one command is a file of its own. Two folders deep, like all modules
 * here that look for files by their own path.
 */
export default {
  input: {
    index: compiled("index.js"),
    main: compiled("cli/main.js"),
    inherited: compiled("process/inherited.js"),
  },
  platform: "node",
  external: (id) => /^[^./]/.test(id) && !id.startsWith("@pawl/protocol"),
  output: {
    dir: join(import.meta.dirname, "dist/bundle"),
    format: "esm",
    comments: false,
    // Names and lines stay as they are, for traces of errors.
    minify: { compress: false, mangle: false, codegen: { removeWhitespace: false } },
    cleanDir: true,
  },
};

import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Their authors ask for no more than that these texts go with the code. */
const LICENSES = ["preact", "uplot"].map((name) => {
  return `${name}\n\n${readFileSync(join(import.meta.dirname, "../node_modules", name, "LICENSE"), "utf8")}`;
});
const ASSETS = join(import.meta.dirname, "dist/assets");

/** The browser's part in one script, beside the files that need no build. */
export default {
  input: { page: join(import.meta.dirname, "dist/page/main.js") },
  platform: "browser",
  plugins: [
    {
      name: "files",
      writeBundle() {
        writeFileSync(join(ASSETS, "licenses.txt"), LICENSES.join("\n\n"));
        for (const name of ["index.html", "page.css", "icon.svg"]) {
          cpSync(join(import.meta.dirname, "page", name), join(ASSETS, name));
        }
      },
    },
  ],
  output: {
    dir: ASSETS,
    format: "iife",
    entryFileNames: "page.js",
    minify: true,
    cleanDir: true,
  },
};

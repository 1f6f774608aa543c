// `npm run openrpc` writes the committed files that are made from the nouns; a test compares them.
import { readFileSync, writeFileSync } from "node:fs";
import { generatedFiles } from "./generated-files.js";

const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
for (const [name, text] of Object.entries(generatedFiles(version))) {
  const file = new URL(`../${name}`, import.meta.url);
  writeFileSync(file, text);
  process.stdout.write(`wrote ${file.pathname}\n`);
}

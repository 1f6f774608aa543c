// `npm run openrpc` writes the committed document anew; a test compares the two.
import { readFileSync, writeFileSync } from "node:fs";
import { openrpc } from "./openrpc.js";

const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
const file = new URL("../openrpc.json", import.meta.url);
writeFileSync(file, `${JSON.stringify(openrpc(version), null, 2)}\n`);
process.stdout.write(`wrote ${file.pathname}\n`);

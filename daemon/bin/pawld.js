#!/usr/bin/env node
import { isatty } from "node:tty";

// Before the program is read, which takes a moment: SIGHUP means the configuration, which is read after that, and would
// end a process that has not said so. A terminal that is closed takes its daemon with it.
if (!isatty(1)) process.on("SIGHUP", () => {});
const { loadCompiled } = await import("./compiled.js");

await loadCompiled().exports.main(process.argv.slice(2));

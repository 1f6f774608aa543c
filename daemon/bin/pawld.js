#!/usr/bin/env node
// A module of CommonJS, and so is what it loads: Node needs some milliseconds less to begin with one.
const { isatty } = require("node:tty");

// Before the program is read, which takes a moment: SIGHUP means the configuration, which is read after that, and would
// end a process that has not said so. A terminal that is closed takes its daemon with it.
if (!isatty(1)) process.on("SIGHUP", () => {});
const { loadCompiled } = require("./compiled.js");

loadCompiled().exports.main(process.argv.slice(2));

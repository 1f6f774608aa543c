#!/usr/bin/env node
import { run } from "../dist/cli/main.js";

/** A request on its way to the daemon gets there, but a daemon that does not read keeps nobody. */
const DRAIN_MS = 2000;

process.exitCode = await run(process.argv.slice(2), process);
setTimeout(() => process.exit(), DRAIN_MS).unref();

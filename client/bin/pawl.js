#!/usr/bin/env node
import { main } from "../dist/cli/main.js";

/** What is on its way to the daemon gets there, but a daemon that does not read keeps nobody. */
const DRAIN_MS = 2000;

process.exitCode = await main(process.argv.slice(2));
setTimeout(() => process.exit(), DRAIN_MS).unref();

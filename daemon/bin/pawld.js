#!/usr/bin/env node
import { main } from "../dist/bundle/pawld.js";

await main(process.argv.slice(2));

#!/bin/sh
":" //; # A shell reads these lines, then Node does, to which they are a text and a comment. Node changes signals that
":" //; # were ignored, and the descriptors beside the three streams, before it runs anything: they are seen only here.
":" //; [ "$#$1" = 1hook ] && exec node "$0" hook
":" //; ignored=; descriptors=
":" //; [ -r /proc/$$/status ] && while read -r name value; do [ "$name" = SigIgn: ] && ignored=$value; done </proc/$$/status
":" //; for file in /proc/$$/fdinfo/[3-9] /proc/$$/fdinfo/[1-9][0-9]*; do [ -r "$file" ] || continue
":" //;   flags=; while read -r name value; do [ "$name" = flags: ] && flags=$value; done <"$file"
":" //;   case $flags in *[2367]??????) ;; ?*) descriptors="$descriptors ${file##*/}" ;; esac # O_CLOEXEC
":" //; done
":" //; case $ignored$descriptors in *[!0]*) export PAWL_INHERITED="$$ $ignored$descriptors" ;; esac
":" //; exec node "$0" "$@"

import { createRequire } from "node:module";

/** A request on its way to the daemon gets there, but a daemon that does not read keeps nobody. */
const DRAIN_MS = 2000;

if (process.argv.length === 3 && process.argv[2] === "hook") {
  // It runs before each edit of an agent, and so has a file of its own with all that it needs.
  let hook;
  try {
    hook = createRequire(import.meta.url)("@pawl/mcp/program");
  } catch {
    // The command says what to install.
  }
  if (hook === undefined) await run();
  else await hook.runHookAlone(process);
} else {
  await run();
}

async function run() {
  const { keepIgnored } = await import("../dist/process/inherited.js");
  keepIgnored();
  const program = await import("../dist/cli/main.js");
  process.exitCode = await program.run(process.argv.slice(2), process);
}
setTimeout(() => process.exit(), DRAIN_MS).unref();

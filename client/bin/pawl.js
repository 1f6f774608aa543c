#!/bin/sh
":" //; # A shell reads these lines, then Node does, to which they are a text and a comment. Node changes signals that
":" //; # were ignored, and the descriptors beside the three streams, before it runs anything: they are seen only here.
":" //; ignored=; descriptors=
":" //; [ -r /proc/$$/status ] && while read -r name value; do [ "$name" = SigIgn: ] && ignored=$value; done </proc/$$/status
":" //; for file in /proc/$$/fdinfo/[3-9] /proc/$$/fdinfo/[1-9][0-9]*; do [ -r "$file" ] || continue
":" //;   flags=; while read -r name value; do [ "$name" = flags: ] && flags=$value; done <"$file"
":" //;   case $flags in *[2367]??????) ;; ?*) descriptors="$descriptors ${file##*/}" ;; esac # O_CLOEXEC
":" //; done
":" //; case $ignored$descriptors in *[!0]*) export PAWL_INHERITED="$$ $ignored$descriptors" ;; esac
":" //; exec node "$0" "$@"

import { keepIgnored } from "../dist/process/inherited.js";

keepIgnored();
// Before each edit of an agent there is one of these: it is read with the least that it needs.
const isHook = process.argv.length === 3 && process.argv[2] === "hook";
const program = isHook ? await import("../dist/cli/hook.js") : await import("../dist/cli/main.js");

/** A request on its way to the daemon gets there, but a daemon that does not read keeps nobody. */
const DRAIN_MS = 2000;

process.exitCode =
  "run" in program
    ? await program.run(process.argv.slice(2), process)
    : await program.runHookAlone(process);
setTimeout(() => process.exit(), DRAIN_MS).unref();

#!/bin/sh
":" //; # A shell reads these lines, then Node does, to which they are a text and a comment. Node changes signals that
":" //; # were ignored, and the descriptors beside the three streams, before it runs anything: they are seen only here.
":" //; if [ "$#$1" = 1hook ]; then
":" //;   # Hooks run before each edit of an agent, and to start Node takes longer than all else. The MCP server of an agent
":" //;   # answers them (mcp/hook/hook-server.ts), and Perl, which starts in 3 ms, asks it; where there is no Perl, no server,
":" //;   # or no answer in 2 s, Node answers itself.
":" //;   ask='$socket = $ENV{PAWL_SOCKET} || ($ENV{XDG_RUNTIME_DIR} =~ m(^/) ? "$ENV{XDG_RUNTIME_DIR}/pawl"'
":" //;   ask=$ask' : $> ? "/run/user/$>/pawl" : "/run/pawl")."/".($ENV{PAWL_INSTANCE} || "default").".sock";'
":" //;   ask=$ask'($sessions = $socket) =~ s/(\.sock)?$/.sessions/; binmode $_ for STDIN, STDOUT, STDERR; $/ = undef;'
":" //;   ask=$ask'$hook = <STDIN>; $SIG{PIPE} = sub {}; $SIG{ALRM} = sub { die }; $mine = (stat $sessions)[4] == $>;'
":" //;   ask=$ask'$request = getppid." ".readlink("/proc/self/ns/pid")."\n$ENV{PAWL_SESSION}\n$hook";'
":" //;   ask=$ask'opendir $all, $sessions if $mine; for (grep /^\d+\.hooks$/, $mine ? readdir $all : ()) {'
":" //;   ask=$ask' next if length "$sessions/$_" > 107; socket $server, 1, 1, 0;'
":" //;   ask=$ask' next unless connect $server, pack "Sa*x", 1, "$sessions/$_"; $answer = "";'
":" //;   ask=$ask' eval { alarm 2; $at = 0; while ($at < length $request)'
":" //;   ask=$ask' { $at += syswrite($server, $request, 65536, $at) || die } shutdown $server, 1;'
":" //;   ask=$ask' 1 while sysread $server, $answer, 65536, length $answer; }; alarm 0;'
":" //;   ask=$ask' last unless $answer =~ s/^(\d+) (\d+) (\d+)\n// && length $answer == $2 + $3;'
":" //;   ask=$ask' ($code, $out) = ($1, $2); print substr $answer, 0, $out; print STDERR substr $answer, $out; exit $code }'
":" //;   ask=$ask'open $kept, "+>", undef; syswrite $kept, $hook; sysseek $kept, 0, 0; open STDIN, "<&", $kept;'
":" //;   ask=$ask'exec @ARGV; exit 1'
":" //;   command -v perl >/dev/null && exec perl -e "$ask" node "$0" hook
":" //;   exec node "$0" hook
":" //; fi
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
  const { keepIgnored } = await import("../dist/bundle/inherited.js");
  keepIgnored();
  const program = await import("../dist/bundle/main.js");
  process.exitCode = await program.run(process.argv.slice(2), process);
}
setTimeout(() => process.exit(), DRAIN_MS).unref();

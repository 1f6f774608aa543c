// `pawl` for shell scripts of tests that are about what it does, and not about its process: a program of that name
// which has the process of the test run the command. It starts in 5 ms of the processor, and Node in 90.
import { spawnSync } from "node:child_process";
import { symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { type AtEnd, PAWL, privateDirectory } from "../daemon.js";
import { pawl } from "./cli-program.js";

const hasPerl = spawnSync("perl", ["-e", "1"]).status === 0;

/** Commands that start no program, look at no directory, and end by themselves. */
const RUN_HERE = [
  ...["enqueue", "claim", "queue", "queues", "wait", "dead", "retry", "cancel", "next", "peek", "state"],
  ...["item", "board", "lease", "leases", "why", "graph", "call", "schedule", "send", "commands", "metrics"],
];

/**
 * Makes the program at a path. What it cannot have run here is the real `pawl`, as all is where there is no Perl. The
 * standard input is read if an argument is `-`.
 */
export async function makeLauncher(path: string, atEnd: AtEnd): Promise<void> {
  if (!hasPerl) {
    symlinkSync(PAWL, path);
    return;
  }
  const socket = join(privateDirectory(atEnd), "launcher");
  const server = createServer({ allowHalfOpen: true }, (connection) => void answer(connection));
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  atEnd(() => void server.close());
  const script = `#!/usr/bin/perl
my ($command) = grep { !/^-/ } @ARGV;
if (!grep { $_ eq "--" || /^@/ } @ARGV and grep { $_ eq $command } qw(${RUN_HERE.join(" ")})) {
  $/ = undef;
  my $input = (grep { $_ eq "-" } @ARGV) ? <STDIN> : "";
  my @env = grep { /^PAWL_|^XDG_|^TZ$|^LANG$|^HOME$/ } keys %ENV;
  my $request = join "", map { length($_) . "\\n$_" } "$input", scalar(@ARGV), @ARGV, map { ($_, $ENV{$_}) } @env;
  socket my $server, 1, 1, 0 or die "no socket: $!";
  connect $server, pack "Sa*x", 1, "${socket}" or die "no launcher: $!";
  for (my $at = 0; $at < length $request;) { $at += syswrite($server, $request, 65536, $at) || die "$!" }
  shutdown $server, 1;
  my $answer = "";
  1 while sysread $server, $answer, 65536, length $answer;
  $answer =~ s/^(\\d+) (\\d+)\\n// || die "no answer of the launcher";
  my ($code, $length) = ($1, $2);
  syswrite STDOUT, substr $answer, 0, $length;
  syswrite STDERR, substr $answer, $length;
  exit $code;
}
exec "${process.execPath}", "${PAWL}", @ARGV;
`;
  writeFileSync(path, script, { mode: 0o755 });
}

/** Runs a command line: a request is its input, the number of its arguments, these, and variables by name and value. */
async function answer(connection: Socket): Promise<void> {
  connection.on("error", () => {});
  const chunks: Buffer[] = [];
  for await (const chunk of connection.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer);
  const [input, count, ...texts] = partsOf(Buffer.concat(chunks));
  const args = texts.slice(0, Number(count));
  const env: Record<string, string> = {};
  for (let at = args.length; at < texts.length; at += 2) env[texts[at] as string] = texts[at + 1] as string;
  const { code, stdout, stderr } = await pawl(args, { env, ...(args.includes("-") ? { input } : {}) });
  const out = Buffer.from(stdout);
  connection.end(Buffer.concat([Buffer.from(`${code} ${out.length}\n`), out, Buffer.from(stderr)]));
}

/** Texts, each after its length in bytes and the end of a line. */
function partsOf(request: Buffer): string[] {
  const parts: string[] = [];
  for (let at = 0; at < request.length; ) {
    const text = request.indexOf("\n", at) + 1;
    const end = text + Number(request.toString("latin1", at, text));
    parts.push(request.toString("utf8", text, end));
    at = end;
  }
  return parts;
}

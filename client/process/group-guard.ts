import { type ChildProcess, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import { ownSession } from "./terminal-session.js";

/**
 * Learns by lines of groups (`+ 123`, `- 123`) and of marks (the same with a mark), and kills what is left of them when
 * its input ends, which the kernel sees to when this program dies. A mark is in the environment of all that a command
 * on the terminal has started; such processes are looked for until there are none. The guard ignores the signals of a
 * terminal. A connection that it was given is open until it has found nothing left: the daemon takes that for the end
 * of the holder.
 */
const GUARD = `
trap '' HUP INT TERM QUIT
kept=' '
while read -r sign each; do
  case $sign in
    +) kept="$kept$each " ;;
    -) kept="\${kept%% $each *} \${kept#* $each }" ;;
  esac
done
tree() {
  for pid in "$@"; do
    found="$found $pid"
    tree $(cat "/proc/$pid/task/"*/children 2>/dev/null)
  done
}
ours() {
  read -r stat <"/proc/$1/stat" || return
  set -- \${stat##*) }
  [ "$4" = "$session" ] && [ "$1" != Z ]
} 2>/dev/null
lives() {
  for file in /proc/[0-9]*/stat; do
    read -r stat <"$file" || continue
    set -- \${stat##*) }
    [ "$3" = "$group" ] && [ "$1" != Z ] && return
  done
  return 1
} 2>/dev/null
for each in $kept; do
  case $each in
    *-*)
      for round in 1 2 3 4 5 6 7 8 9 10; do
        found=
        for file in $(grep -ls -- "$each" /proc/[0-9]*/environ); do
          pid=\${file#/proc/}
          tree "\${pid%/environ}"
        done
        doomed=
        for pid in $found; do ours "$pid" && doomed="$doomed $pid"; done
        [ -n "$doomed" ] || break
        kill -s KILL -- $doomed 2>/dev/null
      done ;;
    *)
      group=$each
      while kill -s KILL -- "-$group" 2>/dev/null && lives; do sleep 0.01; done ;;
  esac
done
`;

/** A connection over which something is held for a command. */
export interface KeptConnection {
  /** The number of its file; undefined while there is none. */
  readonly descriptor: number | undefined;
  watch(watcher: { up: () => void }): () => void;
}

/** Sees to it that nothing of a command outlives this program. */
class GroupGuard {
  #process: ChildProcess | undefined;
  readonly #kept = new Set<number | string>();
  #connection: KeptConnection | undefined;

  /** Starts it, before the first command that it is to watch. */
  start(): void {
    if (this.#process !== undefined) return;
    const descriptor = this.#connection?.descriptor;
    const child = spawn("/bin/sh", ["-c", `session=${ownSession()}\n${GUARD}`, "pawl-guard"], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore", ...(descriptor === undefined ? [] : [descriptor])],
    }) as ChildProcess & { stdin: Writable };
    this.#process = child;
    const gone = (): void => {
      if (this.#process === child) this.#process = undefined;
    };
    child.once("error", gone);
    child.once("exit", gone);
    child.stdin.on("error", () => {});
    // The guard ends with this program, and is no reason for it to go on.
    child.unref();
    // Bun's streams of a child have no such method, and keep nothing going.
    (child.stdin as unknown as { unref?(): void }).unref?.();
    for (const each of this.#kept) child.stdin.write(`+ ${each}\n`);
  }

  /**
   * Has the guard keep a connection open for as long as something of a command is left, and each that comes after it,
   * until the returned function is called.
   */
  keep(connection: KeptConnection): () => void {
    this.#connection = connection;
    this.#renew();
    const stop = connection.watch({ up: () => this.#renew() });
    return () => {
      stop();
      this.#connection = undefined;
    };
  }

  /** Another connection is to be kept: only a new guard can be given that. */
  #renew(): void {
    const former = this.#process;
    if (former === undefined) return;
    this.#process = undefined;
    this.start();
    // It forgets all that the new one watches, and ends without killing anything.
    for (const each of this.#kept) former.stdin?.write(`- ${each}\n`);
    former.stdin?.end();
  }

  /** Watches a process group, or all that has a mark in its environment. */
  watch(groupOrMark: number | string): void {
    this.#kept.add(groupOrMark);
    this.#process?.stdin?.write(`+ ${groupOrMark}\n`);
  }

  forget(groupOrMark: number | string): void {
    this.#kept.delete(groupOrMark);
    this.#process?.stdin?.write(`- ${groupOrMark}\n`);
  }
}

export const groupGuard = new GroupGuard();

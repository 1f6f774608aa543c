import { type ChildProcess, spawn } from "node:child_process";
import { ownSession } from "./terminal-session.js";

/**
 * Learns by lines of groups (`+ 123`, `- 123`) and of marks (the same with a mark), and kills what is left of them when
 * its input ends, which the kernel sees to when this program dies. A mark is in the environment of all that a command
 * on the terminal has started; such processes are looked for until there are none. The guard ignores the signals of a
 * terminal.
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
    *) kill -s KILL -- "-$each" ;;
  esac
done
`;

/** Sees to it that nothing of a command outlives this program. */
class GroupGuard {
  #process: ChildProcess | undefined;
  readonly #kept = new Set<number | string>();

  /** Starts it, before the first command that it is to watch. */
  start(): void {
    if (this.#process !== undefined) return;
    const child = spawn("/bin/sh", ["-c", `session=${ownSession()}\n${GUARD}`, "pawl-guard"], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
    });
    this.#process = child;
    const gone = (): void => {
      if (this.#process === child) this.#process = undefined;
    };
    child.once("error", gone);
    child.once("exit", gone);
    child.stdin.on("error", () => {});
    // The guard ends with this program, and is no reason for it to go on.
    child.unref();
    (child.stdin as unknown as { unref(): void }).unref();
    for (const each of this.#kept) child.stdin.write(`+ ${each}\n`);
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

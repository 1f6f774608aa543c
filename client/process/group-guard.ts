import { type ChildProcess, spawn } from "node:child_process";

/**
 * Learns the groups by lines (`+ 123`, `- 123`) and kills those that are left when its input ends, which the
 * kernel sees to when this program dies. The guard ignores the signals of a terminal.
 */
const GUARD = `
trap '' HUP INT TERM QUIT
groups=' '
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    -) groups="\${groups%% $group *} \${groups#* $group }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
`;

/** Sees to it that no process group of a command outlives this program. */
class GroupGuard {
  #process: ChildProcess | undefined;
  readonly #groups = new Set<number>();

  /** Starts it, before the first command that it is to watch. */
  start(): void {
    if (this.#process !== undefined) return;
    const child = spawn("/bin/sh", ["-c", GUARD, "pawl-guard"], {
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
    for (const group of this.#groups) child.stdin.write(`+ ${group}\n`);
  }

  watch(group: number): void {
    this.#groups.add(group);
    this.#process?.stdin?.write(`+ ${group}\n`);
  }

  forget(group: number): void {
    this.#groups.delete(group);
    this.#process?.stdin?.write(`- ${group}\n`);
  }
}

export const groupGuard = new GroupGuard();

// A real systemd, as a user has one, started by the test and ended with it.
import { execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { accessSync, chmodSync, constants, existsSync, mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { type AtEnd, PAWL, privateDirectory } from "./daemon.js";

const MARK = "/run/systemd/system";
/** Files of the system's own manager that services are shown instead of what they may not see. */
const INACCESSIBLE = "/run/systemd/inaccessible";

/**
 * Moves to a control group of its own before it becomes systemd: managers that start from the same group would
 * take each other's services of one name for theirs.
 */
const START = `
for root in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
  [ -w "$root/cgroup.procs" ] && mkdir -p "$root/$1" && echo $$ > "$root/$1/cgroup.procs"
done 2>/dev/null
exec systemd --user`;

/** Why there can be no systemd here; undefined if there can. */
export function whyNoSystemd(): string | undefined {
  if (spawnSync("systemctl", ["--version"]).status !== 0) return "systemd is not installed";
  try {
    // systemd runs only where it seems that the machine was started with it (sd_booted(3)).
    mkdirSync(MARK, { recursive: true });
  } catch {
    return `${MARK} is not there and cannot be made`;
  }
  const groups = ["systemd", "unified", "."].filter((root) => {
    try {
      accessSync(join("/sys/fs/cgroup", root, "cgroup.procs"), constants.W_OK);
      return true;
    } catch {
      return false;
    }
  });
  return groups.length === 0 ? "no control group can be made here" : undefined;
}

/** The properties of a unit. */
export type Properties = Record<string, string>;

export class UserSystemd {
  readonly home: string;
  readonly runtime: string;
  readonly env: NodeJS.ProcessEnv;

  private constructor(directory: string) {
    this.home = join(directory, "home");
    this.runtime = join(directory, "run");
    // Others may pass through: services that run as another user have to reach the notify socket.
    chmodSync(directory, 0o755);
    mkdirSync(this.home, { mode: 0o755 });
    mkdirSync(this.runtime, { mode: 0o711 });
    const { PATH } = process.env;
    this.env = {
      PATH,
      HOME: this.home,
      XDG_RUNTIME_DIR: this.runtime,
      XDG_CONFIG_HOME: join(this.home, ".config"),
      XDG_STATE_HOME: join(this.home, ".local/state"),
    };
  }

  static async start(atEnd: AtEnd): Promise<UserSystemd> {
    const directory = privateDirectory(atEnd);
    const systemd = new UserSystemd(directory);
    const group = basename(directory);
    const child = spawn("sh", ["-c", START, "sh", group], { env: systemd.env, stdio: "ignore" });
    const ended = once(child, "exit");
    atEnd(async () => {
      // It stops its services before it ends.
      child.kill("SIGTERM");
      await ended;
      spawnSync("sh", [
        "-c",
        `find /sys/fs/cgroup/*/${group} /sys/fs/cgroup/${group} -depth -type d -exec rmdir {} +`,
      ]);
    });
    while (!existsSync(join(systemd.runtime, "systemd/private"))) {
      if (child.exitCode !== null) throw new Error(`systemd --user ended with ${child.exitCode}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await systemd.systemctl("is-system-running", "--wait").catch(() => {});
    // Everybody may tell the manager of the system how it goes.
    chmodSync(join(systemd.runtime, "systemd/notify"), 0o777);
    if (!existsSync(INACCESSIBLE) && process.getuid?.() === 0) {
      spawnSync("cp", ["-a", join(systemd.runtime, "systemd/inaccessible"), INACCESSIBLE]);
    }
    return systemd;
  }

  /** Runs systemctl, and resolves with what it printed. */
  async systemctl(...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)("systemctl", ["--user", ...args], { env: this.env });
    return stdout;
  }

  /** Runs pawl, and resolves with what it printed on stdout. Rejects with its error. */
  pawl(...args: string[]): Promise<string> {
    return this.pawlOf(PAWL, ...args);
  }

  /** The same for another installation. */
  async pawlOf(program: string, ...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)(process.execPath, [program, ...args], { env: this.env });
    return stdout;
  }

  async show(unit: string): Promise<Properties> {
    const lines = (await this.systemctl("show", unit)).split("\n");
    return Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
    );
  }

  /** Resolves with what systemd knows of a unit once that is as wanted. */
  async until(unit: string, isWanted: (found: Properties) => boolean): Promise<Properties> {
    for (;;) {
      const found = await this.show(unit);
      if (isWanted(found)) return found;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The process of a service that runs. */
  async pid(service: string): Promise<number> {
    return Number((await this.until(service, ({ ActiveState }) => ActiveState === "active")).MainPID);
  }

  unit(name: string): string {
    return join(this.home, ".config/systemd/user", name);
  }

  socket(instance = "default"): string {
    return join(this.runtime, `pawl/${instance}.sock`);
  }
}

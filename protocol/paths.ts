import { PawlError } from "./errors.js";
import { MAX_SOCKET_PATH_BYTES } from "./limits.js";

/** The surroundings that the rules for paths depend on, and on nothing else: `process.env`, uid, tmpdir, home. */
export interface Surroundings {
  env: Readonly<Record<string, string | undefined>>;
  uid: number;
  temporaryDirectory: string;
  /** True if there is a directory of this name, and it belongs to this user. */
  isOurs: (directory: string) => boolean;
  /** Asked only where a path is in it: a user without HOME and without an account, as in containers, has none. */
  homeDirectory: () => string;
}

export const DEFAULT_INSTANCE = "default";

/**
 * Where the daemon of an instance may listen, the same for daemon, client and `pawl` (spec: operations.md):
 * `$PAWL_SOCKET` alone, or `<instance>.sock` in `$XDG_RUNTIME_DIR/pawl`, in `/run/pawl` for root, in
 * `/run/user/<uid>/pawl` where that directory is ours, and in `pawl-<uid>` in the temporary directory. A daemon listens
 * at the first place. Variables differ between a session and cron, `su` or a container, so a client tries all of them.
 */
export function socketPaths(around: Surroundings, instance: string): readonly [string, ...string[]] {
  const { env, uid } = around;
  if (env.PAWL_SOCKET) return [env.PAWL_SOCKET];
  const ofUser = `/run/user/${uid}`;
  const directories = [
    ...(isAbsolute(env.XDG_RUNTIME_DIR) ? [`${env.XDG_RUNTIME_DIR}/pawl`] : []),
    ...(uid === 0 ? ["/run/pawl"] : []),
    ...(around.isOurs(ofUser) ? [`${ofUser}/pawl`] : []),
    sharedTemporaryDirectory(around),
  ];
  const [first = "", ...others] = new Set(directories.map((directory) => `${directory}/${instance}.sock`));
  return [first, ...others];
}

/** Where the daemon of an instance listens unless it is told otherwise. */
export function socketPath(around: Surroundings, instance: string): string {
  return socketPaths(around, instance)[0];
}

/** The directory in the temporary directory that others could have made first; its owner is to be checked. */
export function sharedTemporaryDirectory(around: Surroundings): string {
  return `${around.temporaryDirectory}/pawl-${around.uid}`;
}

/**
 * Where the daemon of an instance keeps its database (spec: operations.md): the first of `$STATE_DIRECTORY`, else
 * `$XDG_STATE_HOME/pawl/<instance>`, else `/var/lib/pawl/<instance>` for root, else
 * `~/.local/state/pawl/<instance>`. Refuses by name what no home directory can be found for.
 */
export function stateDirectory(around: Surroundings, instance: string): string {
  const { env, uid } = around;
  const passed = firstDirectory(env.STATE_DIRECTORY);
  if (passed !== undefined) return passed;
  if (isAbsolute(env.XDG_STATE_HOME)) return `${env.XDG_STATE_HOME}/pawl/${instance}`;
  if (uid === 0) return `/var/lib/pawl/${instance}`;
  let home: string;
  try {
    home = around.homeDirectory();
  } catch {
    throw new PawlError(
      "invalid_params",
      `The user with uid ${uid} has no home directory to keep the database in. Set HOME, or choose a --state-dir.`,
    );
  }
  return `${home}/.local/state/pawl/${instance}`;
}

/**
 * The first of the directories that systemd has for a service, in `STATE_DIRECTORY` and the like: a unit that names
 * several has them all in the variable, with colons between (systemd.exec(5), RuntimeDirectory=).
 */
export function firstDirectory(list: string | undefined): string | undefined {
  return list?.split(":").find((path) => path !== "");
}

/** The XDG base directory specification has relative paths ignored: they mean another place for each process. */
function isAbsolute(path: string | undefined): boolean {
  return path?.startsWith("/") ?? false;
}

/** Refuses by name what cannot be an instance: it becomes part of file names. */
export function checkInstance(instance: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(instance)) {
    throw new PawlError(
      "invalid_params",
      `The instance name ${JSON.stringify(instance)} must be 1 to 64 letters, digits, ".", "_" or "-", and begin with a letter or digit.`,
    );
  }
}

/** Refuses by name a path that the kernel would cut off. */
export function checkSocketPath(path: string, byteLength: number): void {
  if (byteLength > MAX_SOCKET_PATH_BYTES) {
    throw new PawlError(
      "invalid_params",
      `The socket path ${path} has ${byteLength} bytes; the kernel takes at most ${MAX_SOCKET_PATH_BYTES}. Choose a shorter one with --socket.`,
    );
  }
}

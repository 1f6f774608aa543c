import { lstatSync } from "node:fs";
import { homedir, tmpdir, userInfo } from "node:os";
import { dirname } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import {
  checkInstance,
  DEFAULT_INSTANCE,
  type Surroundings,
  sharedTemporaryDirectory,
  socketPaths,
} from "@pawl/protocol/paths";

type Environment = Readonly<Record<string, string | undefined>>;

/** The instance that `$PAWL_INSTANCE` names, or `default`. */
export function defaultInstance(env: Environment = process.env): string {
  return env.PAWL_INSTANCE || DEFAULT_INSTANCE;
}

/**
 * Where the daemon of an instance listens unless it is told otherwise, by the rule that daemon and client share. Throws
 * a `PawlError` `forbidden` when that is a directory in which somebody else may listen.
 */
export function defaultSocketPath(instance?: string, env: Environment = process.env): string {
  return defaultSocketPaths(instance, env)[0];
}

/** The same, and after it the other places where the daemon may listen if it was started with other variables. */
export function defaultSocketPaths(
  instance?: string,
  env: Environment = process.env,
): readonly [string, ...string[]] {
  const name = instance ?? defaultInstance(env);
  checkInstance(name);
  const uid = process.getuid?.() ?? userInfo().uid;
  const around: Surroundings = {
    env,
    uid,
    isOurs: (directory) => lstatSync(directory, { throwIfNoEntry: false })?.uid === uid,
    temporaryDirectory: tmpdir(),
    homeDirectory: homedir,
  };
  const [first, ...others] = socketPaths(around, name);
  // Anybody can make a directory of this name in the temporary directory and listen in it.
  const shared = sharedTemporaryDirectory(around);
  const found = lstatSync(shared, { throwIfNoEntry: false });
  if (found === undefined || (found.uid === uid && (found.mode & 0o077) === 0)) return [first, ...others];
  if (dirname(first) !== shared) return [first, ...others.filter((path) => dirname(path) !== shared)];
  throw new PawlError(
    "forbidden",
    `${shared} belongs to somebody else or is open to others. Set XDG_RUNTIME_DIR.`,
  );
}

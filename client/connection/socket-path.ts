import { lstatSync } from "node:fs";
import { homedir, tmpdir, userInfo } from "node:os";
import { dirname } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import {
  checkInstance,
  DEFAULT_INSTANCE,
  type Surroundings,
  sharedTemporaryDirectory,
  socketPath,
} from "@pawl/protocol/paths";

type Environment = Readonly<Record<string, string | undefined>>;

/** The instance that `$PAWL_INSTANCE` names, or `default`. */
export function defaultInstance(env: Environment = process.env): string {
  return env.PAWL_INSTANCE || DEFAULT_INSTANCE;
}

/**
 * Where the daemon of an instance listens, by the rule that daemon and client share. Throws a `PawlError`
 * `forbidden` when that is a directory in which somebody else may listen.
 */
export function defaultSocketPath(instance?: string, env: Environment = process.env): string {
  const name = instance ?? defaultInstance(env);
  checkInstance(name);
  const around: Surroundings = {
    env,
    uid: process.getuid?.() ?? userInfo().uid,
    temporaryDirectory: tmpdir(),
    homeDirectory: homedir,
  };
  const path = socketPath(around, name);
  // Anybody can make a directory of this name in the temporary directory and listen in it.
  const shared = sharedTemporaryDirectory(around);
  const found = dirname(path) === shared ? lstatSync(shared, { throwIfNoEntry: false }) : undefined;
  if (found !== undefined && (found.uid !== around.uid || (found.mode & 0o077) !== 0)) {
    throw new PawlError(
      "forbidden",
      `${shared} belongs to somebody else or is open to others. Set XDG_RUNTIME_DIR.`,
    );
  }
  return path;
}

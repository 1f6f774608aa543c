// The room of sessions: who works here, what they hold, and the files by which a server that was restarted, and the
// hooks, know it.
import { lstatSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, isAbsolute, join } from "node:path";

/** Of a name in a directory, without its ending. */
const MAX_NAME_LENGTH = 200;

/**
 * Where the sessions of a daemon's clients have their files: beside its socket where that directory is the user's, as
 * `default.sessions`; otherwise among the user's own runtime files, under a name made of the socket's path.
 */
export function sessionsDirectory(
  socketPath: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): string {
  const uid = process.getuid?.();
  const beside = dirname(socketPath);
  if (lstatSync(beside, { throwIfNoEntry: false })?.uid === uid) {
    return join(beside, `${basename(socketPath, ".sock")}.sessions`);
  }
  const runtime = env.XDG_RUNTIME_DIR;
  const own =
    runtime !== undefined && isAbsolute(runtime) ? join(runtime, "pawl") : join(tmpdir(), `pawl-${uid}`);
  // A name that has all of the path: hooks are too short to load what makes digests.
  return join(own, `${encodeURIComponent(socketPath).slice(-MAX_NAME_LENGTH)}.sessions`);
}

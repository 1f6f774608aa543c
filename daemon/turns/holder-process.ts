// The process of a holder that may have to be ended (`onLoss`): how it is named, and the refusal where it is not known.
import { type PawlError, refuse } from "@pawl/protocol/errors";

/** A process, named so that it is found again, also after a restart of the daemon, and never another in its place. */
export interface HolderProcess {
  readonly pid: number;
  /** In ticks of 10 ms since the boot (proc_pid_stat(5)). */
  readonly startTime: number;
  /** The inode of its pidfd, which is its own for the whole boot since Linux 6.9; one of all processes before. */
  readonly pidfdInode: string;
  readonly boot: string;
  /** In which the pid is this number. */
  readonly pidNamespace: string;
  /** The database that the daemon had: a copy of it knows of no process. */
  readonly databaseFile: string;
}

/** The refusal of `onLoss` of a caller whose process is not known for certain. */
export function notKnown(why: string): PawlError {
  const message = `needs to know for certain which process opened the connection, and ${why}`;
  return refuse("invalid_params", `onLoss ${message}. Leave it out.`, {
    issues: [{ path: "/onLoss", message }],
  });
}

// Where a database is at home: a copy of it finds out that it is one, and that the first may live on.
import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { hostname } from "node:os";

/** The place of a database file, as its writer finds it at a start. */
export interface Home {
  /** Names the machine; a digest, since the name itself is to be kept secret (machine-id(5)). */
  readonly machine: string;
  readonly host: string;
  readonly path: string;
  /** Which file it is: a copy of it, also under the same name, is another. */
  readonly file: string;
}

/** A copy whose first may live on: `from` is the place of that, and until `since` both are the same. */
export interface Copied {
  /** In milliseconds since the Unix epoch. */
  readonly since: number;
  readonly from: string;
}

export function homeOf(path: string): Home {
  return { machine: machine(), host: hostname(), path, file: fileIdOf(path) };
}

/** Throws where there is no such file. */
export function fileIdOf(path: string): string {
  const { ino, birthtimeNs } = statSync(path, { bigint: true });
  return `${ino}-${birthtimeNs}`;
}

/**
 * Whether a database is a copy: another file on another machine, or on this one while the first is still in its place.
 *
 * @param former its home, as the database says; undefined for one that says nothing.
 * @param keptAt the last time that the database has kept.
 */
export function copiedFrom(former: Home | undefined, here: Home, keptAt: number): Copied | undefined {
  if (former === undefined || former.file === here.file) return undefined;
  const isElsewhere = former.machine !== here.machine;
  if (!isElsewhere && (former.path === here.path || !isFile(former))) return undefined;
  return { since: keptAt, from: `${former.host}:${former.path}` };
}

function isFile({ path, file }: Home): boolean {
  try {
    return fileIdOf(path) === file;
  } catch {
    return false;
  }
}

/** Machines without a name of their own, such as many containers, are told apart by their host names. */
function machine(): string {
  return createHash("sha256")
    .update(`pawl ${machineId() || hostname()}`)
    .digest("base64url");
}

function machineId(): string {
  try {
    return readFileSync("/etc/machine-id", "utf8").trim();
  } catch {
    return "";
  }
}

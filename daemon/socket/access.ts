import type { Socket } from "node:net";
import { PawlError, refuse } from "@pawl/protocol/errors";
import type { Caller } from "../turns/operation.js";
import type { Credentials, Kernel } from "./kernel.js";
import { startTicksOf } from "./process-status.js";

/** The users and groups whose requests are served. Both lists empty: everybody who can connect. */
export interface Allowed {
  readonly allowUids: readonly number[];
  readonly allowGids: readonly number[];
}

/** The credentials of a peer where the kernel does not tell them. */
const UNKNOWN = { pid: null, uid: null, gid: null, startTicks: null } satisfies Record<
  keyof Credentials | "startTicks",
  null
>;

/** Says who has connected, and who of those is served (`--allow-uid`, `--allow-gid`). */
export class Access {
  readonly #kernel: Kernel | undefined;
  #allowed: Allowed;

  /**
   * Refuses with `unavailable` to serve only some where nobody can be told apart.
   *
   * @param kernel its calls, or why they cannot be had.
   */
  constructor(kernel: Kernel | string, allowed: Allowed) {
    this.#kernel = typeof kernel === "string" ? undefined : kernel;
    this.#allowed = allowed;
    if (typeof kernel === "string") checkServesEverybody(allowed, kernel);
  }

  /** Serves others from now on. Refuses like the constructor, and then nothing has changed. */
  allow(allowed: Allowed): void {
    if (this.#kernel === undefined)
      checkServesEverybody(allowed, "its calls could not be loaded at the start");
    this.#allowed = allowed;
  }

  credentials(socket: Socket): Omit<Caller, "connection"> {
    const known = this.#kernel?.credentials(socket);
    return known === undefined ? UNKNOWN : { ...known, startTicks: startTicksOf(known.pid) };
  }

  /**
   * The refusal of a peer that is not among those allowed; undefined for the others. The connection stays open and
   * each of its requests gets this answer: it then reaches the sender under its own id, where a connection that was
   * closed would show as a daemon that is not there.
   */
  refusalOf(socket: Socket, { uid, gid }: Pick<Caller, "uid" | "gid">): PawlError | undefined {
    const { allowUids, allowGids } = this.#allowed;
    if (allowsEverybody(this.#allowed)) return undefined;
    if (uid !== null && allowUids.includes(uid)) return undefined;
    if (gid !== null && allowGids.includes(gid)) return undefined;
    if (allowGids.length > 0 && this.#kernel?.groups(socket).some((each) => allowGids.includes(each))) {
      return undefined;
    }
    return refuse(
      "forbidden",
      `This daemon does not serve the user with uid ${uid} (--allow-uid, --allow-gid). Ask its operator to allow you.`,
      { uid, gid },
    );
  }
}

function allowsEverybody({ allowUids, allowGids }: Allowed): boolean {
  return allowUids.length === 0 && allowGids.length === 0;
}

function checkServesEverybody(allowed: Allowed, reason: string): void {
  if (allowsEverybody(allowed)) return;
  throw new PawlError(
    "unavailable",
    `--allow-uid and --allow-gid need to know who connects, and the kernel cannot be asked here: ${reason}. Leave them out and let the mode of the socket decide.`,
  );
}

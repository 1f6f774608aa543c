import { randomInt } from "node:crypto";
import { type LateLink, type Link, listen } from "../link.js";
import { isLoss, kindOf, Refusal } from "../refusal.js";
import { GRACE_MS, giveBack, isShown, RENEW_MS, renew, secretOf, TERMS, TTL_MS } from "./grants.js";
import { isAlive, markOf, type ProcessMark } from "./process-mark.js";
import { announce } from "./receiver.js";
import { sessionsDirectory } from "./runtime-directory.js";
import { type Identity, type Lost, Session } from "./session.js";
import { SESSION_LEASES } from "./session-name.js";
import { type Hold, readState, type SessionState } from "./state-file.js";

/** Held while a session is taken up, so that two servers do not take up the same one. */
const TAKING_UP = "session-start/";
const TAKING_UP_MS = 10_000;
/** How long a start waits for the name of a session whose process has ended: its grace, and a little. */
const WAIT_FOR_NAME_MS = 45_000;
/** What tells a session from earlier ones of its name: 8 of these characters. */
const SUFFIX_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const SUFFIX_LENGTH = 8;
/** A directory longer than this does not fit into the note of a lease. */
const MAX_NOTED_DIRECTORY = 600;

/** What the lease of a session's name says of it to others. */
export interface SessionNote extends ProcessMark {
  readonly session: string;
  readonly role: string | null;
  readonly worktree: string;
}

export interface StartRequest {
  readonly name: string;
  readonly role: string | null;
  /** An absolute directory. */
  readonly worktree: string;
}

/** How a start is given up. */
interface Waiting {
  readonly signal: AbortSignal;
}

export interface Started {
  readonly session: Session;
  /** `new`, or `resumed` with what was held before. */
  readonly how: "new" | "resumed";
  readonly lost: readonly Lost[];
}

/** The sessions of this server: started, renewed, ended when they are idle. */
export class Sessions {
  readonly #link: LateLink;
  readonly #idleMs: number;
  readonly #live = new Map<string, Session>();
  /** Why sessions of this server have ended. */
  readonly #ended = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;
  #renewing = false;
  /** Starts are made one after the other. */
  #starting: Promise<unknown> = Promise.resolve();

  /** @param idleMs after so long without a call a session ends. */
  constructor(link: LateLink, idleMs: number) {
    this.#link = link;
    this.#idleMs = idleMs;
  }

  /** Follows what becomes of that which is held over a connection. */
  follow(link: Link): void {
    listen(link, "lease.lost", ({ leaseId, cause, reason }) =>
      this.#told(leaseId, reason === null ? cause : `${cause}: ${reason}`),
    );
    listen(link, "path.lost", ({ reservationId, cause }) => this.#told(reservationId, cause));
    listen(link, "claim.lost", ({ claimId, cause, reason }) =>
      this.#told(claimId, reason === null ? cause : `${cause}: ${reason}`),
    );
    link.watch({ up: () => void this.#connectedAgain(link) });
    link.keep();
    this.#timer = setInterval(() => void this.#renewAll(), Math.min(RENEW_MS, this.#idleMs));
  }

  /** A session that lives; refuses any other. */
  get(id: string): Session {
    const session = this.#live.get(id);
    if (session !== undefined) return session;
    const why = this.#ended.get(id);
    throw new Refusal(
      why === undefined ? "not_found" : "gone",
      why === undefined
        ? `There is no session ${JSON.stringify(id)} in this server: it was started again since, or never gave it.`
        : `The session ${id} has ended: ${why}.`,
      { what: "session" },
      why === undefined
        ? `Call session_start at once, with the same name and worktree: what you held is kept for you for ${GRACE_MS / 1000} s after the end of the server before. Use the \`session\` that it returns in every call.`
        : "Call session_start with your name and worktree, and use the `session` that it returns in every call.",
    );
  }

  /** Starts a session, or takes up one that this name and directory had a moment ago. */
  async start(request: StartRequest, waiting: Waiting): Promise<Started> {
    const before = this.#starting;
    const mine = (async () => {
      await before.catch(() => {});
      waiting.signal.throwIfAborted();
      return await this.#start(await this.#link.get(), request, waiting);
    })();
    this.#starting = mine;
    return await mine;
  }

  async #start(link: Link, request: StartRequest, waiting: Waiting): Promise<Started> {
    const { name, worktree } = request;
    const own = [...this.#live.values()].find((session) => session.name === name);
    if (own !== undefined && (await own.renewAll())) {
      if (own.identity.worktree === worktree) return { session: own, how: "resumed", lost: [] };
      throw inUse(name, { ...markOf(), ...own.identity });
    }
    if (own !== undefined) this.#forget(own, "its name was lost");
    const directory = sessionsDirectory(link.socketPath);
    const state = readState(directory, name);
    const fits = state?.worktree === worktree ? state : undefined;
    const granted = await this.#acquire(link, request, 0, waiting.signal);
    if (granted !== undefined) return await this.#begin(link, directory, granted, state);
    const { lease } = await link.call("lease.get", { name: SESSION_LEASES + name });
    const note = noteOf(lease?.note ?? null);
    if (note === undefined || isAlive(note)) throw inUse(name, note ?? { pid: lease?.pid ?? null });
    if (fits?.session === note.session) {
      const resumed = await this.#takeUp(link, directory, fits, request);
      if (resumed !== undefined) return resumed;
    }
    // Its process has ended, and what it held is free within its grace.
    const later = await this.#acquire(link, request, WAIT_FOR_NAME_MS, waiting.signal);
    if (later === undefined) throw inUse(name, note);
    return await this.#begin(link, directory, later, state);
  }

  /** Asks for the name. Resolves with undefined while another has it. */
  async #acquire(
    link: Link,
    { name, role, worktree }: StartRequest,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<Identity | undefined> {
    const session = handle(name);
    const note = noteText({ session, role, worktree });
    const asked = { name: SESSION_LEASES + name, owner: name, ...TERMS, note, waitMs };
    try {
      const { lease } = await link.call("lease.acquire", asked, { signal });
      return { session, name, role, worktree, leaseId: lease.leaseId };
    } catch (error) {
      if (kindOf(error) === "lease_held") return undefined;
      throw error;
    }
  }

  /** A new session. What one of the name before it left behind is given back, so that nobody waits for it. */
  async #begin(
    link: Link,
    directory: string,
    identity: Identity,
    before: SessionState | undefined,
  ): Promise<Started> {
    const left = before?.holds ?? [];
    await Promise.all(left.map((hold) => giveBack(link, hold).catch(() => {})));
    await announce(link, identity);
    const session = this.#keep(new Session(link, directory, identity, []));
    const lost = left
      .filter((hold) => !isShown(hold))
      .map(({ kind, id }) => ({ kind, id, cause: "the session before this one ended" }));
    return { session, how: "new", lost: before?.worktree === identity.worktree ? lost : [] };
  }

  /** Takes up a session whose server has ended, within its grace. Resolves with undefined if another did. */
  async #takeUp(
    link: Link,
    directory: string,
    state: SessionState,
    { role }: StartRequest,
  ): Promise<Started | undefined> {
    const { name, session, worktree, leaseId } = state;
    const turn = await link.call("lease.acquire", {
      name: TAKING_UP + name,
      owner: name,
      ttlMs: TAKING_UP_MS,
      releaseOn: "disconnect",
      waitMs: TAKING_UP_MS,
    });
    try {
      // Whoever had the turn before may have taken it up.
      const { lease } = await link.call("lease.get", { name: SESSION_LEASES + name });
      const note = noteOf(lease?.note ?? null);
      if (note?.session !== session || isAlive(note)) return undefined;
      // A new one: what was for the receiver that ended is not for this one (incarnations of commands).
      const identity: Identity = { session: handle(name), name, role: role ?? state.role, worktree, leaseId };
      await link.call("lease.heartbeat", { leaseId, ttlMs: TTL_MS, note: noteText(identity) });
      const lost: Lost[] = [];
      const holds: Hold[] = [];
      for (const hold of state.holds) {
        try {
          if (isShown(hold)) await giveBack(link, hold);
          else await renew(link, hold).then(() => holds.push(hold));
        } catch (error) {
          if (!isLoss(error)) throw error;
          if (!isShown(hold)) lost.push({ kind: hold.kind, id: hold.id, cause: "ended" });
        }
      }
      await announce(link, identity);
      return {
        session: this.#keep(new Session(link, directory, identity, holds, state)),
        how: "resumed",
        lost,
      };
    } catch (error) {
      if (isLoss(error)) return undefined;
      throw error;
    } finally {
      await link.call("lease.release", { leaseId: turn.lease.leaseId }).catch(() => {});
    }
  }

  #keep(session: Session): Session {
    this.#live.set(session.id, session);
    this.#ended.delete(session.id);
    return session;
  }

  #forget(session: Session, why: string): void {
    this.#live.delete(session.id);
    this.#ended.set(session.id, why);
    void session.end();
  }

  async #connectedAgain(link: Link): Promise<void> {
    await Promise.all(
      [...this.#live.values()].map(({ identity }) => announce(link, identity).catch(() => {})),
    );
    await this.#renewAll();
  }

  /** The daemon says that something is lost. */
  #told(secret: string, cause: string): void {
    for (const session of this.#live.values()) {
      if (session.identity.leaseId === secret) return this.#forget(session, `its name was lost (${cause})`);
      const hold = session.holds.find((each) => secretOf(each) === secret);
      if (hold !== undefined) return session.lose(hold, cause);
    }
  }

  async #renewAll(): Promise<void> {
    if (this.#renewing) return;
    this.#renewing = true;
    try {
      await Promise.all(
        [...this.#live.values()].map(async (session) => {
          if (session.idleMs >= this.#idleMs) this.#forget(session, "it did nothing for too long");
          else if (!(await session.renewAll())) this.#forget(session, "its name was lost");
        }),
      );
    } finally {
      this.#renewing = false;
    }
  }

  /** Stops renewing. What is held stays for its grace, for a server that is started again. */
  close(): void {
    clearInterval(this.#timer);
  }
}

/** The note of a session's lease, if it is one. */
export function noteOf(text: string | null): SessionNote | undefined {
  try {
    const note = JSON.parse(text ?? "") as SessionNote;
    return typeof note.session === "string" && typeof note.pid === "number" ? note : undefined;
  } catch {
    return undefined;
  }
}

function noteText({ session, role, worktree }: Pick<Identity, "session" | "role" | "worktree">): string {
  const noted = worktree.length > MAX_NOTED_DIRECTORY ? "" : worktree;
  return JSON.stringify({ ...markOf(), session, role, worktree: noted } satisfies SessionNote);
}

/** A handle that no session of the name has had. */
function handle(name: string): string {
  const random = () => SUFFIX_ALPHABET[randomInt(SUFFIX_ALPHABET.length)];
  return `${name}~${Array.from({ length: SUFFIX_LENGTH }, random).join("")}`;
}

function inUse(name: string, { pid, worktree }: { pid: number | null; worktree?: string }): Refusal {
  const where = worktree === undefined || worktree === "" ? "" : `, in ${worktree}`;
  return new Refusal(
    "lease_held",
    `A session named ${name} is alive elsewhere: process ${pid ?? "unknown"}${where}.`,
    { holder: { owner: name, pid, worktree: worktree ?? null } },
    "Choose another name. If that process is an old one of yours, end it, then call again.",
  );
}

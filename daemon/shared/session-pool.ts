import type { PawlError } from "@pawl/protocol/errors";
import type { Slot } from "./line.js";
import { Session } from "./session.js";

/** Sessions on which turns go on side by side. */
const SESSIONS = 6;
/** A session that is silent within a transaction is ended by the server, so that its locks are free. */
const SILENT_IN_TRANSACTION_MS = 5000;
/** A statement waits for a lock of others for so long. */
const LOCK_TIMEOUT_MS = 30_000;

/** The sessions of one connection to the place at a time. */
export class SessionPool {
  readonly #url: string;
  readonly #refusal: () => PawlError | undefined;
  readonly #failed: (error: unknown, slot: Slot) => unknown;
  #life: object | undefined;
  #free: Slot[] = [];
  readonly #open = new Set<Session>();
  /** Slots are never used again, so that the row of a turn that nobody heard of stays. */
  #nextSlot = 0;
  readonly #waiting: { resolve: (slot: Slot) => void; reject: (error: unknown) => void }[] = [];

  /**
   * @param refusal why nothing can be done now; undefined if it can.
   * @param failed is told why no session could be opened in the place of one that was lost, and gives what is thrown.
   */
  constructor(
    url: string,
    refusal: () => PawlError | undefined,
    failed: (error: unknown, slot: Slot) => unknown,
  ) {
    this.#url = url;
    this.#refusal = refusal;
    this.#failed = failed;
  }

  /** A session for turns, which belongs to nobody yet. */
  async open(): Promise<Session> {
    const session = await Session.open(this.#url);
    this.#open.add(session);
    session.onEnd(() => void this.#open.delete(session));
    await session.script(
      `SET idle_in_transaction_session_timeout = ${SILENT_IN_TRANSACTION_MS}; SET lock_timeout = ${LOCK_TIMEOUT_MS}`,
    );
    return session;
  }

  async openAll(): Promise<Session[]> {
    return await Promise.all(Array.from({ length: SESSIONS }, () => this.open()));
  }

  /** These sessions are used from now on. */
  begin(life: object, daemon: number, sessions: readonly Session[]): void {
    this.#life = life;
    this.#free = sessions.map((session, index) => ({
      life,
      daemon,
      number: this.#nextSlot + index,
      turn: 0,
      session,
    }));
    this.#nextSlot += sessions.length;
  }

  /** Rejects with a refusal where the database is away. */
  async take(): Promise<Slot> {
    const refusal = this.#refusal();
    if (refusal !== undefined) throw refusal;
    const slot = this.#free.pop();
    if (slot === undefined) {
      return await new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    }
    return slot.session.isOpen ? slot : await this.#reopened(slot);
  }

  /** Only this session was lost: a new one takes its place. */
  async #reopened(slot: Slot): Promise<Slot> {
    try {
      return { ...slot, session: await this.open() };
    } catch (error) {
      throw this.#failed(error, slot);
    }
  }

  give(slot: Slot): void {
    if (slot.life !== this.#life) return slot.session.destroy();
    const next = this.#waiting.shift();
    this.#free.push(slot);
    if (next !== undefined) this.take().then(next.resolve, next.reject);
  }

  /** The database was lost, or is to be left: nobody waits any longer for its answers. */
  lose(refusal: PawlError): void {
    this.#life = undefined;
    this.#free = [];
    for (const session of [...this.#open]) session.destroy();
    this.refuse(refusal);
  }

  /** Refuses those who wait for a session. */
  refuse(refusal: PawlError): void {
    for (const { reject } of this.#waiting.splice(0)) reject(refusal);
  }

  async close(): Promise<void> {
    this.#life = undefined;
    await Promise.all(this.#free.splice(0).map(({ session }) => session.close()));
  }
}

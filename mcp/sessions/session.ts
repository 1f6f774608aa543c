import type { Link } from "../link.js";
import { isLoss } from "../refusal.js";
import { confirm, giveBack, isShown, renew, secretOf, TTL_MS } from "./grants.js";
import { markOf } from "./process-mark.js";
import { type Hold, type OpenRequest, removeState, type SessionState, writeState } from "./state-file.js";

/** Requests whose answers a session waits for at most. */
const MAX_OPEN_REQUESTS = 16;
/** Items that a session is not offered again at most, or that are known to be done by it. */
const MAX_REMEMBERED = 64;
/** Holds of others of which they were told that this session wants them, at most. */
const MAX_TOLD = 256;

/** How a session gave an item away. */
export interface Passed {
  readonly how: "failed" | "give_back" | "handoff";
  /** Whom it was handed to. */
  readonly to?: string;
}

/** Something that a session held and holds no more, though nobody gave it back. */
export interface Lost {
  readonly kind: Hold["kind"];
  readonly id: string;
  readonly cause: string;
}

/** A hold as its holder and others may see it: without its secret. */
export type ShownHold = {
  readonly kind: Hold["kind"];
  readonly id: string;
  readonly patterns?: readonly string[];
  readonly for?: string;
};

export type Identity = Pick<SessionState, "session" | "name" | "role" | "worktree" | "leaseId">;

/** An agent that works here, and all that it holds. */
export class Session {
  readonly identity: Identity;
  readonly link: Link;
  readonly #directory: string;
  #holds: readonly Hold[];
  #lost: Lost[] = [];
  #open: readonly OpenRequest[];
  /** Items that it gave away, in the order in which it did. */
  readonly #passed = new Map<string, Passed>();
  #finished: readonly string[];
  /** Holds of others of which their holders know that this session wants them. */
  readonly #told = new Set<string>();
  /** Secrets of what it ends itself at this moment. */
  readonly #ending = new Set<string>();
  /** Calls of it that run. */
  #running = 0;
  #idleSince = performance.now();

  constructor(
    link: Link,
    directory: string,
    identity: Identity,
    holds: readonly Hold[],
    { open = [], finished = [] }: Partial<Pick<SessionState, "open" | "finished">> = {},
  ) {
    this.link = link;
    this.#open = open;
    this.#finished = finished;
    this.#directory = directory;
    this.identity = identity;
    this.#holds = holds;
    this.#save();
  }

  /** The session's own handle, which no later one of its name has. */
  get id(): string {
    return this.identity.session;
  }

  get name(): string {
    return this.identity.name;
  }

  get holds(): readonly Hold[] {
    return this.#holds;
  }

  /** Its requests that have no answer yet. */
  get open(): readonly OpenRequest[] {
    return this.#open;
  }

  /** Items that it gave back, failed in or handed on, and has not taken again: it is offered others. */
  get passed(): ReadonlyMap<string, Passed> {
    return this.#passed;
  }

  /** It gave an item away; of many only the latest count. */
  pass(id: string, passed: Passed): void {
    this.#passed.delete(id);
    this.#passed.set(id, passed);
    const [first] = this.#passed.keys();
    if (this.#passed.size > MAX_REMEMBERED) this.#passed.delete(first as string);
  }

  /** It has taken an item after all. */
  unpass(id: string): void {
    this.#passed.delete(id);
  }

  /** It has done an item; of many only the latest count. */
  finish(id: string): void {
    this.#finished = [...this.#finished.filter((each) => each !== id), id].slice(-MAX_REMEMBERED);
    this.#save();
  }

  /** True of an item that it has done. */
  hasFinished(id: string): boolean {
    return this.#finished.includes(id);
  }

  /** True the first time that it says so of a hold of another; of many only the latest count. */
  tellsFirst(hold: string): boolean {
    if (this.#told.has(hold)) return false;
    this.#told.add(hold);
    const [first] = this.#told;
    if (this.#told.size > MAX_TOLD) this.#told.delete(first as string);
    return true;
  }

  /** It waits for the answer to a request; of many only the latest count. */
  ask(request: OpenRequest): void {
    this.#open = [...this.#open, request].slice(-MAX_OPEN_REQUESTS);
    this.#save();
  }

  unask(id: string): void {
    this.#open = this.#open.filter((each) => each.id !== id);
    this.#save();
  }

  /** How long it has done nothing, in milliseconds. */
  get idleMs(): number {
    return this.#running > 0 ? 0 : performance.now() - this.#idleSince;
  }

  /** Counts a call that runs, until the returned function is called. */
  begin(): () => void {
    this.#running += 1;
    return () => {
      this.#running -= 1;
      this.#idleSince = performance.now();
    };
  }

  /** The hold of this kind and name. */
  find<K extends Hold["kind"]>(kind: K, id: string): Extract<Hold, { kind: K }> | undefined {
    return this.#holds.find((hold) => hold.kind === kind && hold.id === id) as
      | Extract<Hold, { kind: K }>
      | undefined;
  }

  /** Holds something from now on, in place of what had the same secret. */
  add(hold: Hold): void {
    this.#holds = [...this.#holds.filter((each) => secretOf(each) !== secretOf(hold)), hold];
    this.#save();
  }

  /** Holds something no more, because it was given back or finished. */
  drop(hold: Hold): void {
    this.#holds = this.#holds.filter((each) => secretOf(each) !== secretOf(hold));
    this.#save();
  }

  /** Ends what is held, and drops it: that it ends so is no loss. */
  async ending<T>(holds: readonly Hold[], end: () => Promise<T>): Promise<T> {
    const secrets = holds.map(secretOf);
    for (const each of secrets) this.#ending.add(each);
    try {
      const ended = await end();
      for (const each of holds) this.drop(each);
      return ended;
    } finally {
      for (const each of secrets) this.#ending.delete(each);
    }
  }

  /** Something is lost; the agent is told with the next answer. */
  lose(hold: Hold, cause: string): void {
    if (this.#ending.has(secretOf(hold))) return;
    if (!this.#holds.some((each) => secretOf(each) === secretOf(hold))) return;
    this.drop(hold);
    // Messages that nobody has confirmed come again.
    if (!isShown(hold)) this.#lost.push({ kind: hold.kind, id: hold.id, cause });
  }

  /** Losses of before this session began here; the agent is told with the next answer. */
  tell(lost: readonly Lost[]): void {
    this.#lost.push(...lost);
  }

  /** All losses that the agent has not been told of; from now on it has. */
  takeLost(): Lost[] {
    return this.#lost.splice(0);
  }

  /** The agent calls again, so it has seen what it was shown. What is confirmed twice, or too late, comes again. */
  async confirmShown(): Promise<void> {
    for (const hold of this.#holds.filter(isShown)) {
      this.drop(hold);
      await confirm(this.link, hold).catch(() => {});
    }
  }

  /** Renews the name and all that is held. Resolves with false if the name is lost. */
  async renewAll(): Promise<boolean> {
    const { link } = this;
    const [named] = await Promise.all([
      link.call("lease.heartbeat", { leaseId: this.identity.leaseId, ttlMs: TTL_MS }).then(
        () => true,
        (error: unknown) => !isLoss(error),
      ),
      ...this.#holds.map((hold) => this.#renewOne(hold)),
    ]);
    return named;
  }

  async #renewOne(hold: Hold): Promise<void> {
    try {
      await renew(this.link, hold);
    } catch (error) {
      // Whatever else fails may pass, and is tried again.
      if (isLoss(error)) this.lose(hold, "ended");
    }
  }

  /** Gives everything back, the name last, and removes the file. */
  async end(): Promise<void> {
    await Promise.all(this.#holds.map((hold) => giveBack(this.link, hold).catch(() => {})));
    await this.link.call("lease.release", { leaseId: this.identity.leaseId }).catch(() => {});
    removeState(this.#directory, this.#state());
  }

  #state(): SessionState {
    return {
      version: 1,
      ...this.identity,
      process: markOf(),
      holds: this.#holds,
      open: this.#open,
      finished: this.#finished,
    };
  }

  #save(): void {
    writeState(this.#directory, this.#state());
  }
}

/** What is held, for people and agents: unconfirmed messages are nothing that they hold. */
export function shownHolds(holds: readonly Hold[]): ShownHold[] {
  return holds
    .filter((hold) => !isShown(hold))
    .map((hold) =>
      hold.kind === "paths"
        ? {
            kind: hold.kind,
            id: hold.id,
            patterns: hold.patterns,
            ...(hold.works.length === 0 ? {} : { for: hold.works.join(", ") }),
          }
        : { kind: hold.kind, id: hold.id },
    );
}

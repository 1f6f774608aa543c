// The daemons that use a place. Each has a number and holds a lock by its session as long as it lives; the others look
// at the locks now and then, and each waits for that of its neighbour in a ring of all of them.
import { hostname } from "node:os";
import { RESTART_GRACE_MS } from "@pawl/protocol/limits";
import type { Logger } from "pino";
import { elapsed } from "../clock.js";
import type { Ends } from "../grants/ends.js";
import { type Operation, run, type Statement, write } from "../store/statement.js";
import type { Env } from "../turns/operation.js";
import { numbersOf } from "./connection-number.js";
import { TOLD_AFTER_PART } from "./held.js";
import { messageOfAll } from "./messages.js";
import { LOOK_AT_CLOCK, type Seen } from "./place-clock.js";
import { Session } from "./session.js";
import { isDoneWithin } from "./within.js";

/** The time between two looks whether the database answers, and whether other daemons have gone. */
const MAX_PULSE_MS = 1000;
const MIN_PULSE_MS = 50;
/**
 * The end of another daemon is waited for so long at once. Meanwhile the server keeps all that was changed as it was:
 * whoever looks for the row of a queue goes over what it was after each turn since the wait began.
 */
const WATCH_MS = 250;
/** That is tried again so much later where it failed. */
const WATCH_AGAIN_MS = 5000;
/** A daemon that starts waits so long for what becomes of those that have gone. */
const MAX_INHERIT_MS = 5000;
/** The others have so long to be back after the server was away, before they are taken for dead. */
const BACK_MS = RESTART_GRACE_MS * TOLD_AFTER_PART;
/** A daemon that has asked nothing for so long hangs, or is cut off. */
const QUIET_MS = 3000;
/** The last turns of a daemon are kept for so long after it has gone. */
export const TURNS_KEPT_MS = 7 * 86_400_000;

/** A connection of this daemon to the place; the same number goes on with the next, unless others took it for dead. */
export interface Life {
  readonly number: number;
  readonly listener: Session;
}

/** The name under which the server shows the session on which a daemon listens and looks at the others. */
export const LISTENING = "pawld listening";

/** Another daemon. `dead`: its lock is free; `quiet`: one of all hangs, or is cut off. */
interface Other {
  readonly number: number;
  readonly dead: number;
  readonly quiet: number | null;
}

export interface OtherDaemonsOptions {
  readonly url: string;
  readonly shown: string;
  readonly lockPrefix: string;
  readonly log: Logger;
  readonly endings: Ends;
  /** True as long as this connection is the one that serves calls. */
  readonly isServed: (life: Life) => boolean;
  /** The shortest time for which nobody else ends something held here, in milliseconds; infinity for nothing. */
  readonly shortestMs: () => number;
  /** Performs an operation of the daemon itself, which has the whole place. */
  readonly performOwn: <T>(start: (env: Env) => Operation<T>) => Promise<T>;
  /** The database has answered what was sent then, in milliseconds of `elapsed`. */
  readonly heardSince: (sentAt: number) => void;
  /** Another daemon hangs, or is cut off: it may know alone of something that ends. */
  readonly onQuiet: () => void;
  /** The database said what time it is, when it was asked at `sentAt` in milliseconds of `elapsed`. */
  readonly onClock: (seen: Seen, sentAt: number, life: Life) => void;
  /** The connection was lost. */
  readonly lost: (life: Life, error: unknown) => void;
}

type Noticed = "looked at" | "waited for";

export class OtherDaemons {
  readonly #options: OtherDaemonsOptions;
  #pulse: NodeJS.Timeout | undefined;
  /** The connection that is being asked whether it is there. */
  #asked: Life | undefined;
  /** Of those that have gone, by their numbers, as long as it is under way. */
  readonly #burials = new Map<number, Promise<void>>();
  /**
   * Others that are not there are taken for dead from then on, in milliseconds of `elapsed`; undefined before the first
   * connection.
   */
  #buriesFrom: number | undefined;
  /** The daemon whose end is waited for, and the session that waits. */
  #neighbour: number | undefined;
  #watcher: Session | undefined;
  #lookedAround: (() => void) | undefined;

  constructor(options: OtherDaemonsOptions) {
    this.#options = options;
  }

  /** There is a new connection. */
  begin(life: Life): void {
    // A server that was away was so for all of them; whoever is not back by then has told its holders.
    this.#buriesFrom = this.#buriesFrom === undefined ? 0 : elapsed() + BACK_MS;
    this.look(life);
    void this.#watch(life);
  }

  /**
   * Before anybody can connect: what daemons that have gone have left, among them the former life of this one, begins
   * its grace. Otherwise who comes back would renew what is not in its grace yet, and lose it at the end of that. Where
   * no other daemon is there nobody could renew for a while, so that each grace begins anew.
   */
  async inherit(life: Life): Promise<void> {
    await isDoneWithin(this.#inherit(life), MAX_INHERIT_MS);
  }

  async #inherit(life: Life): Promise<void> {
    const { endings, log, performOwn, shown } = this.#options;
    try {
      const others = await this.#find(life, { buries: true });
      const gone = others.filter(({ dead }) => dead === 1);
      await Promise.all(gone.map(({ number }) => this.#bury(number, "looked at")));
      if (gone.length === others.length) await performOwn((env) => endings.prolong(env));
    } catch (error) {
      log.warn({ err: error, place: shown }, "what was held before this start is seen to later");
    }
  }

  /** All others, and, if they are to be buried, whether they have gone. */
  #find({ number, listener }: Life, { buries }: { buries: boolean }): Promise<Other[]> {
    return listener.query<Other>(
      `SELECT number,
          CASE WHEN $3 THEN pg_try_advisory_xact_lock_shared(hashtextextended($2 || ' daemon ' || number, 0))
            ELSE false END AS dead,
          (SELECT bool_or(query_start < clock_timestamp() - $4 * interval '1 ms') FROM pg_stat_activity
            WHERE application_name = '${LISTENING}' AND datname = current_database()) AS quiet
        FROM pawl_shared_daemon WHERE number <> $1 ORDER BY number`,
      [number, this.#options.lockPrefix, buries ? 1 : 0, QUIET_MS],
      "pawl_look_at_others",
    );
  }

  /** Looks whether the database answers, and whether another daemon has gone. */
  look(life: Life): void {
    const { isServed, heardSince, onClock, lost } = this.#options;
    if (!isServed(life) || this.#asked === life) return;
    clearTimeout(this.#pulse);
    this.#asked = life;
    const sentAt = elapsed();
    const { text, name } = LOOK_AT_CLOCK;
    Promise.all([
      this.#find(life, { buries: this.#buries(sentAt) }),
      life.listener.query<Seen>(text, [], name),
    ]).then(
      ([others, [seen]]) => {
        if (!isServed(life)) return;
        this.#asked = undefined;
        heardSince(sentAt);
        onClock(seen as Seen, sentAt, life);
        this.#seen(life, others);
        this.#lookLater(life);
      },
      (error) => lost(life, error),
    );
  }

  /** True if those who are not there are taken for dead. */
  #buries(now: number): boolean {
    return now >= (this.#buriesFrom ?? 0);
  }

  #seen(life: Life, others: readonly Other[]): void {
    if (others[0]?.quiet === 1) this.#options.onQuiet();
    for (const { number, dead } of others) if (dead === 1) void this.#bury(number, "looked at");
    const [first, next = first] = [others[0], others.find(({ number }) => number > life.number)];
    this.#neighbour = next?.number;
    this.#lookedAround?.();
  }

  #lookLater(life: Life): void {
    clearTimeout(this.#pulse);
    const shortestMs = this.#options.shortestMs() * TOLD_AFTER_PART;
    const pulseMs = Math.min(Math.max(shortestMs / 4, MIN_PULSE_MS), MAX_PULSE_MS);
    this.#pulse = setTimeout(() => this.look(life), pulseMs).unref();
  }

  /** Something is held for a shorter time than before: it is looked more often. */
  lookMoreOften(life: Life): void {
    if (this.#asked !== life) this.#lookLater(life);
  }

  /**
   * Waits for the end of the next daemon in the ring, whose lock is free then. A wait holds up what the server cleans
   * away, so none lasts long, and one that is over is no error that the server would log.
   */
  async #watch(life: Life): Promise<void> {
    const { url, shown, log, isServed } = this.#options;
    try {
      const session = await Session.open(url);
      if (!isServed(life)) return session.destroy();
      this.#watcher = session;
      await session.script(`SET lock_timeout = ${WATCH_MS}`);
      while (isServed(life)) {
        const number = this.#neighbour;
        if (number !== undefined && this.#buries(elapsed())) await this.#watchNeighbour(number, session);
        else {
          await new Promise<void>((resolve) => {
            this.#lookedAround = resolve;
          });
        }
      }
    } catch (error) {
      if (!isServed(life)) return;
      log.debug({ err: error, place: shown }, "other daemons are looked at, not waited for");
      setTimeout(() => void this.#watch(life), WATCH_AGAIN_MS).unref();
    }
  }

  async #watchNeighbour(number: number, session: Session): Promise<void> {
    const key = `hashtextextended('${lifeLock(this.#options.lockPrefix, number)}', 0)`;
    const [, [lock] = []] = await session.together([
      {
        text: `DO 'BEGIN PERFORM pg_advisory_lock_shared(${key.replaceAll("'", "''")}); EXCEPTION WHEN lock_not_available THEN END'`,
      },
      { text: `SELECT pg_try_advisory_lock_shared(${key}) AS free` },
    ]);
    if (lock?.free !== 1) return;
    if (this.#neighbour === number) this.#neighbour = undefined;
    await this.#bury(number, "waited for");
    await session.query("SELECT pg_advisory_unlock_all() IS NULL AS free");
  }

  /**
   * Another daemon has gone: others may come back to what its connections held, or it ends.
   *
   * @param noticed how that was noticed.
   */
  #bury(number: number, noticed: Noticed): Promise<void> {
    let burial = this.#burials.get(number);
    if (burial === undefined) {
      burial = this.#endLife(number, noticed).finally(() => this.#burials.delete(number));
      this.#burials.set(number, burial);
    }
    return burial;
  }

  async #endLife(number: number, noticed: Noticed): Promise<void> {
    const { endings, lockPrefix, log, performOwn, shown } = this.#options;
    const buries = (): boolean => this.#buries(elapsed());
    const key = lifeLock(lockPrefix, number);
    try {
      const isOver = await performOwn(function* (env): Operation<boolean> {
        // The turn may be made again by a later connection, since nobody heard of its commit.
        if (!buries() || (yield* run(forgetDaemon, { number, key })) === 0) return false;
        yield* endings.abandon(...numbersOf(number), env);
        yield* write(forgetWaiting, { number });
        yield* write(forgetTurns, { before: env.now - TURNS_KEPT_MS });
        env.effects.deadline(env.now);
        return true;
      });
      if (!isOver) return;
      log.info(
        { place: shown, daemon: number, noticed },
        "another daemon has gone; what its connections held ends unless they come back",
      );
    } catch (error) {
      log.warn({ err: error, daemon: number }, "a daemon that has gone cannot be seen to now");
    }
  }

  /** The connection was lost, or this daemon stops. */
  stop(): void {
    clearTimeout(this.#pulse);
    this.#watcher?.destroy();
  }
}

/**
 * Gives the number that this daemon had, if nobody has taken it for dead; otherwise one that nobody had, which it tells
 * the others. The session holds the lock of it from then on.
 *
 * @param session of which the lock is.
 * @param former the number that this daemon had before it lost the connection.
 */
export async function takeNumber(
  session: Session,
  former: number | undefined,
  { lockPrefix, channel }: { readonly lockPrefix: string; readonly channel: string },
): Promise<number> {
  if (former !== undefined) {
    // What has become of the row is looked at behind the lock.
    const [[lock] = [], rows = []] = await session.together([
      {
        text: "SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS taken",
        values: [lifeLock(lockPrefix, former)],
      },
      { text: "SELECT 1 FROM pawl_shared_daemon WHERE number = $1", values: [former] },
    ]);
    if (lock?.taken === 1 && rows.length > 0) return former;
  }
  const [row] = await session.query<{ number: number }>(
    "SELECT nextval('pawl_shared_daemon_number') AS number",
  );
  const { number } = row as { number: number };
  // The lock is there before the row, so that nobody sees one without the other.
  await session.query("SELECT pg_advisory_lock(hashtextextended($1, 0)) IS NULL AS locked", [
    lifeLock(lockPrefix, number),
  ]);
  await session.query("INSERT INTO pawl_shared_daemon (number, node) VALUES ($1, $2)", [number, hostname()]);
  await session.query("SELECT pg_notify($1, $2)", [channel, messageOfAll(number)]);
  return number;
}

function lifeLock(lockPrefix: string, number: number): string {
  return `${lockPrefix} daemon ${number}`;
}

/** Only if it is not there; nor does it come back under its number from then on until the transaction is over. */
const forgetDaemon: Statement<never> = {
  sql: `DELETE FROM pawl_shared_daemon
    WHERE number = :number AND pg_try_advisory_xact_lock_shared(hashtextextended(:key, 0))`,
};
const forgetWaiting: Statement<never> = { sql: "DELETE FROM pawl_shared_waiting WHERE daemon = :number" };
const forgetTurns: Statement<never> = {
  sql: `DELETE FROM pawl_shared_turn
    WHERE now_ms < :before AND daemon NOT IN (SELECT number FROM pawl_shared_daemon)`,
};

import { elapsed, type Reading } from "../clock.js";
import type { Ahead, Coming } from "../domain/queue/ahead.js";
import type { Ask } from "./batch.js";
import { messageOfKeys } from "./messages.js";
import {
  CLOCK_COLUMNS,
  type ClockStep,
  correctClock,
  type PlaceClock,
  type Seen,
  WALL,
} from "./place-clock.js";
import type { Session } from "./session.js";
import { arrayOf } from "./statements.js";
import { TABLES, TablesReplaced } from "./tables.js";
import type { SharedTurn } from "./turn.js";

const LOCK_PLACE: Ask = {
  name: "pawl_lock_place",
  text: "SELECT pg_advisory_xact_lock(hashtextextended($1, 0)) IS NULL AS locked",
};
/** How many of the locks others have had: the one who waits gives what is not null, though it is nothing. */
const LOCK_SCOPES: Ask = {
  name: "pawl_lock_scopes",
  text: `SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0)) IS NULL AS place,
    sum(CASE WHEN pg_try_advisory_xact_lock(key) THEN 0 WHEN pg_advisory_xact_lock(key) IS NULL THEN 0 ELSE 1 END)
      AS taken
    FROM (SELECT hashtextextended($1 || ' ' || scope, 0) AS key FROM unnest($2::text[]) AS scope) AS scopes`,
};
const READ_CLOCK: Ask = {
  name: "pawl_read_clock",
  text: `SELECT ${CLOCK_COLUMNS}, ${TABLES}, true AS others`,
};
/** The same, whether calls wait at other daemons, and under which keys of its scopes. */
const READ_CLOCK_AND_WAITING: Ask = {
  name: "pawl_read_clock_and_waiting",
  text: `SELECT ${CLOCK_COLUMNS}, ${TABLES}, EXISTS (SELECT 1 FROM pawl_shared_waiting WHERE daemon <> $2) AS others,
    (SELECT json_agg(key) FROM pawl_shared_waiting WHERE key = ANY($1::text[]) AND daemon <> $2) AS waiting`,
};
const LEAVE_TURN: Ask = {
  name: "pawl_leave_turn",
  text: `INSERT INTO pawl_shared_turn (daemon, slot, turn, now_ms) VALUES ($1, $2, $3, $4)
    ON CONFLICT (daemon, slot) DO UPDATE SET turn = excluded.turn, now_ms = excluded.now_ms
    RETURNING ${WALL} AS wall`,
};
const NOTIFY: Ask = {
  name: "pawl_notify_waiting",
  text: `SELECT pg_notify($1, $2) IS NULL AS told
    WHERE EXISTS (SELECT 1 FROM pawl_shared_waiting WHERE key = ANY($3::text[]) AND daemon <> $4)`,
};
const REGISTER: Ask = {
  name: "pawl_register_waiting",
  text: `INSERT INTO pawl_shared_waiting (key, daemon) SELECT key, $2 FROM unnest($1::text[]) AS key
    ON CONFLICT (key, daemon) DO NOTHING`,
};

/** Which turn of which session it is, for whoever has to find out what became of its commit. */
export interface TurnNumber {
  readonly daemon: number;
  readonly slot: number;
  readonly turn: number;
}

/** The transaction of some turns, of which no two use the same scope. */
export class Transaction {
  readonly #session: Session;
  readonly #turns: readonly SharedTurn[];
  readonly #daemon: number;
  readonly #tables: number;
  readonly #clock: PlaceClock;
  /** How the server's clock was set, if that was put right. */
  clockStep: ClockStep | undefined;
  #time: Reading = { now: 0, retentionNow: 0, wallMs: 0 };
  /** False where nobody is to be notified, whatever is woken. */
  #othersWait = true;
  /** True if others have had locks of its scopes. */
  hadToWait = false;
  /** When the clock was read, or read again, in milliseconds of `elapsed`, and how much later than the turns' time. */
  #readAt = 0;
  #readBeforeMs = 0;

  /** @param options `tables` are those that the daemon began with. */
  constructor(
    session: Session,
    turns: readonly SharedTurn[],
    options: { readonly daemon: number; readonly tables: number; readonly clock: PlaceClock },
  ) {
    this.#session = session;
    this.#turns = turns;
    this.#daemon = options.daemon;
    this.#tables = options.tables;
    this.#clock = options.clock;
  }

  /**
   * Opens the transaction, takes its locks, and reads behind them the clock and what its calls will ask for, all in one
   * round trip.
   *
   * @param scopes undefined for the whole place.
   * @param coming what each turn will perform.
   */
  async begin(
    lockPrefix: string,
    scopes: Iterable<string> | undefined,
    coming: readonly (readonly Coming[])[],
  ): Promise<void> {
    // In one order everywhere, so that no two transactions wait for each other.
    const keys = arrayOf([...(scopes ?? [])].sort());
    const asks: Ask[] =
      scopes === undefined
        ? [{ ...LOCK_PLACE, values: [lockPrefix] }, READ_CLOCK]
        : [
            { ...LOCK_SCOPES, values: [lockPrefix, keys] },
            { ...READ_CLOCK_AND_WAITING, values: [keys, this.#daemon] },
          ];
    this.#readAt = elapsed();
    const ahead = this.#turns.map((turn, index) => turn.ahead(coming[index] ?? []));
    const begun = this.#session.begin(asks, { inserts: ahead.flatMap(({ inserts }) => inserts) });
    const read = this.#turns.map((turn, index) => turn.readAhead(ahead[index] as Ahead));
    const [[[locks] = [], [clock] = []]] = await Promise.all([begun, ...read]);
    if (clock?.tables !== this.#tables) throw new TablesReplaced();
    this.#time = await this.#timeBy(clock as unknown as Seen);
    this.hadToWait = Number(locks?.taken ?? 0) > 0;
    this.#othersWait = clock?.others === 1;
    const waiting = typeof clock?.waiting === "string" ? (JSON.parse(clock.waiting) as string[]) : [];
    for (const turn of this.#turns) turn.begin(this.#time, waiting);
  }

  /** Reads what further calls will ask for, of the scopes of these turns, before any is performed. */
  async join(coming: ReadonlyMap<SharedTurn, readonly Coming[]>): Promise<void> {
    await Promise.all(
      [...coming].flatMap(([turn, calls]) => {
        const ahead = turn.ahead(calls);
        return [this.#session.reserve(ahead.inserts), turn.readAhead(ahead)];
      }),
    );
  }

  async #timeBy(read: Seen): Promise<Reading> {
    let seen = read;
    for (;;) {
      const step = this.#clock.stepIn(seen);
      if (step === undefined) return this.#clock.follow(seen, this.#readAt);
      this.clockStep = step;
      this.#readAt = elapsed();
      const [, [again] = []] = await this.#session.together([correctClock(step), READ_CLOCK]);
      seen = again as unknown as Seen;
    }
  }

  /**
   * The last statements and the commit, in one round trip.
   *
   * @param sent called once they have gone out, so that the next transaction of the session may begin behind them.
   */
  async commit({ slot, turn }: TurnNumber, channel: string, sent: () => void): Promise<void> {
    const [session, daemon] = [this.#session, this.#daemon];
    await Promise.all(this.#turns.map((each) => each.writeBack()));
    const last: Ask[] = [];
    const registered = this.#turns.flatMap((each) => [...each.registered]);
    if (registered.length > 0)
      last.push({ ...REGISTER, values: [arrayOf([...new Set(registered)]), daemon] });
    const woken = this.#othersWait ? new Set(this.#turns.flatMap((each) => [...each.woken])) : NOTHING;
    if (woken.size > 0) {
      const payload = messageOfKeys(daemon, [...woken]);
      const keys = arrayOf([...woken].flatMap(beginningsOf));
      last.push({ ...NOTIFY, values: [channel, payload, keys, daemon] });
    }
    const writes = session.wrote || registered.length > 0;
    if (writes) last.push({ ...LEAVE_TURN, values: [daemon, slot, turn, this.#time.now] });
    const sentAt = elapsed();
    const committed = session.commit(last);
    sent();
    const answers = await committed;
    if (!writes) return;
    this.#readAt = sentAt;
    this.#readBeforeMs = Math.max(Number(answers.at(-1)?.[0]?.wall) - this.#time.wallMs, 0);
  }

  /** How long ago the time of the turns was, at most; the time that it took to get the locks does not count. */
  get ageMs(): number {
    return this.#readBeforeMs + elapsed() - this.#readAt;
  }
}

const NOTHING: ReadonlySet<string> = new Set();

/** A key, and the beginnings of it that calls may wait under. */
function beginningsOf(key: string): string[] {
  const found = [key];
  for (let at = key.indexOf("/"); at >= 0; at = key.indexOf("/", at + 1)) found.push(key.slice(0, at + 1));
  return found;
}

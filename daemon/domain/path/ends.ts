// Reservations of paths end by their ttl, with their connection and after a restart.
import type { Ending } from "../../grants/ending.js";
import type { GrantRule } from "../../grants/grant.js";
import { run, sql, write } from "../../store/statement.js";
import { NEVER } from "../../turns/alarm.js";
import { lose, RESERVATION_COLUMNS, type ReservationRow, tellLost } from "./row.js";

export const reservations: GrantRule<ReservationRow> = {
  ...RESERVATION_COLUMNS,
  *end(row, cause, env) {
    yield* tellLost(row, cause, env);
    return yield* lose(row, env);
  },
};

const forgetConnections = sql("UPDATE pawl_path_reservation SET connection = 0 WHERE connection <> 0");

const forgetConnectionsOf = sql(`
  UPDATE pawl_path_reservation SET connection = 0 WHERE connection >= :first AND connection <= :last`);

/** Connections are numbered anew in each life of the daemon: none of before is told of an end. */
export const reservationConnections: Ending = {
  *earliest() {
    return NEVER;
  },

  *expire() {
    return 0;
  },

  *restart() {
    yield* run(forgetConnections);
  },

  *abandon(first, last) {
    yield* write(forgetConnectionsOf, { first, last });
  },
};

// The numbers of connections: each daemon counts its own, and in the tables those of all daemons are told apart.

/** The numbers of connections of one daemon; those of all daemons fit into 2^53. */
const CONNECTIONS_PER_DAEMON = 2 ** 32;

/** A connection's number among those of all daemons. */
export function numberOf(connection: number, daemon: number): number {
  return daemon * CONNECTIONS_PER_DAEMON + connection;
}

/** The number of the daemon that has a connection. */
export function daemonOf(known: number): number {
  return Math.floor(known / CONNECTIONS_PER_DAEMON);
}

/** The number here of a connection of this daemon; undefined for one of another. */
export function ownConnection(known: number, daemon: number): number | undefined {
  return daemonOf(known) === daemon ? known % CONNECTIONS_PER_DAEMON : undefined;
}

/** The first and the last number that a connection of a daemon can have. */
export function numbersOf(daemon: number): readonly [first: number, last: number] {
  return [numberOf(0, daemon), numberOf(0, daemon + 1) - 1];
}

/**
 * A grant that ends with its connection is given a grace after a restart, to be renewed on another connection (spec:
 * queue.md, Rules). Meanwhile it keeps in place of the connection when it ends by itself, negated: the grace begins
 * again with the next restart, since nobody could renew it while there was no daemon, and never outlives the grant.
 *
 * @returns SQL for when a grant ends by itself, in a grace or not.
 */
export function ownEnd(connection: string, expiresAt: string): string {
  return `iif(${connection} < 0, -${connection}, ${expiresAt})`;
}

/** SQL for the connection of a grant that ends `:byMs` later: what it keeps in a grace moves with it. */
export function postponedConnection(connection: string): string {
  return `iif(${connection} < 0, ${connection} - :byMs, ${connection})`;
}

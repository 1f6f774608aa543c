// Pools: names whose slots have members, of which each holder is given its own.
import { all, type Operation, one, run, sql, write } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { TAKEN } from "./row.js";

/** Members of one row: a pool of 4,096 labels may have a MiB, and as a rule those at its beginning are free. */
const MEMBERS_PER_PART = 64;

const selectPart = sql<{ members: string }>(
  "SELECT members FROM pawl_lease_pool WHERE name = :name AND part = :part",
);

const selectParts = sql<{ members: string }>(
  "SELECT members FROM pawl_lease_pool WHERE name = :name ORDER BY part",
);

const insertPart = sql("INSERT INTO pawl_lease_pool (name, part, members) VALUES (:name, :part, :members)");

const deleteParts = sql("DELETE FROM pawl_lease_pool WHERE name = :name");

const selectTakenMembers = sql<{ members: string }>(
  `SELECT members FROM pawl_lease WHERE name = :name AND members IS NOT NULL AND ${TAKEN}`,
);

/** Keeps the members of a pool in the place of those that it had; none for a name that is no pool. */
export function* keepPool(name: string, members: readonly string[]): Operation<void> {
  yield* run(deleteParts, { name });
  for (let first = 0, part = 0; first < members.length; first += MEMBERS_PER_PART, part += 1) {
    const some = JSON.stringify(members.slice(first, first + MEMBERS_PER_PART));
    yield* write(insertPart, { name, part, members: some });
  }
}

export function* isPool(name: string): Operation<boolean> {
  return (yield* one(selectPart, { name, part: 0 })) !== undefined;
}

/** All members of a pool; none for a name that is no pool. */
export function* poolOf(name: string): Operation<string[]> {
  const parts = yield* all(selectParts, { name });
  return parts.flatMap(({ members }) => JSON.parse(members) as string[]);
}

/**
 * The first members of a pool that nobody has: as many as there are slots asked for, since so many are free. Null for a
 * name that is no pool.
 */
export function* freeMembers(name: string, slots: number, env: Env): Operation<string[] | null> {
  let members = yield* partOf(name, 0);
  if (members === undefined) return null;
  if (members.length > MEMBERS_PER_PART) yield* keepPool(name, members);
  const taken = new Set<string>();
  for (const row of yield* all(selectTakenMembers, { name, now: env.now })) {
    for (const member of JSON.parse(row.members) as string[]) taken.add(member);
  }
  const free: string[] = [];
  for (let part = 1; members !== undefined; part += 1) {
    for (const member of members) {
      if (taken.has(member)) continue;
      free.push(member);
      if (free.length === slots) return free;
    }
    members = yield* partOf(name, part);
  }
  return free;
}

function* partOf(name: string, part: number): Operation<string[] | undefined> {
  const row = yield* one(selectPart, { name, part });
  return row === undefined ? undefined : (JSON.parse(row.members) as string[]);
}

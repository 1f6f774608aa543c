import { Buffer } from "node:buffer";
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_CHANGES_BYTES } from "@pawl/protocol/limits";
import { all, type Operation, sql } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished, Wait } from "../../turns/operation.js";
import { type Op, openChange, readStored, type SignedChange, type Standing } from "./change.js";
import { findClaim } from "./claims.js";
import { revisionOfBoard } from "./items.js";
import { checkPlace } from "./log.js";
import {
  BOARD_KEY,
  beginNewLog,
  findHead,
  findLog,
  findNode,
  findPlace,
  type KnownLog,
  type LoadedItem,
  loadNode,
  type Node,
  type StoredPlace,
  storeChange,
} from "./tables.js";

/** Of a change as JSON in a list, beside its body. */
const CHANGE_FRAME_BYTES = Buffer.byteLength(JSON.stringify({ body: "", signature: "0".repeat(128) })) + 1;

/** Changes that one step takes in: some 3 ms of work ... */
const CHANGES_PER_STEP = 12;
/** ... unless they touch many items: one of 256 takes some 10 ms. */
const CHARACTERS_PER_STEP = 4096;

const selectBranches = sql<BranchRow>("SELECT * FROM pawl_branch ORDER BY branch");

const selectChanges = sql<{ change_id: string; body: string; signature: string }>(`
  SELECT change_id, body, signature FROM pawl_change
  WHERE branch = :branch AND seq > :seq AND seq <= :last ORDER BY seq LIMIT :rows`);

const selectStandings = sql<{ author: string; revoked_at: number | null }>(
  "SELECT author, revoked_at FROM pawl_peer",
);

interface BranchRow {
  branch: number;
  author: string;
  incarnation: string;
  parent: number | null;
  from_seq: number;
  head_seq: number;
  head_id: string;
}

export function* identity(
  _params: Parsed<"pipeline.identity">,
  env: Env,
): Operation<Result<"pipeline.identity"> | PawlError> {
  const node = env.identity === null ? yield* findNode() : yield* loadNode(env);
  if (node === undefined) {
    return refuse(
      "not_found",
      "This node has no identity yet: nothing was done on the board. Ask the daemon that writes the database.",
      { what: "identity" },
    );
  }
  const { author, board, incarnation } = node;
  return { author, board, incarnation, heads: yield* headsOf() };
}

export function* heads(params: Parsed<"pipeline.heads">): Operation<Result<"pipeline.heads">> {
  const found = yield* headsOf();
  if (params.known === undefined) return { heads: found };
  const known: string[] = [];
  for (const head of params.known) {
    if ((yield* placeOf(head)) !== undefined) known.push(head.hash);
  }
  return { heads: found, known };
}

function* headsOf(): Operation<Result<"pipeline.heads">["heads"]> {
  const branches = yield* all(selectBranches);
  const found = branches.map(({ author, incarnation, head_seq: seq, head_id: hash }) => ({
    author,
    incarnation,
    seq,
    hash,
  }));
  // The same on all nodes that have the same changes.
  const key = ({ author, incarnation, hash }: (typeof found)[number]) => `${author} ${incarnation} ${hash}`;
  return found.sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

export function* changes(params: Parsed<"pipeline.changes">): Operation<Result<"pipeline.changes">> {
  const branches = yield* all(selectBranches);
  const known = yield* placesUpTo(params.heads, branches);
  const wanted = params.want === undefined ? undefined : yield* placesUpTo(params.want, branches);
  const found: SignedChange[] = [];
  let bytes = 0;
  // A branch has a higher number than the one that it goes off from, so what comes before a change comes first.
  for (const { branch, head_seq: headSeq } of branches) {
    const seq = known.get(branch) ?? 0;
    const last = wanted === undefined ? headSeq : (wanted.get(branch) ?? 0);
    if (seq >= last) continue;
    const rows = yield* all(selectChanges, { branch, seq, last, rows: params.limit - found.length + 1 });
    for (const row of rows) {
      const { body, signature } = readStored(row.change_id, row);
      bytes += CHANGE_FRAME_BYTES + Buffer.byteLength(JSON.stringify(body));
      if (found.length === params.limit || bytes > MAX_CHANGES_BYTES) return { changes: found, more: true };
      found.push({ body, signature });
    }
  }
  return { changes: found, more: false };
}

/** Where a change stands that somebody gave as a head, if it is here. */
function* placeOf(head: Head): Operation<StoredPlace | undefined> {
  return yield* findPlace(yield* findLog(head), head.seq, head.hash);
}

type Head = Parsed<"pipeline.changes">["heads"][number];

/** By branch, the last sequence number of these changes and of all before them in their logs. */
function* placesUpTo(given: readonly Head[], branches: readonly BranchRow[]): Operation<Map<number, number>> {
  const byNumber = new Map(branches.map((branch) => [branch.branch, branch]));
  const byHead = new Map(branches.map((branch) => [branch.head_id, branch]));
  const places = new Map<number, number>();
  for (const each of given) {
    const head = byHead.get(each.hash);
    const place = head === undefined ? yield* placeOf(each) : { branch: head.branch, seq: head.head_seq };
    let branch = place?.branch ?? null;
    let seq = place?.seq ?? 0;
    while (branch !== null && seq > (places.get(branch) ?? 0)) {
      places.set(branch, seq);
      const { parent, from_seq: fromSeq } = byNumber.get(branch) as BranchRow;
      branch = parent;
      seq = fromSeq;
    }
  }
  return places;
}

export function* apply(
  params: Parsed<"pipeline.apply">,
  env: Env,
): Operation<Outcome<Result<"pipeline.apply">>> {
  return yield* applyFrom(0, { applied: 0, duplicate: 0, rejected: [] }, params.changes, env);
}

/** One step, from a change on, and those that follow it. */
function* applyFrom(
  first: number,
  before: Result<"pipeline.apply">,
  changes: readonly SignedChange[],
  env: Env,
): Operation<Outcome<Result<"pipeline.apply">>> {
  let node = yield* loadNode(env);
  const standings = new Map<string, Standing>();
  for (const { author, revoked_at: revokedAt } of yield* all(selectStandings)) {
    standings.set(author, revokedAt === null ? "trusted" : "revoked");
  }
  standings.set(node.author, "trusted");
  const standingOf = (author: string): Standing => standings.get(author) ?? "unknown";

  const result = { ...before, rejected: [...before.rejected] };
  let characters = 0;
  for (const [index, signed] of changes.entries()) {
    if (index < first) continue;
    if (index - first === CHANGES_PER_STEP || characters > CHARACTERS_PER_STEP) {
      if (!env.mayGoOn) return { ...result, more: true };
      return new Unfinished((later) => applyFrom(index, result, changes, later));
    }
    characters += signed.body.length;
    const taken: Node | PawlError | undefined = yield* take(signed, node, standingOf, env);
    if (taken === undefined) result.duplicate += 1;
    else if (taken instanceof PawlError) result.rejected.push(rejection(taken));
    else {
      node = taken;
      result.applied += 1;
    }
  }
  return result;
}

/** Takes in one change; undefined for one that is stored already. Refused, it leaves nothing behind. */
function* take(
  signed: SignedChange,
  node: Node,
  standingOf: (author: string) => Standing,
  env: Env,
): Operation<Node | PawlError | undefined> {
  // Before the look for a duplicate, so that what is called one has been verified too.
  const change = openChange(signed, node.board, standingOf);
  if (change instanceof PawlError) return change;
  const log = yield* findLog(change);
  if ((yield* findPlace(log, change.seq, change.id)) !== undefined) return undefined;
  const prev = change.prev === null ? undefined : yield* findPrev(log, change.seq, change.prev);
  const refused = checkPlace(change, prev, env.wallMs);
  if (refused !== undefined) return refused;
  const isOwnLog = change.author === node.author && change.incarnation === node.incarnation;
  const items = new Map<string, LoadedItem | undefined>();
  const after = yield* storeChange(change, log, prev, node, env, items);
  for (const op of change.ops) if (op.set.has("agent")) yield* tellContested(op, items, change.author, env);
  return isOwnLog
    ? yield* beginNewLog(
        after,
        "a peer has changes of this node that it does not have: its database is a copy",
        env,
      )
    : after;
}

/** Tells the holder of a claim that another node has given its item to somebody else. */
function* tellContested(
  { storyId, set }: Op,
  items: ReadonlyMap<string, LoadedItem | undefined>,
  author: string,
  env: Env,
): Operation<void> {
  const item = items.get(storyId);
  const claim = item && (yield* findClaim(item, env));
  const otherAgent = JSON.parse(set.get("agent") as string) as string | null;
  if (item === undefined || claim === undefined || otherAgent === null || otherAgent === claim.agent) return;
  const { fencing_token: fencingToken, connection } = claim;
  const { agent } = item.row;
  env.effects.notify(connection, "item.contested", { storyId, fencingToken, otherAgent, author, agent });
  env.effects.tell("item", storyId, "contested", storyId, { by: otherAgent });
}

/** The change named as the one before, in its place or, where that is wrong, as the end of some log. */
function* findPrev(log: KnownLog, seq: number, id: string): Operation<StoredPlace | undefined> {
  return (yield* findPlace(log, seq - 1, id)) ?? (yield* findHead(id));
}

type Rejection = Result<"pipeline.apply">["rejected"][number];

function rejection({ kind, details }: PawlError): Rejection {
  const { author = null, incarnation = null, seq = null, retryMs } = details as Partial<Rejection>;
  return {
    author,
    incarnation,
    seq,
    kind: kind as Rejection["kind"],
    ...(retryMs === undefined ? {} : { retryMs }),
  };
}

export function* watch(
  params: Parsed<"pipeline.watch">,
  env: Env,
): Operation<Outcome<Result<"pipeline.watch">>> {
  const revision = yield* revisionOfBoard();
  return params.since === revision && env.mayWait ? new Wait(BOARD_KEY) : { revision };
}

import { Buffer } from "node:buffer";
import type { Parsed, Result } from "@pawl/protocol";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { MAX_CHANGES_BYTES } from "@pawl/protocol/limits";
import { all, type Operation, sql } from "../../store/statement.js";
import { type Env, type Outcome, Unfinished, Wait } from "../../turns/operation.js";
import {
  type BranchRow,
  changeBefore,
  cutsOf,
  findBranches,
  headsOf,
  openOf,
  placeOf,
  placesUpTo,
} from "./branches.js";
import { type Change, type Op, openChange, readStored } from "./change.js";
import { findClaim } from "./claims.js";
import { isCut, signCut } from "./cut.js";
import { type CutRun, cutsAfter, takeOut } from "./cuts.js";
import { compareHlc } from "./hybrid-clock.js";
import { revisionOfBoard } from "./items.js";
import { checkPlace } from "./log.js";
import type { SignedChange, Standing } from "./signed-text.js";
import { findStandings, statementsHere } from "./statement.js";
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
  saysSomething,
  storeAt,
  storeChange,
} from "./tables.js";
import { settle, takeCut } from "./take-cut.js";

/** Of a change as JSON in a list, beside its body. */
const CHANGE_FRAME_BYTES = Buffer.byteLength(JSON.stringify({ body: "", signature: "0".repeat(128) })) + 1;

/** Changes that one step takes in: some 3 ms of work ... */
const CHANGES_PER_STEP = 12;
/** ... unless they touch many items: one of 256 takes some 10 ms. */
const CHARACTERS_PER_STEP = 4096;

/** Heads that one step looks for: some 2 ms of work. */
const HEADS_PER_STEP = 1000;
/** What a head takes in memory beside its text in the request, about. */
const KNOWN_HEAD_BYTES = 384;

const selectChanges = sql<ChangeRow>(`
  SELECT seq, change_id, body, signature FROM pawl_change
  WHERE branch = :branch AND seq > :seq AND seq <= :last ORDER BY seq LIMIT :rows`);

interface ChangeRow {
  seq: number;
  change_id: string;
  body: string;
  signature: string;
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
  return { author, board, incarnation, heads: headsOf(yield* findBranches()) };
}

export function* heads(
  params: Parsed<"pipeline.heads">,
  env: Env,
): Operation<Outcome<Result<"pipeline.heads">>> {
  const branches = yield* findBranches();
  const open = yield* openOf(branches);
  const answer = {
    cuts: cutsOf(branches),
    heads: headsOf(branches),
    ...(open.length === 0 ? {} : { open }),
  };
  const { known, sign } = params;
  const statements = sign ? { statements: yield* statementsHere(answer.heads, env) } : {};
  if (known === undefined) return { ...answer, ...statements };
  return yield* knownFrom(0, known, { ...answer, known: [], ...statements }, env);
}

/** One step of looking which heads are known here, and those that follow it: what is known stays so. */
function* knownFrom(
  first: number,
  given: NonNullable<Parsed<"pipeline.heads">["known"]>,
  before: Result<"pipeline.heads">,
  env: Env,
): Operation<Outcome<Result<"pipeline.heads">>> {
  const end = env.mayGoOn ? Math.min(first + HEADS_PER_STEP, given.length) : given.length;
  const known = [...(before.known ?? [])];
  for (const head of given.slice(first, end)) {
    if ((yield* placeOf(head)) !== undefined) known.push(head.hash);
  }
  const answer = { ...before, known };
  if (end === given.length) return answer;
  // The params are as large as their line, and so are the values that they were made of.
  const heldBytes = given.length * KNOWN_HEAD_BYTES;
  return new Unfinished((later) => knownFrom(end, given, answer, later), heldBytes);
}

export function* changes(
  params: Parsed<"pipeline.changes">,
  env?: Pick<Env, "identity">,
): Operation<Result<"pipeline.changes"> | PawlError> {
  const branches = yield* findBranches();
  const known = yield* placesUpTo(params.heads, branches);
  const wanted = params.want === undefined ? undefined : yield* placesUpTo(params.want, branches);
  const found: SignedChange[] = [];
  let bytes = 0;
  // A branch has a higher number than the one that it goes off from, so what comes before a change comes first.
  for (const branch of branches) {
    const seq = known.get(branch.branch) ?? 0;
    const last = wanted === undefined ? branch.head_seq : (wanted.get(branch.branch) ?? 0);
    if (seq >= last) continue;
    for (const entry of yield* entriesOf(branch, seq, last, params.limit - found.length + 1)) {
      const given =
        "cut" in entry
          ? yield* giveCut(entry.cut, branch, params.cuts, env)
          : readStored(entry.change_id, entry);
      if (given instanceof PawlError) return given;
      const { body, signature } = given;
      bytes += CHANGE_FRAME_BYTES + Buffer.byteLength(JSON.stringify(body));
      if (found.length === params.limit || bytes > MAX_CHANGES_BYTES) return { changes: found, more: true };
      found.push({ body, signature });
    }
  }
  return { changes: found, more: false };
}

type Entry = { readonly seq: number } & (ChangeRow | { readonly cut: CutRun });

/** Some of what is between two places of a branch, in its order: changes, and what stands in place of others. */
function* entriesOf(branch: BranchRow, seq: number, last: number, rows: number): Operation<Entry[]> {
  const kept = yield* all(selectChanges, { branch: branch.branch, seq, last, rows });
  if (branch.cut_seq <= seq) return kept;
  const cuts = yield* cutsAfter(branch.branch, seq, rows);
  const entries: Entry[] = cuts.filter(({ first }) => first <= last).map((cut) => ({ seq: cut.last, cut }));
  return [...kept, ...entries].sort((a, b) => a.seq - b.seq).slice(0, rows);
}

/** A cut as it is given to another node: one that does not know of them has to be told. */
function* giveCut(
  { first, last, changes: places }: CutRun,
  branch: BranchRow,
  isWanted: boolean,
  env: Pick<Env, "identity"> | undefined,
): Operation<SignedChange | PawlError> {
  const { author, incarnation } = branch;
  if (!isWanted) {
    return refuse(
      "unsupported_version",
      `Changes ${first} to ${last} of the log of ${author} were taken away here by compaction, and a node of a version before cannot be given what is kept. Upgrade it.`,
      { author, incarnation, seq: last },
    );
  }
  const identity = env?.identity;
  if (identity === null || identity === undefined) {
    return refuse("read_only", "A daemon that only reads cannot sign cuts. Ask the one that writes.");
  }
  const { board } = (yield* findNode()) as Node;
  const prev = (yield* changeBefore(branch, first))?.id ?? null;
  const cut = { author, incarnation, seq: last, prev, changes: places };
  return signCut(cut, board as string, identity());
}

export function* apply(
  params: Parsed<"pipeline.apply">,
  env: Env,
): Operation<Outcome<Result<"pipeline.apply">>> {
  if (params.settled !== undefined) yield* settle(params.settled);
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
  const standingOf = yield* findStandings(node.author);

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
      if (isCut(signed.body)) result.cuts = (result.cuts ?? 0) + 1;
      else result.applied += 1;
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
  if (isCut(signed.body)) return yield* takeCut(signed, node, standingOf, env);
  // Before the look for a duplicate, so that what is called one has been verified too.
  const change = openChange(signed, node.board, standingOf);
  if (change instanceof PawlError) return change;
  const log = yield* findLog(change);
  const place = yield* findPlace(log, change.seq, change.id);
  if (place !== undefined) return yield* takeAgain(change, place, node, env);
  const prev = change.prev === null ? undefined : yield* findPrev(log, change.seq, change.prev);
  const refused = checkPlace(change, prev, env.wallMs);
  if (refused !== undefined) return refused;
  const isOwnLog = change.author === node.author && change.incarnation === node.incarnation;
  const items = new Map<string, LoadedItem | undefined>();
  const after = yield* storeChange(change, log, prev, node, env, items);
  yield* tellOfClaims(change, items, env);
  return isOwnLog
    ? yield* beginNewLog(
        after,
        "a peer has changes of this node that it does not have: its database is a copy",
        env,
      )
    : after;
}

/**
 * Takes in a change in whose place a cut came, if the board rests on it all the same: what replaced it has not come
 * here. Undefined otherwise, and where it does not fit: that cut says what is not so.
 */
function* takeAgain(change: Change, place: StoredPlace, node: Node, env: Env): Operation<Node | undefined> {
  if (place.isCut !== true || !(yield* saysSomething(change))) return undefined;
  const branch = (yield* findBranches()).find((each) => each.branch === place.branch) as BranchRow;
  const before = yield* changeBefore(branch, place.seq);
  if ((before?.id ?? null) !== change.prev || compareHlc(change.hlc, place.hlc) !== 0) return undefined;
  yield* takeOut(place.branch, place.seq);
  const items = new Map<string, LoadedItem | undefined>();
  const after = yield* storeAt(place.branch, change, node, env, items);
  yield* tellOfClaims(change, items, env);
  return after;
}

function* tellOfClaims(
  { ops, author }: Change,
  items: ReadonlyMap<string, LoadedItem | undefined>,
  env: Env,
): Operation<void> {
  for (const op of ops) if (op.set.has("agent")) yield* tellContested(op, items, author, env);
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

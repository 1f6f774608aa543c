import { Buffer } from "node:buffer";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_CHANGES_BYTES, MAX_CLOCK_AHEAD_MS, MAX_SAID_HEADS, MAX_SILENCE_MS } from "@pawl/protocol/limits";
import { all, type Operation, one, run, sql } from "../../store/statement.js";
import type { Env } from "../../turns/operation.js";
import { type BranchRow, type Head, placesUpTo } from "./branches.js";
import { canonical, type Json } from "./canonical.js";
import {
  distrusted,
  KEY,
  RANDOM_ID,
  type SignedChange,
  type Standing,
  signatureOf,
  unsigned,
} from "./signed-text.js";
import { findNode } from "./tables.js";

/**
 * A statement says what one node has of the board, in its own words, so that others know it whoever passes it on. Its
 * body is RFC 8785 canonical JSON
 *
 *     {"at", "author", "board", "heads": [{"author", "hash", "incarnation", "seq"}], "v": 1}
 *
 * signed by author, who has these changes and all before them in their logs at the time `at` of its own clock. The last
 * statement of each peer is kept, and passed on.
 */
const VERSION = 1;
const BODY_PARTS = ["at", "author", "board", "heads", "v"];

/** Signed before the body, so that no signature made for anything else can be one of a statement. */
const DOMAIN = "pawl-board-heads-v1\0";

/** A statement that says what the last one did is kept again after so long: it is a sign of life. */
const REPEATED_MS = 3_600_000;

const selectStandings = sql<{ author: string; revoked_at: number | null }>(
  "SELECT author, revoked_at FROM pawl_peer",
);

const selectStatement = sql<{ at: number; body: string }>(
  "SELECT at, body FROM pawl_peer_statement WHERE author = :author",
);

const selectStatements = sql<SignedChange>(`
  SELECT s.body, s.signature FROM pawl_peer_statement s JOIN pawl_peer p ON p.author = s.author
  WHERE p.revoked_at IS NULL ORDER BY s.at DESC, s.author`);

const upsertStatement = sql(`
  INSERT INTO pawl_peer_statement (author, at, body, signature) VALUES (:author, :at, :body, :signature)
  ON CONFLICT (author) DO UPDATE SET at = excluded.at, body = excluded.body, signature = excluded.signature`);

/** written: the time of the last change of its that is here. */
const selectTrusted = sql<PeerRow>(`
  SELECT p.author, p.name, p.trusted_at, s.at, s.body,
    (SELECT max(c.wall) FROM pawl_branch b JOIN pawl_change c ON c.branch = b.branch AND c.seq = b.head_seq
     WHERE b.author = p.author) AS written
  FROM pawl_peer p LEFT JOIN pawl_peer_statement s ON s.author = p.author
  WHERE p.revoked_at IS NULL ORDER BY p.trusted_at, p.author`);

interface PeerRow {
  author: string;
  name: string;
  trusted_at: number;
  at: number | null;
  body: string | null;
  written: number | null;
}

/** The standing of each author here. */
export function* findStandings(self: string): Operation<(author: string) => Standing> {
  const standings = new Map<string, Standing>();
  for (const { author, revoked_at: revokedAt } of yield* all(selectStandings)) {
    standings.set(author, revokedAt === null ? "trusted" : "revoked");
  }
  standings.set(self, "trusted");
  return (author) => standings.get(author) ?? "unknown";
}

/** What this node says of itself, and what its peers last said, as far as one message has room. */
export function* statementsHere(
  heads: readonly Head[],
  env: Pick<Env, "identity" | "wallMs">,
): Operation<SignedChange[]> {
  const node = yield* findNode();
  const statements: SignedChange[] = [];
  if (env.identity !== null && node !== undefined && node.board !== null) {
    statements.push(signStatement(heads, node.board, env.identity(), env.wallMs));
  }
  statements.push(...(yield* all(selectStatements)));
  let bytes = 0;
  return statements.filter((each) => {
    bytes += Buffer.byteLength(JSON.stringify(each)) + 1;
    return bytes <= MAX_CHANGES_BYTES;
  });
}

/** Of more heads than there is room for, it says those of the longest logs. */
function signStatement(
  heads: readonly Head[],
  board: string,
  { author, privateKey }: ReturnType<NonNullable<Env["identity"]>>,
  at: number,
): SignedChange {
  const said = [...heads].sort((a, b) => b.seq - a.seq).slice(0, MAX_SAID_HEADS);
  const body = canonical({ at, author, board, heads: said.map((head) => ({ ...head })), v: VERSION });
  if (body instanceof PawlError) throw body;
  return { body, signature: signatureOf(Buffer.from(DOMAIN + body), privateKey) };
}

interface Statement {
  readonly at: number;
  readonly author: string;
  readonly heads: readonly Head[];
}

/**
 * Keeps a statement of a peer, unless it said another one later; returns whether it did. Refuses what the peer has not
 * signed, what is of another board, and what is ahead of the time: a sign of life must not be one of the future.
 */
export function* hear(
  signed: SignedChange,
  self: string,
  board: string | null,
  standingOf: (author: string) => Standing,
  wallMs: number,
): Operation<boolean | PawlError> {
  const statement = openStatement(signed, board, standingOf, wallMs);
  if (statement instanceof PawlError) return statement;
  const { author, at, heads } = statement;
  if (author === self) return false;
  const before = yield* one(selectStatement, { author });
  // One of a clock that was ahead, as was the one here, must not stand in the way of all that come until its time.
  const isLater = before !== undefined && before.at >= at && before.at - wallMs <= MAX_CLOCK_AHEAD_MS;
  if (isLater) return false;
  const isSame = before !== undefined && JSON.stringify(headsIn(before.body)) === JSON.stringify(heads);
  if (isSame && Math.abs(at - before.at) < REPEATED_MS) return false;
  yield* run(upsertStatement, { author, at, body: signed.body, signature: signed.signature });
  return true;
}

function openStatement(
  { body, signature }: SignedChange,
  board: string | null,
  standingOf: (author: string) => Standing,
  wallMs: number,
): Statement | PawlError {
  let parsed: Json;
  try {
    parsed = JSON.parse(body);
  } catch {
    return refuse("not_json", `The body ${shown(body)} is not JSON.`);
  }
  const read = readStatement(parsed);
  if (read instanceof PawlError) return read;
  const { author, at } = read;
  const refused = (kind: Parameters<typeof refuse>[0], message: string, details = {}): PawlError =>
    refuse(kind, message, { author, ...details });
  if (board !== null && read.board !== board) {
    return refused("wrong_board", `The statement is of board ${read.board}; this is board ${board}.`);
  }
  const wrong = distrusted(author, standingOf) ?? unsigned(Buffer.from(DOMAIN + body), author, signature);
  if (wrong !== undefined) return refused(wrong.kind, wrong.message);
  if (canonical(parsed) !== body) {
    return refused("not_canonical", "The body is not its own RFC 8785 canonical form.");
  }
  const retryMs = at - wallMs - MAX_CLOCK_AHEAD_MS;
  if (retryMs > 0)
    return refused("clock_ahead", `The statement of ${author} is ahead of the time.`, { retryMs });
  return read;
}

function readStatement(body: Json): (Statement & { readonly board: string }) | PawlError {
  const bad = (value: Json | undefined): PawlError =>
    refuse("bad_shape", `${shown(value)} has no place in a statement.`);
  if (typeof body !== "object" || body === null || Array.isArray(body)) return bad(body);
  const { at, author, board, heads, v } = body as { readonly [part: string]: Json };
  if (v !== VERSION)
    return refuse("unsupported_version", `Version ${shown(v)} of a statement is not known here.`);
  const surplus = Object.keys(body).find((part) => !BODY_PARTS.includes(part));
  if (surplus !== undefined) return bad(surplus);
  if (!Number.isSafeInteger(at)) return bad(at);
  if (typeof author !== "string" || !KEY.test(author)) return bad(author);
  if (typeof board !== "string" || !RANDOM_ID.test(board)) return bad(board);
  if (!Array.isArray(heads) || heads.length > MAX_SAID_HEADS || !heads.every(isHead)) return bad(heads);
  return { at: at as number, author, board, heads: heads as unknown as Head[] };
}

function isHead(value: Json): boolean {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const { author, hash, incarnation, seq, ...rest } = value as { readonly [part: string]: Json };
  return (
    typeof author === "string" &&
    KEY.test(author) &&
    typeof hash === "string" &&
    KEY.test(hash) &&
    typeof incarnation === "string" &&
    RANDOM_ID.test(incarnation) &&
    Number.isSafeInteger(seq) &&
    Object.keys(rest).length === 0
  );
}

function headsIn(body: string): Head[] {
  return (JSON.parse(body) as { readonly heads: Head[] }).heads;
}

/** What a trusted peer is known to have. */
export interface KnownPeer {
  readonly author: string;
  readonly name: string;
  /** When it last said what it has, in milliseconds since the epoch; null if it never did. */
  readonly saidAt: number | null;
  /** By branch, up to which change: what it said, and all that it wrote itself. */
  readonly places: ReadonlyMap<number, number>;
  /** True if nothing was heard of it for so long that nobody waits for it. */
  readonly isSilent: boolean;
}

/** All trusted peers. A peer is heard of by what it says and what it writes, and when somebody begins to trust it. */
export function* knownPeers(branches: readonly BranchRow[], wallMs: number): Operation<KnownPeer[]> {
  const peers: KnownPeer[] = [];
  for (const { author, name, trusted_at: trustedAt, at, body, written } of yield* all(selectTrusted)) {
    const own = branches
      .filter((branch) => branch.author === author)
      .map(({ incarnation, head_seq: seq, head_id: hash }) => ({ author, incarnation, seq, hash }));
    const places = yield* placesUpTo([...(body === null ? [] : headsIn(body)), ...own], branches);
    const heard = Math.max(trustedAt, at ?? 0, written ?? 0);
    peers.push({ author, name, saidAt: at, places, isSilent: wallMs - heard >= MAX_SILENCE_MS });
  }
  return peers;
}

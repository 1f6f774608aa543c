import { Buffer } from "node:buffer";
import type { KeyObject } from "node:crypto";
import { PawlError, refuse, shown } from "@pawl/protocol/errors";
import { MAX_CHANGE_BODY_BYTES, MAX_CLOCK_COUNTER } from "@pawl/protocol/limits";
import { canonical, type Json } from "./canonical.js";
import { compareHlc, type Hlc } from "./hybrid-clock.js";
import {
  distrusted,
  KEY,
  RANDOM_ID,
  type SignedChange,
  type Standing,
  signatureOf,
  unsigned,
} from "./signed-text.js";

/**
 * A cut stands in a log in place of changes that followed each other, on which nothing of the board rests any more. It
 * travels as changes do, and its body is RFC 8785 canonical JSON
 *
 *     {"author", "board", "by", "changes", "cut": {"hash", "seq"}, "incarnation", "prev", "v": 1}
 *
 * where author and incarnation name the log, cut is the place of the last of these changes, prev the hash of the change
 * before the first (null at seq 1), and changes has 88 hexadecimal digits for each of them: its hash, its wall clock
 * and its counter. `by` is the node that signs it: the one that gives it. So the places of all changes stay known, by
 * which nodes tell what they have and see forks; but no value ever comes from a cut.
 */
const VERSION = 1;
const BODY_PARTS = ["author", "board", "by", "changes", "cut", "incarnation", "prev", "v"];

/** Signed before the body, so that no signature made for anything else can be one of a cut. */
const DOMAIN = "pawl-board-cut-v1\0";

/** Changes that one cut stands for, at most: 6 KiB as it travels. */
export const MAX_CUT_CHANGES = 64;

const HASH_BYTES = 32;
const WALL_BYTES = 8;
/** Of the hash, the wall clock and the counter of a change. */
export const ENTRY_BYTES = 44;

const CHANGES = new RegExp(`^(?:[0-9a-f]{${2 * ENTRY_BYTES}}){1,${MAX_CUT_CHANGES}}$`);
/** No body of a change begins so: there, the time comes after the board. */
const BEGINNING = /^\{"author":"[^"]*","board":"[^"]*","by":/;

/** A change that was taken away, as far as it is still known. */
export interface CutChange {
  readonly id: string;
  readonly hlc: Hlc;
}

/** The places that a cut stands for. */
export interface Cut {
  readonly author: string;
  readonly incarnation: string;
  /** The place of the last. */
  readonly seq: number;
  readonly prev: string | null;
  /** `ENTRY_BYTES` for each. */
  readonly changes: Buffer;
}

/** True if something that travels among changes is a cut. */
export function isCut(body: string): boolean {
  return BEGINNING.test(body);
}

export function entryOf({ id, hlc: [wall, counter] }: CutChange): Buffer {
  const entry = Buffer.alloc(ENTRY_BYTES);
  entry.write(id, "hex");
  entry.writeBigUInt64BE(BigInt(wall), HASH_BYTES);
  entry.writeUInt32BE(counter, HASH_BYTES + WALL_BYTES);
  return entry;
}

export function entryAt(changes: Buffer, index: number): CutChange {
  const from = index * ENTRY_BYTES;
  return {
    id: changes.toString("hex", from, from + HASH_BYTES),
    hlc: [
      Number(changes.readBigUInt64BE(from + HASH_BYTES)),
      changes.readUInt32BE(from + HASH_BYTES + WALL_BYTES),
    ],
  };
}

/** Signs a cut, to be given to another node. */
export function signCut(
  { author, incarnation, seq, prev, changes }: Cut,
  board: string,
  identity: { readonly author: string; readonly privateKey: KeyObject },
): SignedChange {
  const last = entryAt(changes, changes.length / ENTRY_BYTES - 1);
  const body = canonical({
    author,
    board,
    by: identity.author,
    changes: changes.toString("hex"),
    cut: { hash: last.id, seq },
    incarnation,
    prev,
    v: VERSION,
  });
  if (body instanceof PawlError) throw body;
  return { body, signature: signatureOf(Buffer.from(DOMAIN + body), identity.privateKey) };
}

/**
 * Checks all of a received cut that can be checked without its log: both its log's author and the node that signed it
 * have to be trusted. Refusals have the kinds of changes, and `author`, `incarnation` and `seq` in their details.
 */
export function openCut(
  { body, signature }: SignedChange,
  board: string | null,
  standingOf: (author: string) => Standing,
): (Cut & { readonly board: string }) | PawlError {
  if (Buffer.byteLength(body) > MAX_CHANGE_BODY_BYTES) {
    return refuse("too_large", `A body is at most ${MAX_CHANGE_BODY_BYTES} bytes.`);
  }
  let parsed: Json;
  try {
    parsed = JSON.parse(body);
  } catch {
    return refuse("not_json", `The body ${shown(body)} is not JSON.`);
  }
  const text = canonical(parsed);
  if (text instanceof PawlError) return text;
  const read = readCut(parsed);
  if (read instanceof PawlError) return read;
  const { cut, by, of } = read;
  const { author, incarnation, seq } = cut;
  const refused = (kind: Parameters<typeof refuse>[0], message: string): PawlError =>
    refuse(kind, message, { author, incarnation, seq });
  if (text !== body) return refused("not_canonical", "The body is not its own RFC 8785 canonical form.");
  if (board !== null && of !== board) {
    return refused("wrong_board", `The cut is of board ${of}; this is board ${board}.`);
  }
  const wrong =
    distrusted(author, standingOf) ??
    distrusted(by, standingOf) ??
    unsigned(Buffer.from(DOMAIN + body), by, signature);
  if (wrong !== undefined) return refused(wrong.kind, wrong.message);
  return { ...cut, board: of };
}

function readCut(body: Json): { readonly cut: Cut; readonly by: string; readonly of: string } | PawlError {
  const bad = (what: string, value: Json | undefined): PawlError =>
    refuse("bad_shape", `${shown(value)} is no ${what} of a cut.`);
  if (typeof body !== "object" || body === null || Array.isArray(body)) return bad("body", body);
  const { author, board, by, changes, cut, incarnation, prev, v } = body as { readonly [part: string]: Json };
  if (v !== VERSION) return refuse("unsupported_version", `Version ${shown(v)} of a cut is not known here.`);
  const surplus = Object.keys(body).find((part) => !BODY_PARTS.includes(part));
  if (surplus !== undefined) return bad("part", surplus);
  if (typeof author !== "string" || !KEY.test(author)) return bad("author", author);
  if (typeof by !== "string" || !KEY.test(by)) return bad("author", by);
  if (typeof board !== "string" || !RANDOM_ID.test(board)) return bad("board", board);
  if (typeof incarnation !== "string" || !RANDOM_ID.test(incarnation)) return bad("incarnation", incarnation);
  if (typeof changes !== "string" || !CHANGES.test(changes)) return bad("list of changes", changes);
  if (prev !== null && (typeof prev !== "string" || !KEY.test(prev))) return bad("hash", prev);
  if (typeof cut !== "object" || cut === null || Array.isArray(cut)) return bad("place", cut);
  const { hash, seq, ...rest } = cut as { readonly [part: string]: Json };
  const entries = Buffer.from(changes, "hex");
  const count = entries.length / ENTRY_BYTES;
  if (!Number.isSafeInteger(seq) || (seq as number) < count || Object.keys(rest).length > 0) {
    return bad("place", cut);
  }
  if (hash !== entryAt(entries, count - 1).id) return bad("last change", hash);
  if ((seq === count) !== (prev === null)) {
    return refuse("bad_chain", "The first change of a log, and only that, has no change before it.");
  }
  const disorder = checkTimes(entries, count);
  if (disorder !== undefined) return disorder;
  return { cut: { author, incarnation, seq: seq as number, prev, changes: entries }, by, of: board };
}

function checkTimes(entries: Buffer, count: number): PawlError | undefined {
  let before: Hlc = [-1, 0];
  for (let index = 0; index < count; index += 1) {
    const { hlc } = entryAt(entries, index);
    if (!Number.isSafeInteger(hlc[0]) || hlc[1] > MAX_CLOCK_COUNTER) {
      return refuse("bad_shape", `[${hlc}] is no time of a change.`);
    }
    if (compareHlc(hlc, before) <= 0) {
      return refuse("clock_not_monotonic", `A change at [${hlc}] follows one at [${before}].`);
    }
    before = hlc;
  }
  return undefined;
}

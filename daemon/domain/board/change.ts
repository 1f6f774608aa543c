import { Buffer } from "node:buffer";
import { hash as digest, type KeyObject } from "node:crypto";
import { type ErrorDetails, type ErrorKind, PawlError, refuse, shown } from "@pawl/protocol/errors";
import {
  MAX_CHANGE_BODY_BYTES,
  MAX_CHANGE_OPS,
  MAX_CLOCK_COUNTER,
  MAX_FIELD_BYTES,
  MAX_FIELD_NAME_BYTES,
  MAX_GENERATION,
  MAX_INCREMENT,
  MAX_LABEL_BYTES,
  MAX_OWN_FIELD_BYTES,
  MAX_STAGE_LENGTH,
} from "@pawl/protocol/limits";
import { canonical, type Json } from "./canonical.js";
import { type Hlc, tick } from "./hybrid-clock.js";
import { isRank } from "./rank.js";
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
 * A change: what one node did to the board, signed. Its body is RFC 8785 canonical JSON
 *
 *     {"author", "board", "hlc": [wallMs, counter], "incarnation", "ops", "prev", "seq", "v": 1}
 *
 * where author is the Ed25519 public key (64 hexadecimal digits), board and incarnation are 16 random bytes
 * (32 digits), prev is the SHA-256 of the body before it in its log (null at seq 1), and an op is
 *
 *     {"i": storyId, "g": generation, "s"?: {field: value}, "c"?: {counter: increment}}
 *
 * There is one op per item, and no field is both set and incremented by one op: then the order of changes is
 * an order of everything in them. An even generation deletes, and so has neither "s" nor "c"; an odd one has
 * at least one of the two. An element of dependsOn is the boolean field "dependsOn/<storyId>", one of labels
 * "l/<label>"; a field that users name themselves is "f/<name>"; and a note is "n/<index>", with a value {agent, text}.
 * A field that only looks like a label, a field of users or a note is one unknown here like any other, because a node
 * of the version before takes it for that, and all nodes have to agree on which changes they take in.
 */
const VERSION = 1;
const BODY_PARTS = ["author", "board", "hlc", "incarnation", "ops", "prev", "seq", "v"];

/** Signed before the body, so that no signature made for anything else can be one of a change. */
const DOMAIN = "pawl-board-change-v1\0";

const STORY_ID = /^[A-Za-z0-9._-]{1,128}$/;

export const DEPENDS_ON = "dependsOn/";
export const OWN_FIELD = "f/";
export const LABEL = "l/";
export const NOTE = "n/";

const OWN_FIELD_NAME = /^f\/[a-z][A-Za-z0-9_]{0,63}$/;
const NOTE_INDEX = /^n\/(?:0|[1-9][0-9]{0,2})$/;

/** What somebody has said about an item, once and for good. */
export interface Note {
  readonly agent: string | null;
  readonly text: string;
}

export interface Change extends SignedChange {
  /** SHA-256 of the body. */
  readonly id: string;
  readonly author: string;
  readonly board: string;
  readonly incarnation: string;
  readonly seq: number;
  readonly prev: string | null;
  readonly hlc: Hlc;
  readonly ops: readonly Op[];
}

/** The part of a change about one item. Field names are those of the author's version: some may be unknown here. */
export interface Op {
  readonly storyId: string;
  readonly generation: number;
  /** Canonical JSON by field. */
  readonly set: ReadonlyMap<string, string>;
  /** Increments by counter. */
  readonly add: ReadonlyMap<string, number>;
}

/**
 * Checks all of a received change that can be checked without its log. The signature is verified over the
 * received text before anything but the address is read from it. Refusals carry `author`, `incarnation` and
 * `seq` in their details as far as the body says them.
 *
 * @param board the board of this node, null while it has none, which fits any.
 */
export function openChange(
  signed: SignedChange,
  board: string | null,
  standingOf: (author: string) => Standing,
): Change | PawlError {
  const { body, signature } = signed;
  const bytes = Buffer.from(DOMAIN + body);
  if (bytes.length - DOMAIN.length > MAX_CHANGE_BODY_BYTES) {
    return refuse(
      "too_large",
      `A body is at most ${MAX_CHANGE_BODY_BYTES} bytes, not ${bytes.length - DOMAIN.length}.`,
    );
  }
  let parsed: Json;
  try {
    parsed = JSON.parse(body);
  } catch {
    return refuse("not_json", `The body ${shown(body)} is not JSON.`);
  }
  const refused = (kind: ErrorKind, message: string) => refuse(kind, message, addressOf(parsed));
  if (!isObject(parsed)) return refused("bad_shape", `A body is an object, not ${shown(parsed)}.`);
  const { v, author } = parsed;
  if (typeof v !== "number") return refused("bad_shape", "A body says its version, the number `v`.");
  if (v !== VERSION) {
    return refused("unsupported_version", `Version ${v} is not known here; upgrade this node.`);
  }
  if (!matches(KEY, author)) return refused("bad_shape", `An author is a key, not ${shown(author)}.`);
  if (!matches(RANDOM_ID, parsed.board)) {
    return refused("bad_shape", `${shown(parsed.board)} is not a board.`);
  }
  if (board !== null && parsed.board !== board) {
    return refused("wrong_board", `The change is of board ${parsed.board}; this is board ${board}.`);
  }
  const wrong = distrusted(author, standingOf) ?? unsigned(bytes, author, signature);
  if (wrong !== undefined) return refused(wrong.kind, wrong.message);
  const text = canonical(parsed);
  if (text instanceof PawlError) return refused(text.kind, text.message);
  if (text !== body) return refused("not_canonical", "The body is not its own RFC 8785 canonical form.");
  const change = readBody(parsed, signed, hash(bytes));
  return change instanceof PawlError ? refused(change.kind, change.message) : change;
}

/** The end that a local change continues: of this node's own log, and the latest time that the node has seen. */
export interface LocalLog {
  readonly author: string;
  readonly board: string;
  readonly incarnation: string;
  /** The last change of the log, null before the first. */
  readonly head: { readonly seq: number; readonly hash: string } | null;
  readonly clock: Hlc;
}

/**
 * Makes and signs the next change of a log, later than everything seen. Refuses what other nodes would:
 * `too_large` for a body, a value or too many ops, and the kinds of ops.
 */
export function writeChange(
  log: LocalLog,
  ops: readonly Op[],
  nowMs: number,
  privateKey: KeyObject,
): Change | PawlError {
  const content = {
    author: log.author,
    board: log.board,
    hlc: tick(log.clock, nowMs),
    incarnation: log.incarnation,
    ops: ops.map(opToJson),
    prev: log.head?.hash ?? null,
    seq: (log.head?.seq ?? 0) + 1,
    v: VERSION,
  };
  const body = canonical(content);
  if (body instanceof PawlError) return body;
  const bytes = Buffer.from(DOMAIN + body);
  if (bytes.length - DOMAIN.length > MAX_CHANGE_BODY_BYTES) {
    return refuse("too_large", `One write is at most ${MAX_CHANGE_BODY_BYTES} bytes; split it in several.`);
  }
  const unsigned = readBody(content, { body, signature: "" }, hash(bytes));
  if (unsigned instanceof PawlError) return unsigned;
  return { ...unsigned, signature: signatureOf(bytes, privateKey) };
}

/**
 * Reads a change from this node's own store, where its signature was verified before. Throws `log_corrupt`,
 * naming it, if it no longer parses or hashes to its id: nothing of a log is ever skipped.
 */
export function readStored(id: string, signed: SignedChange): Change {
  const bytes = Buffer.from(DOMAIN + signed.body);
  if (hash(bytes) !== id) throw corrupt(id, "its body does not hash to its id");
  let parsed: Json;
  try {
    parsed = JSON.parse(signed.body);
  } catch {
    throw corrupt(id, "its body is not JSON");
  }
  if (!isObject(parsed)) throw corrupt(id, "its body is not an object");
  const change = readBody(parsed, signed, id);
  if (change instanceof PawlError) throw corrupt(id, change.message);
  return change;
}

function corrupt(id: string, why: string): PawlError {
  return refuse(
    "log_corrupt",
    `The stored change ${id} is damaged: ${why}. Restore the database from a copy.`,
    {
      changeId: id,
    },
  );
}

function hash(bytes: Buffer): string {
  return digest("sha256", bytes.subarray(DOMAIN.length), "hex");
}

/** The log and the number that a refused body claims, as far as they can be read. */
function addressOf(body: Json): ErrorDetails {
  const { author, incarnation, seq } = isObject(body) ? body : ({} as JsonObject);
  return {
    ...(matches(KEY, author) ? { author } : {}),
    ...(matches(RANDOM_ID, incarnation) ? { incarnation } : {}),
    ...(isCount(seq, Number.MAX_SAFE_INTEGER) && seq > 0 ? { seq } : {}),
  };
}

function readBody(body: JsonObject, { body: text, signature }: SignedChange, id: string): Change | PawlError {
  const surplus = Object.keys(body).find((part) => !BODY_PARTS.includes(part));
  if (surplus !== undefined) return refuse("bad_shape", `A body has no part ${shown(surplus)}.`);
  const { author, board, hlc, incarnation, ops, prev, seq } = body;
  if (!matches(KEY, author)) return refuse("bad_shape", `${shown(author)} is not an author.`);
  if (!matches(RANDOM_ID, board)) return refuse("bad_shape", `${shown(board)} is not a board.`);
  if (!matches(RANDOM_ID, incarnation)) {
    return refuse("bad_shape", `${shown(incarnation)} is not an incarnation.`);
  }
  if (!isCount(seq, Number.MAX_SAFE_INTEGER) || seq === 0) {
    return refuse("bad_shape", `${shown(seq)} is not a seq.`);
  }
  if (prev !== null && !matches(KEY, prev)) {
    return refuse("bad_shape", `${shown(prev)} is not a hash or null.`);
  }
  if (!isHlc(hlc)) return refuse("bad_shape", `${shown(hlc)} is not a time [wallMs, counter].`);
  if (body.v !== VERSION) return refuse("unsupported_version", `Version ${shown(body.v)} is not known here.`);
  if (!Array.isArray(ops) || ops.length === 0) {
    return refuse("bad_shape", `${shown(ops)} is not a list of ops.`);
  }
  if (ops.length > MAX_CHANGE_OPS) {
    return refuse("too_large", `A change has at most ${MAX_CHANGE_OPS} ops, not ${ops.length}.`);
  }
  const read: Op[] = [];
  const items = new Set<string>();
  for (const each of ops) {
    const op = readOp(each);
    if (op instanceof PawlError) return op;
    if (items.has(op.storyId)) return refuse("bad_shape", `Two ops of one change are about ${op.storyId}.`);
    items.add(op.storyId);
    read.push(op);
  }
  return { id, author, board, incarnation, seq, prev, hlc, ops: read, body: text, signature };
}

function readOp(op: Json): Op | PawlError {
  if (!isObject(op)) return refuse("bad_shape", `An op is an object, not ${shown(op)}.`);
  const surplus = Object.keys(op).find((part) => !["i", "g", "s", "c"].includes(part));
  if (surplus !== undefined) return refuse("bad_shape", `An op has no part ${shown(surplus)}.`);
  const { i: storyId, g: generation } = op;
  if (typeof storyId !== "string" || typeof generation !== "number") {
    return refuse("bad_shape", `An op names an item and its generation, not ${shown(op)}.`);
  }
  if (!STORY_ID.test(storyId)) {
    return refuse("bad_story_id", `${shown(storyId)} is not 1 to 128 letters, digits, ".", "_" or "-".`);
  }
  if (!isCount(generation, MAX_GENERATION) || generation === 0) {
    return refuse(
      "bad_generation",
      `${generation} is not a generation of ${storyId}: these are integers from 1.`,
    );
  }
  const set = new Map<string, string>();
  const add = new Map<string, number>();
  for (const part of ["s", "c"] as const) {
    const fields = op[part];
    if (fields === undefined) continue;
    if (!isObject(fields) || Object.keys(fields).length === 0) {
      return refuse("bad_shape", `The fields of an op are an object of at least one, not ${shown(fields)}.`);
    }
    if (generation % 2 === 0) {
      return refuse("bad_generation", `Generation ${generation} deletes ${storyId} and cannot have fields.`);
    }
    for (const [field, value] of Object.entries(fields)) {
      const refused = part === "s" ? readSet(field, value, set) : readAdd(field, value, add);
      if (refused !== undefined) return refused;
      if (part === "c" && set.has(field)) {
        return refuse("bad_field", `The op on ${storyId} both sets and increments ${shown(field)}.`);
      }
    }
  }
  if (generation % 2 === 1 && set.size + add.size === 0) {
    return refuse("bad_shape", `The op on ${storyId} neither deletes it nor has fields.`);
  }
  return { storyId, generation, set, add };
}

function opToJson({ storyId, generation, set, add }: Op): Json {
  // `Object.fromEntries` defines properties, so that a field called __proto__ is one like any other.
  return {
    i: storyId,
    g: generation,
    ...(set.size > 0
      ? { s: Object.fromEntries([...set].map(([field, json]) => [field, JSON.parse(json) as Json])) }
      : {}),
    ...(add.size > 0 ? { c: Object.fromEntries(add) } : {}),
  };
}

function readSet(field: string, value: Json, into: Map<string, string>): PawlError | undefined {
  const json = canonical(value);
  if (json instanceof PawlError) return json;
  const tooLarge = checkSize(field, value, json);
  if (tooLarge !== undefined) return tooLarge;
  if (!isFieldName(field) || !(knownField(field)?.(value) ?? true)) {
    return refuse("bad_field", `The field ${shown(field)} cannot be ${shown(value)}.`);
  }
  into.set(field, json);
  return undefined;
}

function checkSize(field: string, value: Json, json: string): PawlError | undefined {
  const bytes = Buffer.byteLength(json);
  if (bytes <= MAX_FIELD_BYTES) return undefined;
  const name = ownFieldOf(field);
  if (name !== undefined) {
    if (bytes <= MAX_OWN_FIELD_BYTES) return undefined;
    return refuse(
      "too_large",
      `The field ${name} is more than ${MAX_OWN_FIELD_BYTES} bytes of JSON: ${bytes}.`,
    );
  }
  const note = noteIndexOf(field) === undefined ? undefined : noteOf(value);
  if (note !== undefined && Buffer.byteLength(JSON.stringify(note.agent)) <= MAX_FIELD_BYTES) {
    const textBytes = Buffer.byteLength(note.text);
    if (textBytes <= MAX_OWN_FIELD_BYTES) return undefined;
    return refuse(
      "too_large",
      `The text of a note is at most ${MAX_OWN_FIELD_BYTES} bytes, not ${textBytes}.`,
    );
  }
  return refuse("too_large", `The value of ${shown(field)} is more than ${MAX_FIELD_BYTES} bytes of JSON.`);
}

/** The name of a field that users name themselves; undefined for any other. */
export function ownFieldOf(field: string): string | undefined {
  return OWN_FIELD_NAME.test(field) ? field.slice(OWN_FIELD.length) : undefined;
}

/** The label that a field is about; undefined for any other. */
export function labelOf(field: string): string | undefined {
  if (!field.startsWith(LABEL) || field === LABEL) return undefined;
  const label = field.slice(LABEL.length);
  return Buffer.byteLength(label) <= MAX_LABEL_BYTES ? label : undefined;
}

/** Which note of its change a field is; undefined for any other. */
export function noteIndexOf(field: string): number | undefined {
  return NOTE_INDEX.test(field) ? Number(field.slice(NOTE.length)) : undefined;
}

/** The note that a value is; undefined if it is none. */
export function noteOf(value: Json): Note | undefined {
  if (!isObject(value) || Object.keys(value).length !== 2) return undefined;
  const { agent, text } = value;
  if (agent === undefined || text === undefined || !isText(text)) return undefined;
  return agent === null || isText(agent) ? { agent, text } : undefined;
}

function readAdd(field: string, value: Json, into: Map<string, number>): PawlError | undefined {
  if (
    !isCounter(field) ||
    typeof value !== "number" ||
    !Number.isInteger(value) ||
    Math.abs(value) > MAX_INCREMENT
  ) {
    return refuse("bad_field", `The field ${shown(field)} cannot be incremented by ${shown(value)}.`);
  }
  into.set(field, value);
  return undefined;
}

/** True if a field can be incremented: the count, and whatever is unknown here. */
export function isCounter(field: string): boolean {
  return field === "retryCount" || (isFieldName(field) && knownField(field) === undefined);
}

function isFieldName(field: string): boolean {
  return field !== "" && !field.includes("\0") && Buffer.byteLength(field) <= MAX_FIELD_NAME_BYTES;
}

const KNOWN_FIELDS: ReadonlyMap<string, (value: Json) => boolean> = new Map<string, (value: Json) => boolean>(
  [
    ["stage", (value) => isText(value) && value.length > 0 && value.length <= MAX_STAGE_LENGTH],
    ["name", (value) => value === null || isText(value)],
    ["agent", (value) => value === null || isText(value)],
    ["retryCount", (value) => Number.isSafeInteger(value)],
    ["blocked", (value) => typeof value === "boolean"],
    ["rank", (value) => typeof value === "string" && isRank(value)],
    // Parts of an item that are not fields, and the name that stands for all elements.
    ...["storyId", "dependsOn", "updatedAt", "updatedBy"].map((name) => [name, () => false] as const),
  ],
);

/** The test of a known field's values; undefined for a name that this version does not know. */
function knownField(field: string): ((value: Json) => boolean) | undefined {
  if (field.startsWith(DEPENDS_ON)) {
    return (value) => typeof value === "boolean" && STORY_ID.test(field.slice(DEPENDS_ON.length));
  }
  return KNOWN_FIELDS.get(field);
}

/** Text that every database keeps as it is. */
function isText(value: Json): value is string {
  return typeof value === "string" && !value.includes("\0");
}

type JsonObject = { readonly [name: string]: Json };

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function matches(pattern: RegExp, value: Json | undefined): value is string {
  return typeof value === "string" && pattern.test(value);
}

function isCount(value: Json | undefined, most: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= most;
}

function isHlc(value: Json | undefined): value is Hlc {
  return (
    Array.isArray(value) &&
    value.length === 2 &&
    isCount(value[0], Number.MAX_SAFE_INTEGER) &&
    isCount(value[1], MAX_CLOCK_COUNTER)
  );
}

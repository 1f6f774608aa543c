// A peer is another machine, perhaps of another version, perhaps not a pawld at all. Its answers are looked at before
// they are used or shown; the changes themselves are judged by the node that takes them in.

import { PawlError, shown } from "@pawl/protocol/errors";
import { MAX_CHANGES_PER_CALL } from "@pawl/protocol/limits";
import type { Result } from "@pawl/protocol/types";
import type { PawlClient } from "../connect.js";

export type Identity = Result<"pipeline.identity">;
export type Heads = Identity["heads"];
export type Head = Heads[number];
export type Change = Result<"pipeline.changes">["changes"][number];
export type OpenLog = NonNullable<Result<"pipeline.heads">["open"]>[number];
export type Rejection = Result<"pipeline.apply">["rejected"][number];

export async function identityOf(node: PawlClient): Promise<Identity> {
  const answer = await node.pipeline.identity();
  const { author, board, heads } = (answer ?? {}) as Partial<Identity>;
  const isRight = isHex(author, 64) && (board === null || isHex(board, 32)) && isListOf(heads, isHead);
  return believed("pipeline.identity", answer, isRight);
}

export async function headsOf(node: PawlClient): Promise<Heads> {
  const answer = await node.pipeline.heads();
  return believed("pipeline.heads", answer, isListOf(answer?.heads, isHead)).heads;
}

/** What a node has of logs of which changes were taken away. */
export interface Cuts {
  /** Whether it can be given what is kept of them. */
  readonly areKnown: boolean;
  /** The logs of which cuts came to it, and perhaps not all that replaced what they stand for. */
  readonly open: readonly OpenLog[];
}

export async function cutsOf(node: PawlClient): Promise<Cuts> {
  const answer = await node.pipeline.heads();
  const { cuts, open = [] } = answer ?? { cuts: null };
  const isRight = (cuts === undefined || Array.isArray(cuts)) && isListOf(open, isOpenLog);
  believed("pipeline.heads", answer, isRight);
  return { areKnown: cuts !== undefined, open };
}

/** What a node says that it and others have, in words that they have signed. */
export async function statementsOf(node: PawlClient): Promise<Change[]> {
  const answer = await node.pipeline.heads({ sign: true });
  const { statements = [] } = answer ?? { statements: null };
  return believed("pipeline.heads", statements, isListOf(statements, isSigned));
}

/** The hashes of those heads that a node has, as heads or before them. */
export async function sharedOf(node: PawlClient, given: Heads): Promise<Set<string>> {
  const answer = await node.pipeline.heads({ known: [...given] });
  const { known = [] } = answer ?? { known: null };
  return new Set(
    believed(
      "pipeline.heads",
      known,
      isListOf(known, (hash) => isHex(hash, 64)),
    ),
  );
}

export async function changesOf(
  node: PawlClient,
  params: { heads: Heads; want?: Heads; cuts?: true },
): Promise<Result<"pipeline.changes">> {
  const answer = await node.pipeline.changes(params);
  const { changes, more } = (answer ?? {}) as Partial<typeof answer>;
  const isRight =
    isListOf(changes, isSigned) && changes.length <= MAX_CHANGES_PER_CALL && typeof more === "boolean";
  return believed("pipeline.changes", answer, isRight);
}

export async function applyTo(node: PawlClient, changes: Change[]): Promise<Result<"pipeline.apply">> {
  const answer = await node.pipeline.apply({ changes });
  const { applied, cuts = 0, rejected } = (answer ?? {}) as Partial<typeof answer>;
  const areCounts = Number.isSafeInteger(applied) && Number.isSafeInteger(cuts);
  return believed("pipeline.apply", answer, areCounts && isListOf(rejected, isRejection));
}

/** Tells a node of which logs it has been given all that a peer has. */
export async function settle(node: PawlClient, settled: OpenLog[]): Promise<void> {
  for (let index = 0; index < settled.length; index += MAX_CHANGES_PER_CALL) {
    await node.pipeline.apply({ changes: [], settled: settled.slice(index, index + MAX_CHANGES_PER_CALL) });
  }
}

export async function maxMessageBytesOf(node: PawlClient): Promise<number> {
  const answer = await node.daemon.info();
  const most = answer?.limits?.maxMessageBytes;
  return believed("daemon.info", most as number, Number.isSafeInteger(most));
}

function believed<T>(method: string, answer: T, isRight: boolean): T {
  if (isRight) return answer;
  throw new PawlError(
    "internal",
    `${method} was answered with ${shown(answer)}, which no pawld says. Look what listens on the peer's socket, and which version.`,
  );
}

function isListOf<T>(value: unknown, isElement: (element: unknown) => boolean): value is T[] {
  return Array.isArray(value) && value.every(isElement);
}

export function isHex(value: unknown, digits: number): boolean {
  return typeof value === "string" && value.length === digits && /^[0-9a-f]*$/.test(value);
}

export function isHead(value: unknown): boolean {
  const { author, incarnation, seq, hash } = (value ?? {}) as Partial<Head>;
  return isHex(author, 64) && isHex(incarnation, 32) && Number.isSafeInteger(seq) && isHex(hash, 64);
}

function isOpenLog(value: unknown): value is OpenLog {
  const { author, incarnation, after, cut } = (value ?? {}) as Partial<OpenLog>;
  const log = { author, incarnation };
  return isHead({ ...log, ...cut }) && (after === null || isHead({ ...log, ...after }));
}

function isSigned(value: unknown): boolean {
  const { body, signature } = (value ?? {}) as Partial<Change>;
  return typeof body === "string" && typeof signature === "string";
}

function isRejection(value: unknown): boolean {
  const { author, incarnation, seq, kind, retryMs = 0 } = (value ?? {}) as Partial<Rejection>;
  return (
    (author === null || isHex(author, 64)) &&
    (incarnation === null || isHex(incarnation, 32)) &&
    (seq === null || Number.isSafeInteger(seq)) &&
    typeof kind === "string" &&
    /^[a-z_]+$/.test(kind) &&
    Number.isSafeInteger(retryMs)
  );
}

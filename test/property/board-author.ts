// Authors of changes for tests. Bodies are made and signed here without the code under test, so that they can
// also be what it must refuse.
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import type { SignedChange } from "../../daemon/dist/domain/board/signed-text.js";

export const BOARD = "b0a2d".padEnd(32, "0");

/** A body before it is written: any part can be left out, added or made wrong. */
export interface Content {
  author: unknown;
  board: unknown;
  hlc: unknown;
  incarnation: unknown;
  ops: unknown;
  prev: unknown;
  seq: unknown;
  v: unknown;
}

export class Author {
  readonly id: string;
  readonly privateKey: KeyObject;

  /** The same number gives the same key, in every run. */
  constructor(number: number) {
    const seed = createHash("sha256").update(`author ${number}`).digest();
    const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
    this.privateKey = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const { x } = createPublicKey(this.privateKey).export({ format: "jwk" });
    this.id = Buffer.from(x as string, "base64url").toString("hex");
  }

  /** The first change of a log on one item, with some parts replaced; a part that is undefined is left out. */
  change(parts: Partial<Content> & Record<string, unknown> = {}): SignedChange {
    const content = {
      author: this.id,
      board: BOARD,
      hlc: [1000, 0],
      incarnation: incarnation(0),
      ops: [{ i: "A-1", g: 1, s: { stage: "1_backlog" } }],
      prev: null,
      seq: 1,
      v: 1,
      ...parts,
    };
    return this.sign(sortedJson(content));
  }

  sign(body: string): SignedChange {
    const bytes = Buffer.from(`pawl-board-change-v1\0${body}`);
    return { body, signature: sign(null, bytes, this.privateKey).toString("hex") };
  }
}

export function incarnation(number: number): string {
  return number.toString(16).padStart(32, "0");
}

export function hashOf({ body }: SignedChange): string {
  return createHash("sha256").update(body).digest("hex");
}

/** RFC 8785 for what tests put into bodies, by recursion. */
export function sortedJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(sortedJson).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${sortedJson(member)}`);
  return `{${members.join(",")}}`;
}

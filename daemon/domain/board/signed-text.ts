// What nodes sign: changes, cuts and statements. Each is a text with the signature of one key over it.
import { Buffer } from "node:buffer";
import { type KeyObject, sign, verify } from "node:crypto";
import { PawlError, refuse } from "@pawl/protocol/errors";
import { authorKey } from "../../identity/key.js";

/** A public key of Ed25519, and a SHA-256, as texts. */
export const KEY = /^[0-9a-f]{64}$/;
/** The 16 random bytes by which a board or an incarnation is named. */
export const RANDOM_ID = /^[0-9a-f]{32}$/;
const SIGNATURE = /^[0-9a-f]{128}$/;

/** As it travels and as it is kept: the text is that of the received bytes. */
export interface SignedChange {
  readonly body: string;
  /** 128 lower-case hexadecimal digits. */
  readonly signature: string;
}

/** The standing of an author here. A node trusts itself. */
export type Standing = "trusted" | "revoked" | "unknown";

/** The refusal of an author who is not trusted: `unknown_author` or `revoked_author`. */
export function distrusted(author: string, standingOf: (author: string) => Standing): PawlError | undefined {
  const standing = standingOf(author);
  if (standing === "unknown") return refuse("unknown_author", `The author ${author} is not trusted here.`);
  return standing === "revoked"
    ? refuse("revoked_author", `The author ${author} is no longer trusted here.`)
    : undefined;
}

/**
 * The refusal of bytes that an author has not signed: `bad_signature`, or what is wrong with the key.
 *
 * @param bytes the body behind what is signed before it, by which texts of one sort are told from others.
 */
export function unsigned(bytes: Buffer, author: string, signature: unknown): PawlError | undefined {
  const key = authorKey(author);
  if (key instanceof PawlError) return key;
  const isSigned =
    typeof signature === "string" &&
    SIGNATURE.test(signature) &&
    verify(null, bytes, key, Buffer.from(signature, "hex"));
  return isSigned
    ? undefined
    : refuse("bad_signature", `The signature is not one of ${author} over this body.`);
}

/** @param bytes as for `unsigned`. */
export function signatureOf(bytes: Buffer, privateKey: KeyObject): string {
  return sign(null, bytes, privateKey).toString("hex");
}

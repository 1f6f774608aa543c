// The room of identities: keys, signatures and ids, without I/O. The program decides which file has the key of this
// node (`node-identity.ts`).
import { Buffer } from "node:buffer";
import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";

/** Bits of a file's mode that let anyone but its owner at it. */
const OTHERS_MODE = 0o077;

/** The bytes before the 32 of an Ed25519 key in its DER form (RFC 8410). */
const PUBLIC_DER_PREFIX = Buffer.from("302a300506032b6570032100", "hex");
const PRIVATE_DER_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");
const KEY_BYTES = 32;

const AUTHOR = /^[0-9a-f]{64}$/;

/** 2^255 - 19: coordinates are numbers below it. */
const FIELD_PRIME = 2n ** 255n - 19n;

/**
 * The y coordinates of the eight points whose order divides 8: the neutral element, the point of order 2,
 * two of order 4 and four of order 8. With such a key, signatures exist that hold for many messages. (Chalkias
 * et al., "Taming the many EdDSAs", 2020.)
 */
const SMALL_ORDER_Y: ReadonlySet<bigint> = new Set([
  0n,
  1n,
  FIELD_PRIME - 1n,
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n,
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n,
]);

/** Imported keys by author; importing one takes longer than verifying a signature with it. */
const importedKeys = new Map<string, KeyObject>();
const MAX_IMPORTED_KEYS = 1024;

/**
 * The public key that an author's name is: 64 lower-case hexadecimal digits. Refuses with `weak_key` a key of
 * small order, and one that is not in its only encoding and would make one author look like two.
 */
export function authorKey(author: string): KeyObject | PawlError {
  const known = importedKeys.get(author);
  if (known !== undefined) return known;
  if (!AUTHOR.test(author)) {
    return refuse("invalid_params", `An author is 64 lower-case hexadecimal digits, not ${shown(author)}.`);
  }
  const bytes = Buffer.from(author, "hex");
  // The y coordinate is little-endian; the uppermost bit is the sign of x.
  const y = BigInt(`0x${Buffer.from(bytes).reverse().toString("hex")}`) & (2n ** 255n - 1n);
  if (y >= FIELD_PRIME) return refuse("weak_key", `The key ${author} is not in its canonical encoding.`);
  if (SMALL_ORDER_Y.has(y))
    return refuse("weak_key", `The key ${author} is of small order: anyone can sign for it.`);
  const key = createPublicKey({
    key: Buffer.concat([PUBLIC_DER_PREFIX, bytes]),
    format: "der",
    type: "spki",
  });
  if (importedKeys.size >= MAX_IMPORTED_KEYS) {
    const [oldest] = importedKeys.keys();
    importedKeys.delete(oldest as string);
  }
  importedKeys.set(author, key);
  return key;
}

/** The author that a private key signs as: its public key, 64 lower-case hexadecimal digits. */
export function authorOf(privateKey: KeyObject): string {
  const der = createPublicKey(privateKey).export({ format: "der", type: "spki" });
  return der.subarray(-KEY_BYTES).toString("hex");
}

/** The content of a new `identity.key`: the Ed25519 key that 32 random bytes are, as PKCS #8 in PEM. */
export function newIdentity(random: Uint8Array): string {
  if (random.length !== KEY_BYTES) throw new RangeError(`a key is ${KEY_BYTES} bytes, not ${random.length}`);
  const key = createPrivateKey({
    key: Buffer.concat([PRIVATE_DER_PREFIX, random]),
    format: "der",
    type: "pkcs8",
  });
  return key.export({ format: "pem", type: "pkcs8" }) as string;
}

/**
 * The private key in an `identity.key`. Refuses with `key_mode` one whose file mode lets others at it, and with
 * `key_unreadable` one that is not an Ed25519 key in PKCS #8.
 */
export function openIdentity(pem: string, fileMode: number): KeyObject | PawlError {
  if ((fileMode & OTHERS_MODE) !== 0) {
    const mode = (fileMode & 0o777).toString(8).padStart(4, "0");
    return refuse(
      "key_mode",
      `The identity key has mode ${mode}; others could sign as this node. Make it 0600.`,
    );
  }
  let key: KeyObject;
  try {
    key = createPrivateKey({ key: pem, format: "pem" });
  } catch {
    return refuse(
      "key_unreadable",
      "The identity key is not a private key in PKCS #8; restore it from a copy.",
    );
  }
  if (!pem.includes("-----BEGIN PRIVATE KEY-----") || key.asymmetricKeyType !== "ed25519") {
    return refuse("key_unreadable", "The identity key is not an unencrypted Ed25519 key in PKCS #8.");
  }
  return key;
}

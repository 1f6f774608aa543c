import { hash } from "node:crypto";

/** Of the secret that signs: as long as the digest. */
export const SIGNING_KEY_BYTES = 32;
/** Signatures kept, since the last are often asked for again: a claim is completed with the token that it was given. */
const MAX_REMEMBERED = 4096;

/** SHA-256 works on blocks of 64 bytes and gives 32. */
const BLOCK_BYTES = 64;
const DIGEST_BYTES = 32;
const INNER_PAD = 0x36;
const OUTER_PAD = 0x5c;

/**
 * Signs short ASCII texts with a secret: HMAC-SHA-256 (RFC 2104), in base64url. The secret is in the returned
 * function only, so that nothing that an operation is given could let it out. `createHmac` makes a stream for
 * each text, which takes twice as long as the two digests.
 *
 * @param key of `SIGNING_KEY_BYTES`, which is no longer than a block.
 */
export function signWith(key: Buffer): (text: string) => string {
  const outer = Buffer.alloc(BLOCK_BYTES + DIGEST_BYTES, OUTER_PAD);
  const innerKey = Buffer.alloc(BLOCK_BYTES, INNER_PAD);
  for (const [index, byte] of key.entries()) {
    outer[index] = OUTER_PAD ^ byte;
    innerKey[index] = INNER_PAD ^ byte;
  }
  /** For each length of a text the buffer to hash, which begins with the key. */
  const inners: Buffer[] = [];
  const sign = (text: string): string => {
    let inner = inners[text.length];
    if (inner === undefined) {
      inner = Buffer.concat([innerKey, Buffer.alloc(text.length)]);
      inners[text.length] = inner;
    }
    inner.write(text, BLOCK_BYTES, "latin1");
    outer.write(hash("sha256", inner, "binary"), BLOCK_BYTES, "latin1");
    return hash("sha256", outer, "base64url");
  };

  // Two generations, since taking the oldest out of a Map means to pass over those that were there before it.
  let recent = new Map<string, string>();
  let former = recent;
  return (text) => {
    const known = recent.get(text) ?? former.get(text);
    if (known !== undefined) return known;
    if (recent.size >= MAX_REMEMBERED) {
      former = recent;
      recent = new Map();
    }
    const signature = sign(text);
    recent.set(text, signature);
    return signature;
  };
}

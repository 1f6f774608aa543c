import { createHmac } from "node:crypto";

/** Of the secret that signs: as long as the digest. */
export const SIGNING_KEY_BYTES = 32;
/** What was signed last is often asked for again: a claim is completed with the token that it was given. */
const MAX_REMEMBERED = 8192;

/**
 * Signs texts with a secret (HMAC-SHA-256, RFC 2104). The secret is in the returned function only, so that
 * nothing that an operation is given could let it out.
 */
export function signer(key: Buffer): (text: string) => string {
  const remembered = new Map<string, string>();
  return (text) => {
    const known = remembered.get(text);
    if (known !== undefined) return known;
    const signature = createHmac("sha256", key).update(text).digest("base64url");
    if (remembered.size >= MAX_REMEMBERED) {
      // A Map keeps the order of insertion: this is the oldest.
      for (const oldest of remembered.keys()) {
        remembered.delete(oldest);
        break;
      }
    }
    remembered.set(text, signature);
    return signature;
  };
}

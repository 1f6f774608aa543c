import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { PawlError } from "@pawl/protocol/errors";
import { describe, expect, test } from "vitest";
import { authorKey, authorOf, newIdentity, openIdentity } from "../../daemon/dist/identity/key.js";

// The curve of Ed25519 (RFC 8032), to find the points of small order without the code under test.
const P = 2n ** 255n - 19n;
const modulo = (n: bigint) => ((n % P) + P) % P;
function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let [b, e] = [modulo(base), exponent]; e > 0n; [b, e] = [modulo(b * b), e >> 1n]) {
    if (e & 1n) result = modulo(result * b);
  }
  return result;
}
const inverse = (n: bigint) => power(n, P - 2n);
const D = modulo(-121665n * inverse(121666n));
type Point = readonly [x: bigint, y: bigint];
function sum([x1, y1]: Point, [x2, y2]: Point): Point {
  const product = modulo(D * x1 * x2 * y1 * y2);
  return [
    modulo((x1 * y2 + x2 * y1) * inverse(1n + product)),
    modulo((y1 * y2 + x1 * x2) * inverse(1n - product)),
  ];
}
function root(square: bigint): bigint {
  const candidate = power(square, (P + 3n) / 8n);
  return modulo(candidate * candidate) === modulo(square)
    ? candidate
    : modulo(candidate * power(2n, (P - 1n) / 4n));
}
function encode(y: bigint, sign: 0n | 1n): string {
  const hex = (y | (sign << 255n)).toString(16).padStart(64, "0");
  return Buffer.from(hex, "hex").reverse().toString("hex");
}

function kindOf(result: KeyObject | PawlError): string | undefined {
  return result instanceof PawlError ? result.kind : undefined;
}

describe("an author's key", () => {
  test("is refused if it is one of the eight points of small order", () => {
    // Twice a point of order 8 has y = 0, and so x^2 = -y^2; the curve's equation is then D y^4 + 2 y^2 = 1.
    const halves = [root(1n + D), P - root(1n + D)].map((half) => modulo((half - 1n) * inverse(D)));
    const ySquared = halves.find((half) => modulo(root(half) ** 2n) === half) as bigint;
    const y = root(ySquared);
    const x = root(P - ySquared);
    expect(modulo(x * x + y * y)).toBe(0n);
    const points: Point[] = [[0n, 1n]];
    while (points.length < 8) points.push(sum(points.at(-1) as Point, [x, y]));
    expect(sum(points.at(-1) as Point, [x, y])).toEqual([0n, 1n]);
    expect(new Set(points.map(String)).size).toBe(8);
    for (const [pointX, pointY] of points) {
      expect(kindOf(authorKey(encode(pointY, (pointX & 1n) as 0n | 1n)))).toBe("weak_key");
      expect(kindOf(authorKey(encode(pointY, ((pointX & 1n) ^ 1n) as 0n | 1n)))).toBe("weak_key");
    }
  });

  test("is refused in any other encoding than its own", () => {
    for (let y = P; y < 2n ** 255n; y += 1n) {
      expect(kindOf(authorKey(encode(y, 0n)))).toBe("weak_key");
      expect(kindOf(authorKey(encode(y, 1n)))).toBe("weak_key");
    }
    expect(kindOf(authorKey("AB".repeat(32)))).toBe("invalid_params");
    expect(kindOf(authorKey("ab".repeat(31)))).toBe("invalid_params");
  });

  test("is imported once", () => {
    const author = authorOf(generateKeyPairSync("ed25519").privateKey);
    const key = authorKey(author) as KeyObject;
    expect(key.asymmetricKeyType).toBe("ed25519");
    expect(authorKey(author)).toBe(key);
    // Only so many are remembered.
    for (let number = 0; number < 1024; number += 1) authorKey(`${number}`.padStart(4, "0").padEnd(64, "a"));
    expect(authorKey(author)).not.toBe(key);
    expect((authorKey(author) as KeyObject).equals(key)).toBe(true);
  });
});

describe("a node's identity", () => {
  // RFC 8032, section 7.1, test 1.
  const seed = Buffer.from("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "hex");
  const author = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

  test("is the key that its random bytes say, kept as PKCS #8", () => {
    const pem = newIdentity(seed);
    expect(pem).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    const key = openIdentity(pem, 0o100600) as KeyObject;
    expect(authorOf(key)).toBe(author);
    expect(sign(null, Buffer.alloc(0), key).toString("hex")).toMatch(/^e5564300c360ac729086e2cc806e828a/);
    expect(() => newIdentity(Buffer.alloc(31))).toThrow(RangeError);
  });

  test.each([0o640, 0o604, 0o660, 0o601, 0o100644])("is refused with mode %o", (mode) => {
    const refused = openIdentity(newIdentity(seed), mode) as PawlError;
    expect(refused.kind).toBe("key_mode");
    expect(refused.message).toContain((mode & 0o777).toString(8));
  });

  test("is taken with mode 0400, as systemd gives credentials", () => {
    expect(kindOf(openIdentity(newIdentity(seed), 0o400))).toBeUndefined();
  });

  test.each([
    ["nothing", ""],
    ["half of it", newIdentity(seed).slice(0, 60)],
    ["other text", "not a key"],
    [
      "an RSA key",
      generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey.export({ format: "pem", type: "pkcs8" }),
    ],
    ["a public key", generateKeyPairSync("ed25519").publicKey.export({ format: "pem", type: "spki" })],
    ["an X25519 key", generateKeyPairSync("x25519").privateKey.export({ format: "pem", type: "pkcs8" })],
    [
      "an encrypted key",
      generateKeyPairSync("ed25519").privateKey.export({
        format: "pem",
        type: "pkcs8",
        cipher: "aes-256-cbc",
        passphrase: "x",
      }),
    ],
  ])("is refused if the file holds %s", (_what, pem) => {
    expect(kindOf(openIdentity(pem as string, 0o600))).toBe("key_unreadable");
  });
});

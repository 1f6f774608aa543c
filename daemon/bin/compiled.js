import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { Script } from "node:vm";

/** pawld in one file: an expression, a function of what modules of CommonJS have. */
const BUNDLE = fileURLToPath(new URL("../dist/bundle/pawld.cjs", import.meta.url));
/** What the engine made of it where it was built: a digest of both, then that. */
export const CODE_CACHE = `${BUNDLE}.cache`;

/**
 * Loads pawld. To compile it takes a third of a start, so the engine is given what it made when pawld was built; it takes
 * that only if it is the same engine. Otherwise pawld starts without.
 *
 * @returns what pawld exports, and the script, of which a cache can be made, with its text.
 */
export function loadCompiled() {
  // All of it is ASCII, which so is read into one byte a character.
  const source = readFileSync(BUNDLE, "latin1");
  const script = new Script(source, { filename: BUNDLE, cachedData: cachedCode(source) });
  const module = { exports: {} };
  const load = script.runInThisContext();
  // Some is loaded only where it is asked for, and a script cannot import.
  load(module.exports, createRequire(BUNDLE), module, BUNDLE, dirname(BUNDLE), (name) => import(name));
  return { script, source, exports: module.exports };
}

/** @param {string} source */
function cachedCode(source) {
  let file;
  try {
    file = readFileSync(CODE_CACHE);
  } catch {
    return undefined;
  }
  const code = file.subarray(DIGEST_BYTES);
  // The engine does not look whether it is whole, nor whether it is of another text of the same length.
  return digestOf(source, code).equals(file.subarray(0, DIGEST_BYTES)) ? code : undefined;
}

const DIGEST_BYTES = 32;

/**
 * @param {string} source
 * @param {Buffer} code
 */
export function digestOf(source, code) {
  return createHash("sha256").update(source, "latin1").update(code).digest();
}

const { createHash } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const { dirname, join } = require("node:path");
const { Script } = require("node:vm");

/** pawld in a few files, each an expression: a function of what modules of CommonJS have. */
const BUNDLE = join(__dirname, "../dist/bundle");
const MAIN = "pawld.cjs";

/**
 * What the engine made of a file where it was built: a digest of both, then that.
 *
 * @param {string} file
 */
function codeCacheOf(file) {
  return `${file}.cache`;
}

/**
 * Loads pawld. To compile it takes a third of a start, so the engine is given what it made when pawld was built; it takes
 * that only if it is the same engine. Otherwise pawld starts without.
 *
 * @returns what pawld exports, and each script that it loads, of which a cache can be made, with its file and text.
 */
function loadCompiled() {
  const requireOther = createRequire(join(BUNDLE, MAIN));
  /** @type {Map<string, { file: string, source: string, script: Script, module: { exports: any } }>} */
  const loaded = new Map();
  /** @param {string} name */
  const load = (name) => {
    const file = join(BUNDLE, name);
    const known = loaded.get(file);
    if (known !== undefined) return known.module.exports;
    // The digest is taken of the bytes, which are let go then: of the text it would have to make them again.
    const bytes = readFileSync(file);
    // All of it is ASCII, which so is one byte a character.
    const source = bytes.toString("latin1");
    const script = new Script(source, { filename: file, cachedData: cachedCode(file, bytes) });
    const module = { exports: {} };
    loaded.set(file, { file, source, script, module });
    // Some is loaded only where it is asked for, and a script cannot import.
    script.runInThisContext()(module.exports, requireFrom, module, file, dirname(file), importModule);
    return module.exports;
  };
  /** @param {string} name */
  const requireFrom = (name) => (name.startsWith("./") ? load(name) : requireOther(name));
  requireFrom.resolve = requireOther.resolve;
  /** @param {string} name */
  const importModule = (name) => import(name);
  return { exports: load(MAIN), loaded };
}

/**
 * @param {string} file
 * @param {Buffer} bytes
 */
function cachedCode(file, bytes) {
  let cache;
  try {
    cache = readFileSync(codeCacheOf(file));
  } catch {
    return undefined;
  }
  const code = cache.subarray(DIGEST_BYTES);
  // The engine does not look whether it is whole, nor whether it is of another text of the same length.
  return digestOf(bytes, code).equals(cache.subarray(0, DIGEST_BYTES)) ? code : undefined;
}

const DIGEST_BYTES = 32;

/**
 * @param {Buffer} bytes
 * @param {Buffer} code
 */
function digestOf(bytes, code) {
  return createHash("sha256").update(bytes).update(code).digest();
}

module.exports = { codeCacheOf, digestOf, loadCompiled };

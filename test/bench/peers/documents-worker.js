// @ts-check
/**
 * `documents-worker.js write MODULE DIRECTORY ITEMS UPDATES PER_SYNC` makes a document and keeps each of its updates;
 * `documents-worker.js load MODULE DIRECTORY ITEMS UPDATES updates|snapshot` opens it again.
 */
import { closeSync, fdatasyncSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { pathToFileURL } from "node:url";

/** The length of an update, before it in the file. */
const LENGTH_BYTES = 4;
/** Far from the item of the update before. */
const STRIDE = 7919;

/**
 * @typedef {object} Document
 * @property {(id: string, fields: Record<string, unknown>) => Uint8Array} set sets fields of an item, which it makes if
 *   need be, and gives the update.
 * @property {() => Uint8Array} snapshot
 * @property {() => Record<string, any>} list all items.
 */

const [mode = "", module = "", directory = "", itemCount = "", updateCount = "", last = ""] =
  process.argv.slice(2);
const items = Number(itemCount);
const updates = Number(updateCount);
const updatesFile = path.join(directory, "updates");
const snapshotFile = path.join(directory, "snapshot");

const library = await import(
  pathToFileURL(createRequire(new URL("documents/", import.meta.url)).resolve(module)).href
);
const makers = { "@automerge/automerge": automerge, yjs, "loro-crdt": loro };
const make = makers[/** @type {keyof typeof makers} */ (module)];

if (mode === "write") writeAll(Number(last));
else loadAll(last === "snapshot");

/** @param {number} perSync */
function writeAll(perSync) {
  const document = make([]);
  const file = openSync(updatesFile, "w");
  for (let index = 0; index < items; index++) {
    append(file, document.set(`S-${index}`, firstFields(index)));
  }
  fdatasyncSync(file);
  const latenciesMs = new Float64Array(updates);
  const cpuBefore = process.cpuUsage();
  const startedAtMs = performance.now();
  let since = startedAtMs;
  for (let index = 0; index < updates; index++) {
    append(file, document.set(`S-${(index * STRIDE) % items}`, fieldsOf(index)));
    if ((index + 1) % perSync !== 0 && index + 1 < updates) continue;
    fdatasyncSync(file);
    const now = performance.now();
    // All that share a sync are durable with it.
    latenciesMs.fill(now - since, index + 1 - ((index % perSync) + 1), index + 1);
    since = now;
  }
  const seconds = (performance.now() - startedAtMs) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  closeSync(file);
  const memoryBytes = process.memoryUsage.rss();
  writeFileSync(snapshotFile, document.snapshot());
  process.send?.({ seconds, latenciesMs, cpuSeconds: (user + system) / 1e6, memoryBytes });
}

/** @param {boolean} fromSnapshot */
function loadAll(fromSnapshot) {
  const document = make(fromSnapshot ? [readFileSync(snapshotFile)] : updatesOf(readFileSync(updatesFile)));
  const listed = Object.values(document.list());
  const readyAtMs = performance.timeOrigin + performance.now();
  const expected = new Array(items).fill(0);
  for (let index = 0; index < updates; index++) {
    const { retryCount } = fieldsOf(index);
    if (retryCount !== undefined) expected[(index * STRIDE) % items] = retryCount;
  }
  const sum = (/** @type {number[]} */ all) => all.reduce((total, each) => total + each, 0);
  process.send?.({
    readyAtMs,
    items: listed.length,
    retries: sum(listed.map(({ retryCount }) => retryCount)),
    expectedRetries: sum(expected),
    memoryBytes: process.memoryUsage.rss(),
  });
}

/** @param {number} index */
function firstFields(index) {
  return { stage: "1_backlog", name: `Story number ${index}`, agent: null, retryCount: 0, blocked: false };
}

/**
 * The same as the updates of pawl's board (pawl.js, itemWrites).
 *
 * @param {number} index
 * @returns {{stage?: string, agent?: string, retryCount?: number, blocked?: boolean}}
 */
function fieldsOf(index) {
  switch (index % 4) {
    case 0:
      return { stage: `${1 + (index % 5)}_stage` };
    case 1:
      return { agent: `agent-${index % 50}` };
    case 2:
      return { retryCount: index % 10 };
    default:
      return { blocked: index % 8 === 3 };
  }
}

/**
 * @param {number} file
 * @param {Uint8Array} update
 */
function append(file, update) {
  const bytes = Buffer.allocUnsafe(LENGTH_BYTES + update.length);
  bytes.writeUInt32LE(update.length);
  bytes.set(update, LENGTH_BYTES);
  writeSync(file, bytes);
}

/** @param {Buffer} bytes */
function updatesOf(bytes) {
  const all = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    at += LENGTH_BYTES;
    all.push(bytes.subarray(at, at + length));
    at += length;
  }
  return all;
}

/** @param {Uint8Array[]} stored @returns {Document} */
function automerge(stored) {
  const A = library;
  let document = A.init();
  if (stored.length > 0) document = A.loadIncremental(document, Buffer.concat(stored));
  else {
    document = A.change(document, (/** @type {any} */ draft) => {
      draft.items = {};
    });
  }
  let first = A.getLastLocalChange(document);
  return {
    set(id, fields) {
      document = A.change(document, (/** @type {any} */ draft) => {
        if (draft.items[id] === undefined) draft.items[id] = {};
        Object.assign(draft.items[id], fields);
      });
      const change = A.getLastLocalChange(document);
      // The change that made the table of items goes before the first of them.
      const update = first === undefined ? change : Buffer.concat([first, change]);
      first = undefined;
      return update;
    },
    snapshot: () => A.save(document),
    list: () => A.toJS(document).items,
  };
}

/** @param {Uint8Array[]} stored @returns {Document} */
function yjs(stored) {
  const Y = library;
  const document = new Y.Doc();
  document.transact(() => {
    for (const update of stored) Y.applyUpdate(document, update);
  });
  const table = document.getMap("items");
  /** @type {Uint8Array} */
  let update = new Uint8Array();
  document.on("update", (/** @type {Uint8Array} */ made) => {
    update = made;
  });
  return {
    set(id, fields) {
      document.transact(() => {
        let item = table.get(id);
        if (item === undefined) {
          item = new Y.Map();
          table.set(id, item);
        }
        for (const [field, value] of Object.entries(fields)) item.set(field, value);
      });
      return update;
    },
    snapshot: () => Y.encodeStateAsUpdate(document),
    list: () => table.toJSON(),
  };
}

/** @param {Uint8Array[]} stored @returns {Document} */
function loro(stored) {
  const { LoroDoc, LoroMap } = library;
  const document = new LoroDoc();
  if (stored.length > 0) document.importBatch(stored);
  const table = document.getMap("items");
  let version = document.version();
  return {
    set(id, fields) {
      const item = table.get(id) ?? table.setContainer(id, new LoroMap());
      for (const [field, value] of Object.entries(fields)) item.set(field, value);
      document.commit();
      const update = document.export({ mode: "update", from: version });
      version = document.version();
      return update;
    },
    snapshot: () => document.export({ mode: "snapshot" }),
    list: () => table.toJSON(),
  };
}

// @ts-check
/** The process of transfer.js: `transfer-worker.js SOCKET BYTES`. */
import { Buffer } from "node:buffer";
import { once } from "node:events";
import net from "node:net";

/** As much of the params as fits into a request, in whole groups of base64. */
const PIECE_BYTES = 510 * 1024;
/** Requests under way: the next piece is there when the daemon has done with the one before. */
const DEPTH = 2;
const RECORD = '{"frame":12345,"layers":["sky","harbour"],"origin":[0.5,-1.25e2],"lit":true,"note":"äöü €"},';
/** Of the text at the end of the params: more than a record, and not much more. */
const MAX_END_BYTES = 256;
const NEWLINE = 0x0a;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const QUOTE = 0x22;

const [socketPath = "", bytes = ""] = process.argv.slice(2);
const text = paramsOf(Number(bytes));
const socket = net.connect(socketPath);
await once(socket, "connect");
/** @type {Buffer[]} */
let received = [];
let onAnswer = () => {};
socket.on("data", (/** @type {Buffer} */ chunk) => {
  received.push(chunk);
  for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, at + 1)) onAnswer();
});
process.send?.("connected");

const { commandId } = await upload();
await readBack(commandId);

async function upload() {
  await once(process, "message");
  const announced = { deployment: "d", command: "render", upload: { sizeBytes: text.length } };
  const [created] = await exchange([line("command.create", announced)]).then(answers);
  const uploads = offsets().map((offset) => {
    const piece = text.subarray(offset, offset + PIECE_BYTES);
    const final = offset + piece.length === text.length;
    return line("command.upload", {
      commandId: created.commandId,
      offset,
      chunk: piece.toString("base64"),
      final,
    });
  });
  await timed(uploads);
  if (answers().at(-1).state !== "PENDING") throw new Error("the upload is not complete");
  process.send?.("checked");
  return created;
}

/** @param {string} commandId */
async function readBack(commandId) {
  await once(process, "message");
  await timed(offsets().map((offset) => line("command.params", { commandId, offset, length: PIECE_BYTES })));
  const pieces = answers().map(({ chunk }) => Buffer.from(chunk, "base64"));
  if (!Buffer.concat(pieces).equals(text)) throw new Error("what was read is not what was uploaded");
  process.send?.("checked");
}

/**
 * Says that all is prepared, sends the requests when told to, and waits to be told that the time is over.
 *
 * @param {Buffer[]} requests
 */
async function timed(requests) {
  process.send?.("ready");
  await once(process, "message");
  await exchange(requests);
  const over = once(process, "message");
  process.send?.("done");
  await over;
}

/** Sends requests, `DEPTH` at a time, and resolves when all are answered. @param {Buffer[]} requests */
function exchange(requests) {
  received = [];
  return new Promise((resolve) => {
    let sent = 0;
    let answered = 0;
    const send = () => {
      if (sent < requests.length) socket.write(/** @type {Buffer} */ (requests[sent++]));
    };
    onAnswer = () => {
      answered += 1;
      if (answered === requests.length) resolve(undefined);
      else send();
    };
    for (let i = 0; i < DEPTH; i++) send();
  });
}

/** The results of the last exchange. @returns {any[]} */
function answers() {
  /** @type {any[]} */
  const results = [];
  const all = Buffer.concat(received);
  for (let at = 0; at < all.length; ) {
    const end = all.indexOf(NEWLINE, at);
    const { result, error } = JSON.parse(all.toString("utf8", at, end));
    if (error !== undefined) throw new Error(error.message);
    results.push(result);
    at = end + 1;
  }
  return results;
}

function offsets() {
  return Array.from({ length: Math.ceil(text.length / PIECE_BYTES) }, (_, index) => index * PIECE_BYTES);
}

/** @param {string} method @param {object} params */
function line(method, params) {
  return Buffer.from(`${JSON.stringify({ jsonrpc: "2.0", id: 1, method, params })}\n`);
}

/**
 * A JSON text of exactly so many bytes: an array of records, and a text that takes what is left.
 *
 * @param {number} length
 */
function paramsOf(length) {
  const records = Math.floor((length - MAX_END_BYTES) / Buffer.byteLength(RECORD));
  const end = 1 + records * Buffer.byteLength(RECORD);
  const params = Buffer.alloc(length, "x");
  params.fill(RECORD, 1, end);
  params[0] = OPEN_BRACKET;
  params[end] = params[length - 2] = QUOTE;
  params[length - 1] = CLOSE_BRACKET;
  return params;
}

// A process that takes numbers over the raw socket, each after the answer to the one before, and prints what
// it was answered as a JSON array.
//
//   node next.js SOCKET TYPE COUNT [--short] [--stubborn] [--once]
//
// COUNT numbers, or as many as it gets until its standard input ends if COUNT is 0.
// --short     a connection for each number
// --stubborn  connects again when the daemon goes away, and asks anew
// --once      gives each number a requestId and repeats it until it is answered
import { connect } from "node:net";

const [path, type, count] = process.argv.slice(2);
const options = new Set(process.argv.slice(5));
const wanted = Number(count) || Number.POSITIVE_INFINITY;

const numbers = [];
let over = false;
if (wanted === Number.POSITIVE_INFINITY) {
  process.stdin.resume().once("end", () => {
    over = true;
  });
}

let connection;
for (let call = 1; numbers.length < wanted && !over; call += 1) {
  const params = options.has("--once") ? { type, requestId: `${process.pid}/${call}` } : { type };
  const seq = await take(params);
  if (seq !== undefined) numbers.push(seq);
}
connection?.socket.destroy();
process.stdout.write(`${JSON.stringify(numbers)}\n`, () => process.exit());

/** The number that a call got; undefined if the daemon went away before it said. */
async function take(params) {
  for (;;) {
    try {
      connection ??= await open();
      const { result, error } = await connection.ask({
        jsonrpc: "2.0",
        id: 1,
        method: "sequence.next",
        params,
      });
      if (options.has("--short")) {
        connection.socket.destroy();
        connection = undefined;
      }
      if (result !== undefined) return result.seq;
      if (error.data.kind !== "unavailable" || !options.has("--stubborn")) throw new Error(error.message);
    } catch (error) {
      connection = undefined;
      if (!options.has("--stubborn")) throw error;
      if (over) return undefined;
      if (!options.has("--once")) return undefined;
    }
  }
}

async function open() {
  for (;;) {
    const socket = connect(path);
    const connected = await new Promise((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    if (connected) return talk(socket);
    if (!options.has("--stubborn") || over) throw new Error(`nobody answers on ${path}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function talk(socket) {
  let [pending, text] = [undefined, ""];
  socket.setEncoding("utf8");
  socket.on("error", () => {});
  socket.once("close", () => pending?.reject(new Error("connection lost")));
  socket.on("data", (chunk) => {
    text += chunk;
    if (!text.endsWith("\n")) return;
    pending.resolve(JSON.parse(text));
    text = "";
  });
  const ask = (request) =>
    new Promise((resolve, reject) => {
      pending = { resolve, reject };
      if (socket.destroyed) return reject(new Error("connection lost"));
      socket.write(`${JSON.stringify(request)}\n`);
    });
  return { socket, ask };
}

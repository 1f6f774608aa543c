// @ts-check
/** Answers each line of JSON on the socket that is its argument as pawld answers sequence.next, from memory. */
import net from "node:net";

/** @type {Map<string, number>} */
const counters = new Map();

const server = net.createServer((socket) => {
  let unfinished = "";
  socket.setEncoding("utf8");
  socket.on("data", (/** @type {string} */ text) => {
    const lines = (unfinished + text).split("\n");
    unfinished = /** @type {string} */ (lines.pop());
    let answers = "";
    for (const line of lines) {
      const { id, params } = JSON.parse(line);
      const seq = (counters.get(params.type) ?? 0) + 1;
      counters.set(params.type, seq);
      answers += `${JSON.stringify({ jsonrpc: "2.0", id, result: { seq } })}\n`;
    }
    if (answers !== "") socket.write(answers);
  });
  // A client that has gone is no reason to end.
  socket.on("error", () => {});
});
server.listen(process.argv[2]);

// A process that creates commands over the raw socket, one whenever it is told to: each line of its standard input
// is the params of a command.create, and each line that it prints the reply to that. It waits a moment of its own
// before each, so that two such processes meet in every order.
//
//   node create.js SOCKET MOST_PAUSE_MICROSECONDS
import { connect } from "node:net";
import { createInterface } from "node:readline";

const [path, mostPause] = process.argv.slice(2);
const socket = connect(path);
socket.pipe(process.stdout);
socket.once("connect", () => process.stdout.write("ready\n"));
for await (const line of createInterface({ input: process.stdin })) {
  const end = performance.now() + (Math.random() * Number(mostPause)) / 1000;
  while (performance.now() < end);
  socket.write(`{"jsonrpc":"2.0","id":1,"method":"command.create","params":${line}}\n`);
}
socket.end();

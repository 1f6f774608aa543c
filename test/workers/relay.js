// What comes in by lines goes to the socket, and what the socket answers goes out: a process that is told what to ask.
//
//   node relay.js SOCKET
import { connect } from "node:net";

const socket = connect({ path: process.argv[2] });
process.stdin.pipe(socket).pipe(process.stdout);

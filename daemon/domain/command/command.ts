/**
 * Commands: requests that a deployment answers once, whenever one of its receivers is there (spec: command.md).
 *
 * The files, in reading order: state (the table of states), row (a command, its view, its moves from state to state),
 * counts, deployment, create, upload, take (ready commands go to a receiver), lease and push (the two ways to receive),
 * delivery (its id, and whether it is held), answer, cancel, ends (by time, with a connection, over a restart),
 * retention, reads. This room imports from store/, turns/, grants/, identity/ and json/, and from no other noun.
 */
import { respond } from "./answer.js";
import { cancel } from "./cancel.js";
import { create } from "./create.js";
import { lease, release, renew } from "./lease.js";
import { get, list, response, wait } from "./reads.js";
import { params, upload } from "./upload.js";

/** Which operation performs which method, but for `command.serve`, which is about a connection. */
export const commandHandlers = {
  "command.create": create,
  "command.upload": upload,
  "command.lease": lease,
  "command.renew": renew,
  "command.release": release,
  "command.respond": respond,
  "command.get": get,
  "command.params": params,
  "command.response": response,
  "command.wait": wait,
  "command.list": list,
  "command.cancel": cancel,
};

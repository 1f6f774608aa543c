/**
 * Commands: requests that a deployment answers once, whenever one of its receivers is there (spec: command.md).
 *
 * The files, in reading order: state (the table of states), row (a command, its view, its moves from state to state),
 * incarnation (a receiver that named itself), create, piece, upload, take (ready commands go to a receiver), lease and
 * push (the two ways to receive), delivery (its id, and whether it is held), answer, answer-pieces, cancel, ends (by
 * time, with a connection, over a restart), incarnation-ends, retention, reads.
 */
import type { Handler, HandlersOf } from "../../turns/handler.js";
import { respond } from "./answer.js";
import { answerInPieces } from "./answer-pieces.js";
import { cancel } from "./cancel.js";
import { create } from "./create.js";
import { lease, progress, release, renew } from "./lease.js";
import { get, list, response, wait } from "./reads.js";
import { params, upload } from "./upload.js";

/**
 * Which operation performs which method.
 *
 * @param serve is about connections, of which nothing is known here.
 */
export function commandHandlers(serve: Handler<"command.serve">): HandlersOf<"command"> {
  return {
    create,
    upload,
    lease,
    renew,
    progress,
    release,
    respond,
    answer: answerInPieces,
    get,
    params,
    response,
    wait,
    list,
    cancel,
    serve,
  };
}

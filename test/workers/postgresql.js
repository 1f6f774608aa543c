// Sessions with PostgreSQL for a thread that waits: each request is answered by one message, then the flag is set.
import { workerData } from "node:worker_threads";
import { Session } from "../../daemon/dist/shared/session.js";
import { createTables } from "../../daemon/dist/shared/tables.js";

const { port, flag } = workerData;
/** By their numbers. */
const sessions = new Map();
/** Statements by their text: a session knows them by identity. */
const statements = new Map();

const ACTIONS = {
  async open(number, url) {
    const session = await Session.open(url, { application: "pawl test" });
    sessions.set(number, session);
    await createTables(session, { dryRun: false });
  },
  begin: (number, toRead) => sessions.get(number).begin([], { toRead }).then(nothing),
  commit: (number) => sessions.get(number).commit().then(nothing),
  rollback: (number) => sessions.get(number).rollback(),
  script: (number, text) => sessions.get(number).script(text),
  query: (number, text, values) => sessions.get(number).query(text, values),
  execute(number, { sql, params, single, key }) {
    if (!statements.has(sql)) statements.set(sql, { sql });
    return sessions.get(number).drive(oneStep({ statement: statements.get(sql), params, single, key }));
  },
  async close(number) {
    await sessions.get(number)?.close();
    sessions.delete(number);
  },
};

function* oneStep(step) {
  return yield step;
}

function nothing() {
  return undefined;
}

port.on("message", async ([action, ...args]) => {
  let answer;
  try {
    answer = { value: await ACTIONS[action](...args) };
  } catch (error) {
    answer = { error: { message: error.message, code: error.code, detail: error.detail } };
  }
  port.postMessage(answer);
  Atomics.store(flag, 0, 1);
  Atomics.notify(flag, 0);
});

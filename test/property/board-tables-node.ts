// A node of the board as its tables are, without a daemon: operations of the daemon, and a client of them as
// `pawl sync` has it.
import { METHODS } from "@pawl/protocol";
import { PawlError } from "@pawl/protocol/errors";
import Database from "better-sqlite3";
import type { PawlClient } from "../../client/dist/index.js";
import { boardHandlers } from "../../daemon/dist/domain/board/pipeline.js";
import { peerHandlers } from "../../daemon/dist/domain/peer/peer.js";
import { encode } from "../../daemon/dist/json/raw-json.js";
import { connect } from "../../daemon/dist/store/connection.js";
import { migrate } from "../../daemon/dist/store/migrate.js";
import { SqliteStore } from "../../daemon/dist/store/sqlite.js";
import { type Env, Unfinished, Wait } from "../../daemon/dist/turns/operation.js";
import { envOf } from "../domain/drive.js";
import { type Author, BOARD } from "./board-author.js";

const ignored = () => {};
const effects = envOf({
  wake: ignored,
  deadline: ignored,
  count: ignored,
  log: ignored,
  tell: ignored,
  notify: ignored,
} as unknown as Partial<Env>) as unknown as Env["effects"];

type Handlers = Record<string, (params: unknown, env: Env) => Generator>;

export class TablesNode {
  readonly author: Author;
  database: Database.Database;
  #store: SqliteStore;
  /** Its wall clock, which may be wrong. */
  wallMs = 0;
  /** Steps of the last call. */
  steps = 0;
  #randoms = 0;

  constructor(author: Author) {
    this.author = author;
    this.database = connect(":memory:");
    migrate(this.database);
    this.#store = new SqliteStore(this.database);
  }

  /** Performs a method to its end, each step in a transaction of its own, with its defaults filled in. */
  call(name: string, params: object = {}): unknown {
    const method = METHODS.find((each) => each.name === name);
    if (method === undefined) throw new Error(`no ${name}`);
    const [noun, verb] = name.split(".") as [string, string];
    const handlers = (noun === "peer" ? peerHandlers : boardHandlers) as unknown as Handlers;
    const handler = handlers[verb] as Handlers[string];
    const parsed = method.params.parse(params);
    this.steps = 0;
    let outcome: unknown = this.#step(handler(parsed, this.env));
    while (outcome instanceof Unfinished) outcome = this.#step(outcome.goOn(this.env) as Generator);
    if (outcome instanceof PawlError || outcome instanceof Wait) throw outcome;
    // As it travels: what was read in steps is written.
    const answer: unknown = JSON.parse(encode(outcome));
    expectShape(method.result, answer, name);
    return answer;
  }

  #step(operation: Generator): unknown {
    this.steps += 1;
    this.#store.begin();
    try {
      const outcome = this.#store.perform(operation as never);
      if (!(outcome instanceof PawlError)) this.#store.commit();
      return outcome;
    } finally {
      this.#store.rollback();
    }
  }

  get env(): Env {
    const { author, wallMs } = this;
    return envOf({
      now: wallMs,
      wallMs,
      identity: () => ({ author: author.id, privateKey: author.privateKey, databaseFile: "memory" }),
      sign: () => "a".repeat(43),
      random: (bytes: number) => {
        this.#randoms += 1;
        return Buffer.from(
          `${this.author.id.slice(0, 8)}${this.#randoms}`.padEnd(bytes, "r").slice(0, bytes),
        );
      },
      mayGoOn: true,
      mayWait: false,
      effects,
    });
  }

  trust(...authors: Author[]): void {
    for (const { id } of authors) {
      if (id !== this.author.id) this.call("peer.trust", { author: id, name: id.slice(0, 6), board: BOARD });
    }
  }

  /** As much of a client as a sync of boards needs. */
  get client(): PawlClient {
    const nounOf = (noun: string) =>
      new Proxy(
        {},
        {
          get: (_, verb) => async (params: object) => this.call(`${noun}.${String(verb)}`, params),
        },
      );
    return {
      pipeline: nounOf("pipeline"),
      peer: nounOf("peer"),
      daemon: { info: async () => ({ limits: { maxMessageBytes: 1_048_576 } }) },
    } as unknown as PawlClient;
  }

  /** The bodies of the changes that are here, by their hashes. */
  bodies(): Map<string, string> {
    const rows = this.database.prepare("SELECT change_id, body FROM pawl_change").all();
    return new Map((rows as { change_id: string; body: string }[]).map((row) => [row.change_id, row.body]));
  }

  /** The places of the changes that were taken away here. */
  cut(): { id: string; author: string; incarnation: string; seq: number; wall: number }[] {
    const rows = this.database
      .prepare("SELECT author, incarnation, seq, changes FROM pawl_cut JOIN pawl_branch USING (branch)")
      .all() as { author: string; incarnation: string; seq: number; changes: Buffer }[];
    return rows.flatMap(({ author, incarnation, seq, changes }) =>
      Array.from({ length: changes.length / 44 }, (_, index) => ({
        id: changes.subarray(index * 44, index * 44 + 32).toString("hex"),
        author,
        incarnation,
        seq: seq - changes.length / 44 + 1 + index,
        wall: Number(changes.readBigUInt64BE(index * 44 + 32)),
      })),
    );
  }

  copy(): Buffer {
    return this.database.serialize();
  }

  restore(copy: Buffer): void {
    this.database.close();
    this.database = new Database(copy);
    this.#store = new SqliteStore(this.database);
  }

  close(): void {
    this.database.close();
  }
}

function expectShape(schema: { parse(value: unknown): unknown }, value: unknown, name: string): void {
  try {
    schema.parse(value);
  } catch (error) {
    throw new Error(`${name} answered ${JSON.stringify(value)}`, { cause: error });
  }
}

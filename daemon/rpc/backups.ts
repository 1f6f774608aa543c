import type { Params, Result } from "@pawl/protocol";
import { refuse } from "@pawl/protocol/errors";
import type { Logger } from "pino";
import type { Progress } from "../store/backup.js";
import type { OpenDatabase } from "../store/open-database.js";
import type { Sender } from "../turns/handler.js";

/** Makes backups for those who may have the whole database, one at a time. */
export class Backups {
  readonly #database: OpenDatabase;
  readonly #log: Logger;
  readonly #notify: (connection: number, progress: Progress) => void;
  #underWay: Promise<unknown> | undefined;
  #stopping = false;

  /** @param notify tells a connection how far its backup is. */
  constructor(database: OpenDatabase, log: Logger, notify: (connection: number, progress: Progress) => void) {
    this.#database = database;
    this.#log = log;
    this.#notify = notify;
  }

  /** Refuses like `backUp`, and with `forbidden` for other users and `unavailable` while one is being made. */
  async make(params: Params<"daemon.backup">, sender: Sender): Promise<Result<"daemon.backup">> {
    if (!mayHaveAll(sender)) {
      throw refuse(
        "forbidden",
        `A backup is the whole database, so only the user of the daemon and root may have one, not uid ${sender.caller.uid ?? "unknown"}.`,
        { uid: sender.caller.uid },
      );
    }
    if (this.#underWay !== undefined) {
      throw refuse("unavailable", "Another backup is being made. Ask again when it is done.", {
        reason: "backup_under_way",
      });
    }
    const { connection } = sender.caller;
    const underWay = this.#database.backUp(params.path, {
      onProgress: (progress) => this.#notify(connection, progress),
      givenUp: () => this.#stopping || sender.closed,
    });
    this.#underWay = underWay.catch(() => {});
    try {
      const done = await underWay;
      this.#log.info({ ...done, caller: sender.caller }, "backup made");
      return done;
    } finally {
      this.#underWay = undefined;
    }
  }

  /** Gives up the one that is being made, and resolves once nothing of it is left. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#underWay;
  }
}

/** A socket for readers may be open to users who are not to see everything. */
function mayHaveAll({ caller: { uid }, readOnly }: Sender): boolean {
  return uid === null ? !readOnly : uid === 0 || uid === process.getuid?.();
}

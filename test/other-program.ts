// Another program that has the database open: a real process with an SQLite of its own.
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { onTestFinished } from "vitest";

/** Executes each line of its input, and says "done" or what went wrong. */
const SHELL = `
const Database = require("better-sqlite3");
const database = new Database(process.argv[1], { timeout: 60_000 });
require("node:readline").createInterface({ input: process.stdin }).on("line", (sql) => {
  try {
    const statements = sql.startsWith("SELECT") ? [database.prepare(sql).iterate()] : [];
    if (statements.length > 0) { globalThis.open = statements[0]; globalThis.open.next(); }
    else database.exec(sql);
    console.log("done");
  } catch (error) {
    console.log(error.message);
  }
});`;

export class OtherProgram {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  /** @param path of the database that it opens. */
  constructor(path: string) {
    this.#child = spawn(process.execPath, ["-e", SHELL, path], {
      cwd: join(import.meta.dirname, "../daemon"),
      stdio: ["pipe", "pipe", "inherit"],
    });
    const lines: Interface = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream });
    this.#answers = lines[Symbol.asyncIterator]();
    onTestFinished(() => void this.#child.kill("SIGKILL"));
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** Has it execute SQL, and resolves once it has. */
  async execute(sql: string): Promise<void> {
    this.#child.stdin?.write(`${sql}\n`);
    const { value } = await this.#answers.next();
    if (value !== "done") throw new Error(`${sql}: ${value}`);
  }

  /** Ends it at once, as a crash does, and resolves when the kernel has taken its locks. */
  async kill(): Promise<void> {
    const closed = new Promise((resolve) => this.#child.once("close", resolve));
    this.#child.kill("SIGKILL");
    await closed;
  }
}

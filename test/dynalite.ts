// A DynamoDB of one's own: dynalite in a process of its own, with its data in a directory that outlives it.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";
import { type AtEnd, privateDirectory } from "./daemon.js";
import { accepts, freePorts } from "./ports.js";

const PROGRAM = createRequire(import.meta.url).resolve("dynalite/cli.js");

/** Credentials for the SDK to sign with; dynalite takes any. */
export const AWS_ENV = {
  AWS_ACCESS_KEY_ID: "test",
  AWS_SECRET_ACCESS_KEY: "test",
  AWS_REGION: "eu-central-1",
};

/** Has the SDK sign in this process; other files of tests may come after it. */
export function signHere(atEnd: AtEnd): void {
  for (const [name, value] of Object.entries(AWS_ENV)) {
    const before = process.env[name];
    process.env[name] = value;
    atEnd(() => {
      if (before === undefined) delete process.env[name];
      else process.env[name] = before;
    });
  }
}

export class Dynalite {
  readonly port: number;
  readonly #path: string;
  #child: ChildProcess | undefined;

  private constructor(port: number, path: string) {
    this.port = port;
    this.#path = path;
  }

  static async start(atEnd: AtEnd): Promise<Dynalite> {
    const [port] = await freePorts(1);
    const dynalite = new Dynalite(port as number, join(privateDirectory(atEnd), "tables"));
    atEnd(() => dynalite.stop());
    await dynalite.start();
    return dynalite;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async start(): Promise<void> {
    const args = [
      "--port",
      String(this.port),
      "--host",
      "127.0.0.1",
      "--path",
      this.#path,
      "--createTableMs",
      "0",
    ];
    const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ["ignore", "ignore", "inherit"] });
    this.#child = child;
    await accepts(this.port, () => child.exitCode ?? child.signalCode);
  }

  /** Kills it; what it answered is on disk. */
  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}

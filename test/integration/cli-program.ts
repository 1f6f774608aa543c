// The `pawl` program as a shell runs it: arguments and input in; output, errors and exit code out. `pawl` runs it in
// the process of the test where it can, which takes milliseconds; `startPawl` in one of its own, for what is about the
// process: signals, pipes, how it ends.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { Readable, Writable } from "node:stream";
import { onTestFinished } from "vitest";
import { run } from "../../client/dist/cli/main.js";
import { type AtEnd, PAWL } from "../daemon.js";

export interface RunOptions {
  /** Standard input; none by default. */
  input?: string | Buffer;
  env?: Record<string, string | undefined>;
  cwd?: string;
  /** The socket of the daemon, given as `--socket`. */
  socket?: string;
  /** Of a test that runs beside others. */
  atEnd?: AtEnd;
}

export interface Ran {
  code: number | NodeJS.Signals;
  stdout: string;
  stderr: string;
}

/** A running `pawl`. */
export class PawlProcess {
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";
  /** Resolves with what it printed, once it has ended. */
  readonly ended: Promise<Ran>;
  #wanted: { matches: () => boolean; resolve: () => void }[] = [];

  constructor(child: ChildProcess, atEnd: AtEnd = onTestFinished) {
    this.child = child;
    const look = (): void => {
      this.#wanted = this.#wanted.filter(({ matches, resolve }) => {
        if (!matches()) return true;
        resolve();
        return false;
      });
    };
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
      look();
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
      look();
    });
    this.ended = new Promise((resolve) => {
      child.once("close", (code, signal) => {
        resolve({ code: signal ?? code ?? -1, stdout: this.stdout, stderr: this.stderr });
      });
    });
    atEnd(() => void child.kill("SIGKILL"));
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** Resolves once its standard output matches. */
  printed(pattern: RegExp): Promise<void> {
    return this.#until(() => pattern.test(this.stdout));
  }

  /** Resolves once its standard error matches. */
  complained(pattern: RegExp): Promise<void> {
    return this.#until(() => pattern.test(this.stderr));
  }

  /** Sends a signal and resolves with how it ended. */
  end(signal: NodeJS.Signals): Promise<Ran> {
    this.child.kill(signal);
    return this.ended;
  }

  #until(matches: () => boolean): Promise<void> {
    if (matches()) return Promise.resolve();
    return new Promise((resolve) => this.#wanted.push({ matches, resolve }));
  }
}

/** The environment of the tests but for what it says of sockets and colours, and what is added to it. */
function environment(added: RunOptions["env"]): Record<string, string | undefined> {
  const { PAWL_SOCKET: _, PAWL_INSTANCE: __, FORCE_COLOR: ___, NO_COLOR: ____, ...rest } = process.env;
  return { ...rest, ...added };
}

function withSocket(args: readonly string[], { socket }: RunOptions): string[] {
  return [...(socket === undefined ? [] : ["--socket", socket]), ...args];
}

/** Starts `pawl`. */
export function startPawl(args: readonly string[], options: RunOptions = {}): PawlProcess {
  const child = spawn(process.execPath, [PAWL, ...withSocket(args, options)], {
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    env: environment(options.env),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  child.stdin?.on("error", () => {});
  child.stdin?.end(options.input);
  return new PawlProcess(child, options.atEnd);
}

/**
 * Runs `pawl` to its end: in this process, on streams that are no terminal, unless it starts a program or is in a
 * directory of its own. To start a process takes longer than all the rest.
 */
export async function pawl(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  if (args.includes("--") || options.cwd !== undefined) return await startPawl(args, options).ended;
  const [stdout, stderr] = [new Sink(), new Sink()];
  const stdin = Readable.from(options.input === undefined ? [] : [Buffer.from(options.input)]);
  const code = await run(withSocket(args, options), { stdin, stdout, stderr, env: environment(options.env) });
  return { code, stdout: stdout.text, stderr: stderr.text };
}

/** Keeps what is written to it. */
class Sink extends Writable {
  text = "";

  override _write(chunk: Buffer, _encoding: BufferEncoding, written: () => void): void {
    this.text += chunk.toString("utf8");
    written();
  }
}

/** How a program is run by somebody else, who need not have a name on this machine. */
const AS_OTHER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] as const;
export const OTHER_UID = 65534;
const LOOK = ["test", "-r", PAWL, "-a", "-x", process.execPath];
/** Only root can be somebody else, and that one has to be able to read this directory. */
export const mayBeOther = spawnSync(AS_OTHER[0], [...AS_OTHER.slice(1), ...LOOK], { cwd: "/" }).status === 0;

/** Runs `pawl` as somebody else. */
export function pawlAsOther(
  args: readonly string[],
  socket: string,
): { status: number | null; stderr: string } {
  return spawnSync(AS_OTHER[0], [...AS_OTHER.slice(1), process.execPath, PAWL, "--socket", socket, ...args], {
    encoding: "utf8",
    cwd: "/",
  });
}

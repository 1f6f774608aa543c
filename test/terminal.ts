// A program on a terminal of its own, as a person sits at it: a pty, which python3 has.
import { spawn, spawnSync } from "node:child_process";
import { PawlProcess } from "./integration/cli-program.js";
import { PYTHON } from "./python.js";

/** Makes the terminal, and passes on what is typed and shown. SIGUSR1 makes the window 120 by 50 characters large. */
const TERMINAL = `
import fcntl, os, pty, select, signal, struct, sys, termios
pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
def resize(*_):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
signal.signal(signal.SIGUSR1, resize)
print("pid", pid, flush=True)
typed = [0]
while True:
    ready, _, _ = select.select([master, *typed], [], [])
    if master in ready:
        try:
            shown = os.read(master, 65536)
        except OSError:
            break
        os.write(1, shown)
    if 0 in ready:
        text = os.read(0, 65536)
        if text:
            os.write(master, text)
        else:
            typed = []
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256)
`;

const hasPty = [...PYTHON.slice(1), "-c", "import pty, os; os.waitstatus_to_exitcode(0)"];
export const hasTerminals = spawnSync(PYTHON[0], hasPty).status === 0;
if (!hasTerminals) console.warn("python3 with ptys is missing: what concerns terminals is not tested.");

/** A terminal, with its text and the keys typed there. It ends when nobody has the terminal open any more. */
export class TerminalProcess extends PawlProcess {
  type(text: string): void {
    this.child.stdin?.write(text);
  }

  /** Makes the window 120 by 50 characters large. */
  resize(): void {
    this.child.kill("SIGUSR1");
  }

  /** The pid of the program on the terminal, once it is there. */
  async programPid(): Promise<number> {
    await this.printed(/^pid \d+/);
    return Number(/^pid (\d+)/.exec(this.stdout)?.[1]);
  }
}

/** Runs a program on a terminal. */
export function onTerminal(command: readonly string[], env: Record<string, string> = {}): TerminalProcess {
  return new TerminalProcess(
    spawn(PYTHON[0], [...PYTHON.slice(1), "-c", TERMINAL, ...command], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...env },
    }),
  );
}

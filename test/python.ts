// How programs in Python are started that need nothing but its standard library.
import { spawnSync } from "node:child_process";

// What is called python3 may be a script that looks for the interpreter, at each of hundreds of starts.
const { stdout } = spawnSync("python3", ["-c", "import sys; print(sys.executable, end='')"], {
  encoding: "utf8",
});

/** The interpreter; where there is none, the name that is not found. */
const program = stdout || "python3";

/** The command of a script or of `-c`. What is installed beside Python is not looked for: a third of a start. */
export const PYTHON: readonly [string, ...string[]] = [program, "-I", "-S"];

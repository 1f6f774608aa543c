import { accessSync, constants, existsSync, realpathSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { daemonPackage } from "../../connection/daemon-program.js";
import { PROGRAM, requirePage } from "../packages.js";

/** A drop-in that lies beside the units. */
export const NETWORK_CONF = "network.conf";

/** The command line of the daemon of this installation, with absolute paths, and the directory of its units. */
export function installation(): { command: string[]; units: string } {
  const directory = daemonPackage() ?? packageOnPath();
  // In a clone they lie beside the packages.
  const units = [join(directory, "systemd"), join(directory, "../systemd")].find((path) =>
    existsSync(join(path, NETWORK_CONF)),
  );
  if (units === undefined) {
    throw new PawlError(
      "not_found",
      `The installation in ${directory} has no units of systemd. Install pawl again.`,
      {
        what: "units",
      },
    );
  }
  return { command: [process.execPath, realpathSync(join(directory, "bin/pawld.js"))], units };
}

/** The command line of this `pawl`, which serves the page. Rejects with `not_found` where there is no page. */
export function webCommand(): string[] {
  requirePage();
  return [process.execPath, realpathSync(PROGRAM)];
}

/** The package whose `pawld` a shell would run. */
function packageOnPath(): string {
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const program = join(directory, "pawld");
    if (isExecutable(program)) return dirname(dirname(realpathSync(program)));
  }
  throw new PawlError(
    "not_found",
    "There is no pawld here to be run. Install @pawl/daemon beside @pawl/client.",
    {
      what: "pawld",
    },
  );
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

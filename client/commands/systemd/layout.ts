import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_INSTANCE } from "@pawl/protocol/paths";
import type { Terminal } from "../../terminal/output.js";

/** The places and names of the units of an instance. */
export interface UnitLayout {
  readonly instance: string;
  readonly user: boolean;
  /** The root of an image, or undefined for this machine. */
  readonly image: string | undefined;
  readonly unitDirectory: string;
  /** Units as they are enabled: `pawld.socket`, or `pawld@ci.socket`. */
  readonly service: string;
  readonly sockets: { readonly main: string; readonly readOnly: string };
  /** Files of units: those, or the templates that instances are made from. */
  readonly unitFiles: readonly string[];
  /** The unit of the page and its file, which are there only if they are asked for. */
  readonly web: { readonly unit: string; readonly file: string };
  readonly socket: string;
}

export function layoutOf(
  instance: string,
  user: boolean,
  root: string | undefined,
  env: Terminal["env"],
): UnitLayout {
  const runtime = user ? env.XDG_RUNTIME_DIR : "/run";
  if (!runtime) {
    throw new PawlError(
      "invalid_state",
      "XDG_RUNTIME_DIR is not set, so there is no systemd of this user to be found. Log in by a session of its own, not by su.",
    );
  }
  const [at, file] = instance === DEFAULT_INSTANCE ? ["", ""] : [`@${instance}`, "@"];
  const image = root === undefined ? undefined : resolve(root);
  return {
    instance,
    user,
    image,
    unitDirectory: user
      ? join(env.XDG_CONFIG_HOME || join(homedir(), ".config"), "systemd/user")
      : join(image ?? "/", "etc/systemd/system"),
    service: `pawld${at}.service`,
    sockets: { main: `pawld${at}.socket`, readOnly: `pawld-read-only${at}.socket` },
    unitFiles: [`pawld${file}.service`, `pawld${file}.socket`, `pawld-read-only${file}.socket`],
    web: { unit: `pawl-web${at}.service`, file: `pawl-web${file}.service` },
    socket: join(runtime, "pawl", `${instance}.sock`),
  };
}

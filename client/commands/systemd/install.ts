import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { DEFAULT_INSTANCE } from "@pawl/protocol/paths";
import { connect } from "../../connect.js";
import type { UnitLayout } from "./layout.js";
import { installation, NETWORK_CONF, webCommand } from "./package.js";
import { isActive, run, scopeOf } from "./systemctl.js";

/** The first line of every file that is ours to replace and to remove. */
const MARK =
  "# Written by `pawl service install`; `pawl service uninstall` removes it. Changes belong into a drop-in.";
/** The programs of the units as they are shipped, which become those of this installation. */
const UNIT_PROGRAM = "/usr/bin/pawld";
const WEB_UNIT_PROGRAM = "/usr/bin/pawl";
/** Directories that the daemon of the machine cannot look into: it runs as a user of its own, without homes. */
const CLOSED_DIRECTORIES = ["/home", "/root", "/run/user"];
const UNIT_MODE = 0o644;

export async function install(
  steps: Steps,
  layout: UnitLayout,
  { network, web }: { network: boolean; web: boolean },
): Promise<void> {
  const { image, service, sockets, socket, unitDirectory, unitFiles, user } = layout;
  const { command, units } = installation();
  const page = web ? webCommand() : undefined;
  if (!user && image === undefined) checkOpen([...command, ...(page ?? [])]);
  const listens = image === undefined && isActive(layout, sockets.main);
  if (image === undefined && !listens) await checkFree(socket);

  const program = command.map(quoted).join(" ");
  const unitText = (path: string): string =>
    readFileSync(join(units, path), "utf8").replace(`ExecStart=${UNIT_PROGRAM}`, `ExecStart=${program}`);
  let changed = false;
  for (const file of unitFiles) {
    const text = unitText(join(user ? "user" : "system", file));
    changed = steps.write(join(unitDirectory, file), text) || changed;
  }
  if (network) changed = steps.write(networkConf(layout), unitText(NETWORK_CONF)) || changed;
  if (!user) {
    for (const kind of ["sysusers", "tmpfiles"]) {
      const path = join(image ?? "/", "etc", `${kind}.d`, "pawl.conf");
      steps.write(path, unitText(join(`${kind}.d`, "pawl.conf")));
      if (image === undefined)
        steps.run(`systemd-${kind}`, ...(kind === "tmpfiles" ? ["--create"] : []), path);
    }
  }
  const former = readIfThere(join(unitDirectory, layout.web.file));
  if (page !== undefined) {
    const text = readFileSync(join(units, user ? "user" : "system", layout.web.file), "utf8");
    const ours = text.replace(`ExecStart=${WEB_UNIT_PROGRAM} `, `ExecStart=${page.map(quoted).join(" ")} `);
    steps.write(join(unitDirectory, layout.web.file), ours);
  }
  const wanted = page === undefined ? [] : [layout.web.unit];
  if (image !== undefined) return steps.systemctl("enable", sockets.main, ...wanted);
  steps.systemctl("daemon-reload");
  steps.systemctl("enable", "--now", sockets.main);
  // On the same files it runs another version after an upgrade.
  if (listens || changed) steps.systemctl("try-restart", service);
  if (page === undefined)
    return former === undefined ? undefined : steps.systemctl("try-restart", layout.web.unit);
  // systemd makes no socket for a service that runs. Who connects meanwhile waits in the other one.
  if (!isActive(layout, sockets.readOnly)) steps.systemctl("stop", service);
  steps.systemctl("enable", "--now", sockets.readOnly, layout.web.unit);
  steps.systemctl("restart", layout.web.unit);
}

export function uninstall(steps: Steps, layout: UnitLayout): void {
  const { image, service, sockets, unitDirectory, unitFiles, user } = layout;
  if (!unitFiles.some((file) => existsSync(join(unitDirectory, file)))) {
    throw new PawlError("not_found", `There are no units of pawl in ${unitDirectory} for this instance.`, {
      what: "units",
    });
  }
  const webFile = join(unitDirectory, layout.web.file);
  const both = [sockets.main, sockets.readOnly, ...(existsSync(webFile) ? [layout.web.unit] : [])];
  if (image === undefined) steps.systemctl("disable", "--now", ...both);
  else steps.systemctl("disable", ...both);
  if (image === undefined) steps.systemctl("stop", service);
  steps.remove(networkConf(layout), true);
  // Other instances are made from the same templates, and all of them have the same user.
  if (layout.instance === DEFAULT_INSTANCE || otherInstances(layout).length === 0) {
    for (const file of [...unitFiles, layout.web.file]) steps.remove(join(unitDirectory, file));
  }
  const left = readdirSync(unitDirectory).some((name) => /^pawld@?\.service$/.test(name));
  if (!user && !left) {
    for (const kind of ["sysusers", "tmpfiles"])
      steps.remove(join(image ?? "/", "etc", `${kind}.d`, "pawl.conf"));
  }
  if (image === undefined) steps.systemctl("daemon-reload");
}

/** Does what is asked for, and remembers it in words. */
export class Steps {
  readonly done: string[] = [];
  readonly #layout: UnitLayout;

  constructor(layout: UnitLayout) {
    this.#layout = layout;
  }

  /** Writes a file of ours. Refuses with `conflict` when somebody else's is there. Returns whether it changed. */
  write(path: string, text: string): boolean {
    const content = `${MARK}\n${text}`;
    const former = readIfThere(path);
    if (former === content) {
      chmodSync(path, UNIT_MODE);
      return false;
    }
    if (former !== undefined && !isOurs(former)) {
      throw new PawlError(
        "conflict",
        `${path} was not written by pawl. Move it away, or put what differs into ${path}.d/ and remove it.`,
        { path },
      );
    }
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content, { mode: UNIT_MODE });
    // One that was there keeps its mode.
    chmodSync(path, UNIT_MODE);
    this.done.push(`${former === undefined ? "wrote" : "replaced"} ${path}`);
    return true;
  }

  /** Removes a file of ours if it is there, and its directory if that was for it alone. */
  remove(path: string, directoryToo = false): void {
    const former = readIfThere(path);
    if (former === undefined || !isOurs(former)) return;
    rmSync(path);
    this.done.push(`removed ${path}`);
    if (directoryToo && readdirSync(dirname(path)).length === 0) rmdirSync(dirname(path));
  }

  /** Runs systemctl. A step that may have nothing to do is not taken then, so a failure is trouble. */
  systemctl(...args: string[]): void {
    run("systemctl", [...scopeOf(this.#layout), ...args]);
    this.done.push(`systemctl ${[...scopeOf(this.#layout), ...args].join(" ")}`);
  }

  run(program: string, ...args: string[]): void {
    run(program, args);
    this.done.push([program, ...args].join(" "));
  }
}

/** The daemon of the machine runs as a user that sees no homes. */
function checkOpen(paths: readonly string[]): void {
  for (const path of paths) {
    const closed = CLOSED_DIRECTORIES.find((directory) => path.startsWith(`${directory}/`));
    if (closed === undefined) continue;
    throw new PawlError(
      "invalid_state",
      `The daemon of the machine cannot run ${path}: it does not see ${closed}. Install Node and pawl where everybody may read them, such as /usr/local, or use --user.`,
      { path },
    );
  }
}

/** systemd would take the path away from a daemon that was started by hand, and then fail on its database. */
async function checkFree(socket: string): Promise<void> {
  let pid: number;
  try {
    const client = await connect({ socket });
    pid = (await client.daemon.info({})).pid;
    client.close();
  } catch {
    return;
  }
  throw new PawlError(
    "invalid_state",
    `A daemon with pid ${pid} serves ${socket} that systemd did not start. Stop it first: kill ${pid}`,
    { pid },
  );
}

/** A word of a command line in a unit (systemd.service(5)). */
function quoted(word: string): string {
  const escaped = word.replaceAll("%", "%%").replaceAll("$", "$$$$");
  return /^[\w./@:+%$-]+$/.test(escaped) ? escaped : `"${escaped.replaceAll(/["\\]/g, "\\$&")}"`;
}

function networkConf({ service, unitDirectory }: UnitLayout): string {
  return join(unitDirectory, `${service}.d`, NETWORK_CONF);
}

/** Instances of the templates whose sockets are enabled still. */
function otherInstances({ unitDirectory }: UnitLayout): string[] {
  const wanted = join(unitDirectory, "sockets.target.wants");
  return existsSync(wanted) ? readdirSync(wanted).filter((name) => /^pawld(-read-only)?@/.test(name)) : [];
}

function readIfThere(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

function isOurs(text: string): boolean {
  return text.startsWith(MARK);
}

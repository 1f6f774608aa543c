import { spawnSync } from "node:child_process";
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { PawlError } from "@pawl/protocol/errors";
import { checkInstance, DEFAULT_INSTANCE } from "@pawl/protocol/paths";
import { connect } from "../connect.js";
import { daemonPackage } from "../connection/start-daemon.js";
import { command, UsageError } from "../terminal/command.js";
import { styled } from "../terminal/output.js";

export const SERVICE_ACTIONS = ["install", "status", "uninstall"] as const;

/** What every file begins with that is ours to replace and to remove. */
const MARK =
  "# Written by `pawl service install`; `pawl service uninstall` removes it. Changes belong into a drop-in.";
/** What the units call the daemon, and what becomes the paths of this installation. */
const UNIT_PROGRAM = "/usr/bin/pawld";
const NETWORK_CONF = "network.conf";
/** Directories that the daemon of the system cannot look into: it runs as a user of its own, without homes. */
const CLOSED_DIRECTORIES = ["/home", "/root", "/run/user"];
const EXIT_REFUSED = 1;
const UNIT_MODE = 0o644;

const OPTIONS = {
  user: { type: "flag", describe: "For this user, by the user's own systemd, instead of for the machine" },
  network: { type: "flag", describe: "Let the daemon reach the network, as remote lease providers need it" },
  root: {
    type: "text",
    value: "DIR",
    describe: "Work on the file system of an image instead of this machine; nothing is started",
  },
} as const;

export const systemd = command<"<action>">()({
  options: OPTIONS,
  details:
    "ACTION is install, status or uninstall. install puts the units in place with the paths of this installation and enables the socket: the daemon starts when somebody connects, and while it is restarted clients wait in the socket. Doing it again after an upgrade restarts the daemon on the new version. uninstall undoes it, and leaves the data and the options where they are. status ends with 1 when the socket is not listening; with --root, when it is not enabled in the image.",
  examples: [
    ["pawl service install --user", "A daemon for yourself, on the default socket"],
    ["sudo pawl service install", "One for the machine, at /run/pawl/default.sock, for the group pawl"],
    ["pawl service install --user --instance ci", "A second one, with a state of its own"],
    ["pawl service status --user", "Whether it listens and runs, and what it is doing"],
  ],
  async run({ action, user, network, root }, { output, instance }) {
    if (!(SERVICE_ACTIONS as readonly string[]).includes(action)) {
      throw new UsageError(`ACTION is install, status or uninstall, not ${JSON.stringify(action)}.`);
    }
    if (user && root !== undefined)
      throw new UsageError("--root is for units of the machine, without --user.");
    if (network && action !== "install") throw new UsageError("--network belongs to install.");
    const name = instance ?? (process.env.PAWL_INSTANCE || DEFAULT_INSTANCE);
    checkInstance(name);
    const place = placeOf(name, user, root);
    if (action === "status") {
      const status = statusOf(place);
      output.result(status, () => describeStatus(status));
      const { active, enabled } = status.socket;
      return (place.image === undefined ? active : enabled) ? undefined : EXIT_REFUSED;
    }
    checkRights(place);
    // Whatever the umask of who installs: the units of the machine are for everybody to read, as all others there.
    process.umask(0o022);
    const steps = new Steps(place);
    if (action === "install") await install(steps, place, network);
    else uninstall(steps, place);
    const { done } = steps;
    output.result({ instance: name, user, socket: place.socket, done }, () => [
      ...done,
      ...nextSteps(action, place),
    ]);
    return undefined;
  },
});

/** Where the units of an instance belong, and how they are called. */
interface Place {
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
  readonly socket: string;
}

function placeOf(instance: string, user: boolean, root: string | undefined): Place {
  const runtime = user ? process.env.XDG_RUNTIME_DIR : "/run";
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
      ? join(process.env.XDG_CONFIG_HOME || join(homedir(), ".config"), "systemd/user")
      : join(image ?? "/", "etc/systemd/system"),
    service: `pawld${at}.service`,
    sockets: { main: `pawld${at}.socket`, readOnly: `pawld-read-only${at}.socket` },
    unitFiles: [`pawld${file}.service`, `pawld${file}.socket`, `pawld-read-only${file}.socket`],
    socket: join(runtime, "pawl", `${instance}.sock`),
  };
}

function checkRights({ user, image }: Place): void {
  if (user || image !== undefined || process.getuid?.() === 0) return;
  throw new PawlError(
    "forbidden",
    "The units of the machine are root's to change. Run this with sudo, or for yourself with --user.",
  );
}

/** Does what is asked for, and remembers it in words. */
class Steps {
  readonly done: string[] = [];
  readonly #place: Place;

  constructor(place: Place) {
    this.#place = place;
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

  /** Runs systemctl. What may fail because there is nothing to do is asked first, so a failure is trouble. */
  systemctl(...args: string[]): void {
    run("systemctl", [...where(this.#place), ...args]);
    this.done.push(`systemctl ${[...where(this.#place), ...args].join(" ")}`);
  }

  run(program: string, ...args: string[]): void {
    run(program, args);
    this.done.push([program, ...args].join(" "));
  }
}

async function install(steps: Steps, place: Place, network: boolean): Promise<void> {
  const { image, service, sockets, socket, unitDirectory, unitFiles, user } = place;
  const { command, units } = installation();
  if (!user && image === undefined) checkOpen(command);
  const listens = image === undefined && isActive(place, sockets.main);
  if (image === undefined && !listens) await checkFree(socket);

  const program = command.map(quoted).join(" ");
  const unitText = (path: string): string =>
    readFileSync(join(units, path), "utf8").replace(`ExecStart=${UNIT_PROGRAM}`, `ExecStart=${program}`);
  let changed = false;
  for (const file of unitFiles) {
    const text = unitText(join(user ? "user" : "system", file));
    changed = steps.write(join(unitDirectory, file), text) || changed;
  }
  if (network) changed = steps.write(networkConf(place), unitText(NETWORK_CONF)) || changed;
  if (!user) {
    for (const kind of ["sysusers", "tmpfiles"]) {
      const path = join(image ?? "/", "etc", `${kind}.d`, "pawl.conf");
      steps.write(path, unitText(join(`${kind}.d`, "pawl.conf")));
      if (image === undefined)
        steps.run(`systemd-${kind}`, ...(kind === "tmpfiles" ? ["--create"] : []), path);
    }
  }
  if (image !== undefined) return steps.systemctl("enable", sockets.main);
  steps.systemctl("daemon-reload");
  steps.systemctl("enable", "--now", sockets.main);
  // On the same files it runs another version after an upgrade.
  if (listens || changed) steps.systemctl("try-restart", service);
}

function uninstall(steps: Steps, place: Place): void {
  const { image, service, sockets, unitDirectory, unitFiles, user } = place;
  if (!unitFiles.some((file) => existsSync(join(unitDirectory, file)))) {
    throw new PawlError("not_found", `There are no units of pawl in ${unitDirectory} for this instance.`, {
      what: "units",
    });
  }
  const both = [sockets.main, sockets.readOnly];
  if (image === undefined) steps.systemctl("disable", "--now", ...both);
  else steps.systemctl("disable", ...both);
  if (image === undefined) steps.systemctl("stop", service);
  steps.remove(networkConf(place), true);
  // Other instances are made from the same templates, and all of them have the same user.
  if (place.instance === DEFAULT_INSTANCE || otherInstances(place).length === 0) {
    for (const file of unitFiles) steps.remove(join(unitDirectory, file));
  }
  const left = readdirSync(unitDirectory).some((name) => /^pawld@?\.service$/.test(name));
  if (!user && !left) {
    for (const kind of ["sysusers", "tmpfiles"])
      steps.remove(join(image ?? "/", "etc", `${kind}.d`, "pawl.conf"));
  }
  if (image === undefined) steps.systemctl("daemon-reload");
}

function nextSteps(action: string, { image, instance, socket, user }: Place): string[] {
  if (image !== undefined) return [];
  if (action === "uninstall") {
    return [`The database and the options of ${instance} are where they were.`];
  }
  return [
    `pawld listens on ${socket}, and starts when somebody connects.`,
    user
      ? "It ends with your last session, unless `loginctl enable-linger` was called."
      : `Whoever is to use it needs the group pawl, and PAWL_SOCKET=${socket} in the environment.`,
  ];
}

/** What runs the daemon of this installation, with absolute paths, and where its units are. */
function installation(): { command: string[]; units: string } {
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

function networkConf({ service, unitDirectory }: Place): string {
  return join(unitDirectory, `${service}.d`, NETWORK_CONF);
}

/** Instances of the templates whose sockets are enabled still. */
function otherInstances({ unitDirectory }: Place): string[] {
  const wanted = join(unitDirectory, "sockets.target.wants");
  return existsSync(wanted) ? readdirSync(wanted).filter((name) => /^pawld(-read-only)?@/.test(name)) : [];
}

function readIfThere(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

function isOurs(text: string): boolean {
  return text.startsWith(MARK);
}

function where({ image, user }: Place): string[] {
  return image === undefined ? (user ? ["--user"] : []) : [`--root=${image}`];
}

function isActive(place: Place, unit: string): boolean {
  return show(place, unit, ["ActiveState"]).ActiveState === "active";
}

/** Properties of a unit as systemd has them; of one that is not there too. */
function show<P extends string>(place: Place, unit: string, properties: readonly P[]): Record<P, string> {
  const args = [...where(place), "show", unit, `--property=${properties.join(",")}`];
  const found = run("systemctl", args)
    .split("\n")
    .flatMap((line) => {
      const at = line.indexOf("=");
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1)]];
    });
  return Object.fromEntries([...properties.map((name) => [name, ""]), ...found]) as Record<P, string>;
}

/** Runs a program of systemd and returns what it printed. Rejects with `unavailable` and its own words. */
function run(program: string, args: readonly string[], expected = [0]): string {
  const { error, status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8" });
  if (error !== undefined) {
    throw new PawlError(
      "unavailable",
      `${program} cannot be run: ${error.message}. Is there a systemd here?`,
    );
  }
  if (status === null || !expected.includes(status)) {
    const said = stderr.trim().replaceAll(/\s*\n\s*/g, " ");
    throw new PawlError("unavailable", `${program} ${args.join(" ")} failed (${status}): ${said}`);
  }
  return stdout;
}

/** The state of units in an image, in place of systemd's words. */
const NOT_RUNNING = "in an image";

interface UnitStatus {
  readonly unit: string;
  readonly installed: boolean;
  readonly active: boolean;
  /** In systemd's words: active (running). */
  readonly state: string;
}

interface Status {
  readonly instance: string;
  readonly user: boolean;
  readonly socket: UnitStatus & { readonly path: string; readonly enabled: boolean };
  readonly readOnlySocket: UnitStatus & { readonly enabled: boolean };
  readonly service: UnitStatus & {
    readonly pid: number | null;
    readonly status: string;
    readonly since: string;
    readonly restarts: number;
  };
}

/** Of an image, where nothing runs: what lies there, and what will be started when it is booted. */
function statusOfImage(place: Place): Status {
  const { instance, user, service, sockets, socket: path, unitDirectory, unitFiles } = place;
  const base = (unit: string): UnitStatus & { enabled: boolean } => {
    const file = unitFiles.find((name) => name.replace("@.", `@${instance}.`) === unit) as string;
    const installed = existsSync(join(unitDirectory, file));
    const enabled = installed && isEnabled(place, unit);
    return { unit, installed, active: false, state: NOT_RUNNING, enabled };
  };
  const { enabled: _, ...daemon } = base(service);
  return {
    instance,
    user,
    socket: { ...base(sockets.main), path },
    readOnlySocket: base(sockets.readOnly),
    service: { ...daemon, pid: null, status: "", since: "", restarts: 0 },
  };
}

function isEnabled(place: Place, unit: string): boolean {
  // It ends with 1 or 4 for a unit that is not.
  return run("systemctl", [...where(place), "is-enabled", unit], [0, 1, 4]).trim() === "enabled";
}

function statusOf(place: Place): Status {
  if (place.image !== undefined) return statusOfImage(place);
  const base = (
    unit: string,
    found: Record<"LoadState" | "ActiveState" | "SubState", string>,
  ): UnitStatus => ({
    unit,
    installed: found.LoadState === "loaded",
    active: found.ActiveState === "active",
    state: `${found.ActiveState} (${found.SubState})`,
  });
  const socketOf = (unit: string): UnitStatus & { enabled: boolean } => {
    const found = show(place, unit, ["LoadState", "ActiveState", "SubState", "UnitFileState"]);
    return { ...base(unit, found), enabled: found.UnitFileState === "enabled" };
  };
  const service = show(place, place.service, [
    "LoadState",
    "ActiveState",
    "SubState",
    "MainPID",
    "StatusText",
    "ActiveEnterTimestamp",
    "NRestarts",
  ]);
  return {
    instance: place.instance,
    user: place.user,
    socket: { ...socketOf(place.sockets.main), path: place.socket },
    readOnlySocket: socketOf(place.sockets.readOnly),
    service: {
      ...base(place.service, service),
      pid: Number(service.MainPID) || null,
      status: service.StatusText,
      since: service.ActiveEnterTimestamp,
      restarts: Number(service.NRestarts),
    },
  };
}

function* describeStatus({ socket, readOnlySocket, service }: Status): Generator<string> {
  if (!socket.installed) {
    yield `${socket.unit} is not installed; see \`pawl service install --help\`.`;
    return;
  }
  const line = (unit: UnitStatus, text: string): string =>
    `${styled(unit.active ? "green" : "dim", unit.active ? "●" : "○")} ${unit.unit}  ${unit.state}${text}`;
  const enabled = (each: { enabled: boolean }): string => (each.enabled ? ", enabled" : ", not enabled");
  yield line(socket, `${enabled(socket)}: ${socket.path}`);
  if (readOnlySocket.active || readOnlySocket.enabled) yield line(readOnlySocket, enabled(readOnlySocket));
  yield line(service, service.pid === null ? "" : `, pid ${service.pid}, since ${service.since}`);
  if (service.active && service.status !== "") yield `  ${service.status}`;
  if (service.restarts > 0) yield `  restarted ${service.restarts} times since it was last started`;
}

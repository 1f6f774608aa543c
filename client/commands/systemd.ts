import { PawlError } from "@pawl/protocol/errors";
import { checkInstance } from "@pawl/protocol/paths";
import { defaultInstance } from "../connection/socket-path.js";
import { command, UsageError } from "../terminal/command.js";
import type { UnitLayout } from "./systemd/layout.js";

const ACTIONS: readonly string[] = ["install", "status", "uninstall"];
const EXIT_REFUSED = 1;

const OPTIONS = {
  user: { type: "flag", describe: "For this user, by the user's own systemd, instead of for the machine" },
  network: { type: "flag", describe: "Let the daemon reach the network, as remote lease providers need it" },
  web: { type: "flag", describe: "Have the page of `pawl web` served as well, for looking only" },
  root: {
    type: "text",
    value: "DIR",
    describe: "Work on the file system of an image instead of this machine; nothing is started",
  },
} as const;

const systemd = command({
  args: "<action>",
  summary: "Have systemd run the daemon: install, status or uninstall",
  options: OPTIONS,
  details:
    "ACTION is install, status or uninstall. install puts the units in place with the paths of this installation and enables the socket: the daemon starts when somebody connects, and while it is restarted clients wait in the socket. Doing it again after an upgrade restarts the daemon on the new version. uninstall undoes it, and leaves the data and the options where they are. status ends with 1 when the socket is not listening; with --root, when it is not enabled in the image.",
  examples: [
    ["pawl service install --user", "A daemon for yourself, on the default socket"],
    ["sudo pawl service install", "One for the machine, at /run/pawl/default.sock, for the group pawl"],
    ["pawl service install --user --instance ci", "A second one, with a state of its own"],
    ["pawl service install --user --web", "With the page; journalctl --user -u pawl-web has its address"],
    ["pawl service status --user", "Whether it listens and runs, and what it is doing"],
  ],
  words: { action: ACTIONS },
  async run({ action, user, network, web, root }, { output, instance, env }) {
    if (!ACTIONS.includes(action)) {
      throw new UsageError(`ACTION is install, status or uninstall, not ${JSON.stringify(action)}.`);
    }
    if (user && root !== undefined) {
      throw new UsageError("--root is for units of the machine, without --user.");
    }
    if (network && action !== "install") throw new UsageError("--network belongs to install.");
    if (web && action !== "install") throw new UsageError("--web belongs to install.");
    const name = instance ?? defaultInstance(env);
    checkInstance(name);
    // Loaded here, and not for the help of all commands.
    const { layoutOf } = await import("./systemd/layout.js");
    const layout = layoutOf(name, user, root, env);
    if (action === "status") {
      const { describeStatus, statusOf } = await import("./systemd/status.js");
      const status = statusOf(layout);
      output.result(status, () => describeStatus(status, output));
      const { active, enabled } = status.socket;
      return (layout.image === undefined ? active : enabled) ? undefined : EXIT_REFUSED;
    }
    checkRights(layout);
    // Whatever the umask of who installs: the units of the machine are for everybody to read, as all others there.
    process.umask(0o022);
    const { install, Steps, uninstall } = await import("./systemd/install.js");
    const steps = new Steps(layout);
    if (action === "install") await install(steps, layout, { network, web });
    else uninstall(steps, layout);
    const { done } = steps;
    output.result({ instance: name, user, socket: layout.socket, done }, () => [
      ...done,
      ...nextSteps(action, layout),
    ]);
    return undefined;
  },
});

function checkRights({ user, image }: UnitLayout): void {
  if (user || image !== undefined || process.getuid?.() === 0) return;
  throw new PawlError(
    "forbidden",
    "The units of the machine are root's to change. Run this with sudo, or for yourself with --user.",
  );
}

function nextSteps(action: string, { image, instance, socket, user }: UnitLayout): string[] {
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

export const commands = { service: systemd };

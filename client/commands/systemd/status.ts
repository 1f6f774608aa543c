import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Output } from "../../terminal/output.js";
import type { UnitLayout } from "./layout.js";
import { run, scopeOf, show } from "./systemctl.js";

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

/** The status in an image, where nothing runs: which units lie there, and which are started when it is booted. */
function statusOfImage(layout: UnitLayout): Status {
  const { instance, user, service, sockets, socket: path, unitDirectory, unitFiles } = layout;
  const base = (unit: string): UnitStatus & { enabled: boolean } => {
    const file = unitFiles.find((name) => name.replace("@.", `@${instance}.`) === unit) as string;
    const installed = existsSync(join(unitDirectory, file));
    const enabled = installed && isEnabled(layout, unit);
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

function isEnabled(layout: UnitLayout, unit: string): boolean {
  // systemctl ends with 1 or 4 for a unit that is not enabled.
  return run("systemctl", [...scopeOf(layout), "is-enabled", unit], [0, 1, 4]).trim() === "enabled";
}

export function statusOf(layout: UnitLayout): Status {
  if (layout.image !== undefined) return statusOfImage(layout);
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
    const found = show(layout, unit, ["LoadState", "ActiveState", "SubState", "UnitFileState"]);
    return { ...base(unit, found), enabled: found.UnitFileState === "enabled" };
  };
  const service = show(layout, layout.service, [
    "LoadState",
    "ActiveState",
    "SubState",
    "MainPID",
    "StatusText",
    "ActiveEnterTimestamp",
    "NRestarts",
  ]);
  return {
    instance: layout.instance,
    user: layout.user,
    socket: { ...socketOf(layout.sockets.main), path: layout.socket },
    readOnlySocket: socketOf(layout.sockets.readOnly),
    service: {
      ...base(layout.service, service),
      pid: Number(service.MainPID) || null,
      status: service.StatusText,
      since: service.ActiveEnterTimestamp,
      restarts: Number(service.NRestarts),
    },
  };
}

export function* describeStatus(
  { socket, readOnlySocket, service }: Status,
  output: Output,
): Generator<string> {
  if (!socket.installed) {
    yield `${socket.unit} is not installed; see \`pawl service install --help\`.`;
    return;
  }
  const line = (unit: UnitStatus, text: string): string =>
    `${output.styled(unit.active ? "green" : "dim", unit.active ? "●" : "○")} ${unit.unit}  ${unit.state}${text}`;
  const enabled = (each: { enabled: boolean }): string => (each.enabled ? ", enabled" : ", not enabled");
  yield line(socket, `${enabled(socket)}: ${socket.path}`);
  if (readOnlySocket.active || readOnlySocket.enabled) yield line(readOnlySocket, enabled(readOnlySocket));
  yield line(service, service.pid === null ? "" : `, pid ${service.pid}, since ${service.since}`);
  if (service.active && service.status !== "") yield `  ${service.status}`;
  if (service.restarts > 0) yield `  restarted ${service.restarts} times since it was last started`;
}

// The process of a peer, by the kernel's own name for it and, where there is none, by its pid and its start.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { constants } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { PawlError } from "@pawl/protocol/errors";
import { expect, onTestFinished, test } from "vitest";
import { type Kernel, openKernel } from "../../daemon/dist/socket/kernel.js";
import { Processes } from "../../daemon/dist/socket/pidfds.js";
import type { HolderProcess } from "../../daemon/dist/turns/holder-process.js";
import { privateDirectory } from "../daemon.js";

const kernel = (await openKernel()) as Kernel;
/** A kernel before Linux 6.5. */
const before: Kernel = { ...kernel, namesPeers: false, openPeer: (_, pid) => kernel.openProcess(pid) };
const CONNECT =
  "import socket,sys,time; time.sleep(float(sys.argv[2])); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()";

interface Connected {
  readonly socket: Socket;
  readonly child: ChildProcess;
  readonly caller: { connection: number; pid: number; uid: number; gid: number };
}

/** A process that connects, so long after its start. */
async function connected(processes: Processes, afterS = 0.05): Promise<Connected> {
  const path = join(privateDirectory(), "sock");
  const server: Server = createServer().listen(path);
  await once(server, "listening");
  const child = spawn("python3", ["-c", CONNECT, path, String(afterS)], {
    stdio: ["pipe", "inherit", "inherit"],
  });
  const [socket] = (await once(server, "connection")) as [Socket];
  processes.accepted(socket);
  onTestFinished(() => {
    child.kill("SIGKILL");
    socket.destroy();
    server.close();
  });
  return { socket, child, caller: { connection: 1, pid: child.pid as number, uid: 0, gid: 0 } };
}

function named(found: HolderProcess | PawlError): HolderProcess {
  if (found instanceof PawlError) throw found;
  return found;
}

test.each([
  ["names its peers", kernel],
  ["does not name them", before],
])("of a kernel that %s: it is known, found again and ended, and no other in its place", async (_, calls) => {
  const processes = new Processes(calls, "boot", "file");
  const { socket, child, caller } = await connected(processes);
  const process = named(processes.of(socket, caller));
  expect(process).toMatchObject({ pid: child.pid, boot: "boot", databaseFile: "file" });
  expect(processes.of(socket, caller)).toEqual(process);

  // Another life of the daemon finds it by what is kept of it.
  const later = new Processes(calls, "boot", "file");
  const found = later.find(process);
  if (typeof found === "string") throw new Error(found);
  expect(later.find({ ...process, startTime: process.startTime - 1 })).toBe("ended");
  expect(later.find({ ...process, pidfdInode: "1" })).toBe("ended");
  expect(later.find({ ...process, boot: "another" })).toBe("ended");
  expect(later.find({ ...process, pidNamespace: "1" })).toBe("unknown");
  expect(later.find({ ...process, databaseFile: "another" })).toBe("unknown");
  expect(new Processes(calls, "another", "file").find(process)).toBe("ended");
  expect(new Processes(undefined, "boot", "file").find(process)).toBe("unknown");

  const ended = new Promise<void>((resolve) => found.onEnd(resolve));
  expect(found.signal("SIGKILL")).toBe(0);
  await ended;
  expect(found.signal("SIGTERM")).not.toBe(0);
  while (processes.find(process) !== "ended") await sleep(1);
  // The connection is open here still, and its process has ended.
  expect(processes.of(socket, caller)).toMatchObject({ kind: "invalid_params" });
});

test("a process of which the kernel gives no descriptor has ended only if the kernel says so", async () => {
  const { socket, child, caller } = await connected(new Processes(kernel, "boot", "file"));
  const process = named(new Processes(kernel, "boot", "file").of(socket, caller));
  const found = (calls: Partial<Kernel>, sought = process) =>
    new Processes({ ...kernel, ...calls }, "boot", "file").find(sought);
  const failing = (errno: number): Partial<Kernel> => ({ openProcess: () => -errno });
  const { EINVAL, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSYS, EPERM, ESRCH } = constants.errno;
  for (const errno of [ESRCH, EINVAL, ENOENT]) expect(found(failing(errno))).toBe("ended");
  for (const errno of [EMFILE, ENFILE, ENOMEM]) expect(found(failing(errno))).toBe("later");
  // Its pid has gone to another one, or is nobody's.
  const other = { ...process, startTime: process.startTime - 1 };
  for (const errno of [ENOSYS, EPERM]) {
    expect(found(failing(errno))).toBe("later");
    expect(found(failing(errno), other)).toBe("unknown");
  }
  // There is one descriptor, and none to read /proc.
  expect(found({ freeDescriptor: () => undefined })).toBe("later");
  child.kill("SIGKILL");
  await once(child, "exit");
  for (const errno of [ENOSYS, EPERM]) expect(found(failing(errno))).toBe("unknown");
});

test("a kernel that names no peers cannot tell one that was started just before it connected", async () => {
  const processes = new Processes(before, "boot", "file");
  const { socket, caller } = await connected(processes);
  // As if it had been accepted before its process was started: that is another one's pid then.
  const strict = new Processes(before, "boot", "file");
  expect(strict.of(socket, caller)).toMatchObject({
    kind: "invalid_params",
    message: expect.stringContaining("connect again"),
  });
  named(processes.of(socket, caller));
});

test("a daemon without the kernel's calls, or a pid, knows no process", async () => {
  const processes = new Processes(kernel, "boot", "file");
  const { socket, caller } = await connected(processes);
  for (const refused of [
    processes.of(socket, { ...caller, pid: null }),
    new Processes(undefined, "boot", "file").of(socket, caller),
    new Processes(kernel, null, "file").of(socket, caller),
    new Processes({ ...kernel, openPeer: () => -3 }, "boot", "file").of(socket, caller),
  ])
    expect(refused).toMatchObject({ kind: "invalid_params", details: { issues: [{ path: "/onLoss" }] } });
  const short: Partial<Kernel>[] = [23, 24, 12].map((errno) => ({ openPeer: () => -errno }));
  for (const calls of [...short, { freeDescriptor: () => undefined }]) {
    const none = new Processes({ ...kernel, ...calls }, "boot", "file");
    expect(none.of(socket, caller)).toMatchObject({
      kind: "unavailable",
      details: { reason: "no_descriptors" },
    });
  }
});

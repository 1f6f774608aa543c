import { fstatSync, readlinkSync, statSync } from "node:fs";
import type { Socket } from "node:net";
import { constants as system, uptime } from "node:os";
import { type PawlError, refuse, shown } from "@pawl/protocol/errors";
import { type HolderProcess, notKnown } from "../turns/holder-process.js";
import type { Caller } from "../turns/operation.js";
import type { Kernel } from "./kernel.js";
import { startTicksOf } from "./process-status.js";

/** The unit of start times in /proc: USER_HZ is 100 on all architectures that are known. */
const TICKS_PER_SECOND = 100;
const { EACCES, EINVAL, EMFILE, ENFILE, ENOENT, ENOMEM, EPERM, ESRCH } = system.errno;
/** Of a pid that no process has, or that is a thread's by now. */
const HAS_ENDED: readonly number[] = [ESRCH, EINVAL, ENOENT];
/** Of a lack that may be over soon. */
const IS_SHORT: readonly number[] = [EMFILE, ENFILE, ENOMEM];

/** A process that is known for certain, until it has ended. */
export interface KnownProcess {
  readonly pid: number;
  /** Sends a signal. Returns 0, or the errno. */
  signal(name: NodeJS.Signals): number;
  /** Calls back once it has ended. */
  onEnd(action: () => void): void;
}

type Place = Pick<HolderProcess, "boot" | "pidNamespace" | "databaseFile">;

/**
 * The processes that the daemon may be asked to end. Each is known by a pidfd from when it is asked for until it has
 * ended, so that no signal comes upon another one that has got its pid. Each costs a descriptor for that long.
 */
export class Processes {
  readonly #kernel: Kernel | undefined;
  /** The boot of the machine, the pid namespace and the database: outside of them a pid says nothing. */
  readonly #place: Place | undefined;
  readonly #known = new Map<string, KnownProcess>();
  readonly #ofSockets = new WeakMap<Socket, HolderProcess>();
  /** When sockets were accepted, in ticks since the boot, where the kernel does not name their peers. */
  readonly #accepted = new WeakMap<Socket, number>();

  constructor(kernel: Kernel | undefined, boot: string | null, databaseFile: string) {
    this.#kernel = kernel;
    const pidNamespace = namespaceOfPids();
    if (boot !== null && pidNamespace !== undefined) this.#place = { boot, pidNamespace, databaseFile };
  }

  /** A socket was accepted. */
  accepted(socket: Socket): void {
    if (this.#kernel?.namesPeers === false) this.#accepted.set(socket, uptime() * TICKS_PER_SECOND);
  }

  /** The process that connected, if it is known for certain and may be signalled; otherwise the refusal of `onLoss`. */
  of(socket: Socket, { pid, uid, gid }: Caller): HolderProcess | PawlError {
    const before = this.#ofSockets.get(socket);
    if (before !== undefined) return this.#known.has(keyOf(before)) ? before : hasEnded(before.pid);
    const kernel = this.#kernel;
    if (kernel === undefined || this.#place === undefined)
      return notKnown("the kernel cannot be asked here (no koffi, or no /proc)");
    if (pid === null) return notKnown("it is in another PID namespace, so the daemon has no pid of it");
    const fd = kernel.openPeer(socket, pid);
    if (fd < 0) return refusalOf(-fd, pid);
    // To read about it in /proc takes another one.
    if (kernel.freeDescriptor(fd) === undefined) {
      kernel.close(fd);
      return refusalOf(EMFILE, pid);
    }
    const found = this.#named(fd, pid, socket);
    const refusal =
      "startTime" in found ? refusalOfSignal(kernel.signalProcess(fd, 0), pid, uid, gid) : found;
    if (refusal !== undefined) {
      kernel.close(fd);
      return refusal;
    }
    const process = found as HolderProcess;
    if (this.#known.has(keyOf(process))) kernel.close(fd);
    else if (this.#know(fd, process) === undefined) return notKnown("the kernel does not tell when it ends");
    this.#ofSockets.set(socket, process);
    return process;
  }

  /** The name of the process of a pidfd that a peer is known by. */
  #named(fd: number, pid: number, socket: Socket): HolderProcess | PawlError {
    const startTime = startTicksOf(pid);
    // As long as it has not ended its pid is nobody else's, so what was read is of it.
    if (this.#kernel?.hasEnded(fd) !== false) return hasEnded(pid);
    if (startTime === null) return notKnown(`/proc does not tell when the process ${pid} was started`);
    if (this.#kernel.namesPeers === false && startTime >= Math.floor(this.#accepted.get(socket) ?? 0))
      return notKnown(
        `the process ${pid} was started less than ${1000 / TICKS_PER_SECOND} ms before it connected, so that this kernel cannot tell it from another that got its pid; connect again, or`,
      );
    const pidfdInode = inodeOf(fd);
    return { pid, startTime, pidfdInode, ...(this.#place as Place) };
  }

  /**
   * Finds a process again: one of this life of the daemon by its descriptor, one of an earlier life by its pid, its
   * start time and its inode.
   *
   * @returns `ended` if it has; `unknown` if the daemon cannot tell, because it is in another pid namespace now, or has
   * a copy of the database of then; `later` if there is no descriptor left, or the kernel gives none of a process that
   * goes on, as /proc shows.
   */
  find(sought: HolderProcess): KnownProcess | "ended" | "unknown" | "later" {
    const known = this.#known.get(keyOf(sought));
    if (known !== undefined && this.#isHere(sought)) return known;
    const kernel = this.#kernel;
    if (kernel === undefined || this.#place === undefined) return "unknown";
    const { boot, pidNamespace, databaseFile } = this.#place;
    if (sought.databaseFile !== databaseFile) return "unknown";
    // No process outlives the boot.
    if (sought.boot !== boot) return "ended";
    if (sought.pidNamespace !== pidNamespace) return "unknown";
    const fd = kernel.openProcess(sought.pid);
    if (fd < 0) return withoutDescriptor(-fd, sought);
    // To read about it in /proc takes another one.
    if (kernel.freeDescriptor(fd) === undefined) {
      kernel.close(fd);
      return "later";
    }
    const startTime = startTicksOf(sought.pid);
    const isIt = startTime === sought.startTime && inodeOf(fd) === sought.pidfdInode;
    const isOver = kernel.hasEnded(fd);
    if (isIt && !isOver) return this.#know(fd, sought) ?? "later";
    kernel.close(fd);
    return startTime === null && !isOver ? "unknown" : "ended";
  }

  #isHere({ boot, pidNamespace, databaseFile }: HolderProcess): boolean {
    const here = this.#place;
    return here?.boot === boot && here.pidNamespace === pidNamespace && here.databaseFile === databaseFile;
  }

  /** Keeps the descriptor of a process until that has ended; undefined, and closes it, if it cannot be watched. */
  #know(fd: number, process: HolderProcess): KnownProcess | undefined {
    const kernel = this.#kernel as Kernel;
    const key = keyOf(process);
    const actions: (() => void)[] = [];
    let isOver = false;
    const known: KnownProcess = {
      pid: process.pid,
      signal: (name) => (isOver ? ESRCH : kernel.signalProcess(fd, system.signals[name])),
      onEnd: (action) => {
        if (isOver) action();
        else actions.push(action);
      },
    };
    const isWatched = kernel.hangUps.watchEnd(fd, () => {
      isOver = true;
      this.#known.delete(key);
      kernel.close(fd);
      for (const action of actions.splice(0)) action();
    });
    if (isWatched) this.#known.set(key, known);
    else kernel.close(fd);
    return isWatched ? known : undefined;
  }
}

function keyOf({ pid, startTime, pidfdInode }: HolderProcess): string {
  return `${pid} ${startTime} ${pidfdInode}`;
}

/** What has become of a process of which the kernel gives no descriptor, for whatever reason. */
function withoutDescriptor(errno: number, { pid, startTime }: HolderProcess): "ended" | "unknown" | "later" {
  if (HAS_ENDED.includes(errno)) return "ended";
  return IS_SHORT.includes(errno) || startTicksOf(pid) === startTime ? "later" : "unknown";
}

function inodeOf(fd: number): string {
  return String(fstatSync(fd, { bigint: true }).ino);
}

/** The pid namespace that /proc shows, if it is that of this process. */
function namespaceOfPids(): string | undefined {
  try {
    if (readlinkSync("/proc/self") !== String(process.pid)) return undefined;
    return String(statSync("/proc/self/ns/pid", { bigint: true }).ino);
  } catch {
    return undefined;
  }
}

function hasEnded(pid: number): PawlError {
  return notKnown(`the process ${pid} that did has ended`);
}

/** @param errno of getting a descriptor of the process. */
function refusalOf(errno: number, pid: number): PawlError {
  if (IS_SHORT.includes(errno))
    return refuse(
      "unavailable",
      "The daemon can open no more files now, and needs one for onLoss. Ask again when connections have closed, or raise its limit (LimitNOFILE=).",
      { reason: "no_descriptors" },
    );
  if (HAS_ENDED.includes(errno)) return hasEnded(pid);
  return notKnown(`the kernel gives no descriptor of the process ${pid} (errno ${errno})`);
}

/** @param errno of asking whether the process may be signalled. */
function refusalOfSignal(
  errno: number,
  pid: number,
  uid: number | null,
  gid: number | null,
): PawlError | undefined {
  if (errno === 0) return undefined;
  if (errno === ESRCH) return hasEnded(pid);
  if (errno !== EPERM && errno !== EACCES)
    return notKnown(`the process ${pid} cannot be signalled from here (errno ${errno})`);
  return refuse(
    "forbidden",
    `onLoss: the daemon may not signal the process ${pid} of the user ${shown(uid)}. Leave onLoss out, or ask a daemon that runs as the same user or as root.`,
    { uid, gid },
  );
}

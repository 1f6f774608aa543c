import { createRequire } from "node:module";
import type { Server, Socket } from "node:net";
import { arch, endianness, platform, constants as system } from "node:os";
import { getSystemErrorName } from "node:util";
import type * as koffi from "koffi";

/** A process at the other end of a connection, at the moment it connected. */
export interface Credentials {
  /** Null for a process of another pid namespace, which has no number in ours. */
  readonly pid: number | null;
  readonly uid: number;
  readonly gid: number;
}

/** Calls of the kernel on sockets that Node does not offer. */
export interface Kernel {
  /** The process that connected (SO_PEERCRED, unix(7)); undefined if the call fails. */
  credentials(socket: Socket): Credentials | undefined;
  /** The supplementary groups of who connected (SO_PEERGROUPS, socket(7)); empty if the call fails. */
  groups(socket: Socket): number[];
  readonly hangUps: HangUps;
  /** True if the kernel names the process of a peer by a descriptor (SO_PEERPIDFD, since Linux 6.5). */
  readonly namesPeers: boolean;
  /**
   * A descriptor of the process that connected (pidfd_open(2)), to be closed: where the kernel names it, of no other;
   * elsewhere of the process that has its pid now. An errno, negative, if there is none.
   */
  openPeer(socket: Socket, pid: number): number;
  /** A descriptor of the process that has this pid now, to be closed; an errno, negative, if there is none. */
  openProcess(pid: number): number;
  /** Sends a signal to the process of a descriptor; 0 only asks whether that may be done. Returns 0, or the errno. */
  signalProcess(fd: number, signal: number): number;
  /** True if the process of a descriptor has ended, also if nobody has waited for it yet. */
  hasEnded(fd: number): boolean;
  /**
   * The path at which a descriptor that we were started with listens, `@name` for an abstract one; undefined if it
   * is not a listening stream socket of the Unix family. Programs that we start do not get it from then on.
   */
  takeListening(fd: number): string | undefined;
  /** A stream socket of the Unix family that is bound to a path where nothing is, and does not listen. Throws. */
  bind(path: string): number;
  /** Another descriptor of the same socket; undefined if there is none left. */
  duplicate(fd: number): number | undefined;
  /** The lowest descriptor that is free, found by an open one; undefined if there is none left. */
  freeDescriptor(fd: number): number | undefined;
  close(fd: number): void;
  /**
   * Sends a datagram to a Unix socket, named by its path or by `@name`, without ever waiting. Returns 0, or the
   * errno: EAGAIN when there is no room for it now.
   */
  sendDatagram(address: string, text: string): number;
  /** Takes an exclusive lock on an open file or directory, without ever waiting (flock(2)). Returns 0, or the errno. */
  flock(fd: number): number;
  /** True if a descriptor can be written to at once; a pipe or a socket then takes 4,096 bytes (poll(2)). */
  hasRoom(fd: number): boolean;
  /** Has the C library give freed memory back to the system (malloc_trim(3)), where it has such a call. */
  trim(): void;
  /**
   * Ends the process without anything being run that libraries have left to be run at the end (_exit(2)). On a
   * disk that fails, some of that never returns: koffi itself syncs stdout, which may be a file there.
   */
  exit(code: number): void;
}

// Numbers of the kernel's headers. They are the same on all architectures that koffi has a build for, except
// one; on others nothing is called rather than something else.
const SOL_SOCKET = 1;
const SO_PEERCRED = arch() === "ppc64" ? 21 : 17;
const SO_PEERGROUPS = 59;
const SO_PEERPIDFD = 77;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_DUPFD_CLOEXEC = 1030;
const LOCK_EX = 2;
const LOCK_NB = 4;
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_ONE_SHOT = 2 ** 30;
const KNOWN_ARCHITECTURES = ["x64", "ia32", "arm", "arm64", "riscv64", "loong64", "ppc64"];

const POLLIN = 1;
const POLLOUT = 4;
const EPOLL_IN = 1;
/** The same on all architectures that are known. */
const SYS_PIDFD_SEND_SIGNAL = 424;
const SYS_PIDFD_OPEN = 434;

const INT_BYTES = 4;
/** `struct pollfd { int fd; short events; short revents; }` */
const POLL_BYTES = 8;
/** `struct ucred { pid_t pid; uid_t uid; gid_t gid; }` */
const CREDENTIALS_BYTES = 12;
/** `struct sockaddr_un { sa_family_t sun_family; char sun_path[108]; }` */
const ADDRESS_PATH_OFFSET = 2;
const ADDRESS_BYTES = ADDRESS_PATH_OFFSET + 108;
/** NGROUPS_MAX. */
const MAX_GROUPS = 65536;
/** `struct epoll_event` is packed on x86-64 only, and needs no padding on ia32. */
const EVENT_DATA_OFFSET = arch() === "x64" || arch() === "ia32" ? 4 : 8;
const EVENT_BYTES = EVENT_DATA_OFFSET + 8;
/** Hang-ups that are learned of in one go. */
const MAX_EVENTS = 64;

/**
 * Loads koffi and binds the calls. A string says why they cannot be had: the daemon then runs without knowing
 * who connects. It takes some 15 ms and 4 MB.
 */
export async function openKernel(): Promise<Kernel | string> {
  if (platform() !== "linux") return `this is ${platform()}, not Linux`;
  if (!KNOWN_ARCHITECTURES.includes(arch()) || endianness() !== "LE") return `unknown architecture ${arch()}`;
  try {
    // To import one module, Node begins with its loader of ES modules: some 5 ms of each start.
    const koffi: typeof import("koffi") = createRequire(import.meta.url)("koffi");
    const libc = koffi.load(null);
    const getsockopt = libc.func("int getsockopt(int, int, int, void *, void *)");
    const exit = libc.func("void _exit(int)");
    const getsockname = libc.func("int getsockname(int, void *, void *)");
    const fcntl = libc.func("int fcntl(int, int, int)");
    const flock = libc.func("int flock(int, int)");
    const socketOf = libc.func("int socket(int, int, int)");
    const bind = libc.func("int bind(int, void *, unsigned int)");
    const close = libc.func("int close(int)");
    const sendto = libc.func("long sendto(int, void *, size_t, int, void *, unsigned int)");
    const mallocTrim = trimOf(libc);
    const poll = libc.func("int poll(void *, unsigned long, int)");
    // Libraries have had names for the calls of pidfds for a short time only.
    const syscall = libc.func("long syscall(long, long, long, long, long)");
    const epollCreate = libc.func("int epoll_create1(int)");
    const epollControl = libc.func("int epoll_ctl(int, int, int, void *)");
    const epollWait = libc.func("int epoll_wait(int, void *, int, int)");

    const length = Buffer.alloc(INT_BYTES);
    /** Reads an option into a buffer and returns how many bytes it has, or undefined if the call fails. */
    const option = (fd: number | undefined, name: number, into: Buffer): number | undefined => {
      if (fd === undefined) return undefined;
      length.writeUInt32LE(into.length);
      return getsockopt(fd, SOL_SOCKET, name, into, length) === 0 ? length.readUInt32LE() : undefined;
    };

    const descriptor = epollCreate(EPOLL_CLOEXEC) as number;
    if (descriptor < 0) return `epoll_create1 failed (errno ${koffi.errno()})`;
    const hangUps = new HangUps({
      control: (operation, fd, event) => epollControl(descriptor, operation, fd, event) as number,
      wait: (events) => epollWait(descriptor, events, MAX_EVENTS, 0) as number,
      poll: (onReadable) => koffi.node.poll(descriptor, { readable: true }, onReadable),
    });

    const ucred = Buffer.alloc(CREDENTIALS_BYTES);
    const number = Buffer.alloc(INT_BYTES);
    /** The value of an option that is a number; undefined if the descriptor has none. */
    const numberOf = (fd: number, name: number): number | undefined =>
      option(fd, name, number) === INT_BYTES ? number.readUInt32LE() : undefined;
    const duplicate = (fd: number): number | undefined => {
      const copy = fcntl(fd, F_DUPFD_CLOEXEC, 0) as number;
      return copy < 0 ? undefined : copy;
    };
    /** True if a descriptor is ready for what is asked, without waiting (poll(2)). */
    const isReady = (fd: number, events: number): boolean => {
      const polled = Buffer.alloc(POLL_BYTES);
      polled.writeInt32LE(fd);
      polled.writeInt16LE(events, INT_BYTES);
      return poll(polled, 1, 0) === 1 && (polled.readInt16LE(INT_BYTES + 2) & events) !== 0;
    };
    const openProcess = (pid: number): number => {
      const fd = Number(syscall(SYS_PIDFD_OPEN, pid, 0, 0, 0));
      return fd < 0 ? -koffi.errno() : fd;
    };
    const namesPeers = ((): boolean => {
      const fd = socketOf(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) as number;
      // A socket without a peer has no process to be named.
      const isKnown =
        fd >= 0 &&
        option(fd, SO_PEERPIDFD, number) === undefined &&
        koffi.errno() !== system.errno.ENOPROTOOPT;
      if (fd >= 0) close(fd);
      return isKnown;
    })();
    let datagrams: number | undefined;
    return {
      credentials(socket) {
        if (option(descriptorOf(socket), SO_PEERCRED, ucred) !== CREDENTIALS_BYTES) return undefined;
        const [pid, uid, gid] = [0, 4, 8].map((at) => ucred.readUInt32LE(at)) as [number, number, number];
        return { pid: pid === 0 ? null : pid, uid, gid };
      },
      groups(socket) {
        const gids = Buffer.allocUnsafe(MAX_GROUPS * INT_BYTES);
        const bytes = option(descriptorOf(socket), SO_PEERGROUPS, gids) ?? 0;
        return Array.from({ length: bytes / INT_BYTES }, (_, index) => gids.readUInt32LE(index * INT_BYTES));
      },
      hangUps,
      namesPeers,
      openPeer(socket, pid) {
        if (!namesPeers) return openProcess(pid);
        return option(descriptorOf(socket), SO_PEERPIDFD, number) === INT_BYTES
          ? number.readInt32LE()
          : -koffi.errno();
      },
      openProcess,
      signalProcess: (fd, signal) =>
        Number(syscall(SYS_PIDFD_SEND_SIGNAL, fd, signal, 0, 0)) === 0 ? 0 : koffi.errno(),
      hasEnded: (fd) => isReady(fd, POLLIN),
      takeListening(fd) {
        const address = Buffer.alloc(ADDRESS_BYTES);
        length.writeUInt32LE(address.length);
        if (getsockname(fd, address, length) !== 0 || address.readUInt16LE() !== AF_UNIX) return undefined;
        const name = address.subarray(ADDRESS_PATH_OFFSET, length.readUInt32LE());
        if (numberOf(fd, SO_TYPE) !== SOCK_STREAM || numberOf(fd, SO_ACCEPTCONN) !== 1) return undefined;
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        return name[0] === 0 ? `@${name.toString("utf8", 1)}` : name.toString("utf8").replace(/\0.*$/s, "");
      },
      bind(path) {
        const fd = socketOf(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) as number;
        const address = addressOf(path);
        if (fd >= 0 && bind(fd, address, address.length) === 0) return fd;
        const code = getSystemErrorName(-koffi.errno());
        if (fd >= 0) close(fd);
        throw Object.assign(new Error(`listen ${code}: a socket cannot be bound at ${path}`), { code });
      },
      duplicate,
      freeDescriptor(fd) {
        const free = duplicate(fd);
        if (free !== undefined) close(free);
        return free;
      },
      close: (fd) => void close(fd),
      sendDatagram(address, text) {
        datagrams ??= socketOf(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) as number;
        const to = addressOf(address);
        const bytes = Buffer.from(text);
        const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
        return Number(sendto(datagrams, bytes, bytes.length, flags, to, to.length)) < 0 ? koffi.errno() : 0;
      },
      flock: (fd) => ((flock(fd, LOCK_EX | LOCK_NB) as number) === 0 ? 0 : koffi.errno()),
      hasRoom: (fd) => isReady(fd, POLLOUT),
      trim: () => void mallocTrim?.(0),
      exit: (code) => void exit(code),
    };
  } catch (error) {
    return (error as Error).message;
  }
}

/**
 * Tells when the peer of a connection that Node does not read has closed. Once a peer has shut its writing
 * side, or while a connection is paused, libuv no longer looks at the socket, so a peer that is killed then
 * would keep its waits and its grants. The kernel reports a hang-up (both directions closed) on any socket in
 * an epoll set, also one that is asked for no event, and an epoll set is itself something that libuv can poll.
 */
export class HangUps {
  readonly #calls: EpollCalls;
  /** Held here, because koffi closes a handle that is garbage. */
  readonly #handle: koffi.node.PollHandle;
  /** The actions, by the number that the kernel gives back. */
  readonly #watched = new Map<bigint, () => void>();
  readonly #event = Buffer.alloc(EVENT_BYTES);
  readonly #events = Buffer.alloc(MAX_EVENTS * EVENT_BYTES);
  #nextNumber = 1n;

  constructor(calls: EpollCalls) {
    this.#calls = calls;
    this.#handle = calls.poll(() => this.#take());
    // Watching is no reason for the process to live on.
    this.#handle.unref();
  }

  /**
   * Calls back once when the peer has closed, before it returns if it has already.
   * @returns how to stop watching, harmless after the socket was closed; undefined if it cannot be watched.
   */
  watch(socket: Socket, onHangUp: () => void): (() => void) | undefined {
    const fd = descriptorOf(socket);
    if (fd === undefined) return undefined;
    const number = this.#add(fd, 0, onHangUp);
    if (number === undefined) return undefined;
    // Most that are to be watched have closed already: what a peer sends ends like that too.
    this.#take();
    return () => {
      // The kernel forgets a descriptor that was closed, and its number may be another's by now.
      if (this.#watched.delete(number) && descriptorOf(socket) === fd) {
        this.#calls.control(EPOLL_CTL_DEL, fd, this.#event);
      }
    };
  }

  /**
   * Calls back once when the process of a pidfd has ended, never before it returns. Closing the descriptor ends that.
   * Returns false if it cannot be watched.
   */
  watchEnd(fd: number, onEnd: () => void): boolean {
    return this.#add(fd, EPOLL_IN, onEnd) !== undefined;
  }

  /** Has a descriptor watched for some events beside a hang-up; gives its number among those that are. */
  #add(fd: number, events: number, onEvent: () => void): bigint | undefined {
    const number = this.#nextNumber++;
    this.#event.writeUInt32LE(EPOLL_ONE_SHOT + events);
    this.#event.writeBigUInt64LE(number, EVENT_DATA_OFFSET);
    if (this.#calls.control(EPOLL_CTL_ADD, fd, this.#event) !== 0) return undefined;
    this.#watched.set(number, onEvent);
    return number;
  }

  #take(): void {
    const count = this.#calls.wait(this.#events);
    for (let index = 0; index < count; index += 1) {
      const number = this.#events.readBigUInt64LE(index * EVENT_BYTES + EVENT_DATA_OFFSET);
      const onHangUp = this.#watched.get(number);
      this.#watched.delete(number);
      onHangUp?.();
    }
  }
}

interface EpollCalls {
  control(operation: number, fd: number, event: Buffer): number;
  /** Returns how many events it wrote, without waiting. */
  wait(events: Buffer): number;
  poll(onReadable: () => void): koffi.node.PollHandle;
}

/** A `sockaddr_un`: a path with its final NUL, or after a leading NUL a name with none (unix(7)). */
function addressOf(address: string): Buffer {
  const family = Buffer.alloc(ADDRESS_PATH_OFFSET);
  family.writeUInt16LE(AF_UNIX);
  const name = address.startsWith("@") ? `\0${address.slice(1)}` : `${address}\0`;
  return Buffer.concat([family, Buffer.from(name)]);
}

/** A call of glibc alone. */
function trimOf(libc: ReturnType<typeof koffi.load>): ((pad: number) => number) | undefined {
  try {
    return libc.func("int malloc_trim(size_t)") as unknown as (pad: number) => number;
  } catch {
    return undefined;
  }
}

/** The file descriptor of an open socket, or of one that listens; Node has no other name for it. */
export function descriptorOf(socket: Socket | Server): number | undefined {
  const handle = (socket as unknown as { _handle: { fd?: number } | null })._handle;
  return handle?.fd !== undefined && handle.fd >= 0 ? handle.fd : undefined;
}

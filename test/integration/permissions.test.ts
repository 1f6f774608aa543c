// Permissions to connect, and to read what a daemon keeps, from the first instant on (spec: operations.md, pawld).
// Not over shared names: it is about files of the daemon.
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { PAWL, PAWLD, Place, privateDirectory, startDaemon } from "../daemon.js";
import { RawClient } from "../raw-client.js";
import { refusedStart } from "../refusal.js";

const mode = (path: string): string => (lstatSync(path).mode & 0o777).toString(8);

/** Runs an action under a umask that takes nothing away, as a careless parent would. */
function withoutUmask<T>(action: () => T): T {
  const previous = process.umask(0);
  try {
    return action();
  } finally {
    process.umask(previous);
  }
}

/** Looks at everything in a directory and below, again and again, until a promise settles. */
async function watchModes(directory: string, until: Promise<unknown>): Promise<Map<string, Set<string>>> {
  const seen = new Map<string, Set<string>>();
  let over = false;
  void until.finally(() => {
    over = true;
  });
  for (;;) {
    for (const name of readdirSync(directory, { recursive: true }) as string[]) {
      const found = lstatSync(join(directory, name), { throwIfNoEntry: false });
      if (found === undefined) continue;
      const modes = seen.get(name) ?? new Set();
      seen.set(name, modes.add(`${(found.mode & 0o777).toString(8)} ${found.gid}`));
    }
    if (over) return seen;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("files are 0600 and directories 0700 from the first instant", async () => {
  const directory = privateDirectory();
  const socket = join(directory, "run/deep/pawl.sock");
  const state = join(directory, "state/deep/er");
  const daemon = withoutUmask(() =>
    new Place(directory).spawn({ args: ["--socket", socket, "--state-dir", state] }),
  );
  const seen = await watchModes(directory, daemon.listening);
  const client = await RawClient.connect(socket);
  await client.call("sequence.next", { type: "FR" });
  for (const [name, modes] of [...seen, ...(await watchModes(directory, Promise.resolve()))]) {
    const isDirectory = statSync(join(directory, name), { throwIfNoEntry: false })?.isDirectory() ?? false;
    expect([name, ...modes]).toEqual([name, `${isDirectory ? "700" : "600"} ${process.getgid?.()}`]);
  }
  expect([...seen.keys()]).toContain("run/deep/pawl.sock");
  expect(existsSync(join(state, "pawl.db-wal"))).toBe(true);
});

test("--socket-mode and --socket-group: nobody else is let in at any moment", async () => {
  const place = new Place();
  const daemon = withoutUmask(() =>
    place.spawn({ args: ["--socket-mode", "0660", "--socket-group", "65534"] }),
  );
  const seen = await watchModes(place.directory, daemon.listening);
  expect(mode(place.socket)).toBe("660");
  expect(lstatSync(place.socket).gid).toBe(65534);
  for (const [name, modes] of seen) {
    if (!lstatSync(join(place.directory, name), { throwIfNoEntry: false })?.isSocket()) continue;
    for (const each of modes) expect(["600 65534", "660 65534", `600 ${process.getgid?.()}`]).toContain(each);
  }
  expect(mode(place.stateDir)).toBe("700");
});

test.each([["0660"], ["0666"]])("--socket-mode %s", async (wanted) => {
  const daemon = await startDaemon({ args: ["--socket-mode", wanted] });
  expect(`0${mode(daemon.place.socket)}`).toBe(wanted);
  expect(mode(join(daemon.place.stateDir, "pawl.db"))).toBe("600");
});

test("a group that does not exist is named", async () => {
  const message = await refusedStart(new Place().spawn({ args: ["--socket-group", "no-such-group"] }));
  expect(message).toContain("no-such-group");
});

test.each<[string, (path: string) => void]>([
  [
    "open to others",
    (path) => {
      mkdirSync(path);
      chmodSync(path, 0o777);
    },
  ],
  [
    "of another user",
    (path) => {
      mkdirSync(path, { mode: 0o700 });
      chownSync(path, 65534, 65534);
    },
  ],
  [
    "a link",
    (path) => {
      mkdirSync(`${path}.real`, { mode: 0o700 });
      symlinkSync(`${path}.real`, path);
    },
  ],
  ["a file", (path) => writeFileSync(path, "")],
])("the directory in the temporary directory is refused if it is %s", async (_, make) => {
  const directory = privateDirectory();
  const shared = join(directory, `pawl-${process.getuid?.()}`);
  make(shared);
  const daemon = new Place(directory).spawn({
    args: ["--socket", join(shared, "default.sock")],
    env: { TMPDIR: directory },
  });
  expect(await refusedStart(daemon)).toContain(shared);
});

test("the directory in the temporary directory is made for us alone", async () => {
  const directory = privateDirectory();
  const shared = join(directory, `pawl-${process.getuid?.()}`);
  const args = ["--socket", join(shared, "default.sock")];
  // Written in another way, it is the same directory.
  const env = { TMPDIR: `${directory}/../${directory.split("/").at(-1)}` };
  const daemon = await new Place(directory).start({ args, env });
  expect(mode(shared)).toBe("700");
  expect(await daemon.end()).toBe(0);
  chmodSync(shared, 0o755);
  expect(await refusedStart(new Place(directory).spawn({ args, env }))).toContain(shared);
});

/** As containers are run with any uid: by a user who has no account and no HOME. */
const NOBODY_AT_ALL = 54321;
const asNobody = ["env", "-u", "HOME", "setpriv", `--reuid=${NOBODY_AT_ALL}`, "--clear-groups"] as const;
const mayBeNobody =
  spawnSync(asNobody[0], [...asNobody.slice(1), process.execPath, PAWL, "--version"], { cwd: "/" }).status ===
  0;

test.skipIf(!mayBeNobody)("a user without a home directory is served, and told what to name", async () => {
  const directory = privateDirectory();
  chownSync(directory, NOBODY_AT_ALL, -1);
  const command = [...asNobody, process.execPath];
  const daemon = await new Place(directory).start({ command });
  expect(await daemon.place.next()).toBe(1);
  const run = spawnSync(asNobody[0], [...asNobody.slice(1), process.execPath, PAWL, "next", "FR"], {
    cwd: "/",
    encoding: "utf8",
    env: { ...process.env, PAWL_SOCKET: daemon.place.socket },
  });
  expect(run).toMatchObject({ status: 0, stdout: "FR-002\n", stderr: "" });
  const nowhere = spawnSync(asNobody[0], [...asNobody.slice(1), process.execPath, PAWLD], {
    cwd: "/",
    encoding: "utf8",
    env: { PATH: process.env.PATH, PAWL_SOCKET: join(directory, "other.sock") },
  });
  expect(nowhere).toMatchObject({ status: 2, stderr: expect.stringContaining("--state-dir") });
});

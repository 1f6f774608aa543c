// The packages as they are published: packed, and installed into empty folders from a registry that the test keeps.
import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { delimiter, dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { type AtEnd, privateDirectory } from "./daemon.js";

const REPOSITORY = join(import.meta.dirname, "..");
const WORKSPACES = ["protocol", "client", "daemon", "web", "mcp"] as const;

type Workspace = (typeof WORKSPACES)[number];

/** The npm that runs these tests, as a program for our Node, so that it is found without a PATH. */
function npmProgram(): string {
  const given = process.env.npm_execpath;
  if (given?.endsWith("npm-cli.js") && existsSync(given)) return given;
  const beside = join(dirname(process.execPath), "../lib/node_modules/npm/bin/npm-cli.js");
  if (existsSync(beside)) return beside;
  throw new Error(`npm is not beside ${process.execPath}; run the tests with npm test`);
}

/** Tarballs of workspaces, packed from a copy, so that tests beside this one see nothing of it. */
export async function pack<W extends Workspace = Workspace>(
  directory: string,
  workspaces: readonly W[] = WORKSPACES as readonly Workspace[] as readonly W[],
): Promise<Record<W, string>> {
  const copy = join(directory, "copy");
  for (const name of [...WORKSPACES, "systemd", "LICENSE"]) {
    cpSync(join(REPOSITORY, name), join(copy, name), {
      recursive: true,
      filter: (path) => !path.endsWith("node_modules"),
    });
  }
  // One npm for all, as npm run tarballs has it: to start takes it longer than to pack.
  writeFileSync(join(copy, "package.json"), JSON.stringify({ private: true, workspaces: WORKSPACES }));
  const wanted = workspaces.map((name) => `--workspace=${name}`);
  const packed: { name: string; filename: string }[] = JSON.parse(
    await npm(copy, ["pack", "--json", "--pack-destination", directory, ...wanted]),
  );
  return Object.fromEntries(
    packed.map(({ name, filename }) => [name.replace("@pawl/", ""), join(directory, filename)]),
  ) as Record<W, string>;
}

/** The paths in a tarball, below its one folder. */
export async function filesIn(tarball: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)("tar", ["-tzf", tarball]);
  return stdout
    .trim()
    .split("\n")
    .map((path) => path.replace(/^package\//, ""))
    .sort();
}

/** By the address of a registry, what npm keeps of what it has from there. */
const kept = new Map<string, string>();

/** Runs npm with nothing of the user's configuration, and resolves with what it printed. */
export async function npm(
  cwd: string,
  args: readonly string[],
  { registry = "http://127.0.0.1:9", path = process.env.PATH ?? "" } = {},
): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [npmProgram(), ...args], {
    cwd,
    maxBuffer: 16 * 1024 * 1024,
    env: {
      PATH: path,
      HOME: cwd,
      npm_config_registry: registry,
      npm_config_cache: kept.get(registry) ?? join(cwd, ".npm-cache"),
      npm_config_prefer_offline: "true",
      npm_config_update_notifier: "false",
      npm_config_audit: "false",
      npm_config_fund: "false",
    },
  });
  return stdout;
}

/** A PATH with nothing but Node and a shell: no compiler, no make, no Python. */
export function barePath(atEnd?: AtEnd): string {
  const directory = privateDirectory(atEnd);
  writeFileSync(join(directory, "sh"), '#!/bin/sh\nexec /bin/sh "$@"\n', { mode: 0o755 });
  writeFileSync(join(directory, "node"), `#!/bin/sh\nexec ${process.execPath} "$@"\n`, { mode: 0o755 });
  return [directory].join(delimiter);
}

/**
 * A registry with the packages that are installed in this repository, in those versions, as they lie there: with
 * what was built for this machine. So nothing has to be reached to install pawl.
 */
export async function registry(atEnd: AtEnd): Promise<string> {
  const versions = new Map<string, Map<string, string>>();
  for (const directory of packagesBelow(join(REPOSITORY, "node_modules"))) {
    const { name, version } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
    if (!versions.has(name)) versions.set(name, new Map());
    versions.get(name)?.set(version, directory);
  }
  const server = createServer((request, response) => {
    const [, name = "", version] =
      /^\/((?:@[^/]+\/)?[^/]+)(?:\/-\/(.+)\.tgz)?$/.exec(decodeURIComponent(request.url ?? "")) ?? [];
    const known = versions.get(name);
    const directory = version === undefined ? undefined : known?.get(version);
    if (directory !== undefined) {
      // npm takes no links; what a build leaves beside its result, types and tests are not needed to run a package, and
      // each file takes npm time.
      const options = [
        "--hard-dereference",
        "--exclude=./node_modules",
        "--exclude=./deps",
        "--exclude=obj*",
        "--exclude=*.a",
        "--exclude=*.ts",
        "--exclude=*.[cm]ts",
        "--exclude=*.map",
        "--exclude=./test",
      ];
      const tar = spawn("tar", ["-cf", "-", ...options, "--transform=s,^[.],package,", "."], {
        cwd: directory,
        stdio: ["ignore", "pipe", "inherit"],
      });
      tar.stdout.pipe(response);
      return;
    }
    response.statusCode = known === undefined ? 404 : 200;
    response.end(
      JSON.stringify(known === undefined ? {} : packument(name, known, request.headers.host ?? "")),
    );
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  atEnd(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  kept.set(url, privateDirectory(atEnd));
  return url;
}

function packument(name: string, versions: ReadonlyMap<string, string>, host: string): object {
  const made = [...versions].map(([version, directory]) => {
    const manifest = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
    return [version, { ...manifest, dist: { tarball: `http://${host}/${name}/-/${version}.tgz` } }];
  });
  return { name, "dist-tags": { latest: made[0]?.[0] }, versions: Object.fromEntries(made) };
}

/** Every installed package, those within others included; not our own, which are only linked there. */
function packagesBelow(modules: string): string[] {
  if (!existsSync(modules)) return [];
  return readdirSync(modules, { withFileTypes: true }).flatMap((entry) => {
    if (entry.isSymbolicLink() || entry.name.startsWith(".")) return [];
    const directory = join(modules, entry.name);
    if (entry.name.startsWith("@")) return packagesBelow(directory);
    if (!existsSync(join(directory, "package.json"))) return [];
    return [directory, ...packagesBelow(join(directory, "node_modules"))];
  });
}

/** Files that a compiler made, below a directory. */
export function nativeFiles(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => /\.(node|so|o|a)$/.test(entry.name))
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)));
}

/**
 * Packages unpacked as an installation of their own, beside which the dependencies of this repository are found: a
 * build that was made elsewhere, without the time that npm takes. Returns the folder of each.
 */
export function unpacked<W extends Workspace>(tarballs: Readonly<Record<W, string>>): Record<W, string> {
  const modules = join(privateDirectory(), "node_modules");
  mkdirSync(join(modules, "@pawl"), { recursive: true });
  for (const name of readdirSync(join(REPOSITORY, "node_modules"))) {
    if (name !== "@pawl" && !name.startsWith(".")) {
      symlinkSync(join(REPOSITORY, "node_modules", name), join(modules, name));
    }
  }
  const folders = Object.entries<string>(tarballs).map(([name, tarball]) => {
    const folder = join(modules, "@pawl", name);
    mkdirSync(folder);
    execFileSync("tar", ["-xzf", tarball, "-C", folder, "--strip-components=1"]);
    return [name, folder] as const;
  });
  return Object.fromEntries(folders) as Record<W, string>;
}

/** An empty folder with these tarballs installed in it; none of their scripts has run. */
export async function installed(
  tarballs: readonly string[],
  options: { registry: string; path?: string },
  atEnd?: AtEnd,
): Promise<string> {
  const folder = join(privateDirectory(atEnd), "app");
  mkdirSync(folder);
  await npm(folder, ["install", "--ignore-scripts", ...tarballs], options);
  return folder;
}

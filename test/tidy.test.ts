// The repository checks itself: what the people who work on it agreed upon and no tool checks for them.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { generatedFiles } from "../protocol/dist/generated-files.js";

const REPOSITORY = join(import.meta.dirname, "..");
const PACKAGES = ["protocol", "client", "daemon", "web", "mcp"] as const;
/** The files by which packages are loaded. */
const ENTRIES = [...PACKAGES.map((name) => `${name}/index.ts`), "mcp/hook.ts"];
const GENERATED = new Set(["node_modules", "dist", ".git", "coverage", "__pycache__", ".mypy_cache"]);

/** All files below a directory that people write, relative to the repository. */
function filesBelow(directory: string): string[] {
  return readdirSync(join(REPOSITORY, directory), { withFileTypes: true }).flatMap((entry) => {
    if (GENERATED.has(entry.name)) return [];
    const path = join(directory, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

const read = (path: string): string => readFileSync(join(REPOSITORY, path), "utf8");

/** A source without its comments, so that words in them count for nothing. */
function codeOf(path: string): string {
  return read(path)
    .replaceAll(/^\s*\/\/.*$/gm, "")
    .replaceAll(/\/\*[\s\S]*?\*\//g, "");
}

const sources = PACKAGES.flatMap(filesBelow).filter((path) => /\.tsx?$/.test(path));
const tests = filesBelow("test").filter((path) => /\.[tj]s$/.test(path));
const code = new Map([...sources, ...tests].map((path) => [path, codeOf(path)]));

interface Import {
  /** As written. */
  module: string;
  /** True if it is gone once types are. */
  typeOnly: boolean;
}

const IMPORT =
  /\b(?:import|export)\s+(type\s)?[^"'`;()]*?\bfrom\s+"([^"]+)"|\bimport\s+"([^"]+)"|\bimport\(\s*"([^"]+)"\s*\)/g;

function importsOf(path: string): Import[] {
  return [...(code.get(path) as string).matchAll(IMPORT)].map(([whole, type, from, bare, lazy]) => ({
    module: (from ?? bare ?? lazy) as string,
    typeOnly:
      type !== undefined || /^(import|export)\s*\{\s*(type\s+\w+(\s+as\s+\w+)?\s*,?\s*)+\}/.test(whole),
  }));
}

/** The source behind an import, if it is one of ours. */
function sourceOf(importer: string, module: string): string | undefined {
  if (module.startsWith(".")) {
    const path = join(dirname(importer), module)
      .replace(/^(.*?)\/dist\//, "$1/")
      .replace(/\.js$/, ".ts");
    return existsSync(join(REPOSITORY, `${path}x`)) ? `${path}x` : path;
  }
  const [, name, file = "index"] = /^@pawl\/(\w+)(?:\/([\w-]+))?$/.exec(module) ?? [];
  return name === undefined ? undefined : `${name}/${file}.ts`;
}

/** Fails with the offenders, one line each, so that a failure names the places. */
function expectNone(offenders: string[]): void {
  expect(offenders).toEqual([]);
}

const imports = sources.flatMap((path) => importsOf(path).map((each) => ({ path, ...each })));

describe("imports", () => {
  test("are all found", () => {
    expect(sources.length).toBeGreaterThan(40);
    expect(imports.filter(({ module }) => module.startsWith("./")).length).toBeGreaterThan(100);
    expectNone(
      imports
        .filter(({ path, module }) => {
          const source = sourceOf(path, module);
          return source !== undefined && !code.has(source) && !module.endsWith(".json");
        })
        .map(({ path, module }) => `${path} imports ${module}, which is not there`),
    );
  });

  test("the protocol imports neither client nor daemon, and does no I/O", () => {
    expectNone(
      imports
        .filter(({ path }) => path.startsWith("protocol/") && path !== "protocol/generate.ts")
        .filter(({ module, typeOnly }) => !module.startsWith("./") && module !== "zod" && !typeOnly)
        .map(({ path, module }) => `${path} imports ${module}`),
    );
  });

  test("the client never imports the daemon, and the daemon never the client", () => {
    expectNone(
      imports
        .filter(
          ({ path, module }) =>
            (path.startsWith("client/") && /^@pawl\/daemon|^\.\.\/.*daemon\//.test(module)) ||
            (path.startsWith("daemon/") && /^@pawl\/client|^\.\.\/.*client\//.test(module)),
        )
        .map(({ path, module }) => `${path} imports ${module}`),
    );
  });

  test("the page takes nothing of the others but types, so that it is loaded for nobody else", () => {
    expectNone(
      imports
        .filter(
          ({ path, module, typeOnly }) => path.startsWith("web/") && module.startsWith("@pawl/") && !typeOnly,
        )
        .map(({ path, module }) => `${path} imports ${module}`),
    );
    const importers = imports.filter(({ module }) => module === "@pawl/web").map(({ path }) => path);
    expect(new Set(importers)).toEqual(new Set(["client/commands/packages.ts"]));
  });

  test("the page calls each method that it may call", () => {
    const page = sources
      .filter((path) => path.startsWith("web/page/"))
      .map(read)
      .join("\n");
    const methods = [...read("web/server/methods.ts").matchAll(/^ {2}"(\w+\.\w+)",$/gm)].map(
      ([, name]) => name,
    );
    expect(methods.length).toBeGreaterThan(20);
    // A type of what it returns is no call.
    const called = page.replace(/(Result|Params)<"[\w.]+">/g, "");
    expectNone(methods.filter((name) => !called.includes(`"${name}"`)) as string[]);
  });

  test("what is for agents takes only types of the others, and is loaded for nobody else; hooks take no package", () => {
    expectNone(
      imports
        .filter(
          ({ path, module, typeOnly }) => path.startsWith("mcp/") && module.startsWith("@pawl/") && !typeOnly,
        )
        .map(({ path, module }) => `${path} imports ${module}`),
    );
    const importers = imports.filter(({ module }) => module.startsWith("@pawl/mcp")).map(({ path }) => path);
    // The second is bundled with what it imports.
    expect(new Set(importers)).toEqual(new Set(["client/commands/packages.ts", "client/cli/hook.ts"]));
    const bundles = {
      server: read("mcp/dist/bundle/server/server.js"),
      hook: read("mcp/dist/bundle/hook/hook.js"),
    };
    for (const bundle of Object.values(bundles)) {
      expectNone([...bundle.matchAll(/^import .*"(?!node:)([^"]+)";$/gm)].map(([, name]) => name as string));
    }
    expect(bundles.server).toContain("zod");
    expect(bundles.hook).not.toContain("zod");
  });

  test("packages reach each other by their names, not through directories", () => {
    expectNone(
      imports
        .filter(({ path, module }) => {
          const source = module.startsWith(".") ? (sourceOf(path, module) as string) : path;
          return source.split("/")[0] !== path.split("/")[0];
        })
        .map(({ path, module }) => `${path} imports ${module}`),
    );
  });

  test("yargs and json-rpc-2.0 are each imported by one file", () => {
    for (const name of ["yargs", "json-rpc-2.0"]) {
      const importers = imports.filter(({ module }) => module === name).map(({ path }) => path);
      expect(importers, name).toHaveLength(1);
    }
  });

  test("imported packages are declared, and declared packages are imported", () => {
    for (const name of PACKAGES) {
      const about = JSON.parse(read(`${name}/package.json`)) as {
        dependencies?: Record<string, string>;
        /** Packages of which the build takes what is needed; and our own. */
        devDependencies?: Record<string, string>;
        /** Packages used only where they are configured, and then asked for. */
        peerDependencies?: Record<string, string>;
      };
      const used = new Set(
        imports
          .filter(({ path, typeOnly }) => path.startsWith(`${name}/`) && !typeOnly)
          .filter(({ module }) => !/^(node:|\.)/.test(module))
          .map(({ module }) =>
            module
              .split("/")
              .slice(0, module.startsWith("@") ? 2 : 1)
              .join("/"),
          ),
      );
      // The workspaces find each other without being declared.
      const ours = new Set(PACKAGES.map((each) => `@pawl/${each}`));
      const { dependencies, devDependencies, peerDependencies } = about;
      const declared = new Set(
        [dependencies, devDependencies, peerDependencies]
          .flatMap((each) => Object.keys(each ?? {}))
          .filter((each) => !ours.has(each)),
      );
      expectNone(
        [...used]
          .filter((each) => !declared.has(each) && !ours.has(each))
          .map((each) => `${name} lacks ${each}`),
      );
      expectNone(
        [...declared]
          // Of zod the daemon names only types; the protocol imports it, and leaves it to those who load schemas.
          .filter((each) => !used.has(each) && !(name === "daemon" && each === "zod"))
          .map((each) => `${name} does not import ${each}`),
      );
    }
  });
});

/** Rooms in the order of the table in ARCHITECTURE.md: those that a room may import stand above it. */
const rooms = [
  ...(/^## Rooms\n([\s\S]*?)\n## /m.exec(read("ARCHITECTURE.md"))?.[1] ?? "").matchAll(
    /^\| `((?:protocol|daemon|client|web|mcp)\/[^`]*)` \| [^|]+ \| ([^|]*)\|$/gm,
  ),
].map(([, room, imports]) => ({ room: room as string, imports: imports as string }));

/** The room that a file belongs to; a room in which others are has only what stands in it directly. */
function roomOf(path: string): string | undefined {
  return rooms
    .map(({ room }) => room)
    .filter((room) => path === room || (room.endsWith("/") && path.startsWith(room)))
    .filter((room) => !hasRooms(room) || `${dirname(path)}/` === room)
    .sort((a, b) => b.length - a.length)[0];
}

function hasRooms(room: string): boolean {
  return rooms.some((each) => each.room !== room && each.room.startsWith(room));
}

/** The rooms that a room may import beside itself. */
function mayImport(room: string): string[] {
  const index = rooms.findIndex((each) => each.room === room);
  const above = rooms.slice(0, index).map((each) => each.room);
  const [name] = room.split("/");
  const { imports } = rooms[index] as { imports: string };
  if (imports.trim() === "every room above") return above.filter((each) => each.startsWith(`${name}/`));
  return [...imports.matchAll(/`([^`]+)`/g)].flatMap(([, part]) => {
    const found = above.filter(
      (each) => each.startsWith(`${name}/${part}/`) || each === `${name}/${part}.ts`,
    );
    if (found.length === 0) throw new Error(`${room} names ${part}, which is no room above it`);
    return found;
  });
}

describe("rooms", () => {
  test("each file is in one", () => {
    expectNone(sources.filter((path) => roomOf(path) === undefined).map((path) => `${path} is in no room`));
    expectNone(
      rooms.filter(({ room }) => !sources.some((path) => roomOf(path) === room)).map(({ room }) => room),
    );
  });

  test("import what their line allows", () => {
    expectNone(
      imports.flatMap(({ path, module }) => {
        const source = sourceOf(path, module);
        if (source === undefined || source.split("/")[0] !== path.split("/")[0]) return [];
        const [from, to] = [roomOf(path), roomOf(source)];
        if (from === to || from === undefined || to === undefined || mayImport(from).includes(to)) return [];
        return [`${path} imports ${source}: ${from} may not import ${to}`];
      }),
    );
  });

  test("no file imports itself by way of others, not even types", () => {
    const circles = circlesOf(
      new Map(
        sources.map((path) => [
          path,
          importsOf(path)
            .map(({ module }) => sourceOf(path, module))
            .filter((source) => source !== undefined && code.has(source)) as string[],
        ]),
      ),
    );
    expectNone(circles.map(String));
  });
});

/** Groups of files each of which can be reached from every other (Tarjan's algorithm). */
function circlesOf(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const circles: string[][] = [];
  const found = new Map<string, number>();
  const stack: string[] = [];
  const visit = (file: string): number => {
    const place = found.size;
    found.set(file, place);
    stack.push(file);
    let lowest = place;
    for (const next of graph.get(file) ?? []) {
      if (!found.has(next)) lowest = Math.min(lowest, visit(next));
      else if (stack.includes(next)) lowest = Math.min(lowest, found.get(next) as number);
    }
    if (lowest === place) {
      const circle = stack.splice(stack.indexOf(file));
      if (circle.length > 1 || graph.get(file)?.includes(file)) circles.push(circle.sort());
    }
    return lowest;
  };
  for (const file of graph.keys()) if (!found.has(file)) visit(file);
  return circles;
}

test("documents name files that are there", () => {
  const all = [
    "daemon",
    "client",
    "clients",
    "protocol",
    "web",
    "mcp",
    "test",
    "docs",
    "systemd",
    "man",
  ].flatMap(filesBelow);
  const missing = (document: string): string[] =>
    [...read(document).matchAll(/`([\w./-]+\.(?:ts|js|sql))`/g)]
      .map(([, name]) => name as string)
      .filter((name) => !all.some((path) => path === name || path.endsWith(`/${name}`)));
  const broken = (document: string): string[] =>
    [...read(document).matchAll(/\]\(([\w./-]+)(?:#[\w-]+)?\)/g)]
      .map(([, link]) => link as string)
      .filter((link) => !existsSync(join(REPOSITORY, dirname(document), link)));
  const documents = ["README.md", "CONTRIBUTING.md", ...all.filter((path) => path.endsWith(".md"))];
  expectNone([
    ...["ARCHITECTURE.md", "README.md"].flatMap((document) =>
      missing(document).map((name) => `${document} names ${name}`),
    ),
    ...[...documents, "ARCHITECTURE.md"].flatMap((document) =>
      broken(document).map((link) => `${document} points to ${link}`),
    ),
  ]);
});

describe("modules that are loaded at run time", () => {
  const COMPILED_IMPORT =
    /^(?:import|export)\s+(?:[\w$*{},\s]+\sfrom\s+)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/gm;

  /** Every module that loading some compiled file can load: files of this repository as paths, others by name. */
  function loadedBy(entry: string): Set<string> {
    const loaded = new Set<string>();
    const files = [join(REPOSITORY, entry)];
    for (let file = files.pop(); file !== undefined; file = files.pop()) {
      if (loaded.has(relative(REPOSITORY, file))) continue;
      loaded.add(relative(REPOSITORY, file));
      // A bundle has all of it within; a test of its own looks at it.
      if (file.includes("/dist/bundle/")) continue;
      for (const [, fixed, lazy] of readFileSync(file, "utf8").matchAll(COMPILED_IMPORT)) {
        const name = (fixed ?? lazy) as string;
        if (name.startsWith(".")) files.push(join(dirname(file), name));
        else if (name.startsWith("@pawl/")) files.push(fileURLToPath(import.meta.resolve(name)));
        else loaded.add(name);
      }
    }
    return loaded;
  }

  test.each([["client/dist/index.js"], ["client/dist/cli/main.js"]])(
    "%s: no daemon, no schemas, nothing native",
    (entry) => {
      const loaded = [...loadedBy(entry)];
      expect(loaded).toContain("client/dist/connection/connection.js");
      expectNone(loaded.filter((name) => /^(daemon\/|zod$|better-sqlite3$|koffi$)/.test(name)));
    },
  );

  test("client/bin/pawl.js: what its bundle does not have within is loaded by the commands that need it", () => {
    expect([...loadedBy("client/bin/pawl.js")]).toEqual(
      expect.arrayContaining(["client/dist/bundle/inherited.js", "client/dist/bundle/main.js"]),
    );
    const bundle = join(REPOSITORY, "client/dist/bundle");
    const imported = readdirSync(bundle).flatMap((name) =>
      [...readFileSync(join(bundle, name), "utf8").matchAll(COMPILED_IMPORT)].map(
        ([, fixed, lazy]) => (fixed ?? lazy) as string,
      ),
    );
    expect(new Set(imported.filter((name) => !/^(node:|\.\/)/.test(name)))).toEqual(
      new Set(["@pawl/mcp", "@pawl/mcp/hook", "@pawl/web", "smol-toml", "yargs"]),
    );
  });

  test("client/dist/index.d.ts: no schemas in its types either", () => {
    const files = ["client/dist/index.d.ts"];
    const loaded = new Set<string>();
    for (let file = files.pop(); file !== undefined; file = files.pop()) {
      if (loaded.has(file)) continue;
      loaded.add(file);
      for (const [, name] of read(file).matchAll(/(?:from|import\()\s*"([^"]+)"/g)) {
        if (!name?.startsWith(".") && !name?.startsWith("@pawl/")) loaded.add(name as string);
        else {
          const module = name.startsWith(".")
            ? join(dirname(file), name)
            : relative(REPOSITORY, fileURLToPath(import.meta.resolve(name)));
          files.push(module.replace(/\.js$/, ".d.ts"));
        }
      }
    }
    expect([...loaded]).toContain("protocol/dist/types.d.ts");
    expectNone([...loaded].filter((name) => !/^(node:|client\/|protocol\/)/.test(name)));
  });

  test.each([["client/dist/index.js"], ["client/dist/bundle/index.js"]])(
    "%s: nothing that is not the client's, the protocol's or Node's",
    (entry) => {
      expectNone([...loadedBy(entry)].filter((name) => !/^(node:|client\/|protocol\/)/.test(name)));
    },
  );

  test("daemon/dist/main.js: no client", () => {
    const loaded = [...loadedBy("daemon/dist/main.js")];
    expect(loaded).toContain("daemon/dist/turns/turn-loop.js");
    expect(loaded).toContain("better-sqlite3");
    expectNone(loaded.filter((name) => name.startsWith("client/")));
  });
});

describe("sources", () => {
  test("only clock.ts reads time in the daemon", () => {
    const READS_TIME =
      /\bDate\.now\b|\bnew Date\(\s*\)|\bDate\(\)|\bperformance\b|\bhrtime\b|process\.uptime/;
    expect(code.get("daemon/clock.ts")).toMatch(READS_TIME);
    expectNone(
      sources.filter(
        (path) =>
          path.startsWith("daemon/") &&
          path !== "daemon/clock.ts" &&
          READS_TIME.test((code.get(path) as string).replaceAll(/^import .* from "node:perf_hooks";$/gm, "")),
      ),
    );
  });

  test("operations are pure: nothing in domain/ does I/O, or draws its own randomness", () => {
    expectNone(
      sources
        .filter((path) => path.startsWith("daemon/domain/"))
        .flatMap((path) =>
          importsOf(path)
            .filter(
              ({ module, typeOnly }) =>
                /^node:(?!module$|buffer$)|^better-sqlite3$/.test(module) && !typeOnly,
            )
            // Hashes are pure; random bytes come in by the environment.
            .filter(
              ({ module }) =>
                module !== "node:crypto" ||
                /\brandom\w*[^;]*\bfrom "node:crypto"/.test(code.get(path) as string),
            )
            .map(({ module }) => `${path} imports ${module}`),
        ),
    );
    expectNone(
      sources.filter(
        (path) => /\bMath\.random\b/.test(code.get(path) as string) && path.startsWith("daemon/"),
      ),
    );
  });

  test("nothing is left to be done", () => {
    expectNone(
      [...sources, ...tests].filter(
        (path) => path !== "test/tidy.test.ts" && /\b(TODO|FIXME|XXX|HACK)\b/.test(read(path)),
      ),
    );
  });

  test("no line of a comment is wider than 120 columns", () => {
    expectNone(
      [...sources, ...tests].flatMap((path) =>
        read(path)
          .split("\n")
          .flatMap((line, index) =>
            /^\s*(\/\/|\/?\*)/.test(line) && line.length > 120 ? [`${path}:${index + 1}`] : [],
          ),
      ),
    );
  });

  test("nothing is skipped for good, and nothing runs alone", () => {
    expectNone(
      tests.filter(
        (path) =>
          path !== "test/tidy.test.ts" &&
          /\b(test|describe|it)\.(only|todo|skip)\b/.test(code.get(path) as string),
      ),
    );
  });

  test("no export is unused", () => {
    // `types.ts` is for users of the library, who name what they like of it.
    const entries = new Set([...ENTRIES, "protocol/types.ts"]);
    const EXPORT =
      /^export\s+(?:declare\s+)?(?:async\s+)?(?:const|let|class|interface|type|function\*?)\s+(\w+)/gm;
    const EXPORT_LIST = /^export\s+(?:type\s+)?\{([^}]*)\};/gm;
    /** By file, the files that import it, those of an entry that exports all of it included. */
    const users = new Map<string, Set<string>>();
    const use = (source: string, user: string): void => {
      users.set(source, (users.get(source) ?? new Set()).add(user));
    };
    for (const user of code.keys()) {
      for (const { module } of importsOf(user)) {
        const source = sourceOf(user, module);
        if (source === undefined) continue;
        use(source, user);
        if (!entries.has(source)) continue;
        for (const { module: exported } of importsOf(source)) use(sourceOf(source, exported) as string, user);
      }
    }
    // The function that a program starts with is used by its bin, and the text of the tables is written by the build.
    const started = new Set([
      "daemon/main.ts main",
      "client/cli/main.ts run",
      "client/process/inherited.ts keepIgnored",
      "client/cli/hook.ts runHookAlone",
      "daemon/store/migrate.ts NEW_TABLES",
      "daemon/store/migrate.ts digestOfSteps",
    ]);
    expectNone(
      sources
        .filter((path) => !entries.has(path))
        .flatMap((path) => {
          const text = code.get(path) as string;
          const names = [
            ...[...text.matchAll(EXPORT)].map(([, name]) => name as string),
            ...[...text.matchAll(EXPORT_LIST)].flatMap(([, list]) =>
              (list as string)
                .split(",")
                .map(
                  (each) =>
                    each
                      .trim()
                      .split(/\s+as\s+/)
                      .at(-1) as string,
                )
                .map((each) => each.replace(/^type\s+/, ""))
                .filter((each) => each !== ""),
            ),
          ];
          return names
            .filter((name) => !started.has(`${path} ${name}`))
            .filter((name) => {
              const word = new RegExp(`\\b${name}\\b`, "g");
              // A type belongs to the signature of something else that is exported.
              const inSignature = new RegExp(`^export (type|interface) ${name}\\b`, "m").test(text);
              if (inSignature && (text.match(word)?.length ?? 0) > 1) return false;
              return ![...(users.get(path) ?? [])].some(
                (user) => user !== path && code.get(user)?.match(word),
              );
            })
            .map((name) => `${path} exports ${name}, which nobody uses`);
        }),
    );
  });

  test("only the entries of packages are barrels", () => {
    expectNone(
      sources.filter((path) => {
        if (ENTRIES.includes(path)) return false;
        const rest = (code.get(path) as string).replaceAll(
          /\bexport\s+(?:type\s+)?[^;]*?\bfrom\s+"[^"]+";/g,
          "",
        );
        return rest.trim() === "";
      }),
    );
  });
});

describe("names and generated files", () => {
  test("no file or folder is called util, helper, common, manager or service", () => {
    const everything = readdirSync(REPOSITORY)
      .filter((name) => !GENERATED.has(name) && !name.startsWith("."))
      .flatMap((name) => (statSync(join(REPOSITORY, name)).isDirectory() ? filesBelow(name) : [name]));
    const words = (path: string): string[] =>
      path.split("/").flatMap((part, index, parts) => {
        // An ending, such as .service of systemd, is no part of the name.
        const name = index === parts.length - 1 ? basename(part).replace(/\.[^.]*$/, "") : part;
        return name.toLowerCase().split(/[^a-z]+/);
      });
    expectNone(
      everything.filter((path) =>
        words(path).some((word) => /^(util|helper|common|manager|service)(s|ities)?$/.test(word)),
      ),
    );
  });

  test("files made from the nouns are current", () => {
    const { version } = JSON.parse(read("protocol/package.json")) as { version: string };
    // `npm run openrpc` writes them anew.
    for (const [name, text] of Object.entries(generatedFiles(version))) {
      expect([name, read(`protocol/${name}`)]).toEqual([name, text]);
    }
  });

  test("all packages have one version", () => {
    const versions = ["package.json", ...PACKAGES.map((name) => `${name}/package.json`)].map(
      (path) => (JSON.parse(read(path)) as { version: string }).version,
    );
    expect(new Set(versions).size).toBe(1);
  });
});

test("an installation that fails says why, below scripts that are silent otherwise", () => {
  const directory = mkdtempSync(join(tmpdir(), "pawl-setup-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  // Without a package-lock.json, `npm ci` refuses before it asks any network.
  writeFileSync(join(directory, "package.json"), JSON.stringify({ scripts }));
  const { status, stderr } = spawnSync("npm", ["start"], { cwd: directory, encoding: "utf8" });
  expect(status).not.toBe(0);
  expect(stderr).toContain("package-lock.json");
});

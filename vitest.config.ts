import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { configDefaults, defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

// Node reads these certificates at each start, which takes 50 ms of the processor, and tests start thousands of
// processes. A test that speaks TLS gives its certificate to whoever needs it (test/certificates.ts).
delete process.env.NODE_EXTRA_CA_CERTS;

const TESTS = join(import.meta.dirname, "test");
/** By such a line a file says why it is not run where names are shared: none of its tests is about those. */
const NOT_OVER_SHARED = /^\/\/ Not over shared names: .+\.$/m;

function notOverShared(): string[] {
  return readdirSync(TESTS, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => join(TESTS, name))
    .filter((file) => NOT_OVER_SHARED.test(readFileSync(file, "utf8")));
}

/** Files that take longer than others of their size, most of all first: what begins last should not end long after all. */
const BEGIN_FIRST = [
  "client-python",
  "docs",
  "shared-failures",
  "memory",
  "packages",
  "client-go",
  "web-page",
  "on-loss",
  "locked-database",
  "systemd",
  "client-commands",
  "client-work",
  "agents",
  "witness",
  "transact-killed",
  "pipeline-former",
  "shared-on-loss",
  "history",
  "upgrade",
  "shared-schedules",
  "cli-watch",
  "cli-metrics",
  "shared-storm",
  "sequence-kill",
  "sequence-many",
  "dispenser",
].map((name) => `${name}.test.ts`);

/** The order of vitest, which is by what each file took the last time, or by its size in a clone that has run none. */
class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const index = BEGIN_FIRST.indexOf(basename(moduleId));
      return index < 0 ? BEGIN_FIRST.length : index;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: [
      ...configDefaults.exclude,
      ...(process.env.PAWL_TEST_SHARED === undefined ? [] : notOverShared()),
    ],
    globalSetup: ["test/bundle.ts", "test/postgresql-template.ts"],
    // Tests mostly wait, for programs that start and leases that end: so many leave none of two cores idle.
    maxWorkers: 5,
    sequence: { sequencer: LongFirst },
    // Files leave nothing behind in a process, so that each need not load all anew: 0.3 s of the processor a file.
    isolate: false,
    // What is built is loaded as Node loads it: to take it apart as what tests are written in took each process 1.4 s.
    server: { deps: { external: [/\/(protocol|client|daemon|web|mcp)\/dist\//] } },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // What is looked for again and again comes when it comes: a second is little on a busy machine.
    expect: { poll: { timeout: 60_000 } },
    // Where CI runs, others may stall the machine for longer than a lease lasts; what passes only then is shown.
    retry: process.env.CI === undefined ? 0 : 1,
  },
});

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/bundle.ts",
    // Tests mostly wait, for programs that start and leases that end: two a core leave no core idle.
    maxWorkers: 4,
    // Files leave nothing behind in a process, so that each need not load all anew: 0.3 s of the processor a file.
    isolate: false,
    // What is built is loaded as Node loads it: to take it apart as what tests are written in took each process 1.4 s.
    server: { deps: { external: [/\/(protocol|client|daemon|web|mcp)\/dist\//] } },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Where CI runs, others may stall the machine for longer than a lease lasts; what passes only then is shown.
    retry: process.env.CI === undefined ? 0 : 1,
  },
});

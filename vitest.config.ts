import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/bundle.ts",
    // Tests mostly wait, for programs that start and leases that end: two a core leave no core idle.
    maxWorkers: 4,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Where CI runs, others may stall the machine for longer than a lease lasts; what passes only then is shown.
    retry: process.env.CI === undefined ? 0 : 1,
  },
});

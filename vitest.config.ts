import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/bundle.ts",
    // Tests start real daemons and load them; on two cores more workers only add noise.
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Where CI runs, others may stall the machine for longer than a lease lasts; what passes only then is shown.
    retry: process.env.CI === undefined ? 0 : 1,
  },
});

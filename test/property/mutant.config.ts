// Has vitest load one file of the daemon with one text in it replaced: `PAWL_MUTANT` is {file, text, by, tests} as
// JSON, where tests is the file that is to find it out.
import { defineConfig } from "vitest/config";

const { file, text, by, tests } = JSON.parse(process.env.PAWL_MUTANT ?? "{}") as Record<string, string>;

export default defineConfig({
  root: `${import.meta.dirname}/../..`,
  plugins: [
    {
      name: "mutant",
      enforce: "pre",
      transform(code, id) {
        if (file === undefined || text === undefined || by === undefined || !id.endsWith(`/${file}`)) return;
        const occurrences = code.split(text).length - 1;
        if (occurrences !== 1) {
          throw new Error(`${JSON.stringify(text)} occurs ${occurrences} times in ${file}, not once`);
        }
        return code.replace(text, () => by);
      },
    },
  ],
  test: { include: [tests ?? ""], maxWorkers: 1, testTimeout: 1_800_000 },
});

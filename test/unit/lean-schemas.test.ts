// What the bundle of the daemon has of the schemas: what it checks params by, and nothing of what only documents say.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAst } from "rolldown/parseAst";
import { expect, test } from "vitest";

const { leanSchemas, MAKES_SCHEMAS } = (await import(
  join(import.meta.dirname, "../../daemon/lean-schemas.js")
)) as {
  MAKES_SCHEMAS: string;
  leanSchemas(): {
    transform(this: { parse: typeof parseAst }, code: string, id: string): { code: string } | null;
  };
};

function lean(code: string, id = "/x/protocol/dist/queue.js"): string | undefined {
  return leanSchemas().transform.call({ parse: parseAst }, code, id)?.code;
}

test("descriptions, names, results and examples are left out; what params are checked by is made when it is asked for", () => {
  const made = lean(
    [
      'import { z } from "zod";',
      'const thing = named("Thing", "A sentence.", z.strictObject({ n: z.int().min(1).meta({ description: "N." }) })).nullable();',
      'const get = method({ summary: "Get", params: z.strictObject({ thing: thing.meta(text) }), result: z.strictObject({ a: b }), writes: false, examples: [1] });',
    ].join("\n"),
  );
  expect(made).toBe(
    [
      `import { z as ${MAKES_SCHEMAS} } from "zod";`,
      `const thing = ${MAKES_SCHEMAS}.strictObject({ n: ${MAKES_SCHEMAS}.int().min(1) }).nullable();`,
      `const get = method({ summary: "", get params() { const value = ${MAKES_SCHEMAS}.strictObject({ thing: thing }); Object.defineProperty(this, "params", { value }); return value; }, result: undefined, writes: false, examples: [] });`,
    ].join("\n"),
  );
  expect(lean('named("a", "b", c);', "/x/daemon/dist/domain/queue/claim-named.js")).toBeUndefined();
});

test("the bundle is of one byte a character, and says nothing of schemas", () => {
  const directory = join(import.meta.dirname, "../../daemon/dist/bundle");
  const files = readdirSync(directory).filter((name) => name.endsWith(".cjs"));
  const bundle = Buffer.concat(files.map((name) => readFileSync(join(directory, name))));
  expect(bundle.every((byte) => byte < 0x80)).toBe(true);
  expect(bundle.includes("Resident memory of the process.")).toBe(false);
  expect(bundle.includes("memoryBytes")).toBe(true);
});

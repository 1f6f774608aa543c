// The list of methods is the contract: each is there, does what its schemas say, and is documented.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { METHODS, type Method, openrpc } from "@pawl/protocol";
import { ERRORS, type ErrorKind } from "@pawl/protocol/errors";
import { describe, expect, test } from "vitest";
import { sharedDaemon } from "./daemon.js";
import { Refused } from "./raw-client.js";

const REPOSITORY = join(import.meta.dirname, "..");
/** The specification lies beside a checkout of the project, and not everywhere. */
const SPECIFICATION = join(REPOSITORY, "../shared/spec");

/** Kinds of errors that the specification names and that nothing is refused with yet. */
const NOT_BUILT = new Set(["cancelled", "would_deadlock"]);

const methods: readonly Method[] = METHODS;
const examples = methods.flatMap((method) =>
  (method.examples ?? []).map((example) => [`${method.name}: ${example.name}`, method, example] as const),
);

const daemon = sharedDaemon();

/** Kinds that say that a method is not there, not that it was refused. */
const ABSENT: readonly ErrorKind[] = ["method_not_found", "internal", "parse_error", "invalid_request"];

describe("methods", () => {
  test("have names of their own, as noun and verb", () => {
    const names = methods.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^([a-z]+\.[a-z]+([A-Z][a-z]+)*|transact)$/);
  });

  test.each(methods.map((method) => [method.name, method] as const))(
    "%s is served",
    async (name, { params }) => {
      const client = await daemon().place.connect();
      const reply = await client.call(name as "daemon.ping", {}).catch((error) => error);
      if (!(reply instanceof Refused)) return expect(params.safeParse({}).success).toBe(true);
      expect(ABSENT).not.toContain(reply.kind);
      // What needs nothing is not refused for want of something.
      if (params.safeParse({}).success) expect(reply.kind).not.toBe("invalid_params");
    },
  );

  test.each(methods.map((method) => [method.name, method] as const))(
    "%s refuses what it does not know",
    async (name) => {
      const client = await daemon().place.connect();
      const { data } = await client.refusal(name, { noSuchParam: 1 });
      expect(data.kind).toBe("invalid_params");
      expect(JSON.stringify(data.issues)).toContain("noSuchParam");
      expect((await client.refusal(name, [])).data.kind).toBe("invalid_params");
    },
  );

  test.each(methods.map((method) => [method.name, method] as const))(
    "%s is declared consistently",
    (_, method) => {
      const { properties = {}, additionalProperties } = parameters(method);
      expect(additionalProperties).toBe(false);
      // A transaction cannot wait.
      if ("waitMs" in properties) expect(method.transactable).toBe(false);
      expect(method.summary).toMatch(/^[A-Z].*[^.]$/);
      for (const kind of method.errors) expect(ERRORS).toHaveProperty(kind);
      expect(new Set(method.errors).size).toBe(method.errors.length);
    },
  );
});

/** The JSON Schema of the params of a method, as it is published. */
function parameters(method: Method): {
  properties?: Record<string, unknown>;
  additionalProperties?: unknown;
} {
  return JSON.parse(JSON.stringify(jsonSchema(method.params)));
}

function jsonSchema(schema: Method["params"]): unknown {
  return schema.toJSONSchema({ io: "input" });
}

describe("examples", () => {
  test("are there", () => {
    expect(examples.length).toBeGreaterThan(5);
  });

  test.each(examples)("%s fits its schemas", (_, method, { params, result }) => {
    expect(method.params.safeParse(params).error).toBeUndefined();
    expect(method.result.safeParse(result).error).toBeUndefined();
  });

  test.each(examples)("%s is taken by a daemon", async (_, method, { params }) => {
    const client = await daemon().place.connect();
    const reply = await client
      .call(method.name as "daemon.ping", params as Record<string, never>)
      .catch((error) => error);
    // What it names may not exist there; RawClient holds everything else to the schema of the result.
    if (!(reply instanceof Refused)) return expect(reply).toBeTypeOf("object");
    expect([...ABSENT, "invalid_params"]).not.toContain(reply.kind);
  });

  test("of sequences are what a new daemon answers, one after the other", async () => {
    const client = await daemon().place.connect();
    for (const [, method, { params, result }] of examples) {
      if (method.name !== "sequence.format" && method.name !== "sequence.parse") continue;
      expect(await client.call(method.name as "sequence.parse", params as { id: string })).toEqual(result);
    }
  });
});

describe("the OpenRPC document", () => {
  test("is what the daemon answers, and the committed file", async () => {
    const client = await daemon().place.connect();
    const { version } = await client.call("daemon.info", {});
    const discovered = await client.call("rpc.discover", {});
    expect(discovered).toEqual(JSON.parse(JSON.stringify(openrpc(version))));
    expect(discovered).toEqual(JSON.parse(readFileSync(join(REPOSITORY, "protocol/openrpc.json"), "utf8")));
  });

  test("has every method, and each reference leads somewhere", () => {
    const document = JSON.parse(JSON.stringify(openrpc("1.2.3"))) as {
      openrpc: string;
      info: { version: string };
      methods: {
        name: string;
        params: { name: string; required: boolean }[];
        examples?: { params: unknown[] }[];
      }[];
    };
    expect(document.openrpc).toMatch(/^1\.\d+\.\d+$/);
    expect(document.info.version).toBe("1.2.3");
    expect(document.methods.map(({ name }) => name)).toEqual(methods.map(({ name }) => name));
    for (const [, reference] of JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)) {
      const target = (reference as string)
        .split("/")
        .reduce<unknown>((value, part) => (value as Record<string, unknown> | undefined)?.[part], document);
      expect(target, reference).toBeDefined();
    }
    for (const { name, params } of document.methods) {
      // Required ones first, as the OpenRPC specification wants them.
      const required = params.map((param) => param.required);
      expect([name, ...required]).toEqual([name, ...required.toSorted((a, b) => Number(b) - Number(a))]);
    }
  });
});

describe.skipIf(!existsSync(SPECIFICATION))("the table of errors", () => {
  const read = (file: string): string => readFileSync(join(SPECIFICATION, file), "utf8");

  /** Kind, code and what is said, of each row of the table in wire.md. */
  const rows = (): [string, number, string][] =>
    [...read("wire.md").matchAll(/^\| (-32\d{3}) \| (\w+) \| (.*) \|$/gm)]
      .map(([, code, kind, when]): [string, number, string] => [kind as string, Number(code), when as string])
      .filter(([kind]) => !NOT_BUILT.has(kind));

  /** The kinds of the board, which pipeline.md names in two sentences. */
  const boardKinds = (): string[] => {
    const [, section] = /^## Errors\n([\s\S]*?)\n## /m.exec(read("pipeline.md")) ?? [];
    const [, changes, keys] = /For changes: ([\s\S]*?)\. For keys: ([\s\S]*?)\./.exec(section ?? "") ?? [];
    return `${changes}, ${keys}`
      .replaceAll(/\([^)]*\)/g, "")
      .split(",")
      .map((kind) => kind.trim());
  };

  test("has the rows of wire.md and pipeline.md, and no others", () => {
    expect(rows().length).toBeGreaterThan(15);
    expect(boardKinds().length).toBeGreaterThan(15);
    const kinds = [...rows().map(([kind]) => kind), ...boardKinds()];
    expect(kinds.filter((kind) => !Object.hasOwn(ERRORS, kind))).toEqual([]);
    // pipeline.md names one more where it says what happens to a corrupt log.
    const others = Object.keys(ERRORS).filter((kind) => !kinds.includes(kind));
    expect(others.filter((kind) => !read("pipeline.md").includes(`\`${kind}\``))).toEqual([]);
  });

  test("has the codes of wire.md, and those of the board from -32020 on", () => {
    for (const [kind, code] of rows()) expect([kind, ERRORS[kind as ErrorKind].code]).toEqual([kind, code]);
    for (const kind of boardKinds()) expect(ERRORS[kind as ErrorKind].code).toBeLessThanOrEqual(-32020);
  });

  test("calls retryable what the specification calls so", () => {
    for (const [kind, , when] of rows()) {
      if (when.includes("retryable"))
        expect([kind, ERRORS[kind as ErrorKind].retryable]).toEqual([kind, true]);
    }
    expect(ERRORS.clock_ahead.retryable).toBe(true);
  });
});

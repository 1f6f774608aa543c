// openrpc.json under the tools of others: those of OpenRPC, ajv at its strictest, and Python's jsonschema, which reads
// every schema, and checks every example.
// Not over shared names: it starts no daemon.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Ajv } from "ajv";
import { expect, test } from "vitest";

/** The tools of OpenRPC, as far as they are used here: their own types are sources that our compiler refuses. */
const openRpcTools = createRequire(import.meta.url)("@open-rpc/schema-utils-js") as {
  validateOpenRPCDocument(document: object): true | Error;
  parseOpenRPCDocument(document: object): Promise<object>;
  MethodCallValidator: new (document: object) => { validate(method: string, params: object): unknown };
};

const DOCUMENT = join(import.meta.dirname, "../../protocol/openrpc.json");

/**
 * Reads a document from its input, and prints what it found: how much of each kind it has looked at, and a line for
 * each schema that is none, each example that its schema refuses, and each method whose params take a member too many.
 */
const CHECKER = `
import json, sys
from jsonschema import Draft7Validator, RefResolver
document = json.load(sys.stdin)
resolver = RefResolver("", document)
seen = {"components": 0, "params": 0, "results": 0, "errors": 0, "paramExamples": 0, "resultExamples": 0}
wrong = []

def reader(kind, where, schema):
    seen[kind] += 1
    try:
        Draft7Validator.check_schema(schema)
    except Exception as error:
        wrong.append(f"{where}: {error.message}")
    return Draft7Validator(schema, resolver=resolver)

def walk(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            resolver.resolve(value["$ref"])
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from walk(each)

for name, schema in document["components"]["schemas"].items():
    reader("components", name, schema)
for name, error in document["components"]["errors"].items():
    reader("errors", name, error["data"])
for object in walk(document["components"]):
    pass
for method in document["methods"]:
    name = method["name"]
    whole = reader("params", name, method["x-params"])
    each = {param["name"]: reader("params", f"{name} {param['name']}", param["schema"]) for param in method["params"]}
    result = reader("results", name, method["result"]["schema"]) if "result" in method else None
    for example in method["examples"]:
        where = f"{name}, {example['name']}"
        given = {param["name"]: param["value"] for param in example["params"]}
        seen["paramExamples"] += 1
        wrong += [f"{where}: params: {error.message}" for error in whole.iter_errors(given)]
        for param, value in given.items():
            wrong += [f"{where}: {param}: {error.message}" for error in each[param].iter_errors(value)]
        if result is not None:
            seen["resultExamples"] += 1
            wrong += [f"{where}: result: {error.message}" for error in result.iter_errors(example["result"]["value"])]
    if method["x-direction"] == "toDaemon" and whole.is_valid({**given, "no such param": 1}):
        wrong.append(f"{name}: takes a param that it does not have")
print(json.dumps({"seen": seen, "wrong": wrong}))
`;

interface OpenRpc {
  readonly methods: readonly {
    readonly name: string;
    readonly params: readonly { schema: object }[];
    readonly "x-params": object;
    readonly result?: { schema: object };
    readonly examples: readonly {
      readonly params: readonly { name: string; value: unknown }[];
      readonly result?: { value: unknown };
    }[];
  }[];
  readonly components: {
    readonly schemas: Record<string, { pattern?: string; properties?: Record<string, unknown> }>;
    readonly errors: Record<string, { data: object }>;
  };
}

/** The first Python that has the module may be another than the one that runs the tests. */
const python = ["python3", "/usr/bin/python3"].find(
  (program) => spawnSync(program, ["-c", "import jsonschema"]).status === 0,
);
if (python === undefined) {
  console.warn("openrpc.json is not checked by Python: python3-jsonschema is not installed");
}

/** The checker's answer about a document. */
function checked(document: OpenRpc): { seen: Record<string, number>; wrong: string[] } {
  const { status, stdout, stderr } = spawnSync(python as string, ["-W", "ignore", "-c", CHECKER], {
    input: JSON.stringify(document),
    encoding: "utf8",
    maxBuffer: 16 * 1024 * 1024,
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

const read = (): OpenRpc => JSON.parse(readFileSync(DOCUMENT, "utf8"));

test("ajv in its strict mode compiles every schema", () => {
  const { methods, components } = read();
  const schemas = [
    ...Object.values(components.schemas),
    ...Object.values(components.errors).map(({ data }) => data),
    ...methods.flatMap((method) => [
      method["x-params"],
      ...method.params.map(({ schema }) => schema),
      ...(method.result === undefined ? [] : [method.result.schema]),
    ]),
  ];
  const ajv = new Ajv({ strict: true });
  ajv.addVocabulary(["components", "schemas"]);
  const wrong = { type: "object", required: ["a"] };
  ajv.addSchema({ $id: "openrpc", components, schemas: [...schemas, wrong] });
  for (const index of schemas.keys())
    expect(ajv.getSchema(`openrpc#/schemas/${index}`)).toBeTypeOf("function");
  expect(() => ajv.getSchema(`openrpc#/schemas/${schemas.length}`)).toThrow("strict mode");
});

test("the tools of OpenRPC take the document, and the params of every example", async () => {
  const document = read();
  expect(openRpcTools.validateOpenRPCDocument(document)).toBe(true);
  // The validator that their mock server asks.
  const parsed = await openRpcTools.parseOpenRPCDocument(structuredClone(document));
  const validator = new openRpcTools.MethodCallValidator(parsed);
  for (const { name, examples } of document.methods) {
    for (const { params } of examples) {
      const given = Object.fromEntries(params.map((param) => [param.name, param.value]));
      expect([name, validator.validate(name, given)]).toEqual([name, []]);
    }
  }
  expect(validator.validate("sequence.next", { type: 1 })).not.toEqual([]);
});

test.runIf(python !== undefined)("Python's jsonschema takes every schema and every example", () => {
  const document = read();
  const { methods, components } = document;
  const withResult = methods.filter(({ result }) => result !== undefined);
  const examples = (of: OpenRpc["methods"]) => of.flatMap((method) => method.examples).length;
  expect(checked(document)).toEqual({
    seen: {
      components: Object.keys(components.schemas).length,
      errors: Object.keys(components.errors).length,
      params: methods.length + methods.flatMap(({ params }) => params).length,
      results: withResult.length,
      paramExamples: examples(methods),
      resultExamples: examples(withResult),
    },
    wrong: [],
  });
});

test.runIf(python !== undefined)("Python's jsonschema refuses what is wrong in a document", () => {
  const document = read();
  // A keyword of the wrong type, and examples that their schemas do not allow.
  Object.assign(document.components.schemas.QueueClaimResult as object, { required: "claim" });
  for (const { examples } of document.methods)
    for (const { result } of examples) if (result) result.value = "none";
  const { wrong } = checked(document);
  expect(wrong[0]).toMatch(/^QueueClaimResult: 'claim' is not/);
  expect(wrong.length).toBeGreaterThan(document.methods.length / 2);
});

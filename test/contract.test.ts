// The list of methods is the contract: each is there, does what its schemas say, and is documented.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { EVENT_KINDS, type EventNoun, METHODS, type Method, NOTIFICATIONS, REQUESTS } from "@pawl/protocol";
import { ERRORS, type ErrorKind } from "@pawl/protocol/errors";
import { openrpc } from "@pawl/protocol/openrpc";
import { describe, expect, test } from "vitest";
import { sharedDaemon } from "./daemon.js";
import { Refused } from "./raw-client.js";
import {
  hasSpecification,
  isInCode,
  specifiedBoardKinds,
  specifiedErrors,
  specifiedEventKinds,
  specifiedNames,
  specifiedParams,
} from "./specification.js";

const REPOSITORY = join(import.meta.dirname, "..");

const methods: readonly Method[] = METHODS;
const examples = methods.flatMap((method) =>
  method.examples.map((example) => [`${method.name}: ${example.name}`, method, example] as const),
);

interface Schema {
  readonly [keyword: string]: unknown;
}

const document = JSON.parse(JSON.stringify(openrpc("1.2.3"))) as {
  openrpc: string;
  info: { version: string };
  methods: {
    name: string;
    params: { name: string; required: boolean; description?: string; schema: Schema }[];
    result?: { schema: Schema };
    examples: object[];
    errors?: { $ref: string }[];
    tags: { $ref: string }[];
    "x-direction": string;
    "x-params": { $ref: string };
  }[];
  components: { schemas: Record<string, Schema> };
};
const { schemas } = document.components;

/** The value behind a reference of the document. */
function behind(reference: string): unknown {
  return reference
    .replace(/^#\//, "")
    .split("/")
    .reduce<unknown>((value, part) => (value as Record<string, unknown> | undefined)?.[part], document);
}

/** Every object in a JSON value, with the way to it. */
function* objectsIn(value: unknown, path = ""): Generator<[string, Schema]> {
  if (typeof value !== "object" || value === null) return;
  if (!Array.isArray(value)) yield [path, value as Schema];
  for (const [key, each] of Object.entries(value)) yield* objectsIn(each, `${path}/${key}`);
}

/** The names of all schemas that can be reached from a value. */
function reachableFrom(value: unknown, found = new Set<string>()): Set<string> {
  for (const [, { $ref }] of objectsIn(value)) {
    const [, name] = /^#\/components\/schemas\/(\w+)$/.exec(String($ref)) ?? [];
    if (name === undefined || found.has(name)) continue;
    found.add(name);
    reachableFrom(schemas[name], found);
  }
  return found;
}

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
      // A method that needs nothing is not refused for want of something.
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
      expect((await client.refusal(name, [1])).data.kind).toBe("invalid_params");
    },
  );

  test.each(methods.map((method) => [method.name, method] as const))(
    "%s is declared consistently",
    (_, method) => {
      const { properties = {}, additionalProperties } = parameters(method);
      expect(additionalProperties).toBe(false);
      // A transaction cannot wait, but it can take what is there without waiting.
      if ("waitMs" in properties && !GRANTING.has(method.name)) expect(method.transactable).toBe(false);
      if (typeof method.repeatable === "object") {
        const { withKey, ofEach } = method.repeatable;
        expect(builtParams(method.name)).toEqual(
          expect.arrayContaining(ofEach ? [ofEach, withKey] : [withKey]),
        );
      }
      expect(method.summary).toMatch(/^[A-Z].*[^.]$/);
      for (const kind of method.errors) expect(ERRORS).toHaveProperty(kind);
      expect(new Set(method.errors).size).toBe(method.errors.length);
    },
  );
});

/** The params of a method as they are published. */
function parameters(method: { name: string }): {
  properties?: Record<string, Schema>;
  additionalProperties?: unknown;
} {
  const published = document.methods.find(({ name }) => name === method.name);
  return behind(published?.["x-params"].$ref ?? "") as Schema;
}

test.each(examples)("the example %s fits its schemas", (_, method, { params, result }) => {
  expect(method.params.safeParse(params).error).toBeUndefined();
  expect(method.result.safeParse(result).error).toBeUndefined();
});

test.each(NOTIFICATIONS.map((each) => [each.name, each] as const))(
  "the example of %s fits its schema",
  (_, { params, example }) => {
    expect(params.safeParse(example.params).error).toBeUndefined();
  },
);

describe("the OpenRPC document", () => {
  test("is what the daemon answers, and the committed file", async () => {
    const client = await daemon().place.connect();
    const { version } = await client.call("daemon.info", {});
    const discovered = await client.call("rpc.discover", {});
    expect(discovered).toEqual(JSON.parse(JSON.stringify(openrpc(version))));
    expect(discovered).toEqual(JSON.parse(readFileSync(join(REPOSITORY, "protocol/openrpc.json"), "utf8")));
  });

  test("has every method, request and notification, and each reference leads somewhere", () => {
    expect(document.openrpc).toMatch(/^1\.\d+\.\d+$/);
    expect(document.info.version).toBe("1.2.3");
    expect(document.methods.map(({ name }) => name)).toEqual(
      [...METHODS, ...REQUESTS, ...NOTIFICATIONS].map(({ name }) => name),
    );
    for (const [path, { $ref }] of objectsIn(document)) {
      if (typeof $ref === "string") expect(behind($ref), `${path}: ${$ref}`).toBeDefined();
    }
    for (const { name, params, examples, tags, errors, ...method } of document.methods) {
      // Required ones first, as the OpenRPC specification wants them.
      const required = params.map((param) => param.required);
      expect([name, ...required]).toEqual([name, ...required.toSorted((a, b) => Number(b) - Number(a))]);
      expect(examples.length, name).toBeGreaterThan(0);
      expect(tags).toEqual([{ $ref: `#/components/tags/${name.split(".")[0]}` }]);
      const calls = METHODS.some((each) => each.name === name);
      expect([name, method["x-direction"]]).toEqual([name, calls ? "toDaemon" : "toClient"]);
      expect([name, errors !== undefined]).toEqual([name, calls]);
      const whole = behind(method["x-params"].$ref) as { properties: object };
      expect(Object.keys(whole.properties)).toEqual(params.map((param) => param.name));
    }
  });

  test("describes each param and each member", () => {
    const undescribed = [
      ...document.methods.flatMap(({ name, params }) =>
        params.filter(({ description }) => !description).map((param) => `${name}: ${param.name}`),
      ),
      ...Object.entries(schemas).flatMap(([name, schema]) =>
        Object.entries((schema.properties ?? {}) as Record<string, Schema>)
          .filter(
            ([, { description, $ref }]) => !(description ?? (behind(String($ref)) as Schema)?.description),
          )
          .map(([member]) => `${name}: ${member}`),
      ),
    ];
    // .meta({ description }) on the member in protocol/<noun>.ts.
    expect(undescribed).toEqual([]);
    for (const schema of Object.values(schemas))
      expect(schema.description, String(schema.title)).toBeTruthy();
  });

  test("has each object once, under its name", () => {
    const inline = Object.entries(schemas).flatMap(([name, schema]) => {
      expect(schema.title).toBe(name);
      expect(name).toMatch(/^([A-Z][a-z0-9]*)+$/);
      return [...objectsIn(schema)]
        .filter(
          ([path, { properties, type }]) => path !== "" && type === "object" && properties !== undefined,
        )
        .map(([path]) => `${name}${path}`);
    });
    // named("Thing", "A sentence.", z.strictObject({ ... })) in protocol/<noun>.ts.
    expect(inline).toEqual([]);
  });

  test("is closed where callers send, and open where the daemon does", () => {
    const isClosed = (schema: Schema | undefined) =>
      [...objectsIn(schema)].some(([, { additionalProperties }]) => additionalProperties === false);
    const sent = document.methods.filter((method) => method["x-direction"] === "toDaemon");
    const params = reachableFrom(sent.map((method) => method["x-params"]));
    for (const name of params) {
      const { type, properties } = schemas[name] as Schema;
      if (type === "object" && properties !== undefined)
        expect([name, isClosed(schemas[name])]).toEqual([name, true]);
    }
    const received = document.methods.map((method) =>
      method["x-direction"] === "toDaemon" ? [method.result, method.errors] : method["x-params"],
    );
    for (const name of reachableFrom([received, behind("#/components/errors")])) {
      expect([name, isClosed(schemas[name])]).toEqual([name, false]);
    }
  });

  test("has patterns that JavaScript, Python, Go, Java and PCRE read alike", () => {
    // A schema with a pattern is one of a text; an example may have a member of that name.
    const patterns = [...objectsIn(document)].flatMap(([, { type, pattern }]) =>
      type === "string" && typeof pattern === "string" ? [pattern] : [],
    );
    expect(patterns.length).toBeGreaterThan(10);
    // Literals, escaped punctuation, classes of these and of ranges, groups, alternatives, counts, and the two ends.
    const literal = String.raw`[A-Za-z0-9 _/:@,;<>=!"'#%&~\x60-]|\\[.*+?()[\]{}|^$/\\-]`;
    const set = String.raw`\[\^?(?:[A-Za-z0-9]-[A-Za-z0-9]|[A-Za-z0-9._/+=:@,-]|\\[.\-\]\\/])+\]`;
    const portable = new RegExp(
      String.raw`^\^(?:${literal}|${set}|\((?:\?:)?|\)|\||[*+?]|\{\d+(?:,\d*)?\})*\$$`,
    );
    // A rule that goes beyond this is a .refine() of the schema: checked by the daemon, not published.
    expect(patterns.filter((pattern) => !portable.test(pattern))).toEqual([]);
    expect(portable.test("^[^\\0\\p{Surrogate}]*$")).toBe(false);
  });
});

/** Methods that wait where they are asked to, and that a transaction takes as they are at the moment (wire.md). */
const GRANTING = new Set([
  "path.reserve",
  "queue.enqueue",
  "queue.claim",
  "lease.acquire",
  "command.lease",
  "path.reserve",
  "pipeline.claim",
]);

/**
 * The specification is ahead of the code: these names are in it, and nobody has built them yet. A name leaves
 * the list with the change that builds it.
 */
const NOT_YET_BUILT: {
  /** Methods, requests to clients and notifications. */
  names: string[];
  kinds: string[];
  /** Params of methods that are built; those of other methods come with the method. */
  params: Record<string, string[]>;
} = {
  names: [],
  kinds: [],
  params: {},
};

/** The code has these and the specification's signatures do not, though some say it in prose. */
const ONLY_IN_CODE = {
  names: ["command.cancelled", "peer.seen"],
  kinds: ["log_corrupt"],
  params: {
    transact: ["dryRun"],
    // As for leases.
    "path.reserve": ["onLoss", "task", "awaitsChildren"],
    "path.heartbeat": ["ttlMs", "note"],
    "daemon.stats": ["queues"],
    "deployment.list": ["after", "limit"],
    "pipeline.heads": ["known", "sign"],
    "pipeline.changes": ["cuts"],
    "pipeline.apply": ["settled"],
    "pipeline.list": ["perStage"],
    "pipeline.read": ["notes", "before"],
    // Writes under a claim say so by its token.
    "pipeline.delete": ["claim"],
    "peer.trust": ["board"],
  } as Record<string, string[]>,
};

const builtNames: string[] = [...METHODS, ...NOTIFICATIONS, ...REQUESTS].map(({ name }) => name);

/** The params of a method, and the members of the elements of those that are arrays. */
function builtParams(name: string): string[] {
  const method = methods.find((each) => each.name === name);
  if (method === undefined) return [];
  const { properties = {} } = parameters(method);
  const members = Object.values(properties).flatMap(({ items }) => {
    const { $ref, ...inline } = (items ?? {}) as Schema;
    const element = $ref === undefined ? inline : (behind($ref as string) as Schema);
    return Object.keys((element.properties ?? {}) as object);
  });
  return [...Object.keys(properties), ...members];
}

describe("the list of what is not yet built", () => {
  const { names, kinds, params } = NOT_YET_BUILT;
  const eachParam = Object.entries(params).flatMap(([method, list]) =>
    list.map((param) => [method, param] as const),
  );

  test("leaves the list when it is", () => {
    expect(names.filter((name) => builtNames.includes(name))).toEqual([]);
    expect(kinds.filter((kind) => Object.hasOwn(ERRORS, kind))).toEqual([]);
    expect(eachParam.filter(([method, param]) => builtParams(method).includes(param))).toEqual([]);
  });

  test("has params of methods that are built", () => {
    expect(Object.keys(params).filter((method) => !builtNames.includes(method))).toEqual([]);
  });

  test.skipIf(!hasSpecification)("is in the specification", () => {
    expect(names.filter((name) => !specifiedNames().includes(name))).toEqual([]);
    expect(kinds.filter((kind) => !specifiedErrors().some((error) => error.kind === kind))).toEqual([]);
    expect(eachParam.filter(([, param]) => !isInCode(param))).toEqual([]);
  });
});

describe("the kinds of events", () => {
  /** Each leaves the list once something tells of it. */
  const NOT_YET_TOLD: Partial<Record<EventNoun, string[]>> = {};

  /** Where the effects on a noun are told. */
  const SOURCES: Record<EventNoun, readonly string[]> = {
    queue: ["domain/queue"],
    lease: ["domain/lease"],
    path: ["domain/path"],
    command: ["domain/command"],
    schedule: ["domain/schedule"],
    item: ["domain/board", "domain/work"],
    sequence: ["domain/sequence"],
    daemon: ["daemon.ts", "turn-reports.ts", "turns/journal.ts"],
  };

  /** The kinds of a noun that stand in a file which tells of effects on it. */
  function toldOf(noun: EventNoun): string[] {
    const files = SOURCES[noun].flatMap((place) => {
      const path = join(import.meta.dirname, "../daemon", place);
      if (place.endsWith(".ts")) return [path];
      return readdirSync(path)
        .filter((name) => name.endsWith(".ts"))
        .map((name) => join(path, name));
    });
    const texts = files
      .map((path) => readFileSync(path, "utf8"))
      .filter((text) => /(?:tell\w*|note|count)\(|kind: /.test(text));
    const said = texts.join("\n").replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*|^.*readonly .*$/gm, "");
    return EVENT_KINDS[noun].filter((kind) => said.includes(`"${kind}"`));
  }

  test.each(Object.keys(EVENT_KINDS) as EventNoun[])("of %s are told by something", (noun) => {
    const later = NOT_YET_TOLD[noun] ?? [];
    expect(toldOf(noun).filter((kind) => later.includes(kind))).toEqual([]);
    expect(EVENT_KINDS[noun].filter((kind) => !toldOf(noun).includes(kind))).toEqual(later);
  });

  test.skipIf(!hasSpecification)("are those of the specification", () => {
    const sorted = (kinds: Readonly<Record<string, readonly string[]>>) =>
      Object.entries(kinds)
        .map(([noun, list]) => [noun, [...list].sort()])
        .sort();
    expect(sorted(EVENT_KINDS)).toEqual(sorted(specifiedEventKinds()));
  });
});

/** Params that a row of several methods says of one of the others. */
const OF_OTHERS: Readonly<Record<string, readonly string[]>> = { "path.heartbeat": ["patterns"] };

describe.skipIf(!hasSpecification)("the specification", () => {
  test("names each method, request and notification, and no others", () => {
    expect(specifiedNames().length).toBeGreaterThan(90);
    expect(specifiedNames()).toEqual(
      [...builtNames, ...NOT_YET_BUILT.names].filter((name) => !ONLY_IN_CODE.names.includes(name)).sort(),
    );
  });

  test.each([...specifiedParams()].filter(([name]) => methods.some((method) => method.name === name)))(
    "names the params of %s, and no others",
    (name, specified) => {
      const { properties = {} } = parameters(methods.find((method) => method.name === name) as Method);
      const notYetBuilt = NOT_YET_BUILT.params[name] ?? [];
      const built = builtParams(name);
      const ofOthers = OF_OTHERS[name] ?? [];
      expect(specified.filter((param) => ![...built, ...notYetBuilt, ...ofOthers].includes(param))).toEqual(
        [],
      );
      const others = Object.keys(properties).filter((param) => !specified.includes(param));
      expect(others).toEqual(ONLY_IN_CODE.params[name] ?? []);
    },
  );
});

describe.skipIf(!hasSpecification)("the table of errors", () => {
  const built = specifiedErrors().filter(({ kind }) => !NOT_YET_BUILT.kinds.includes(kind));

  test("has the rows of wire.md and pipeline.md, and no others", () => {
    expect(specifiedErrors().length).toBeGreaterThan(15);
    expect(specifiedBoardKinds().length).toBeGreaterThan(15);
    // pipeline.md names one more where it says what happens to a corrupt log.
    expect(ONLY_IN_CODE.kinds.filter((kind) => !isInCode(kind))).toEqual([]);
    const kinds = [...built.map(({ kind }) => kind), ...specifiedBoardKinds(), ...ONLY_IN_CODE.kinds];
    expect(Object.keys(ERRORS).sort()).toEqual(kinds.sort());
  });

  test("has the codes of wire.md, and those of the board from -32020 on", () => {
    for (const { kind, code } of built) expect([kind, ERRORS[kind as ErrorKind].code]).toEqual([kind, code]);
    for (const kind of specifiedBoardKinds())
      expect(ERRORS[kind as ErrorKind].code).toBeLessThanOrEqual(-32020);
  });

  test("calls retryable what the specification calls so", () => {
    for (const { kind, when } of built) {
      if (when.includes("retryable"))
        expect([kind, ERRORS[kind as ErrorKind].retryable]).toEqual([kind, true]);
    }
    expect(ERRORS.clock_ahead.retryable).toBe(true);
  });
});

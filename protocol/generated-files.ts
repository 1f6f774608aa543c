import { METHODS } from "./methods.js";
import { openrpc } from "./openrpc.js";
import { goTypesOf, pythonTypesOf } from "./other-languages.js";
import { type ReferencedDocument, referenceOf } from "./reference.js";
import { type Document, typesOf } from "./typescript.js";

/** The files that are made from the nouns, by their names as seen from this package. */
export function generatedFiles(version: string): Record<string, string> {
  const document = openrpc(version);
  return {
    "openrpc.json": `${JSON.stringify(document, null, 2)}\n`,
    "types.ts": typesOf(document as unknown as Document),
    "../docs/reference.md": referenceOf(document as unknown as ReferencedDocument),
    "repeatable-methods.ts": repeatableMethods(),
    "../clients/python/pawl/types.py": pythonTypesOf(document as unknown as Document),
    "../clients/python/pawl/repeatable.py": repeatableMethodsForPython(),
    "../clients/go/types.go": goTypesOf(document as unknown as Document),
    "../clients/go/repeatable.go": repeatableMethodsForGo(),
  };
}

/** As the formatter has it. */
const MAX_LINE_LENGTH = 110;

/** A value as our code writes it. */
function literal(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{ ${Object.entries(value)
    .map(([key, member]) => `${key}: ${literal(member)}`)
    .join(", ")} }`;
}

/** A source of a few lines in place of the schemas, which a client does not load. */
function repeatableMethods(): string {
  const lines = METHODS.filter(({ repeatable }) => repeatable !== false).map(({ name, repeatable }) => {
    if (repeatable === true) return `  "${name}": true,\n`;
    const members = Object.entries(repeatable).map(([key, value]) => `${key}: ${literal(value)}`);
    const line = `  "${name}": { ${members.join(", ")} },\n`;
    if (line.length <= MAX_LINE_LENGTH) return line;
    return `  "${name}": {\n${members.map((member) => `    ${member},\n`).join("")}  },\n`;
  });
  return [
    "// Made from the nouns by `npm run openrpc`, not by hand.\n",
    'import type { Repeatable } from "./method.js";\n\n',
    "/** Methods that may be sent again, always or with a key; the others never. */\n",
    "export const REPEATABLE_METHODS: Readonly<Record<string, Repeatable>> = {\n",
    ...lines,
    "};\n",
  ].join("");
}

/** Each method and its rule: nothing, or the key that it needs, and the param each element of which needs it. */
const RULES: [name: string, rule: string[]][] = METHODS.filter(({ repeatable }) => repeatable !== false).map(
  ({ name, repeatable }) => {
    const { withKey, ofEach } = typeof repeatable === "object" ? repeatable : {};
    return [name, [withKey, ofEach].filter((part) => part !== undefined)];
  },
);

/** Values of params with which a repetition would do something again, by the names of the params. */
const UNLESS: ReadonlyMap<string, readonly string[]> = new Map(
  METHODS.flatMap(({ repeatable }) =>
    Object.entries((typeof repeatable === "object" ? repeatable.unless : undefined) ?? {}),
  ),
);

function repeatableMethodsForPython(): string {
  const tuple = (parts: string[]): string =>
    `(${parts.map((part) => `"${part}"`).join(", ")}${parts.length === 1 ? "," : ""})`;
  return [
    '"""Made from the nouns by `npm run openrpc`, not by hand."""\n\n',
    "from typing import Dict, Tuple\n\n",
    "# Methods that may be sent again: (), or the key that is needed, and the param each element of which needs it.\n",
    "REPEATABLE_METHODS: Dict[str, Tuple[str, ...]] = {\n",
    ...RULES.map(([name, rule]) => `    "${name}": ${tuple(rule)},\n`),
    "}\n\n",
    "# Values of params with which a repetition would do something again.\n",
    "NEVER_REPEATED: Dict[str, Tuple[str, ...]] = {\n",
    ...[...UNLESS].map(([param, values]) => `    "${param}": ${tuple([...values])},\n`),
    "}\n",
  ].join("");
}

function repeatableMethodsForGo(): string {
  // As gofmt has it: values in one column.
  const width = Math.max(...RULES.map(([name]) => name.length));
  return [
    "// Made from the nouns by `npm run openrpc`, not by hand.\n\n",
    "package pawl\n\n",
    "// repeatableMethods may be sent again: the rule is nil, or the key that is needed, and the param each element of which\n",
    "// needs it.\n",
    "var repeatableMethods = map[string][]string{\n",
    ...RULES.map(([name, rule]) => {
      const value = rule.length === 0 ? "nil" : `{${rule.map((part) => `"${part}"`).join(", ")}}`;
      return `\t"${name}":${" ".repeat(width - name.length + 1)}${value},\n`;
    }),
    "}\n\n",
    "// neverRepeated has values of params with which a repetition would do something again.\n",
    "var neverRepeated = map[string][]string{\n",
    ...[...UNLESS].map(
      ([param, values]) => `\t"${param}": {${values.map((value) => `"${value}"`).join(", ")}},\n`,
    ),
    "}\n",
  ].join("");
}

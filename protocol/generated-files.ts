import { METHODS } from "./methods.js";
import { openrpc } from "./openrpc.js";

/** The files that are made from the nouns, by their names in this package. */
export function generatedFiles(version: string): Record<string, string> {
  return {
    "openrpc.json": `${JSON.stringify(openrpc(version), null, 2)}\n`,
    "repeatable-methods.ts": repeatableMethods(),
  };
}

/** A source of a few lines in place of the schemas, which a client does not load. */
function repeatableMethods(): string {
  const lines = METHODS.filter(({ repeatable }) => repeatable !== false).map(({ name, repeatable }) => {
    const members = Object.entries(repeatable).map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
    return `  "${name}": ${repeatable === true ? "true" : `{ ${members.join(", ")} }`},\n`;
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

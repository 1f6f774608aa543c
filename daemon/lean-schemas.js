import { sep } from "node:path";

/** The files of schemas, as they were compiled. */
const PROTOCOL = `${sep}protocol${sep}dist${sep}`;

/**
 * The name of zod in those files as the plugin leaves them, which nothing else has. So the bundler can be told that a
 * schema which nobody uses is not worth making, and of no other call that it may be left out.
 */
export const MAKES_SCHEMAS = "makesSchemasOfTheProtocol";

/**
 * A plugin that leaves out of the schemas what the daemon never looks at: results, examples and descriptions, which are
 * for the document of the interface and for types, and are made from the schemas before the daemon is packed. Each
 * description is a schema of its own to zod, a copy of the one that it describes, so a daemon would have twice as many,
 * and again as many for its results, for as long as it runs. The schema of a method's params is made when somebody
 * calls that method: to make all is some hundredths of a start, and few daemons are asked for each of a hundred.
 */
export function leanSchemas() {
  return {
    name: "lean-schemas",
    transform(code, id) {
      if (!id.includes(PROTOCOL)) return null;
      const edits = [];
      visit(this.parse(code), edits);
      let lean = code;
      for (const { start, end, text } of edits.sort((a, b) => b.start - a.start)) {
        lean = `${lean.slice(0, start)}${text}${lean.slice(end)}`;
      }
      return edits.length === 0 ? null : { code: lean, map: null };
    },
  };
}

/** Finds what to leave out, from the outside in: nothing is looked for in what goes anyway. */
function visit(node, edits) {
  if (Array.isArray(node)) {
    for (const each of node) visit(each, edits);
    return;
  }
  if (typeof node?.type !== "string") return;
  if (node.type === "ImportSpecifier") {
    if (node.local.name === "z")
      edits.push({ start: node.start, end: node.end, text: `z as ${MAKES_SCHEMAS}` });
    return;
  }
  if (node.type === "MemberExpression" && !node.computed) return visit(node.object, edits);
  if (node.type === "Identifier" && node.name === "z") {
    edits.push({ start: node.start, end: node.end, text: MAKES_SCHEMAS });
    return;
  }
  if (node.type === "CallExpression") {
    const { callee, arguments: given } = node;
    // schema.meta({ ... }) is the schema.
    if (callee.type === "MemberExpression" && callee.property.name === "meta" && given.length === 1) {
      edits.push({ start: callee.object.end, end: node.end, text: "" });
      return visit(callee.object, edits);
    }
    // named("Thing", "A sentence.", schema) is the schema.
    if (callee.name === "named" && given.length === 3) {
      const [, , schema] = given;
      edits.push(
        { start: node.start, end: schema.start, text: "" },
        { start: schema.end, end: node.end, text: "" },
      );
      return visit(schema, edits);
    }
    if (callee.name === "method" && given[0]?.type === "ObjectExpression") {
      for (const member of given[0].properties) {
        const { start, end, key, value } = member;
        const instead = LEFT_OUT[key?.name];
        if (instead !== undefined) {
          edits.push({ start, end, text: `${key.name}: ${instead}` });
          continue;
        }
        visit(member, edits);
        if (key?.name !== "params") continue;
        edits.push(
          { start, end: value.start, text: "get params() { const value = " },
          {
            start: value.end,
            end,
            text: '; Object.defineProperty(this, "params", { value }); return value; }',
          },
        );
      }
      return;
    }
  }
  for (const [name, value] of Object.entries(node)) if (name !== "type") visit(value, edits);
}

/** Members of a method, and what stands in their place. */
const LEFT_OUT = { result: "undefined", examples: "[]", summary: '""', description: '""' };

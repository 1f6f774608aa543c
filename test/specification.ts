// The names in the specification, which lies beside a checkout of the project and not everywhere.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const DIRECTORY = join(import.meta.dirname, "../../shared/spec");

/** False in a checkout without the specification: every list below is then empty. */
export const hasSpecification = existsSync(DIRECTORY);

if (!hasSpecification)
  console.warn(`what is promised is not compared with the specification: there is no ${DIRECTORY}`);

const files = new Map(
  (hasSpecification ? readdirSync(DIRECTORY) : [])
    .filter((name) => name.endsWith(".md"))
    .map((name) => [name, readFileSync(join(DIRECTORY, name), "utf8")]),
);
const everything = [...files.values()].join("\n");

/** The nouns with methods or notifications; other words before a dot are files and fields. */
const NOUNS = [
  "sequence",
  "queue",
  "claim",
  "schedule",
  "deployment",
  "command",
  "lease",
  "path",
  "pipeline",
  "peer",
  "item",
  "events",
  "daemon",
  "rpc",
];
const NAME = new RegExp(`\\b(?:${NOUNS.join("|")})\\.[a-z][A-Za-z]*\\b(?!\\.)`);

const codeSpans = (text: string): string[] =>
  [...text.matchAll(/`([^`]+)`/g)].map(([, span]) => span as string);

interface TableRow {
  methods: string[];
  /** A text for each of the methods, or one for all of them. */
  params: string[];
}

/** The rows of the tables `| method | params | result |`. */
function methodRows(): TableRow[] {
  return [...everything.matchAll(/^\| (`[a-z]+\.[^|]*?) \| ([^|]*?) \|/gm)].map(([, names, params]) => {
    const spans = codeSpans(names as string);
    const noun = (spans[0] as string).split(".")[0];
    return {
      methods: spans.map((span) => (span.includes(".") ? span : `${noun}.${span}`)),
      params: spans.length > 1 ? (params as string).split(/ \/(?: |$)/) : [params as string],
    };
  });
}

/** The signatures in running text, as `queue.settings {queue}`. */
function inlineSignatures(): [string, string][] {
  return codeSpans(everything).flatMap((span) => {
    const [, name, params] = /^(\w+\.\w+|transact) \{([\s\S]*)\}$/.exec(span) ?? [];
    return name === undefined || !(name === "transact" || NAME.test(name)) ? [] : [[name, params as string]];
  });
}

/** The names of params in text like `a, b? (at most {x}), c?: {d}` or `e`. */
function paramNames(text: string): string[] {
  let bare = text;
  for (let before = ""; before !== bare; ) {
    before = bare;
    bare = bare.replaceAll(/"[^"]*"|\([^()]*\)|\[[^[\]]*\]|\{[^{}]*\}/g, " ");
  }
  return bare
    .split(/,|\bor\b|\bwith\b|[|;]/)
    .map((part) => /^\s*([a-z]\w*)(?![\w/])/i.exec(part)?.[1])
    .filter((name) => name !== undefined);
}

/** Names that are no noun and verb. */
const OTHER_NAMES = ["transact", "event"];

/** The kinds of events by noun, from the sentences of events.md such as "of a path `reserved, released`". */
export function specifiedEventKinds(): Record<string, string[]> {
  const kinds: Record<string, string[]> = {};
  const lists = (files.get("events.md") ?? "").matchAll(
    / kinds: ([\s\S]*?)\. |- Kinds are [^:]*: ([\s\S]*?)\.\n/g,
  );
  for (const [, further, all] of lists) {
    for (const part of `${further ?? all}`.split(";")) {
      const [, thing] = /\bof (?:an?|the)\s+(\w+)/.exec(part) ?? [];
      const noun = thing === "batch" ? "queue" : `${thing}`;
      kinds[noun] = [...(kinds[noun] ?? []), ...codeSpans(part).flatMap((span) => span.split(", "))];
    }
  }
  return kinds;
}

/** Methods, requests and notifications, each once: whatever is written as `noun.verb`. */
export function specifiedNames(): string[] {
  const inText = codeSpans(everything)
    .map((span) => NAME.exec(span))
    .filter((match) => match?.index === 0)
    .map((match) => (match as RegExpExecArray)[0]);
  return [...new Set([...methodRows().flatMap(({ methods }) => methods), ...inText, ...OTHER_NAMES])].sort();
}

/** The params of each method whose signature is written out. */
export function specifiedParams(): Map<string, string[]> {
  const signatures = new Map<string, string[]>();
  const add = (method: string, names: string[]): void => {
    signatures.set(method, [...new Set([...(signatures.get(method) ?? []), ...names])]);
  };
  for (const { methods, params } of methodRows()) {
    for (const [index, method] of methods.entries()) {
      const text = params.length === methods.length ? params[index] : params[0];
      // Code spans only: what stands between them is prose.
      add(method, codeSpans(text as string).flatMap(paramNames));
    }
  }
  for (const [method, params] of inlineSignatures()) add(method, paramNames(params));
  return signatures;
}

export interface SpecifiedError {
  kind: string;
  code: number;
  when: string;
}

/** The rows of the table of errors in wire.md. */
export function specifiedErrors(): SpecifiedError[] {
  return [...(files.get("wire.md") ?? "").matchAll(/^\| (-32\d{3}) \| (\w+) \| (.*) \|$/gm)].map(
    ([, code, kind, when]) => ({ kind: kind as string, code: Number(code), when: when as string }),
  );
}

/** The kinds of the board, which pipeline.md names in two sentences. */
export function specifiedBoardKinds(): string[] {
  const [, section] = /^## Errors\n([\s\S]*?)\n## /m.exec(files.get("pipeline.md") ?? "") ?? [];
  const [, changes, keys] = /For changes: ([\s\S]*?)\. For keys: ([\s\S]*?)\./.exec(section ?? "") ?? [];
  return `${changes}, ${keys}`
    .replaceAll(/\([^)]*\)/g, "")
    .split(",")
    .map((kind) => kind.trim());
}

/** True if some file names this between backticks, alone or within more. */
export function isInCode(word: string): boolean {
  return codeSpans(everything).some((span) => new RegExp(`(?<![\\w.])${word}(?![\\w.])`).test(span));
}

// Which names are kept in PostgreSQL, as `--shared` says it.
import { expect, test } from "vitest";
import { placeOf } from "../../daemon/dist/shared/session.js";
import { parseSharedRule } from "../../daemon/dist/shared/specification.js";

test.each([
  ["s/*=postgresql://u@h/d", undefined, "s/*"],
  ["queue:s/*=postgres://u@h/d", "queue", "s/*"],
  ["lease:a=postgresql:///d", "lease", "a"],
  ["own:a=postgresql://u@/d?host=/run", undefined, "own:a"],
])("%s is a pattern and a database", (text, noun, pattern) => {
  expect(parseSharedRule(text)).toMatchObject({ noun, pattern });
});

test.each([
  ["s/*", '"s/*" is no PATTERN='],
  ["s=mysql://me:secret@h/d", '"s=..." is no PATTERN='],
  ["queue:=postgresql://me:secret@h/d", 'has no pattern behind "queue:"'],
  ["s=postgresql://me:secret@h:99999/d", "the URL is none of a database"],
  ["s=postgresql://me:secret@h/%zz", "the URL is none of a database"],
  ["s=postgresql://me:secret@h/d?shcema=x", '"s=...": the URL has "shcema"; there are schema, host, '],
  ["s=postgresql://me:secret@h/d?schema=x&sslmod=require", 'the URL has "sslmod"; there are schema, host, '],
  ["s=postgresql://me:secret@h/d?sslmode=requir", '"sslmode" is "requir" in the URL; there are disable, '],
  ["s=postgresql://me:secret@h/d?application_name=x", 'the URL has "application_name"; there are schema'],
  ["s=postgresql://me:secret@h/d?schema=x&schema=y", 'the URL has "schema" twice'],
  ["s=postgresql://me@h/d?port=70000", '"70000" is no port'],
  ["s=postgresql://me:12?+secret@h/d", "the URL has what is no parameter; there are schema, "],
  ["schedule:a=postgresql://me:secret@h/d", "name the queue"],
  ["item:a=postgresql://me:secret@h/d", "merges"],
])("%s is refused, without what may be secret", (text, message) => {
  const refused = (): unknown => parseSharedRule(text);
  expect(refused).toThrow(message);
  expect(refused).not.toThrow("secret");
});

test("databases are named as their addresses say it", () => {
  expect(placeOf("postgresql://u:secret@h:1/a%2Fb%3Bc%20d")).toMatchObject({
    shown: "h:1/a/b;c d",
    connectionString: expect.stringContaining("u:secret@h:1/a/b;c%20d?"),
  });
  expect(placeOf("postgresql://u@/?host=%2Frun%2Fpg").shown).toBe("/run/pg/u");
});

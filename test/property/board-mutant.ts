// Rules of the board with one thing wrong, to see that the properties find it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const BUILT = join(import.meta.dirname, "../../daemon/dist/domain/board");

/** A module of daemon/domain/board, as built, with one text in it replaced by another. The text must occur once. */
export async function mutant<Module>(file: string, text: string, replacement: string): Promise<Module> {
  const source = readFileSync(join(BUILT, file), "utf8");
  const occurrences = source.split(text).length - 1;
  if (occurrences !== 1)
    throw new Error(`${JSON.stringify(text)} occurs ${occurrences} times in ${file}, not once`);
  const absolute = source
    .replace(text, () => replacement)
    .replaceAll(
      /from "(\.[^"]+)"/g,
      (_, path) => `from ${JSON.stringify(pathToFileURL(join(BUILT, path)).href)}`,
    )
    .replaceAll(/from "(@pawl[^"]+)"/g, (_, name) => `from ${JSON.stringify(import.meta.resolve(name))}`);
  return import(/* @vite-ignore */ `data:text/javascript,${encodeURIComponent(absolute)}`);
}

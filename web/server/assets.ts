import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

/** A file that browsers load, as it is and compressed. */
export interface Asset {
  readonly type: string;
  readonly plain: Buffer;
  readonly gzipped: Buffer;
}

/** All that can be loaded. A path that is not among them is no file, wherever it leads. */
const FILES: Readonly<Record<string, { file: string; type: string }>> = {
  "/": { file: "index.html", type: "text/html; charset=utf-8" },
  "/page.js": { file: "page.js", type: "text/javascript; charset=utf-8" },
  "/page.css": { file: "page.css", type: "text/css; charset=utf-8" },
  "/icon.svg": { file: "icon.svg", type: "image/svg+xml" },
};

/** Reads what the build has made. */
export function readAssets(): ReadonlyMap<string, Asset> {
  const directory = join(import.meta.dirname, "../assets");
  return new Map(
    Object.entries(FILES).map(([path, { file, type }]) => {
      const plain = readFileSync(join(directory, file));
      return [path, { type, plain, gzipped: gzipSync(plain, { level: 9 }) }];
    }),
  );
}

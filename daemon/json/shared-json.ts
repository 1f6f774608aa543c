import { readFileSync } from "node:fs";
import { RawJson } from "./raw-json.js";

/** JSON that many answers hold alike, as bytes that all are written from: nothing is made for each but its ends. */
export class SharedJson extends RawJson {
  readonly bytes: Buffer;

  constructor(text: string) {
    super(text);
    this.bytes = Buffer.from(text);
  }

  /** Reads a file of JSON, on one line: no string has a line end, so each is space, and so is the indent behind it. */
  static read(path: string): SharedJson {
    return new SharedJson(readFileSync(path, "utf8").replace(/\n */g, ""));
  }
}

/** A text with such JSON in it, which is its only parts that are bytes. */
export class SharedText {
  readonly parts: readonly (string | Buffer)[];
  readonly length: number;

  constructor(parts: readonly (string | Buffer)[]) {
    this.parts = parts;
    this.length = parts.reduce((sum, part) => sum + Buffer.byteLength(part), 0);
  }
}

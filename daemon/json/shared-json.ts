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

/** A line with such JSON in it. */
export class SharedLine {
  readonly head: string;
  readonly body: Buffer;
  /** With the end of the line. */
  readonly tail: string;

  constructor(head: string, { bytes }: SharedJson, tail: string) {
    this.head = head;
    this.body = bytes;
    this.tail = `${tail}\n`;
  }

  get length(): number {
    return Buffer.byteLength(this.head) + this.body.length + this.tail.length;
  }
}

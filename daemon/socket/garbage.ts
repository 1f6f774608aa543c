import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Shorter messages are collected in time by themselves. */
export const LONG_MESSAGE_BYTES = 64 * 1024;
/** The garbage of long messages is collected when so many bytes of them have passed. */
const COLLECT_EVERY_BYTES = 1024 * 1024;

let bytesSince = 0;
let collect: ((options: { type: "minor" }) => void) | undefined;

/**
 * Tells of a long message that was received or has been sent, so that what long ones leave behind is collected soon.
 * V8 looks at its own heap, which such messages are hardly a part of: they are in buffers, several times over,
 * and it lets some 60 MB of those come together. A collection of what is young takes less than a millisecond.
 */
export function noteLongMessage(bytes: number): void {
  const before = bytesSince;
  bytesSince += bytes;
  // In a turn of its own, when nothing is left of the message but garbage.
  if (before < COLLECT_EVERY_BYTES && bytesSince >= COLLECT_EVERY_BYTES) setImmediate(collectYoung);
}

function collectYoung(): void {
  bytesSince = 0;
  if (collect === undefined) {
    // The function is only in contexts that are made after the flag was set.
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as typeof collect;
  }
  collect?.({ type: "minor" });
}

/** 12,345 */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** 1 batch, 2 batches */
export function plural(
  value: number,
  one: string,
  many = one.endsWith("h") ? `${one}es` : `${one}s`,
): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** 340 ms, 12 s, 3 min, 2 h, 5 d */
export function duration(ms: number): string {
  if (ms < SECOND_MS) return `${Number(ms.toFixed(ms < 10 ? 1 : 0))} ms`;
  if (ms < 2 * MINUTE_MS) return `${Math.round(ms / SECOND_MS)} s`;
  if (ms < 2 * HOUR_MS) return `${Math.round(ms / MINUTE_MS)} min`;
  if (ms < 2 * DAY_MS) return `${Math.round(ms / HOUR_MS)} h`;
  return `${Math.round(ms / DAY_MS)} d`;
}

/** 12 s ago, in 3 min */
export function ago(at: number, now: number): string {
  const ms = now - at;
  if (Math.abs(ms) < SECOND_MS) return "now";
  return ms > 0 ? `${duration(ms)} ago` : `in ${duration(-ms)}`;
}

/** 2026-11-29 10:30:05, in the time zone of the browser. */
export function exactTime(at: number): string {
  const date = new Date(at);
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${clockTime(at)}`;
}

/** 10:30:05 */
export function clockTime(at: number): string {
  const date = new Date(at);
  return [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((value) => String(value).padStart(2, "0"))
    .join(":");
}

/** 1.2 MB */
export function bytes(value: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let rest = value;
  let unit = 0;
  while (rest >= 1000 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${Number(rest.toFixed(rest < 10 && unit > 0 ? 1 : 0))} ${units[unit]}`;
}

const ID_CHARACTERS = 12;

/** An id with its digest cut to what tells it from others: qwb:b0513b64 */
export function shortId(id: string): string {
  const [, prefix, digest] = /^([a-z]+:)?([0-9a-f]{32,})$/.exec(id) ?? [];
  return digest === undefined ? id : `${prefix ?? ""}${digest.slice(0, ID_CHARACTERS)}`;
}

/** JSON for people to read. */
export function json(value: unknown): string {
  return JSON.stringify(value, null, 2);
}

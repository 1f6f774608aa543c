// Numbers, sizes, durations and times as they are written for people.

/** 12,345 */
export function count(number: number): string {
  return number.toLocaleString("en-US");
}

/** 1 batch, 12,345 batches */
export function plural(number: number, one: string, many = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];

/** 12.3 MB */
export function bytes(number: number): string {
  let value = number;
  let unit = 0;
  while (value >= 1000 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

/** How long something takes, in the two units that matter: 250 ms, 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(ms: number): string {
  if (ms < 10) return `${Number(ms.toFixed(2))} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${Number((ms / 1000).toFixed(1))} s`;
  const seconds = Math.round(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return two(minutes, "min", seconds % 60, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return two(hours, "h", minutes % 60, "min");
  return two(Math.floor(hours / 24), "d", hours % 24, "h");
}

function two(major: number, majorUnit: string, minor: number, minorUnit: string): string {
  return minor === 0 ? `${major} ${majorUnit}` : `${major} ${majorUnit} ${minor} ${minorUnit}`;
}

/** A time as the clock on the wall has it: 2026-11-21 18:00:00. */
export function when(at: number): string {
  const date = new Date(at - new Date(at).getTimezoneOffset() * 60_000);
  return date.toISOString().slice(0, 19).replace("T", " ");
}

/** The time zone of this process at a time, such as `local time (UTC+01:00)`. */
export function zoneAt(at: number): string {
  const minutes = -new Date(at).getTimezoneOffset();
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  const offset = `${minutes < 0 ? "-" : "+"}${String(hours).padStart(2, "0")}:${String(rest).padStart(2, "0")}`;
  return `local time (UTC${offset})`;
}

/** A time for a table: the time if it was today, else the day. */
export function whenShort(at: number): string {
  const [day = "", time = ""] = when(at).split(" ");
  return day === when(Date.now()).split(" ")[0] ? time : day;
}

/** The time of day, for lines on a terminal. */
export function clockTime(): string {
  return new Date().toTimeString().slice(0, "00:00:00".length);
}

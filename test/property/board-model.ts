// The meaning of a set of changes (spec: pipeline.md), in as few lines as possible and without domain/board.
import { createHash } from "node:crypto";

export interface ModelItem {
  stage: string;
  name: string | null;
  agent: string | null;
  retryCount: number;
  blocked: boolean;
  dependsOn: string[];
  labels: string[];
  fields: Record<string, unknown>;
  notes: number;
  rank: string;
  updatedAt: number;
  updatedBy: string;
}

interface Write {
  i: string;
  g: number;
  s?: Record<string, unknown>;
  c?: Record<string, number>;
  wall: number;
  author: string;
  /** Wall, counter, author and hash in fixed widths: the order of texts is the order of writes. */
  order: string;
}

export interface Model {
  /** Items to be seen, by storyId. */
  items: Map<string, ModelItem>;
  /** All fields of all items that are alive, known or not, but for notes, by storyId. */
  fields: Map<string, Map<string, unknown>>;
  /** `wall author agent text` of the notes of the items that are seen, in their order, by storyId. */
  notes: Map<string, string[]>;
  /** By storyId, what is searched: the name with the description, and each note, of the items that are seen. */
  texts: Map<string, string[]>;
  /** `author/incarnation/seq/hash` of every change that no other names as the one before it; sorted. */
  heads: string[];
  /** Changes that stand where another stands already. */
  forks: number;
}

/** @param bodies a set: each body once, in any order. */
export function model(bodies: Iterable<string>): Model {
  const writes: Write[] = [];
  const ends = new Map<string, string>();
  const followed = new Set<string | null>();
  const places = new Set<string>();
  for (const body of bodies) {
    const { author, hlc, incarnation, ops, prev, seq } = JSON.parse(body);
    const hash = createHash("sha256").update(body).digest("hex");
    const order = `${String(hlc[0]).padStart(16, "0")} ${String(hlc[1]).padStart(16, "0")} ${author} ${hash}`;
    for (const op of ops) writes.push({ ...op, wall: hlc[0], author, order });
    ends.set(hash, `${author}/${incarnation}/${seq}/${hash}`);
    followed.add(prev);
    places.add(`${author}/${incarnation}/${prev}`);
  }
  writes.sort((a, b) => (a.order < b.order ? -1 : 1));

  const items: Model["items"] = new Map();
  const fieldsOfAll: Model["fields"] = new Map();
  const notesOfAll: Model["notes"] = new Map();
  const texts: Model["texts"] = new Map();
  for (const storyId of new Set(writes.map(({ i }) => i))) {
    const ofItem = writes.filter(({ i }) => i === storyId);
    const generation = Math.max(...ofItem.map(({ g }) => g));
    if (generation % 2 === 0) continue;
    const alive = ofItem.filter(({ g }) => g === generation);
    const fields = new Map<string, unknown>();
    const notes: string[] = [];
    let retryCount = 0;
    for (const { s = {}, c = {}, wall, author } of alive) {
      const said = Object.entries(s).filter(
        ([field, value]) => /^n\/(0|[1-9]\d?\d?)$/.test(field) && isNote(value),
      );
      said.sort(([a], [b]) => Number(a.slice(2)) - Number(b.slice(2)));
      for (const [, { agent, text }] of said as [string, Note][])
        notes.push(`${wall} ${author} ${agent} ${text}`);
      for (const [field, value] of Object.entries(s)) {
        if (!said.some(([each]) => each === field)) fields.set(field, value);
      }
      if (Object.hasOwn(s, "retryCount")) retryCount = s.retryCount as number;
      if (Object.hasOwn(c, "retryCount")) retryCount += c.retryCount as number;
    }
    fieldsOfAll.set(storyId, fields);
    if (!fields.has("stage")) continue;
    const newest = alive.at(-1) as Write;
    notesOfAll.set(storyId, notes);
    const told = [fields.get("name"), fields.get("f/description")].filter((each) => typeof each === "string");
    texts.set(storyId, [told.join("\n"), ...notes.map((note) => note.replace(/^\d+ \w+ \w+ /, ""))]);
    const elements = (prefix: string) =>
      [...fields]
        .filter(([field, value]) => field.startsWith(prefix) && value === true)
        .map(([field]) => field.slice(prefix.length))
        .filter((each) => each !== "")
        .sort();
    const own = [...fields].filter(([field, value]) => /^f\/[a-z]\w{0,63}$/.test(field) && value !== null);
    items.set(storyId, {
      stage: fields.get("stage") as string,
      name: (fields.get("name") ?? null) as string | null,
      agent: (fields.get("agent") ?? null) as string | null,
      retryCount,
      blocked: (fields.get("blocked") ?? false) as boolean,
      dependsOn: elements("dependsOn/"),
      labels: elements("l/").filter((label) => Buffer.byteLength(label) <= 200),
      fields: Object.fromEntries(own.map(([field, value]) => [field.slice(2), value])),
      notes: notes.length,
      rank: (fields.get("rank") ?? "a0") as string,
      updatedAt: newest.wall,
      updatedBy: newest.author,
    });
  }
  const heads = [...ends].filter(([hash]) => !followed.has(hash)).map(([, place]) => place);
  return {
    items,
    fields: fieldsOfAll,
    notes: notesOfAll,
    texts,
    heads: heads.sort(),
    forks: ends.size - places.size,
  };
}

interface Note {
  agent: string | null;
  text: string;
}

function isNote(value: unknown): value is Note {
  const { agent, text, ...rest } = (value ?? {}) as Note;
  return (
    (agent === null || typeof agent === "string") &&
    typeof text === "string" &&
    Object.keys(rest).length === 0
  );
}

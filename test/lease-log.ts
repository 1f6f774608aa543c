// The log that processes write which take leases (workers/leases.js), and what it has to show of the order in which
// they were granted. Each line is one write, so the lines are in the order in which things happened.

/** A request, as the lines of it tell. */
export interface LogLine {
  /**
   * Of a request: `ask` before it is sent, `queued` once the daemon has taken it up, `granted` once its process is told
   * that it was granted, `begin` with the tokens, `end` or `late` before it is given back, `released` after that,
   * `refused` if it came to nothing or was lost. Of a process: `killed`, `stopped`, and `gone` when a daemon has closed
   * all connections.
   */
  readonly word: string;
  /** Of the request: the name of the process, a slash, a number; of a process, its name. */
  readonly id: string;
  /** By CLOCK_MONOTONIC, which all processes share, in milliseconds. */
  readonly at: number;
  readonly names?: readonly string[];
  readonly mode?: "shared";
  readonly held?: readonly { readonly name: string; readonly fencingToken: number }[];
}

/** What a request did, by the numbers of its lines and by their times; not there for what it never did. */
interface Request {
  readonly id: string;
  readonly names: readonly string[];
  readonly isShared: boolean;
  readonly asked: Moment;
  queued?: Moment;
  granted?: Moment;
  ended?: Moment;
  /** Its process was killed or stopped meanwhile, or its daemon went: it may have lost its place, or slept. */
  disturbed?: Moment;
  tokens: ReadonlyMap<string, number>;
}

interface Moment {
  readonly line: number;
  readonly at: number;
}

/** Answers that came so long before a wait or after it tell of that time, too. */
const AROUND_MS = 500;
/** Where all answers are quick, what else happens to take long: a collection of garbage, a checkpoint. */
const MIN_NOISE_MS = 100;

export interface Waits {
  /** Requests that were compared with those that came later. */
  readonly inOrder: number;
  /** Grants whose wait was compared with what came before, and how many of those waited at all. */
  readonly bounded: number;
  readonly behindOthers: number;
  /** The longest wait, and the most that one was allowed beyond what others held, for each of those. */
  readonly longestMs: number;
  readonly noiseMs: number;
}

/**
 * Throws unless requests for the same were granted in the order of their arrival, by the tokens, and nobody waited for
 * longer than those before it held what they had, be it that they were before others that were before it.
 *
 * A machine that is busy runs processes late. How late is seen by the answers to pings: each request that somebody
 * waits for may take as long as the slowest of those about that time, and so may the one that waits.
 *
 * @param lostMs how long a lease lasts at most of which nobody logged the end.
 */
export function checkWaits(lines: readonly LogLine[], lostMs: number): Waits {
  const requests = requestsOf(lines);
  const inOrder = checkTokens(requests);
  const isCertain = ({ queued, disturbed, granted }: Request): boolean =>
    queued !== undefined &&
    (disturbed === undefined || (granted !== undefined && disturbed.line > granted.line));
  const answers = requests.filter(isCertain).map(({ asked, queued }) => ({
    from: asked.at,
    to: (queued as Moment).at,
  }));
  let noiseMs = 0;
  let [bounded, behindOthers, longestMs] = [0, 0, 0];
  for (const request of requests) {
    const { id, queued, granted } = request;
    if (queued === undefined || granted === undefined || !isCertain(request)) continue;
    const before = thoseBefore(request, requests, lostMs);
    const held = before.map((each) => overlapMs(each, queued.at, granted.at, lostMs));
    const slowestMs = answers
      .filter(({ from, to }) => from < granted.at + AROUND_MS && to > queued.at - AROUND_MS)
      .reduce((most, { from, to }) => Math.max(most, to - from), MIN_NOISE_MS);
    const mostMs = held.reduce((sum, each) => sum + each, 0) + (before.length + 1) * slowestMs;
    const waitedMs = granted.at - queued.at;
    if (waitedMs > mostMs) {
      const others = before.map((each) => each.id).join(", ");
      throw new Error(
        `${id} waited ${waitedMs} ms, and those before it (${others}) account for ${mostMs} ms of that`,
      );
    }
    bounded += 1;
    noiseMs = Math.max(noiseMs, slowestMs);
    if (before.length > 0) behindOthers += 1;
    longestMs = Math.max(longestMs, waitedMs);
  }
  return { inOrder, bounded, behindOthers, longestMs, noiseMs };
}

function requestsOf(lines: readonly LogLine[]): Request[] {
  const requests = new Map<string, Request>();
  const open = new Map<string, Request>();
  for (const [line, { word, id, at, names = [], mode, held = [] }] of lines.entries()) {
    const moment = { line, at };
    const owner = id.split("/", 1)[0] as string;
    if (word === "ask") {
      const request: Request = { id, names, isShared: mode === "shared", asked: moment, tokens: new Map() };
      requests.set(id, request);
      open.set(owner, request);
    } else if (word === "gone") for (const request of open.values()) request.disturbed ??= moment;
    else if (word === "killed" || word === "stopped") {
      const request = open.get(owner);
      if (request !== undefined) request.disturbed ??= moment;
    }
    const request = requests.get(id);
    if (request === undefined) continue;
    if (word === "queued") request.queued = moment;
    if (word === "granted") request.granted = moment;
    if (word === "begin") request.tokens = new Map(held.map((each) => [each.name, each.fencingToken]));
    if (word !== "released" && word !== "refused") continue;
    request.ended = moment;
    if (open.get(owner) === request) open.delete(owner);
  }
  return [...requests.values()];
}

/** Whoever was known to wait for a name has a lower token of it than whoever asked for it after that. */
function checkTokens(requests: readonly Request[]): number {
  let compared = 0;
  const names = new Set(requests.flatMap((request) => request.names));
  for (const name of names) {
    const granted = requests
      .filter(({ tokens }) => tokens.has(name))
      .sort((a, b) => (b.tokens.get(name) as number) - (a.tokens.get(name) as number));
    // From the last one to the first: of those after it, by sort, the one that was known to wait the earliest.
    const earliest = new Map<boolean, Request>();
    for (const request of granted) {
      for (const isShared of request.isShared ? [false] : [false, true]) {
        const other = earliest.get(isShared);
        if (other === undefined || (other.queued as Moment).line > request.asked.line) continue;
        throw new Error(
          `${request.id} has asked for ${name} when ${other.id} waited for it, and was granted it before that`,
        );
      }
      const { queued, granted, disturbed, isShared } = request;
      if (queued === undefined || granted === undefined) continue;
      // One that was disturbed while it waited may have asked anew.
      if (disturbed !== undefined && disturbed.line < granted.line) continue;
      compared += 1;
      const known = earliest.get(isShared);
      if (known === undefined || queued.line < (known.queued as Moment).line) earliest.set(isShared, request);
    }
  }
  return compared;
}

/** The requests that came before one and were not over: those that want the same, and those before those. */
function thoseBefore(one: Request, requests: readonly Request[], lostMs: number): Request[] {
  const queued = one.queued as Moment;
  const left = new Set(
    requests.filter(
      (each) =>
        each !== one &&
        each.asked.line < queued.line &&
        (each.ended === undefined
          ? each.disturbed === undefined || each.disturbed.at + lostMs > queued.at
          : each.ended.line > queued.line ||
            (each.disturbed !== undefined && each.ended.at + lostMs > queued.at)),
    ),
  );
  const found = [one];
  for (const request of found) {
    for (const other of left) {
      if (!wantTheSame(request, other)) continue;
      left.delete(other);
      found.push(other);
    }
  }
  return found.slice(1);
}

function wantTheSame(one: Request, other: Request): boolean {
  return !(one.isShared && other.isShared) && one.names.some((name) => other.names.includes(name));
}

/** How long a request held something between two times; of one whose end or grant nobody logged, how long at most. */
function overlapMs({ granted, ended, disturbed }: Request, from: number, to: number, lostMs: number): number {
  const isLogged = granted !== undefined && ended !== undefined && disturbed === undefined;
  const start = granted === undefined ? from : Math.max(from, granted.at);
  const end = isLogged
    ? ended.at
    : granted === undefined && ended !== undefined && disturbed === undefined
      ? from
      : Math.min(to, (disturbed?.at ?? to) + lostMs);
  return Math.max(0, Math.min(end, to) - start);
}

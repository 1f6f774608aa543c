// What batches are answered with: what many answers share is in memory once, and a peer that is gone gets none.
import { expect, test } from "vitest";
import { SharedJson, SharedText } from "../../daemon/dist/json/shared-json.js";
import type { Dispatcher } from "../../daemon/dist/rpc/dispatch.js";
import type { OwnRequests } from "../../daemon/dist/rpc/own-requests.js";
import type { Peer } from "../../daemon/dist/rpc/peer.js";
import { Rpc } from "../../daemon/dist/rpc/rpc.js";

const shared = new SharedJson('{"much":true}');

/** Takes up a line of a peer; returns what is sent, how many requests are answered and how many were refused. */
function receive(line: string, { closed }: { closed: boolean }) {
  const sent: unknown[] = [];
  let answered = 0;
  let refused = 0;
  const dispatcher = {
    call: (...given: Parameters<Dispatcher["call"]>) => given[5].answer(shared),
    explain: (_: string, error: Error) => {
      refused += 1;
      return error;
    },
  } as unknown as Dispatcher;
  const none = () => {};
  const peer = {
    closed,
    mayKeep: true,
    forbidden: undefined,
    releaseLine: none,
    forgotValues: none,
    received: none,
    expects: none,
    wrote: none,
    keep: none,
    send: (text: unknown) => sent.push(text),
    answered: (requests: number) => {
      answered += requests;
    },
  } as unknown as Peer;
  const own = { isResponse: () => false } as unknown as OwnRequests;
  const underWay = new Rpc(dispatcher, own).receive(Buffer.from(line), peer, []);
  underWay?.goOn(Number.POSITIVE_INFINITY, []);
  return { sent, answered, refused };
}

const call = (id: number): string => `{"jsonrpc":"2.0","id":${id},"method":"m"}`;

test("answers of a batch that share their text are written from the same bytes", () => {
  const { sent } = receive(`[${call(1)},${call(2)},null]`, { closed: false });
  const [text] = sent as [SharedText];
  expect(text).toBeInstanceOf(SharedText);
  expect(text.parts.filter((part) => typeof part !== "string")).toEqual([shared.bytes, shared.bytes]);
  for (const part of text.parts) if (typeof part !== "string") expect(part).toBe(shared.bytes);
  const written = text.parts.map((part) => part.toString()).join("");
  expect(text.length).toBe(Buffer.byteLength(written));
  expect(JSON.parse(written)).toMatchObject([{ id: 1 }, { id: 2, result: { much: true } }, { id: null }]);
});

test("nobody is told what is wrong with requests of a peer that is gone", () => {
  expect(receive("[null,1]", { closed: true })).toEqual({ sent: [], answered: 2, refused: 0 });
  expect(receive("null", { closed: true })).toEqual({ sent: [], answered: 1, refused: 0 });
  expect(receive("[null,1]", { closed: false })).toMatchObject({ answered: 2, refused: 2 });
});

test("no answer is sent to a peer that is gone", () => {
  for (const line of [call(1), `[${call(1)}]`])
    expect(receive(line, { closed: true })).toEqual({ sent: [], answered: 1, refused: 0 });
});

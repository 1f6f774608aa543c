import { ERRORS } from "@pawl/protocol/errors";
import { MAX_INCREMENT, MAX_RANK_LENGTH, MAX_STAGE_LENGTH } from "@pawl/protocol/limits";
import { describe, expect, test } from "vitest";
import type { Method } from "../../protocol/dist/method.js";
import { PEER } from "../../protocol/dist/peer.js";
import { PIPELINE } from "../../protocol/dist/pipeline.js";

const pipeline = PIPELINE.methods;
const accepts = (method: Method, params: unknown) => method.params.safeParse(params).success;
const writes = (fields: object) => accepts(pipeline.write, { storyId: "A-1", ...fields });

describe("the methods of the board", () => {
  test("reading does not write", () => {
    const { read, list, history, identity, heads, changes, watch } = pipeline;
    const reading = [read, list, history, identity, heads, changes, watch, PEER.methods.list];
    expect(reading.filter(({ writes }) => writes)).toEqual([]);
  });

  test("draw the limits where the rules of changes draw them", () => {
    expect(writes({ stage: "x".repeat(MAX_STAGE_LENGTH) })).toBe(true);
    expect(writes({ stage: "x".repeat(MAX_STAGE_LENGTH + 1) })).toBe(false);
    expect(writes({ stage: "" })).toBe(false);
    expect(writes({ retryCountDelta: MAX_INCREMENT })).toBe(true);
    expect(writes({ retryCountDelta: -MAX_INCREMENT - 1 })).toBe(false);
    expect(writes({ retryCount: -Number.MAX_SAFE_INTEGER })).toBe(true);
    expect(writes({ retryCount: 1.5 })).toBe(false);
    expect(writes({ rank: `a0${"V".repeat(MAX_RANK_LENGTH - 2)}` })).toBe(true);
    expect(writes({ rank: `a0${"V".repeat(MAX_RANK_LENGTH - 1)}` })).toBe(false);
    for (const [storyId, valid] of [
      ["x".repeat(128), true],
      ["x".repeat(129), false],
      ["Az09._-", true],
      ["", false],
      ["a/b", false],
      ["a\n", false],
    ] as const) {
      expect(accepts(pipeline.read, { storyId })).toBe(valid);
    }
  });

  test("refuse writes that say nothing or two things at once", () => {
    expect(writes({})).toBe(false);
    expect(writes({ estimate: 3 })).toBe(false);
    expect(writes({ retryCount: 1, retryCountDelta: 1 })).toBe(false);
    expect(writes({ dependsOn: { add: ["B"], remove: ["B"] } })).toBe(false);
    expect(writes({ dependsOn: { add: ["B"], remove: ["C"] } })).toBe(true);
    expect(writes({ dependsOn: [] })).toBe(true);
    expect(writes({ name: null })).toBe(true);
    expect(writes({ name: "\ud800" })).toBe(false);
  });
});

test("kinds of changes and keys have the codes from -32020 on, in order", () => {
  const own = Object.entries(ERRORS).filter(([, { code }]) => code <= -32020 && code > -32100);
  expect(own.map(([kind]) => kind)).toEqual([
    "too_large",
    "not_json",
    "not_canonical",
    "bad_value",
    "bad_shape",
    "unsupported_version",
    "wrong_board",
    "unknown_author",
    "revoked_author",
    "bad_signature",
    "missing_prev",
    "bad_chain",
    "clock_not_monotonic",
    "clock_ahead",
    "bad_story_id",
    "bad_generation",
    "bad_field",
    "weak_key",
    "duplicate_key",
    "key_mode",
    "key_unreadable",
    "log_corrupt",
  ]);
  expect(own.map(([, { code }]) => code)).toEqual(own.map((_, index) => -32020 - index));
  expect(own.filter(([, { retryable }]) => retryable).map(([kind]) => kind)).toEqual(["clock_ahead"]);
});

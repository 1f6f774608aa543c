// client.withItem with a real daemon.
import { expect, onTestFinished, test } from "vitest";
import { connect } from "../../client/dist/index.js";
import { startDaemon } from "../daemon.js";

test("withItem claims an item, finishes it when its function returns, and takes it back when that throws", async () => {
  const { place } = await startDaemon();
  const client = await connect({ socket: place.socket });
  onTestFinished(() => client.close());
  const request = { agent: "ana", toStage: "2_current" };
  expect(await client.withItem(request, () => {})).toBeUndefined();
  await client.pipeline.write({ storyId: "A", stage: "1_backlog" });
  const failed = client.withItem(request, () => {
    throw new Error("no disk");
  });
  await expect(failed).rejects.toThrow("no disk");
  const { item, notes } = await client.pipeline.read({ storyId: "A", notes: 1 });
  expect(item).toMatchObject({ stage: "1_backlog", agent: null, retryCount: 1, ready: true });
  expect(notes).toMatchObject([{ agent: "ana", text: "no disk" }]);
  const mute = client.withItem(request, () => {
    throw Object.create(null);
  });
  await expect(mute).rejects.toSatisfy((thrown) => Object.getPrototypeOf(thrown) === null);
  expect(await client.pipeline.read({ storyId: "A", notes: 2 })).toMatchObject({
    item: { stage: "1_backlog", agent: null, retryCount: 2, ready: true },
    notes: [{ text: "no disk" }, { text: "object that has no text" }],
  });
  const done = await client.withItem(request, ({ item: { storyId, stage }, finishWith }) => {
    finishWith({ toStage: "3_qa", note: "merged" });
    return `${storyId} ${stage}`;
  });
  expect(done).toMatchObject({ result: "A 2_current", item: { stage: "3_qa", agent: "ana" } });
});

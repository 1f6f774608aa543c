import type { Result } from "@pawl/protocol/types";
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { allRows, ROWS_PER_CALL } from "./all-pages.js";
import { Happened } from "./event-lines.js";
import {
  Act,
  Ago,
  Answer,
  Badge,
  CommandLine,
  Empty,
  Facts,
  Filter,
  Heading,
  Json,
  Problem,
  perform,
} from "./parts.js";
import { to } from "./route.js";
import { type CallFailed, call, events, link, onChange, useAsked, useLive } from "./server.js";
import { count, exactTime, plural } from "./wording.js";

type Item = Result<"pipeline.write">["item"];

const CARDS_PER_COLUMN = 30;
/** Where more items have changed at once, all are listed again. */
const MOST_READ_SINGLY = 20;
const ITEM = "item:";
/** The stages that a board has by convention, shown also when nothing is in them. */
const STAGES = ["1_backlog", "2_current", "3_qa", "4_merge", "5_done"];

type Items = ReadonlyMap<string, Item>;

async function listAll(progress: (items: Items) => void): Promise<Items> {
  const byId = (items: readonly Item[]): Items => new Map(items.map((item) => [item.storyId, item]));
  const all = await allRows(
    (place: { after?: string }) => call("pipeline.list", { limit: ROWS_PER_CALL, ...place }),
    ({ stages }) => Object.values(stages).flat(),
    (items) => progress(byId(items)),
  );
  return byId(all);
}

/** All items, kept current: those that change are read one by one. */
function useItems(): { items: Items | undefined; error: CallFailed | undefined; put: (item: Item) => void } {
  const [items, setItems] = useState<Items>();
  const [error, setError] = useState<CallFailed>();
  useEffect(() => {
    let ended = false;
    let listing = false;
    let again = false;
    let first = true;
    const list = async (): Promise<void> => {
      if (listing) {
        again = true;
        return;
      }
      listing = true;
      do {
        again = false;
        try {
          const all = await listAll((some) => (first && !ended ? setItems(some) : undefined));
          first = false;
          if (!ended) setItems(all);
          setError(undefined);
        } catch (failure) {
          setError(failure as CallFailed);
        }
      } while (again && !ended);
      listing = false;
    };
    const read = async (ids: readonly string[]): Promise<void> => {
      try {
        const found = await Promise.all(ids.map((storyId) => call("pipeline.read", { storyId })));
        if (ended) return;
        setItems((before) => {
          const after = new Map(before);
          for (const [index, { item }] of found.entries()) {
            if (item === null) after.delete(ids[index] as string);
            else after.set(item.storyId, item);
          }
          return after;
        });
      } catch {
        await list();
      }
    };
    void list();
    const stop = onChange(({ topics }) => {
      if (topics === null) return void list();
      const ids = topics.filter((topic) => topic.startsWith(ITEM)).map((topic) => topic.slice(ITEM.length));
      if (ids.length === 0) return;
      void (ids.length > MOST_READ_SINGLY ? list() : read(ids));
    });
    return () => {
      ended = true;
      stop();
    };
  }, []);
  const put = (item: Item): void => setItems((before) => new Map(before).set(item.storyId, item));
  return { items, error, put };
}

/** Items of each stage in the order of their ranks. Stages of the convention are always there. */
function columnsOf(items: Items, fits: (item: Item) => boolean): [stage: string, items: Item[]][] {
  const columns = new Map<string, Item[]>(STAGES.map((stage) => [stage, []]));
  for (const item of items.values()) {
    const column = columns.get(item.stage) ?? [];
    columns.set(item.stage, column);
    if (fits(item)) column.push(item);
  }
  for (const column of columns.values()) {
    column.sort((a, b) => (a.rank === b.rank ? (a.storyId < b.storyId ? -1 : 1) : a.rank < b.rank ? -1 : 1));
  }
  return [...columns].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }));
}

/** 1_backlog is backlog. */
function stageTitle(stage: string): string {
  return stage.replace(/^[0-9]+_/, "");
}

async function move(item: Item, stage: string, put: (item: Item) => void): Promise<void> {
  if (item.stage === stage) return;
  await perform(async () => {
    put({ ...item, stage });
    try {
      put((await call("pipeline.write", { storyId: item.storyId, stage })).item);
    } catch (error) {
      put(item);
      throw error;
    }
    return `${item.storyId} is in ${stageTitle(stage)}.`;
  });
}

export function Board() {
  const { items, error, put } = useItems();
  const [text, setText] = useState("");
  const wanted = text.toLowerCase();
  return (
    <>
      <Heading title="Board" />
      {error === undefined ? null : <Problem error={error} />}
      {items === undefined ? (
        <p class="faint">Loading.</p>
      ) : items.size === 0 ? (
        <Empty title="Nothing is on the board">
          <p>The first item:</p>
          <CommandLine>pawl item set FR-001 --stage 1_backlog --name 'Sign in with a key'</CommandLine>
        </Empty>
      ) : (
        <>
          <div class="tools">
            <Filter label="Filter by id, name or agent" value={text} onInput={setText} />
            <span class="faint">{plural(items.size, "item")}. Drag a card, or press ← and → on it.</span>
          </div>
          <Columns
            columns={columnsOf(items, ({ storyId, name, agent }) =>
              [storyId, name ?? "", agent ?? ""].some((each) => each.toLowerCase().includes(wanted)),
            )}
            items={items}
            put={put}
          />
        </>
      )}
    </>
  );
}

function Columns({
  columns,
  items,
  put,
}: {
  columns: readonly (readonly [string, readonly Item[]])[];
  items: Items;
  put: (item: Item) => void;
}) {
  const stages = columns.map(([stage]) => stage);
  const moveBy = (item: Item, steps: number): void => {
    const next = stages[stages.indexOf(item.stage) + steps];
    if (next === undefined) return;
    void move(item, next, put).then(() => document.getElementById(`card-${item.storyId}`)?.focus());
  };
  return (
    <div class="board">
      {columns.map(([stage, found]) => (
        <Column
          key={stage}
          stage={stage}
          items={found}
          moveBy={moveBy}
          dropped={(storyId) => {
            const item = items.get(storyId);
            if (item !== undefined) void move(item, stage, put);
          }}
        />
      ))}
    </div>
  );
}

function Column({
  stage,
  items,
  dropped,
  moveBy,
}: {
  stage: string;
  items: readonly Item[];
  dropped: (storyId: string) => void;
  moveBy: (item: Item, steps: number) => void;
}) {
  const { readOnly } = useLive(link);
  const [over, setOver] = useState(false);
  const [most, setMost] = useState(CARDS_PER_COLUMN);
  const left = items.length - most;
  return (
    <section
      class={`column ${over ? "over" : ""}`}
      aria-label={stageTitle(stage)}
      data-stage={stage}
      onDragOver={(event) => {
        if (readOnly) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        dropped(event.dataTransfer?.getData("text/plain") ?? "");
      }}
    >
      <h2>
        {stageTitle(stage)} <span class="faint">{count(items.length)}</span>
      </h2>
      <ul>
        {items.slice(0, most).map((item) => (
          <Card key={item.storyId} item={item} readOnly={readOnly} moveBy={moveBy} />
        ))}
      </ul>
      {left > 0 ? (
        <button type="button" onClick={() => setMost(most + CARDS_PER_COLUMN)}>
          {Math.min(left, CARDS_PER_COLUMN)} more of {count(left)}
        </button>
      ) : null}
    </section>
  );
}

function Card({
  item,
  readOnly,
  moveBy,
}: {
  item: Item;
  readOnly: boolean;
  moveBy: (item: Item, steps: number) => void;
}) {
  const { storyId, name, agent, blocked, retryCount, dependsOn } = item;
  return (
    <li>
      <a
        id={`card-${storyId}`}
        class="card"
        href={to("board", storyId)}
        draggable={!readOnly}
        onDragStart={(event) => event.dataTransfer?.setData("text/plain", storyId)}
        onKeyDown={(event) => {
          const steps = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
          if (steps === 0 || readOnly) return;
          event.preventDefault();
          moveBy(item, steps);
        }}
      >
        <span class="card-id">{storyId}</span>
        <span class="card-name">{name ?? "(no name)"}</span>
        <span class="card-notes">
          {agent === null ? null : <Badge tone="busy">{agent}</Badge>}
          {blocked ? <Badge tone="bad">blocked</Badge> : null}
          {dependsOn.length > 0 ? <Badge tone="quiet">after {dependsOn.length}</Badge> : null}
          {retryCount > 0 ? <Badge tone="warn">{plural(retryCount, "retry", "retries")}</Badge> : null}
        </span>
      </a>
    </li>
  );
}

export function ItemPage({ storyId }: { storyId: string }) {
  const asked = useAsked(`item ${storyId}`, [`item:${storyId}`], async () => {
    const [read, history] = await Promise.all([
      call("pipeline.read", { storyId }),
      call("pipeline.history", { storyId }),
    ]);
    return { ...read, changes: history.changes };
  });
  const item = asked.data?.item;
  const happened = useLive(events).filter(({ topic }) => topic === `item:${storyId}`);
  return (
    <>
      <Heading title={item?.name ?? storyId} above={{ label: "Board", href: to("board") }}>
        {item ? <Stage item={item} again={asked.again} /> : null}
      </Heading>
      <Answer of={asked}>
        {({ item: found, changes, missing, cycle }) =>
          found === null ? (
            <Empty title={`${storyId} is not on the board`} />
          ) : (
            <>
              <Facts of={factsOf(found, missing, cycle)} />
              <section>
                <h2>Changes</h2>
                <ol class="changes">
                  {changes.map(({ changeId, at, name, author, set, delta, deleted }) => (
                    <li key={changeId}>
                      <p>
                        <time dateTime={new Date(at).toISOString()}>{exactTime(at)}</time> by{" "}
                        <b>{name ?? author.slice(0, 12)}</b>
                        {deleted ? " · deleted" : ""}
                      </p>
                      <Json value={{ ...set, ...delta }} />
                    </li>
                  ))}
                </ol>
              </section>
              <Happened events={happened} />
            </>
          )
        }
      </Answer>
    </>
  );
}

/** Moves an item without a pointer. */
function Stage({ item, again }: { item: Item; again: () => void }) {
  const { readOnly, up } = useLive(link);
  if (readOnly) return null;
  const stages = STAGES.includes(item.stage) ? STAGES : [...STAGES, item.stage];
  return (
    <>
      <label class="inline">
        Stage{" "}
        <select
          value={item.stage}
          disabled={!up}
          onChange={(event) => void move(item, event.currentTarget.value, () => again())}
        >
          {stages.map((stage) => (
            <option key={stage} value={stage}>
              {stageTitle(stage)}
            </option>
          ))}
        </select>
      </label>
      <Act
        label={item.blocked ? "Unblock" : "Block"}
        onClick={() =>
          void perform(async () => {
            await call("pipeline.write", { storyId: item.storyId, blocked: !item.blocked });
            return `${item.storyId} is ${item.blocked ? "not blocked any more" : "blocked"}.`;
          })
        }
      />
    </>
  );
}

function factsOf(
  item: Item,
  missing: readonly string[] | undefined,
  cycle: readonly string[] | undefined,
): [string, ComponentChildren][] {
  const facts: [string, ComponentChildren][] = [
    ["Id", <span class="mono">{item.storyId}</span>],
    ["Stage", stageTitle(item.stage)],
    ["Agent", item.agent ?? <span class="faint">nobody</span>],
    ["Blocked", item.blocked ? <Badge tone="bad">yes</Badge> : "no"],
    ["Retries", count(item.retryCount)],
    ["Changed", <Ago at={item.updatedAt} />],
  ];
  if (item.dependsOn.length > 0) {
    const links = item.dependsOn.map((storyId) => (
      <a key={storyId} class="mono" href={to("board", storyId)}>
        {storyId}{" "}
      </a>
    ));
    facts.push(["After", links]);
  }
  if (missing !== undefined) facts.push(["Not on the board", missing.join(", ")]);
  if (cycle !== undefined) facts.push(["Waits in a circle", cycle.join(" → ")]);
  return facts;
}

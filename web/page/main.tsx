import { render } from "preact";
import { useEffect } from "preact/hooks";
import { BatchPage } from "./batch.js";
import { Board, ItemPage } from "./board.js";
import { CommandPage, Commands } from "./commands.js";
import { LeasePage, Leases, Paths } from "./leases.js";
import { Daemon, Events, Sequences } from "./others.js";
import { Overview } from "./overview.js";
import { Dialogs, Empty, Heading } from "./parts.js";
import { Queue, Queues } from "./queues.js";
import { type Route, to, useRoute } from "./route.js";
import { Schedules } from "./schedules.js";
import { follow, link, useLive } from "./server.js";

const NAVIGATION = [
  ["", "Overview"],
  ["queues", "Queues"],
  ["schedules", "Schedules"],
  ["commands", "Commands"],
  ["leases", "Leases"],
  ["paths", "Paths"],
  ["board", "Board"],
  ["sequences", "Sequences"],
  ["events", "Events"],
  ["daemon", "Daemon"],
] as const;

/** The entry of the navigation that a page belongs to. */
const BELONGS_TO: Readonly<Record<string, string>> = { batches: "queues", command: "commands" };

function Page({ route: [noun = "", name, more] }: { route: Route }) {
  switch (noun) {
    case "":
      return <Overview />;
    case "queues":
      return name === undefined ? <Queues /> : <Queue key={name} queue={name} state={more} />;
    case "batches":
      return name === undefined ? <Queues /> : <BatchPage key={name} batchId={name} />;
    case "schedules":
      return <Schedules />;
    case "commands":
      return <Commands key={name} deployment={name} />;
    case "command":
      return name === undefined ? (
        <Commands deployment={undefined} />
      ) : (
        <CommandPage key={name} commandId={name} />
      );
    case "leases":
      return name === undefined ? <Leases /> : <LeasePage key={name} name={name} />;
    case "paths":
      return <Paths />;
    case "board":
      return name === undefined ? <Board /> : <ItemPage key={name} storyId={name} />;
    case "sequences":
      return <Sequences />;
    case "events":
      return <Events />;
    case "daemon":
      return <Daemon />;
    default:
      return (
        <>
          <Heading title="There is no such page" />
          <Empty title="The address leads nowhere">
            <a href="#/">To the overview</a>
          </Empty>
        </>
      );
  }
}

/** Says what keeps the page from being current. */
function Banner() {
  const { up, why, server } = useLive(link);
  const text = !server
    ? "pawl web does not answer. What is shown is what was known last; the page goes on by itself when it is back."
    : !up
      ? `There is no daemon. ${why ?? ""} What is shown is what was known last; the page goes on by itself when it is back.`
      : undefined;
  return (
    <div role="alert" class="banner-place">
      {text === undefined ? null : <p class="banner">{text}</p>}
    </div>
  );
}

function Status() {
  const { up, server, instance, readOnly } = useLive(link);
  const live = up && server;
  return (
    <p class="status">
      <span class={`dot ${live ? "good" : "bad"}`} aria-hidden="true" />
      <span>{instance ?? "pawl"}</span>
      <span class="faint">{live ? (readOnly ? "live, looks only" : "live") : "not connected"}</span>
    </p>
  );
}

/** A slash goes to the filter of a page. */
function onKey(event: KeyboardEvent): void {
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const filter = document.querySelector<HTMLInputElement>("input.filter");
  if (filter === null) return;
  event.preventDefault();
  filter.focus();
}

function App() {
  const route = useRoute();
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const [noun = ""] = route;
  const current = BELONGS_TO[noun] ?? noun;
  return (
    <div class="app">
      <button
        type="button"
        class="skip"
        onClick={() => document.querySelector<HTMLElement>("main h1")?.focus()}
      >
        To the content
      </button>
      <aside class="side">
        <a class="brand" href="#/">
          <img src="/icon.svg" alt="" width="24" height="24" /> pawl
        </a>
        <nav aria-label="Pages">
          {NAVIGATION.map(([path, title]) => (
            <a
              key={path}
              href={path === "" ? "#/" : to(path)}
              aria-current={path === current ? "page" : undefined}
            >
              {title}
            </a>
          ))}
        </nav>
        <Status />
      </aside>
      <main id="main">
        <Banner />
        <Page route={route} />
      </main>
      <Dialogs />
    </div>
  );
}

follow();
render(<App />, document.getElementById("app") as HTMLElement);

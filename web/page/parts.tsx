import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Asked, type CallFailed, link, useLive } from "./server.js";
import { ago, exactTime, json, shortId } from "./wording.js";

/** How good or bad something is. */
export type Tone = "good" | "warn" | "bad" | "busy" | "quiet";

const TONES: Readonly<Record<string, Tone>> = {
  ready: "busy",
  scheduled: "quiet",
  blocked: "warn",
  claimed: "busy",
  completed: "good",
  dead: "bad",
  cancelled: "quiet",
  expired: "warn",
  PENDING_UPLOAD: "quiet",
  PENDING: "busy",
  DISPATCHED: "busy",
  SUCCEEDED: "good",
  FAILED: "bad",
  EXPIRED: "warn",
};

export function toneOf(state: string): Tone {
  return TONES[state] ?? "quiet";
}

export function Badge({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

export function State({ of }: { of: string }) {
  return <Badge tone={toneOf(of)}>{of.toLowerCase().replace("_", " ")}</Badge>;
}

const SECOND_MS = 1000;

/** The time, each second anew. */
export function useNow(): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), SECOND_MS);
    return () => clearInterval(timer);
  }, []);
  return now;
}

/** 12 s ago; the exact time where the pointer rests. */
export function Ago({ at }: { at: number | null | undefined }) {
  const now = useNow();
  if (at === null || at === undefined) return <span class="faint">never</span>;
  return (
    <time dateTime={new Date(at).toISOString()} title={exactTime(at)}>
      {ago(at, now)}
    </time>
  );
}

/** An id, cut to what tells it from others; whole where the pointer rests, and with its link. */
export function Id({ of, href }: { of: string; href: string }) {
  return (
    <a class="name mono" href={href} title={of}>
      {shortId(of)}
    </a>
  );
}

/** JSON as text: nothing of it is ever HTML. */
export function Json({ value }: { value: unknown }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keyboard.
    <pre class="json" tabIndex={0}>
      {json(value)}
    </pre>
  );
}

/** What stands where there is nothing, and how to get the first of it. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children}
    </div>
  );
}

/** A command line to be copied. */
export function CommandLine({ children }: { children: string }) {
  return <code class="command-line">{children}</code>;
}

/** The heading of a page, and what can be done with what it is about. */
export function Heading({
  title,
  above,
  children,
}: {
  title: string;
  above?: { readonly label: string; readonly href: string };
  children?: ComponentChildren;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · pawl`;
    heading.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [title]);
  return (
    <header class="heading">
      <div>
        {above === undefined ? null : (
          <a class="above" href={above.href}>
            {above.label}
          </a>
        )}
        <h1 tabIndex={-1} ref={heading}>
          {title}
        </h1>
      </div>
      <div class="actions">{children}</div>
    </header>
  );
}

/** Shows what was asked for once it is there, and what went wrong. */
export function Answer<T>({ of, children }: { of: Asked<T>; children: (data: T) => ComponentChildren }) {
  return (
    <>
      {of.error === undefined ? null : <Problem error={of.error} />}
      {of.data === undefined ? (
        of.error === undefined ? (
          <p class="faint">Loading.</p>
        ) : null
      ) : (
        children(of.data)
      )}
    </>
  );
}

export function Problem({ error }: { error: CallFailed }) {
  return (
    <p class="notice bad" role="status">
      {error.message}
    </p>
  );
}

/** Names and values, one below the other. */
export function Facts({ of }: { of: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {of.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export interface Column<T> {
  readonly title: string;
  readonly right?: boolean;
  /** Left out on narrow screens. */
  readonly wide?: boolean;
  cell(row: T): ComponentChildren;
}

/** A table of rows; it scrolls within itself where it is too wide. */
export function Table<T>({
  label,
  columns,
  rows,
  keyOf,
}: {
  label: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  keyOf: (row: T) => string;
}) {
  const classOf = ({ right, wide }: Column<T>): string => `${right ? "right" : ""} ${wide ? "wide" : ""}`;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keyboard.
    <section class="table" aria-label={label} tabIndex={0}>
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.title} scope="col" class={classOf(column)}>
                {column.title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={keyOf(row)}>
              {columns.map((column) => (
                <td key={column.title} class={classOf(column)}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** What is asked before something is done that cannot be taken back. */
export interface Question {
  readonly title: string;
  /** What becomes of it. */
  readonly consequence: string;
  readonly confirm: string;
  readonly tone?: "danger";
  /** Asks for a text as well; `required` if it cannot be done without. */
  readonly text?: { readonly label: string; readonly required?: boolean };
  /** Does it, and resolves with what to say of it. */
  act(text: string): Promise<string>;
}

let showQuestion: (question: Question) => void = () => {};
let say: (text: string, tone: Tone) => void = () => {};

/** Asks before something is done. */
export function ask(question: Question): void {
  showQuestion(question);
}

/** Does something that needs no question, and says what became of it. */
export async function perform(act: () => Promise<string>): Promise<void> {
  try {
    say(await act(), "good");
  } catch (error) {
    say((error as Error).message, "bad");
  }
}

const SAID_MS = 6000;

/** The place of questions and of what is said, once in the page. */
export function Dialogs() {
  const [question, setQuestion] = useState<Question>();
  const [said, setSaid] = useState<{ text: string; tone: Tone }>();
  const [failure, setFailure] = useState<string>();
  const [busy, setBusy] = useState(false);
  const dialog = useRef<HTMLDialogElement>(null);
  showQuestion = (next) => {
    setFailure(undefined);
    setQuestion(next);
  };
  say = (text, tone) => setSaid({ text, tone });
  useEffect(() => {
    if (question !== undefined && dialog.current?.open === false) dialog.current.showModal();
  }, [question]);
  useEffect(() => {
    if (said === undefined) return;
    const timer = setTimeout(() => setSaid(undefined), SAID_MS);
    return () => clearTimeout(timer);
  }, [said]);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    if (question === undefined || busy) return;
    const text = new FormData(event.currentTarget as HTMLFormElement).get("text");
    setBusy(true);
    try {
      const done = await question.act(typeof text === "string" ? text.trim() : "");
      dialog.current?.close();
      say(done, "good");
    } catch (error) {
      setFailure((error as Error).message);
    }
    setBusy(false);
  };
  return (
    <>
      <dialog
        ref={dialog}
        aria-labelledby="question"
        aria-describedby="consequence"
        onClose={() => setQuestion(undefined)}
      >
        {question === undefined ? null : (
          <form onSubmit={(event) => void submit(event)}>
            <h2 id="question">{question.title}</h2>
            <p id="consequence">{question.consequence}</p>
            {question.text === undefined ? null : (
              <label class="field">
                {question.text.label}
                <input
                  name="text"
                  maxLength={200}
                  required={question.text.required ?? false}
                  autocomplete="off"
                />
              </label>
            )}
            {failure === undefined ? null : (
              <p class="notice bad" role="alert">
                {failure}
              </p>
            )}
            <div class="actions">
              <button type="button" onClick={() => dialog.current?.close()}>
                Keep as it is
              </button>
              <button type="submit" class={question.tone ?? "primary"} disabled={busy}>
                {question.confirm}
              </button>
            </div>
          </form>
        )}
      </dialog>
      <div class="said" role="status" aria-live="polite">
        {said === undefined ? null : <p class={`notice ${said.tone}`}>{said.text}</p>}
      </div>
    </>
  );
}

/** A button for something that changes something: not there where the page only looks. */
export function Act({
  label,
  name,
  tone,
  onClick,
}: {
  label: string;
  /** For those who hear the page: the label with what it is about. */
  name?: string;
  tone?: "danger" | "primary" | undefined;
  onClick: () => void;
}) {
  const { readOnly, up, server } = useLive(link);
  if (readOnly) return null;
  return (
    <button type="button" class={tone ?? ""} aria-label={name} disabled={!up || !server} onClick={onClick}>
      {label}
    </button>
  );
}

/** A box that filters a list by text. */
export function Filter({
  label,
  value,
  onInput,
}: {
  label: string;
  value: string;
  onInput: (text: string) => void;
}) {
  return (
    <input
      type="search"
      class="filter"
      aria-label={label}
      placeholder={`${label}  ( / )`}
      value={value}
      onInput={(event) => onInput(event.currentTarget.value)}
    />
  );
}

/** Rows that are shown so many at a time. */
export function usePages<T>(
  rows: readonly T[],
  pageRows: number,
): [shown: readonly T[], more: ComponentChildren] {
  const [most, setMost] = useState(pageRows);
  const left = rows.length - most;
  const more =
    left <= 0 ? null : (
      <p class="more">
        <button type="button" onClick={() => setMost(most + pageRows)}>
          Show {Math.min(left, pageRows)} more of {left.toLocaleString("en-US")}
        </button>
      </p>
    );
  return [rows.slice(0, most), more];
}

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Sample } from "./server.js";
import { clockTime, count } from "./wording.js";

export interface Line {
  readonly label: string;
  /** A custom property of the style sheet. */
  readonly colour: string;
  value(sample: Sample): number;
}

const HEIGHT_PX = 160;
/** A plot that has just begun leaves room for what comes. */
const SHORTEST_SECONDS = 120;
const MS = 1000;

/** Lines over the last minutes, which grow with each sample. The numbers of the last one stand above, as text. */
export function Plot({
  title,
  lines,
  samples,
}: {
  title: string;
  lines: readonly Line[];
  samples: readonly Sample[];
}) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef(samples);
  latest.current = samples;
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const draw = (): void => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsFor(element, lines), dataOf(latest.current, lines), element);
    };
    draw();
    const sizes = new ResizeObserver(() => {
      plot.current?.setSize({ width: element.clientWidth, height: HEIGHT_PX });
    });
    sizes.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    return () => {
      sizes.disconnect();
      scheme.removeEventListener("change", draw);
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(dataOf(samples, lines)), [samples]);
  const last = samples.at(-1);
  return (
    <figure class="plot">
      <figcaption>
        <span>{title}</span>
        {lines.map((line) => (
          <span key={line.label} class="legend">
            <i class={`swatch ${line.colour}`} />
            {line.label} <b>{last === undefined ? "–" : count(Math.round(line.value(last) * 10) / 10)}</b>
          </span>
        ))}
      </figcaption>
      <div ref={place} aria-hidden="true" class="plot-area" />
    </figure>
  );
}

function dataOf(samples: readonly Sample[], lines: readonly Line[]): uPlot.AlignedData {
  return [samples.map(({ at }) => at / MS), ...lines.map((line) => samples.map((each) => line.value(each)))];
}

function optionsFor(element: HTMLElement, lines: readonly Line[]): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const axis = {
    stroke: colour("faint"),
    grid: { stroke: colour("line"), width: 1 },
    ticks: { show: false },
    font: `11px ${style.fontFamily}`,
  };
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 8, 0, 0],
    scales: {
      x: { range: (_plot, low, high) => [Math.min(low, high - SHORTEST_SECONDS), high] },
      y: { range: (_plot, _low, high) => [0, Math.max(high * 1.1, 5)] },
    },
    axes: [
      { ...axis, size: 24, grid: { show: false }, space: 80, values: (_plot, times) => times.map(clock) },
      { ...axis, size: 44, space: 36, values: (_plot, values) => values.map((value) => count(value)) },
    ],
    series: [
      {},
      ...lines.map(({ label, colour: name }) => ({
        label,
        stroke: colour(name),
        width: 2,
        points: { show: false },
      })),
    ],
  };
}

function clock(seconds: number): string {
  return clockTime(seconds * MS);
}

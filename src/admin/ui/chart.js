// Charts over time by uPlot, in the page's colours, and the small drawings in tables.

import { brief, h, put, s } from "./dom.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const fade = (name, part) => `color-mix(in srgb, ${color(name)} ${part}%, ${color("card")})`;
const clock = (at, seconds) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hourCycle: "h23" });

/**
 * A chart. `lines`: {label, key, color, fill, dash, value} each; `label` says what it is to whoever cannot see it. What
 * it shows is set by `show(times, columns)`, an array for each line; where they are stacked, each with those below it.
 */
export function chart(label, lines, { height = 190, signal, format = String, stacked = false } = {}) {
  const place = h("div", { class: "chart", role: "img", "aria-label": label });
  const legend = h("div", { class: "legend" });
  let plot = null;
  let shown = [[], ...lines.map(() => [])];
  let values = shown;

  function build() {
    plot?.destroy();
    plot = null;
    const width = place.clientWidth - 16;
    if (width < 50) return;
    const axis = { stroke: color("muted"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const options = {
      width,
      height,
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, size: 26, space: 80, values: (_, ticks) => ticks.map((at) => clock(at, ticks[1] - ticks[0] < 60)) },
        { ...axis, size: 44, gap: 4, values: (_, ticks) => ticks.map((value) => brief(value)) },
      ],
      series: [
        {},
        ...lines.map((line) => ({
          label: line.label,
          stroke: color(line.color),
          width: line.fill ? 1 : 1.5,
          dash: line.dash,
          fill: line.fill ? fade(line.color, stacked ? 60 : 14) : undefined,
          points: { show: false },
          spanGaps: false,
        })),
      ],
      hooks: { setCursor: [(self) => tell(self.cursor.idx)] },
    };
    plot = new window.uPlot(options, shown, place);
  }

  /** Writes the values under the pointer, or the latest, into the legend. */
  function tell(index) {
    const at = index ?? shown[0].length - 1;
    const items = lines.map((line, place) => {
      const value = values[place + 1][at];
      const told = value === null || value === undefined ? "–" : format(value);
      return h("span", {}, h("i", { class: `key ${line.key ?? ""}` }), line.label, " ", h("b", {}, told));
    });
    put(legend, items);
    if (index === null || index === undefined) place.setAttribute("aria-label", `${label}. Now: ${legend.textContent}`);
  }

  const again = () => requestAnimationFrame(() => !signal?.aborted && build());
  const size = new ResizeObserver(() => {
    if (!plot) return build();
    const width = place.clientWidth - 16;
    if (Math.abs(width - plot.width) > 1) plot.setSize({ width, height });
  });
  size.observe(place);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", again, { signal });
  signal?.addEventListener("abort", () => {
    size.disconnect();
    plot?.destroy();
  });

  return {
    node: place,
    legend,
    show(times, columns) {
      values = [times, ...columns];
      shown = values;
      if (stacked) {
        let below = times.map(() => 0);
        const piled = columns.slice().reverse().map((column) => (below = column.map((value, at) => value + below[at])));
        shown = [times, ...piled.reverse()];
      }
      if (plot) plot.setData(shown);
      else build();
      tell(plot?.cursor.idx);
    },
  };
}

/** A drawing of numbers, of all and of those that were limited. */
export function spark(all, limited, label) {
  const most = Math.max(1, ...all);
  const path = (values) => values.map((value, at) => `${at ? "L" : "M"}${((at * 90) / Math.max(1, values.length - 1)).toFixed(1)} ${(21 - (value / most) * 20).toFixed(1)}`).join("");
  const drawing = s("svg", { class: "spark", viewBox: "0 0 90 22", role: "img", "aria-label": label });
  if (all.length > 1) drawing.append(s("path", { class: "all", d: path(all) }));
  if (limited.some((value) => value > 0)) drawing.append(s("path", { class: "limited", d: path(limited) }));
  return drawing;
}

/** How full something is. */
export function gauge(has, of) {
  const part = of > 0 ? Math.min(1, has / of) : 0;
  return s("svg", { class: `gauge${part < 0.1 ? " low" : ""}`, "aria-hidden": "true" },
    s("rect", { class: "of", width: 70, height: 8, rx: 4 }), s("rect", { class: "has", width: 70 * part, height: 8, rx: 4 }));
}

/** The states of a backend over the last quarter of an hour. */
export function timeline(states, now) {
  const [begin, width] = [now - 900, 150];
  const x = (at) => (Math.max(0, at - begin) / 900) * width;
  const parts = states.map(({ at, state }, place) => {
    const until = states[place + 1]?.at ?? now;
    return s("rect", { class: state, x: x(at).toFixed(1), y: 0, height: 16, width: Math.max(0, x(until) - x(at)).toFixed(1) });
  });
  const told = states.map(({ at, state }) => `${state} since ${new Date(at * 1000).toLocaleTimeString()}`).join(", ");
  return s("svg", { class: "timeline", viewBox: `0 0 ${width} 16`, role: "img", "aria-label": `The last 15 minutes: ${told || "not known"}` },
    s("rect", { class: "none", width, height: 16, rx: 2 }), parts, s("title", {}, told));
}

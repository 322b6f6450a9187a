// Charts over time by uPlot, in the page's colours, and the small drawings in tables.

import { brief, h, put, s } from "./dom.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const fade = (name, part) => `color-mix(in srgb, ${color(name)} ${part}%, ${color("card")})`;
const clock = (at, seconds) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hourCycle: "h23" });

/** A chart of `lines`, {label, color, fill, dash}: `show(times, columns)` gives it an array for each. */
export function chart(label, lines, { height = 170, signal, format = brief, stacked = false }) {
	const node = h("div.chart", { role: "img", "aria-label": label });
	const legend = h("div.legend");
	let plot = null;
	let shown = [[], ...lines.map(() => [])];
	let values = shown;

	function build() {
		plot?.destroy();
		plot = null;
		const width = node.clientWidth - 16;
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
				{ ...axis, size: 44, gap: 4, values: (_, ticks) => ticks.map(brief) },
			],
			series: [{}, ...lines.map(({ color: name, fill, dash }) => ({
				stroke: color(name),
				width: fill ? 1 : 1.5,
				dash,
				fill: fill && fade(name, stacked ? 60 : 14),
				points: { show: false },
			}))],
			hooks: { setCursor: [(self) => tell(self.cursor.idx)] },
		};
		plot = new window.uPlot(options, shown, node);
	}

	/** Writes the values under the pointer, or the latest, into the legend. */
	function tell(index) {
		const at = index ?? shown[0].length - 1;
		put(legend, lines.map((line, place) => {
			const value = values[place + 1][at] ?? null;
			return h("span", h("i", { class: `key ${line.color}` }), line.label, " ", h("b", value === null ? "–" : format(value)));
		}));
		if (at !== index) node.setAttribute("aria-label", `${label}. Now: ${legend.textContent}`);
	}

	const size = new ResizeObserver(() => {
		if (!plot) return build();
		const width = node.clientWidth - 16;
		if (Math.abs(width - plot.width) > 1) plot.setSize({ width, height });
	});
	size.observe(node);
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(() => signal.aborted || build()), { signal });
	signal.addEventListener("abort", () => {
		size.disconnect();
		plot?.destroy();
	});

	return { node, legend, lines, show(times, columns) {
		values = shown = [times, ...columns];
		if (stacked) {
			let below = times.map(() => 0);
			const pile = (column) => (below = column.map((value, at) => value + below[at]));
			shown = [times, ...columns.toReversed().map(pile).reverse()];
		}
		if (plot) plot.setData(shown);
		else build();
		tell(plot?.cursor.idx);
	} };
}

/** A drawing of numbers, of all and of those that were limited. */
export function spark(all, limited, label) {
	const most = Math.max(1, ...all);
	const line = (kind, values) => s(`path.${kind}`, { d: values.map((value, at) => `${at ? "L" : "M"}${((at * 90) / (values.length - 1)).toFixed(1)} ${(21 - (value / most) * 20).toFixed(1)}`).join("") });
	return s("svg.spark", { viewBox: "0 0 90 22", role: "img", "aria-label": label },
		all.length > 1 && [line("all", all), limited.some(Boolean) && line("limited", limited)]);
}

export function gauge(has, of) {
	const part = of > 0 ? Math.min(1, has / of) : 0;
	const bar = (kind, width) => s(`rect.${kind}`, { width, height: 8, rx: 4 });
	return s("svg", { class: `gauge${part < 0.1 ? " low" : ""}`, "aria-hidden": "true" }, bar("of", 70), bar("has", 70 * part));
}

/** The states of a backend over the last quarter of an hour. */
export function timeline(states, now) {
	const x = (at) => Math.max(0, (at - now + 900) / 6);
	const parts = states.map(({ at, state }, place) => s("rect", { class: state, x: x(at), height: 16, width: Math.max(0, x(states[place + 1]?.at ?? now) - x(at)) }));
	const told = states.map(({ at, state }) => `${state} since ${new Date(at * 1000).toLocaleTimeString()}`).join(", ");
	return s("svg.timeline", { viewBox: "0 0 150 16", role: "img", "aria-label": `The last 15 minutes: ${told || "not known"}` },
		s("rect.none", { width: 150, height: 16, rx: 2 }), parts, s("title", told));
}

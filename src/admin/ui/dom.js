// Elements, numbers and times. Everything from outside is put in as text, never as markup.

/** Whether there is something, be it empty. */
export const there = (value) => (value ?? false) !== false;

/** An element: `name.class`, maybe attributes and listeners, children. What is null or false is left out. */
function make(space, name, [first, ...rest]) {
	const [tag, ...classes] = name.split(".");
	const element = document.createElementNS(`http://www.w3.org/${space}`, tag);
	const props = first?.constructor === Object;
	if (classes.length) element.setAttribute("class", classes.join(" "));
	if (tag === "button") element.type = tag;
	for (const [key, value] of props ? Object.entries(first) : []) {
		if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
		else if (there(value)) element.setAttribute(key, value === true ? "" : value);
	}
	return put(element, !props && first, rest);
}
export const h = (name, ...rest) => make("1999/xhtml", name, rest);
export const s = (name, ...rest) => make("2000/svg", name, rest);

/** Puts children into an element, in place of those that it has. */
export function put(element, ...children) {
	element.replaceChildren(...children.flat(Infinity).filter(there));
	return element;
}

/** Sets a text where it has changed: a selection stays. */
export function set(element, text) {
	if (element.textContent !== String(text)) element.textContent = text;
	return element;
}

/** Keeps the children of `parent` in step with `items`, each by its key. */
export function keyed(parent, items, key, make) {
	const known = (parent.known ??= new Map());
	const seen = new Set(items.map(key));
	for (const [name, { node }] of known) {
		if (!seen.has(name)) {
			node.remove();
			known.delete(name);
		}
	}
	let next = parent.firstChild;
	for (const item of items) {
		const name = key(item);
		if (!known.has(name)) known.set(name, make(item));
		const { node, update } = known.get(name);
		update?.(item);
		if (node !== next) parent.insertBefore(node, next);
		else next = next.nextSibling;
	}
}

const format = (options) => {
	const { format } = new Intl.NumberFormat("en", options);
	return format;
};
const whole = format({ maximumFractionDigits: 0 });
const short = format({ notation: "compact", maximumFractionDigits: 1 });
const precise = format({ maximumFractionDigits: 3 });
const small = format({ maximumSignificantDigits: 3 });
export const number = (value) => (Math.abs(value) < 1 ? small : precise)(value);
/** A number in little room. */
export const brief = (value) => (Math.abs(value) >= 10000 ? short : value > 0 && value < 1 ? number : whole)(value);
export const rate = (value) => (value > 0 && value < 10 ? value.toFixed(1) : brief(value));

/** Milliseconds in words. */
export function millis(value) {
	if (!there(value)) return "–";
	if (value < 100) return `${value.toFixed(value < 1 ? 2 : 1)} ms`;
	return value < 10000 ? `${whole(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** Seconds in words, the two largest units. */
export function span(seconds) {
	let left = Math.max(0, Math.round(seconds));
	const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].map(([unit, size]) => {
		const count = Math.floor(left / size);
		left -= count * size;
		return count ? `${count} ${unit}` : "";
	});
	const first = parts.findIndex(Boolean);
	return first < 0 ? "0 s" : parts.slice(first, first + 2).filter(Boolean).join(" ");
}

/** A moment, as an element that tells it exactly when one points at it. */
export function when(moment) {
	if (!moment) return "never";
	const date = new Date(moment);
	const seconds = (Date.now() - date) / 1000;
	return h("time", { datetime: moment, title: date.toLocaleString() }, seconds < 2 ? "now" : `${span(seconds)} ago`);
}

export const pill = (text, kind) => h("span", { class: `pill ${kind ?? ""}` }, text);
/** Something in place of what is not there. */
export const empty = (text) => h("p.empty", text);
/** What a part begins with. */
export const head = (title, ...rest) => h("div.head", h("h1", { tabindex: -1 }, title), rest);
/** A card with a title and maybe something beside it. */
export const card = (title, beside, body) =>
	h("section.card", h("div.title", h("h2", title), h("span.grow"), body && beside), body ?? beside);
export const fact = (name, ...value) => [h("dt", name), h("dd", value)];
export const clientLink = (id) => h("a", { href: `#/client/${encodeURIComponent(id)}` }, id);

/** What heads a row. */
export const rowHead = (...inside) => h("th", { scope: "row" }, inside);
/** A cell for each of `columns` but the first: `title.class`. */
export const cells = (columns) => columns.slice(1).map((column) => h(column.replace(/[^.]*/, "td")));
/** A table that can be scrolled sideways, by keys too. */
export const table = (label, columns, body) => h("div.scroll", { tabindex: 0, role: "region", "aria-label": label },
	h("table", h("caption", { hidden: true }, label),
		h("thead", h("tr", columns.map((column) => h(column.replace(/[^.]*/, "th"), { scope: "col" }, column.split(".")[0])))), body));

/** Says something for a while. */
export function say(text) {
	const line = h("p", text);
	document.getElementById("said").append(line);
	setTimeout(() => line.remove(), 5000);
}

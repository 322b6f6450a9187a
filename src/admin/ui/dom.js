// Making elements, and writing numbers and times. Everything from outside is put in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  put(element, ...children);
  return element;
}

/** An element; what is null or false is left out, what is no node is text. */
export const h = (name, props, ...children) => fill(document.createElement(name), props, children);
/** The same of a drawing. */
export const s = (name, props, ...children) => fill(document.createElementNS(SVG, name), props, children);

/** Puts children into an element, in place of those that it has. */
export function put(element, ...children) {
  const nodes = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  element.replaceChildren(...nodes.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
  return element;
}

/** Sets a text where it has changed, so that whoever has selected it keeps that. */
export function set(element, text) {
  text = String(text);
  if (element.textContent !== text) element.textContent = text;
  return element;
}

/** Keeps the children of `parent` in step with `items`: each has a node by its key, made once and updated then. */
export function keyed(parent, items, key, make) {
  const known = (parent.known ??= new Map());
  const seen = new Set();
  let next = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    seen.add(name);
    let entry = known.get(name);
    if (!entry) known.set(name, (entry = make(item)));
    entry.update?.(item);
    if (entry.node !== next) parent.insertBefore(entry.node, next);
    else next = next.nextSibling;
  }
  for (const [name, entry] of known) {
    if (!seen.has(name)) {
      entry.node.remove();
      known.delete(name);
    }
  }
  return seen.size;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });

/** A number as it is. */
export const number = (value) => exact.format(value);
/** A number in little room. */
export const brief = (value) => (Math.abs(value) >= 10000 ? short : value > 0 && value < 1 ? exact : whole).format(value);
/** Something a second. */
export const rate = (value) => (value > 0 && value < 10 ? value.toFixed(1) : brief(value));

/** Milliseconds in words. */
export function millis(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${value.toFixed(2)} ms`;
  if (value < 100) return `${value.toFixed(1)} ms`;
  return value < 10000 ? `${whole.format(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** Seconds in words, the two largest units. */
export function span(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  const parts = units.slice(first, first + 2).map(([unit, size]) => {
    const count = Math.floor(seconds / size);
    seconds -= count * size;
    return count ? `${count} ${unit}` : "";
  });
  return parts.filter(Boolean).join(" ");
}

/** How long ago a moment was. */
export const ago = (moment) => {
  const seconds = (Date.now() - new Date(moment).getTime()) / 1000;
  return seconds < 2 ? "now" : `${span(seconds)} ago`;
};

/** A moment, as an element that tells it exactly when one points at it. */
export const when = (moment) =>
  moment ? h("time", { datetime: moment, title: new Date(moment).toLocaleString() }, ago(moment)) : "never";

/** A state with its colour. */
export const pill = (text, kind) => h("span", { class: `pill ${kind ?? ""}` }, text);

/** A card with a title. */
export const card = (title, ...rest) => {
  const [beside, body] = rest.length > 1 ? rest : [null, rest[0]];
  return h("section", { class: "card" }, h("div", { class: "title" }, h("h2", {}, title), h("span", { class: "grow" }), beside), body);
};

/** A table that can be scrolled sideways, by keys too. `columns`: [title, class]. */
export function table(label, columns, body) {
  const head = columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title));
  const inner = h("table", {}, h("caption", { hidden: true }, label), h("thead", {}, h("tr", {}, head)), body);
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, inner);
}

/** Says that something was done, to the eye and to a screen reader. */
export function say(text) {
  const line = h("p", {}, text);
  document.getElementById("said").append(line);
  setTimeout(() => line.remove(), 5000);
}

// Pools and their backends: how they stand, and what an operator may do to them.

import { ask, every, get, writable } from "./api.js";
import { brief, card, h, keyed, millis, pill, put, rate, say, set, table, when } from "./dom.js";
import { confirm, form } from "./forms.js";
import { known, live } from "./live.js";
import { timeline } from "./chart.js";

const KINDS = { up: "good", down: "bad", drain: "warn", ejected: "warn", unknown: "" };
const COLUMNS = [["Backend"], ["State"], ["Since and why", "wrap"], ["Weight", "number"], ["In flight", "number"], ["Requests/s", "number"], ["Failures", "number"], ["Check", "number"], ["Idle time", "number"], ["Last 15 minutes"], ["Change"]];

export function backends(view, signal) {
  const place = h("div", {}, h("p", { class: "empty" }, "Loading"));
  put(view, h("div", { class: "head" }, h("h1", { tabindex: -1 }, "Backends")), place);
  let again = () => {};
  const before = new Map();
  const pools = h("div");

  again = every(1500, signal, async () => {
    const { items } = await get("/upstreams", { signal });
    if (place.firstChild !== pools) put(place, pools);
    const count = keyed(pools, items, (pool) => pool.name, (pool) => poolCard(pool, before, () => again()));
    if (!count) put(place, h("p", { class: "empty" }, "There are no upstreams."));
  });
  // How they stood comes with the series, which is read when the stream begins.
  const past = async () => {
    const told = await get("/series?minutes=1", { signal });
    known.backends = told.backends;
  };
  every(5000, signal, past);
  live.addEventListener("state", () => known.state === "live" && again(), { signal });
}

function poolCard({ name }, before, again) {
  const body = h("tbody");
  const about = h("span", { class: "note" });
  const lost = h("p", { class: "note left", hidden: true });
  const node = card(name, about, [table(`Backends of ${name}`, COLUMNS, body), lost]);
  return { node, update(pool) {
    const panic = pool.panic ? ", in panic: ejected backends get requests" : "";
    set(about, `${pool.balance.replaceAll("_", " ")}, ${pool.protocol}${pool.tls ? " over TLS" : ""}, ${brief(pool.requests)} requests, ${brief(pool.retries)} retries${panic}`);
    lost.hidden = !pool.unresolved.length;
    set(lost, `Does not resolve: ${pool.unresolved.join(", ")}`);
    keyed(body, pool.backends, (backend) => backend.address, (backend) => row(name, backend, before, again));
  } };
}

function row(pool, { address }, before, again) {
  const cell = (kind) => h("td", { class: kind });
  const [state, why, weight, flight, speed, failures, check, idle, past] = [cell(), cell("wrap"), cell("number"), cell("number"), cell("number"), cell("number"), cell("number"), cell("number"), cell()];
  const toggle = h("button", { type: "button", class: "quiet" }, "Drain");
  const scale = h("button", { type: "button", class: "quiet", "aria-label": `Weight of ${address}` }, "Weight");
  const title = h("th", { scope: "row" }, h("span", { class: "mono" }, address), h("div", { class: "note" }));
  const node = h("tr", {}, title, state, why, weight, flight, speed, failures, check, idle, past, h("td", {}, h("div", { class: "buttons" }, toggle, scale)));
  let now = null;
  const change = async (body, done) => {
    await ask("PATCH", `/upstreams/${encodeURIComponent(pool)}/backends/${encodeURIComponent(address)}`, body);
    say(done);
    again();
  };
  toggle.addEventListener("click", () => {
    const up = now.state === "drain";
    if (up) confirm(`Give ${address} requests again?`, `It is well by its last check and takes its share of ${pool} at once.`, "Up", () => change({ state: "up" }, `${address} gets requests`));
    else confirm(`Drain ${address}?`, `It finishes its ${now.in_flight} requests in flight and gets no new ones, until it is set up again or the next start.`, "Drain", () => change({ state: "drain" }, `${address} drains`));
  });
  scale.addEventListener("click", () => form(`Weight of ${address}`, [
    { name: "weight", label: "Weight", value: now.weight, inputmode: "numeric", required: true, hint: "Its share of the requests relative to the others, until the next start" },
  ], "Set", ({ weight: value }) => change({ weight: Number(value) }, `${address} has weight ${value}`)));

  return { node, update(backend) {
    now = backend;
    const key = `${pool} ${address}`;
    const states = known.backends.find((one) => one.upstream === pool && one.address === address)?.states ?? [];
    const last = states[states.length - 1];
    set(title.lastChild, backend.configured === address ? "" : backend.configured);
    if (state.textContent !== backend.state) put(state, pill(backend.state, KINDS[backend.state]));
    put(why, last && last.state === backend.state ? when(last.at * 1000) : "", reason(backend));
    set(weight, backend.weight);
    set(flight, brief(backend.in_flight));
    const seen = before.get(key);
    const moment = performance.now();
    if (seen && moment - seen.moment > 900) set(speed, rate(Math.max(0, backend.requests - seen.requests) / ((moment - seen.moment) / 1000)));
    if (!seen || moment - seen.moment > 900) before.set(key, { moment, requests: backend.requests });
    set(failures, brief(backend.failures));
    set(check, millis(backend.last_check?.duration_ms));
    set(idle, backend.idle_closes_after_ms === null ? "–" : millis(backend.idle_closes_after_ms));
    put(past, timeline(states, Math.floor(Date.now() / 1000)));
    const drained = backend.state === "drain";
    set(toggle, drained ? "Up" : "Drain").setAttribute("aria-label", `${drained ? "Up" : "Drain"}: ${address}`);
    toggle.disabled = scale.disabled = !writable();
  } };
}

function reason({ state, ejected, last_check }) {
  let why = "";
  if (state === "drain") why = "set by an operator";
  else if (ejected) why = ejected.reason;
  else if (last_check?.error) why = last_check.error;
  return why && h("div", { class: "note" }, why);
}

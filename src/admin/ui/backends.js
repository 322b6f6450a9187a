// Pools and their backends: how they stand, and what an operator may do to them.

import { every, get, writable } from "./api.js";
import { brief, card, cells, empty, h, head, keyed, millis, pill, put, rate, rowHead, set, table, when } from "./dom.js";
import { carryOut, confirm, form } from "./forms.js";
import { known, live } from "./live.js";
import { timeline } from "./chart.js";

const KINDS = { up: "good", down: "bad", drain: "warn", ejected: "warn" };
const COLUMNS = ["Backend", "State", "Since and why.wrap", "Weight.number", "In flight.number", "Requests/s.number", "Failures.number", "Check.number", "Idle time.number", "Last 15 minutes", "Change"];

export function backends(view, signal) {
	const none = empty("Loading");
	const pools = h("div");
	put(view, head("Backends"), none, pools);
	const again = every(1500, signal, async () => {
		const { items } = await get("/upstreams", signal);
		keyed(pools, items, (pool) => pool.name, (pool) => poolCard(pool, () => again()));
		none.hidden = items.length > 0;
		set(none, "There are no upstreams.");
	});
	// How they stood comes with the series, which is read when the stream begins.
	every(5000, signal, async () => {
		known.backends = (await get("/series?minutes=1", signal)).backends;
	});
	live.addEventListener("state", () => known.state === "live" && again(), { signal });
}

function poolCard({ name }, again) {
	const body = h("tbody");
	const about = h("span.note");
	const lost = h("p.note.left");
	return { node: card(name, about, [table(`Backends of ${name}`, COLUMNS, body), lost]), update(pool) {
		const panic = pool.panic ? ", in panic: ejected backends get requests" : "";
		set(about, `${pool.balance.replaceAll("_", " ")}, ${pool.protocol}${pool.tls ? " over TLS" : ""}, ${brief(pool.requests)} requests, ${brief(pool.retries)} retries${panic}`);
		lost.hidden = !pool.unresolved.length;
		set(lost, `Does not resolve: ${pool.unresolved.join(", ")}`);
		keyed(body, pool.backends, (backend) => backend.address, (backend) => row(name, backend, again));
	} };
}

function row(pool, { address }, again) {
	const all = cells(COLUMNS);
	const [state, why, weight, flight, speed, failures, check, idle, past, acts] = all;
	const configured = h("div.note");
	let now = null;
	let seen = null;
	const change = (body, said) => carryOut(said, again, "PATCH", `/upstreams/${encodeURIComponent(pool)}/backends/${encodeURIComponent(address)}`, body);
	const toggle = h("button.quiet", { onclick: () => (now.state === "drain"
		? confirm(`Give ${address} requests again?`, `It is well by its last check and takes its share of ${pool} at once.`, "Up", () => change({ state: "up" }, `${address} gets requests`))
		: confirm(`Drain ${address}?`, `It finishes its ${now.in_flight} requests in flight and gets no new ones, until it is set up again or the next start.`, "Drain", () => change({ state: "drain" }, `${address} drains`))) }, "Drain");
	const scale = h("button.quiet", { "aria-label": `Weight of ${address}`, onclick: () => form(`Weight of ${address}`, [
		{ name: "weight", label: "Weight", value: now.weight, inputmode: "numeric", required: true, hint: "Its share of the requests relative to the others, until the next start" },
	], "Set", ({ weight: value }) => change({ weight: Number(value) }, `${address} has weight ${value}`)) }, "Weight");
	put(acts, h("div.buttons", toggle, scale));

	return { node: h("tr", rowHead(h("span.mono", address), configured), all), update(backend) {
		now = backend;
		const states = known.backends.find((one) => one.upstream === pool && one.address === address)?.states ?? [];
		const last = states.at(-1);
		set(configured, backend.configured === address ? "" : backend.configured);
		if (state.textContent !== backend.state) put(state, pill(backend.state, KINDS[backend.state]));
		put(why, last?.state === backend.state && when(last.at * 1000), reason(backend));
		set(weight, backend.weight);
		set(flight, brief(backend.in_flight));
		const moment = performance.now();
		const past_ms = moment - seen?.moment;
		if (seen && past_ms > 900) set(speed, rate(Math.max(0, backend.requests - seen.requests) / (past_ms / 1000)));
		if (!(past_ms <= 900)) seen = { moment, requests: backend.requests };
		set(failures, brief(backend.failures));
		set(check, millis(backend.last_check?.duration_ms));
		set(idle, millis(backend.idle_closes_after_ms));
		put(past, timeline(states, Math.floor(Date.now() / 1000)));
		const act = backend.state === "drain" ? "Up" : "Drain";
		set(toggle, act).setAttribute("aria-label", `${act}: ${address}`);
		toggle.disabled = scale.disabled = !writable();
	} };
}

function reason({ state, ejected, last_check }) {
	const why = state === "drain" ? "set by an operator" : ejected?.reason ?? last_check?.error;
	return why && h("div.note", why);
}

// What the server does now and did in the last quarter of an hour.

import { every, get } from "./api.js";
import { brief, card, clientLink, fact, h, head, millis, pill, put, rate, set, span, when } from "./dom.js";
import { chart } from "./chart.js";
import { known, live } from "./live.js";

const FIGURES = ["Requests/s", "Limited/s", "Errors/s", "p95", "Connections", "In flight", "Buckets"];
const VERBS = { create: "made", update: "changed", delete: "deleted", rollback: "rolled back" };
const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

export function overview(view, signal) {
	const figures = FIGURES.map(() => h("span", "–"));
	const most = h("small");
	const outcome = chart("Requests a second by outcome", [
		{ label: "5xx", color: "bad", fill: true, of: ({ answers }) => answers["5xx"] + answers.none },
		{ label: "429", color: "warn", fill: true, of: ({ answers }) => answers["429"] },
		{ label: "4xx", color: "idle", fill: true, of: ({ answers }) => answers["4xx"] },
		{ label: "2xx, 3xx", color: "accent", fill: true, of: ({ answers }) => answers["2xx"] + answers["3xx"] },
	], { signal, stacked: true, height: 210 });
	const latency = chart("Latency in milliseconds", [
		{ label: "p99", color: "bad", of: (one) => one.latency_ms.p99 },
		{ label: "p95", color: "warn", of: (one) => one.latency_ms.p95 },
		{ label: "p50", color: "idle", fill: true, of: (one) => one.latency_ms.p50 },
	], { signal, format: millis });
	const load = chart("Connections and requests in flight", [
		{ label: "connections", color: "accent", fill: true, of: (one) => one.connections },
		{ label: "in flight", color: "warn", of: (one) => one.in_flight },
	], { signal });
	const state = h("dl.facts.body");
	const fleet = h("dl.facts.body");
	const changes = h("ul.plain");
	put(view, head("Overview"),
		h("dl.figures", FIGURES.map((name, at) => h("div", fact(name, figures[at], name === "Connections" && most)))),
		card("Requests a second", outcome.legend, outcome.node),
		h("div.columns", card("Latency, milliseconds", latency.legend, latency.node), card("Load", load.legend, load.node)),
		h("div.columns", card("Process", state), h("div", card("Fleet and store", fleet), card("Latest changes of clients", changes))));

	function draw() {
		const { samples } = known;
		const at = samples.map((one) => one.at);
		for (const one of [outcome, latency, load]) one.show(at, one.lines.map(({ of }) => samples.map(of)));
		const last = samples.at(-1);
		if (!last) return;
		const { answers } = last;
		const told = [rate(total(answers)), rate(answers["429"]), rate(answers["5xx"] + answers.none), millis(last.latency_ms.p95),
			brief(last.connections), brief(last.in_flight), brief(last.buckets)];
		told.forEach((text, place) => set(figures[place], text));
	}
	live.addEventListener("sample", draw, { signal });
	live.addEventListener("series", draw, { signal });
	draw();

	every(3000, signal, async () => {
		const [status, nodes, latest] = await Promise.all(["/status", "/fleet", "/changes?limit=8"].map((path) => get(path, signal)));
		set(most, status.max_connections ? ` of ${brief(status.max_connections)}` : "");
		put(state,
			fact("State", pill(status.state.replace("_", " "), { ready: "good", stopped: "bad" }[status.state] ?? "warn")), fact("Running", span(status.uptime_seconds)),
			fact("Version", status.version), fact("Listens on", status.listeners.join(", ") || "–"), fact("Admin API", status.admin),
			fact("Clients", brief(status.clients)), fact("Requests", brief(status.requests)),
			fact("Decisions", ["allowed", "limited", "blocked", "unlimited"].map((verdict) => `${brief(status[verdict])} ${verdict}`).join(", ")));
		put(fleet, fact("Database", status.store_error ? [pill("failing", "bad"), ` ${status.store_error}`] : pill("writes", "good")), fleetOf(nodes));
		put(changes, latest.items.map(changed), !latest.items.length && h("li.muted", "No client was changed yet."));
	});
}

function fleetOf({ state, since, reason, store, nodes, node: own }) {
	if (state === "alone") return fact("Fleet", pill(state), " this node shares with no other");
	const evicted = store.evicted_keys ? `, ${brief(store.evicted_keys)} keys evicted` : "";
	return [
		fact("Fleet", pill(state, state !== "joined" ? "bad" : reason ? "warn" : "good"), " since ", when(since), reason && `: ${reason}`),
		fact("Store", `${store.address ?? "–"}${store.primary ? `, primary ${store.primary}` : ""}, ${millis(store.latency_ms)}, ${brief(store.errors)} errors${evicted}`),
		fact("Nodes", nodes.map(({ node, version, seen, leased }) => h("div", node === own ? h("b", node) : node, ` ${version}, seen `, when(seen), `, ${brief(leased)} tokens leased`))),
	];
}

const changed = ({ client_id, action, by, at, version }) => h("li",
	h("span.grow", clientLink(client_id), ` ${VERBS[action] ?? action} by ${by}`), h("span.note", `version ${version}, `, when(at)));

/** Keeps a text in step with how the stream is. */
export function connection(place) {
	const words = { live: ["live", "good"], lost: ["connection lost", "bad"], connecting: ["connecting", ""] };
	const show = () => {
		const [text, kind] = words[known.state];
		set(place, text).className = `pill ${kind}`;
	};
	live.addEventListener("state", show);
	show();
}

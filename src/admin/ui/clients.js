// All clients in pages, who asks most, and what can be done to one.

import { clientPath, every, get, writable } from "./api.js";
import { brief, card, cells, clientLink, empty, h, head, keyed, number, pill, put, rate, rowHead, set, table, there, when } from "./dom.js";
import { carryOut, confirm, form, lines, reveal } from "./forms.js";
import { gauge, spark } from "./chart.js";

const SORTS = { client_id: "By name", requests: "Most requests", limited: "Most limited", last_seen: "Last seen" };
const COLUMNS = ["Client", "Mode.side", "Tokens", "Limit.side", "Allowed.number", "Limited.number", "Requests/s.side", "Last seen.side", "Actions"];

export const modePill = (mode) => pill(mode, { limit: "good", blocked: "bad" }[mode]);
export const quota = ({ capacity, rate_per_sec }) => `${number(capacity)} + ${number(rate_per_sec)}/s`;

export function clients(view, signal) {
	let trail = [""];
	let next = null;
	const search = h("input", { type: "search", placeholder: "Name or note", "aria-label": "Search clients", maxlength: 1024 });
	const sort = h("select", { "aria-label": "Sort by" }, Object.entries(SORTS).map(([value, text]) => h("option", { value }, text)));
	const fresh = h("button.main", { onclick: () => edit(null, again) }, "New client");
	const body = h("tbody");
	const count = h("span.note", { role: "status" });
	const back = h("button", { onclick: () => (trail.length > 1 && trail.pop(), again()) }, "Previous");
	const on = h("button", { onclick: () => next && (trail.push(next), again()) }, "Next");
	const none = empty("Loading");
	const talkers = [top("requests", "Top talkers"), top("limited", "Most limited")];
	put(view, head("Clients", h("span.grow"), search, sort, fresh),
		h("div.split",
			h("div.card", table("Clients", COLUMNS, body), none, h("div.title", count, h("span.grow"), h("div.buttons", back, on))),
			h("div", talkers.map((one) => one.node))));

	let asked = 0;
	const again = every(2000, signal, async () => {
		const mine = ++asked;
		sort.disabled = search.value !== "";
		const asking = { limit: 50, sort: search.value ? "client_id" : sort.value, q: search.value, cursor: trail.at(-1) };
		const query = new URLSearchParams(Object.entries(asking).filter(([, value]) => value));
		const page = await get(`/clients?${query}`, signal).catch((error) => error);
		// A later question may have been answered meanwhile.
		if (mine !== asked) return;
		if (page instanceof Error) {
			none.hidden = false;
			set(none, page.message);
			throw page;
		}
		next = page.next_cursor;
		keyed(body, page.items, (client) => client.client_id, () => row(again));
		none.hidden = page.items.length > 0;
		set(none, search.value ? `No client has “${search.value}” in its name or note.` : "There are no clients yet. Callers whom nobody knows share the default limit, one bucket for each address.");
		set(count, `${brief(page.total)} ${page.total === 1 ? "client" : "clients"}${trail.length > 1 ? `, page ${trail.length}` : ""}`);
		back.disabled = trail.length < 2;
		on.disabled = !next;
		fresh.disabled = !writable();
	});
	const first = () => {
		trail = [""];
		again();
	};
	let typing;
	search.addEventListener("input", () => {
		clearTimeout(typing);
		typing = setTimeout(first, 200);
	});
	sort.addEventListener("change", first);
	every(2000, signal, () => Promise.all(talkers.map((one) => one.load(signal, again))));
}

/** A row. Its sparkline goes on from what the server has recorded. */
function row(again) {
	const all = cells(COLUMNS);
	const [mode, tokens, limit, allowed, limited, drawing, seen, acts] = all;
	const name = rowHead();
	let past = [];
	let before = null;
	let client = null;
	return { node: h("tr", name, all), update(now) {
		if (!client) {
			put(name, clientLink(now.client_id), h("div.note"));
			put(acts, actions(() => client, again));
			recorded(now.client_id, 60).then(({ counts, any }) => any && past.unshift(...counts.map((count) => [count, 0])), () => {});
		}
		client = now;
		set(name.lastChild, now.note.split("\n")[0]);
		if (mode.textContent !== now.mode) put(mode, modePill(now.mode));
		put(tokens, now.mode === "limit" && now.tokens !== null ? [gauge(now.tokens, now.capacity), `${brief(Math.floor(now.tokens))} of ${brief(now.capacity)}`] : "–");
		set(limit, now.mode !== "limit" ? "–" : now.plan ? `${quota(now)}, ${now.plan}` : quota(now));
		set(allowed, brief(now.allowed));
		set(limited, brief(now.limited));
		const moment = performance.now();
		const seconds = (moment - before?.moment) / 1000;
		const gained = (name) => Math.max(0, now[name] - before[name]) / seconds;
		if (seconds > 0.9) {
			past.push([gained("allowed") + gained("limited"), gained("limited")]);
			past = past.slice(-60);
		}
		if (!(seconds <= 0.9)) before = { ...now, moment };
		const [asked, refused] = [0, 1].map((part) => past.map((one) => one[part]));
		put(drawing, spark(asked, refused, `Now ${rate(asked.at(-1) ?? 0)} requests a second, ${rate(refused.at(-1) ?? 0)} of them limited`));
		put(seen, when(now.last_seen));
		enable(acts);
	} };
}

export const enable = (place) => place.querySelectorAll("button").forEach((button) => (button.disabled = !writable()));

/** The last seconds, and the requests in each; `any` is whether something is recorded. */
export async function recorded(id, seconds, signal) {
	const told = await get(`/series?minutes=${seconds / 60}&client_id=${encodeURIComponent(id)}`, signal);
	const begin = Math.floor(Date.now() / 1000) - seconds;
	const counts = new Map(told.at.map((at, place) => [at, told.requests[place]]));
	const at = Array.from({ length: seconds }, (_, place) => begin + place);
	return { at, counts: at.map((second) => counts.get(second) ?? 0), any: counts.size > 0 };
}

/** The callers who ask most, or are refused most. */
function top(by, title) {
	const list = h("ul.plain");
	const about = h("span.note");
	const none = empty("Nobody so far.");
	return { node: card(title, about, [list, none]), async load(signal, again) {
		const { seconds, items } = await get(`/top?by=${by}&limit=8`, signal);
		set(about, seconds ? `${seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`}, about` : "");
		none.hidden = items.length > 0;
		keyed(list, items, (one) => `${one.client_id} ${one.address}`, (one) => {
			const told = h("div.note");
			const make = one.address && h("button.quiet", { "aria-label": `Make client: ${one.address}`, onclick: () => edit({ client_id: one.address }, again) }, "Make client");
			return { node: h("li", h("div.grow", one.client_id ? clientLink(one.client_id) : h("span.mono", one.address), told), make), update(now) {
				set(told, `${brief(now.requests)} requests, ${brief(now.limited)} limited`);
				if (make) make.disabled = !writable();
			} };
		});
	} };
}

/** What can be done to the client that `which` tells, behind one word. */
export function actions(which, again, gone = again) {
	const act = (text, work, kind) => h("button", { class: kind, onclick: () => {
		menu.open = false;
		work(which(), which().client_id);
	} }, text);
	const block = act("Block", ({ mode }, id) => {
		const [verb, about, next, state] = mode === "blocked" ? ["Unblock", "It is held to its limit again.", "limit", "let in"]
			: ["Block", "Its requests are answered 403 from the next one on.", "blocked", "blocked"];
		confirm(`${verb} ${id}?`, about, verb, () => carryOut(`${id} is ${state}`, again, "PATCH", clientPath(id), { mode: next }), verb === "Block");
	});
	const open = h("summary", "Edit…");
	const list = h("div",
		act("Edit", (client) => edit(client, again)),
		act("Grant tokens", (_, id) => form(`Grant tokens to ${id}`, [
			{ name: "tokens", label: "Tokens", inputmode: "numeric", required: true, hint: "Added once, above the capacity if need be, and spent first" },
		], "Grant", ({ tokens }) => carryOut(`${id} has ${tokens} tokens more`, again, "POST", clientPath(id, "/grant"), { tokens: amount(tokens) }))),
		act("Fill bucket", (_, id) => confirm(`Fill the bucket of ${id}?`, "It has all its tokens again, and none that were granted.", "Fill",
			() => carryOut(`${id} has a full bucket`, again, "POST", clientPath(id, "/reset")))),
		block,
		act("Delete", (_, id) => confirm(`Delete ${id}?`, "Its keys and addresses are nobody's then. Its history stays, and rolls it back.", "Delete",
			() => carryOut(`${id} was deleted`, gone, "DELETE", clientPath(id)), true), "danger"));
	const menu = h("details.menu", {
		ontoggle: () => {
			// Fixed, since the table around it cuts off what hangs over.
			const { right, bottom } = open.getBoundingClientRect();
			Object.assign(list.style, { right: `${document.documentElement.clientWidth - right}px`, top: `${Math.min(bottom, innerHeight - 190)}px` });
			open.ariaLabel = `Edit… ${which().client_id}`;
			set(block, which().mode === "blocked" ? "Unblock" : "Block");
		},
		onkeydown: ({ key }) => {
			if (key !== "Escape") return;
			menu.open = false;
			open.focus();
		},
		onfocusout: ({ relatedTarget: to }) => {
			if (to && !menu.contains(to)) menu.open = false;
		},
	}, open, list);
	return menu;
}

/** A number if it is one, and else the text, of which the API says what is wrong. */
const amount = (text) => (text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text));

export const quotaFields = ({ capacity, rate_per_sec }) => [
	{ name: "capacity", label: "Capacity, tokens", value: capacity, inputmode: "numeric" },
	{ name: "rate_per_sec", label: "Rate, tokens a second", value: rate_per_sec, inputmode: "decimal" },
];

/** Makes a client, or changes one. */
export function edit(client, again) {
	const old = client?.version ? client : null;
	const policies = Object.entries(client?.policies ?? {}).map(([name, own]) => `${name} ${own.capacity} ${own.rate_per_sec}`).join("\n");
	const fields = [
		!old && { name: "client_id", label: "Name", value: client?.client_id, required: true, wide: true, hint: "What it is known by, if it has neither key nor address of its own: an address, a network, or else its API key" },
		...quotaFields(client?.capacity ? client : { capacity: 100, rate_per_sec: 10 }),
		{ name: "mode", label: "Mode", type: "select", options: ["limit", "unlimited", "blocked"], value: client?.mode },
		{ name: "plan", label: "Plan", value: client?.plan, hint: "Its capacity and rate count then" },
		{ name: "max_concurrent", label: "Requests at once", value: client?.max_concurrent, inputmode: "numeric", hint: "Empty: what counts for everybody" },
		{ name: "addresses", label: "Addresses and networks", value: client?.addresses?.join(", "), hint: "With commas between them" },
		{ name: "policies", label: "Of its own in policies", type: "textarea", value: policies, wide: true, hint: "One a line: its name, capacity and rate" },
		{ name: "note", label: "Note", type: "textarea", value: client?.note, wide: true },
		!old && { name: "generate_api_key", label: "Make an API key, shown once", type: "checkbox", wide: true },
	].filter(Boolean);
	form(old ? `Edit ${old.client_id}` : "New client", fields, old ? "Save" : "Create", async (values) => {
		const own = {};
		for (const line of lines(values.policies)) {
			const [name, capacity, rate_per_sec] = line.trim().split(/[\s,]+/);
			own[name] = { capacity: amount(capacity ?? ""), rate_per_sec: amount(rate_per_sec ?? "") };
		}
		const wanted = { ...values, plan: values.plan || null, addresses: values.addresses.split(/[\s,]+/).filter(Boolean), policies: own };
		for (const name of ["capacity", "rate_per_sec", "max_concurrent"]) wanted[name] = amount(values[name]);
		if (old) return save(old, wanted, again);
		const body = Object.fromEntries(Object.entries(wanted).filter(([, value]) => there(value) && value !== "" && !(typeof value === "object" && !Object.keys(value).length)));
		const made = await carryOut(`${body.client_id} was made`, again, "POST", "/clients", body);
		if (made.api_key) setTimeout(() => reveal(`The API key of ${made.client_id}`, made.api_key));
	});
}

/** Sends what has changed, for the version that was looked at. */
async function save(old, wanted, again) {
	// Fields have no blanks at their ends.
	const same = (a, b) => JSON.stringify(a) === JSON.stringify(b?.trim?.() ?? b);
	const patch = Object.fromEntries(Object.entries(wanted).filter(([name, value]) => !same(value, old[name] ?? (name === "policies" ? {} : null))));
	// A merge keeps what is not named, so what goes is null.
	if (patch.policies) for (const name of Object.keys(old.policies ?? {})) patch.policies[name] ??= null;
	if (!Object.keys(patch).length) return;
	await carryOut(`${old.client_id} was changed`, again, "PATCH", clientPath(old.client_id), patch, { headers: { "If-Match": `"${old.version}"` } });
}


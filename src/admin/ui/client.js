// One client: what it may, what it does, what it did, and what another limit would do.

import { ApiError, clientPath, every, get, writable } from "./api.js";
import { brief, card, empty, fact, h, head, keyed, number, put, set, span, table, there, when } from "./dom.js";
import { actions, edit, enable, modePill, quota, quotaFields, recorded } from "./clients.js";
import { carryOut, confirm, form, reveal } from "./forms.js";
import { chart, gauge } from "./chart.js";

export function client(view, signal, id) {
	const state = h("span");
	const facts = h("dl.facts.body");
	const requests = chart(`Requests a second of ${id}`, [
		{ label: "requests", color: "accent", fill: true },
		{ label: "rate in force", color: "warn" },
		{ label: "rate of the candidate", color: "idle", dash: [6, 4] },
	], { signal });
	const tokens = chart(`Tokens of ${id}`, [{ label: "tokens", color: "accent", fill: true }, { label: "as the limit in force has it", color: "idle", dash: [2, 3] }], { signal });
	const advice = h("div.body");
	const refusals = h("tbody");
	const noRefusals = empty("None among the latest.");
	const past = h("div", empty("Loading"));
	const keys = h("ul.plain");
	const noKeys = empty("It has none.");
	const toExplain = h("a", "Explain");
	let now = null;
	const change = h("button", { onclick: () => now && edit(now, again) }, "Edit");
	const fresh = h("button.quiet", { onclick: () => makeKey(id, again) }, "New key");
	const acts = actions(() => now, () => again(), () => (location.hash = "#/clients"));
	const parts = h("div",
		h("div.columns", card("Limit", h("div.buttons", change), facts), card("Another limit", advice)),
		card("Requests a second, as recorded", requests.legend, requests.node),
		card("Tokens", tokens.legend, tokens.node),
		card("Last refusals", [table("Last refusals", ["When", "Request", "From", "Refused by", "Asked for", "Status.number"], refusals), noRefusals]),
		card("API keys", fresh, [keys, noKeys]),
		card("History", past));
	const gone = h("div", { hidden: true });
	put(view, head(id, state, h("span.grow"), toExplain, acts), gone, parts);

	const samples = new Map();
	let seen = 0;
	let draw = null;
	const again = every(1000, signal, async () => {
		try {
			now = await get(clientPath(id), signal);
		} catch (error) {
			if (!(error instanceof ApiError) || error.status !== 404) throw error;
			parts.hidden = acts.hidden = true;
			gone.hidden = false;
			put(gone, card("There is no such client", h("div.body", h("p", error.message), past)));
			if (seen !== -1) history();
			seen = -1;
			return;
		}
		if (seen === -1) return location.reload();
		show();
		if (seen === 0) draw?.();
		if (seen !== now.version) {
			seen = now.version;
			history();
			advise();
		}
	});

	function show() {
		put(state, modePill(now.mode));
		put(facts,
			fact("Tokens", now.tokens === null ? "nobody is limited" : [gauge(now.tokens, now.capacity), `${number(Math.floor(now.tokens))} of ${number(now.capacity)}`]),
			fact("Limit", `${quota(now)}${now.plan ? `, of the plan ${now.plan}` : ""}`),
			now.candidate && fact("Candidate", `${quota(now.candidate)}, would have limited ${brief(now.candidate_limited)}`),
			now.max_concurrent && fact("Requests at once", now.max_concurrent),
			Object.entries(now.policies ?? {}).map(([name, own]) => fact(`In ${name}`, quota(own))),
			fact("Allowed", brief(now.allowed)), fact("Limited", brief(now.limited)), fact("Last seen", when(now.last_seen)),
			fact("Addresses", now.addresses.join(", ") || "–"), now.note && fact("Note", now.note));
		const address = now.addresses[0]?.split("/")[0];
		toExplain.href = address ? `#/explain?address=${encodeURIComponent(address)}` : "#/explain";
		keyed(keys, now.api_keys, (key) => key.key_id, (key) => keyRow(id, key, again));
		noKeys.hidden = now.api_keys.length > 0;
		if (!now.addresses.length) set(noKeys, "Its name is its key.");
		change.disabled = fresh.disabled = !writable();
		enable(acts);
		if (now.tokens !== null) samples.set(Math.floor(Date.now() / 1000), now.tokens);
	}

	// What is recorded, the limit as a line in it, and how full its bucket was by that.
	draw = every(2000, signal, async () => {
		const { at, counts } = await recorded(id, 900, signal);
		if (!now) return;
		const limited = now.mode === "limit";
		const line = (value) => at.map(() => value);
		requests.show(at, [counts, line(limited ? now.rate_per_sec : null), line(now.candidate?.rate_per_sec ?? null)]);
		let level = now.capacity;
		const model = counts.map((count) => (level = Math.max(0, Math.min(now.capacity, level + now.rate_per_sec) - count)));
		for (const second of samples.keys()) if (second < at[0]) samples.delete(second);
		tokens.show(at, [at.map((second) => samples.get(second) ?? null), limited ? model : line(null)]);
	});

	every(3000, signal, async () => {
		const { items } = await get(`/decisions?limit=10&client_id=${encodeURIComponent(id)}`, signal);
		noRefusals.hidden = items.length > 0;
		keyed(refusals, items, (one) => one.request_id, (one) => {
			const moment = h("td");
			return { node: h("tr", moment, h("td.mono", one.request_id), h("td.mono", one.client_ip), h("td", one.limited_by ?? one.decision),
				h("td.wrap.mono", `${one.method} ${one.host}${one.path}`), h("td.number", one.status)), update: () => put(moment, when(one.at)) };
		});
	});

	/** What was recorded says what would do. */
	async function advise() {
		const asked = now.allowed + now.limited > 0 && Date.now() - new Date(now.last_seen) < 36e5;
		const told = asked ? await get(clientPath(id, "/recommend?window=1h"), signal).catch((error) => error) : { status: 404 };
		const { candidate } = now;
		const disabled = !writable();
		const trying = candidate ? h("div.buttons",
			h("button.main", { disabled, onclick: () => confirm(`Put ${quota(candidate)} in force for ${id}?`, `It takes the place of ${quota(now)}. It would have limited ${brief(now.candidate_limited)} requests so far.`, "Promote",
				() => carryOut(`${id} has ${quota(candidate)}`, again, "POST", clientPath(id, "/promote"))) }, "Promote candidate"),
			h("button", { disabled, onclick: () => carryOut(`${id} is tried no more`, again, "PATCH", clientPath(id), { candidate: null }) }, "Drop it")) : h("button", { disabled, onclick: () => tryOne(told.recommended) }, "Try a candidate");
		put(advice, told.status === 404 ? empty("Nothing is recorded of it in the last hour.") : told.message ? empty(told.message) : [h("dl.facts",
			fact("Recommended", h("b", quota(told.recommended)), ` would have limited ${brief(told.would_limit)}`),
			fact("In force", `${quota(now)} limits ${brief(told.in_force_limited)} by the same model`),
			fact("Recorded", `${brief(told.requests)} requests in ${told.window}, ${brief(told.peak_per_sec)} in the busiest second`)),
		h("p.note", `Model: ${told.model}.`)], trying);
	}
	every(15000, signal, async () => now && advise());

	function tryOne(from) {
		form(`Try another limit for ${id}`, quotaFields(from ?? now), "Try", async ({ capacity, rate_per_sec }) => {
			const candidate = { capacity: Number(capacity), rate_per_sec: Number(rate_per_sec) };
			await carryOut(`${id} is tried with ${quota(candidate)}`, again, "PATCH", clientPath(id), { candidate });
		}, { about: "It is judged beside the limit in force and refuses nothing." });
	}

	async function history() {
		const { items, next_before } = await get(clientPath(id, "/history?limit=20"), signal).catch(() => ({ items: [] }));
		const list = items.map((entry, place) => h("li",
			h("span.grow", h("b", `${entry.version} ${entry.action}`), ` by ${entry.by}, `, when(entry.at), difference(entry)),
			entry.after && (place > 0 || items[0].action === "delete") && h("button.quiet", { disabled: !writable(), "aria-label": `Roll back to version ${entry.version}`, onclick: () => rollBack(entry) }, "Roll back")));
		put(past, items.length ? h("ul.plain", list) : empty("Nothing is kept."), next_before && h("p.note.left", "Earlier ones are in the API."));
	}

	function rollBack(entry) {
		const current = now && { before: now, after: entry.after };
		confirm(`Roll ${id} back to version ${entry.version}?`, current ? difference(current) : "It is there again, as it was then.", "Roll back",
			() => carryOut(`${id} is as it was at version ${entry.version}`, again, "POST", clientPath(id, "/rollback"), { version: entry.version }));
	}
}

const FIELDS = ["capacity", "rate_per_sec", "mode", "plan", "addresses", "api_keys", "note", "candidate", "max_concurrent", "policies"];

/** What a change changes, field by field. */
function difference({ before, after }) {
	const tell = (value) => {
		if (!there(value)) return "–";
		if (typeof value !== "object") return String(value) || "–";
		const parts = Array.isArray(value) ? value.map((one) => one.key_id ?? one) : Object.entries(value).map(([name, one]) => `${name} ${typeof one === "object" ? quota(one) : one}`);
		return parts.join(", ") || "–";
	};
	if (!before || !after) return null;
	const lines = FIELDS.map((name) => [name, tell(before[name]), tell(after[name])]).filter(([, was, is]) => was !== is);
	if (!lines.length) return h("div.note", "nothing that is shown");
	return h("dl.facts.note", lines.map(([name, was, is]) => fact(name.replaceAll("_", " "), h("del", was), " ", h("ins", is))));
}

function keyRow(id, key, again) {
	const about = h("span.note");
	const drop = h("button.quiet", { "aria-label": `Delete key ${key.key_id}`, onclick: () => confirm(`Delete the key ${key.key_id} of ${id}?`, "Whoever uses it is nobody known from the next request on.", "Delete",
		() => carryOut(`The key ${key.key_id} was deleted`, again, "DELETE", clientPath(id, `/keys/${encodeURIComponent(key.key_id)}`)), true) }, "Delete");
	return { node: h("li", h("span.grow.mono", key.key_id), about, drop), update({ expires_at }) {
		const left = expires_at && (new Date(expires_at) - Date.now()) / 1000;
		set(about, !expires_at ? "never ends" : left > 0 ? `ends in ${span(left)}` : "has ended");
		drop.disabled = !writable();
	} };
}

const makeKey = (id, again) => form(`New API key for ${id}`, [{ name: "expires_at", label: "Ends at", hint: "Such as 2027-01-31T00:00:00Z. Empty: never" }], "Make", async ({ expires_at }) => {
	const made = await carryOut(`${id} has another key`, again, "POST", clientPath(id, "/keys"), expires_at ? { expires_at } : {});
	setTimeout(() => reveal(`The new API key of ${id}`, made.api_key));
});

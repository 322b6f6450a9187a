// Who a caller would be, and what it would get, step by step.

import { ask } from "./api.js";
import { card, clientLink, empty, fact, h, head, number, pill, put, rowHead, table } from "./dom.js";
import { explain as tellWrong, field, lines } from "./forms.js";

const KINDS = { allowed: "good", unlimited: "good", limited: "warn", blocked: "bad", unavailable: "bad" };

export function explain(view, signal, asked) {
	const fields = [
		{ name: "address", label: "Address of the connection", value: asked.get("address") ?? "127.0.0.1", required: true },
		{ name: "method", label: "Method", value: "GET" },
		{ name: "host", label: "Host", placeholder: "api.example.com" },
		{ name: "path", label: "Path", value: "/" },
		{ name: "headers", label: "Headers, one a line", type: "textarea", rows: 4, wide: true, value: asked.get("headers") ?? "", hint: "Name: value. A key is looked up and forgotten." },
	].map(field);
	const wrong = h("div.wrong", { role: "alert" });
	const answer = h("div", { "aria-live": "polite" }, card("Answer", empty("Ask, and this says who that is and what it gets. It takes no token.")));
	const form = h("form", { novalidate: true, onsubmit: submit }, h("div.form", fields.map((one) => one.node)), wrong,
		h("div.end", h("button.main", { type: "submit" }, "Explain")));
	put(view, head("Explain"),
		h("div.columns", card("A request", h("div.body", form)), answer));
	if (asked.has("address")) form.requestSubmit();

	async function submit(event) {
		event.preventDefault();
		fields.forEach((one) => one.say(""));
		put(wrong);
		const [address, ...more] = fields.map((one) => one.value);
		const [method, host, path] = more.map((value) => value || undefined);
		const headers = Object.create(null);
		for (const line of lines(more[3])) {
			const [name, ...rest] = line.split(":");
			if (!rest.length) return fields[4].say(`There is no colon in: ${line}`);
			(headers[name.trim().toLowerCase()] ??= []).push(rest.join(":").trim());
		}
		try {
			put(answer, told(await ask("POST", "/explain", { address, method, host, path, headers }, { signal })));
		} catch (error) {
			if (error.name !== "AbortError") tellWrong(error, fields, wrong);
		}
	}
}

function told(answer) {
	const known = (name, value) => (value ?? null) !== null && fact(name, value);
	const { status, message } = answer.answer;
	const policies = answer.policies.map((policy) => h("tr", rowHead(policy.name), h("td", policy.key), h("td.number", policy.tokens === null ? "–" : number(policy.tokens)), h("td", policy.enough === null ? "pays nothing" : policy.enough ? "enough" : "not enough")));
	return [
		card("Answer", h("div.body",
			h("p.verdict", pill(answer.decision ?? "not limited", KINDS[answer.decision]), status ? ` ${status}` : "", ` ${message}`),
			h("dl.facts",
				fact("Caller", answer.client_id ? clientLink(answer.client_id) : "nobody known"),
				[["Address", "client_ip"], ["Recognised by", "matched_by"], ["Network", "network"], ["Key read from", "api_key_from"], ["Trusted proxy", "trusted_proxy"], ["Mode", "mode"]].map(([name, key]) => known(name, answer[key])),
				answer.capacity !== null && fact("Bucket", `${number(answer.tokens)} of ${number(answer.capacity)} tokens, ${number(answer.rate_per_sec)} a second`),
				known("Limited by", answer.limited_by), answer.running !== null && fact("Running", `${answer.running} of ${answer.max_concurrent}`), known("Upstream", answer.upstream)))),
		card("Steps", h("div.body", h("ol.steps", answer.steps.map((step) => h("li", step))))),
		policies.length > 0 && card("Policies", table("Policies", ["Policy", "Paid by", "Tokens.number", "For the request"], h("tbody", policies))),
	];
}

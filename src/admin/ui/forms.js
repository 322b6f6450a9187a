// Dialogs, and forms whose fields show what the API says of them.

import { ApiError, ask } from "./api.js";
import { h, put, say } from "./dom.js";

let count = 0;

export const lines = (text) => text.split("\n").filter((line) => line.trim());

/** A field; further attributes are its input's. */
export function field({ name, label, type = "text", value = "", hint, wide, options, rows = 2, ...more }) {
	const id = `field-${++count}`;
	const common = { id, name, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-wrong${hint ? ` ${id}-hint` : ""}`, ...more };
	const check = type === "checkbox";
	const input = type === "select" ? h("select", common, options.map((option) => h("option", { selected: option === value }, option)))
		: type === "textarea" ? h("textarea", { ...common, rows }, value)
		: h("input", { ...common, type, value: !check && value });
	const wrong = h("div.wrong", { id: `${id}-wrong` });
	const node = h(wide ? "div.field.wide" : "div.field", h(check ? "label.check" : "label", { for: id }, check && input, label), !check && input,
		hint && h("div.note", { id: `${id}-hint` }, hint), wrong);
	return { node, input, name, get value() { return check ? input.checked : input.value.trim(); }, say(text) {
		put(wrong, text);
		input.ariaInvalid = text ? "true" : null;
	} };
}

/** Puts what the API's error says at the fields that it names, and the rest into `place`. */
export function explain(error, fields, place) {
	if (!(error instanceof ApiError)) throw error;
	const rest = [];
	const said = new Map();
	for (const { field, message } of error.errors) {
		const path = field.replace("candidate.", "");
		const at = fields.find(({ name }) => path.split(/[.[]/)[0] === name);
		const text = path === at?.name || path === "body" || error.status === 409 ? message : `${path}: ${message}`;
		if (at) said.set(at, [...(said.get(at) ?? []), text]);
		else rest.push(text);
	}
	for (const [at, messages] of said) at.say(messages.join("; "));
	put(place, error.errors.length ? rest.join("; ") : error.message);
	[...said.keys()][0]?.input.focus();
}

function show(title, about, props, ...content) {
	const id = `dialog-${++count}`;
	const before = document.activeElement;
	const dialog = h("dialog", { "aria-labelledby": id, onclose: () => {
		dialog.remove();
		if (before?.isConnected) before.focus();
	} }, h("form", { method: "dialog", novalidate: true, ...props }, h("h2", { id }, title), about && h("div.muted", about), content));
	document.body.append(dialog);
	dialog.showModal();
	return dialog;
}

/** A form in a dialog. `work(values)` does it; what it throws is shown. */
export function form(title, fields, submit, work, { about, danger } = {}) {
	const all = fields.map(field);
	const wrong = h("div.wrong", { role: "alert" });
	const button = h(danger ? "button.danger" : "button.main", { type: "submit" }, submit);
	const dialog = show(title, about, { onsubmit: async (event) => {
		event.preventDefault();
		all.forEach((one) => one.say(""));
		put(wrong);
		button.disabled = true;
		try {
			await work(Object.fromEntries(all.map((one) => [one.name, one.value])));
			dialog.close();
		} catch (error) {
			explain(error, all, wrong);
		} finally {
			button.disabled = false;
			if (dialog.open && !dialog.contains(document.activeElement)) button.focus();
		}
	} }, all.length > 0 && h("div.form", all.map((one) => one.node)), wrong,
	h("div.end", h("button", { onclick: () => dialog.close() }, "Cancel"), button));
}

export const confirm = (title, about, submit, work, danger) => form(title, [], submit, work, { about, danger });

/** Has the API do something, says so, and shows what there is `then`. Gives its answer. */
export async function carryOut(said, then, ...request) {
	const answer = await ask(...request);
	say([said, ...(answer?.warnings ?? [])].join("; "));
	then();
	return answer;
}

export const reveal = (title, secret) => show(title, "It is shown now and never again.", {},
	h("output.mono", { tabindex: 0 }, secret),
	h("div.end", navigator.clipboard && h("button", { onclick: () => navigator.clipboard.writeText(secret) }, "Copy"), h("button.main", { type: "submit" }, "Done")));

// The page: which part is shown, who is let in, and what is said across it.

import { ApiError, get, lookOnly, news, setToken, token } from "./api.js";
import { backends } from "./backends.js";
import { client } from "./client.js";
import { clients } from "./clients.js";
import { connection, overview } from "./overview.js";
import { explain } from "./explain.js";
import { field } from "./forms.js";
import { empty, h, put } from "./dom.js";
import { end, known, live, start } from "./live.js";

const [view, nav, leave, alerts, stream] = ["view", "nav", "leave", "alerts", "connection"].map((id) => document.getElementById(id));
let shown = new AbortController();
let inside = false;

/** Shows the part that the address names. */
function route() {
	if (!inside) return;
	shown.abort();
	shown = new AbortController();
	const [path, query] = location.hash.slice(1).split("?");
	const [, part = "", ...rest] = path.split("/");
	const parts = { "": overview, backends, clients, explain };
	const { signal } = shown;
	let id = null;
	try {
		if (part === "client") id = decodeURIComponent(rest.join("/"));
	} catch {
		// No name is written like that.
	}
	if (id) client(view, signal, id);
	else (parts[part] ?? overview)(view, signal, new URLSearchParams(query));
	for (const link of nav.children) {
		link.ariaCurrent = link.hash.slice(2) === (id ? "clients" : part) ? "page" : null;
	}
	document.title = `${id ?? view.querySelector("h1")?.textContent ?? ""} · tollgate`;
	window.scrollTo(0, 0);
}

/** What is wrong across all parts, each in a line of its own. */
const wrongs = new Map();
function alert(name, text) {
	if (wrongs.get(name) === (text || undefined)) return;
	if (text) wrongs.set(name, text);
	else wrongs.delete(name);
	put(alerts, [...wrongs].map(([about, line]) => h(about === "lost" ? "p" : "p.warn", line)));
}

/** Asks for a token. */
function logIn(wrong) {
	inside = false;
	end();
	shown.abort();
	nav.hidden = leave.hidden = true;
	wrongs.clear();
	put(alerts);
	const secret = field({ name: "token", label: "Token", type: "password", required: true, autocomplete: "current-password", hint: "One of admin.token_file, or TOLLGATE_ADMIN_TOKEN. It is kept until this tab is closed." });
	const form = h("form", { novalidate: true, onsubmit: (event) => {
		event.preventDefault();
		if (!secret.value) return secret.say("is empty");
		setToken(secret.value);
		enter();
	} }, h("h1", { tabindex: -1 }, "Sign in"), secret.node, h("div.end", h("button.main", { type: "submit" }, "Sign in")));
	put(view, h("section.card.login", { "aria-label": "Sign in" }, form));
	if (wrong) secret.say(wrong);
	document.title = "Sign in · tollgate";
	secret.input.focus();
}

/** Lets in whoever the API lets in. */
async function enter() {
	try {
		const status = await get("/status");
		if (status.caller.viewer) lookOnly(`the token of ${status.caller.name} may read, explain and simulate`);
		alert("store", status.store_error && `The database cannot be written: ${status.store_error}`);
	} catch (error) {
		if (!(error instanceof ApiError)) throw error;
		// A missing or wrong token asks for another one.
		if (error.status !== 401) {
			put(view, empty(error.message));
			setTimeout(enter, 2000);
		}
		return;
	}
	inside = true;
	nav.hidden = false;
	leave.hidden = !token();
	start();
	route();
}

news.addEventListener("token", ({ detail }) => {
	const had = token();
	setToken(null);
	logIn(had ? detail : null);
});
news.addEventListener("readonly", ({ detail }) => alert("readonly", `Only to look at: ${detail}`));
const lost = (is) => inside && alert("lost", is && "The admin API cannot be reached. This page asks again by itself.");
news.addEventListener("lost", () => lost(true));
news.addEventListener("reached", () => lost(false));
live.addEventListener("state", () => lost(known.state === "lost"));
leave.addEventListener("click", () => {
	setToken(null);
	logIn();
});
window.addEventListener("hashchange", () => {
	route();
	view.querySelector("h1")?.focus();
});
document.querySelector(".skip").addEventListener("click", (event) => {
	event.preventDefault();
	view.focus();
});
connection(stream);
enter();

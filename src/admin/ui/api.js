// Asks the API. The token is in the session's storage and goes into the header alone.

const TOKEN = "tollgate-token";

/** What the API answered that is no success. */
export class ApiError extends Error {
	constructor(status, message, errors) {
		super(message);
		this.status = status;
		this.errors = errors ?? (status === 409 ? [{ field: /^The addr/.test(message) ? "addresses" : "client_id", message }] : []);
	}
}

/** Tells: `token` (it is missing or wrong), `readonly` (it may only read), `reached` and `lost`. */
export const news = new EventTarget();
const tell = (type, detail) => news.dispatchEvent(new CustomEvent(type, { detail }));

export const token = () => sessionStorage.getItem(TOKEN);
export function setToken(value) {
	if (value) sessionStorage.setItem(TOKEN, value);
	else sessionStorage.removeItem(TOKEN);
	mayWrite = true;
}

let mayWrite = true;
/** Whether the token may change something, as far as the API has said. */
export const writable = () => mayWrite;
export function lookOnly(why) {
	mayWrite = false;
	tell("readonly", why);
}

export async function open(path, options = {}) {
	const headers = { ...options.headers };
	if (token()) headers.Authorization = `Bearer ${token()}`;
	let response;
	try {
		response = await fetch(path, { ...options, headers, cache: "no-store" });
	} catch (error) {
		if (error.name === "AbortError") throw error;
		tell("lost");
		throw new ApiError(0, "The admin API cannot be reached");
	}
	tell("reached");
	if (response.ok) return response;
	// Something on the way answers without JSON.
	const told = await response.json().catch(() => ({}));
	if (response.status === 401) tell("token", told.message);
	if (response.status === 403 && (options.method ?? "GET") !== "GET") lookOnly(told.message);
	throw new ApiError(response.status, told.message ?? `The answer is ${response.status}`, told.errors);
}

/** The JSON that answers a request; null where there is none. */
export async function ask(method, path, body, options = {}) {
	const headers = body ? { ...options.headers, "Content-Type": "application/json" } : options.headers;
	const response = await open(path, { ...options, method, headers, body: body && JSON.stringify(body) });
	return response.status === 204 ? null : response.json();
}

export const get = (path, signal) => ask("GET", path, undefined, { signal });
/** A client's path. Its name may have slashes in it. */
export const clientPath = (id, rest = "") => `/clients/${encodeURIComponent(id)}${rest}`;

/** Does `work` now and again every `ms`, never twice at once, while the page is seen and until `signal`. */
export function every(ms, signal, work) {
	let timer;
	const step = async () => {
		clearTimeout(timer);
		if (signal.aborted) return;
		if (!document.hidden) {
			try {
				await work();
			} catch (error) {
				if (!(error instanceof ApiError) && error.name !== "AbortError") throw error;
			}
		}
		if (!signal.aborted) timer = setTimeout(step, ms);
	};
	document.addEventListener("visibilitychange", () => document.hidden || step(), { signal });
	signal.addEventListener("abort", () => clearTimeout(timer));
	step();
	return step;
}

// Asking the API. The token lives in the session's storage and goes nowhere but into the header.

const TOKEN = "tollgate-token";

/** What the API answered that is no success. */
export class ApiError extends Error {
  constructor(status, message, errors) {
    super(message);
    this.status = status;
    this.errors = errors ?? [];
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
/** Whether the token's holder may change something, as far as the API has said. */
export const writable = () => mayWrite;
/** Takes note that it may only look. */
export function lookOnly(why) {
  mayWrite = false;
  tell("readonly", why);
}

/** The answer to a request, as it comes. */
export async function open(path, options = {}) {
  const headers = { ...options.headers };
  const sent = token();
  if (sent) headers.Authorization = `Bearer ${sent}`;
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
  const text = await response.text();
  let told = {};
  try {
    told = JSON.parse(text);
  } catch {
    // Something on the way has answered.
  }
  if (response.status === 401) tell("token", told.message);
  if (response.status === 403 && (options.method ?? "GET") !== "GET") lookOnly(told.message);
  throw new ApiError(response.status, told.message ?? `The answer is ${response.status}`, told.errors);
}

/** The JSON that answers a request; null where there is none. */
export async function ask(method, path, body, options = {}) {
  const headers = { ...options.headers };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const response = await open(path, { ...options, method, headers, body: sent });
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => ask("GET", path, undefined, options);
/** A client's path. Its name may have slashes in it. */
export const clientPath = (id, rest = "") => `/clients/${encodeURIComponent(id)}${rest}`;

/** Calls `work` now and again every `ms`, one after the other, while the page is seen and until `signal`. */
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

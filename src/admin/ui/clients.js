// All clients in pages, who asks most, and what can be done to one.

import { ask, clientPath, every, get, writable } from "./api.js";
import { brief, card, h, keyed, number, pill, put, rate, say, set, table, when } from "./dom.js";
import { confirm, field, form, reveal } from "./forms.js";
import { gauge, spark } from "./chart.js";

const PAGE = 50;
const KINDS = { limit: "good", unlimited: "", blocked: "bad" };
const COLUMNS = [["Client"], ["Mode", "side"], ["Tokens"], ["Limit", "side"], ["Allowed", "number"], ["Limited", "number"], ["Requests/s", "side"], ["Last seen", "side"], ["Actions"]];

const link = (id) => h("a", { href: `#/client/${encodeURIComponent(id)}` }, id);
const quota = ({ capacity, rate_per_sec }) => `${number(capacity)} + ${number(rate_per_sec)}/s`;

export function clients(view, signal) {
  let trail = [""];
  let next = null;
  const search = h("input", { type: "search", placeholder: "Name or note", "aria-label": "Search clients", maxlength: 1024 });
  const sort = h("select", { "aria-label": "Sort by" }, [["client_id", "By name"], ["requests", "Most requests"], ["limited", "Most limited"], ["last_seen", "Last seen"]].map(([value, text]) => h("option", { value }, text)));
  const fresh = h("button", { class: "main", type: "button", onclick: () => edit(null, again) }, "New client");
  const body = h("tbody");
  const count = h("span", { class: "note", role: "status" });
  const back = h("button", { type: "button", onclick: () => (trail.length > 1 && trail.pop(), again()) }, "Previous");
  const on = h("button", { type: "button", onclick: () => next && (trail.push(next), again()) }, "Next");
  const none = h("p", { class: "empty" }, "Loading");
  const talkers = [top("requests", "Top talkers"), top("limited", "Most limited")];
  put(view, h("div", { class: "head" }, h("h1", { tabindex: -1 }, "Clients"), h("span", { class: "grow" }), search, sort, fresh),
    h("div", { class: "split" },
      h("div", { class: "card" }, table("Clients", COLUMNS, body), none, h("div", { class: "title" }, count, h("span", { class: "grow" }), h("div", { class: "buttons" }, back, on))),
      h("div", {}, talkers.map((one) => one.node))));

  let asked = 0;
  const again = every(2000, signal, async () => {
    const mine = ++asked;
    const query = new URLSearchParams({ limit: PAGE, sort: search.value ? "client_id" : sort.value });
    sort.disabled = search.value !== "";
    if (search.value) query.set("q", search.value);
    if (trail[trail.length - 1]) query.set("cursor", trail[trail.length - 1]);
    let page;
    try {
      page = await get(`/clients?${query}`, { signal });
    } catch (error) {
      if (mine === asked && error.name !== "AbortError") {
        none.hidden = false;
        set(none, error.message);
      }
      throw error;
    }
    // A later question may have been answered meanwhile.
    if (mine !== asked) return;
    next = page.next_cursor;
    keyed(body, page.items, (client) => client.client_id, () => row(again));
    none.hidden = page.items.length > 0;
    set(none, search.value ? `No client has “${search.value}” in its name or note.` : "There are no clients yet. Callers whom nobody knows share the default limit, one bucket for each address.");
    set(count, `${brief(page.total)} ${page.total === 1 ? "client" : "clients"}${trail.length > 1 ? `, page ${trail.length}` : ""}`);
    back.disabled = trail.length < 2;
    on.disabled = !next;
    fresh.disabled = !writable();
  });
  const first = () => ((trail = [""]), again());
  let typing;
  search.addEventListener("input", () => (clearTimeout(typing), (typing = setTimeout(first, 200))));
  sort.addEventListener("change", first);
  every(2000, signal, () => Promise.all(talkers.map((one) => one.load(signal, again))));
}

/** A row of the table. Its sparkline begins with what the server has recorded and goes on with what is seen here. */
function row(again) {
  const cells = COLUMNS.slice(1).map(([, kind]) => h("td", { class: kind }));
  const [mode, tokens, limit, allowed, limited, past, seen, acts] = cells;
  const name = h("th", { scope: "row" });
  const node = h("tr", {}, name, cells);
  const [all, refused] = [[], []];
  let before = null;
  let client = null;
  return { node, update(now) {
    if (!client) {
      put(name, link(now.client_id), h("div", { class: "note" }));
      put(acts, actions(() => client, again));
      recorded(now.client_id, 60).then((values) => all.unshift(...values), () => {});
    }
    client = now;
    set(name.lastChild, now.note.split("\n")[0]);
    if (mode.textContent !== now.mode) put(mode, pill(now.mode, KINDS[now.mode]));
    put(tokens, now.mode === "limit" && now.tokens !== null ? [gauge(now.tokens, now.capacity), `${brief(Math.floor(now.tokens))} of ${brief(now.capacity)}`] : "–");
    set(limit, now.mode === "limit" ? quota(now) + (now.plan ? `, ${now.plan}` : "") : "–");
    set(allowed, brief(now.allowed));
    set(limited, brief(now.limited));
    const moment = performance.now();
    if (before && moment - before.moment > 900) {
      const seconds = (moment - before.moment) / 1000;
      const gained = Math.max(0, now.limited - before.limited) / seconds;
      all.push(Math.max(0, now.allowed - before.allowed) / seconds + gained);
      refused.push(gained);
    }
    if (!before || moment - before.moment > 900) before = { moment, allowed: now.allowed, limited: now.limited };
    while (all.length > 60) all.shift();
    while (refused.length > all.length) refused.shift();
    const pad = all.map((_, at) => refused[at - all.length + refused.length] ?? 0);
    put(past, spark(all, pad, `Now ${rate(all[all.length - 1] ?? 0)} requests a second, ${rate(pad[pad.length - 1] ?? 0)} of them limited`));
    put(seen, when(now.last_seen));
    acts.querySelectorAll("button").forEach((button) => (button.disabled = !writable()));
  } };
}

/** Requests in each of the last seconds. */
export async function recorded(id, seconds, signal) {
  const told = await get(`/series?minutes=${Math.ceil(seconds / 60)}&client_id=${encodeURIComponent(id)}`, { signal });
  const begin = Math.floor(Date.now() / 1000) - seconds;
  const values = new Array(seconds).fill(0);
  told.at.forEach((at, place) => at >= begin && at < begin + seconds && (values[at - begin] = told.requests[place]));
  return told.at.length ? values : [];
}

/** The callers who ask most, or are refused most. */
function top(by, title) {
  const list = h("ul", { class: "plain" });
  const about = h("span", { class: "note" });
  const none = h("p", { class: "empty" }, "Nobody so far.");
  return { node: card(title, about, [list, none]), async load(signal, again) {
    const { seconds, items } = await get(`/top?by=${by}&limit=8`, { signal });
    set(about, seconds ? `${seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`}, about` : "");
    none.hidden = items.length > 0;
    keyed(list, items, (one) => `${one.client_id} ${one.address}`, (one) => {
      const told = h("div", { class: "note" });
      const make = one.address && h("button", { class: "quiet", type: "button", "aria-label": `Make client: ${one.address}`, onclick: () => edit({ client_id: one.address }, again) }, "Make client");
      const node = h("li", {}, h("div", { class: "grow" }, one.client_id ? link(one.client_id) : h("span", { class: "mono" }, one.address), told), make);
      return { node, update(now) {
        set(told, `${brief(now.requests)} requests, ${brief(now.limited)} limited`);
        if (make) make.disabled = !writable();
      } };
    });
  } };
}

/** What can be done to the client that `which` tells, behind one word. */
export function actions(which, again, gone) {
  const menu = h("details", { class: "menu" });
  const act = (text, work, kind) => h("button", { type: "button", class: kind, onclick: () => ((menu.open = false), work(which())) }, text);
  const block = act("Block", (client) => setMode(client, again));
  const open = h("summary", {}, "Edit…");
  put(menu, open, h("div", {},
    act("Edit", (client) => edit(client, again)),
    act("Grant tokens", (client) => grant(client, again)),
    act("Fill bucket", (client) => confirm(`Fill the bucket of ${client.client_id}?`, "It has all its tokens again, and none that were granted.", "Fill", async () => {
      await ask("POST", clientPath(client.client_id, "/reset"));
      done(`${client.client_id} has a full bucket`, again);
    })),
    block,
    act("Delete", (client) => confirm(`Delete ${client.client_id}?`, "Its keys and addresses are nobody's then. Its history stays, and rolls it back.", "Delete", async () => {
      await ask("DELETE", clientPath(client.client_id));
      done(`${client.client_id} was deleted`, gone ?? again);
    }, true), "danger")));
  menu.addEventListener("toggle", () => {
    // Fixed, since the table around it cuts off what hangs over.
    const { right, bottom } = open.getBoundingClientRect();
    Object.assign(open.nextSibling.style, { right: `${document.documentElement.clientWidth - right}px`, top: `${Math.min(bottom, innerHeight - 190)}px` });
    open.setAttribute("aria-label", `Edit… ${which().client_id}`);
    set(block, which().mode === "blocked" ? "Unblock" : "Block");
  });
  menu.addEventListener("keydown", (event) => event.key === "Escape" && ((menu.open = false), open.focus()));
  menu.addEventListener("focusout", ({ relatedTarget }) => relatedTarget && !menu.contains(relatedTarget) && (menu.open = false));
  return menu;
}

function done(text, again) {
  say(text);
  again();
}

function setMode(client, again) {
  const id = client.client_id;
  const blocked = client.mode === "blocked";
  const about = blocked ? "It is held to its limit again." : "Its requests are answered 403 from the next one on.";
  confirm(`${blocked ? "Unblock" : "Block"} ${id}?`, about, blocked ? "Unblock" : "Block", async () => {
    await ask("PATCH", clientPath(id), { mode: blocked ? "limit" : "blocked" });
    done(`${id} is ${blocked ? "let in" : "blocked"}`, again);
  }, !blocked);
}

const grant = (client, again) => form(`Grant tokens to ${client.client_id}`, [
  { name: "tokens", label: "Tokens", inputmode: "numeric", required: true, hint: "Added once, above the capacity if need be, and spent first" },
], "Grant", async ({ tokens }) => {
  await ask("POST", clientPath(client.client_id, "/grant"), { tokens: amount(tokens) });
  done(`${client.client_id} has ${tokens} tokens more`, again);
});

/** A number if it is one, and else the text, of which the API says what is wrong. */
const amount = (text) => (text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text));
const listed = (text) => text.split(/[\s,]+/).filter(Boolean);

/** Makes a client, or changes one: what the form says is sent, and what the API says stands at the fields. */
export function edit(client, again) {
  const old = client?.version ? client : null;
  const policies = Object.entries(client?.policies ?? {}).map(([name, own]) => `${name} ${own.capacity} ${own.rate_per_sec}`).join("\n");
  const fields = [
    !old && { name: "client_id", label: "Name", value: client?.client_id ?? "", required: true, wide: true, hint: "What it is known by, if it has neither key nor address of its own: an address, a network, or else its API key" },
    { name: "capacity", label: "Capacity, tokens", value: client?.capacity ?? "100", inputmode: "numeric" },
    { name: "rate_per_sec", label: "Rate, tokens a second", value: client?.rate_per_sec ?? "10", inputmode: "decimal" },
    { name: "mode", label: "Mode", type: "select", options: ["limit", "unlimited", "blocked"], value: client?.mode ?? "limit" },
    { name: "plan", label: "Plan", value: client?.plan ?? "", hint: "Its capacity and rate count then" },
    { name: "max_concurrent", label: "Requests at once", value: client?.max_concurrent ?? "", inputmode: "numeric", hint: "Empty: what counts for everybody" },
    { name: "addresses", label: "Addresses and networks", value: (client?.addresses ?? []).join(", "), hint: "With commas between them" },
    { name: "policies", label: "Of its own in policies", type: "textarea", value: policies, wide: true, hint: "One a line: name, capacity, rate" },
    { name: "note", label: "Note", type: "textarea", value: client?.note ?? "", wide: true },
    !old && { name: "generate_api_key", label: "Make an API key, shown once", type: "checkbox", wide: true },
  ].filter(Boolean);
  form(old ? `Edit ${old.client_id}` : "New client", fields, old ? "Save" : "Create", async (values) => {
    const own = {};
    for (const line of values.policies.split("\n").filter((line) => line.trim())) {
      const [name, capacity, rate_per_sec] = line.trim().split(/\s+/);
      own[name] = { capacity: amount(capacity ?? ""), rate_per_sec: amount(rate_per_sec ?? "") };
    }
    const wanted = { ...values, capacity: amount(values.capacity), rate_per_sec: amount(values.rate_per_sec), max_concurrent: amount(values.max_concurrent), plan: values.plan || null, addresses: listed(values.addresses), policies: own };
    if (old) return save(old, wanted, again);
    const body = Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== null && value !== false && value !== ""));
    if (!body.addresses.length) delete body.addresses;
    if (!Object.keys(own).length) delete body.policies;
    const made = await ask("POST", "/clients", body);
    done(`${made.client_id} was made`, again);
    if (made.api_key) setTimeout(() => reveal(`The API key of ${made.client_id}`, "It is shown now and never again.", made.api_key));
  });
}

/** Sends what has changed, for the version that was looked at. */
async function save(old, wanted, again) {
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const patch = Object.fromEntries(Object.entries(wanted).filter(([name, value]) => !same(value, old[name] ?? (name === "policies" ? {} : null))));
  // A merge keeps what is not named, so what goes is null.
  if (patch.policies) for (const name of Object.keys(old.policies ?? {})) patch.policies[name] ??= null;
  if (!Object.keys(patch).length) return;
  await ask("PATCH", clientPath(old.client_id), patch, { headers: { "If-Match": `"${old.version}"` } });
  done(`${old.client_id} was changed`, again);
}

export { field, grant, quota, setMode };

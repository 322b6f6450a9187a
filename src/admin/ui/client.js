// One client: what it may, what it does, what it did, and what another limit would do.

import { ApiError, ask, clientPath, every, get, writable } from "./api.js";
import { brief, card, h, keyed, number, pill, put, say, set, span, table, when } from "./dom.js";
import { actions, edit, quota } from "./clients.js";
import { confirm, form, reveal } from "./forms.js";
import { chart, gauge } from "./chart.js";

const SECONDS = 900;

export function client(view, signal, id) {
  const title = h("h1", { tabindex: -1 }, id);
  const state = h("span");
  const facts = h("dl", { class: "facts body" });
  const requests = chart(`Requests a second of ${id}`, [
    { label: "requests", key: "done", color: "accent", fill: true },
    { label: "rate in force", key: "limited", color: "warn" },
    { label: "rate of the candidate", key: "p50", color: "idle", dash: [6, 4] },
  ], { signal, format: brief, height: 170 });
  const tokens = chart(`Tokens of ${id}`, [{ label: "tokens", key: "done", color: "accent", fill: true }, { label: "as the limit in force has it", key: "p50", color: "idle", dash: [2, 3] }], { signal, format: brief, height: 150 });
  const advice = h("div", { class: "body" });
  const refusals = h("tbody");
  const noRefusals = h("p", { class: "empty" }, "None among the latest.");
  const past = h("div", {}, h("p", { class: "empty" }, "Loading"));
  const keys = h("ul", { class: "plain" });
  let now = null;
  const change = h("button", { type: "button", onclick: () => now && edit(now, again) }, "Edit");
  const fresh = h("button", { type: "button", class: "quiet", onclick: () => makeKey(id, again) }, "New key");
  const acts = actions(() => now, () => again(), () => (location.hash = "#/clients"));
  const parts = h("div", {},
    h("div", { class: "columns" }, card("Limit", h("div", { class: "buttons" }, change), facts), card("Another limit", advice)),
    card("Requests a second, as recorded", requests.legend, requests.node),
    card("Tokens", tokens.legend, tokens.node),
    card("Last refusals", [table("Last refusals", [["When"], ["Request"], ["From"], ["Refused by"], ["Asked for"], ["Status", "number"]], refusals), noRefusals]),
    card("API keys", fresh, keys),
    card("History", past));
  const gone = h("div", { hidden: true });
  put(view, h("div", { class: "head" }, h("a", { href: "#/clients" }, "Clients"), title, state, h("span", { class: "grow" }), h("a", { href: "#/explain", class: "explain" }, "Explain"), acts), gone, parts);

  const samples = new Map();
  let seen = 0;
  let draw = null;
  const again = every(1000, signal, async () => {
    try {
      now = await get(clientPath(id), { signal });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      parts.hidden = acts.hidden = true;
      gone.hidden = false;
      put(gone, card("There is no such client", h("div", { class: "body" }, h("p", {}, error.message), past)));
      history(seen === -1);
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
    put(state, pill(now.mode, { limit: "good", blocked: "bad" }[now.mode]));
    const fact = (name, ...value) => [h("dt", {}, name), h("dd", {}, value)];
    const own = Object.entries(now.policies ?? {});
    put(facts,
      fact("Tokens", now.tokens === null ? "nobody is limited" : [gauge(now.tokens, now.capacity), `${number(Math.floor(now.tokens))} of ${number(now.capacity)}`]),
      fact("Limit", `${quota(now)}${now.plan ? `, of the plan ${now.plan}` : ""}`),
      now.candidate && fact("Candidate", `${quota(now.candidate)}, would have limited ${brief(now.candidate_limited)}`),
      now.max_concurrent && fact("Requests at once", now.max_concurrent),
      own.map(([name, quotaOf]) => fact(`In ${name}`, quota(quotaOf))),
      fact("Allowed", brief(now.allowed)), fact("Limited", brief(now.limited)), fact("Last seen", when(now.last_seen)),
      fact("Addresses", now.addresses.join(", ") || "–"), now.note && fact("Note", now.note));
    const address = now.addresses[0]?.split("/")[0];
    view.querySelector(".explain").href = `#/explain${address ? `?address=${encodeURIComponent(address)}` : ""}`;
    keyed(keys, now.api_keys, (key) => key.key_id, (key) => keyRow(id, key, again));
    if (!now.api_keys.length) put(keys, h("li", { class: "muted" }, now.addresses.length ? "It has none." : "Its name is its key.")), (keys.known = new Map());
    change.disabled = fresh.disabled = !writable();
    acts.querySelectorAll("button").forEach((button) => (button.disabled = !writable()));
    if (now.tokens !== null) samples.set(Math.floor(Date.now() / 1000), now.tokens);
  }

  // What is recorded, the limit as a line in it, and how full its bucket was by that.
  draw = every(2000, signal, async () => {
    const told = await get(`/series?client_id=${encodeURIComponent(id)}`, { signal });
    if (!now) return;
    const begin = Math.floor(Date.now() / 1000) - SECONDS;
    const at = Array.from({ length: SECONDS }, (_, place) => begin + place);
    const counts = new Array(SECONDS).fill(0);
    told.at.forEach((second, place) => second >= begin && second < begin + SECONDS && (counts[second - begin] = told.requests[place]));
    const limited = now.mode === "limit";
    const line = (value) => at.map(() => value);
    requests.show(at, [counts, line(limited ? now.rate_per_sec : null), line(now.candidate?.rate_per_sec ?? null)]);
    let level = now.capacity;
    const model = counts.map((count) => (level = Math.max(0, Math.min(now.capacity, level + now.rate_per_sec) - count)));
    for (const second of samples.keys()) if (second < begin) samples.delete(second);
    tokens.show(at, [at.map((second) => samples.get(second) ?? null), limited ? model : line(null)]);
  });

  every(3000, signal, async () => {
    const { items } = await get(`/decisions?limit=10&client_id=${encodeURIComponent(id)}`, { signal });
    noRefusals.hidden = items.length > 0;
    keyed(refusals, items, (one) => one.request_id, (one) => {
      const moment = h("td");
      const node = h("tr", {}, moment, h("td", { class: "mono" }, one.request_id), h("td", { class: "mono" }, one.client_ip), h("td", {}, one.limited_by ?? one.decision),
        h("td", { class: "wrap mono" }, `${one.method} ${one.host}${one.path}`), h("td", { class: "number" }, one.status));
      return { node, update: () => put(moment, when(one.at)) };
    });
  });

  /** What was recorded says what would do. */
  async function advise() {
    const none = (text) => h("p", { class: "muted" }, text);
    const told = await get(clientPath(id, "/recommend?window=1h"), { signal }).catch((error) => error);
    const { candidate } = now;
    const trying = candidate && h("div", { class: "buttons" },
      h("button", { class: "main", type: "button", disabled: !writable(), onclick: () => confirm(`Put ${quota(candidate)} in force for ${id}?`, `It takes the place of ${quota(now)}. It would have limited ${brief(now.candidate_limited)} requests since it was set or the process started.`, "Promote", async () => {
        await ask("POST", clientPath(id, "/promote"));
        say(`${id} has ${quota(candidate)}`);
        again();
      }) }, "Promote candidate"),
      h("button", { type: "button", disabled: !writable(), onclick: async () => (await ask("PATCH", clientPath(id), { candidate: null }), again()) }, "Drop it"));
    const attempt = h("button", { type: "button", disabled: !writable(), onclick: () => tryOne(told.recommended) }, "Try a candidate");
    if (told instanceof Error) {
      put(advice, none(told.status === 404 ? "Nothing is recorded of it in the last hour, so nothing can be recommended." : told.message), trying, !candidate && attempt);
      return;
    }
    put(advice, h("dl", { class: "facts" },
      h("dt", {}, "Recommended"), h("dd", {}, h("b", {}, quota(told.recommended)), ` would have limited ${brief(told.would_limit)}`),
      h("dt", {}, "In force"), h("dd", {}, `${quota(now)} limits ${brief(told.in_force_limited)} by the same model`),
      h("dt", {}, "Recorded"), h("dd", {}, `${brief(told.requests)} requests in ${told.window}, ${brief(told.peak_per_sec)} in the busiest second`)),
    h("p", { class: "note" }, `Model: ${told.model}.`), trying, !candidate && attempt);
  }
  every(15000, signal, async () => now && advise());

  function tryOne(from) {
    form(`Try another limit for ${id}`, [
      { name: "capacity", label: "Capacity, tokens", value: from?.capacity ?? now.capacity, inputmode: "numeric" },
      { name: "rate_per_sec", label: "Rate, tokens a second", value: from?.rate_per_sec ?? now.rate_per_sec, inputmode: "decimal" },
    ], "Try", async ({ capacity, rate_per_sec }) => {
      const candidate = { capacity: Number(capacity), rate_per_sec: Number(rate_per_sec) };
      try {
        await ask("PATCH", clientPath(id), { candidate });
      } catch (error) {
        error.errors?.forEach((one) => (one.field = one.field.replace("candidate.", "")));
        throw error;
      }
      say(`${id} is tried with ${quota(candidate)}`);
      again();
    }, { about: "It is judged beside the limit in force and refuses nothing." });
  }

  async function history(known) {
    if (known) return;
    const { items, next_before } = await get(clientPath(id, "/history?limit=20"), { signal }).catch((error) => ({ items: [], failed: error.message }));
    const list = items.map((entry, place) => h("li", {},
      h("span", { class: "grow" }, h("b", {}, `${entry.version} ${entry.action}`), ` by ${entry.by}, `, when(entry.at), difference(entry)),
      entry.after && (place > 0 || items[0].action === "delete") && h("button", { class: "quiet", type: "button", disabled: !writable(), "aria-label": `Roll back to version ${entry.version}`, onclick: () => rollBack(entry) }, "Roll back")));
    put(past, items.length ? h("ul", { class: "plain" }, list) : h("p", { class: "empty" }, "Nothing is kept."), next_before && h("p", { class: "note left" }, "Earlier ones are in the API."));
  }

  function rollBack(entry) {
    const current = now && { before: now, after: entry.after };
    confirm(`Roll ${id} back to version ${entry.version}?`, current ? difference(current) : "It is there again, as it was then.", "Roll back", async () => {
      await ask("POST", clientPath(id, "/rollback"), { version: entry.version });
      say(`${id} is as it was at version ${entry.version}`);
      again();
    });
  }
}

const FIELDS = ["capacity", "rate_per_sec", "mode", "plan", "addresses", "api_keys", "note", "candidate", "max_concurrent", "policies"];

/** What a change changes, field by field. */
function difference({ before, after }) {
  const tell = (value) => {
    if (value === null || value === undefined || value === "") return "–";
    if (Array.isArray(value)) return value.map((one) => one.key_id ?? one).join(", ") || "–";
    return typeof value === "object" ? Object.entries(value).map(([name, one]) => `${name} ${typeof one === "object" ? quota(one) : one}`).join(", ") || "–" : String(value);
  };
  const lines = FIELDS.map((name) => [name, tell(before?.[name]), tell(after?.[name])]).filter(([, was, is]) => was !== is);
  if (!before || !after) return null;
  if (!lines.length) return h("div", { class: "note" }, "nothing that is shown");
  return h("dl", { class: "facts note" }, lines.map(([name, was, is]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, h("del", { class: "was" }, was), " ", h("ins", { class: "is" }, is))]));
}

function keyRow(id, key, again) {
  const about = h("span", { class: "note" });
  const drop = h("button", { class: "quiet", type: "button", "aria-label": `Delete key ${key.key_id}`, onclick: () => confirm(`Delete the key ${key.key_id} of ${id}?`, "Whoever uses it is nobody known from the next request on.", "Delete", async () => {
    await ask("DELETE", clientPath(id, `/keys/${encodeURIComponent(key.key_id)}`));
    say(`The key ${key.key_id} was deleted`);
    again();
  }, true) }, "Delete");
  const node = h("li", {}, h("span", { class: "grow mono" }, key.key_id), about, drop);
  return { node, update({ expires_at }) {
    const left = expires_at && (new Date(expires_at) - Date.now()) / 1000;
    set(about, !expires_at ? "never ends" : left > 0 ? `ends in ${span(left)}` : "has ended");
    drop.disabled = !writable();
  } };
}

const makeKey = (id, again) => form(`New API key for ${id}`, [{ name: "expires_at", label: "Ends at", hint: "Such as 2027-01-31T00:00:00Z. Empty: never" }], "Make", async ({ expires_at }) => {
  const made = await ask("POST", clientPath(id, "/keys"), expires_at ? { expires_at } : {});
  say(`${id} has another key`);
  again();
  setTimeout(() => reveal(`The new API key of ${id}`, "It is shown now and never again.", made.api_key));
});

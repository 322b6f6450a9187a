// Who a caller would be, and what it would get, step by step.

import { ask } from "./api.js";
import { card, h, number, pill, put, table } from "./dom.js";
import { explain as tellWrong, field } from "./forms.js";

const KINDS = { allowed: "good", unlimited: "good", limited: "warn", blocked: "bad" };

export function explain(view, signal, asked) {
  const fields = [
    { name: "address", label: "Address of the connection", value: asked.get("address") ?? "127.0.0.1", required: true },
    { name: "method", label: "Method", value: "GET" },
    { name: "host", label: "Host", placeholder: "api.example.com" },
    { name: "path", label: "Path", value: "/" },
    { name: "headers", label: "Headers, one a line", type: "textarea", rows: 4, wide: true, value: asked.get("headers") ?? "", hint: "Name: value. A key is looked up and forgotten." },
  ].map(field);
  const wrong = h("div", { class: "wrong", role: "alert" });
  const answer = h("div", { "aria-live": "polite" }, card("Answer", h("p", { class: "empty" }, "Ask, and this says who that is and what it gets. It takes no token.")));
  const form = h("form", { novalidate: true, onsubmit: submit }, h("div", { class: "form" }, fields.map((one) => one.node)), wrong,
    h("div", { class: "end" }, h("button", { class: "main", type: "submit" }, "Explain")));
  put(view, h("div", { class: "head" }, h("h1", { tabindex: -1 }, "Explain")),
    h("div", { class: "columns" }, card("A request", h("div", { class: "body" }, form)), answer));
  if (asked.has("address")) form.requestSubmit();

  async function submit(event) {
    event.preventDefault();
    fields.forEach((one) => one.say(""));
    put(wrong);
    const [address, method, host, path, headers] = fields.map((one) => one.value);
    const body = { address, headers: {} };
    for (const line of headers.split("\n").filter((line) => line.trim())) {
      const [name, ...rest] = line.split(":");
      if (!rest.length) return fields[4].say(`There is no colon in: ${line}`);
      const known = body.headers[name.trim().toLowerCase()];
      body.headers[name.trim().toLowerCase()] = known === undefined ? rest.join(":").trim() : [known, rest.join(":").trim()].flat();
    }
    if (method) body.method = method;
    if (host) body.host = host;
    if (path) body.path = path;
    try {
      put(answer, told(await ask("POST", "/explain", body, { signal })));
    } catch (error) {
      if (error.name !== "AbortError") tellWrong(error, fields, wrong);
    }
  }
}

function told(answer) {
  const fact = (name, value) => value !== null && value !== undefined && [h("dt", {}, name), h("dd", {}, value)];
  const client = answer.client_id && h("a", { href: `#/client/${encodeURIComponent(answer.client_id)}` }, answer.client_id);
  const status = answer.answer.code ?? answer.answer.status;
  const policies = answer.policies.map((policy) => h("tr", {}, h("th", { scope: "row" }, policy.name), h("td", {}, policy.key), h("td", { class: "number" }, policy.tokens === null ? "–" : number(policy.tokens)), h("td", {}, policy.decision ?? "–")));
  return [
    card("Answer", h("div", { class: "body" },
      h("p", { class: "verdict" }, pill(answer.decision ?? "not limited", KINDS[answer.decision]), status ? ` ${status}` : "", answer.answer.message ? ` ${answer.answer.message}` : ""),
      h("dl", { class: "facts" },
        fact("Caller", client || "nobody known"), fact("Address", answer.client_ip), fact("Recognised by", answer.matched_by), fact("Network", answer.network),
        fact("Key read from", answer.api_key_from), fact("Trusted proxy", answer.trusted_proxy), fact("Mode", answer.mode),
        fact("Bucket", answer.capacity === null ? null : `${number(answer.tokens)} of ${number(answer.capacity)} tokens, ${number(answer.rate_per_sec)} a second`),
        fact("Limited by", answer.limited_by), fact("Running", answer.running === null ? null : `${answer.running} of ${answer.max_concurrent}`), fact("Upstream", answer.upstream)))),
    card("Steps", h("div", { class: "body" }, h("ol", { class: "steps" }, answer.steps.map((step) => h("li", {}, step))))),
    policies.length > 0 && card("Policies", table("Policies", [["Policy"], ["Paid by"], ["Tokens", "number"], ["Decision"]], h("tbody", {}, policies))),
  ];
}

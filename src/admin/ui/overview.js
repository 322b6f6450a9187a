// What the server does now and did in the last quarter of an hour.

import { every, get } from "./api.js";
import { brief, card, h, millis, pill, put, rate, set, span, when } from "./dom.js";
import { chart } from "./chart.js";
import { known, live } from "./live.js";

const total = ({ answers }) => Object.values(answers).reduce((sum, count) => sum + count, 0);

/** Figures in a row: their names, and what sets them. */
function figures(names) {
  const values = names.map(() => h("dd", {}, "–"));
  const node = h("dl", { class: "figures" }, names.map((name, at) => h("div", {}, h("dt", {}, name), values[at])));
  return { node, show: (texts) => texts.forEach(([text, beside], at) => {
    const told = beside ? `${text} ${beside}` : text;
    if (values[at].textContent !== told) put(values[at], text, beside && h("small", {}, ` ${beside}`));
  }) };
}

export function overview(view, signal) {
  const top = figures(["Requests/s", "Limited/s", "Errors/s", "p95", "Connections", "In flight", "Buckets"]);
  const outcome = chart("Requests a second by outcome", [
    { label: "5xx", key: "failed", color: "bad", fill: true },
    { label: "429", key: "limited", color: "warn", fill: true },
    { label: "4xx", key: "refused", color: "idle", fill: true },
    { label: "2xx, 3xx", key: "done", color: "accent", fill: true },
  ], { signal, format: brief, stacked: true, height: 210 });
  const latency = chart("Latency in milliseconds", [
    { label: "p99", key: "p99", color: "bad" },
    { label: "p95", key: "p95", color: "warn" },
    { label: "p50", key: "p50", color: "idle", fill: true },
  ], { signal, format: millis, height: 170 });
  const load = chart("Connections and requests in flight", [
    { label: "connections", key: "done", color: "accent", fill: true },
    { label: "in flight", key: "limited", color: "warn" },
  ], { signal, format: brief, height: 170 });
  const state = h("dl", { class: "facts body" });
  const fleet = h("div", { class: "body" });
  const changes = h("ul", { class: "plain" });
  put(view,
    h("div", { class: "head" }, h("h1", { tabindex: -1 }, "Overview")),
    top.node,
    card("Requests a second", outcome.legend, outcome.node),
    h("div", { class: "columns" }, card("Latency, milliseconds", latency.legend, latency.node), card("Load", load.legend, load.node)),
    h("div", { class: "columns" }, card("Process", state), h("div", {}, card("Fleet and store", fleet), card("Latest changes of clients", changes))));

  let most = null;
  function draw() {
    const { samples } = known;
    const at = samples.map((one) => one.at);
    const column = (pick) => samples.map(pick);
    outcome.show(at, [
      column(({ answers }) => answers["5xx"] + answers.none), column(({ answers }) => answers["429"]),
      column(({ answers }) => answers["4xx"]), column(({ answers }) => answers["2xx"] + answers["3xx"])]);
    latency.show(at, ["p99", "p95", "p50"].map((name) => column(({ latency_ms }) => latency_ms[name])));
    load.show(at, [column((one) => one.connections), column((one) => one.in_flight)]);
    const last = samples[samples.length - 1];
    if (!last) return;
    top.show([
      [rate(total(last))], [rate(last.answers["429"])], [rate(last.answers["5xx"] + last.answers.none)], [millis(last.latency_ms.p95)],
      [brief(last.connections), most && `of ${brief(most)}`], [brief(last.in_flight)], [brief(last.buckets)]]);
  }
  live.addEventListener("sample", draw, { signal });
  live.addEventListener("series", draw, { signal });
  draw();

  const fact = (name, ...value) => [h("dt", {}, name), h("dd", {}, value)];
  every(3000, signal, async () => {
    const [status, nodes, latest] = await Promise.all([get("/status", { signal }), get("/fleet", { signal }), get("/changes?limit=8", { signal })]);
    most = status.max_connections;
    const kinds = { ready: "good", stopped: "bad" };
    put(state,
      fact("State", pill(status.state.replace("_", " "), kinds[status.state] ?? "warn")), fact("Running", span(status.uptime_seconds)),
      fact("Version", status.version), fact("Listens on", status.listeners.join(", ") || "–"), fact("Admin API", status.admin),
      fact("Clients", brief(status.clients)), fact("Requests", brief(status.requests)),
      fact("Decisions", `${brief(status.allowed)} allowed, ${brief(status.limited)} limited, ${brief(status.blocked)} blocked, ${brief(status.unlimited)} unlimited`));
    put(fleet, fleetOf(nodes, status, fact));
    put(changes, latest.items.length ? latest.items.map(changed) : h("li", { class: "muted" }, "No client was changed yet."));
  });
}

function fleetOf(fleet, status, fact) {
  const database = status.store_error ? [pill("failing", "bad"), ` ${status.store_error}`] : pill("writes", "good");
  if (fleet.state === "alone") {
    return h("dl", { class: "facts" }, fact("Database", database), fact("Fleet", pill("alone"), " this node shares with no other"));
  }
  const { store } = fleet;
  const evicted = store.evicted_keys ? `, ${brief(store.evicted_keys)} keys evicted` : "";
  return h("dl", { class: "facts" },
    fact("Database", database),
    fact("Fleet", pill(fleet.state, fleet.state === "joined" ? "good" : "bad"), ` since `, when(fleet.since), fleet.reason ? `: ${fleet.reason}` : ""),
    fact("Store", `${store.address ?? "–"}, ${millis(store.latency_ms)}, ${brief(store.errors)} errors${evicted}`),
    fact("Nodes", fleet.nodes.map((node) => h("div", {}, node.node === fleet.node ? h("b", {}, node.node) : node.node, ` ${node.version}, seen `, when(node.seen), `, ${brief(node.leased)} tokens leased`))));
}

function changed({ client_id, action, by, at, version }) {
  const verb = { create: "made", update: "changed", delete: "deleted", rollback: "rolled back" }[action] ?? action;
  return h("li", {}, h("span", { class: "grow" }, h("a", { href: `#/client/${encodeURIComponent(client_id)}` }, client_id), ` ${verb} by ${by}`),
    h("span", { class: "note" }, `version ${version}, `, when(at)));
}

/** Keeps a text in step with how the stream is. */
export function connection(place) {
  const words = { live: ["live", "good"], lost: ["connection lost", "bad"], connecting: ["connecting", ""] };
  const show = () => {
    const [text, kind] = words[known.state];
    set(place, text).className = `pill ${kind}`;
  };
  live.addEventListener("state", show);
  show();
}

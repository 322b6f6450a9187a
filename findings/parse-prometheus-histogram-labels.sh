#!/usr/bin/env bash
# npm parse-prometheus-text-format 1.1.1 with prom-client 15.1.3: what is left of a histogram that has labels?
#
# Seen: one set of buckets without a label, that of the series that came last, and no sum and no count. Two backends' latencies come
# in, one comes out, and nothing says which. A histogram without labels is read whole, and counters and gauges keep their
# labels. The readme's example of a histogram has no labels, and it does not say that none may be there. The text
# that is read is prom-client's own. Known upstream, and open since 2019.
#
# Ends with 1 when something else is read.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . prom-client@15.1.3 parse-prometheus-text-format@1.1.1 >/dev/null
cat >check.cjs <<'JS'
const { Histogram, Counter, Registry } = require("prom-client");
const parse = require("parse-prometheus-text-format").default ?? require("parse-prometheus-text-format");

const registers = [new Registry()];
const named = { help: "h", registers, buckets: [0.1, 1] };
const plain = new Histogram({ ...named, name: "plain_seconds" });
const labelled = new Histogram({ ...named, name: "labelled_seconds", labelNames: ["backend"] });
const count = new Counter({ help: "h", registers, name: "requests_total", labelNames: ["backend"] });
for (const seconds of [0.5, 0.5, 0.5]) plain.observe(seconds);
for (const seconds of [0.5, 0.5, 0.5]) labelled.observe({ backend: "a" }, seconds);
labelled.observe({ backend: "b" }, 5);
for (const backend of ["a", "b"]) count.inc({ backend });
registers[0].metrics().then((text) => {
  const seen = Object.fromEntries(parse(text).map(({ name, metrics }) => [name, metrics]));
  for (const [name, metrics] of Object.entries(seen)) console.log(name, JSON.stringify(metrics));
  const before = {
    plain_seconds: [{ buckets: { 0.1: "0", 1: "3", "+Inf": "3" }, count: "3", sum: "1.5" }],
    labelled_seconds: [{ buckets: { 0.1: "0", 1: "0", "+Inf": "1" } }],
    requests_total: [{ value: "1", labels: { backend: "a" } }, { value: "1", labels: { backend: "b" } }],
  };
  try {
    require("assert").deepStrictEqual(JSON.parse(JSON.stringify(seen)), before);
  } catch {
    console.error("this is not what was seen");
    process.exit(1);
  }
});
JS
node check.cjs

#!/usr/bin/env bash
# npm @opentelemetry/exporter-prometheus 0.223.0 with Python prometheus_client 0.26.0: what do attributes do to the page of metrics?
#
# Seen: some make it unreadable, as a whole, for Prometheus' own reader. Two attributes that differ in a character which labels cannot
# have, `user.id` and `user_id`, become one label twice; so does an attribute `le` on a histogram, beside the label of the bucket; and
# an attribute that begins with a digit becomes a label that does, which no label may. OpenTelemetry's rules for Prometheus have
# the values of attributes that meet in one label joined by `;`, and a leading digit mended. One such measurement anywhere in a
# process fails each scrape of it from then on, and the exporter says nothing.
#
# Ends with 1 when such pages can be read.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 20 or newer)" >&2; exit 2; }
command -v python3 >/dev/null || { echo "needs python3 (3.9 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . @opentelemetry/api@1.9.1 @opentelemetry/sdk-metrics@2.12.1 \
    @opentelemetry/exporter-prometheus@0.223.0 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check prometheus_client==0.26.0
cat >page.mjs <<'JS'
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";

const reader = new PrometheusExporter({ preventServerStart: true });
const meter = new MeterProvider({ readers: [reader] }).getMeter("check");
const measure = {
  plain: () => meter.createCounter("requests").add(1, { "user.id": "1" }),
  twice: () => meter.createCounter("requests").add(1, { "user.id": "1", user_id: "2" }),
  bucket: () => meter.createHistogram("duration").record(0.5, { le: "mine" }),
  digit: () => meter.createCounter("requests").add(1, { "2xx": "yes" }),
};
measure[process.argv[2]]();
const { resourceMetrics } = await reader.collect();
process.stdout.write(new PrometheusSerializer().serialize(resourceMetrics));
JS
cat >read.py <<'PY'
import sys

from prometheus_client.parser import text_string_to_metric_families

try:
    families = list(text_string_to_metric_families(sys.stdin.read()))
    print(f"{sys.argv[1]}: {len(families)} families read")
except ValueError as error:
    print(f"{sys.argv[1]}: {str(error).replace(chr(34), chr(39))}")
PY
for attributes in plain twice bucket digit; do
    node page.mjs "$attributes" | venv/bin/python read.py "$attributes"
done | tee seen
grep -q '^plain: 2 families read$' seen && [ "$(grep -c ': Invalid labels: ' seen)" = 3 ] || { echo "this is not what was seen" >&2; exit 1; }

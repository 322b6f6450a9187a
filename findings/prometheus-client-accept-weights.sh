#!/usr/bin/env bash
# PyPI prometheus_client 0.26.0: which form of metrics does it choose for an Accept with weights?
#
# Seen: OpenMetrics wherever it is named, whatever its weight, even where `q=0` says that it is not acceptable (RFC 9110, section
# 12.4.2), and the older text for the same type with capitals, which is no other one (section 8.3.1: types are
# case-insensitive). Prometheus itself sends weights, and is asked by `scrape_protocols` to prefer the older form so. A reader
# that knows only that form and says so by `q=0` gets one that it cannot read.
#
# Ends with 1 when this is no longer so.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs Python 3.9 or newer with venv" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check prometheus_client==0.26.0
"$work/venv/bin/python" - <<'PY'
from prometheus_client.exposition import choose_encoder

seen = []
for accept in [
    "text/plain;version=0.0.4",
    "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.1",
    "application/openmetrics-text;version=1.0.0;q=0.1,text/plain;version=0.0.4;q=0.9",
    "application/openmetrics-text;q=0,text/plain;version=0.0.4",
    "Application/OpenMetrics-Text;version=1.0.0",
]:
    chosen = choose_encoder(accept)[1].split(";")[0]
    seen.append(chosen)
    print(f"Accept: {accept}\n  gets {chosen}")
openmetrics = "application/openmetrics-text"
assert seen == ["text/plain", openmetrics, openmetrics, openmetrics, "text/plain"], "this is not what was seen"
PY

#!/usr/bin/env bash
# PyPI grafana-foundation-sdk 10.1.0: does a dashboard survive being read and written?
#
# Seen: not one whose panels name their source of data, which was the form of Grafana's exports up to version 8.2 and which
# Grafana still migrates: with a query in the panel, reading `"datasource": "Prometheus"` raises an AttributeError and `null`,
# which stands for the default, a TypeError. Without a query the name becomes `{}` without a word, so that the panel asks
# whatever is the default. The filters of an ad hoc variable and the `definition` of a query variable, both in every
# export, are dropped too. The form of today, an object with type and uid, is kept.
#
# Ends with 1 when this is no longer so.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs Python 3.11 or newer with venv" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'grafana-foundation-sdk==1769699998!10.1.0'
"$work/venv/bin/python" - <<'PY'
import json

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

plugins.register_default_plugins()


def again(dashboard):
    try:
        return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    except (AttributeError, TypeError) as error:
        return type(error).__name__


def source(given, *queries):
    panel = {"type": "timeseries", "title": "up", "datasource": given, "targets": list(queries)}
    kept = again({"title": "t", "panels": [panel]})
    return kept if isinstance(kept, str) else kept["panels"][0]["datasource"]


def variable(given):
    return set(given) - set(again({"title": "t", "templating": {"list": [given]}})["templating"]["list"][0])


today = {"type": "prometheus", "uid": "p"}
query = {"refId": "A", "expr": "up"}
seen = [source(today, query), source("Prometheus", query), source(None, query), source("Prometheus")]
lost = [
    variable({"type": "adhoc", "name": "f", "filters": [{"key": "job", "operator": "=", "value": "a"}]}),
    variable({"type": "query", "name": "q", "query": "label_values(up, job)", "definition": "label_values(up, job)"}),
]
print("data sources:", seen)
print("lost of variables:", lost)
assert seen == [today, "AttributeError", "TypeError", {}] and lost == [{"filters"}, {"definition"}], "this is not what was seen"
PY

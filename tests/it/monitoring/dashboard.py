"""Reads a dashboard into the types that Grafana makes from its own schema, and tells what did not survive."""

import json
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

# The schema leaves them to the source of the data; Prometheus' own knows them.
OF_PROMETHEUS = {"/annotations/list[0]/titleFormat", "/annotations/list[0]/textFormat"}


def lost(given, kept, place=""):
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            yield from lost(value, kept.get(key), f"{place}/{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, (one, other) in enumerate(zip(given, kept)):
            yield from lost(one, other, f"{place}[{index}]")
    elif given != kept and place not in OF_PROMETHEUS:
        yield f"{place}: {given!r} became {kept!r}"


plugins.register_default_plugins()
with open(sys.argv[1], encoding="utf-8") as file:
    dashboard = json.load(file)
print("\n".join(lost(dashboard, json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard))))))

#!/usr/bin/env bash
# Python prometheus_client 0.26.0: can it read the exemplars that it writes?
#
# Seen: not one whose label value has a quotation mark, or any other odd number of them. The writer escapes it (`\"`), as OpenMetrics 1.0
# has it; the parser of the same package then raises `Invalid line`, and the samples behind it are lost as well. It reads two
# marks, one in a label of the sample itself, a backslash and a line feed. An exemplar with a trace id never meets this, one with
# a path, a query or a name now and then.
#
# Ends with 1 when others are read, or raise.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3 (3.10 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check prometheus_client==0.26.0
venv/bin/python - <<'PY'
import sys

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def read_back(label, exemplar):
    """Whether a sample with this label and this exemplar is read as it was written, by `assert`."""
    registry = CollectorRegistry()
    requests = Counter("requests", "h", ["file"], registry=registry)
    requests.labels(label).inc(1, {"file": exemplar})
    text = generate_latest(registry).decode()
    try:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except ValueError as error:
        return str(error).split(":")[0]
    total = next(sample for sample in samples if sample.name == "requests_total")
    return (total.labels["file"], total.exemplar.labels["file"]) == (label, exemplar)


seen = {
    name: read_back(*values)
    for name, values in {
        "plain": ("a", "a"),
        "mark in the label": ('6" disk', "a"),
        "backslash in the exemplar": ("a", "a\\b"),
        "line feed in the exemplar": ("a", "a\nb"),
        "two marks in the exemplar": ("a", '"a"'),
        "one mark in the exemplar": ("a", '6" disk'),
    }.items()
}
for name, read in seen.items():
    print(f"{name}: {read}")
if [*seen.values()] != [True] * 5 + ["Invalid line"]:
    sys.exit("this is not what was seen")
PY

"""What schemathesis has to know of the admin API beyond its document.

A document of this kind says what each field may hold, not what fields mean together. So of the requests that are meant to be
accepted, the parts that contradict each other are taken away here. Requests that are meant to be refused stay as they are.
"""

import ipaddress
import json

import schemathesis
from schemathesis import GenerationMode

@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    if case.media_type == "application/x-ndjson":
        case.body = json.dumps({"client_id": "user1", "capacity": 100, "rate_per_sec": 10}) + "\n"
    else:
        case.body = consistent(case.body)
    if "client_id" in (case.path_parameters or {}) and isinstance(case.body, dict):
        # A client keeps its name, which is the one in the path.
        case.body.pop("client_id", None)
    if case.operation.label == "GET /clients" and case.query:
        # A cursor is what a page gave, and a stream has no pages.
        case.query.pop("cursor", None)
        if case.query.get("format") == "ndjson":
            case.query = {"format": "ndjson"}
    for header in ("If-Match", "If-None-Match"):
        # No version has an invented tag; with one, nothing but 412 would ever be seen.
        if case.headers and case.headers.get(header, "*") != "*":
            del case.headers[header]


def consistent(value):
    """The value without what contradicts something else in it."""
    # JSON Schema takes 10.0 for a whole number. The API does not, as whoever writes it may have meant another number.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return unique([consistent(item) for item in value], name)
    if isinstance(value, dict):
        fields = {key: consistent(item) for key, item in value.items()}
        # A client has one key, however it is given.
        keys = [key for key in ("api_key", "api_key_sha256", "generate_api_key") if key in fields]
        for key in keys[1:]:
            del fields[key]
        if isinstance(fields.get("addresses"), list):
            # 10.1.2.3/8 and 10.0.0.0/8 are one network.
            fields["addresses"] = unique(fields["addresses"], network)
        return fields
    return value


def name(item):
    """The name of a client among many; nothing for what is none."""
    return item.get("client_id") if isinstance(item, dict) else None


def network(text):
    found = ipaddress.ip_network(text, strict=False)
    mapped = found.version == 6 and found.prefixlen >= 96 and found.network_address.ipv4_mapped
    return ipaddress.ip_network((mapped, found.prefixlen - 96)) if mapped else found


def unique(items, key):
    """The items of which no earlier one has the same key; those without a key stay."""
    seen = set()
    kept = []
    for item in items:
        found = key(item)
        if found is None or found not in seen:
            kept.append(item)
        seen.add(found)
    return kept

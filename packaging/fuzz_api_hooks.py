"""What schemathesis has to know of the admin API beyond its document."""

import schemathesis
from schemathesis import GenerationMode


def acceptable(value):
    """A value that the document allows, without what no document of this kind can forbid."""
    # JSON Schema takes 10.0 for a whole number. The API does not, as whoever writes it may have meant another number.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [acceptable(item) for item in value]
    if isinstance(value, dict):
        fields = {name: acceptable(item) for name, item in value.items()}
        # A client has one key, however it is given.
        keys = [name for name in ("api_key", "api_key_sha256", "generate_api_key") if name in fields]
        for name in keys[1:]:
            del fields[name]
        return fields
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE:
        case.body = acceptable(case.body)

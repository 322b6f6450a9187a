"""What schemathesis has to know of the admin API beyond its document."""

import schemathesis


def whole(value):
    """JSON Schema takes 10.0 for a whole number; the API does not, as nobody who writes it is sure of it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value


@schemathesis.hook
def map_body(context, body):
    return whole(body)

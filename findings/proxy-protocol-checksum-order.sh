#!/usr/bin/env bash
# Python proxy-protocol 0.11.3 with crc32c 2.9.post0: is a right checksum of the PROXY protocol v2 found right?
#
# Seen: only while the fields behind the addresses stand in the order of their types, each once. The library does not sum up what it
# received, but what it would write of it: sorted, and of fields of one type the last. HAProxy (2.6.12) puts the checksum
# first and ALPN and the server's name behind it, of lower types, so with `proxy-v2-options crc32c,authority` each of its
# connections is refused with ProxyProtocolChecksumError, and none without the checksum. The protocol's document (section 2.2.3)
# has the sum be over the header as received, and names no order.
#
# Ends with 1 when others are refused.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs python3 (3.10 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check proxy-protocol==0.11.3 crc32c==2.9.post0
venv/bin/python - <<'PY'
import struct, sys

from crc32c import crc32c
from proxyprotocol import ProxyProtocolChecksumError
from proxyprotocol.v2 import ProxyProtocolV2

ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID = 1, 2, 3, 4, 5
ADDRESSES = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 40000, 443)


def header(fields):
    """A header with these fields, its checksum filled in."""

    def with_sum(value):
        body = ADDRESSES
        for kind, content in fields:
            content = value if kind == CRC32C else content
            body += struct.pack("!BH", kind, len(content)) + content
        return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(body)) + body

    return with_sum(struct.pack("!L", crc32c(with_sum(bytes(4)))))


def read(fields):
    try:
        return str(ProxyProtocolV2().unpack(header(fields)).source[0])
    except ProxyProtocolChecksumError:
        return "refused"


SUM, NAME = (CRC32C, None), (AUTHORITY, b"a.example")
seen = {
    name: read(fields)
    for name, fields in {
        "no checksum, not in order": [NAME, (ALPN, b"h2")],
        "checksum, id": [SUM, (UNIQUE_ID, b"7")],
        "ALPN, name, checksum": [(ALPN, b"h2"), NAME, SUM],
        "checksum, ALPN, name, as of HAProxy": [SUM, (ALPN, b"h2"), NAME],
        "checksum, padding twice": [SUM, (NOOP, bytes(1)), (NOOP, bytes(2))],
    }.items()
}
for name, source in seen.items():
    print(f"{name}: {source}")
if [*seen.values()] != ["192.0.2.1"] * 3 + ["refused"] * 2:
    sys.exit("this is not what was seen")
PY

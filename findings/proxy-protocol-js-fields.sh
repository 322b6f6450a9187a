#!/usr/bin/env bash
# npm proxy-protocol-js 4.0.6: where does the header of the PROXY protocol end?
#
# Seen: in version 2 behind the addresses. The fields that may stand behind them (a connection's id, the name of TLS, a checksum, or the
# padding NOOP) come out as the first bytes of `data`, before what the client sent, so that a request begins with them. The protocol
# counts the fields in the header's length, and lets a receiver skip them by it (section 2.2). In version 1, `PROXY UNKNOWN` with nothing
# behind it, which section 2.1 advises senders without addresses to write, is refused, whereas one with addresses is read.
# The readme says of neither that it is left out.
#
# Ends with 1 when fields are told from data, or the short line is read.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . proxy-protocol-js@4.0.6 >/dev/null
cat >check.cjs <<'JS'
const { V1ProxyProtocol, V2ProxyProtocol } = require("proxy-protocol-js");

const data = Buffer.from("GET / HTTP/1.1\r\n\r\n");
// PROXY, TCP over IPv4, from 192.0.2.1:4711 to 192.0.2.2:80, with these fields.
const version2 = (fields) => {
  const addresses = Buffer.from("c0000201c000020212670050", "hex");
  const start = Buffer.from("0d0a0d0a000d0a515549540a2111", "hex");
  return Buffer.concat([start, Buffer.from([0, addresses.length + fields.length]), addresses, fields, data]);
};
const seen = {};
const read = (what, parse) => {
  try {
    const of = parse().data;
    seen[what] = JSON.stringify(typeof of === "string" ? of : Buffer.from(of).toString("latin1"));
  } catch {
    seen[what] = "refused";
  }
  console.log(`${what}: data is ${seen[what]}`);
};
read("version 2, no field", () => V2ProxyProtocol.parse(version2(Buffer.alloc(0))));
read("version 2, unique id `id-1`", () => V2ProxyProtocol.parse(version2(Buffer.from("050004" + "69642d31", "hex"))));
read("version 2, NOOP", () => V2ProxyProtocol.parse(version2(Buffer.from("040000", "hex"))));
read("version 1, TCP4", () => V1ProxyProtocol.parse(`PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n${data}`));
read("version 1, UNKNOWN", () => V1ProxyProtocol.parse(`PROXY UNKNOWN\r\n${data}`));
const rest = JSON.stringify(data.toString());
const before = {
  "version 2, no field": rest,
  "version 2, unique id `id-1`": JSON.stringify(`\x05\x00\x04id-1${data}`),
  "version 2, NOOP": JSON.stringify(`\x04\x00\x00${data}`),
  "version 1, TCP4": rest,
  "version 1, UNKNOWN": "refused",
};
if (JSON.stringify(seen) !== JSON.stringify(before)) {
  console.error("this is not what was seen");
  process.exit(1);
}
JS
node check.cjs

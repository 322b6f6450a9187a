#!/usr/bin/env bash
# PyPI apache-log-parser 1.7.0: when was a request, if the clock's zone is off by half an hour?
#
# Seen: at a wrong time. Of the minutes of the zone a tenth counts: +0530, India's, is taken for five hours and three minutes, so
# that `time_received_utc_*` is 27 minutes late; Nepal's +0545 and Newfoundland's -0330 go wrong alike. Zones of whole hours are
# right, which is what its tests have. PyPI's apachelogs 0.6.1 reads all of them right.
#
# Ends with 1 when this is no longer so.
set -euo pipefail
command -v python3 >/dev/null || { echo "needs Python 3.8 or newer with venv" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check apache-log-parser==1.7.0 apachelogs==0.6.1
"$work/venv/bin/python" -W ignore - <<'PY'
from datetime import datetime, timezone

import apache_log_parser
import apachelogs

one, other = apache_log_parser.make_parser("%t"), apachelogs.LogParser("%t")
late = {}
for zone in ["+0000", "+0100", "-0800", "+0530", "+0545", "-0330", "+0930"]:
    line = f"[28/Nov/2026:10:00:01 {zone}]"
    right = datetime.strptime(line, "[%d/%b/%Y:%H:%M:%S %z]").astimezone(timezone.utc)
    assert other.parse(line).request_time == right
    told = one(line)["time_received_utc_datetimeobj"]
    late[zone] = int((told - right).total_seconds() / 60)
    print(f"{line}: told as {told:%H:%M} UTC, is {right:%H:%M} UTC")
expected = {"+0000": 0, "+0100": 0, "-0800": 0, "+0530": 27, "+0545": 41, "-0330": -27, "+0930": 27}
assert late == expected, f"this is not what was seen: {late}"
PY

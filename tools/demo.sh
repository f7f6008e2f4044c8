#!/bin/bash
# The tutorial scenario: two small web servers, one of which the policy forbids, a forbidden device and a forbidden
# kernel tunable. Shows what a user sees, then the log.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

# serve PORT: starts a web server on loopback and returns when it listens.
serve() {
    python3 -u -m http.server --bind 127.0.0.1 --directory "$work/www" "$1" >"$work/server.$1" 2>&1 &
    servers+=($!)
    for _ in $(seq 100); do
        if grep -q Serving "$work/server.$1"; then return; fi
        if ! kill -0 $! 2>/dev/null; then break; fi
        sleep 0.05
    done
    echo "demo: can't serve on port $1:" >&2
    tail -1 "$work/server.$1" >&2
    exit 1
}

mkdir "$work/www"
echo "hello from a server" >"$work/www/index.html"
serve 8080
serve 9090

echo "The policy, examples/tutorial.json:"
cat examples/tutorial.json
cat >"$work/scenario" <<'SCENARIO'
try() { echo; echo "\$ $*"; "$@"; }
try curl -sS http://127.0.0.1:8080
try curl -sS http://127.0.0.1:9090
try cat /dev/null
try cat /proc/sys/kernel/ostype
try cat /proc/sys/kernel/hostname
echo
SCENARIO
echo
echo "The same five commands, guarded: guard-run --policy examples/tutorial.json -- bash scenario"
bin/guard-run --policy examples/tutorial.json --log "$work/log.json" -- bash "$work/scenario" 2>&1

echo
echo "What was denied, from the log:"
python3 - "$work/log.json" <<'SHOW'
import json, sys
log = json.load(open(sys.argv[1]))
for event in log["events"]:
    subject = event.get("network") or event.get("device") or event.get("sysctl")
    what = ", ".join(f"{key} {value}" for key, value in subject.items() if value is not None)
    process = event["process"]
    print(f"  {event['verdict']} {event['op']} ({what})")
    print(f"    to {process['comm']}, pid {process['pid']}, by rule {event['rule']}, at {event['time']}")
SHOW
echo
echo "The whole log:"
cat "$work/log.json"

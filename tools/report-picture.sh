#!/bin/sh
# Takes the picture of the HTML report for the documents: of the golden page of render/tests, in headless Chromium.
# tools/report-picture.sh docs/pictures/report.png
set -eu

page=$(dirname "$(realpath "$0")")/../render/tests/golden/report.html
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" --window-size=1200,1040 \
    --screenshot="$(realpath "$1")" "file://$(realpath "$page")" >/dev/null 2>&1
[ -s "$1" ] || { echo "$0: Chromium made no picture; apt-get install chromium" >&2; exit 1; }

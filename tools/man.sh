#!/bin/sh
# man.sh FILE VERSION: a man page of docs/, in roff on standard output. By go-md2man, as the container engines make theirs; what it
# leaves to be desired: its title line has a form of its own, a backslash at a line's end is no break to it, the paragraph
# after a heading is one already, and there is no font C. What is said of a block to its test is no part of the page.
set -eu
command -v go-md2man >/dev/null || { echo "man.sh: needs go-md2man" >&2; exit 1; }
sed -e '/^<!-- .* -->$/d' -e "1s/^# \(.*\)(\([0-9]\))\$/% \1 \2 \"\" \"guard-run $2\"/" "$1" | go-md2man |
    awk '/^\.PP$/ && heading { heading = 0; next } { heading = /^\.SH / } { print }' |
    sed -e 's|\\\\\(\\&\)\?$|\n.br|' -e 's/\\fC/\\fB/g'

#!/bin/sh
# debian.sh FOLDER VERSION: adds to an installation in FOLDER what Debian's policy wants of a package beside the program.
set -eu
root=$1 version=$2
doc=$root/usr/share/doc/guard-run

# The licenses are in the copyright file.
rm "$doc"/LICENSE-*

# Debian's own changelog is about the packaging; the program's is beside it.
gzip -9n "$doc/CHANGELOG.md"
mv "$doc/CHANGELOG.md.gz" "$doc/changelog.gz"
date=$(LC_ALL=C date --utc --rfc-email --date "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}")
maintainer=$(sed -n 's/^maintainer = "\(.*\)"/\1/p' launcher/Cargo.toml)
gzip -9n >"$doc/changelog.Debian.gz" <<CHANGELOG
guard-run ($version-1) unstable; urgency=medium

  * Release $version; what has changed is in changelog.gz.

 -- $maintainer  $date
CHANGELOG

install -d "$root/usr/share/lintian/overrides"
install -m 644 packaging/lintian-overrides "$root/usr/share/lintian/overrides/guard-run"
find "$root/usr/share/man" -type f -exec gzip -9n {} +
# A link to a compressed page is named as such.
find "$root/usr/share/man" -type l | while read -r link; do
    ln -s "$(readlink "$link").gz" "$link.gz"
    rm "$link"
done

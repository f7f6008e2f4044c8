#!/bin/sh
# materials.sh VERSION TARGET: writes which crates are in the programs for a target of rustc, as CycloneDX, to target/materials.
set -eu
cd "$(dirname "$0")/.."
version=$1 target=$2

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
mkdir -p target/materials
# It writes a file into the folder of each crate of the workspace.
trap 'rm -f -- */materials.json' EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target "$target" --override-filename materials
for crate in launcher:guard-run selftest:guard-selftest hooks:guard-hooks; do
    # Crates of the workspace are called by where they are.
    sed "s|file://$PWD/|file://|g" "${crate%%:*}/materials.json" >"target/materials/${crate#*:}-$version-${target%%-*}.cdx.json"
done

#!/bin/sh
# dist.sh VERSION TARGET FOLDER: makes what a release has for a target of rustc, from the release programs in FOLDER, in
# target/dist: a tar ball, a Debian package, an RPM package and a Python wheel.
#
# Two runs on one commit make the same bytes: times are the commit's.
set -eu
cd "$(dirname "$0")/.."
version=$1 target=$2 built=$3
machine=${target%%-*}

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
release=$PWD/target/dist
hatchling=$PWD/target/tools/hatchling
work=$release/work/$machine
rm -rf "$work"
mkdir -p "$work"

# staged FOLDER ARGUMENTS...: installs into a folder.
staged() {
    folder=$1
    shift
    make --no-print-directory --old-file=build install DESTDIR="$folder" BUILT="$built" "$@" >"$work/log" || { cat "$work/log"; exit 1; }
}

# The tar ball has what belongs below the prefix.
ball=guard-run-$version-$machine-linux
staged "$work/local" PREFIX=/usr/local
mv "$work/local/usr/local" "$work/$ball"
tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+rw,go+r,go-w \
    --directory "$work" "$ball" | gzip -9n >"$release/$ball.tar.gz"
cp packaging/install.sh "$release"

make --no-print-directory --old-file=build deb BUILT="$built" DEB="$release" DEB_TARGET="$target"

staged "$work/rpm" PREFIX=/usr
find "$work/rpm/usr/share/man" -type f -exec gzip -9n {} +
find "$work/rpm/usr/share/man" -type l -exec sh -c 'ln -s "$(readlink "$1").gz" "$1.gz" && rm "$1"' sh {} \;
rpmbuild --quiet -bb --target "$machine-linux" --define "_topdir $work/rpmbuild" --define "_rpmdir $release" \
    --define '_rpmfilename %{name}-%{version}-%{release}.%{arch}.rpm' --define "stage $work/rpm" \
    --define "release_version $version" packaging/guard-run.spec

# A Python environment has programs in bin/ and what belongs to them in share/.
staged "$work/prefix" PREFIX=
wheel=$work/wheel
mkdir -p "$wheel/bin" "$wheel/share/guard-run" "$wheel/share/man"
cp packaging/wheel/* README.md LICENSE-* "$wheel"
cp "$work/prefix/bin/guard-run" "$work/prefix/bin/guard-selftest" "$wheel/bin"
cp -r "$work/prefix/share/guard-run" "$wheel/share"
cp -r "$work/prefix/share/man/man1" "$work/prefix/share/man/man5" "$wheel/share/man"
(cd "$wheel" && GUARD_RUN_VERSION=$version GUARD_RUN_MACHINE=$machine PYTHONPATH=$hatchling \
    python3 -m hatchling build --target wheel --directory "$release" >"$work/log") || { cat "$work/log"; exit 1; }

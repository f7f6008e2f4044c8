#!/bin/sh
# install.sh [--prefix FOLDER] [--uninstall]: installs guard-run from the tar ball for this machine that lies beside this script, if
# it is the one that SHA256SUMS tells of. FOLDER is /usr/local unless it is said.
set -eu

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

prefix=/usr/local
uninstall=
while [ $# -gt 0 ]; do
    case $1 in
    --prefix)
        [ $# -ge 2 ] || fail "--prefix needs a folder"
        prefix=$2
        shift
        ;;
    --uninstall) uninstall=1 ;;
    *) fail "what is $1? Usage: install.sh [--prefix FOLDER] [--uninstall]" ;;
    esac
    shift
done
case $prefix in
/*) ;;
*) fail "$prefix is no absolute path" ;;
esac

list=$prefix/share/guard-run/installed
if [ -n "$uninstall" ]; then
    [ -f "$list" ] || fail "nothing is installed below $prefix: there is no $list"
    while read -r file; do
        rm -f "$prefix/$file"
    done <"$list"
    rm "$list"
    # What others have put into the folders stays, and so do these then.
    find "$prefix/share/guard-run" "$prefix/share/doc/guard-run" -depth -type d -exec rmdir {} + 2>/dev/null || true
    echo "guard-run is no longer below $prefix"
    exit 0
fi

cd "$(dirname "$0")"
[ -f SHA256SUMS ] || fail "SHA256SUMS is not beside this script"
machine=$(uname -m)
set -- guard-run-*-"$machine"-linux.tar.gz
[ -f "$1" ] || fail "no tar ball for this machine ($machine) is beside this script"
[ $# = 1 ] || fail "several tar balls are beside this script: $*; leave the one to install"
ball=$1
# The name stands at a line's end, after two spaces.
sum=$(grep "  $ball\$" SHA256SUMS) || fail "SHA256SUMS doesn't tell of $ball"
echo "$sum" | sha256sum -c >/dev/null 2>&1 || fail "$ball is not the one that SHA256SUMS tells of: get it anew"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -xzof "$ball" -C "$folder" --strip-components 1
# Engines are told where the hook is.
hook=$folder/share/containers/oci/hooks.d/guard-run.json
sed "s|/usr/local/bin/|$prefix/bin/|" "$hook" >"$hook.new"
mv "$hook.new" "$hook"
mkdir -p "$prefix" 2>/dev/null || true
[ -w "$prefix" ] || fail "$prefix can't be written: run this as root, or name another folder by --prefix"
files=$(cd "$folder" && find . -type f -o -type l)
echo "$files" | sed 's|^\./||' | sort >"$folder/installed"
umask 022
while read -r file; do
    mkdir -p "$prefix/$(dirname "$file")"
    # A program that is executed at this moment is replaced, not written to.
    cp -P "$folder/$file" "$prefix/$file.new"
    mv -f "$prefix/$file.new" "$prefix/$file"
done <"$folder/installed"
cp "$folder/installed" "$list"

echo "guard-run is in $prefix/bin. Whether it can work on this machine: $prefix/bin/guard-run doctor"

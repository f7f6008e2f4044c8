#!/bin/sh
# msrv.sh: compiles what is shipped with the oldest Rust that Cargo.toml says is enough. rustup brings it, where it can be had; where it
# can't, this says so, and what is left are clippy's lint incompatible_msrv and the versions that cargo chooses by the dependencies' own.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! rustc "+$version" --version >/dev/null 2>&1 && ! timeout 600 rustup toolchain install "$version" --profile minimal; then
    echo "msrv: NOT CHECKED: there is no Rust $version here" >&2
    exit 0
fi
cargo "+$version" check --locked --package guard-run --package guard-hooks --package guard-selftest --target-dir target/msrv

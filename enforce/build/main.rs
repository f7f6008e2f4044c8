//! Leaves the eBPF programs of `launcher-ebpf` in OUT_DIR as Rust source: `guard.rs`, `named.rs` and `plain.rs`, which are shipped,
//! and `judge.rs` and `judge_named.rs`, for the tests. Parsing and relocating an object file is done here once, not at every start
//! of guard-run.
//!
//! The object files are those of the folder `programs`, if they were compiled from the sources that are here ([`carried`]); else they
//! are compiled. So who changes no program needs no LLVM. `GUARD_RUN_BUILD_EBPF=1` has them compiled in any case.

mod carried;
mod compile;
mod image;
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::exit,
};

use sha2::{Digest as _, Sha256};

/// An object file, and what it is compiled from.
struct Program {
    /// What it is called in OUT_DIR and in `programs`.
    name: &'static str,
    /// The program of `launcher-ebpf`.
    binary: &'static str,
    /// The feature that it is compiled with, or nothing.
    feature: &'static str,
}

const IMAGES: [Program; 5] = [
    Program { name: "guard", binary: "guard", feature: "" },
    Program { name: "judge", binary: "judge", feature: "" },
    Program { name: "judge_named", binary: "judge", feature: "names" },
    Program { name: "named", binary: "guard", feature: "names" },
    Program { name: "plain", binary: "guard", feature: "plain" },
];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = manifest.parent().expect("the crate is in a folder");
    println!("cargo::rerun-if-changed={}", manifest.join("build").display());
    println!("cargo::rerun-if-changed={}", manifest.join("programs").display());
    // A published crate is alone: there, all is as it was published.
    for path in ["launcher-ebpf", "common", "Cargo.lock"].map(|path| workspace.join(path)) {
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    for name in ["GUARD_RUN_BUILD_EBPF", "GUARD_EBPF_RUSTC", "GUARD_BPF_LINKER", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(message) = build(&manifest, workspace) {
        eprintln!("{message}");
        exit(1);
    }
}

fn build(manifest: &Path, workspace: &Path) -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let carried = manifest.join("programs");
    let built = env::var_os("GUARD_RUN_BUILD_EBPF").is_some_and(|value| value == "1")
        || !carried::are_current(&carried, workspace);
    let link = |name: &str, object: &Path| {
        let source = image::link(object).map_err(|error| format!("{}: {error}", object.display()))?;
        fs::write(out.join(name).with_extension("rs"), source).map_err(|error| error.to_string())
    };
    if built {
        compile::compile(workspace, &out, |name, object| {
            link(name, object)?;
            // Where `tools/programs.py` takes them from.
            fs::copy(object, out.join(name).with_extension("o")).map(drop).map_err(|error| error.to_string())
        })?;
    } else {
        IMAGES.iter().try_for_each(|Program { name, .. }| link(name, &carried.join(name).with_extension("o")))?;
    }
    let mut digest = Sha256::new();
    for Program { name, .. } in IMAGES {
        digest.update(fs::read(out.join(name).with_extension("rs")).map_err(|error| error.to_string())?);
    }
    let origin = if built { "compiled with this program" } else { "as released" };
    println!("cargo::rustc-env=GUARD_RUN_PROGRAMS={:.12} ({origin})", carried::hex(&digest.finalize()));
    Ok(())
}

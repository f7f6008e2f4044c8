//! Compiles the eBPF programs of `launcher-ebpf`, links them, and leaves them in OUT_DIR as Rust source: `guard.rs`,
//! `named.rs` and `plain.rs`, which are shipped, and `judge.rs` and `judge_named.rs`, for the tests. Parsing and relocating an object file is done here once,
//! not at every start of guard-run.

mod image;
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

use toolchain::{Toolchain, find_linker};

const TARGET: &str = "bpfel-unknown-none";

/// What is left in OUT_DIR, from which program, with which feature.
const IMAGES: [(&str, &str, &str); 5] = [
    ("guard", "guard", ""),
    ("judge", "judge", ""),
    ("judge_named", "judge", "names"),
    ("named", "guard", "names"),
    ("plain", "guard", "plain"),
];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = manifest.parent().expect("the crate is in a workspace");
    for path in ["launcher-ebpf", "common", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    for name in ["GUARD_EBPF_RUSTC", "GUARD_BPF_LINKER", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(message) = build(workspace) {
        eprintln!("{message}");
        exit(1);
    }
}

fn build(workspace: &Path) -> Result<(), String> {
    let toolchain = Toolchain::find()?;
    let linker = find_linker()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target = out.join("ebpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("-Clinker={}", linker.display()),
        // Atomic and 32-bit instructions: Linux 5.12, older than anything guard-run supports.
        "-Ctarget-cpu=v3".to_owned(),
        // Without this, clearing 16 bytes is a call of a function that clears them one by one, which the verifier
        // follows each time.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
    ];
    let compile = |program, feature| {
        let mut cargo = Command::new(&toolchain.cargo);
        // Nothing of the outer build's set-up may reach the inner one: it is for another target and another compiler.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CARGO") && name != "CARGO_HOME" || name.starts_with("RUST") && name != "RUSTUP_HOME" {
                cargo.env_remove(name);
            }
        }
        cargo
            .current_dir(workspace)
            .env("RUSTC", &toolchain.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .args(["build", "--package", "launcher-ebpf", "--bin", program, "--features", feature])
            .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(&target);
        if toolchain.build_std {
            cargo.arg("-Zbuild-std=core");
        }
        cargo.status()
    };
    for (name, program, feature) in IMAGES {
        let status = compile(program, feature).map_err(|error| format!("{}: {error}", toolchain.cargo.display()))?;
        if !status.success() {
            return Err(format!("compiling launcher-ebpf with {} failed ({status})", toolchain.rustc.display()));
        }
        let object = target.join(TARGET).join("release").join(program);
        let source = image::link(&object).map_err(|error| format!("{}: {error}", object.display()))?;
        fs::write(out.join(name).with_extension("rs"), source).map_err(|error| error.to_string())?;
    }
    Ok(())
}

//! Compiling the eBPF programs of `launcher-ebpf`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    IMAGES, Program,
    toolchain::{TARGET, Toolchain, find_linker},
};

/// Compiles each program of [`IMAGES`], and gives it, with its name and the path of its object file, to `done`.
pub fn compile(
    workspace: &Path,
    out: &Path,
    mut done: impl FnMut(&str, &Path) -> Result<(), String>,
) -> Result<(), String> {
    let toolchain = Toolchain::find()?;
    let linker = find_linker()?;
    let target = out.join("ebpf");
    let flags = [
        // aya-ebpf asks for a machine for `pt_regs`, which no program of ours reads: so the programs are the same for every one.
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        format!("-Clinker={}", linker.display()),
        // Atomic and 32-bit instructions: Linux 5.12, older than anything guard-run supports.
        "-Ctarget-cpu=v3".to_owned(),
        // Without this, clearing 16 bytes is a call of a function that clears them one by one, which the verifier
        // follows each time.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
    ];
    for Program { name, binary, feature } in IMAGES {
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
            .args(["build", "--package", "launcher-ebpf", "--bin", binary, "--features", feature])
            .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(&target);
        if toolchain.build_std {
            cargo.arg("-Zbuild-std=core");
        }
        let status = cargo.status().map_err(|error| format!("{}: {error}", toolchain.cargo.display()))?;
        if !status.success() {
            return Err(format!("compiling launcher-ebpf with {} failed ({status})", toolchain.rustc.display()));
        }
        let object: PathBuf = target.join(TARGET).join("release").join(binary);
        done(name, &object)?;
    }
    Ok(())
}
